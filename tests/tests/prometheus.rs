//! Alert and recording rules: right for promtool, tested by it, and only about what the daemon serves.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use tests::deploy::{self, files, is_metric, metrics_in, read, rules_in, yaml};
use tests::lab::{gate, process};

const FOLDER: &str = "deploy/prometheus";
const RUNBOOK: &str = "docs/runbook.md";

/// Alerts that an installation is promised.
const PROMISED: [&str; 10] = [
    "NodewatchSshUnexpected",
    "NodewatchSshBruteForce",
    "NodewatchSshSuccessAfterFailures",
    "NodewatchNsgDrift",
    "NodewatchPublicAddress",
    "NodewatchPolicyViolation",
    "NodewatchPacketsUncounted",
    "NodewatchInterfaceNotCovered",
    "NodewatchAgentDown",
    "NodewatchSshExpectedBlocked",
];

/// All rules of all files.
fn rules() -> Vec<Value> {
    let mut rules = Vec::new();
    for file in files(FOLDER, ".rules.yml").expect("rule files") {
        for document in yaml(&read(&file).expect("a file")).expect("YAML") {
            for group in document["groups"].as_array().expect("groups") {
                rules.extend(group["rules"].as_array().expect("rules").iter().cloned());
            }
        }
    }
    assert!(rules.len() > PROMISED.len());
    rules
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The anchor that a heading has where Markdown is shown.
fn anchors(markdown: &str) -> BTreeSet<String> {
    markdown
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| {
            heading
                .to_lowercase()
                .chars()
                .filter_map(|c| match c {
                    ' ' => Some('-'),
                    c if c.is_alphanumeric() || c == '-' => Some(c),
                    _ => None,
                })
                .collect()
        })
        .collect()
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    if gate::find_tool("promtool").is_none() {
        gate::skip("program promtool is not installed (package prometheus)");
        return;
    }
    let promtool = |arguments: &[&str], files: Vec<String>| {
        let mut command = Command::new("promtool");
        command
            .args(arguments)
            .args(files)
            .current_dir(deploy::path("."));
        if let Err(error) = process::checked(&mut command) {
            panic!("{error:#}");
        }
    };
    promtool(
        &["check", "rules", "--lint-fatal"],
        files(FOLDER, ".rules.yml").expect("rules"),
    );
    promtool(
        &["check", "config"],
        vec![format!("{FOLDER}/prometheus.yml")],
    );
    let tests = files(&format!("{FOLDER}/tests"), ".test.yml").expect("tests");
    assert!(!tests.is_empty());
    promtool(&["test", "rules"], tests);
}

#[test]
fn every_alert_says_what_to_do_and_is_tested() {
    let anchors = anchors(&read(RUNBOOK).expect("the runbook"));
    // Alerts that some test expects to fire, and not to fire.
    let mut fires = BTreeMap::<String, usize>::new();
    for file in files(&format!("{FOLDER}/tests"), ".test.yml").expect("tests") {
        let documents = yaml(&read(&file).expect("a file")).expect("YAML");
        let groups = documents.iter().flat_map(|document| {
            let tests = document["tests"].as_array().expect("tests");
            tests.iter()
        });
        let cases = groups.filter_map(|group| group["alert_rule_test"].as_array());
        for case in cases.flatten() {
            let expected = case["exp_alerts"].as_array().expect("exp_alerts").len();
            *fires.entry(text(case, "alertname").to_owned()).or_default() += expected;
        }
    }
    let mut alerts = BTreeSet::new();
    for rule in rules() {
        let name = text(&rule, "alert");
        if name.is_empty() {
            continue;
        }
        alerts.insert(name.to_owned());
        let annotations = &rule["annotations"];
        for field in ["summary", "description"] {
            assert!(!text(annotations, field).is_empty(), "{name}: no {field}");
        }
        let severity = text(&rule["labels"], "severity");
        assert!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        let url = text(annotations, "runbook_url");
        let anchor = url.strip_prefix(&format!("{RUNBOOK}#")).unwrap_or_default();
        assert!(
            anchors.contains(anchor),
            "{name}: {url} is none of {anchors:?}"
        );
        let tested = fires.get(name).copied().unwrap_or_default();
        assert!(tested > 0, "{name}: no test expects it to fire");
    }
    for promised in PROMISED {
        assert!(alerts.contains(promised), "no alert {promised}");
    }
}

#[test]
fn rules_ask_only_for_what_is_there() {
    let rules = rules();
    let recorded: BTreeSet<&str> = rules
        .iter()
        .map(|rule| text(rule, "record"))
        .filter(|name| !name.is_empty())
        .collect();
    let mut asked = 0;
    for rule in &rules {
        let query = text(rule, "expr");
        for metric in metrics_in(query) {
            assert!(is_metric(&metric), "nobody serves {metric}: {query}");
            asked += 1;
        }
        for name in rules_in(query) {
            assert!(
                recorded.contains(name.as_str()),
                "no rule records {name}: {query}"
            );
        }
    }
    assert!(asked > 10);
}
