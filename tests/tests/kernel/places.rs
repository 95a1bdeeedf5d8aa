//! Near and spare places: taken, given back, and taken again, with every packet in its flow.

use std::time::Duration;

use monitor::source::ebpf::LoadOptions;
use monitor_common::abi::{Hook, Reason, split};
use monitor_common::parse::protocol;
use tests::{
    frames::{
        Sample,
        build::{self, Packet, Pair},
    },
    lab::{self, wait},
};

use crate::loaded::{LOOPBACK, Loaded, OPTIONS, UPLINK};

/// The least that has near places.
const CAPACITY: u32 = 4_096;
/// More than the near places, by so many that pairs of them are full; fewer than all.
const PORTS: std::ops::Range<u16> = 1_000..4_800;

fn pair(v6: bool, port: u16) -> Pair {
    Pair {
        v6,
        local: 1,
        remote: 2,
        local_port: port,
        remote_port: 443,
    }
}

fn datagram(v6: bool, port: u16) -> Sample {
    let mut packet = Packet::new(pair(v6, port), true, protocol::UDP);
    packet.payload = build::udp(port, 443, b"what is sent");
    let mut bytes = packet.frame();
    bytes.resize(bytes.len().max(64), 0);
    Sample {
        hook: Hook::Egress,
        bytes,
    }
}

#[test]
fn a_flow_keeps_its_place_until_it_is_given_back() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    let (near, spare) = split(CAPACITY);
    let flows = u32::try_from(PORTS.len()).expect("a few thousand");
    assert!(flows > near && flows < near + spare);
    let options = LoadOptions {
        max_flows4: CAPACITY,
        max_flows6: CAPACITY,
        ..OPTIONS
    };
    let mut loaded = Loaded::new(&options, UPLINK);
    let feed = |loaded: &mut Loaded| {
        for port in PORTS {
            for v6 in [false, true] {
                loaded.feed(&datagram(v6, port), LOOPBACK).expect("a run");
            }
        }
    };
    feed(&mut loaded);
    let (mut flows4, mut flows6) = (Vec::new(), Vec::new());
    loaded.kernel.read_flows4(&mut flows4).expect("mapped");
    loaded.kernel.read_flows6(&mut flows6).expect("mapped");
    assert_eq!((flows4.len(), flows6.len()), (PORTS.len(), PORTS.len()));
    assert!(flows4.iter().all(|(_, value)| value.packets == [1, 0]));
    assert!(flows6.iter().all(|(_, value)| value.packets == [1, 0]));

    // Every second flow goes, near and spare ones.
    let keys4: Vec<_> = flows4.iter().map(|(key, _)| *key).step_by(2).collect();
    let keys6: Vec<_> = flows6.iter().map(|(key, _)| *key).step_by(2).collect();
    let gone4 = loaded.kernel.take_flows4(&keys4).expect("values");
    let gone6 = loaded.kernel.take_flows6(&keys6).expect("values");
    for value in gone4.iter().chain(&gone6) {
        assert_eq!(value.map(|value| value.packets), Some([1, 0]));
    }
    let again = loaded.kernel.take_flows4(&keys4).expect("values");
    assert!(again.iter().all(Option::is_none));
    flows4.clear();
    loaded.kernel.read_flows4(&mut flows4).expect("mapped");
    assert_eq!(flows4.len(), PORTS.len() - keys4.len());

    // Those that stayed go on, the others begin anew, in the places that became free.
    feed(&mut loaded);
    flows4.clear();
    flows6.clear();
    loaded.kernel.read_flows4(&mut flows4).expect("mapped");
    loaded.kernel.read_flows6(&mut flows6).expect("mapped");
    let all = flows4
        .iter()
        .map(|(_, value)| value)
        .chain(flows6.iter().map(|(_, value)| value));
    let (mut once, mut twice) = (0, 0);
    for value in all {
        match value.packets {
            [1, 0] => once += 1,
            [2, 0] => twice += 1,
            other => panic!("{other:?} packets"),
        }
    }
    assert_eq!(once, keys4.len() + keys6.len());
    assert_eq!(once + twice, 2 * PORTS.len());
    let books = loaded.books();
    let [counters, _] = books.counters;
    assert_eq!(counters.counted, [0, 4 * PORTS.len() as u64]);
    assert_eq!(counters.seen, counters.counted);
    let full = Reason::TableFull as usize;
    assert_eq!(books.uncounted[0].packets[1][full], 0);
}

#[test]
fn idle_flows_are_not_told_again() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    let options = LoadOptions {
        max_flows4: CAPACITY,
        max_flows6: CAPACITY,
        ..OPTIONS
    };
    let mut loaded = Loaded::new(&options, UPLINK);
    for port in PORTS {
        for v6 in [false, true] {
            loaded.feed(&datagram(v6, port), LOOPBACK).expect("a run");
        }
    }
    let ticks = |loaded: &mut Loaded| {
        let sample = loaded.kernel.clock().expect("a clock");
        u32::try_from(sample.ticks & u64::from(u32::MAX)).expect("32 bits")
    };
    let told = |loaded: &mut Loaded, since| {
        let kernel = &mut loaded.kernel;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let told4 = kernel.each_flow4(since, |key, value| v4.push((key.local_port, value.packets)));
        let told6 = kernel.each_flow6(since, |key, value| v6.push((key.local_port, value.packets)));
        told4.and(told6).expect("mapped");
        [v4, v6]
    };
    let fed = ticks(&mut loaded);
    let later = wait::until("the clock to tick", Duration::from_secs(5), || {
        let now = ticks(&mut loaded);
        (now.wrapping_sub(fed).cast_signed() > 1).then_some(now)
    })
    .expect("a clock that ticks");
    // One with a near place and one with a spare one; nobody else has had a packet since.
    let again = [PORTS.start, PORTS.end - 1];
    for port in again {
        for v6 in [false, true] {
            loaded.feed(&datagram(v6, port), LOOPBACK).expect("a run");
        }
    }
    for mut flows in told(&mut loaded, Some(later)) {
        flows.sort_unstable();
        assert_eq!(flows, again.map(|port| (port, [2, 0])));
    }
    for flows in told(&mut loaded, None) {
        assert_eq!(flows.len(), PORTS.len());
    }
    // The clock wraps.
    let before = later.wrapping_sub(u32::MAX / 4);
    for flows in told(&mut loaded, Some(before)) {
        assert_eq!(flows.len(), PORTS.len());
    }
    // An error of ICMP is about a packet of some time ago, and is no packet of its flow.
    let late = PORTS.start + 1;
    for v6 in [false, true] {
        let quoted = Packet {
            payload: build::udp(late, 443, b"what is sent"),
            ..Packet::new(pair(v6, late), true, protocol::UDP)
        };
        let (icmp, kind, code) = if v6 {
            (protocol::ICMPV6, 1, 3)
        } else {
            (protocol::ICMP, 3, 1)
        };
        let mut error = Packet::new(pair(v6, late), false, icmp);
        error.payload = build::icmp(kind, code, 0, &quoted.ip());
        let error = Sample {
            hook: Hook::Ingress,
            bytes: error.frame(),
        };
        loaded.feed(&error, LOOPBACK).expect("a run");
    }
    for flows in told(&mut loaded, Some(later)) {
        assert!(flows.contains(&(late, [1, 0])), "{flows:?}");
    }
}
