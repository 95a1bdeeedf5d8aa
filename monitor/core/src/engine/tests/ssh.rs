//! SSH connections through the engine.

use monitor_common::abi::{FlowKey4, RX, TX};

use super::*;
use crate::{
    engine::ssh::{connection, connections},
    event::{FindingKind, SshRecord, Target},
    flow::SegmentEvent,
    ssh::{AuthOutcome, Class},
};

pub(super) const CLIENT: &[u8] = b"SSH-2.0-client_1.0\r\n";
pub(super) const SERVER: &[u8] = b"SSH-2.0-server_1.0\r\n";

/// The local end, port 22, is the server.
pub(super) fn key(client_port: u16) -> FlowKey {
    key4(1, Protocol::TCP, 22, client_port)
}

pub(super) fn segment(key: FlowKey, sent: bool, bytes: &[u8], app: App) -> Input {
    segment_at(99 * SECOND, key, sent, bytes, app)
}

pub(super) fn segment_at(time_ns: u64, key: FlowKey, sent: bool, bytes: &[u8], app: App) -> Input {
    let mut flags = [0; 2];
    flags[RX] = SYN | OPENS;
    flags[TX] = SYN | ACK | ACCEPTS;
    Input::Segment(SegmentEvent {
        key,
        generation: 0,
        sent,
        sequence: 1,
        length: u32::try_from(bytes.len()).unwrap(),
        is_pushed: true,
        time_ns,
        flags,
        app,
        prefix: Box::default(),
        prefix_end: 1,
        bytes: bytes.into(),
    })
}

/// What the kernel counted of such a connection, which is over.
pub(super) fn counted(app: App) -> FlowValue {
    let mut flags = [FIN | ACK | SYN | DATA; 2];
    flags[RX] |= OPENS | FIRST;
    flags[TX] |= ACCEPTS;
    FlowValue {
        app: app as u8,
        ..reading(99, [5, 6], flags)
    }
}

pub(super) fn ssh_of(outputs: &[Outputs]) -> Vec<SshRecord> {
    outputs
        .iter()
        .flat_map(|outputs| &outputs.records)
        .filter_map(|record| match record {
            Record::Ssh(record) => Some((**record).clone()),
            _ => None,
        })
        .collect()
}

pub(super) fn findings_of(outputs: &[Outputs]) -> Vec<FindingKind> {
    outputs
        .iter()
        .flat_map(|outputs| &outputs.records)
        .filter_map(|record| match record {
            Record::Finding(record) => Some(record.finding),
            _ => None,
        })
        .collect()
}

/// Banners of both ends, a second that passes, and the end; what came of each.
pub(super) fn banners(engine: &mut Engine, key: FlowKey) -> Vec<Outputs> {
    [
        segment(key, true, SERVER, App::Ssh),
        segment(key, false, CLIENT, App::Ssh),
        Input::Clock(clock(101)),
        Input::Tick,
        Input::Flows(vec![(key, counted(App::Ssh))]),
        Input::Removed(vec![(key, counted(App::Ssh))]),
    ]
    .map(|input| step(engine, input))
    .into()
}

/// One that leaves a sample of each metric about SSH: an open and a closed connection.
pub(super) fn refused_from_anywhere(engine: &mut Engine) {
    engine.books.ssh.expectations.node = vec!["admin=198.51.100.0/24".parse().unwrap()];
    banners(engine, key(50_000));
    for input in [
        segment(key(50_001), true, SERVER, App::Ssh),
        segment(key(50_001), false, CLIENT, App::Ssh),
        Input::Clock(clock(102)),
        Input::Tick,
    ] {
        step(engine, input);
    }
}

#[test]
fn a_connection_is_told_when_it_opens_and_when_it_closes() {
    let mut engine = engine();
    let outputs = banners(&mut engine, key(50_000));
    let records = ssh_of(&outputs);
    let states: Vec<_> = records.iter().map(|record| record.state).collect();
    assert_eq!(states, [State::Open, State::Closed]);
    for record in &records {
        assert_eq!(record.class, Some(Class::Ssh));
        assert_eq!(record.client_banner.as_deref(), Some("SSH-2.0-client_1.0"));
        assert_eq!(record.server_banner.as_deref(), Some("SSH-2.0-server_1.0"));
        assert_eq!((record.target, record.expected), (Target::Node, None));
        assert!(record.standard_port);
        assert_eq!(record.destination.port, Some(22));
    }
    assert_eq!(records[1].authentication, AuthOutcome::None);
    let forward = records[1].forward.map(|traffic| traffic.packets);
    assert_eq!(forward, Some(6), "the client's");
    // Nothing is declared, so nothing is unexpected.
    assert_eq!(findings_of(&outputs), []);
    assert_eq!(engine.summary().ssh_connections, 1);
    assert_eq!(engine.query_ssh(&FlowFilter::default(), None).len(), 1);
}

