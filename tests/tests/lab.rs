//! The lab itself: everything reaches everything, servers serve, and nothing stays behind.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tests::lab::server::dns::Dns;
use tests::lab::server::iperf::Iperf;
use tests::lab::server::nginx::{BIG_BYTES, HELLO, Nginx};
use tests::lab::server::sshd::Sshd;
use tests::lab::{Lab, NODE, UPLINK, client, process, sweep};
use tests::{foreign, lab};

#[test]
fn everything_reaches_everything() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("reach").expect("a lab");
    let pods: Vec<_> = (0..2).map(|_| lab.add_pod().expect("a pod")).collect();
    let (outside, inside) = (
        lab.add_outside().expect("a peer"),
        lab.add_inside().expect("a peer"),
    );
    let ends = [
        ("node", lab.node(), NODE),
        ("pod 1", &*pods[0], pods[0].addresses),
        ("pod 2", &*pods[1], pods[1].addresses),
        ("outside", &*outside, outside.addresses),
        ("inside", &*inside, inside.addresses),
    ];
    for (from, namespace, _) in &ends {
        for (to, _, addresses) in &ends {
            for address in [IpAddr::from(addresses.v4), IpAddr::from(addresses.v6)] {
                let address = address.to_string();
                let arguments = ["icmp", "--to", &address, "--count", "3"];
                let report = client::send(namespace, &arguments).expect("a report");
                assert_eq!(
                    (report.received, report.mismatches),
                    (3, 0),
                    "{from} to {to} ({address}): {report:?}"
                );
            }
        }
    }
    let removed = pods.into_iter().next().expect("two pods");
    let link = removed.host_interface.clone();
    assert!(lab.node().interfaces().expect("interfaces").contains(&link));
    removed.remove().expect("removed");
    assert!(!lab.node().interfaces().expect("interfaces").contains(&link));
}

#[test]
fn servers_serve_both_ip_versions() {
    let tools = [
        "sshd",
        "ssh",
        "ssh-keygen",
        "nginx",
        "openssl",
        "iperf3",
        "curl",
    ];
    let Some(_permit) = lab::require_with(&tools) else {
        return;
    };
    let lab = Lab::new("servers").expect("a lab");
    let (web, pod) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let (outside, inside) = (
        lab.add_outside().expect("a peer"),
        lab.add_inside().expect("a peer"),
    );
    let _nginx = Nginx::start(&web).expect("nginx");
    let sshd = Sshd::start(lab.node(), 22).expect("sshd");
    let iperf = Iperf::start(&inside, 5201).expect("iperf3");
    let _dns = Dns::start(&inside).expect("a DNS server");
    let _tcp = client::serve(&outside, "tcp-serve", 7000).expect("an echo server");
    let _udp = client::serve(&outside, "udp-serve", 7000).expect("an echo server");

    for address in [
        IpAddr::from(web.addresses.v4),
        IpAddr::from(web.addresses.v6),
    ] {
        for (scheme, path) in [("http", "/"), ("https", "/")] {
            let url = client::url(scheme, address, path);
            let text = process::checked(&mut client::curl(&outside, &url)).expect("curl");
            assert_eq!(text, HELLO, "{url}");
        }
        let url = client::url("http", address, "/big");
        let big = process::checked(&mut client::curl(&pod, &url)).expect("curl");
        // curl's output is read as text: compare the file's start, which is ASCII.
        assert!(big.len() >= BIG_BYTES, "{url}: {} bytes", big.len());
    }
    for address in [IpAddr::from(NODE.v4), IpAddr::from(NODE.v6)] {
        let mut login = sshd.login(&outside, address);
        let text = process::checked(login.args(["echo", "logged in"])).expect("a login");
        assert_eq!(text, "logged in\n", "{address}; {}", sshd.guard.log());
        let mut refused = sshd.refused_login(&pod, address);
        let output = process::output(refused.arg("true"), process::PATIENCE).expect("an end");
        assert_eq!(output.status.code(), Some(255), "{address}: {output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("denied"),
            "{output:?}"
        );
    }
    for address in [
        IpAddr::from(inside.addresses.v4),
        IpAddr::from(inside.addresses.v6),
    ] {
        let to = SocketAddr::new(address, iperf.port);
        let mut bulk = client::iperf(&pod, to, &["--time", "1", "--bitrate", "20M"]);
        let text = process::checked(&mut bulk).expect("iperf3");
        let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let bytes = report["end"]["sum_received"]["bytes"]
            .as_u64()
            .expect("bytes");
        assert!(bytes > 1_000_000, "{address}: {bytes} bytes");
        let to = SocketAddr::new(address, 53).to_string();
        let arguments = ["dns", "--to", &to, "--name", "web.lab.test", "--count", "5"];
        let report = client::send(&pod, &arguments).expect("a report");
        assert_eq!((report.received, report.mismatches), (5, 0), "{report:?}");
    }
    for address in [
        IpAddr::from(outside.addresses.v4),
        IpAddr::from(outside.addresses.v6),
    ] {
        let to = SocketAddr::new(address, 7000).to_string();
        for arguments in [
            [
                "udp", "--to", &to, "--count", "50", "--size", "100", "--echo",
            ]
            .as_slice(),
            &[
                "fragments",
                "--to",
                &to,
                "--count",
                "20",
                "--size",
                "5000",
                "--echo",
            ],
            &["tcp-short", "--to", &to, "--count", "50"],
            &["tcp-stream", "--to", &to, "--seconds", "1"],
        ] {
            let report = client::send(&pod, arguments).expect("a report");
            let clean = (report.sent, report.mismatches, report.errors) == (report.received, 0, 0);
            assert!(clean, "{arguments:?}: {report:?}");
            assert_eq!(
                report.sent_bytes, report.received_bytes,
                "{arguments:?}: {report:?}"
            );
        }
    }
}

