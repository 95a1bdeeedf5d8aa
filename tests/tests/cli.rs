//! `nodewatch flows` and `status` against a live daemon: filters, formats, pipes.

#[path = "cli/record.rs"]
mod record;
#[path = "cli/scene.rs"]
mod scene;

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::daemon::Daemon;
use tests::lab::{Guard, NODE, client, gate, process, wait};

use record::{check_record, has_address, has_port};
use scene::{SHOW, Scene, permit};

#[test]
fn filters_choose_what_they_say() {
    let Some(_permit) = permit() else { return };
    let scene = Scene::new("filters");
    let daemon = Daemon::start(scene.lab.node(), &[]).expect("the daemon");
    scene.traffic();
    scene.wait_shown(&daemon);
    let flows = |arguments: &[&str]| {
        let all = [&["flows", "--last", "100000"], arguments].concat();
        daemon.records(&all).expect("records")
    };
    let all = flows(&[]);
    for record in &all {
        check_record(record);
    }
    let pod = scene.pod.addresses.v4.to_string();
    let web6 = format!("{}/128", scene.web.addresses.v6);
    for (arguments, holds) in [
        (
            ["--protocol", "udp"],
            Box::new(|r: &Value| r["protocol"] == "UDP") as Box<dyn Fn(&Value) -> bool>,
        ),
        (
            ["--protocol", "tcp"],
            Box::new(|r: &Value| r["protocol"] == "TCP"),
        ),
        (["--port", "80"], Box::new(|r: &Value| has_port(r, 80))),
        (["--port", "53"], Box::new(|r: &Value| has_port(r, 53))),
        (["--app", "ssh"], Box::new(|r: &Value| r["app"] == "ssh")),
        (["--app", "http"], Box::new(|r: &Value| r["app"] == "http")),
        (["--app", "tls"], Box::new(|r: &Value| r["app"] == "tls")),
        (["--app", "dns"], Box::new(|r: &Value| r["app"] == "dns")),
        (
            ["--point", "uplink"],
            Box::new(|r: &Value| r["point"] == "uplink"),
        ),
        (
            ["--point", "workload"],
            Box::new(|r: &Value| r["point"] == "workload"),
        ),
        (
            ["--outcome", "established"],
            Box::new(|r: &Value| r["outcome"] == "established"),
        ),
        (
            ["--outcome", "refused"],
            Box::new(|r: &Value| r["outcome"] == "refused"),
        ),
        (
            ["--ip", &pod],
            Box::new(|r: &Value| has_address(r, |a| a == pod)),
        ),
        (
            ["--ip", "10.244.0.0/16"],
            Box::new(|r: &Value| has_address(r, |a| a.starts_with("10.244."))),
        ),
        (
            ["--ip", &web6],
            Box::new(|r: &Value| has_address(r, |a| web6 == format!("{a}/128"))),
        ),
    ] {
        let chosen = flows(&arguments);
        let expected = all.iter().filter(|record| holds(record)).count();
        assert!(
            !chosen.is_empty(),
            "{arguments:?} chooses nothing of {all:#?}"
        );
        assert!(chosen.iter().all(&holds), "{arguments:?}: {chosen:#?}");
        assert!(
            chosen.len() >= expected,
            "{arguments:?}: {} of {expected}",
            chosen.len()
        );
        let others = flows(&[&["--not"], arguments.as_slice()].concat());
        assert!(!others.is_empty(), "--not {arguments:?} chooses nothing");
        assert!(
            !others.iter().any(&holds),
            "--not {arguments:?}: {others:#?}"
        );
    }
    let both = flows(&["--app", "http", "--point", "workload"]);
    assert!(
        both.iter()
            .all(|r| r["app"] == "http" && r["point"] == "workload"),
        "{both:#?}"
    );
    assert!(
        flows(&["--ip", "192.0.2.0/24"]).is_empty(),
        "an address that nobody has"
    );
    assert_eq!(
        daemon
            .records(&["flows", "--last", "2"])
            .expect("records")
            .len(),
        2
    );
    let recent = daemon
        .records(&["flows", "--since", "5m"])
        .expect("records");
    assert!(
        recent.len() >= all.len(),
        "{} in 5 minutes, {} in all",
        recent.len(),
        all.len()
    );
}

