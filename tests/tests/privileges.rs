//! The capabilities that the manifests ask for: enough, and each of them needed.

use std::time::Duration;

use tests::daemon::{self, LISTEN};
use tests::deploy::{read, yaml};
use tests::lab::{self, Lab, process, wait};

/// How long a start may take.
const START: Duration = Duration::from_secs(15);

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
    let status = std::fs::read_to_string(format!("/proc/{}/status", guard.pid())).expect("status");
    let effective = status.lines().find(|line| line.starts_with("CapEff:"));
    // Bits 12, 38 and 39.
    assert_eq!(effective, Some("CapEff:\t000000c000001000"));
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