#[test]
fn a_source_outside_the_expected_ranges_is_a_finding() {
    let mut engine = engine();
    engine.books.ssh.expectations.node = vec!["admin=198.51.100.0/24".parse().unwrap()];
    let outputs = banners(&mut engine, key(50_000));
    assert_eq!(findings_of(&outputs), [FindingKind::SshUnexpected]);
    let records = ssh_of(&outputs);
    assert_eq!(records[1].expected, Some(false));
    assert_eq!(records[1].finding, Some(FindingKind::SshUnexpected));
    let findings = engine.query_findings(&FlowFilter::default(), None);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].declared_by.contains("admin=198.51.100.0/24"));
}

#[test]
fn a_server_that_takes_its_time_is_judged_when_it_speaks() {
    let mut engine = engine();
    engine.books.ssh.expectations.node = vec!["admin=198.51.100.0/24".parse().unwrap()];
    let key = key(50_000);
    let early = [
        segment(key, false, CLIENT, App::Ssh),
        Input::Clock(clock(101)),
        Input::Tick,
    ]
    .map(|input| step(&mut engine, input));
    assert_eq!(ssh_of(&early)[0].class, Some(Class::ClientOnly));
    assert_eq!(findings_of(&early), [], "no server was reached so far");
    let late = [
        segment(key, true, SERVER, App::Ssh),
        segment(key, true, b"", App::Ssh),
        Input::Removed(vec![(key, counted(App::Ssh))]),
    ]
    .map(|input| step(&mut engine, input));
    assert_eq!(findings_of(&late), [FindingKind::SshUnexpected]);
    let records = ssh_of(&late);
    let last = records.last().unwrap();
    assert_eq!(last.class, Some(Class::Ssh));
    assert_eq!(last.finding, Some(FindingKind::SshUnexpected));
}

#[test]
fn what_came_after_the_last_segment_seen_is_unknown() {
    for (segments, outcome) in [
        (3, AuthOutcome::None),
        (63, AuthOutcome::None),
        (64, AuthOutcome::Unknown),
    ] {
        let mut engine = engine();
        let key = key(50_000);
        let mut outputs = vec![
            step(&mut engine, segment(key, true, SERVER, App::Ssh)),
            step(&mut engine, segment(key, false, CLIENT, App::Ssh)),
        ];
        let first = 1 + u32::try_from(CLIENT.len()).unwrap();
        for next in first..first + segments - 1 {
            let Input::Segment(event) = segment(key, false, b"x", App::Ssh) else {
                unreachable!()
            };
            let event = SegmentEvent {
                sequence: next,
                ..event
            };
            outputs.push(step(&mut engine, Input::Segment(event)));
        }
        let end = Input::Removed(vec![(key, counted(App::Ssh))]);
        outputs.push(step(&mut engine, end));
        let last = ssh_of(&outputs).pop().unwrap();
        assert_eq!(last.state, State::Closed);
        assert_eq!(last.authentication, outcome, "{segments} segments");
    }
}

#[test]
fn text_that_is_no_ssh_leaves_nothing() {
    let mut engine = engine();
    let key = key(50_000);
    let outputs = [
        segment(key, true, b"220 mail.example\r\n", App::Unknown),
        Input::Flows(vec![(key, counted(App::Unknown))]),
        Input::Removed(vec![(key, counted(App::Unknown))]),
    ]
    .map(|input| step(&mut engine, input));
    assert_eq!(ssh_of(&outputs), []);
    assert_eq!(engine.summary().ssh_connections, 0);
}

