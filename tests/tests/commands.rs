//! What the commands say, besides records: formats, refusals, signals, and what `doctor` finds.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::daemon::{self, Daemon, mentions};
use tests::foreign;
use tests::lab::process::{self, Guard};
use tests::lab::{self, Lab, UPLINK, client, wait};

/// How long a command may take.
const SOON: Duration = Duration::from_mins(1);
/// A user without privileges.
const NOBODY: [&str; 5] = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];

#[test]
fn a_followed_array_is_closed_by_a_signal() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("array").expect("a lab");
    let peer = lab.add_inside().expect("a peer");
    let _echo = client::serve(&peer, "udp-serve", 7002).expect("a server");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut command = daemon
            .cli(&["flows", "-f", "--port", "7002", "-o", "json"])
            .expect("a command");
        command.stdout(Stdio::piped());
        let mut guard = Guard::start("follow", &mut command).expect("a process");
        let mut stdout = BufReader::new(guard.take_stdout().expect("its output"));
        let to = SocketAddr::new(peer.addresses.v4.into(), 7002).to_string();
        let udp = ["udp", "--to", &to, "--count", "3", "--echo"];
        assert_eq!(
            client::send(lab.node(), &udp).expect("a report").received,
            3
        );
        let mut text = String::new();
        // Written with the first record; a line ends where the next one begins.
        stdout.read_line(&mut text).expect("the beginning");
        assert_eq!(text, "[\n");
        guard.signal(signal);
        stdout.read_to_string(&mut text).expect("the end");
        assert_eq!(guard.wait(SOON).and_then(|status| status.code()), Some(0));
        let array: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("signal {signal}: {error}:\n{text}");
        });
        assert!(!array.as_array().expect("an array").is_empty());
    }
}

#[test]
fn states_are_told_in_every_format() {
    let Some(_permit) = lab::require_with(&["tc"]) else {
        return;
    };
    let lab = Lab::new("formats").expect("a lab");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    let table = daemon.tell(&["status", "-o", "table"]).expect("a table");
    assert!(table.contains(UPLINK), "{table}");
    let wide = daemon.tell(&["status", "-o", "wide"]).expect("a table");
    assert_eq!(wide.lines().count(), table.lines().count(), "{wide}");
    let line = daemon.tell(&["status", "-o", "jsonl"]).expect("a line");
    assert_eq!(line.lines().count(), 1, "{line}");
    let whole = daemon.tell(&["status", "-o", "json"]).expect("JSON");
    let read = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    assert_eq!(read(&line)["daemon"], read(&whole)["daemon"]);
    assert_eq!(read(&line)["type"], "status");
    foreign::add_filters(lab.node(), UPLINK, 10).expect("filters");
    let checks = daemon.ask(&["doctor", "-o", "jsonl"]).expect("checks");
    let text = String::from_utf8(checks.stdout).expect("text");
    let neighbours = text
        .lines()
        .map(read)
        .find(|one| one["check"] == "neighbours");
    let found = neighbours.expect("a check")["found"].to_string();
    assert!(found.contains(UPLINK), "{found}");
    assert!(found.contains("clsact ingress pref 10"), "{found}");
    assert!(!found.contains("nodewatch"), "our own: {found}");
}

#[test]
fn doctor_does_not_take_an_uplink_that_is_not_there() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("doctor").expect("a lab");
    let mut command = nodewatch(&lab, &["doctor", "--uplink", "nosuch0", "--uplink", UPLINK]);
    let output = finish(&mut command);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stdout);
    let row = text.lines().find(|line| line.contains("nosuch0"));
    assert!(row.is_some_and(|row| row.starts_with("FAIL")), "{text}");
}

#[test]
fn an_uplink_in_the_file_is_named_with_its_line() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("line").expect("a lab");
    let file = lab.directory().join("nodewatch.toml");
    fs::write(&file, "# fine\n\nuplink = [\"nosuch0\"]\n").expect("a file");
    let socket = lab.directory().join("api.sock").display().to_string();
    let mut command = nodewatch(&lab, &["run", "--socket", &socket, "--config"]);
    let output = finish(command.arg(&file));
    assert_eq!(output.status.code(), Some(2));
    let at = format!("{}:3: uplink", file.display());
    assert!(mentions(&output, &[&at, "nosuch0"]), "{output:?}");
}

