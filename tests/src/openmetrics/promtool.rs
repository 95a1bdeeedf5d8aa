//! What `promtool check metrics` says of an exposition.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lab::process;

/// Fails where promtool finds anything to say of an exposition; a file in `directory` holds it meanwhile.
pub fn check(openmetrics: &str, directory: &Path) -> Result<()> {
    let file = directory.join("exposition.txt");
    fs::write(&file, classic(openmetrics)).context("cannot write the exposition")?;
    let mut command = Command::new("sh");
    command.args(["-c", "exec promtool check metrics <\"$1\" 2>&1", "sh"]);
    let said = process::checked(command.arg(file))?;
    ensure!(said.trim().is_empty(), "promtool: {said}");
    Ok(())
}

/// The same in the older format, which its parser wants: a counter's name in `# TYPE` carries the suffix.
fn classic(openmetrics: &str) -> String {
    let mut text = String::new();
    let counters: Vec<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    for line in openmetrics
        .lines()
        .filter(|line| *line != "# EOF" && !line.starts_with("# UNIT"))
    {
        let mut words: Vec<String> = line.splitn(4, ' ').map(str::to_owned).collect();
        if line.starts_with("# ") && counters.contains(&words[2].as_str()) {
            words[2].push_str("_total");
        }
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    text
}
