//! `nodewatch nsg lint`.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{SSH, eval, lines, run, sample};

/// Runs `nsg lint` and tells check and rule of each issue.
fn lint(arguments: &[&str], input: &str) -> Vec<String> {
    let all = [
        &[
            "nsg",
            "lint",
            "-o",
            "jsonl",
            "--virtual-network",
            "10.224.0.0/12",
        ],
        arguments,
    ]
    .concat();
    let output = run(&all, input);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let issues = lines(&output);
    for issue in &issues {
        for key in ["why", "suggestion", "nsg", "name", "rule", "direction"] {
            assert!(
                issue[key].as_str().is_some_and(|text| !text.is_empty()),
                "{key}: {issue}"
            );
        }
    }
    let text = |issue: &Value, key: &str| issue[key].as_str().unwrap_or_default().to_owned();
    issues
        .iter()
        .map(|issue| format!("{} {}", text(issue, "check"), text(issue, "rule")))
        .collect()
}

#[test]
fn lint_finds_what_is_idle_open_or_missing() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("nsg.json");
    let rule =
        |name: &str, priority: u16, access: &str, protocol: &str, source: &str, port: &str| {
            json!({"name": name, "priority": priority, "direction": "Inbound", "access": access,
            "protocol": protocol, "sourceAddressPrefix": source, "destinationAddressPrefix": "*",
            "destinationPortRange": port})
        };
    let document = json!({"name": "g", "securityRules": [
        rule("SshOpen", 100, "Allow", "Tcp", "*", "22"),
        rule("SshAdmin", 110, "Deny", "Tcp", "203.0.113.0/24", "22"),
        rule("Ping", 120, "Allow", "Icmp", "*", "8"),
        rule("Web", 130, "Allow", "Tcp", "Internet", "443"),
        rule("Door", 140, "Allow", "Tcp", "203.0.113.0/24", "80-443"),
        rule("NoBalancer", 4096, "Deny", "*", "*", "*"),
    ], "defaultSecurityRules": []});
    fs::write(&path, document.to_string()).expect("written");
    let file = format!("subnet={}", path.display());
    assert_eq!(
        lint(&["--nsg", &file], ""),
        [
            "shadowed SshAdmin",
            "never-matches Ping",
            "overlapping-allows Door",
            "open-ssh SshOpen",
            "nodes-blocked NoBalancer",
            "probes-blocked NoBalancer",
        ]
    );
    let flows = [SSH, &SSH.replace(":22}", ":443}")].join("\n");
    let observed = lint(&["--nsg", &file, "--flows", "-"], &flows);
    for expected in [
        "wider-than-observed SshOpen",
        "wider-than-observed Web",
        "unused Door",
    ] {
        assert!(
            observed.iter().any(|issue| issue == expected),
            "{expected}: {observed:?}"
        );
    }
    let status = |arguments: &[&str]| {
        run(&[&["nsg", "lint"], arguments].concat(), "")
            .status
            .code()
    };
    assert_eq!(status(&["--nsg", &file]), Some(0));
    assert_eq!(status(&["--nsg", &file, "--exit-code"]), Some(1));
    let good = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    assert_eq!(
        status(&[
            "--nsg",
            &good,
            "--virtual-network",
            "10.224.0.0/12",
            "--exit-code"
        ]),
        Some(0)
    );
    let table = run(&["nsg", "lint", "--nsg", &file], "");
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(table.starts_with("CHECK"), "{table}");
    assert!(table.contains("SshOpen (Inbound 100)"), "{table}");
    let json = run(&["nsg", "lint", "--nsg", &file, "-o", "json"], "");
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert!(
        json.as_array().is_some_and(|issues| issues.len() > 2),
        "{json}"
    );
}

#[test]
fn flow_records_of_nodewatch_are_observed_flows() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    let record = json!({"type": "flow", "version": 1, "protocol": "TCP", "local": "destination",
        "source": {"ip": "203.0.113.9", "port": 50123}, "destination": {"ip": "10.224.0.5", "port": 22}});
    assert_eq!(
        eval(&["--nsg", &file], &[&record.to_string()])[0]["rule"],
        "DenySsh"
    );
}

/// What `nsg lint` says on standard error, line by line; what it finds must be nothing.
fn unchecked(arguments: &[&str], document: &Value) -> Vec<String> {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("nsg.json");
    fs::write(&path, document.to_string()).expect("written");
    let file = format!("subnet={}", path.display());
    // With `--exit-code`: what could not be looked at is no issue.
    let given = ["nsg", "lint", "-o", "jsonl", "--exit-code", "--nsg", &file];
    let output = run(&[&given, arguments].concat(), "");
    let found = String::from_utf8_lossy(&output.stdout);
    assert_eq!((&*found, output.status.code()), ("", Some(0)));
    let error = String::from_utf8_lossy(&output.stderr);
    error.lines().map(str::to_owned).collect()
}

#[test]
fn lint_says_which_checks_it_could_not_make() {
    const NETWORK: &str = "not checked, VirtualNetwork is not defined: give --virtual-network \
                           CIDR, or effective rules (--effective FILE)";
    const PODS: &str = "nodewatch: nodes-blocked: checked within VirtualNetwork only; where pods \
                        have addresses of their own, as in an overlay network, give --pod-cidr CIDR";
    let rule = |source: &str, destination: &str| {
        json!({"name": "g", "securityRules": [{"name": "Web", "priority": 100,
            "direction": "Inbound", "access": "Allow", "protocol": "Tcp",
            "sourceAddressPrefix": source, "sourcePortRange": "*",
            "destinationAddressPrefix": destination, "destinationPortRange": "443"}]})
    };
    let any = rule("203.0.113.0/24", "*");
    assert_eq!(
        unchecked(&[], &any),
        [format!(
            "nodewatch: nodes-blocked, probes-blocked: {NETWORK}"
        )]
    );
    // Whether a private range is of the network nobody knows either.
    assert_eq!(
        unchecked(&[], &rule("203.0.113.0/24", "10.9.0.0/16")),
        [format!(
            "nodewatch: nodes-blocked, probes-blocked, never-matches of private ranges: {NETWORK}"
        )]
    );
    let pods = ["--pod-cidr", "10.225.0.0/16"];
    let network = ["--virtual-network", "10.224.0.0/12"];
    assert_eq!(unchecked(&pods, &any).len(), 1, "nodes are not known");
    assert_eq!(unchecked(&network, &any), [PODS]);
    assert_eq!(
        unchecked(&[network, pods].concat(), &any),
        [""; 0],
        "all was checked"
    );
    // A profile asks for more, and each name that is missing is said once.
    let found = unchecked(&["--profile", "aks"], &any);
    assert_eq!(
        found,
        [format!(
            "nodewatch: need-blocked (`api-server`, `https`, `dns`, `instance-metadata`, `time`), \
             nodes-blocked, probes-blocked: {NETWORK}"
        )]
    );
    // What Internet stands for is computed, and that is said where a rule of the user names it.
    let known = [network, pods].concat();
    assert_eq!(
        unchecked(&known, &rule("Internet", "*")),
        [
            "nodewatch: what is said of rules for Internet rests on an Internet computed from \
             VirtualNetwork, which approximates Azure's own list; effective rules (--effective) \
             have that list"
        ]
    );
    let tag = [&known[..], &["--tag", "Internet=203.0.113.0/24"]].concat();
    assert_eq!(unchecked(&tag, &rule("Internet", "*")), [""; 0]);
}
