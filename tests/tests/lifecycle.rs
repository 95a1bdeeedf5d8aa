//! The agent comes, crashes, returns and goes: traffic and other programs do not notice.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tests::account;
use tests::bpf::program_exists;
use tests::daemon::Daemon;
use tests::foreign::{self, Direction, Program, Verdict};
use tests::lab::{self, Lab, Namespace, UPLINK, client, process, wait};

/// How long the daemon may take from SIGTERM to its end.
const EXIT: Duration = Duration::from_secs(2);

/// The longest pause of a TCP transfer that still counts as undisturbed.
const PAUSE_MS: u64 = 1_000;

/// Ways to attach.
const MODES: [&str; 2] = ["tcx", "clsact"];

#[test]
fn traffic_passes_unchanged_by_tcx() {
    traffic_passes("tcx");
}

#[test]
fn traffic_passes_unchanged_by_clsact() {
    traffic_passes("clsact");
}

fn traffic_passes(mode: &str) {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("pass").expect("a lab");
    if !supported(&lab, mode) {
        return;
    }
    let (pod, second) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let (outside, inside) = (
        lab.add_outside().expect("a peer"),
        lab.add_inside().expect("a peer"),
    );
    if mode == "clsact" {
        // Whoever adds the first clsact qdisc to a device has the kernel deactivate it for a
        // moment, which may cost a packet on its way (qdisc_graft in net/sched/sch_api.c): seen
        // also with tc alone. What is tested is our filters; docs/kernel.md tells of the qdisc.
        for interface in [UPLINK, &pod.host_interface, &second.host_interface] {
            let mut command = lab.node().command("tc");
            command.args(["qdisc", "add", "dev", interface, "clsact"]);
            process::checked(&mut command).expect("clsact");
        }
    }
    let _tcp = client::serve(&outside, "tcp-serve", 7001).expect("a server");
    let _udp = client::serve(&inside, "udp-serve", 7002).expect("a server");
    let outside4 = SocketAddr::new(outside.addresses.v4.into(), 7001).to_string();
    let outside6 = SocketAddr::new(outside.addresses.v6.into(), 7001).to_string();
    let udp = SocketAddr::new(inside.addresses.v6.into(), 7002).to_string();
    let ping = inside.addresses.v4.to_string();
    let start =
        |from: &Namespace, arguments: &[&str]| client::start(from, arguments).expect("a client");
    let seconds = "14";
    let streams = [
        start(
            &pod,
            &["tcp-stream", "--to", &outside4, "--seconds", seconds],
        ),
        start(
            lab.node(),
            &["tcp-stream", "--to", &outside6, "--seconds", seconds],
        ),
    ];
    let mut exact = vec![
        start(
            &second,
            &["icmp", "--to", &ping, "--count", "1400", "--rate", "100"],
        ),
        start(
            &pod,
            &[
                "udp", "--to", &udp, "--count", "1400", "--rate", "100", "--size", "700", "--echo",
            ],
        ),
        start(
            &second,
            &[
                "fragments",
                "--to",
                &udp,
                "--count",
                "280",
                "--rate",
                "20",
                "--echo",
            ],
        ),
    ];
    std::thread::sleep(Duration::from_millis(500));
    let arguments = ["--attach", mode];
    let run = || Daemon::start(lab.node(), &arguments).expect("the daemon");
    let pause = || std::thread::sleep(Duration::from_millis(800));
    let crashed = run();
    pause();
    crashed.kill();
    pause();
    let again = run();
    pause();
    assert!(
        again.stop().expect("an end").status.success(),
        "an orderly end"
    );
    let third = run();
    pause();
    let metrics = third.metrics().expect("a scrape");
    let counted: u64 = account::read(&metrics)
        .iter()
        .map(|account| account.counted)
        .sum();
    assert!(counted > 0, "the third run counts nothing");
    assert!(
        exact.iter_mut().all(client::Running::is_running),
        "the clients ended too soon"
    );
    third.kill();
    let last = run();
    assert!(
        last.stop().expect("an end").status.success(),
        "an orderly end"
    );
    for stream in streams {
        let report = stream.report(Duration::from_secs(30)).expect("a report");
        assert_eq!(
            (report.errors, report.mismatches),
            (0, 0),
            "{mode}: {report:?}"
        );
        assert_eq!(
            report.sent_bytes, report.received_bytes,
            "{mode}: {report:?}"
        );
        assert!(report.longest_gap_ms <= PAUSE_MS, "{mode}: {report:?}");
    }
    for client in exact {
        let report = client.report(Duration::from_secs(30)).expect("a report");
        assert_eq!(
            (report.errors, report.mismatches),
            (0, 0),
            "{mode}: {report:?}"
        );
        assert_eq!(report.sent, report.received, "{mode}: lost {report:?}");
    }
}

