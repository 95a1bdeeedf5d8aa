//! Every packet is accounted for: seen = counted + uncounted, and seen is what the interface saw.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tests::account::{self, Comparison};
use tests::daemon::Daemon;
use tests::lab;
use tests::lab::server::iperf::Iperf;
use tests::lab::{Counters, Guard, Lab, NODE, Namespace, Peer, Pod, UPLINK, client, process, wait};

/// What a run has to move at least.
const PACKETS: u64 = 1_000_000;

/// How long the daemon may take to publish what the kernel counted.
const SETTLE: Duration = Duration::from_secs(8);

struct Bench {
    bulk: Iperf,
    _servers: Vec<Guard>,
    pod: Pod,
    second: Pod,
    inside: Peer,
    outside: Peer,
    lab: Lab,
}

#[test]
fn every_packet_is_counted_or_said_not_to_be() {
    let Some(_permit) = lab::require_with(&["iperf3", "ethtool"]) else {
        return;
    };
    let bench = Bench::new("exact");
    bench.set_offloads(false);
    let (daemon, base) = bench.start_daemon();
    bench.bulk(1200, 400);
    bench.small_packets();
    bench.short_connections(4000);
    bench.fragments();
    let tagged = bench.tagged_frames();
    let rows = bench.settled(&daemon, &base, |row| {
        row.account.seen == row.interface_packets + row.dropped
    });
    println!("offloads off:\n{}", account::table(&rows));
    let table = account::table(&rows);
    assert_eq!(rows.len(), 6, "three interfaces, two directions:\n{table}");
    for row in &rows {
        let Comparison {
            account,
            interface_packets,
            dropped,
        } = row;
        assert!(
            account.balances(),
            "seen is not counted + uncounted: {account:?}\n{table}"
        );
        assert_eq!(
            account.seen,
            interface_packets + dropped,
            "{account:?}\n{table}"
        );
        // The node's own TCP hands the hook packets of several segments even so; the kernel cuts
        // them right after it, for a device that cannot.
        let is_cut_behind = account.interface == UPLINK && !account.is_received();
        assert!(
            account.buffers == account.seen || is_cut_behind && account.buffers < account.seen,
            "without offloads: {account:?}\n{table}"
        );
    }
    let uplink: u64 = rows
        .iter()
        .filter(|row| row.account.interface == UPLINK)
        .map(|row| row.account.seen)
        .sum();
    assert!(
        uplink >= PACKETS,
        "the uplink moved only {uplink} packets\n{table}"
    );
    let counted: u64 = rows.iter().map(|row| row.account.counted).sum();
    let seen: u64 = rows.iter().map(|row| row.account.seen).sum();
    assert!(
        counted * 1000 >= seen * 999,
        "{counted} of {seen} were counted\n{table}"
    );
    bytes_are_layer_three(&bench, &daemon, &base, &rows);
    let records = daemon
        .records(&["flows", "--last", "100000", "--port", "4100"])
        .expect("flows");
    let packets: u64 = records.iter().map(packets_of).sum();
    assert_eq!(packets, tagged, "packets of the tagged flows: {records:?}");
}

#[test]
fn with_offloads_socket_buffers_are_what_the_interface_counts() {
    let Some(_permit) = lab::require_with(&["iperf3", "ethtool"]) else {
        return;
    };
    let bench = Bench::new("offloads");
    bench.set_offloads(true);
    let (daemon, base) = bench.start_daemon();
    bench.bulk(600, 200);
    bench.short_connections(500);
    bench.fragments();
    let rows = bench.settled(&daemon, &base, |row| {
        row.account.buffers == row.interface_packets + row.dropped
    });
    let table = account::table(&rows);
    println!("offloads on:\n{table}");
    for Comparison {
        account,
        interface_packets,
        dropped,
    } in &rows
    {
        assert!(
            account.balances(),
            "seen is not counted + uncounted: {account:?}\n{table}"
        );
        assert_eq!(
            account.buffers,
            interface_packets + dropped,
            "{account:?}\n{table}"
        );
        assert!(account.seen >= account.buffers, "{account:?}\n{table}");
    }
    let segmented = rows
        .iter()
        .any(|row| row.account.seen > row.account.buffers * 2);
    assert!(segmented, "no packet of several segments was sent\n{table}");
}

// === impl Bench ===

