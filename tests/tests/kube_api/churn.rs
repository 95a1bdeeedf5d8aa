//! A thousand pods that come and go, an API server that is killed, history that is forgotten.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tests::daemon::Daemon;
use tests::lab::api_server::{self, AGENT, ApiServer, PORT, Writer};
use tests::lab::{Lab, Pod, wait};

use super::{namespace, pod, resource, until_resource};

/// Pods at a time.
const PODS: u16 = 1_000;
/// Requests at a time.
const AT_ONCE: usize = 16;
/// Pods that are replaced while the daemon watches, at a time.
const STEP: u16 = 100;
/// For the daemon to find a server that is back, and to follow.
const BACK: Duration = Duration::from_secs(90);
/// Memory that may be more after all than before: the allocator's.
const SLACK: f64 = 12e6;
/// A port of the server that the daemon does not know.
const ELSEWHERE: u16 = 6444;

/// The pods: which generation each address has, and who is to be named for each flow.
struct World<'a> {
    client: &'a Pod,
    generations: BTreeMap<u16, u32>,
    /// Source port of a flow, and the pod that it went to.
    flows: BTreeMap<u16, String>,
}

impl World<'_> {
    fn name(number: u16, generation: u32) -> String {
        format!("pod-{number}-{generation}")
    }

    fn address(number: u16) -> Ipv4Addr {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 200, high, low)
    }

    /// Replaces pods by others with the same addresses.
    async fn replace(&mut self, cluster: &Writer, numbers: &[u16]) -> anyhow::Result<()> {
        let changes: Vec<(u16, u32)> = numbers
            .iter()
            .map(|number| (*number, self.generations[number]))
            .collect();
        stream::iter(&changes)
            .map(|(number, generation)| async move {
                let old = pod(&Self::name(*number, *generation), Self::address(*number));
                cluster.delete(&old).await
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        for (number, generation) in changes {
            self.generations.insert(number, generation + 1);
        }
        self.create(cluster, numbers).await
    }

    async fn create(&self, cluster: &Writer, numbers: &[u16]) -> anyhow::Result<()> {
        stream::iter(numbers)
            .map(|number| {
                let name = Self::name(*number, self.generations[number]);
                async move { cluster.create(pod(&name, Self::address(*number))).await }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(())
    }

    /// Sends a datagram to each of these pods, each from a port of its own.
    fn send(&mut self, numbers: &[u16]) {
        let first = 10_000 + u16::try_from(self.flows.len()).expect("few flows");
        self.client
            .run(|| {
                for (port, number) in (first..).zip(numbers) {
                    let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a socket");
                    let to = SocketAddr::new(Self::address(*number).into(), 9);
                    socket.send_to(b"hello", to).expect("sent");
                }
            })
            .expect("a namespace");
        for (port, number) in (first..).zip(numbers) {
            let name = Self::name(*number, self.generations[number]);
            self.flows.insert(port, name);
        }
    }

    /// Flows that are not named as they should be.
    fn misnamed(&self, daemon: &Daemon<'_>) -> (usize, Vec<String>) {
        let arguments = [
            "flows",
            "--point",
            "workload",
            "--protocol",
            "udp",
            "--last",
            "100000",
        ];
        let records = daemon.records(&arguments).expect("records");
        let named: BTreeMap<u64, &Value> = records
            .iter()
            .filter_map(|record| Some((record["source"]["port"].as_u64()?, record)))
            .collect();
        let wrong = self.flows.iter().filter_map(|(port, name)| {
            let record = named.get(&u64::from(*port))?;
            let found = record["destination"]["pod"].as_str().unwrap_or("nobody");
            (found != name).then(|| format!("port {port}: {found} for {name}: {record}"))
        });
        let told = |port: &&u16| named.contains_key(&u64::from(**port));
        (self.flows.keys().filter(told).count(), wrong.collect())
    }
}

fn memory(daemon: &Daemon<'_>) -> f64 {
    let metrics = daemon.metrics().expect("metrics");
    metrics.sum("nodewatch_process_resident_memory_bytes", &[])
}

/// Waits until the daemon knows what the server does: all pods, and an event or list since.
fn until_followed(daemon: &Daemon<'_>, before: &Value) {
    until_resource(daemon, "pods", BACK, |pods| {
        let is_later = pods["events"] != before["events"] || pods["lists"] != before["lists"];
        pods["state"] == "synced" && pods["objects"] == PODS && is_later
    });
    // Events may still be on their way: until none has come for a while.
    let calm = Duration::from_millis(1500);
    wait::until_stable("events", calm, BACK, || {
        Ok(resource(daemon, "pods")["events"].clone())
    })
    .expect("an end of the events");
}

#[test]
fn a_thousand_pods_come_and_go_with_the_server() {
    let Some(_permit) = api_server::require() else {
        return;
    };
    let lab = Lab::new("churn").expect("a lab");
    let client = lab.add_pod().expect("a pod");
    // Datagrams end at the node, after they were seen.
    lab.node()
        .ip(&["route", "add", "blackhole", "10.200.0.0/16"])
        .expect("a route");
    let mut api = ApiServer::start(lab.node()).expect("an API server");
    let numbers: Vec<u16> = (0..PODS).collect();
    let mut world = World {
        client: &client,
        generations: numbers.iter().map(|number| (*number, 0)).collect(),
        flows: BTreeMap::new(),
    };
    let since = Instant::now();
    api.write(async |cluster| {
        cluster.deploy("deploy/base/rbac.yaml").await?;
        cluster.create(namespace("shop")).await?;
        world.create(&cluster, &numbers).await
    })
    .expect("pods");
    println!("{PODS} pods made in {:?}", since.elapsed());
    let kubeconfig = api.kubeconfig(AGENT).expect("a file");
    let kubeconfig = kubeconfig.to_str().expect("a path");
    let arguments = ["--kubeconfig", kubeconfig, "--recent", "20000"];
    let since = Instant::now();
    let daemon = Daemon::start(lab.node(), &arguments).expect("the daemon");
    println!("ready after {:?}", since.elapsed());
    assert_eq!(resource(&daemon, "pods")["objects"], PODS);
    world.send(&numbers);
    // Once through, so that what is kept of ended pods is there before, too.
    for step in numbers.chunks(usize::from(STEP)) {
        let before = resource(&daemon, "pods");
        api.write(async |cluster| world.replace(&cluster, step).await)
            .expect("other pods");
        until_followed(&daemon, &before);
        world.send(step);
    }
    let before = memory(&daemon);

    // Killed in the midst of it: half is done, the other half once it is back.
    let (first, second) = numbers.split_at(usize::from(PODS / 2));
    let known = resource(&daemon, "pods");
    api.write(async |cluster| world.replace(&cluster, first).await)
        .expect("other pods");
    api.kill();
    world.send(second);
    api.run(PORT).expect("an API server");
    api.write(async |cluster| world.replace(&cluster, second).await)
        .expect("other pods");
    until_followed(&daemon, &known);
    world.send(&numbers);
    let metrics = daemon.metrics().expect("metrics");
    let errors = metrics.sum("nodewatch_kubernetes_errors_total", &[]);
    assert!(errors > 0.0, "an outage without a failure");

    // History is forgotten while the daemon cannot see it: what changed is found by a new list.
    let known = resource(&daemon, "pods");
    api.kill();
    api.run(ELSEWHERE).expect("an API server");
    // Times of objects are of seconds: so that what is sent before is before.
    std::thread::sleep(Duration::from_secs(2));
    api.write_at(ELSEWHERE, async |cluster| {
        world.replace(&cluster, first).await
    })
    .expect("other pods");
    world.send(first);
    api.compact().expect("history is forgotten");
    api.kill();
    api.run(PORT).expect("an API server");
    until_followed(&daemon, &known);
    world.send(&numbers);
    let pods = until_resource(&daemon, "pods", BACK, |pods| {
        pods["lists"] != known["lists"]
    });
    assert!(pods["errors"]["expired"].as_u64() > Some(0), "{pods:#}");

    // Before many flows are asked for, which takes memory of its own.
    let after = memory(&daemon);
    println!(
        "memory {:.1} MB before, {:.1} MB after",
        before / 1e6,
        after / 1e6
    );
    assert!(after < before + SLACK, "{before} before, {after} after");

    // Each flow is named after the pod that had the address then.
    let wanted = world.flows.len();
    let (told, wrong) = wait::until("all flows", BACK, || {
        let found = world.misnamed(&daemon);
        (found.0 == wanted).then_some(found)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", world.misnamed(&daemon).0));
    println!("{told} flows, {} misnamed", wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {told}: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(5)]
    );
    daemon.stop().expect("it ends");
}
