//! What many flows cost: answers of the command line, processor time, memory, scrapes.
//!
//! The figures are printed always. Times are judged in release builds only, sizes in all:
//! `cargo xtask figures scale`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tests::daemon::Daemon;
use tests::lab::{self, Guard, Lab, Peer, Transport, client, wait};

/// Flows to one address of the peer.
const PER_ADDRESS: u64 = 3_400;

/// Memory of the daemon's own, in KiB: without the kernel's tables and the program file that it has mapped.
const MAX_OWN_KIB: u32 = 40 * 1024;
/// All that is resident with 10,000 flows, in KiB: the kernel's tables and the program file included.
const MAX_RESIDENT_KIB: u32 = 40 * 1024;
/// Memory of its own with 100,000 flows.
const MAX_OWN_FULL_KIB: u32 = 96 * 1024;
/// A scrape of 20,000 series, in bytes.
const MAX_SCRAPE: usize = 4_000_000;

struct Crowd {
    _echo: Vec<Guard>,
    peer: Peer,
    lab: Lab,
}

#[test]
fn a_hundred_thousand_flows() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let crowd = Crowd::new("hundred");
    let daemon = Daemon::start(crowd.lab.node(), &[]).expect("the daemon");
    crowd.make_flows(30);
    wait_active(&daemon, 100_000);
    for arguments in [
        ["status"].as_slice(),
        &["flows", "--last", "20"],
        &[
            "flows",
            "--ip",
            "10.224.1.7",
            "--last",
            "100",
            "-o",
            "jsonl",
        ],
        &["flows", "--app", "ssh", "-o", "jsonl"],
        &["flows", "--not", "--protocol", "udp", "-o", "jsonl"],
    ] {
        let mut times: Vec<_> = (0..7)
            .map(|_| time(|| daemon.tell(arguments).map(drop)))
            .collect();
        times.sort();
        println!(
            "{arguments:?}: {:?} (median of 7), {:?} (slowest)",
            times[3], times[6]
        );
        judge(
            times[3] <= Duration::from_millis(100),
            &format!("{arguments:?}: {times:?}"),
        );
    }
    let metrics = daemon.metrics().expect("a scrape");
    println!(
        "{} flows active",
        metrics.sum("nodewatch_flows_active", &[])
    );
    judge_memory(daemon.pid(), MAX_OWN_FULL_KIB);
    let stopped = daemon.stop().expect("an end");
    println!("ended {:?} after SIGTERM", stopped.took);
    assert!(
        stopped.took <= Duration::from_secs(2),
        "with 100,000 flows: {stopped:?}"
    );
}

#[test]
fn ten_thousand_idle_flows() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let crowd = Crowd::new("ten");
    let daemon = Daemon::start(crowd.lab.node(), &[]).expect("the daemon");
    crowd.make_flows(3);
    wait_active(&daemon, 10_000);
    let (before, start) = (processor_time(daemon.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let used = processor_time(daemon.pid()).saturating_sub(before);
    let share = used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    let active = daemon
        .metrics()
        .expect("a scrape")
        .sum("nodewatch_flows_active", &[]);
    println!("{active} flows: {share:.2} % of a processor");
    judge_memory(daemon.pid(), MAX_OWN_KIB);
    // Of a debug build's program file more is resident than of everything else.
    let resident = memory_kib(daemon.pid(), "VmRSS:");
    judge(
        resident <= MAX_RESIDENT_KIB,
        &format!("{resident} KiB resident"),
    );
    judge(
        active >= 10_000.0,
        &format!("only {active} flows are active"),
    );
    judge(share <= 1.0, &format!("{share:.2} % of a processor"));
}

#[test]
fn twenty_thousand_series() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let crowd = Crowd::new("series");
    let daemon = Daemon::start(crowd.lab.node(), &[]).expect("the daemon");
    let to = crowd.peer.addresses.v4;
    // A service port each: packets and bytes, and a connection.
    let send = || (10_000..16_600).for_each(|port| send_one(SocketAddr::new(to.into(), port)));
    crowd.lab.node().run(send).expect("sent");
    let series = || daemon.metrics().expect("a scrape").samples.len();
    let there = wait::until("many series", Duration::from_mins(1), || {
        (series() >= 19_000).then_some(())
    });
    println!("{} series; {there:?}", series());
    let mut times: Vec<_> = (0..7)
        .map(|_| time(|| daemon.http("/metrics").map(drop)))
        .collect();
    times.sort();
    println!(
        "a scrape: {:?} (median of 7), {:?} (slowest)",
        times[3], times[6]
    );
    there.expect("enough series to judge a scrape");
    let size = daemon.http("/metrics").expect("a scrape").body.len();
    println!("{size} bytes");
    assert!(size <= MAX_SCRAPE, "a scrape of {size} bytes");
    judge_memory(daemon.pid(), MAX_OWN_KIB);
    judge(
        times[3] <= Duration::from_millis(150),
        &format!("scrapes: {times:?}"),
    );
}