#[test]
fn counters_and_captures_see_the_same() {
    let Some(_permit) = lab::require_with(&["tcpdump", "ethtool"]) else {
        return;
    };
    let lab = Lab::new("capture").expect("a lab");
    let peer = lab.add_inside().expect("a peer");
    lab.node()
        .set_offloads(UPLINK, false)
        .expect("offloads off");
    peer.set_offloads("eth0", false).expect("offloads off");
    let _echo = client::serve(&peer, "udp-serve", 7000).expect("an echo server");
    let to = SocketAddr::new(peer.addresses.v4.into(), 7000).to_string();
    let file = lab.directory().join("uplink.pcap");
    let before = lab.quiet(&[UPLINK]).expect("quiet")[0];
    let capture = lab.node().capture(UPLINK, &file).expect("a capture");
    let arguments = [
        "udp", "--to", &to, "--count", "1000", "--size", "200", "--echo",
    ];
    let report = client::send(lab.node(), &arguments).expect("a report");
    assert_eq!(
        (report.received, report.mismatches),
        (1000, 0),
        "{report:?}"
    );
    let moved = lab.quiet(&[UPLINK]).expect("quiet")[0] - before;
    let captured = capture.stop().expect("a whole capture");
    assert_eq!(captured.dropped, 0, "{captured:?}");
    assert_eq!(
        captured.packets,
        moved.rx_packets + moved.tx_packets,
        "{moved:?}"
    );
    assert!(
        moved.rx_packets >= 1000 && moved.tx_packets >= 1000,
        "{moved:?}"
    );
}

#[test]
fn tagged_frames_pass_the_fabric() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("vlan").expect("a lab");
    let peer = lab.add_inside().expect("a peer");
    let own = peer.hardware_address(UPLINK).expect("an address");
    let node = lab.node().hardware_address(UPLINK).expect("an address");
    lab.quiet(&[UPLINK]).expect("quiet");
    let before = lab.node().stats(UPLINK).expect("counters");
    let report = client::send(
        &peer,
        &[
            "vlan",
            "--interface",
            UPLINK,
            "--id",
            "100",
            "--from-hardware",
            &own,
            "--to-hardware",
            &node,
            "--from",
            "172.16.100.9:1000",
            "--to",
            "172.16.100.4:2000",
            "--count",
            "500",
        ],
    )
    .expect("a report");
    assert_eq!((report.sent, report.errors), (500, 0), "{report:?}");
    let moved = lab.quiet(&[UPLINK]).expect("quiet")[0] - before;
    assert!(moved.rx_packets >= 500, "{moved:?}");
}

#[test]
fn a_foreign_program_counts() {
    let Some(_permit) = lab::require_with(&["tc"]) else {
        return;
    };
    let lab = Lab::new("foreign").expect("a lab");
    let peer = lab.add_inside().expect("a peer");
    foreign::add_filters(lab.node(), UPLINK, 10).expect("filters");
    let shown = foreign::show_filters(lab.node(), UPLINK).expect("tc");
    assert!(
        shown.contains("clsact") && shown.contains("u32") && shown.contains("bpf"),
        "{shown}"
    );
    if !foreign::has_tcx(lab.node(), UPLINK) {
        return lab::gate::skip("this kernel has no TCX");
    }
    let program = foreign::Program::attach(lab.node(), UPLINK, foreign::Direction::Egress)
        .expect("a program");
    let address = peer.addresses.v4.to_string();
    let report = client::send(lab.node(), &["icmp", "--to", &address, "--count", "10"]);
    assert_eq!(report.expect("a report").received, 10);
    let seen = program.packets().expect("a count");
    assert!(seen >= 10, "{seen} packets");
    let ids = |direction| foreign::tcx_programs(lab.node(), UPLINK, direction).expect("ids");
    let own = program.id().expect("an id");
    assert_eq!(ids(foreign::Direction::Egress), Some(vec![own]));
    assert_eq!(ids(foreign::Direction::Ingress), Some(vec![]));
    drop(program);
    assert_eq!(ids(foreign::Direction::Egress), Some(vec![]));
}

#[test]
fn a_panic_leaves_nothing_behind() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new("panic").expect("a lab");
        let pod = lab.add_pod().expect("a pod");
        let _server = client::serve(&pod, "tcp-serve", 7000).expect("a server");
        // A grandchild in a session of its own: no process group reaches it.
        let mut stray = pod.command("setsid");
        stray.args(["--fork", "sh", "-c", "exec sleep 600 >/dev/null 2>&1"]);
        process::checked(&mut stray).expect("a stray process");
        let there = sweep::leftovers();
        assert!(
            there.len() >= 6,
            "namespaces, processes and a directory: {there:?}"
        );
        assert!(
            there.iter().any(|what| what.starts_with("process")),
            "{there:?}"
        );
        panic!("on purpose");
    }));
    let payload = panicked.expect_err("it panics");
    assert_eq!(
        payload.downcast_ref(),
        Some(&"on purpose"),
        "it panicked for another reason"
    );
    let rest = lab::wait::until("the clean-up", Duration::from_secs(5), || {
        sweep::leftovers().is_empty().then_some(())
    });
    assert!(rest.is_ok(), "left behind: {:?}", sweep::leftovers());
}
