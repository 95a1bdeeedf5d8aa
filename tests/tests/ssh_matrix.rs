//! A table of SSH software and situations: what is found, missed, false; what the outcome rests on.
//!
//! The servers' own logs are the truth. `cargo test -p tests --test ssh_matrix -- --nocapture` shows
//! the table.

#[path = "ssh_matrix/paths.rs"]
mod paths;
#[path = "ssh_matrix/scene.rs"]
mod scene;
#[path = "ssh_matrix/strangers.rs"]
mod strangers;
#[path = "ssh_matrix/wire.rs"]
mod wire;

use serde_json::Value;
use tests::daemon::Daemon;
use tests::lab::server::account::{PYTHON, USER, has_module};
use tests::lab::{self, Lab, UPLINK, wait};
use tests::tshark;

use scene::{PATIENCE, Scene};

/// Programs that take part.
const TOOLS: [&str; 10] = [
    "tcpdump",
    "tshark",
    "sshd",
    "ssh",
    "scp",
    "ssh-keygen",
    "openssl",
    "dropbear",
    "dbclient",
    "dropbearconvert",
];

/// What lasts no longer is over before it was looked at, on a busy machine.
const MOMENT_MS: u64 = 200;
/// Cases of which that may be so at a time.
const MOST_UNNAMED: usize = 3;
/// Connections whose HASSHes tshark reads, too.
const LEAST_COMPARED: usize = 30;
/// Outcomes that are right, of 100: those of hostile clients that stay unknown aside.
const LEAST_RIGHT: usize = 95;

fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or("-")
}

