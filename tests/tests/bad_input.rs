//! What the daemon and its commands say to bad input and bad surroundings, and how they end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tests::account;
use tests::daemon::{self, Daemon, mentions};
use tests::foreign::{self, Direction};
use tests::lab::{self, Lab, UPLINK, client, process};

/// Bad usage or invalid input.
const USAGE: &[i32] = &[2];
/// The system refuses.
const REFUSED: &[i32] = &[3];

/// How long a refusal may take.
const SOON: Duration = Duration::from_secs(10);

struct Case {
    lab: Lab,
    socket: PathBuf,
}

#[test]
fn without_root() {
    let Some(_permit) = lab::require_with(&["setpriv"]) else {
        return;
    };
    let case = Case::new("user");
    let binary = case.public_binary();
    let mut command = case.lab.node().command("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(binary);
    case.run_arguments(&mut command);
    let output = finish(&mut command);
    expect(&output, REFUSED, &["cap_bpf"]);
    case.assert_clean();
}

#[test]
fn without_a_capability() {
    let Some(_permit) = lab::require_with(&["setpriv"]) else {
        return;
    };
    let case = Case::new("caps");
    for (dropped, named) in [
        ("-bpf,-sys_admin", "cap_bpf"),
        ("-net_admin,-sys_admin", "cap_net_admin"),
    ] {
        let mut command = case.lab.node().command("setpriv");
        command.args(["--inh-caps", "-all", "--bounding-set", dropped]);
        command.arg(daemon::binary().expect("a binary"));
        case.run_arguments(&mut command);
        let output = finish(&mut command);
        expect(&output, REFUSED, &[named]);
        case.assert_clean();
    }
}

#[test]
fn an_unknown_interface() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let case = Case::new("iface");
    let output = case.run(&["--uplink", "nosuch0"]);
    expect(&output, &[2, 3], &["nosuch0"]);
    case.assert_clean();
}

#[test]
fn the_socket_of_a_live_daemon() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let case = Case::new("live");
    let first = case.start();
    // In the fabric, as a second daemon in the same network namespace is refused for that alone.
    let arguments = ["run", "--listen", "127.0.0.1:9470", "--uplink", "br0"];
    let mut command = daemon::command(case.lab.fabric(), &arguments).expect("a binary");
    let output = finish(command.arg("--socket").arg(&case.socket));
    expect(&output, REFUSED, &[&case.socket.display().to_string()]);
    still_works(&case, &first);
    assert!(
        case.socket.exists(),
        "the refused daemon removed the socket"
    );
    assert!(
        first.stop().expect("an end").status.success(),
        "an orderly end"
    );
    case.assert_clean();
}

#[test]
fn a_dead_socket_is_replaced() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let case = Case::new("dead");
    drop(UnixListener::bind(&case.socket).expect("a socket"));
    assert!(case.socket.exists(), "the dead socket's file is there");
    let daemon = case.start();
    still_works(&case, &daemon);
    daemon.kill();
    // Now it is the killed daemon's socket that is dead.
    let daemon = case.start();
    still_works(&case, &daemon);
    assert!(
        daemon.stop().expect("an end").status.success(),
        "an orderly end"
    );
    case.assert_clean();
}

#[test]
fn a_file_in_the_sockets_place_is_kept() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let case = Case::new("file");
    fs::write(&case.socket, "precious").expect("a file");
    let output = case.run(&[]);
    expect(&output, &[2, 3], &[&case.socket.display().to_string()]);
    assert_eq!(
        fs::read_to_string(&case.socket).expect("it is there"),
        "precious"
    );
}

#[test]
fn a_listen_address_that_is_taken() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let case = Case::new("taken");
    let other = client::serve(case.lab.node(), "tcp-serve", daemon::LISTEN.port()).expect("one");
    let output = case.run(&["--listen", "127.0.0.1:9469"]);
    expect(&output, REFUSED, &["127.0.0.1:9469"]);
    drop(other);
    case.assert_clean();
}

/// Two daemons on one node: the second is refused, or both count; the first is undisturbed.
#[test]
fn two_daemons_at_once() {
    let Some(_permit) = lab::require() else {
        return;
    };
    for mode in ["tcx", "clsact"] {
        let case = Case::new("two");
        if mode == "tcx" && !foreign::has_tcx(case.lab.node(), UPLINK) {
            continue;
        }
        let mut first = Daemon::launch_at(case.lab.node(), &["--attach", mode], &case.socket)
            .expect("a daemon");
        first.wait_ready(SOON).expect("it is ready");
        let other = case.lab.directory().join("other.sock");
        let arguments = ["run", "--listen", "127.0.0.1:9470", "--attach", mode];
        let mut command = daemon::command(case.lab.node(), &arguments).expect("a binary");
        command.arg("--socket").arg(&other);
        let mut second = case
            .lab
            .node()
            .spawn("second", &mut command)
            .expect("a process");
        if let Some(status) = second.wait(Duration::from_secs(3)) {
            assert_eq!(status.code(), Some(3), "{mode}: {}", second.log());
            assert!(!second.log().is_empty(), "{mode}: no message");
        } else {
            let stopped = second.stop(libc::SIGTERM, SOON).expect("an end");
            assert!(stopped.status.success(), "{mode}: {stopped:?}");
        }
        assert!(!other.exists(), "{mode}: {} remains", other.display());
        still_works(&case, &first);
        assert!(
            first.stop().expect("an end").status.success(),
            "{mode}: an orderly end"
        );
        case.assert_clean();
    }
}