impl Bench {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name).expect("a lab");
        let (pod, second) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
        let inside = lab.add_inside().expect("a peer");
        let outside = lab.add_outside().expect("a peer");
        let serve = |namespace: &Namespace, what, port| {
            client::serve(namespace, what, port).expect("a server")
        };
        let servers = vec![
            serve(&inside, "tcp-serve", 7001),
            serve(&inside, "udp-serve", 7002),
            serve(lab.node(), "tcp-serve", 7003),
            serve(&outside, "udp-serve", 7002),
        ];
        let bulk = Iperf::start(&inside, 5201).expect("iperf3");
        Self {
            bulk,
            _servers: servers,
            pod,
            second,
            inside,
            outside,
            lab,
        }
    }

    fn interfaces(&self) -> [&str; 3] {
        [
            UPLINK,
            &self.pod.host_interface,
            &self.second.host_interface,
        ]
    }

    fn set_offloads(&self, on: bool) {
        let set = |namespace: &Namespace, interface: &str| {
            namespace.set_offloads(interface, on).expect("ethtool");
        };
        for interface in self.interfaces() {
            set(self.lab.node(), interface);
        }
        for namespace in [&*self.pod, &*self.second, &*self.inside, &*self.outside] {
            set(namespace, "eth0");
        }
        for interface in self.lab.fabric().interfaces().expect("interfaces") {
            if interface.starts_with("port-") {
                set(self.lab.fabric(), &interface);
            }
        }
    }

    /// Starts the daemon while nothing moves, so that "since it attached" has an exact meaning.
    fn start_daemon(&self) -> (Daemon<'_>, Vec<Counters>) {
        for _ in 0..5 {
            let before = self.lab.quiet(&self.interfaces()).expect("quiet");
            let daemon = Daemon::start(self.lab.node(), &[]).expect("the daemon");
            let after = self.lab.quiet(&self.interfaces()).expect("quiet");
            if before == after {
                return (daemon, after);
            }
        }
        panic!("something always sends while the daemon attaches");
    }

    /// Waits until traffic has ended and every row is as it has to be, or for the time being over.
    fn settled(
        &self,
        daemon: &Daemon,
        base: &[Counters],
        right: impl Fn(&Comparison) -> bool,
    ) -> Vec<Comparison> {
        let mut rows = Vec::new();
        let _ = wait::until("the accounts to settle", SETTLE, || {
            let now = self.lab.quiet(&self.interfaces()).expect("quiet");
            let metrics = daemon.metrics().expect("a scrape");
            let moved: Vec<_> = self
                .interfaces()
                .into_iter()
                .zip(now.iter().zip(base).map(|(now, base)| *now - *base))
                .collect();
            rows = account::compare(&metrics, &moved);
            (!rows.is_empty() && rows.iter().all(&right)).then_some(())
        });
        rows
    }

    /// TCP in bulk: so many MB over each IP version.
    fn bulk(&self, megabytes4: u32, megabytes6: u32) {
        let run = |from: &Namespace, address: IpAddr, arguments: &[&str]| {
            let to = SocketAddr::new(address, self.bulk.port);
            let mut command = client::iperf(from, to, arguments);
            process::checked_within(&mut command, Duration::from_secs(100)).expect("iperf3");
        };
        let (v4, v6) = (
            self.inside.addresses.v4.into(),
            self.inside.addresses.v6.into(),
        );
        run(&self.pod, v4, &["--bytes", &format!("{megabytes4}M")]);
        run(&self.pod, v6, &["--bytes", &format!("{megabytes6}M")]);
        run(
            &self.second,
            v4,
            &["--bytes", &format!("{}M", megabytes4 / 4), "--reverse"],
        );
        run(
            self.lab.node(),
            v4,
            &["--bytes", &format!("{}M", megabytes4 / 8)],
        );
    }

    fn small_packets(&self) {
        for (from, to) in [
            (
                &*self.pod,
                SocketAddr::new(self.inside.addresses.v4.into(), 7002),
            ),
            (
                &*self.second,
                SocketAddr::new(self.outside.addresses.v6.into(), 7002),
            ),
        ] {
            let to = to.to_string();
            let arguments = ["udp", "--to", &to, "--count", "100000", "--size", "32"];
            let arguments = [arguments.as_slice(), &["--flows", "50", "--rate", "60000"]].concat();
            let report = client::send(from, &arguments).expect("a report");
            assert!(report.sent >= 99_000, "{report:?}");
        }
    }

    fn short_connections(&self, count: u32) {
        let count = count.to_string();
        for (from, to) in [
            (
                &*self.pod,
                SocketAddr::new(self.inside.addresses.v4.into(), 7001),
            ),
            (
                &*self.pod,
                SocketAddr::new(self.inside.addresses.v6.into(), 7001),
            ),
            (&*self.outside, SocketAddr::new(NODE.v4.into(), 7003)),
        ] {
            let to = to.to_string();
            let arguments = ["tcp-short", "--to", &to, "--count", &count];
            let report = client::send(from, &arguments).expect("a report");
            assert_eq!((report.errors, report.mismatches), (0, 0), "{report:?}");
        }
    }

    fn fragments(&self) {
        for address in [
            IpAddr::from(self.inside.addresses.v4),
            IpAddr::from(self.inside.addresses.v6),
        ] {
            let to = SocketAddr::new(address, 7002).to_string();
            let arguments = [
                "fragments",
                "--to",
                &to,
                "--count",
                "500",
                "--size",
                "6000",
                "--echo",
            ];
            let report = client::send(&self.pod, &arguments).expect("a report");
            assert_eq!((report.received, report.mismatches), (500, 0), "{report:?}");
        }
    }

    /// Frames with one and two tags over the uplink, both ways; returns how many.
    fn tagged_frames(&self) -> u64 {
        let node = self
            .lab
            .node()
            .hardware_address(UPLINK)
            .expect("an address");
        let peer = self.inside.hardware_address(UPLINK).expect("an address");
        let (here, there) = ("172.16.100.4:4100", "172.16.100.9:4100");
        let (here6, there6) = ("[fd00:1064::4]:4100", "[fd00:1064::9]:4100");
        let mut sent = 0;
        for (ids, here, there) in [
            ("100", here, there),
            ("7,100", here, there),
            ("100", here6, there6),
        ] {
            for (namespace, from_hardware, to_hardware, from, to) in [
                (self.lab.node(), &node, &peer, here, there),
                (&*self.inside, &peer, &node, there, here),
            ] {
                let report = client::send(
                    namespace,
                    &[
                        "vlan",
                        "--interface",
                        UPLINK,
                        "--id",
                        ids,
                        "--count",
                        "5000",
                        "--rate",
                        "50000",
                        "--from-hardware",
                        from_hardware,
                        "--to-hardware",
                        to_hardware,
                        "--from",
                        from,
                        "--to",
                        to,
                    ],
                )
                .expect("a report");
                assert_eq!(report.errors, 0, "{report:?}");
                sent += report.sent;
            }
        }
        sent
    }
}

