//! What network policies mean, one test for each rule of `docs/networkpolicy.md`, from manifests to
//! verdicts.

mod networkpolicy {

    mod hosts;
    mod isolation;
    mod peers;
    mod ports;
    mod schemas;
    mod tiers;
    mod world;
}

/// Tests in a text that the document names.
fn rules(text: &str) -> std::collections::BTreeSet<&str> {
    text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(|word| word.starts_with("rule_"))
        .collect()
}

#[test]
fn the_document_names_every_test() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).expect("a file");
    let document = read("docs/networkpolicy.md");
    let files = ["hosts", "isolation", "peers", "ports", "tiers"];
    let mut sources = files
        .map(|file| read(&format!("monitor/tests/networkpolicy/{file}.rs")))
        .concat();
    sources += &read("monitor/core/src/engine/tests/policy.rs");
    assert_eq!(rules(&document), rules(&sources));
    let numbers: std::collections::BTreeSet<_> = rules(&document)
        .iter()
        .map(|rule| &rule[5..7])
        .map(str::to_owned)
        .collect();
    let expected = (1..=60).map(|number| format!("{number:02}"));
    assert!(numbers.into_iter().eq(expected), "sixty rules");
}
