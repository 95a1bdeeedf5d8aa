//! Captures from a lab, replayed: the same conversations as tshark finds, packet for packet.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::lab::capture::Captured;
use tests::lab::server::iperf::Iperf;
use tests::lab::server::nginx::Nginx;
use tests::lab::{self, Lab, Namespace, UPLINK, client, process};
use tests::{daemon, tshark};

const TOOLS: [&str; 6] = ["tcpdump", "tshark", "nginx", "openssl", "curl", "iperf3"];

#[test]
fn conversations_are_those_of_tshark() {
    let Some(_permit) = lab::require_with(&TOOLS) else {
        return;
    };
    let lab = Lab::new("replay").expect("a lab");
    let (pod, web) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let inside = lab.add_inside().expect("a peer");
    let _nginx = Nginx::start(&web).expect("nginx");
    let iperf = Iperf::start(&inside, 5201).expect("iperf3");
    let _tcp = client::serve(&inside, "tcp-serve", 7001).expect("a server");
    let _udp = client::serve(&inside, "udp-serve", 7002).expect("a server");
    let node = lab.node();
    let (v4, v6) = (
        IpAddr::from(inside.addresses.v4),
        IpAddr::from(inside.addresses.v6),
    );
    let send = |arguments: &[&str]| {
        client::send(&pod, arguments).expect("a report");
    };
    let to = |address, port| SocketAddr::new(address, port).to_string();
    let get = |address: IpAddr| {
        for scheme in ["http", "https"] {
            let url = client::url(scheme, address, "/big");
            process::checked(&mut client::curl(&pod, &url)).expect("curl");
        }
    };

    let link = pod.host_interface.as_str();
    compare("web over IPv4", node, link, &|| {
        get(web.addresses.v4.into());
    });
    compare("web over IPv6", node, link, &|| {
        get(web.addresses.v6.into());
    });
    compare("UDP, 40 ports, both versions", node, UPLINK, &|| {
        for address in [v4, v6] {
            let to = to(address, 7002);
            let arguments = ["udp", "--to", &to, "--count", "2000", "--size", "120"];
            send(&[arguments.as_slice(), &["--flows", "40", "--echo"]].concat());
        }
    });
    compare(
        "short TCP connections, both versions",
        node,
        UPLINK,
        &|| {
            for address in [v4, v6] {
                send(&["tcp-short", "--to", &to(address, 7001), "--count", "500"]);
            }
        },
    );
    compare("bulk TCP with segmentation offload", node, UPLINK, &|| {
        for address in [v4, v6] {
            let to = SocketAddr::new(address, iperf.port);
            let mut command = client::iperf(&pod, to, &["--bytes", "40M"]);
            process::checked(&mut command).expect("iperf3");
        }
    });
    compare("VLAN, one and two tags", node, UPLINK, &|| {
        tagged(node, &inside);
    });
    compare(
        "everything on all interfaces (Linux cooked)",
        node,
        "any",
        &|| {
            get(web.addresses.v4.into());
            send(&["udp", "--to", &to(v6, 7002), "--count", "200", "--echo"]);
            send(&["icmp", "--to", &v4.to_string(), "--count", "5"]);
        },
    );
}