/// Pods' traffic has no tags, so layer-3 bytes are the interfaces' bytes less 14 per frame, and the
/// only frames that are in no flow are ARP's, 42 bytes each.
fn bytes_are_layer_three(bench: &Bench, daemon: &Daemon, base: &[Counters], rows: &[Comparison]) {
    let (mut frames, mut octets) = (0, 0);
    for (interface, base) in bench.interfaces().into_iter().zip(base).skip(1) {
        let moved = bench.lab.node().stats(interface).expect("counters") - *base;
        assert_eq!(
            moved.tx_dropped, 0,
            "dropped frames have unknown lengths: {moved:?}"
        );
        frames += moved.rx_packets + moved.tx_packets;
        octets += moved.rx_bytes + moved.tx_bytes;
    }
    let workload = rows.iter().filter(|row| row.account.interface != UPLINK);
    let uncounted: u64 = workload.map(|row| row.account.uncounted_total()).sum();
    let expected = octets - 14 * frames - uncounted * (42 - 14);
    // Counters are read behind the flows: the last packets may be in the next reading of flows.
    let mut bytes = 0;
    let _ = wait::until("the flows of the last packets", SETTLE, || {
        let metrics = daemon.metrics().expect("a scrape");
        bytes = metrics.count("nodewatch_flow_bytes_total", &[("point", "workload")]);
        (bytes == expected).then_some(())
    });
    assert_eq!(
        bytes,
        expected,
        "{octets} bytes in {frames} frames, {uncounted} of them uncounted\n{}",
        account::table(rows)
    );
}

fn packets_of(record: &serde_json::Value) -> u64 {
    let packets = |side: &str| record[side]["packets"].as_u64().unwrap_or(0);
    packets("forward") + packets("reverse")
}
