//! The daemon with a large cluster: 10,000 pods, 500 namespaces, 2,000 policies; a fifth of it in
//! builds without optimisation.
//!
//! `cargo xtask figures policy`

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::lab::api_server::{self, AGENT, ApiServer};
use tests::lab::{self, Lab, wait};
use tests::large;

/// Memory of the daemon's own, in KiB.
const MOST_KIB: u64 = if cfg!(debug_assertions) { 100 } else { 250 } * 1024;
/// From the start of the process until it is ready, with 8 MB of YAML read. What the cluster costs by
/// itself is judged in `monitor/core/tests/policy_scale.rs`.
const MOST_LOAD: Duration = Duration::from_secs(4);
/// For a build without optimisation, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_mins(3);
/// Flows, each of which is judged.
const FLOWS: u16 = if cfg!(debug_assertions) {
    4_000
} else {
    20_000
};
/// Clients' ports: from a lower one to 8,000, either end may have opened what the daemon, young as
/// it is, sees first.
const FIRST_PORT: u16 = 40_000;
/// Requests at a time.
const AT_ONCE: usize = 16;

/// Fails in a release build; else says what would fail.
fn judge(good: bool, what: &str) {
    if cfg!(debug_assertions) {
        if !good {
            println!("not judged in a debug build: {what}");
        }
    } else {
        assert!(good, "{what}");
    }
}

/// Memory of the daemon's own, and the most it ever had resident, in KiB.
fn memory_kib(daemon: &Daemon<'_>) -> [u64; 2] {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
    let status = status.expect("the daemon runs");
    ["RssAnon:", "VmHWM:"].map(|what| {
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .expect("a size")
    })
}

fn status(daemon: &Daemon<'_>) -> Value {
    let text = daemon.tell(&["status", "-o", "json"]).expect("a status");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_daemon_with_a_large_cluster_of_files() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("large").expect("a lab");
    let client = lab.add_pod().expect("a pod");
    // Datagrams end at the node, after they were seen.
    lab.node()
        .ip(&["route", "add", "blackhole", "10.200.0.0/16"])
        .expect("a route");
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = large::write(directory.path()).expect("files");
    let mut own = large::pod(0);
    own["metadata"]["name"] = "client".into();
    own["spec"]["nodeName"] = Value::Null;
    own["status"] = json!({"phase": "Running", "podIP": client.addresses.v4});
    let file = directory.path().join("client.json");
    fs::write(&file, own.to_string()).expect("a file");
    let path = directory.path().to_str().expect("a path");
    let since = Instant::now();
    let mut daemon = Daemon::launch(lab.node(), &["--manifests", path]).expect("the daemon");
    daemon.wait_ready(PATIENCE).expect("it is ready");
    let load = since.elapsed();
    println!(
        "{} MB of manifests, ready after {load:?}",
        bytes / 1_000_000
    );
    judge(load <= MOST_LOAD, &format!("ready after {load:?}"));
    let [own_kib, most_kib] = memory_kib(&daemon);
    println!("loaded: {own_kib} KiB of its own, {most_kib} KiB at most");
    assert_eq!(status(&daemon)["policy"]["policies"], large::POLICIES);

    // Each flow goes to another pod, and is judged.
    let send = || {
        for number in 0..FLOWS {
            let socket = UdpSocket::bind(("0.0.0.0", FIRST_PORT + number)).expect("a socket");
            let to = large::pod_ip(u32::from(number) % large::PODS);
            let port = 8_000 + number / 10_000;
            socket.send_to(b"hello", (to, port)).expect("sent");
        }
    };
    std::thread::sleep(Duration::from_secs(2));
    client.run(send).expect("a namespace");
    let judged = || {
        let arguments = ["flows", "--last", "100000", "--point", "workload"];
        let flows = daemon.records(&arguments).expect("records");
        let is_judged = |flow: &&Value| !flow["policy"].is_null();
        flows.iter().filter(is_judged).count()
    };
    wait::until("verdicts", PATIENCE, || {
        (judged() >= usize::from(FLOWS) * 9 / 10).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", judged()));

    // A pod changes in its file: all is read again, and only that is applied.
    own["metadata"]["labels"]["tier"] = "tier-9".into();
    fs::write(&file, own.to_string()).expect("a file");
    let since = Instant::now();
    let tier = || {
        let flow = client.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            let to = SocketAddr::new(large::pod_ip(7).into(), 8_000);
            socket.send_to(b"hello", to).expect("sent");
            socket.local_addr().expect("an address").port()
        });
        let port = flow.expect("a namespace").to_string();
        std::thread::sleep(Duration::from_secs(1));
        let flows = daemon
            .records(&["flows", "--port", &port])
            .expect("records");
        let tier = flows
            .first()
            .map(|flow| flow["source"]["labels"]["tier"].clone());
        tier.unwrap_or_default()
    };
    wait::until("the other label", PATIENCE, || {
        (tier() == "tier-9").then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    println!("a changed file counts after {:?}", since.elapsed());
    let [own_kib, most_kib] = memory_kib(&daemon);
    println!("judged and changed: {own_kib} KiB of its own, {most_kib} KiB at most");
    assert!(own_kib <= MOST_KIB, "{own_kib} KiB of its own");
    daemon.stop().expect("it ends");
}

#[test]
fn the_daemon_with_a_large_cluster_of_an_api_server() {
    let Some(_permit) = api_server::require() else {
        return;
    };
    let lab = Lab::new("largekube").expect("a lab");
    let api = ApiServer::start(lab.node()).expect("an API server");
    let since = Instant::now();
    type Make = fn(u32) -> Value;
    let kinds: [(u32, Make); 4] = [
        (large::NAMESPACES, large::namespace),
        (large::NODES, large::node),
        (large::POLICIES, large::policy),
        (large::PODS, large::pod),
    ];
    api.write(async |cluster| {
        cluster.deploy("deploy/base/rbac.yaml").await?;
        for (count, make) in kinds {
            stream::iter(0..count)
                .map(|number| cluster.create(make(number)))
                .buffer_unordered(AT_ONCE)
                .try_collect::<Vec<_>>()
                .await?;
        }
        Ok(())
    })
    .expect("objects");
    println!("made in {:?}", since.elapsed());
    let kubeconfig = api.kubeconfig(AGENT).expect("a file");
    let kubeconfig = kubeconfig.to_str().expect("a path");
    let since = Instant::now();
    let mut daemon = Daemon::launch(lab.node(), &["--kubeconfig", kubeconfig]).expect("a daemon");
    daemon.wait_ready(PATIENCE).expect("it is ready");
    println!("in sync after {:?}", since.elapsed());
    let all = status(&daemon);
    assert_eq!(all["policy"]["policies"], large::POLICIES);
    let resources = all["kubernetes"]["resources"].as_array().expect("kinds");
    let pods = resources.iter().find(|kind| kind["resource"] == "pods");
    assert_eq!(pods.expect("pods")["objects"], large::PODS);
    let [own_kib, most_kib] = memory_kib(&daemon);
    println!("{own_kib} KiB of its own, {most_kib} KiB at most");
    assert!(own_kib <= MOST_KIB, "{own_kib} KiB of its own");
    daemon.stop().expect("it ends");
}