#[test]
fn every_software_and_situation() {
    let Some(_permit) = lab::require_with(&TOOLS) else {
        return;
    };
    if let Some(module) = ["asyncssh", "paramiko"]
        .into_iter()
        .find(|name| !has_module(name))
    {
        return lab::gate::skip(&format!("{PYTHON} has no {module} (cargo xtask setup)"));
    }
    let lab = Lab::new("matrix").expect("a lab");
    let (out, tiny) = (
        lab.add_outside().expect("a peer"),
        lab.add_outside().expect("a peer"),
    );
    let mut scene = Scene::new(&lab, &out, &tiny);
    for (name, script) in [
        (
            "paramiko_client.py",
            include_str!("../src/lab/client/paramiko_client.py"),
        ),
        (
            "hostile_client.py",
            include_str!("../src/lab/client/hostile_client.py"),
        ),
        (
            "hostile_window.py",
            include_str!("../src/lab/client/hostile_window.py"),
        ),
        (
            "asyncssh_client.py",
            include_str!("../src/lab/client/asyncssh_client.py"),
        ),
    ] {
        std::fs::write(lab.directory().join(name), script).expect("a script");
    }
    let path = lab.directory().join("matrix.pcap");
    let capture = lab.node().capture(UPLINK, &path).expect("a capture");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    scene.openssh();
    scene.others();
    scene.outwards();
    scene.pods();
    scene.strangers();
    scene.hostile();
    scene.windows();

    let expected = scene
        .cases
        .iter()
        .filter(|case| case.class.is_some())
        .count();
    let mut records = Vec::new();
    let closed = wait::until("the SSH connections", PATIENCE, || {
        records = daemon.records(&["ssh", "--all"]).expect("records");
        let is_closed = |record: &&Value| record["state"] == "closed";
        (records.iter().filter(is_closed).count() >= expected).then_some(())
    });
    let captured = capture.stop().expect("a capture");
    let theirs = tshark::hasshes(&captured.path, &scene.ports()).expect("HASSHes");
    let wire = wire::replayed(&lab, &captured.path);
    println!(
        "{:40} {:12} {:8} {:8} {:8} {:8} {:12} {:8} MS",
        "CASE", "CLASS", "TRUTH", "TOLD", "BASIS", "WIRE", "PROCESS", "USER"
    );
    // The same software by tshark, and the outcome from the capture alone.
    let (mut hasshes, mut differ) = (0, Vec::new());
    let (mut wire_right, mut wire_unknown, mut wire_wrong) = (0, Vec::new(), Vec::new());
    let (mut missed, mut wrong, mut unknown, mut right) = (Vec::new(), Vec::new(), Vec::new(), 0);
    // What is over in a moment may be gone before it was looked at, on a busy machine.
    let (mut short, mut hostile) = (Vec::new(), 0);
    let (mut problems, mut unnamed) = (Vec::new(), Vec::new());
    for case in &scene.cases {
        let (from, until) = (case.from.to_string(), case.until.to_string());
        let at = records.iter().position(|record| {
            let start = text(record, "start");
            record["destination"]["port"] == case.port
                && from.as_str() <= start
                && start <= until.as_str()
        });
        let Some(at) = at else {
            if case.class.is_some() {
                missed.push(case.name);
            } else {
                println!("{:38} -", case.name);
            }
            continue;
        };
        let record = records.remove(at);
        let port = record["source"]["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        // What a relay connects to has another port.
        let truth = match (case.truth, scene.server(case.port)) {
            (Some(truth), _) => truth,
            (None, Some(server)) => match server.verdict(port.expect("a port")) {
                Some(true) => "success",
                Some(false) => "failure",
                None => "none",
            },
            (None, None) => panic!("{}: nobody knows what came of it", case.name),
        };
        let told = text(&record, "authentication");
        let process = text(&record["process"], "name");
        let ports = wire::ports(&record);
        let on_wire = wire
            .get(&ports)
            .map_or("-", |record| text(record, "authentication"));
        for field in ["hassh", "hassh_server"] {
            if let Some(other) = theirs.get(&(ports, field)) {
                hasshes += 1;
                if other != text(&record, field) {
                    differ.push((case.name, field, other));
                }
            }
        }
        match on_wire {
            // A pod and the node speak without the uplink.
            "-" => {}
            _ if on_wire == truth => wire_right += 1,
            "unknown" => wire_unknown.push(case.name),
            _ if case.is_hostile() && on_wire != "success" => wire_unknown.push(case.name),
            _ => wire_wrong.push((case.name, truth, on_wire)),
        }
        println!(
            "{:40} {:12} {truth:8} {told:8} {:8} {on_wire:8} {process:12} {:8} {}",
            case.name,
            text(&record, "class"),
            text(&record, "basis"),
            text(&record, "user"),
            record["duration_ms"],
        );
        match told {
            _ if told == truth => right += 1,
            // Not to be deceived is enough.
            "unknown" | "none" | "failure" if case.is_hostile() => hostile += 1,
            "unknown" => unknown.push(case.name),
            _ => wrong.push((case.name, truth, told.to_owned())),
        }
        if record["class"].as_str() != case.class {
            problems.push(format!("{}: class {}", case.name, record["class"]));
        }
        if let Some(expected) = case.process
            && !process.starts_with(expected)
            && process != "-"
        {
            problems.push(format!("{}: process {process}", case.name));
        }
        // The end that is on this node; where a pod reaches the node, the node's.
        let end = text(&record, "local");
        let is_told = ["source", "destination"]
            .iter()
            .any(|end| record[end]["process"] == record["process"]);
        if !is_told {
            problems.push(format!("{}: {end}'s process", case.name));
        }
        let user = match (text(&record, "basis"), end) {
            ("process", _) if case.name.ends_with("root") => "root",
            ("process", _) => USER,
            (_, "source") if process == "ssh" => "root",
            // A TCP of its own is no socket of anybody.
            (_, "source") if case.process.is_none() => "-",
            (_, "source") => USER,
            _ => "-",
        };
        let told = text(&record, "user");
        if told != user && told != "-" {
            problems.push(format!("{}: user {told}, not {user}", case.name));
        }
        let is_named = told == user && (process != "-" || case.process.is_none());
        unnamed.extend((!is_named).then_some(case.name));
        let is_short = record["duration_ms"]
            .as_u64()
            .is_some_and(|ms| ms < MOMENT_MS);
        short.extend(is_short.then_some(case.name));
    }
    let judged = right + unknown.len() + wrong.len();
    println!(
        "found {}, missed {}, false {}; outcomes right {right}, unknown {}, wrong {}, hostile and \
         unknown {hostile}; process or user not named {unnamed:?}",
        judged + hostile,
        missed.len(),
        records.len(),
        unknown.len(),
        wrong.len()
    );
    println!(
        "HASSHes as tshark has them: {} of {hasshes}; outcomes from the capture alone: right {wire_right}, \
         unknown {}, wrong {}",
        hasshes - differ.len(),
        wire_unknown.len(),
        wire_wrong.len(),
    );
    println!("unknown from the capture alone: {wire_unknown:?}");
    println!("{}", daemon.tell(&["status"]).expect("a status"));
    assert!(closed.is_ok(), "{}", daemon.log());
    assert!(missed.is_empty(), "{missed:?}");
    assert!(records.is_empty(), "false: {records:#?}");
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(wire_wrong.is_empty(), "{wire_wrong:?}");
    assert!(differ.is_empty(), "{differ:?}");
    assert!(hasshes >= 2 * LEAST_COMPARED, "{hasshes} were compared");
    assert_eq!(captured.dropped, 0, "the capture is complete");
    assert!(problems.is_empty(), "{problems:#?}");
    let is_excused = |case: &&str| short.contains(case);
    assert!(unnamed.iter().all(is_excused), "{unnamed:?} but {short:?}");
    assert!(unnamed.len() <= MOST_UNNAMED, "{unnamed:?}");
    // Where the process was seen, or sizes are a proof, the outcome is right.
    let is_unnamed = |case: &&str| unnamed.contains(case);
    assert!(unknown.iter().all(is_unnamed), "{unknown:?}");
    assert!(
        right * 100 >= judged * LEAST_RIGHT,
        "{right} of {judged} are right, unknown {unknown:?}"
    );
}