#[test]
fn others_on_the_hooks_are_untouched() {
    let Some(_permit) = lab::require_with(&["tc"]) else {
        return;
    };
    for mode in MODES {
        let lab = Lab::new("others").expect("a lab");
        if !supported(&lab, mode) {
            continue;
        }
        let pod = lab.add_pod().expect("a pod");
        let link = pod.host_interface.clone();
        let peer = lab.add_inside().expect("a peer");
        let node = lab.node();
        for interface in [UPLINK, &link] {
            foreign::add_filters(node, interface, 10).expect("filters");
        }
        let has_tcx = foreign::has_tcx(node, UPLINK);
        let attach = |interface: &str, direction| {
            Program::attach(node, interface, direction).expect("a foreign program")
        };
        let mut programs = Vec::new();
        for interface in [UPLINK, &link].into_iter().filter(|_| has_tcx) {
            programs.extend(Direction::BOTH.map(|direction| attach(interface, direction)));
        }
        let before = hooks(node, &[UPLINK, &link]);
        let daemon = Daemon::start(node, &["--attach", mode]).expect("the daemon");
        ping(&pod, peer.addresses.v4.into());
        assert_counts(&programs, "with the daemon", mode);
        let late = has_tcx.then(|| attach(UPLINK, Direction::Ingress));
        ping(&pod, peer.addresses.v4.into());
        // The counters are read once a second.
        let counted = wait::until("packets at every hook", Duration::from_secs(5), || {
            let accounts = account::read(&daemon.metrics().expect("a scrape"));
            accounts
                .iter()
                .all(|account| account.counted > 0)
                .then_some(())
        });
        assert!(
            counted.is_ok(),
            "{mode}: the daemon sees nothing: {:?}",
            daemon.metrics().map(|metrics| account::read(&metrics))
        );
        assert!(
            daemon.stop().expect("an end").status.success(),
            "{mode}: an orderly end"
        );
        let late_id = late.as_ref().map(|program| program.id().expect("an id"));
        if let Some(id) = late_id {
            let there = foreign::tcx_programs(node, UPLINK, Direction::Ingress).expect("a query");
            assert!(
                there.is_some_and(|ids| ids.contains(&id)),
                "{mode}: the late one is gone"
            );
        }
        drop(late);
        same_hooks(&before, &hooks(node, &[UPLINK, &link]), mode);
        let daemon = Daemon::start(node, &["--attach", mode]).expect("the daemon");
        daemon.kill();
        ping(&pod, peer.addresses.v4.into());
        assert_counts(&programs, "after a crash", mode);
        let daemon = Daemon::start(node, &["--attach", mode]).expect("the daemon");
        assert!(
            daemon.stop().expect("an end").status.success(),
            "{mode}: an orderly end"
        );
        same_hooks(&before, &hooks(node, &[UPLINK, &link]), mode);
    }
}

/// A neighbour that lets packets pass ends the chain: the daemon has to stand before it.
#[test]
fn a_neighbour_that_ends_the_chain_hides_nothing() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("first").expect("a lab");
    if !supported(&lab, "tcx") {
        return;
    }
    let peer = lab.add_inside().expect("a peer");
    let programs = Direction::BOTH.map(|direction| {
        Program::attach_with(lab.node(), UPLINK, direction, Verdict::Pass).expect("a program")
    });
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    ping(lab.node(), peer.addresses.v4.into());
    let counted = wait::until("packets in both directions", Duration::from_secs(5), || {
        let accounts = account::read(&daemon.metrics().expect("a scrape"));
        let all = accounts.len() == 2 && accounts.iter().all(|account| account.counted >= 5);
        all.then_some(())
    });
    assert!(
        counted.is_ok(),
        "{:?}\n{}",
        daemon.metrics().map(|m| account::read(&m)),
        daemon.log()
    );
    assert_counts(&programs, "behind the daemon", "tcx");
}

