//! The table of cases in `docs/ssh.md` names tests that are there.

use std::{collections::BTreeSet, fs, path::Path};

/// Names of all functions below a folder.
fn functions(folder: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                functions(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let named = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("fn "));
            into.extend(named.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_case_has_the_tests_that_it_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut known = BTreeSet::new();
    for folder in ["monitor", "monitor-ebpf/common", "tests/tests"] {
        functions(&root.join(folder), &mut known);
    }
    let text = fs::read_to_string(root.join("docs/ssh.md")).expect("the page");
    let (_, table) = text.split_once("## Each case").expect("the table");
    let cases: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .collect();
    let mut checked = 0;
    for case in cases.iter().skip(1) {
        let tests = case.rsplit('|').nth(1).expect("a column");
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {case}");
        for name in names {
            assert!(known.contains(name), "no test is named {name}: {case}");
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
}
