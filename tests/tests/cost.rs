//! What a node full of pods costs: series, size and time of a scrape, memory, processor. The figures of
//! `docs/cost.md` are printed by `cargo test --release -p tests --test cost -- --include-ignored
//! --nocapture`; how many series there are is checked always.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use tests::daemon::Daemon;
use tests::lab::{self, Lab, Namespace, Peer, wait};
use tests::openmetrics::Metrics;
use tokio::{io::AsyncReadExt as _, net::TcpSocket};

/// Service ports that each pod talks to; all are of one peer.
const PORTS: std::ops::Range<u16> = 8001..8011;
/// Pods of one workload.
const REPLICAS: u16 = 5;
/// Where pods are seen: at their own interface, and with their own addresses at the uplink, as in networks
/// where pods have addresses of the virtual network.
const POINTS: usize = 2;
/// Series of a pair of a port and a peer's class at one point: bytes and packets in two directions, and one
/// outcome of connections.
const PER_PAIR: usize = 5;

#[test]
fn thirty_pods() {
    figures(30, "pod");
}

#[test]
fn a_hundred_and_ten_pods_by_workload() {
    figures(110, "workload");
}

#[test]
#[ignore = "figures for docs/cost.md"]
fn a_hundred_and_ten_pods() {
    figures(110, "pod");
}

#[test]
#[ignore = "figures for docs/cost.md"]
fn two_hundred_and_fifty_pods() {
    figures(250, "pod");
}

#[test]
#[ignore = "figures for docs/cost.md"]
fn two_hundred_and_fifty_pods_by_workload() {
    figures(250, "workload");
}

fn figures(pods: u16, labels: &str) {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("cost").expect("a lab");
    // One interface stands for those of all pods: what is counted goes by addresses.
    let host = lab.add_pod().expect("a pod");
    let mut own = String::new();
    for number in 0..pods {
        writeln!(own, "addr add {}/32 dev eth0", address(number)).expect("strings take all");
    }
    host.ip_batch(&own).expect("addresses");
    let route = format!("route add 10.244.100.0/22 dev {}\n", host.host_interface);
    lab.node().ip_batch(&route).expect("a route");
    let peer = lab.add_inside().expect("a peer");
    serve(&peer);
    let folder = lab.directory().join("manifests");
    fs::create_dir(&folder).expect("a folder");
    declare(&folder, pods);
    let folder = folder.display().to_string();
    let arguments = [
        "--manifests",
        &folder,
        "--labels",
        labels,
        "--max-series",
        "100000",
    ];
    let daemon = Daemon::start(lab.node(), &arguments).expect("the daemon");

    connect_all(&host, pods, peer.addresses.v4);
    let told = match labels {
        "pod" => pods,
        _ => pods / REPLICAS,
    };
    let wanted = usize::from(told) * PORTS.len() * POINTS * PER_PAIR;
    let there = wait::until("all series", Duration::from_secs(20), || {
        (of_pods(&daemon.metrics().ok()?) == wanted).then_some(())
    });
    let series = of_pods(&daemon.metrics().expect("a scrape"));
    assert!(
        there.is_ok(),
        "{series} series of pods, not {wanted}\n{}",
        daemon.log()
    );

    let start = Instant::now();
    let before = processor_time(daemon.pid());
    let mut connections = 0;
    while start.elapsed() < Duration::from_secs(4) {
        connections += connect_all(&host, pods, peer.addresses.v4);
        std::thread::sleep(Duration::from_millis(500));
    }
    let used = processor_time(daemon.pid()).saturating_sub(before);
    let seconds = start.elapsed().as_secs_f64();
    let series = of_pods(&daemon.metrics().expect("a scrape"));
    assert_eq!(series, wanted, "more traffic, no more series");
    let scrape = Instant::now();
    let size = daemon.http("/metrics").expect("a scrape").body.len();
    let scrape = scrape.elapsed();
    println!(
        "| {pods} | {labels} | {series} | {:.1} MiB | {:.0} ms | {:.1} MiB | {:.1} % at {:.0} connections/s |",
        mebibytes(size),
        scrape.as_secs_f64() * 1e3,
        mebibytes(resident_bytes(daemon.pid())),
        used.as_secs_f64() / seconds * 100.0,
        f64::from(connections) / seconds,
    );
    daemon.stop().expect("it stops");
}

/// Address of a pod.
fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 244, 100 + high, low)
}

/// Manifests of pods in five namespaces, [`REPLICAS`] of a workload.
fn declare(folder: &Path, pods: u16) {
    let mut text = String::new();
    for number in 0..pods {
        let workload = number / REPLICAS;
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: app-{workload}-{number}\n  namespace: team-{}\n  \
             ownerReferences:\n  - {{apiVersion: apps/v1, kind: StatefulSet, name: app-{workload}, uid: u, \
             controller: true}}\nstatus: {{phase: Running, podIP: {}}}\n",
            workload % 5,
            address(number)
        )
        .expect("strings take all");
    }
    fs::write(folder.join("pods.yaml"), text).expect("written");
}

/// Accepts connections on all ports, and ends them.
fn serve(peer: &Peer) {
    for port in PORTS {
        let listen = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let listener = peer.run(|| std::net::TcpListener::bind(listen));
        let listener = listener.expect("a namespace").expect("a port");
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
}

/// Each pod connects to each port once; how many connections that were.
fn connect_all(from: &Namespace, pods: u16, to: Ipv4Addr) -> u32 {
    let connect = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let mut connections = 0;
            for number in 0..pods {
                for port in PORTS {
                    let socket = TcpSocket::new_v4().expect("a socket");
                    socket
                        .bind(SocketAddr::new(address(number).into(), 0))
                        .expect("an address");
                    let stream = socket.connect(SocketAddr::new(to.into(), port)).await;
                    // To its end, after which either kernel may still send an RST: to an ACK that comes late.
                    let mut rest = Vec::new();
                    let mut stream = stream.expect("a connection");
                    stream.read_to_end(&mut rest).await.expect("an end");
                    connections += 1;
                }
            }
            connections
        })
    };
    from.run(connect).expect("a namespace")
}

/// Series that grow with traffic, as far as they are about the pods declared.
fn of_pods(metrics: &Metrics) -> usize {
    let grow = [
        "nodewatch_flow_bytes_total",
        "nodewatch_flow_packets_total",
        "nodewatch_connections_total",
    ];
    let samples = metrics.samples.iter();
    let of_pods = samples.filter_map(|sample| {
        let labels = &sample.labels;
        let is_declared = labels.get("namespace")?.starts_with("team-");
        let grows = grow.contains(&sample.name.as_str());
        (is_declared && grows).then(|| format!("{} {labels:?}", sample.name))
    });
    of_pods.collect::<BTreeSet<_>>().len()
}

fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the daemon runs");
    let after_name = stat.rsplit(')').next().expect("a name in brackets");
    // utime and stime, in hundredths of a second.
    let ticks = after_name.split_ascii_whitespace().skip(11).take(2);
    let ticks: u64 = ticks
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

fn resident_bytes(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next());
    number
        .and_then(|number| number.parse::<usize>().ok())
        .expect("a number")
        * 1024
}

#[expect(clippy::cast_precision_loss, reason = "for people, one digit")]
fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
