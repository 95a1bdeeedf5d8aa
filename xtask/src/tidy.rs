//! Rules of this repository that no other tool checks. Each has a test with an example that breaks it.
//!
//! | module | rules |
//! |---|---|
//! | [`files`] | length of files, size, names, paths of one machine, open tasks |
//! | [`code`] | where `unsafe` may be, what the core and the daemon may not call |
//! | [`layers`] | which package may depend on which |
//! | [`documents`] | metrics and reasons that are not documented |
//!
//! A rule is a function from a path and a text to findings, so it can be tested without files.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{printed, step};
use crate::workspace::Workspace;

mod code;
mod documents;
mod files;
mod layers;
mod masked;

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    message: String,
}

// === impl Finding ===

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// A file of the repository.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the root, with `/`.
    path: String,
    bytes: Vec<u8>,
}

/// Checks everything and says so.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    step("tidy", || check(workspace.root()))
}

/// Checks every rule; the error lists every finding.
pub(crate) fn check(root: &Path) -> Result<()> {
    let sources = sources(root)?;
    let mut findings = Vec::new();
    for source in &sources {
        findings.extend(files::size(&source.path, source.bytes.len()));
        let Ok(text) = std::str::from_utf8(&source.bytes) else {
            continue;
        };
        findings.extend(files::check(&source.path, text));
        if files::is_rust(&source.path) {
            findings.extend(code::check(&source.path, text));
        }
    }
    findings.extend(layers::check(root)?);
    findings.extend(documents::check(&sources));
    findings.sort();
    if findings.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    bail!("tidy found {}:\n{}", findings.len(), lines.join("\n"))
}

/// Files that are, or would be, under version control.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ])
    .current_dir(root);
    let paths = if root.join(".git").exists() {
        let listed = printed(&mut git)?;
        listed
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect()
    } else {
        // an unpacked archive
        let mut paths = Vec::new();
        walk(root, "", &mut paths)?;
        paths
    };
    let mut sources = Vec::new();
    for path in paths {
        let file = root.join(&path);
        // deleted, but not yet in the index; or a link
        if !file.is_file() || file.is_symlink() {
            continue;
        }
        let bytes = fs::read(&file).with_context(|| format!("cannot read {path}"))?;
        sources.push(Source { path, bytes });
    }
    Ok(sources)
}

fn walk(root: &Path, below: &str, paths: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() {
            name.clone()
        } else {
            format!("{below}/{name}")
        };
        let kind = entry.file_type()?;
        if kind.is_file() {
            paths.push(path);
        } else if kind.is_dir() && name != "target" && name != ".git" {
            walk(root, &path, paths)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_repository_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        if let Err(error) = super::check(&root) {
            panic!("{error:#}");
        }
    }
}