#[test]
fn what_happened_is_what_is_shown() {
    let Some(_permit) = permit() else { return };
    let scene = Scene::new("shown");
    let daemon = Daemon::start(scene.lab.node(), &[]).expect("the daemon");
    scene.traffic();
    scene.wait_shown(&daemon);
    let one = |arguments: &[&str]| {
        let all = [&["flows", "--last", "100000"], arguments].concat();
        let records = daemon.records(&all).expect("records");
        records
            .into_iter()
            .next()
            .unwrap_or_else(|| panic!("no record for {arguments:?}"))
    };
    let ssh = one(&["--app", "ssh", "--point", "uplink"]);
    assert_eq!(
        ssh["source"]["ip"],
        scene.outside.addresses.v4.to_string(),
        "{ssh:#}"
    );
    assert_eq!(ssh["destination"]["ip"], NODE.v4.to_string(), "{ssh:#}");
    assert_eq!(ssh["destination"]["port"], 22, "{ssh:#}");
    assert_eq!(
        (&ssh["local"], &ssh["initiator"]),
        (&"destination".into(), &"source".into()),
        "{ssh:#}"
    );
    assert_eq!(ssh["outcome"], "established", "{ssh:#}");
    assert!(
        ssh["tcp"]["handshake_rtt_us"]
            .as_u64()
            .is_some_and(|us| us < 1_000_000),
        "{ssh:#}"
    );
    let refused = one(&["--outcome", "refused", "--point", "workload"]);
    assert_eq!(
        refused["source"]["ip"],
        scene.pod.addresses.v4.to_string(),
        "{refused:#}"
    );
    assert_eq!(
        (&refused["destination"]["port"], &refused["local"]),
        (&81.into(), &"source".into())
    );
    let udp = one(&["--port", "7002", "--point", "workload"]);
    assert_eq!(udp["forward"]["packets"], 10, "{udp:#}");
    assert_eq!(udp["forward"]["bytes"], 10 * (20 + 8 + 100), "{udp:#}");
    assert_eq!(udp["reverse"], udp["forward"], "{udp:#}");
    assert_eq!(udp["outcome"], "established", "{udp:#}");
    let hole = wait::until("the unanswered flow", Duration::from_secs(30), || {
        let arguments = ["flows", "--last", "100000", "--outcome", "unanswered"];
        daemon
            .records(&arguments)
            .expect("records")
            .into_iter()
            .next()
    });
    let hole = hole.expect("a flow to the black hole is unanswered");
    assert_eq!(hole["destination"]["ip"], "198.51.100.7", "{hole:#}");
}

