//! Building blocks of tests.

use std::net::Ipv4Addr;

use monitor_common::abi::{FlowKey4, FlowValue, RX, TX, scope};

use crate::{
    event::Protocol,
    flow::{FlowKey, Tracked},
    time::ClockMap,
};

/// A second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// An IPv4 key between 10.244.1.7 and 203.0.113.9.
pub(crate) fn key4(
    interface_id: u32,
    protocol: Protocol,
    local_port: u16,
    remote_port: u16,
) -> FlowKey {
    FlowKey::V4(FlowKey4 {
        local: Ipv4Addr::new(10, 244, 1, 7).to_bits(),
        remote: Ipv4Addr::new(203, 0, 113, 9).to_bits(),
        local_port,
        remote_port,
        scope: scope(interface_id, protocol.0),
    })
}

/// An IPv4 key between these addresses and ports, the local one first.
pub(crate) fn key4_between(
    interface_id: u32,
    protocol: Protocol,
    local: (&str, u16),
    remote: (&str, u16),
) -> FlowKey {
    let bits = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_bits();
    FlowKey::V4(FlowKey4 {
        local: bits(local.0),
        remote: bits(remote.0),
        local_port: local.1,
        remote_port: remote.1,
        scope: scope(interface_id, protocol.0),
    })
}

/// A value with these packets by direction, 100 bytes each.
pub(crate) fn value(packets: [u64; 2]) -> FlowValue {
    FlowValue {
        packets,
        bytes: [packets[TX] * 100, packets[RX] * 100],
        ..FlowValue::default()
    }
}

/// A clock at which a tick is a second and wall-clock time runs with monotonic time.
pub(crate) fn clock(seconds: u64) -> ClockMap {
    ClockMap {
        wall_minus_monotonic_ns: 0,
        ticks_now: seconds,
        monotonic_now_ns: seconds * SECOND,
        ns_per_tick: SECOND,
    }
}

/// A connection with one reading.
pub(crate) fn tracked(value: &FlowValue) -> Tracked {
    let mut flow = Tracked::open(value, &clock(0));
    flow.update(value, &clock(0));
    flow
}
