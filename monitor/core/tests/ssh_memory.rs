//! How much memory SSH takes, whoever does what: measured with everything as full as it gets.

use std::net::Ipv4Addr;

use monitor_common::{
    abi::{FlowKey4, FlowValue, RX, TX, flag, scope},
    classify::App,
};
use monitor_core::{
    account::Interface,
    engine::{Config, Engine, Input, Outputs, Owner, OwnerAnswer},
    event::{Point, ProcessRecord, Protocol},
    filter::FlowFilter,
    flow::{FlowKey, SegmentEvent},
    time::{ClockMap, Timestamp},
};

/// What ARCHITECTURE.md says, in bytes; the histories of sources, servers and HASSHes, which are full
/// only after a quarter of a million connections, are computed in `judge::brute`.
const MOST: usize = 120 << 20;
const HISTORIES: usize = 4_096 * 64 * 72;
/// Connections at a time.
const CONNECTIONS: u32 = 16_384;
/// Closed connections and findings that are remembered.
const RECENT: usize = 4_096;
const SECOND: u64 = 1_000_000_000;
const NODE: Ipv4Addr = Ipv4Addr::new(10, 224, 0, 4);

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: usize = digits
        .and_then(|digits| digits.parse().ok())
        .expect("a size");
    kibibytes * 1_024
}

fn step(engine: &mut Engine, input: Input) -> Outputs {
    engine.step(input, Timestamp::from_seconds(100))
}

fn engine() -> Engine {
    let mut config = Config {
        owners: true,
        ..Config::default()
    };
    let range = "admin=192.0.2.0/24".parse().expect("a range");
    config.expectations.node = vec![range];
    let mut engine = Engine::new(config).expect("an engine");
    for input in [
        Input::Clock(ClockMap {
            wall_minus_monotonic_ns: 0,
            ticks_now: 100,
            monotonic_now_ns: 100 * SECOND,
            ns_per_tick: SECOND,
        }),
        Input::Interface(Interface {
            id: 1,
            ifindex: 2,
            name: "eth0".into(),
            point: Point::Uplink,
            attach: "tcx".into(),
            covered: true,
            reason: None,
            attached_ns: Some(SECOND),
        }),
        Input::Addresses(vec![std::net::IpAddr::from(NODE).into()]),
    ] {
        step(&mut engine, input);
    }
    engine
}

/// The node's server, and a client of its own address for each number.
fn client(number: u32) -> FlowKey {
    FlowKey::V4(FlowKey4 {
        local: NODE.to_bits(),
        remote: Ipv4Addr::new(198, 18, 0, 0).to_bits() + number,
        local_port: 22,
        remote_port: 50_000,
        scope: scope(1, Protocol::TCP.0),
    })
}

/// As long a banner as there may be, all of it escaped, and a KEXINIT that does not end; held by a
/// process of which everything is as long as it may be.
fn attack(engine: &mut Engine, key: FlowKey) {
    let line = [&b"SSH-2.0-"[..], &[0x1B; 250], b"\r\n"].concat();
    let mut bytes = [&line[..], &35_000_u32.to_be_bytes(), &[5, 20]].concat();
    bytes.resize(8_000, b'x');
    let mut flags = [0; 2];
    flags[RX] = flag::SYN | flag::OPENS;
    flags[TX] = flag::SYN | flag::ACK | flag::ACCEPTS;
    for sent in [true, false] {
        let segment = SegmentEvent {
            key,
            generation: 0,
            sent,
            sequence: 1,
            length: 8_000,
            is_pushed: true,
            time_ns: 99 * SECOND,
            flags,
            app: App::Ssh,
            prefix: Box::default(),
            prefix_end: 1,
            bytes: bytes.clone().into(),
        };
        for question in step(engine, Input::Segment(segment)).owners {
            let process = ProcessRecord {
                pid: 1,
                name: "n".repeat(64),
                executable: Some("e".repeat(256)),
                container: Some("c".repeat(64)),
            };
            let owner = Some(Owner {
                user: Some("u".repeat(64)),
                process: Some(process),
                authenticated: Some(true),
            });
            step(engine, Input::Owner(OwnerAnswer { question, owner }));
        }
    }
}

fn close(engine: &mut Engine, key: FlowKey) {
    let mut flags = [flag::SYN | flag::ACK | flag::FIN | flag::DATA; 2];
    flags[RX] |= flag::OPENS | flag::FIRST;
    flags[TX] |= flag::ACCEPTS;
    let value = FlowValue {
        packets: [5, 6],
        bytes: [500, 600],
        flags,
        first_seen_ns: 99 * SECOND,
        last_seen_ticks: 99,
        app: App::Ssh as u8,
        ..FlowValue::default()
    };
    step(engine, Input::Flows(vec![(key, value)]));
    step(engine, Input::Removed(vec![(key, value)]));
}

#[test]
fn all_of_it_is_within_what_is_promised() {
    let mut engine = engine();
    let before = resident();
    // Closed ones, each with findings of its own.
    for number in 0..u32::try_from(RECENT).expect("few") {
        attack(&mut engine, client(number));
        close(&mut engine, client(number));
    }
    let closed = resident() - before;
    for number in 0..CONNECTIONS + 1_000 {
        attack(&mut engine, client(number));
    }
    // Before the question, whose answer is a copy.
    let measured = resident() - before;
    let everything = FlowFilter::default();
    let told = engine.query_ssh(&everything, None).len();
    assert!(told >= RECENT + CONNECTIONS as usize / 2, "{told}");
    assert_eq!(engine.query_findings(&everything, None).len(), RECENT);
    println!(
        "{} KiB with the histories, of which {} KiB closed connections and findings",
        (measured + HISTORIES) >> 10,
        closed >> 10
    );
    assert!(measured + HISTORIES <= MOST, "{measured} bytes");
}