#[test]
fn formats_and_colour() {
    let Some(_permit) = permit() else { return };
    let scene = Scene::new("formats");
    let daemon = Daemon::start(scene.lab.node(), &[]).expect("the daemon");
    scene.traffic();
    scene.wait_shown(&daemon);
    let table = daemon.tell(&["flows"]).expect("a table");
    assert!(table.lines().count() > 3, "{table}");
    let head = table.lines().next().unwrap_or_default();
    assert!(
        head.contains("SOURCE") && head.contains("DESTINATION"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "escapes in a pipe: {table:?}");
    let wide = daemon.tell(&["flows", "-o", "wide"]).expect("a table");
    let width = |text: &str| text.lines().next().unwrap_or_default().len();
    assert!(
        width(&wide) > width(&table),
        "wide is not wider:\n{wide}\n{table}"
    );
    let json = daemon.tell(&["flows", "-o", "json"]).expect("JSON");
    let json: Value = serde_json::from_str(&json).expect("one JSON value");
    assert!(
        json.as_array().is_some_and(|records| !records.is_empty()),
        "{json:#}"
    );
    let status = daemon.tell(&["status"]).expect("a status");
    for word in ["eth0", &scene.pod.host_interface, "uplink", "workload"] {
        assert!(status.contains(word), "{word} is not in:\n{status}");
    }
    let status = daemon.tell(&["status", "-o", "json"]).expect("JSON");
    let _: Value = serde_json::from_str(&status).expect("one JSON value");
    if gate::find_tool("script").is_none() {
        return;
    }
    for (no_color, coloured) in [(None, true), (Some("1"), false)] {
        let line = format!(
            "{} flows --socket {}",
            tests::daemon::binary().expect("a binary").display(),
            daemon.socket().display()
        );
        let mut command = scene.lab.node().command("script");
        command
            .args(["-q", "-e", "-c", &line, "/dev/null"])
            .env("TERM", "xterm-256color");
        command
            .env_remove("NO_COLOR")
            .envs(no_color.map(|value| ("NO_COLOR", value)));
        let text = process::checked(&mut command).expect("a terminal's output");
        assert_eq!(
            text.contains("\u{1b}["),
            coloured,
            "NO_COLOR={no_color:?}: {text:?}"
        );
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let Some(_permit) = permit() else { return };
    let scene = Scene::new("pipe");
    let daemon = Daemon::start(scene.lab.node(), &[]).expect("the daemon");
    scene.traffic();
    scene.wait_shown(&daemon);
    for arguments in [
        ["flows", "-o", "jsonl"].as_slice(),
        &["flows"],
        &["flows", "-o", "json"],
        &["status"],
        &["flows", "-f", "-o", "jsonl"],
    ] {
        let mut command = daemon.cli(arguments).expect("a command");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut guard = Guard::start("a reader that leaves", &mut command).expect("a process");
        drop(guard.take_stdout());
        if arguments.contains(&"-f") {
            scene.traffic();
        }
        let status = guard.wait(Duration::from_secs(10));
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "{arguments:?}"
        );
    }
}

#[test]
fn following_shows_flows_as_they_come() {
    let Some(_permit) = permit() else { return };
    let scene = Scene::new("follow");
    let daemon = Daemon::start(scene.lab.node(), &[]).expect("the daemon");
    let mut command = daemon
        .cli(&["flows", "-f", "-o", "jsonl"])
        .expect("a command");
    let mut follower = scene
        .lab
        .node()
        .spawn("follow", &mut command)
        .expect("a process");
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    let url = client::url("http", scene.web.addresses.v4.into(), "/");
    process::checked(&mut client::curl(&scene.pod, &url)).expect("curl");
    let shown = wait::until("the flow", SHOW, || {
        let log = follower.log();
        let records = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut http = records.filter(|record| record["app"] == "http");
        http.next()
    });
    let shown = shown.unwrap_or_else(|error| panic!("{error:#}: {}", follower.log()));
    println!("shown {:?} after the request: {shown}", start.elapsed());
    check_record(&shown);
    assert!(follower.is_running(), "it ended: {}", follower.log());
    follower.signal(libc::SIGINT);
    let status = follower.wait(Duration::from_secs(3)).expect("an end");
    assert!(
        status.success() || status.code().is_none() || status.code() == Some(130),
        "{status}"
    );
    // A follower of a daemon that goes away ends by itself.
    let mut command = daemon.cli(&["flows", "-f"]).expect("a command");
    let mut follower = scene
        .lab
        .node()
        .spawn("follow", &mut command)
        .expect("a process");
    std::thread::sleep(Duration::from_millis(500));
    let stopped = daemon.stop().expect("an end");
    assert!(
        stopped.took < Duration::from_secs(2),
        "a follower delays the end: {stopped:?}"
    );
    let status = follower.wait(Duration::from_secs(3));
    assert!(
        status.is_some(),
        "the follower does not notice: {}",
        follower.log()
    );
}
