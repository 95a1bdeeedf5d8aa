//! The capabilities that the manifests ask for: enough, and each of them needed.

use std::collections::BTreeMap;
use std::time::Duration;

use tests::daemon::{self, Daemon, LISTEN};
use tests::deploy::{read, yaml};
use tests::lab::{self, Lab, process, wait};

/// How long a start may take.
const START: Duration = Duration::from_secs(15);

// Capabilities, as in linux/capability.h.
const CHOWN: u64 = 1;
const SETUID: u64 = 1 << 7;
const NET_ADMIN: u64 = 1 << 12;
const SYS_MODULE: u64 = 1 << 16;
const SYS_RAWIO: u64 = 1 << 17;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// What the DaemonSet adds, in the words of setpriv.
fn capabilities() -> Vec<String> {
    let documents = yaml(&read("deploy/base/daemonset.yaml").expect("a file")).expect("YAML");
    let container = &documents[0]["spec"]["template"]["spec"]["containers"][0];
    let add = &container["securityContext"]["capabilities"]["add"];
    let names = add.as_array().expect("capabilities").iter();
    names
        .map(|name| name.as_str().expect("a name").to_lowercase())
        .collect()
}

/// `nodewatch run` as in a container that has these capabilities and no others.
fn run(lab: &Lab, capabilities: &[String], socket: &str) -> std::process::Command {
    let bounding: Vec<String> = std::iter::once("-all".to_owned())
        .chain(capabilities.iter().map(|name| format!("+{name}")))
        .collect();
    let mut command = lab.node().command("setpriv");
    command
        .args(["--no-new-privs", "--inh-caps=-all", "--bounding-set"])
        .arg(bounding.join(","))
        .arg(daemon::binary().expect("a binary"))
        .args(["run", "--listen", &LISTEN.to_string(), "--socket", socket])
        .env_remove("RUST_LOG");
    command
}

#[test]
fn the_daemon_runs_with_exactly_what_the_manifests_give() {
    let Some(_permit) = lab::require_with(&["setpriv"]) else {
        return;
    };
    let lab = Lab::new("least").expect("a lab");
    let _pod = lab.add_pod().expect("a pod");
    let socket = lab.directory().join("api.sock").display().to_string();
    let all = capabilities();
    assert_eq!(all, ["bpf", "net_admin", "perfmon"]);
    let mut command = run(&lab, &all, &socket);
    let mut guard = lab
        .node()
        .spawn("nodewatch", &mut command)
        .expect("a start");
    let ready = wait::until("the daemon to be ready", START, || {
        let answer = daemon::http(lab.node(), LISTEN, "/readyz");
        answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    });
    assert!(ready.is_ok(), "{}", guard.log());
    let threads = threads(guard.pid());
    // PERFMON was for loading; those that answer requests can load and attach nothing.
    assert_eq!(threads["nodewatch"], BPF | NET_ADMIN, "{threads:x?}");
    assert_eq!(threads["source"], BPF | NET_ADMIN, "{threads:x?}");
    for (name, effective) in &threads {
        let is_worker = name.starts_with("tokio");
        assert!(!is_worker || *effective == NET_ADMIN, "{threads:x?}");
    }
    assert!(
        threads.keys().any(|name| name.starts_with("tokio")),
        "{threads:x?}"
    );
    // Interfaces that come later are attached to all the same.
    let late = lab.add_pod().expect("a pod");
    covered(&lab, &late.host_interface, "tcx");
    let metrics = daemon::http(lab.node(), LISTEN, "/metrics").expect("metrics");
    for covered in ["interface=\"eth0\",point=\"uplink\"", "point=\"workload\""] {
        let line = metrics.body.lines().find(|line| {
            line.starts_with("nodewatch_interface_covered{") && line.contains(covered)
        });
        assert!(
            line.is_some_and(|line| line.ends_with(" 1")),
            "{covered}: {line:?}"
        );
    }
    guard.signal(libc::SIGTERM);
    let ended = guard.wait(START).expect("an end");
    assert!(ended.success(), "{}", guard.log());
}

#[test]
fn root_on_a_host_gives_up_what_is_not_needed() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("giveup").expect("a lab");
    let daemon = Daemon::start(lab.node(), &["--attach", "clsact"]).expect("the daemon");
    let threads = threads(daemon.pid());
    let never = CHOWN | SETUID | SYS_MODULE | SYS_RAWIO | PERFMON;
    for (name, effective) in &threads {
        assert_eq!(effective & never, 0, "{name}: {threads:x?}");
    }
    let late = lab.add_pod().expect("a pod");
    covered(&lab, &late.host_interface, "clsact");
    let stopped = daemon.stop().expect("an end");
    assert!(stopped.status.success());
}

/// Waits until an interface is covered.
fn covered(lab: &Lab, interface: &str, attach: &str) {
    let wanted = format!(
        "nodewatch_interface_covered{{interface=\"{interface}\",point=\"workload\",attach=\"{attach}\"}} 1"
    );
    let is_there = wait::until("the interface", START, || {
        let metrics = daemon::http(lab.node(), LISTEN, "/metrics").ok()?;
        metrics.body.contains(&wanted).then_some(())
    });
    assert!(is_there.is_ok(), "{wanted}");
}

/// Effective capabilities of a process's threads, by the threads' names.
fn threads(pid: u32) -> BTreeMap<String, u64> {
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads") {
        let path = entry.expect("a thread").path();
        let status = std::fs::read_to_string(path.join("status")).expect("a status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect("the field").trim().to_owned()
        };
        let effective = u64::from_str_radix(&field("CapEff:"), 16).expect("a number");
        // Of one name, all that any of them has.
        *threads.entry(field("Name:")).or_default() |= effective;
    }
    threads
}

#[test]
fn none_of_them_can_be_spared() {
    let Some(_permit) = lab::require_with(&["setpriv"]) else {
        return;
    };
    let lab = Lab::new("spared").expect("a lab");
    let socket = lab.directory().join("api.sock").display().to_string();
    let all = capabilities();
    for spared in &all {
        let rest: Vec<String> = all.iter().filter(|one| *one != spared).cloned().collect();
        let output = process::output(&mut run(&lab, &rest, &socket), START).expect("it ends");
        assert_eq!(output.status.code(), Some(3), "without {spared}");
        let name = format!("cap_{spared}");
        assert!(
            daemon::mentions(&output, &["missing", &name]),
            "without {spared}: {output:?}"
        );
    }
}