/// An identification line and a KEXINIT without algorithms (RFC 4253 section 7.1).
pub(super) fn offer(line: &[u8], cookie: u8) -> Vec<u8> {
    let mut bytes = [line, &[0, 0, 0, 68, 5, 20], &[cookie; 16]].concat();
    bytes.resize(line.len() + 72, 0);
    bytes
}

#[test]
fn a_connection_that_two_interfaces_show_is_told_once() {
    // Interface and start of the second, and whether it is the first one.
    let cases = [(2, 99, true), (1, 99, false), (2, 97, false)];
    for (interface, start, is_same) in cases {
        let mut engine = engine();
        let mut outputs = Vec::new();
        // The second has other addresses: translated.
        let keys = [
            (key4(1, Protocol::TCP, 22, 50_000), 99),
            (key4(interface, Protocol::TCP, 2222, 61_000), start),
        ];
        for (key, start) in keys {
            for (sent, bytes) in [(true, offer(SERVER, 1)), (false, offer(CLIENT, 2))] {
                let segment = segment_at(start * SECOND, key, sent, &bytes, App::Ssh);
                outputs.push(step(&mut engine, segment));
            }
        }
        let told = if is_same { 1 } else { 2 };
        assert_eq!(ssh_of(&outputs).len(), told, "{interface} {start}");
        assert_eq!(engine.query_ssh(&FlowFilter::default(), None).len(), told);
    }
}

/// A relay on the node, as a proxy of connections: a connection of its own with the same cookies.
#[test]
fn a_relay_makes_another_connection() {
    let mut engine = engine();
    let keys = [
        key4(1, Protocol::TCP, 22, 50_000),
        key4(2, Protocol::TCP, 2222, 61_000),
    ];
    let mut outputs = Vec::new();
    for (leg, key) in (0..).zip(keys) {
        for (sent, bytes) in [(true, offer(SERVER, 1)), (false, offer(CLIENT, 2))] {
            let mut segment = segment(key, sent, &bytes, App::Ssh);
            if let Input::Segment(segment) = &mut segment {
                segment.sequence += 77_000 * leg;
            }
            outputs.push(step(&mut engine, segment));
        }
    }
    assert_eq!(ssh_of(&outputs).len(), 2);
}

/// A byte at the sequence number of the SYN, which TCP discards, but the kernel program hands on.
#[test]
fn a_stray_byte_of_the_client_hides_nothing() {
    for at in 0..=2 {
        let mut engine = engine();
        let key = key(50_000);
        let mut inputs = vec![
            segment(key, true, &offer(SERVER, 1), App::Ssh),
            segment(key, false, &offer(CLIENT, 2), App::Ssh),
        ];
        let mut stray = segment(key, false, b"x", App::Ssh);
        if let Input::Segment(stray) = &mut stray {
            stray.sequence = 0;
        }
        inputs.insert(at, stray);
        inputs.push(Input::Flows(vec![(key, counted(App::Ssh))]));
        let mut outputs: Vec<_> = inputs
            .into_iter()
            .map(|input| step(&mut engine, input))
            .collect();
        assert_eq!(engine.books.ssh.cookies.len(), 1);
        let removed = Input::Removed(vec![(key, counted(App::Ssh))]);
        outputs.push(step(&mut engine, removed));
        let records = ssh_of(&outputs);
        let last = records.last().expect("a record");
        assert_eq!(last.class, Some(Class::Ssh), "{at}");
        assert!(last.hassh.is_some(), "{at}");
        assert_eq!(engine.books.ssh.cookies.len(), 0, "{at}");
    }
}

/// The same ends from the other one's view.
fn turned(key: FlowKey, is_turned: bool) -> FlowKey {
    match key {
        FlowKey::V4(key) if is_turned => FlowKey::V4(FlowKey4 {
            local: key.remote,
            remote: key.local,
            local_port: key.remote_port,
            remote_port: key.local_port,
            ..key
        }),
        key => key,
    }
}

#[test]
fn what_two_interfaces_show_slowly_is_told_once() {
    // Interface of the second, and whether it is seen from its other end.
    for (interface, is_turned, told) in [(2, false, 1), (2, true, 1), (1, true, 2)] {
        let mut engine = engine();
        let keys = [
            key4(1, Protocol::TCP, 22, 50_000),
            turned(key4(interface, Protocol::TCP, 22, 50_000), is_turned),
        ];
        // Banners, and a second without a KEXINIT.
        for key in keys {
            let is_server = key.local_port() == 22;
            step(&mut engine, segment(key, is_server, SERVER, App::Ssh));
            step(&mut engine, segment(key, !is_server, CLIENT, App::Ssh));
        }
        step(&mut engine, Input::Clock(clock(101)));
        let outputs = step(&mut engine, Input::Tick);
        assert_eq!(ssh_of(&[outputs]).len(), told, "{interface} {is_turned}");
    }
}