// === impl Crowd ===

impl Crowd {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name).expect("a lab");
        let peer = lab.add_inside().expect("a peer");
        let addresses = (1..=30).map(|host| format!("addr add 10.224.1.{host}/16 dev eth0\n"));
        peer.ip_batch(&addresses.collect::<Vec<_>>().concat())
            .expect("addresses");
        // One server per address: a common one would answer from the first address.
        let serve = |host| {
            let listen = format!("10.224.1.{host}:7002");
            let mut command = client::traffic(&peer, &["udp-serve", "--listen", &listen]);
            peer.spawn("udp-serve", command.as_mut().expect("a program"))
                .expect("a server")
        };
        let echo = (1..=30).map(serve).collect();
        peer.wait_listening(Transport::Udp, 7002, Duration::from_secs(5))
            .expect("servers");
        Self {
            _echo: echo,
            peer,
            lab,
        }
    }

    fn make_flows(&self, addresses: u8) {
        let (count, flows) = ((PER_ADDRESS * 2).to_string(), PER_ADDRESS.to_string());
        for host in 1..=addresses {
            let to = SocketAddr::new(Ipv4Addr::new(10, 224, 1, host).into(), 7002).to_string();
            let udp = [
                "udp", "--to", &to, "--count", &count, "--size", "40", "--flows", &flows,
            ];
            let report = client::send(self.lab.node(), &udp).expect("a report");
            assert_eq!(report.errors, 0, "{report:?}");
        }
    }
}

fn send_one(to: SocketAddr) {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.send_to(b"one packet", to).expect("sent");
}

fn wait_active(daemon: &Daemon, least: u64) {
    let active = || {
        daemon
            .metrics()
            .expect("a scrape")
            .count("nodewatch_flows_active", &[])
    };
    let there = wait::until("flows", Duration::from_secs(20), || {
        (active() >= least).then_some(())
    });
    assert!(there.is_ok(), "{} flows are active, not {least}", active());
}

fn time<E: std::fmt::Debug>(act: impl FnOnce() -> Result<(), E>) -> Duration {
    let start = Instant::now();
    act().expect("an answer");
    start.elapsed()
}

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

/// Fails when the daemon takes more memory of its own than is said.
fn judge_memory(pid: u32, most_kib: u32) {
    let (resident, own) = (memory_kib(pid, "VmRSS:"), memory_kib(pid, "RssAnon:"));
    println!(
        "{:.1} MiB resident, {:.1} MiB of them its own",
        mebibytes(resident),
        mebibytes(own)
    );
    assert!(own <= most_kib, "{own} KiB of its own");
}

fn memory_kib(pid: u32, what: &str) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(what))
        .expect(what);
    let number = line.split_ascii_whitespace().next().expect("a number");
    number.parse().expect("a number")
}

fn mebibytes(kib: u32) -> f64 {
    f64::from(kib) / 1024.0
}
