//! Other programs: run them quietly, say how long they took, show their output when they fail.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write as _};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// How much of a failed program's output is shown.
const SHOWN_LINES: usize = 200;

/// Does one step of a chore and prints one line for it.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let terminal = std::io::stderr().is_terminal();
    if terminal {
        eprint!("       ...  {name}\r");
        let _ = std::io::stderr().flush();
    }
    let start = Instant::now();
    let result = work();
    let outcome = if result.is_ok() { "ok  " } else { "FAIL" };
    eprintln!("{outcome} {:6.1} s  {name}", start.elapsed().as_secs_f64());
    result
}

/// As [`step`], for work that prints a lot itself: the name comes first.
pub(crate) fn loud_step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("---- {name}");
    step(name, work)
}

/// Runs a program; its output appears only when it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if output.status.success() {
        return Ok(output);
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    bail!(
        "`{}` failed ({}):\n{}",
        line(command),
        output.status,
        tail(&text, SHOWN_LINES)
    );
}

/// What a program printed on standard output.
pub(crate) fn printed(command: &mut Command) -> Result<String> {
    let output = quiet(command)?;
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", line(command)))
}

/// Runs a program whose output the user should see as it comes.
pub(crate) fn visible(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if status.success() {
        return Ok(());
    }
    bail!("`{}` failed ({status})", line(command));
}

/// Runs a program in the foreground and hands its exit status on.
pub(crate) fn handed_over(command: &mut Command) -> Result<ExitCode> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", line(command)))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// A command as it would be typed; a script in it is not repeated.
pub(crate) fn line(command: &Command) -> String {
    let shown = |word: &OsStr| match word.to_string_lossy() {
        script if script.contains('\n') => "(script)".to_owned(),
        word => word.into_owned(),
    };
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(shown)
        .collect();
    words.join(" ")
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
