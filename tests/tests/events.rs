//! The event log and its schema, with records of a real daemon.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::daemon::{self, Daemon};
use tests::deploy::{path, tool};
use tests::lab::server::sshd::Sshd;
use tests::lab::{self, Lab, NODE, gate, process, wait};

/// How long until a connection is told of.
const TOLD: Duration = Duration::from_secs(15);

/// Checks a file of JSON lines by the schema; prints what is wrong in the first of them.
const CHECK: &str = r#"
import json, sys
import jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for number, line in enumerate(open(sys.argv[2]), 1):
    record = json.loads(line)
    kind = schema["$defs"].get(record.get("type"))
    if kind is None:
        sys.exit(f"line {number}: unknown type: {line}")
    part = jsonschema.Draft202012Validator({**schema, "oneOf": [kind]})
    for validator in (part, validator):
        error = jsonschema.exceptions.best_match(validator.iter_errors(record))
        if error:
            sys.exit(f"line {number}: {error.json_path}: {error.message}")
"#;

/// What the schema says of a file, if anything.
fn wrong(python: &Path, file: &Path) -> Option<String> {
    let mut command = Command::new(python);
    command
        .args(["-c", CHECK])
        .arg(path("docs/events.schema.json"))
        .arg(file);
    process::checked(&mut command)
        .err()
        .map(|error| format!("{error:#}"))
}

/// The Python that has jsonschema.
fn python() -> Option<PathBuf> {
    let validate = tool("kubernetes-validate");
    let python = validate.and_then(|path| Some(path.parent()?.join("python")));
    let python = python.filter(|path| path.is_file());
    if python.is_none() {
        gate::skip("jsonschema is not there (cargo xtask setup deploy)");
    }
    python
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn a_replay_is_written_as_the_schema_says() {
    let Some(python) = python() else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    // A datagram, and what is no IP packet, at an interface without a link layer.
    let mut capture = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        capture.extend(word.to_le_bytes());
    }
    let mut datagram = vec![0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0];
    datagram.extend([192, 0, 2, 1, 192, 0, 2, 2, 0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
    for packet in [datagram, vec![0; 28]] {
        for word in [1_700_000_000_u32, 0, 28, 28] {
            capture.extend(word.to_le_bytes());
        }
        capture.extend(packet);
    }
    let file = directory.path().join("one.pcap");
    fs::write(&file, capture).expect("a capture");
    let mut command = Command::new(daemon::binary().expect("a binary"));
    command.arg("replay").arg(&file).args(["-o", "jsonl"]);
    let output = command.output().expect("a replay");
    assert!(output.status.success(), "{output:?}");
    let records = directory.path().join("records.jsonl");
    fs::write(&records, output.stdout).expect("its records");
    let written = lines(&records);
    let kinds: Vec<_> = written.iter().map(|record| &record["type"]).collect();
    assert_eq!(kinds, ["flow", "summary"]);
    assert_eq!(written[1]["packets_uncounted"], 1);
    assert_eq!(wrong(&python, &records), None);
}

#[test]
fn findings_and_ssh_connections_are_written_as_the_schema_says() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh"]) else {
        return;
    };
    let Some(python) = python() else {
        return;
    };
    let lab = Lab::new("events").expect("a lab");
    let outside = lab.add_outside().expect("a peer");
    let server = Sshd::start(lab.node(), 2222).expect("an sshd");
    let log = lab.directory().join("events.jsonl");
    let place = log.display().to_string();
    let daemon = Daemon::start(
        lab.node(),
        &["--event-log", &place, "--expect-ssh", "admin=192.0.2.0/24"],
    )
    .expect("the daemon");
    let to: IpAddr = NODE.v4.into();
    for mut login in [
        server.login(&outside, to),
        server.refused_login(&outside, to),
    ] {
        process::output(login.arg("true"), process::PATIENCE).expect("a client");
    }
    let count =
        |wanted: &dyn Fn(&Value) -> bool| lines(&log).iter().filter(|one| wanted(one)).count();
    let closed = |one: &Value| one["type"] == "ssh" && one["state"] == "closed";
    let written = wait::until("both connections", TOLD, || {
        (count(&closed) == 2).then_some(())
    });
    assert!(written.is_ok(), "{:#?}\n{}", lines(&log), daemon.log());
    // An open session at the end is told of, too.
    let mut session = server.login(&outside, to);
    let session = outside
        .spawn("ssh", session.arg("sleep 60"))
        .expect("a session");
    let logged_in = |one: &Value| one["type"] == "ssh" && one["authentication"] == "success";
    let written = wait::until("the session", TOLD, || {
        (count(&logged_in) >= 3).then_some(())
    });
    assert!(written.is_ok(), "{:#?}", lines(&log));
    let flows = lab.directory().join("flows.jsonl");
    let mut told = daemon.tell(&["flows", "-o", "jsonl"]).expect("flows");
    told.push_str(
        &daemon
            .tell(&["ssh", "--all", "-o", "jsonl"])
            .expect("connections"),
    );
    told.push_str(&daemon.tell(&["findings", "-o", "jsonl"]).expect("findings"));
    fs::write(&flows, told).expect("a file");
    let stopped = daemon.stop().expect("an end");
    assert!(stopped.status.success());
    drop(session);

    assert_eq!(count(&closed), 3, "the last is closed with the daemon");
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for record in lines(&log) {
        let kind = format!("{} {}", record["type"], record["finding"]);
        *kinds.entry(kind).or_default() += 1;
    }
    assert_eq!(
        kinds.get("\"finding\" \"ssh-unexpected\""),
        Some(&2),
        "the server is reached, someone logs in, each once: {kinds:?}"
    );
    assert!(!kinds.keys().any(|kind| kind.contains("flow")), "{kinds:?}");
    for file in [&log, &flows] {
        assert_eq!(wrong(&python, file), None);
    }
    // The schema does find what is wrong.
    let mut record = lines(&log).remove(0);
    for (field, value) in [
        ("time", json!("yesterday")),
        ("version", json!(2)),
        ("type", json!("thing")),
    ] {
        let right = record[field].clone();
        record[field] = value;
        let file = lab.directory().join("wrong.jsonl");
        fs::write(&file, record.to_string()).expect("a file");
        assert!(wrong(&python, &file).is_some(), "{field}");
        record[field] = right;
    }
}