#[test]
fn whoever_may_not_ask_the_daemon_is_told_so() {
    let Some(_permit) = lab::require_with(&["setpriv"]) else {
        return;
    };
    let lab = Lab::new("denied").expect("a lab");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    let binary = public_binary(&lab);
    let mut command = lab.node().command("setpriv");
    command.args(NOBODY).arg(binary);
    command.args(["status", "--socket"]).arg(daemon.socket());
    let output = finish(&mut command);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(
        mentions(&output, &["permission denied", "root"]),
        "{output:?}"
    );
    assert!(!mentions(&output, &["no nodewatch daemon"]), "{output:?}");
}

/// Anybody may bind the names by which daemons find out about each other: that neither keeps the
/// daemon from running, nor lets two of them run.
#[test]
fn names_that_a_user_took_stop_no_daemon() {
    let Some(_permit) = lab::require_with(&["setpriv", "perl"]) else {
        return;
    };
    let lab = Lab::new("names").expect("a lab");
    let script = "use Socket; $| = 1; my @held; for my $name (@ARGV) { \
                  socket(my $one, AF_UNIX, SOCK_STREAM, 0) or die; \
                  bind($one, pack_sockaddr_un(\"\\0$name\")) or die $!; \
                  listen($one, 5) or die; push @held, $one; } \
                  print \"held\\n\"; sleep 120;";
    let mut command = lab.node().command("setpriv");
    command.args(NOBODY).args(["perl", "-e", script]);
    let mut holder = lab
        .node()
        .spawn("holder", command.args(["nodewatch", "nodewatch.2"]))
        .expect("a process");
    holder.wait_log("held", SOON).expect("it holds the names");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon runs");
    let told = format!("process {}, user 65534", holder.pid());
    assert!(daemon.log().contains(&told), "{told}:\n{}", daemon.log());
    holder.kill();
    let socket = lab.directory().join("other.sock").display().to_string();
    let second = ["run", "--listen", "127.0.0.1:9470", "--socket", &socket];
    let output = finish(&mut nodewatch(&lab, &second));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = format!("process {}", daemon.pid());
    assert!(mentions(&output, &["another", &told]), "{output:?}");
}

#[test]
fn a_replay_takes_filters_and_addresses() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = capture(directory.path(), &[53, 123, 53]);
    let records = |arguments: &[&str]| -> Vec<Value> {
        let mut command = Command::new(daemon::binary().expect("a binary"));
        command.arg("replay").arg(&file).args(arguments);
        let output = finish(command.args(["-o", "jsonl"]));
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let flows = |arguments: &[&str]| {
        let mut records = records(arguments);
        let summary = records.pop().expect("a summary");
        assert_eq!(summary["packets_seen"], 3, "all are analysed: {summary}");
        records.len()
    };
    assert_eq!(flows(&[]), 2);
    assert_eq!(flows(&["--port", "53"]), 1);
    assert_eq!(flows(&["--not", "--port", "53", "--protocol", "udp"]), 1);
    assert_eq!(flows(&["--ip", "10.0.0.0/8"]), 0);
    // A bare address is one address.
    for (local, end) in [("192.0.2.1", "source"), ("192.0.2.2", "destination")] {
        let record = &records(&["--local", local, "--port", "53"])[0];
        assert_eq!(record["local"], end, "{record}");
        assert_eq!(record["cut"], true, "the capture ends before it: {record}");
    }
}

#[test]
fn a_capture_without_packets_has_no_time_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = capture(directory.path(), &[]);
    let mut command = Command::new(daemon::binary().expect("a binary"));
    let output = finish(command.arg("replay").arg(file).args(["-o", "jsonl"]));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    let time = summary["time"].as_str().expect("a time");
    assert!(time > "2024", "that of its making: {time}");
}

#[test]
fn an_interrupted_replay_closes_its_array() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = capture(directory.path(), &[53; 1000]);
    let bytes = fs::read(file).expect("a capture");
    let mut command = Command::new(daemon::binary().expect("a binary"));
    command.args(["replay", "-", "-o", "json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a process");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(&bytes).expect("written");
    std::thread::sleep(Duration::from_secs(1));
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    let mut command = Command::new("kill");
    let killed = command.args(["-TERM", &pid.to_string()]).status();
    assert!(killed.expect("kill").success());
    std::thread::sleep(Duration::from_millis(300));
    // Whoever writes the capture goes on: what comes after the signal is not read.
    let _ = stdin.write_all(&bytes[24..]);
    let ended = wait::until("its end", SOON, || child.try_wait().expect("a child"));
    assert!(ended.expect("it ends").success());
    let mut text = String::new();
    let mut stdout = child.stdout.take().expect("its output");
    stdout.read_to_string(&mut text).expect("text");
    let array: Value = serde_json::from_str(&text).expect("a whole array");
    let summary = array.as_array().and_then(|all| all.last()).expect("one");
    assert_eq!(summary["type"], "summary");
}