#[test]
fn bad_values_are_named() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let case = Case::new("values");
    for (arguments, named) in [
        (["--listen", "127.0.0.1"].as_slice(), "127.0.0.1"),
        (&["--attach", "xdp"], "xdp"),
        (&["--max-series", "many"], "many"),
        (&["--nonsense"], "--nonsense"),
    ] {
        let output = case.run(arguments);
        expect(&output, USAGE, &[named]);
    }
    for (arguments, named) in [
        (["flows", "--ip", "10.0.0.0/33"].as_slice(), "10.0.0.0/33"),
        (&["flows", "--ip", "10.0.0"], "10.0.0"),
        (&["flows", "--port", "70000"], "70000"),
        (&["flows", "--outcome", "nice"], "nice"),
        (&["flows", "--point", "middle"], "middle"),
        (&["flows", "--since", "yesterday"], "yesterday"),
        (&["flows", "-o", "xml"], "xml"),
        (&["flow"], "flow"),
    ] {
        let mut command = daemon::command(case.lab.node(), arguments).expect("a binary");
        let output = finish(&mut command);
        expect(&output, USAGE, &[named]);
    }
    case.assert_clean();
}

#[test]
fn bad_configuration_names_file_line_and_key() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let case = Case::new("config");
    let file = case.lab.directory().join("nodewatch.toml");
    let name = file.display().to_string();
    for (text, line, words) in [
        (
            "# fine\nlistenn = \"127.0.0.1:9469\"\n",
            2,
            ["`listenn`", "`listen`"].as_slice(),
        ),
        ("listen = 7\n", 1, &[" listen: ", "`7`"]),
        // No key can be named where there is no table.
        ("\n\nlisten = \n", 3, &[]),
        ("listen = \"nowhere\"\n", 1, &[" listen: ", "`nowhere`"]),
        (
            "[ssh]\nscan_targets = 65\n",
            2,
            &[" ssh.scan_targets: ", "65 is more than 64"],
        ),
    ] {
        fs::write(&file, text).expect("a file");
        let output = case.run(&["--config", &name]);
        // Digits, and the words, may be in the path, too.
        let place = format!("{name}:{line}:");
        expect(&output, USAGE, &[&[place.as_str()], words].concat());
    }
    fs::remove_file(&file).expect("removed");
    let output = case.run(&["--config", &name]);
    expect(&output, USAGE, &[&name]);
    case.assert_clean();
}

#[test]
fn no_daemon_to_ask() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let case = Case::new("none");
    let socket = case.socket.display().to_string();
    for arguments in [["status"].as_slice(), &["flows"], &["flows", "-f"]] {
        let arguments = [arguments, &["--socket", &socket]].concat();
        let mut command = daemon::command(case.lab.node(), &arguments).expect("a binary");
        expect(&finish(&mut command), REFUSED, &[&socket]);
    }
    drop(UnixListener::bind(&case.socket).expect("a socket"));
    let mut command =
        daemon::command(case.lab.node(), &["status", "--socket", &socket]).expect("a binary");
    expect(&finish(&mut command), REFUSED, &[&socket]);
}

#[test]
fn captures_that_are_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let binary = daemon::binary().expect("a binary");
    let header = [
        0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
    ];
    let cut = [&header[..], &[1, 2, 3, 4, 5, 6]].concat();
    for (name, bytes) in [
        ("empty.pcap", [].as_slice()),
        (
            "text.pcap",
            b"this is no capture file at all, but long enough for a header",
        ),
        ("half-header.pcap", &header[..10]),
        ("cut-record.pcap", &cut),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, bytes).expect("a file");
        let mut command = Command::new(binary);
        command.args(["replay", "-o", "jsonl"]).arg(&path);
        expect(&finish(&mut command), USAGE, &[name]);
    }
    let mut command = Command::new(binary);
    command.args(["replay", "/nowhere/at/all.pcap"]);
    expect(&finish(&mut command), USAGE, &["/nowhere/at/all.pcap"]);
}

