//! Full maps, a full ring, an interface that nobody registered: nothing is lost silently.

use monitor::source::ebpf::LoadOptions;
use monitor_common::{
    abi::{Hook, Interface, Reason, UNKNOWN_SLOT, flag, slot_probe},
    parse::protocol,
};
use tests::{
    frames::{
        Sample,
        build::{self, Packet, Pair},
        host::Key,
    },
    lab,
};

use crate::loaded::{LOOPBACK, Loaded, OPTIONS, UPLINK};

fn pair(v6: bool, local_port: u16) -> Pair {
    Pair {
        v6,
        local: 1,
        remote: 2,
        local_port,
        remote_port: 443,
    }
}

fn sample(pair: Pair, payload: Vec<u8>, protocol: u8) -> Sample {
    let mut packet = Packet::new(pair, true, protocol);
    packet.payload = payload;
    let mut bytes = packet.frame();
    bytes.resize(bytes.len().max(64), 0);
    Sample {
        hook: Hook::Egress,
        bytes,
    }
}

fn datagram(v6: bool, port: u16) -> Sample {
    sample(
        pair(v6, port),
        build::udp(port, 443, b"what is sent"),
        protocol::UDP,
    )
}

fn segment(v6: bool, sequence: u32, flags: u16, data: &[u8]) -> Sample {
    let [_, flags] = flags.to_be_bytes();
    let payload = build::tcp(40_000, 443, sequence, flags, data);
    sample(pair(v6, 40_000), payload, protocol::TCP)
}

/// What was counted last stays to be read after an interface is unregistered: a packet may have
/// been on its way through the program.
#[test]
fn the_last_counts_of_an_interface_can_be_read() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let mut loaded = Loaded::new(&OPTIONS, UPLINK);
    let slot = slot_probe(LOOPBACK, 0);
    let seen = |loaded: &Loaded, slot| loaded.kernel.counters(slot).expect("a slot").seen;
    loaded.feed(&datagram(false, 1), LOOPBACK).expect("run");
    loaded.kernel.close(slot).expect("closed");
    loaded.feed(&datagram(false, 1), LOOPBACK).expect("run");
    assert_eq!(seen(&loaded, slot), [0, 1], "what was counted before");
    assert_eq!(seen(&loaded, UNKNOWN_SLOT), [0, 1], "what came after");
    loaded.kernel.clear(slot).expect("cleared");
    assert_eq!(seen(&loaded, slot), [0, 0], "for the next interface");
}

#[test]
fn a_full_flow_map_is_counted_exactly() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    // Of both families.
    const CAPACITY: u64 = 100 + 150;
    const FLOWS: u64 = 2 * 250;
    let options = LoadOptions {
        max_flows4: 100,
        max_flows6: 150,
        ..OPTIONS
    };
    let mut loaded = Loaded::new(&options, UPLINK);
    for _ in 0..2 {
        for port in 1000..1250 {
            loaded
                .feed(&datagram(false, port), LOOPBACK)
                .expect("a run");
            loaded.feed(&datagram(true, port), LOOPBACK).expect("a run");
        }
    }
    let books = loaded.books();
    let [counters, unknown] = books.counters;
    let egress = Hook::Egress as usize;
    let full = books.uncounted[0].packets[egress][Reason::TableFull as usize];
    let uncounted: u64 = books.uncounted[0].packets.iter().flatten().sum();
    let v4 = books
        .flows
        .keys()
        .filter(|key| matches!(key, Key::V4(_)))
        .count();
    assert_eq!((v4, books.flows.len() - v4), (100, 150));
    assert_eq!(counters.seen, [0, 2 * FLOWS]);
    assert_eq!(counters.counted, [0, 2 * CAPACITY]);
    assert_eq!(full, 2 * (FLOWS - CAPACITY));
    assert_eq!(uncounted, full);
    let packets: u64 = books.flows.values().map(|flow| flow.packets[0]).sum();
    let bytes: u64 = books.flows.values().map(|flow| flow.bytes[0]).sum();
    assert_eq!(packets, counters.counted[egress]);
    assert_eq!(bytes, counters.bytes[egress]);
    assert_eq!(unknown.seen, [0, 0]);
}

#[test]
fn a_full_event_ring_merges_connections_and_loses_no_packet() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    const CONNECTIONS: u32 = 200;
    for v6 in [false, true] {
        // The least that a kernel allows: one page.
        let options = LoadOptions {
            event_ring_bytes: 4096,
            ..OPTIONS
        };
        let mut loaded = Loaded::new(&options, UPLINK);
        for connection in 0..CONNECTIONS {
            let start = connection * 100_000;
            for frame in [
                segment(v6, start, flag::SYN, &[]),
                segment(v6, start + 1, flag::ACK | flag::PSH, b"some data"),
                segment(v6, start + 10, flag::ACK | flag::FIN, &[]),
            ] {
                loaded.feed(&frame, LOOPBACK).expect("a run");
            }
        }
        let lost = loaded.kernel.lost().expect("losses");
        let books = loaded.books();
        let told = books.ended.len() as u64;
        // 4096 bytes hold some twenty events of 160 or 184 bytes.
        assert!((15..=25).contains(&told), "{told} events");
        assert_eq!(told + lost.ring_full, u64::from(CONNECTIONS) - 1);
        assert_eq!(lost.merged_connections, lost.ring_full);
        assert_eq!(books.flows.len(), 1);
        let last = books.flows.values();
        let all = books.ended.iter().map(|(_, facts)| facts).chain(last);
        let (mut packets, mut bytes) = (0, 0);
        for facts in all {
            packets += facts.packets[0];
            bytes += facts.bytes[0];
        }
        let [counters, _] = books.counters;
        assert_eq!(packets, 3 * u64::from(CONNECTIONS));
        assert_eq!(counters.counted, [0, packets]);
        assert_eq!(counters.seen, counters.counted);
        assert_eq!(counters.bytes, [0, bytes]);

        // Once there is room again, connections are told apart again.
        loaded
            .feed(&segment(v6, 7, flag::SYN, &[]), LOOPBACK)
            .expect("a run");
        assert_eq!(loaded.books().ended.len() as u64, told + 1);
    }
}

#[test]
fn an_unknown_interface_has_a_counter_of_its_own() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    let mut loaded = Loaded::new(
        &OPTIONS,
        Interface {
            ifindex: 4_321,
            ..UPLINK
        },
    );
    for _ in 0..5 {
        loaded
            .feed(&datagram(false, 1000), LOOPBACK)
            .expect("a run");
    }
    let mut received = datagram(true, 1000);
    received.hook = Hook::Ingress;
    loaded.feed(&received, LOOPBACK).expect("a run");
    let books = loaded.books();
    let [registered, unknown] = books.counters;
    assert_eq!(registered.seen, [0, 0]);
    assert_eq!(unknown.seen, [1, 5]);
    assert_eq!(unknown.buffers, [1, 5]);
    assert_eq!(unknown.counted, [0, 0]);
    let reason = Reason::UnknownInterface as usize;
    let [_, uncounted] = books.uncounted;
    assert_eq!(uncounted.packets.map(|hook| hook[reason]), [1, 5]);
    assert_eq!(uncounted.packets.iter().flatten().sum::<u64>(), 6);
    assert!(books.flows.is_empty());
}
