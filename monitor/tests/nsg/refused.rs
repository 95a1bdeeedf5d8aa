//! Input that cannot be used.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{SSH, lines, run, sample};

/// Runs it and expects a refusal with status 2 that says this, and no verdict.
fn refuse(arguments: &[&str], input: &str, expected: &str) {
    let output = run(arguments, input);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(message.contains(expected), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

#[test]
fn a_bad_line_names_line_and_field_and_keeps_what_was_judged() {
    let file = format!("subnet={}", sample("snet-nodes-nsg.rest.json"));
    let arguments = ["nsg", "eval", "--nsg", &file, "--flows", "-"];
    let with = |key: &str, value: Value| {
        let mut flow: Value = serde_json::from_str(SSH).expect("JSON");
        flow[key] = value;
        flow.to_string()
    };
    let without = |key: &str| {
        let mut flow: Value = serde_json::from_str(SSH).expect("JSON");
        flow.as_object_mut().expect("an object").remove(key);
        flow.to_string()
    };
    for (bad, message) in [
        (without("source"), "-:3: field `source`: is missing"),
        (without("direction"), "-:3: field `direction`: is missing"),
        (without("protocol"), "-:3: field `protocol`: is missing"),
        (
            without("destination_port"),
            "-:3: field `destination_port`: is missing",
        ),
        (
            with("source", json!("10.0.0")),
            "field `source`: `10.0.0` is not an IP address",
        ),
        (
            with("source", json!("2001:db8::1")),
            "field `destination`: is of another address family",
        ),
        (
            with("destination_port", json!(65536)),
            "field `destination_port`: `65536` is not a port",
        ),
        (
            with("source_port", json!("ssh")),
            "field `source_port`: `ssh` is not a port",
        ),
        (
            with("protocol", json!(256)),
            "field `protocol`: `256` is not Tcp",
        ),
        (
            with("direction", json!("\u{1b}[2J")),
            r"field `direction`: `\u{1b}[2J` is not Inbound",
        ),
        (
            with("reply", json!(1)),
            "field `reply`: `1` is not true or false",
        ),
        ("{\"id\":".to_owned(), "-:3: not readable as JSON: EOF"),
        ("[]".to_owned(), "-:3: must be a JSON object"),
        ("x".repeat(2 << 20), "-:3: is longer than 1048576 bytes"),
        ("[".repeat(100_000), "recursion limit"),
    ] {
        let output = run(&arguments, &format!("{SSH}\n\n{bad}\n{SSH}\n"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(message), "{error}");
        assert_eq!(lines(&output).len(), 1, "the line before it was judged");
    }
}

#[test]
fn documents_that_cannot_be_used_are_refused_with_status_2() {
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let text = fs::read_to_string(sample("snet-nodes-nsg.rest.json")).expect("a sample");
    let twice = write(
        "twice.json",
        text.replacen("\"priority\": 110", "\"priority\": 100", 1)
            .as_bytes(),
    );
    let half = write("half.json", &text.as_bytes()[..text.len() / 2]);
    let wide = write("wide.json", b"\xff\xfe{\0}\0");
    let latin = write("latin.json", b"{\n\"name\": \"\xe9\"}");
    let list = sample("nsg-list.cli.json");
    for (rules, message) in [
        (
            vec!["--nsg", &*format!("subnet={twice}")],
            "twice.json:47: rule `DenySsh`: field `priority`",
        ),
        (vec!["--nsg", &format!("subnet={half}")], "half.json:"),
        (
            vec!["--nsg", &format!("subnet={wide}")],
            "is UTF-16: save it as UTF-8",
        ),
        (
            vec!["--nsg", &format!("subnet={latin}")],
            "latin.json:2: is not UTF-8",
        ),
        (
            vec!["--nsg", "subnet=/nonexistent.json"],
            "/nonexistent.json: No such file",
        ),
        (vec!["--nsg", "/x.json"], "write subnet=FILE or nic=FILE"),
        (
            vec!["--nsg", &format!("nic={list}")],
            "choose one as FILE#NAME",
        ),
        (
            vec!["--nsg", &format!("nic={list}#other")],
            "has no group `other`",
        ),
        (
            vec![
                "--nsg",
                &format!("nic={list}#nsg-snet-nodes"),
                "--nsg",
                &format!("nic={list}#nsg-snet-nodes"),
            ],
            "there is one group for the nic already",
        ),
        (
            vec!["--effective", &list],
            "does not say where its groups apply",
        ),
        (vec!["--service-tags", &list], "not readable as JSON"),
        (
            vec!["--admin-rules", &list],
            "field `direction`: is missing",
        ),
        (vec!["--tag", "Storage"], "`Storage` is not NAME=CIDR"),
        (vec!["--asg", "web=x"], "`x` is not an address"),
        (
            vec!["--nsg", "subnet=-"],
            "standard input is a file of rules already",
        ),
    ] {
        refuse(
            &[&["nsg", "eval", "--flows", "-"], &*rules].concat(),
            SSH,
            message,
        );
    }
    refuse(&["nsg", "eval"], "", "--flows");
    refuse(&["nsg", "lint"], "", "no rules: give --nsg");
    refuse(
        &["explain", "10.0.0.1", "::1"],
        "",
        "different address families",
    );
}