#[test]
fn standard_input_is_read_for_one_thing_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = capture(directory.path(), &[53; 10]);
    let manifest = directory.path().join("shop.yaml");
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}";
    fs::write(&manifest, namespace).expect("a manifest");
    let manifest = manifest.to_str().expect("text");
    for arguments in [
        "replay - --proposed -".to_owned(),
        "replay - --nsg subnet=-".to_owned(),
        format!("policy eval --manifests {manifest} --flows - --proposed -"),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let mut command = Command::new(daemon::binary().expect("a binary"));
        command.args(&arguments);
        command.stdin(fs::File::open(&file).expect("the capture"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let ended = wait::until("its end", SOON, || child.try_wait().expect("a child"));
        if ended.is_err() {
            child.kill().expect("a child");
        }
        let output = child.wait_with_output().expect("its output");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains("standard input"), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_capture_that_names_no_interfaces_is_warned_of() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut v1 = [0; 16];
    v1[14] = 0x08;
    let mut v2 = [0; 20];
    (v2[0], v2[7]) = (0x08, 3);
    for (link, header, is_warned) in [(113, &v1[..], true), (276, &v2[..], false)] {
        let file = capture_of(directory.path(), link, header, &[53]);
        let mut command = Command::new(daemon::binary().expect("a binary"));
        let output = finish(command.arg("replay").arg(file).args(["-o", "jsonl"]));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(mentions(&output, &["LINUX_SLL2"]), is_warned, "{output:?}");
    }
}

#[test]
fn a_capture_whose_times_step_back_is_warned_of() {
    let directory = tempfile::tempdir().expect("a directory");
    for (seconds, is_warned) in [(1_700_000_001, false), (1_800_000_000_u32, true)] {
        let file = capture(directory.path(), &[53, 54, 55]);
        let mut bytes = fs::read(&file).expect("a capture");
        // The first packet's time, behind the head of the file.
        bytes[24..28].copy_from_slice(&seconds.to_le_bytes());
        fs::write(&file, bytes).expect("written");
        let mut command = Command::new(daemon::binary().expect("a binary"));
        let output = finish(command.arg("replay").arg(file).args(["-o", "jsonl"]));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let warning = ["times step back by up to 100000000 s"];
        assert_eq!(mentions(&output, &warning), is_warned, "{output:?}");
        assert_eq!(mentions(&output, &["step back"]), is_warned, "{output:?}");
    }
}

/// A capture of datagrams from 192.0.2.1 to these ports of 192.0.2.2.
fn capture(directory: &Path, ports: &[u16]) -> PathBuf {
    capture_of(directory, 101, &[], ports)
}

/// The same with another link type, and what it puts before the IP header.
fn capture_of(directory: &Path, link: u32, header: &[u8], ports: &[u16]) -> PathBuf {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, link] {
        file.extend(word.to_le_bytes());
    }
    let length = u32::try_from(header.len() + 28).expect("short");
    for port in ports {
        for word in [1_700_000_000, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(header);
        file.extend([0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        file.extend([192, 0, 2, 1, 192, 0, 2, 2]);
        file.extend(40_000_u16.to_be_bytes());
        file.extend(port.to_be_bytes());
        file.extend([0, 8, 0, 0]);
    }
    let path = directory.join("capture.pcap");
    fs::write(&path, file).expect("a file");
    path
}

fn nodewatch(lab: &Lab, arguments: &[&str]) -> Command {
    daemon::command(lab.node(), arguments).expect("a binary")
}

fn finish(command: &mut Command) -> Output {
    process::output(command, SOON).expect("it ends")
}

/// The binary, where any user can execute it.
fn public_binary(lab: &Lab) -> PathBuf {
    let open = fs::Permissions::from_mode(0o711);
    fs::set_permissions(lab.directory(), open).expect("permissions");
    let copy = lab.directory().join("nodewatch");
    let binary = daemon::binary().expect("a binary");
    // Another name costs no room; another file system has to be given a copy.
    if fs::hard_link(binary, &copy).is_err() {
        fs::copy(binary, &copy).expect("a copy");
    }
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("permissions");
    copy
}
