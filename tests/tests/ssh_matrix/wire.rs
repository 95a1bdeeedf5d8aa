//! What a capture of it tells: the same software by tshark, and the outcome without any process.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tests::daemon;
use tests::lab::{Lab, process};

/// How long reading the capture may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection: ports of client and server.
pub(super) type Ports = (u64, u64);

/// Ports of a record.
pub(super) fn ports(record: &Value) -> Ports {
    let port = |end: &str| record[end]["port"].as_u64().unwrap_or_default();
    (port("source"), port("destination"))
}

/// HASSH of clients and servers as tshark reads it.
pub(super) fn tshark(capture: &Path, servers: &[u16]) -> BTreeMap<(Ports, &'static str), String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(capture).args(["-n", "-T", "fields"]);
    for port in servers {
        command.args(["-d", &format!("tcp.port=={port},ssh")]);
    }
    command.args(["-Y", "ssh.kex.hassh or ssh.kex.hasshserver"]);
    for field in [
        "tcp.srcport",
        "tcp.dstport",
        "ssh.kex.hassh",
        "ssh.kex.hasshserver",
    ] {
        command.args(["-e", field]);
    }
    let text = process::checked_within(&mut command, PATIENCE).expect("tshark");
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [source, destination, client, server] = fields[..] else {
            panic!("{line}");
        };
        let number = |text: &str| text.parse().expect("a port");
        let (source, destination) = (number(source), number(destination));
        // The first of a connection: another key exchange has the same.
        let (ports, field, hassh) = if client.is_empty() {
            ((destination, source), "hassh_server", server)
        } else {
            ((source, destination), "hassh", client)
        };
        found
            .entry((ports, field))
            .or_insert_with(|| hassh.to_owned());
    }
    found
}

/// Records of the connections in a capture, of which no process tells anything.
pub(super) fn replayed(lab: &Lab, capture: &Path) -> HashMap<Ports, Value> {
    let mut command = daemon::command(lab.node(), &["replay", "-o", "jsonl"]).expect("a command");
    for local in ["10.224.0.4/32", "10.244.0.0/16", "fd00:224::4/128"] {
        command.args(["--local", local]);
    }
    let output = process::output(command.arg(capture), PATIENCE).expect("a replay");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let records = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let ssh = records.filter(|record| record["type"] == "ssh");
    ssh.map(|record| (ports(&record), record)).collect()
}
