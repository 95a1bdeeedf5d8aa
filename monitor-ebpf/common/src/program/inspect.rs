//! Looks at the first payload bytes of a flow, and then never again.

use crate::{
    abi::{FlowCell, flag},
    classify::{self, App},
    packet::Packet,
    parse::{Network, Transport},
};

/// Data packets of a TCP direction that are looked at.
const MAX_SEGMENTS: u8 = 8;
/// Datagrams of a direction that are looked at.
const MAX_DATAGRAMS: u8 = 4;
/// Payload bytes that decide.
const PREFIX: u8 = 8;

/// Passes over a TCP segment that is not the next in stream order; `true` when this direction
/// needs no further look.
#[inline(always)]
pub(super) fn skip(flow: &FlowCell, direction: usize) -> bool {
    let inspected = flow.get(|value| value.inspected[direction & 1]);
    flow.update(|value| value.inspected[direction & 1] = inspected.saturating_add(1));
    inspected + 1 >= MAX_SEGMENTS
}

/// Looks at a TCP segment with payload, the next in stream order; `true` when this direction needs
/// no further look.
///
/// Not inlined: it runs for the first few segments only.
#[inline(never)]
pub(super) fn segment<P: Packet>(
    packet: &P,
    flow: &FlowCell,
    direction: usize,
    offset: u32,
    length: u32,
) -> bool {
    let (inspected, filled, app) = flow.get(|value| {
        (
            value.inspected[direction & 1],
            value.prefix_length[direction & 1],
            value.app,
        )
    });
    if app != App::Unknown as u8 || inspected >= MAX_SEGMENTS {
        return true;
    }
    flow.update(|value| value.inspected[direction & 1] = inspected + 1);
    let head = if filled == 0 && length >= u32::from(PREFIX) {
        packet.copy::<[u32; 2]>(offset).map(join)
    } else {
        gather(packet, flow, direction, offset, length)
    };
    match head {
        Some(head) => {
            let app = classify::tcp(head, length, inspected == 0);
            flow.update(|value| value.app = app as u8);
            true
        }
        None => inspected + 1 >= MAX_SEGMENTS,
    }
}

/// Eight bytes as one number, first byte most significant.
#[inline(always)]
const fn join(bytes: [u32; 2]) -> u64 {
    (u32::from_be(bytes[0]) as u64) << 32 | u32::from_be(bytes[1]) as u64
}

/// Adds a segment's bytes to the prefix; all eight once they are there.
#[inline(always)]
fn gather<P: Packet>(
    packet: &P,
    flow: &FlowCell,
    direction: usize,
    offset: u32,
    length: u32,
) -> Option<u64> {
    let (prefix, filled) = flow.get(|value| {
        (
            value.prefix[direction & 1],
            value.prefix_length[direction & 1],
        )
    });
    let wanted = u32::from(PREFIX - (filled & (PREFIX - 1)));
    // Fewer than eight: whole prefixes are read at once.
    let count = if length < wanted { length } else { wanted };
    let bytes = packet.read_few(offset, count)?;
    let head = u64::from_be_bytes(prefix) | (bytes >> ((8 * u32::from(filled)) & 63));
    let filled = filled + count as u8;
    flow.update(|value| {
        value.prefix[direction & 1] = head.to_be_bytes();
        value.prefix_length[direction & 1] = filled;
    });
    (filled >= PREFIX).then_some(head)
}

/// Looks at a datagram.
#[inline(always)]
pub(super) fn datagram<A, P: Packet>(
    packet: &P,
    flow: &FlowCell,
    direction: usize,
    transport: &Transport,
    network: &Network<A>,
) {
    let before = flow.get(|value| value.flags[direction & 1]);
    if before & flag::INSPECTED != 0 {
        return;
    }
    let length = network.end - transport.payload;
    if length == 0 {
        return;
    }
    let (inspected, known) = flow.get(|value| (value.inspected[direction & 1], value.app));
    let mut app = known;
    if known == App::Unknown as u8
        && length >= 16
        && let Some(bytes) = packet.copy::<[u32; 4]>(transport.payload)
    {
        let head = [join([bytes[0], bytes[1]]), join([bytes[2], bytes[3]])];
        let ports = (transport.source_port, transport.destination_port);
        app = classify::udp(head, length, ports.0, ports.1) as u8;
    }
    let done = app != App::Unknown as u8 || inspected + 1 >= MAX_DATAGRAMS;
    flow.update(|value| {
        value.app = app;
        value.inspected[direction & 1] = inspected + 1;
        value.flags[direction & 1] = before | flag::DATA | if done { flag::INSPECTED } else { 0 };
    });
}
