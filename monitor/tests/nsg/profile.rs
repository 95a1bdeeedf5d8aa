//! Profiles, and what else is known of AKS.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{SSH, eval, lines, run, sample};

const CLOSED: &str = r#"{"name":"g","securityRules":[{"name":"NoInternet","priority":200,"direction":"Outbound","access":"Deny","protocol":"*","sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"Internet","destinationPortRange":"*"}]}"#;

/// Check, rule and reason of each issue, and what was said on standard error.
fn lint(arguments: &[&str], input: &str) -> (Vec<String>, String) {
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
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    let text = |issue: &Value, key: &str| issue[key].as_str().unwrap_or_default().to_owned();
    let issues = lines(&output);
    let issues = issues.iter().map(|issue| {
        let (check, rule) = (text(issue, "check"), text(issue, "rule"));
        format!("{check} {rule}: {}", text(issue, "why"))
    });
    (issues.collect(), error)
}

#[test]
fn the_profile_is_printed_changed_and_used() {
    let folder = TempDir::new().expect("a folder");
    let nsg = folder.path().join("nsg.json");
    fs::write(&nsg, CLOSED).expect("written");
    let file = format!("subnet={}", nsg.display());
    let (issues, _) = lint(&["--nsg", &file], "");
    assert_eq!(
        issues, [""; 0],
        "without a profile nothing is asked of the Internet"
    );
    let (built_in, error) = lint(&["--nsg", &file, "--profile", "aks"], "");
    let is_https =
        |issue: &String| issue.starts_with("need-blocked NoInternet: denies all of HTTPS");
    assert!(built_in.iter().any(is_https), "{built_in:?}");
    assert!(
        error.contains(
            "(`api-server`): not checked, ApiServer is not defined: give --tag ApiServer="
        ),
        "{error}"
    );
    // What is printed is what is built in, comments and all.
    let printed = run(&["nsg", "profile", "aks"], "");
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(
        text.starts_with("# What nodes of Azure Kubernetes Service"),
        "{text}"
    );
    let path = folder.path().join("profile.toml");
    let profile = path.to_str().expect("UTF-8");
    fs::write(&path, &text).expect("written");
    assert_eq!(
        lint(&["--nsg", &file, "--profile", profile], "").0,
        built_in
    );
    fs::write(
        &path,
        "name = \"mine\"\nextends = \"aks\"\n[[need]]\nname = \"https\"\nomit = true\n",
    )
    .expect("written");
    let (mine, _) = lint(&["--nsg", &file, "--profile", profile], "");
    assert_eq!(mine.len(), built_in.len() - 1, "{mine:?}");
    assert!(!mine.iter().any(is_https), "{mine:?}");
    fs::write(&path, "name = \"mine\"\nneed = 3\n").expect("written");
    let refused = run(&["nsg", "lint", "--nsg", &file, "--profile", profile], "");
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains(&format!("{profile}: line 2: ")), "{error}");
}

#[test]
fn verdicts_say_what_the_profile_needs_the_flow_for() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    let flow = json!({"direction": "Outbound", "protocol": "Tcp", "source": "10.224.0.4",
        "source_port": 1, "destination": "20.61.9.9", "destination_port": 443});
    let arguments = [
        "--nsg",
        &file,
        "--virtual-network",
        "10.224.0.0/12",
        "--profile",
        "aks",
        "--tag",
        "ApiServer=20.61.9.9",
    ];
    let found = eval(&arguments, &[&flow.to_string(), SSH]);
    assert_eq!(found[0]["need"], "api-server");
    assert!(found[1].get("need").is_none(), "{}", found[1]);
}

#[test]
fn ssh_to_nodes_is_told_apart() {
    let rule = |name: &str, priority: u16, source: &str| {
        json!({"name": name, "priority": priority, "direction": "Inbound", "access": "Allow",
            "protocol": "Tcp", "sourceAddressPrefix": source, "destinationAddressPrefix": "*",
            "destinationPortRange": "22"})
    };
    let document = json!({"name": "g", "securityRules": [
        rule("Office", 100, "203.0.113.0/24"),
        rule("Vpn", 110, "198.51.100.0/24"),
        rule("Bastion", 120, "192.0.2.0/26"),
    ]});
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("nsg.json");
    fs::write(&path, document.to_string()).expect("written");
    let file = format!("subnet={}", path.display());
    let flow = |source: &str, outcome: &str, initiator: &str| {
        json!({"type": "flow", "version": 1, "protocol": "TCP", "local": "destination",
            "initiator": initiator, "outcome": outcome,
            "source": {"ip": source, "port": 50123}, "destination": {"ip": "10.224.0.5", "port": 22}})
        .to_string()
    };
    let flows = [
        flow("203.0.113.9", "established", "source"),
        flow("198.51.100.7", "refused", "source"),
        flow("198.51.100.8", "unanswered", "source"),
        flow("20.0.0.1", "unanswered", "source"),
        // Nobody knows who opened it.
        flow("192.0.2.9", "midstream", "unknown"),
    ]
    .join("\n");
    let (issues, _) = lint(&["--nsg", &file, "--flows", "-"], &flows);
    let about = |check: &str| -> Vec<_> {
        issues
            .iter()
            .filter(|issue| issue.starts_with(check))
            .map(String::as_str)
            .collect()
    };
    assert_eq!(
        about("ssh-rule-missing"),
        [
            "ssh-rule-missing DenyAllInBound: SSH (TCP 22) from 20.0.0.1 was tried, and no rule allows it"
        ]
    );
    assert_eq!(
        about("ssh-not-served"),
        [
            "ssh-not-served Vpn: allows SSH (TCP 22), and none of 2 observed connections was answered: \
          SSH is disabled on the nodes, or refuses"
        ]
    );
    assert_eq!(
        about("ssh-range-unused"),
        [
            "ssh-range-unused Bastion: allows SSH (TCP 22) from 192.0.2.0/26, and none of 4 observed \
          flows used it"
        ]
    );
    // Said once.
    assert_eq!(about("unused Bastion"), [""; 0]);
}

#[test]
fn a_document_that_says_two_things_is_refused_and_a_doubtful_one_warned_of() {
    let twice = CLOSED.replace(r#""access":"Deny""#, r#""access":"Deny","access":"Allow""#);
    let refused = run(&["nsg", "lint", "--nsg", "subnet=-"], &twice);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        error.contains("-:1: rule `NoInternet`: field `access`: is there twice"),
        "{error}"
    );
    let slip = CLOSED.replace(
        r#""destinationPortRange":"*""#,
        r#""destinationPortRange":"*","destinationPortRangs":["443"]"#,
    );
    let (_, error) = lint(&["--nsg", "subnet=-"], &slip);
    assert!(
        error.contains(
            "warning: -:1: rule `NoInternet`: field `destinationPortRangs`: is not known"
        ),
        "{error}"
    );
}