#[test]
fn nothing_remains_after_the_end() {
    let Some(_permit) = lab::require_with(&["tc"]) else {
        return;
    };
    for mode in MODES {
        for crash in [false, true] {
            let lab = Lab::new("end").expect("a lab");
            if !supported(&lab, mode) {
                continue;
            }
            let pod = lab.add_pod().expect("a pod");
            let link = pod.host_interface.clone();
            let daemon = Daemon::start(lab.node(), &["--attach", mode]).expect("the daemon");
            let held = tests::held::Held::by(daemon.pid()).expect("the daemon runs");
            let socket = daemon.socket().to_path_buf();
            assert!(Path::exists(&socket), "no socket at {}", socket.display());
            assert!(!held.programs.is_empty(), "it holds no program: {held:?}");
            if crash {
                daemon.kill();
                if mode == "clsact" {
                    // A netlink filter outlives its maker; the next daemon has to replace it.
                    let again = Daemon::start(lab.node(), &["--attach", mode]).expect("a daemon");
                    let shown = foreign::show_filters(lab.node(), UPLINK).expect("tc");
                    let ours = shown
                        .lines()
                        .filter(|line| line.contains("nodewatch_in"))
                        .count();
                    assert_eq!(
                        ours, 1,
                        "one filter of ours a direction, not more:\n{shown}"
                    );
                    assert!(
                        again.stop().expect("an end").status.success(),
                        "an orderly end"
                    );
                }
            } else {
                let stopped = daemon.stop().expect("an end");
                println!("{mode}: ended {:?} after SIGTERM", stopped.took);
                assert!(stopped.status.success(), "{mode}: {stopped:?}");
                assert!(stopped.took <= EXIT, "{mode}: {stopped:?}");
                assert!(!socket.exists(), "{mode}: {} remains", socket.display());
            }
            for interface in [UPLINK, &link] {
                let filters = foreign::show_filters(lab.node(), interface).expect("tc");
                assert!(
                    !filters.contains("nodewatch"),
                    "{mode}, crash {crash}:\n{filters}"
                );
                for direction in Direction::BOTH {
                    let ids = foreign::tcx_programs(lab.node(), interface, direction);
                    let ids = ids.expect("a query").unwrap_or_default();
                    assert_eq!(
                        ids, [0_u32; 0],
                        "{mode}, crash {crash}: {interface} {direction:?}"
                    );
                }
            }
            for id in held.programs {
                let gone = wait::until("a program to go", Duration::from_secs(5), || {
                    (!program_exists(id)).then_some(())
                });
                assert!(
                    gone.is_ok(),
                    "{mode}, crash {crash}: program {id} still exists"
                );
            }
        }
    }
}

fn supported(lab: &Lab, mode: &str) -> bool {
    let yes = mode != "tcx" || foreign::has_tcx(lab.node(), UPLINK);
    if !yes {
        eprintln!("this kernel has no TCX: only clsact is tested");
    }
    yes
}

fn ping(from: &Namespace, to: IpAddr) {
    let to = to.to_string();
    let report = client::send(from, &["icmp", "--to", &to, "--count", "5"]).expect("a report");
    assert_eq!((report.received, report.mismatches), (5, 0), "{report:?}");
}

/// Every foreign program sees packets: five answered requests went by since the last look.
fn assert_counts(programs: &[Program], when: &str, mode: &str) {
    for program in programs {
        let packets = program.packets().expect("a count");
        assert!(
            packets >= 5,
            "{mode}, {when}: a foreign program saw {packets} packets"
        );
    }
}

/// What sits on the interfaces' hooks: tc's own words, and TCX program ids.
fn hooks(node: &Namespace, interfaces: &[&str]) -> Vec<(String, [Option<Vec<u32>>; 2])> {
    interfaces
        .iter()
        .map(|interface| {
            let filters = foreign::show_filters(node, interface).expect("tc");
            let ids = Direction::BOTH.map(|direction| {
                foreign::tcx_programs(node, interface, direction).expect("a query")
            });
            (filters, ids)
        })
        .collect()
}

fn same_hooks(
    before: &[(String, [Option<Vec<u32>>; 2])],
    after: &[(String, [Option<Vec<u32>>; 2])],
    mode: &str,
) {
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before.0, after.0, "{mode}: tc shows something else");
        assert_eq!(before.1, after.1, "{mode}: other TCX programs");
    }
}