#[test]
fn a_connection_whose_segments_were_lost_is_counted() {
    let mut engine = engine();
    let key = key(50_000);
    let outputs = [
        Input::Flows(vec![(key, counted(App::Ssh))]),
        Input::Removed(vec![(key, counted(App::Ssh))]),
    ]
    .map(|input| step(&mut engine, input));
    let records = ssh_of(&outputs);
    assert_eq!(records.last().map(|record| record.class), Some(None));
    assert_eq!(
        records.last().map(|record| record.state),
        Some(State::Closed)
    );
    assert_eq!(engine.summary().ssh_connections, 1);
}

/// As much as one end may send without getting anywhere: a KEXINIT that does not end.
fn endless(line: &[u8]) -> Vec<u8> {
    let mut bytes = [line, &35_000_u32.to_be_bytes(), &[5, 20]].concat();
    bytes.resize(8_000, b'x');
    bytes
}

#[test]
fn memory_is_bounded_whoever_opens_connections() {
    const OPENED: u16 = 20_000;
    let mut engine = engine();
    for port in 10_000..10_000 + OPENED {
        for (sent, line) in [(true, SERVER), (false, CLIENT)] {
            let attack = segment(key(port), sent, &endless(line), App::Ssh);
            step(&mut engine, attack);
            assert!(engine.books.ssh.held <= connections::BYTES);
        }
    }
    let ssh = &engine.books.ssh;
    assert_eq!(ssh.live.len(), connections::CONNECTIONS);
    let held: usize = ssh
        .live
        .values()
        .map(|live| live.session.bytes_held())
        .sum();
    assert_eq!(held, ssh.held);
    // Those without room, and those that had to become small.
    let small = ssh.live.values().filter(|live| live.is_settled).count();
    assert!(small > connections::CONNECTIONS / 2, "{small}");
    let refused = usize::from(OPENED) - connections::CONNECTIONS;
    let lost = usize::try_from(ssh.untracked()).unwrap();
    assert_eq!(lost, small + refused);
    // What is held beside that: a connection itself, its banners, its owner.
    let size = size_of::<connection::Connection>();
    assert!(size <= 824, "{size}");
    // What is known of them is told, and each is counted when it closes.
    let first = close_of(&mut engine, key(10_000));
    assert_eq!(first.client_banner.as_deref(), Some("SSH-2.0-client_1.0"));
    assert_eq!(first.authentication, AuthOutcome::Unknown);
    // Connections of which there is nothing left hold nothing.
    for port in 10_001..10_000 + OPENED {
        close_of(&mut engine, key(port));
    }
    assert_eq!((engine.books.ssh.held, engine.books.ssh.live.len()), (0, 0));
    assert_eq!(engine.summary().ssh_connections, u64::from(OPENED));
}

pub(super) fn close_of(engine: &mut Engine, key: FlowKey) -> SshRecord {
    let outputs = [
        Input::Flows(vec![(key, counted(App::Ssh))]),
        Input::Removed(vec![(key, counted(App::Ssh))]),
    ]
    .map(|input| step(engine, input));
    ssh_of(&outputs).pop().expect("a record")
}

#[test]
fn a_new_connection_is_identified_under_attack() {
    let mut engine = engine();
    for port in 10_000..18_000 {
        for (sent, line) in [(true, SERVER), (false, CLIENT)] {
            step(
                &mut engine,
                segment(key(port), sent, &endless(line), App::Ssh),
            );
        }
    }
    let outputs = [
        segment(key(50_000), true, &offer(SERVER, 1), App::Ssh),
        segment(key(50_000), false, &offer(CLIENT, 2), App::Ssh),
    ]
    .map(|input| step(&mut engine, input));
    let records = ssh_of(&outputs);
    assert!(records[0].hassh.is_some() && records[0].hassh_server.is_some());
}
