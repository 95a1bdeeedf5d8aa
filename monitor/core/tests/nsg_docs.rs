//! The table of statements in `docs/nsg.md` names tests that are there, and all of them.

use std::{collections::BTreeSet, fs, path::Path};

/// Names of the tests of a source file.
fn tests_of(file: &Path) -> BTreeSet<String> {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut lines = text.lines().map(str::trim);
    let mut found = BTreeSet::new();
    while let Some(line) = lines.next() {
        if line == "#[test]" {
            let signature = lines.find(|line| !line.starts_with("#["));
            let name = signature.and_then(|line| line.strip_prefix("fn ")?.split_once('('));
            found.extend(name.map(|(name, _)| name.to_owned()));
        }
    }
    found
}

/// Where the tests of a module are that the table names.
fn file_of(module: &str) -> String {
    match module {
        "fields" | "names" | "order" | "platform" | "aks" => {
            format!("src/nsg/tests/statements/{module}.rs")
        }
        "profile::tests" => "src/nsg/profile/tests.rs".to_owned(),
        other => {
            let engine = other.strip_prefix("engine::");
            engine.map_or_else(
                || format!("src/nsg/tests/{other}.rs"),
                |module| format!("src/engine/tests/{module}.rs"),
            )
        }
    }
}

#[test]
fn the_table_of_statements_names_tests_that_are_there_and_all_of_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("../../docs/nsg.md")).expect("the page");
    let (_, section) = text
        .split_once("## Statements and their tests")
        .expect("the table");
    let mut named = BTreeSet::new();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    for row in rows.skip(1) {
        let column = row.rsplit('|').nth(1).expect("a column");
        let tests: Vec<_> = column.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            let (module, name) = test.rsplit_once("::").expect("a module");
            let known = tests_of(&root.join(file_of(module)));
            assert!(known.contains(name), "no test is named {test}: {row}");
            named.insert(test.to_owned());
        }
    }
    for module in ["fields", "names", "order", "platform", "aks"] {
        for name in tests_of(&root.join(file_of(module))) {
            let test = format!("{module}::{name}");
            assert!(named.contains(&test), "{test} is in no row of the table");
        }
    }
    assert!(named.len() > 80, "{}", named.len());
}