#[test]
fn fragments_belong_to_their_flow() {
    let Some(_permit) = lab::require_with(&["tcpdump"]) else {
        return;
    };
    let lab = Lab::new("fragments").expect("a lab");
    let inside = lab.add_inside().expect("a peer");
    let _udp = client::serve(&inside, "udp-serve", 7002).expect("a server");
    for address in [
        IpAddr::from(inside.addresses.v4),
        IpAddr::from(inside.addresses.v6),
    ] {
        let to = SocketAddr::new(address, 7002).to_string();
        let captured = capture(lab.node(), UPLINK, &|| {
            let arguments = [
                "fragments",
                "--to",
                &to,
                "--count",
                "100",
                "--size",
                "4000",
                "--echo",
            ];
            let report = client::send(lab.node(), &arguments).expect("a report");
            assert_eq!((report.received, report.mismatches), (100, 0), "{report:?}");
        });
        assert_eq!(captured.dropped, 0, "tcpdump lost packets: {captured:?}");
        let records = replay(&captured.path);
        let flow = records
            .iter()
            .find(|record| record["destination"]["port"] == 7002);
        let flow = flow.unwrap_or_else(|| panic!("no flow in {records:#?}"));
        // 4000 bytes and 8 of UDP's header in fragments of up to 1480 (IPv4) or 1448 bytes (IPv6).
        let header = if address.is_ipv4() { 20 } else { 48 };
        let expected = (300, 100 * (4000 + 8 + 3 * header));
        for side in ["forward", "reverse"] {
            let number = |unit: &str| flow[side][unit].as_u64().unwrap_or(0);
            assert_eq!(
                (number("packets"), number("bytes")),
                expected,
                "{side} of {flow:#}"
            );
        }
    }
}

/// Captures what `act` sends, replays it, and compares with tshark. What tcpdump did not catch is
/// missing for both.
fn compare(what: &str, node: &Namespace, interface: &str, act: &dyn Fn()) {
    let captured = capture(node, interface, act);
    let records = replay(&captured.path);
    let own = tshark::of_records(&records).expect("records");
    let theirs = tshark::conversations(&captured.path).expect("tshark");
    let differences = tshark::differences(&own, &theirs);
    let packets: u64 = theirs.values().map(|count| count.packets).sum();
    println!(
        "{what}: {} packets captured, {} directions with {packets} packets, {} differ",
        captured.packets,
        theirs.len(),
        differences.len()
    );
    assert!(packets > 10, "{what}: tshark finds only {packets} packets");
    assert!(
        differences.is_empty(),
        "{what}:\n{}",
        differences.join("\n")
    );
    let summary = records.last().expect("a summary");
    assert_eq!(summary["type"], "summary", "{what}: {summary:#}");
    let text = summary.to_string();
    assert!(
        text.contains(&captured.packets.to_string()),
        "{what}: not {} packets: {summary:#}",
        captured.packets
    );
}

fn capture(node: &Namespace, interface: &str, act: &dyn Fn()) -> Captured {
    let path = node.directory().join("replay.pcap");
    let running = node.capture(interface, &path).expect("a capture");
    act();
    running.stop().expect("a whole capture")
}

fn replay(path: &Path) -> Vec<Value> {
    let mut command = Command::new(daemon::binary().expect("a binary"));
    command.arg("replay").arg(path).args(["-o", "jsonl"]);
    let text = process::checked_within(&mut command, Duration::from_mins(2)).expect("a replay");
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    text.lines().map(parse).collect()
}

fn tagged(node: &Namespace, inside: &Namespace) {
    let own = node.hardware_address(UPLINK).expect("an address");
    let peer = inside.hardware_address(UPLINK).expect("an address");
    for (ids, here, there) in [
        ("100", "172.16.100.4:4100", "172.16.100.9:4200"),
        ("7,100", "172.16.100.4:4101", "172.16.100.9:4201"),
        ("100", "[fd00:1064::4]:4102", "[fd00:1064::9]:4202"),
    ] {
        for (namespace, from_hardware, to_hardware, from, to) in [
            (node, &own, &peer, here, there),
            (inside, &peer, &own, there, here),
        ] {
            let frame = [
                "vlan",
                "--interface",
                UPLINK,
                "--id",
                ids,
                "--from",
                from,
                "--to",
                to,
            ];
            let ends = [
                "--from-hardware",
                from_hardware,
                "--to-hardware",
                to_hardware,
            ];
            let arguments = [&frame[..], &ends, &["--count", "300", "--size", "80"]].concat();
            let report = client::send(namespace, &arguments).expect("a report");
            assert_eq!((report.sent, report.errors), (300, 0), "{report:?}");
        }
    }
}