/// Absent file systems: the daemon works without them, or says which one it needs.
#[test]
fn file_systems_that_are_absent() {
    let Some(_permit) = lab::require_with(&["unshare"]) else {
        return;
    };
    for (hidden, word) in [
        ("/sys/fs/bpf", "bpf"),
        ("/sys/kernel/tracing", "tracefs"),
        ("/sys/kernel/btf", "btf"),
    ] {
        if !Path::new(hidden).is_dir() {
            continue;
        }
        let case = Case::new("hidden");
        let script = format!("mount -t tmpfs lab {hidden} && exec \"$@\"");
        let mut command = case.lab.node().command("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ]);
        command.arg(daemon::binary().expect("a binary"));
        case.run_arguments(&mut command);
        let mut guard = case
            .lab
            .node()
            .spawn("nodewatch", &mut command)
            .expect("a process");
        let ready = lab::wait::until("an answer", SOON, || {
            let answer = daemon::http(case.lab.node(), daemon::LISTEN, "/readyz");
            let yes = answer.is_ok_and(|answer| answer.status == 200);
            (yes || !guard.is_running()).then_some(yes)
        });
        match ready {
            Ok(true) => println!("without {hidden}: it works"),
            Ok(false) => {
                let status = guard.wait(SOON).expect("it ended");
                assert_eq!(status.code(), Some(3), "without {hidden}: {}", guard.log());
                assert!(
                    guard.log().to_lowercase().contains(word),
                    "{hidden}: {}",
                    guard.log()
                );
                println!("without {hidden}: {}", guard.log().trim());
            }
            Err(error) => panic!("without {hidden}: {error:#}\n{}", guard.log()),
        }
        let _ = guard.stop(libc::SIGTERM, SOON);
        case.assert_clean();
    }
}

// === impl Case ===

impl Case {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name).expect("a lab");
        let socket = lab.directory().join("api.sock");
        Self { lab, socket }
    }

    fn start(&self) -> Daemon<'_> {
        let mut daemon = Daemon::launch_at(self.lab.node(), &[], &self.socket).expect("a daemon");
        daemon.wait_ready(SOON).expect("it is ready");
        daemon
    }

    /// Runs `nodewatch run` with these arguments, which has to end by itself.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = daemon::command(self.lab.node(), &["run"]).expect("a binary");
        command.arg("--socket").arg(&self.socket).args(arguments);
        finish(&mut command)
    }

    fn run_arguments(&self, command: &mut Command) {
        command.args(["run", "--listen", &daemon::LISTEN.to_string(), "--socket"]);
        command.arg(&self.socket);
    }

    /// A copy of the binary that any user can execute.
    fn public_binary(&self) -> PathBuf {
        let directory = self.lab.directory();
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(directory, open).expect("permissions");
        let copy = directory.join("nodewatch");
        let binary = daemon::binary().expect("a binary");
        // Another name costs no room; another file system has to be given a copy.
        if fs::hard_link(binary, &copy).is_err() {
            fs::copy(binary, &copy).expect("a copy");
        }
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("permissions");
        copy
    }

    /// Nothing is left of a daemon that did not start or has ended.
    fn assert_clean(&self) {
        let ended = lab::wait::until("processes to end", SOON, || {
            self.lab.node().pids().is_empty().then_some(())
        });
        assert!(
            ended.is_ok(),
            "processes remain: {:?}",
            self.lab.node().pids()
        );
        for direction in Direction::BOTH {
            let ids = foreign::tcx_programs(self.lab.node(), UPLINK, direction).expect("a query");
            assert_eq!(
                ids.unwrap_or_default(),
                [0_u32; 0],
                "programs on {direction:?} remain"
            );
        }
        let filters = foreign::show_filters(self.lab.node(), UPLINK).expect("tc");
        assert!(!filters.contains("nodewatch"), "filters remain:\n{filters}");
        assert!(
            !self.socket.exists() || self.socket.is_file(),
            "the socket remains"
        );
    }
}

/// The daemon still answers and counts.
fn still_works(case: &Case, daemon: &Daemon) {
    daemon.tell(&["status"]).expect("an answer");
    let counted = || {
        let accounts = account::read(&daemon.metrics().expect("a scrape"));
        accounts.iter().map(|account| account.counted).sum::<u64>()
    };
    let before = counted();
    let gateway = ["icmp", "--to", "10.224.0.1", "--count", "5"];
    let report = client::send(case.lab.node(), &gateway).expect("a report");
    assert_eq!(report.received, 5, "{report:?}");
    let more = lab::wait::until("more packets", SOON, || {
        (counted() >= before + 10).then_some(())
    });
    assert!(
        more.is_ok(),
        "{before}, then {}: {}",
        counted(),
        daemon.log()
    );
}

fn finish(command: &mut Command) -> Output {
    process::output(command, SOON).expect("it has to end by itself")
}

fn expect(output: &Output, codes: &[i32], words: &[&str]) {
    let code = output.status.code().unwrap_or(-1);
    assert!(
        codes.contains(&code),
        "exit code {code}, not one of {codes:?}: {output:?}"
    );
    assert!(
        mentions(output, words),
        "the message has not all of {words:?}: {output:?}"
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("panicked"), "it panicked: {text}");
}
