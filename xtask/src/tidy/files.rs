//! Rules about files of any kind.

use crate::tidy::Finding;
use crate::tidy::masked::{Masked, has_word};

/// The longest Rust file.
const MOST_LINES: usize = 500;
/// The largest file outside test data.
const MOST_BYTES: usize = 100 * 1024;
/// Home directories and work areas that exist on one machine only.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
/// Words that announce work, which needs the number of an issue.
const OPEN_TASKS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// No large files outside `tests/data`; a lock file is what it is.
pub(crate) fn size(path: &str, bytes: usize) -> Option<Finding> {
    let exempt = path.starts_with("tests/data/") || path.ends_with("Cargo.lock");
    (bytes > MOST_BYTES && !exempt).then(|| {
        let message =
            format!("{bytes} bytes; large files belong into tests/data ({MOST_BYTES} allowed)");
        Finding::new(path, 1, message)
    })
}

/// Rules about the text of a file.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = machine_paths(path, text);
    findings.extend(open_tasks(path, text));
    if is_rust(path) {
        findings.extend(length(path, text));
        findings.extend(module_files(path));
    }
    findings
}

/// Whether a path is that of a Rust file.
pub(crate) fn is_rust(path: &str) -> bool {
    path.rsplit_once('.')
        .is_some_and(|(_, extension)| extension == "rs")
}

fn length(path: &str, text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    (lines > MOST_LINES).then(|| {
        let message = format!("{lines} lines, {MOST_LINES} allowed: split it by concept");
        Finding::new(path, MOST_LINES, message)
    })
}

fn module_files(path: &str) -> Option<Finding> {
    (path == "mod.rs" || path.ends_with("/mod.rs"))
        .then(|| Finding::new(path, 1, "write foo.rs beside foo/ instead of foo/mod.rs"))
}

fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    lines_with(text, |line| {
        MACHINE_PATHS.iter().any(|found| line.contains(found))
    })
    .map(|line| Finding::new(path, line, "a path that exists on one machine only"))
    .collect()
}

fn open_tasks(path: &str, text: &str) -> Vec<Finding> {
    let masked = is_rust(path).then(|| Masked::new(text).comments);
    let commented = [".toml", ".yml", ".yaml", ".sh"]
        .iter()
        .any(|end| path.ends_with(end));
    let Some(text) = masked.as_deref().or(commented.then_some(text)) else {
        return Vec::new();
    };
    let open = |line: &str| OPEN_TASKS.iter().any(|word| has_word(line, word)) && !has_number(line);
    lines_with(text, open)
        .map(|line| Finding::new(path, line, "an open task needs its issue, as #12"))
        .collect()
}

fn has_number(line: &str) -> bool {
    line.split('#')
        .skip(1)
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn lines_with(text: &str, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = usize> {
    text.lines()
        .enumerate()
        .filter(move |(_, line)| wanted(line))
        .map(|(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_found() {
        assert_eq!(check("a.rs", &"x\n".repeat(500)), []);
        assert_eq!(check("a.rs", &"x\n".repeat(501)).len(), 1);
        assert_eq!(check("a.md", &"x\n".repeat(501)), []);
    }

    #[test]
    fn large_files_are_found() {
        assert!(size("docs/picture.png", 200_000).is_some());
        assert!(size("tests/data/lab.pcap", 200_000).is_none());
        assert!(size("Cargo.lock", 200_000).is_none());
    }

    #[test]
    fn module_files_are_found() {
        assert_eq!(check("monitor/src/kube/mod.rs", "").len(), 1);
        assert_eq!(check("monitor/src/kube.rs", ""), []);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let text = format!("first\nsee {}me/x", MACHINE_PATHS[1]);
        assert_eq!(
            check("README.md", &text)
                .first()
                .map(|finding| finding.line),
            Some(2)
        );
        assert_eq!(check("README.md", "see /etc/nodewatch"), []);
    }

    #[test]
    fn open_tasks_need_an_issue() {
        let word = OPEN_TASKS[0];
        assert_eq!(check("a.rs", &format!("// {word}: later")).len(), 1);
        assert_eq!(check("a.toml", &format!("# {word}: later")).len(), 1);
        assert_eq!(check("a.rs", &format!("// {word}(#12): later")), []);
        assert_eq!(check("a.rs", &format!("let text = \"{word}\";")), []);
    }
}
