//! What a capture of it tells: the outcome without any process.

use std::{collections::HashMap, path::Path, time::Duration};

use serde_json::Value;
use tests::daemon;
use tests::lab::{Lab, process};
use tests::tshark::Ports;

/// How long reading the capture may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Ports of a record.
pub(super) fn ports(record: &Value) -> Ports {
    let port = |end: &str| record[end]["port"].as_u64().unwrap_or_default();
    (port("source"), port("destination"))
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
