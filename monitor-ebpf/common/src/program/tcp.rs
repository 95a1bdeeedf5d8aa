//! TCP: who opened the connection, its handshake, retransmissions, and entries taken over.

use crate::{
    abi::{FlowCell, flag},
    packet::Packet,
    parse::{Network, Transport},
    program::{Backend, Family, inspect},
};

/// Offset of the acknowledgement number in the header (RFC 9293 section 3.1).
const ACKNOWLEDGEMENT: u32 = 8;

/// Notes what a segment tells about its connection.
#[inline(always)]
pub(super) fn on_segment<A: Family, P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    key: &A::Key,
    flow: &FlowCell<'_>,
    direction: usize,
    transport: &Transport,
    network: &Network<A>,
) {
    let header = u16::from(transport.flags);
    let payload = network.end - transport.payload;
    let other = direction ^ 1;

    if header & flag::SYN != 0 {
        on_syn::<A, P, B>(packet, backend, key, flow, direction, transport);
    }

    let before = flow.get(|hot| hot.flags[direction & 1]);
    let mut flags = before | header;
    if header & flag::SYN != 0 {
        flags |= if header & flag::ACK == 0 {
            flag::OPENS
        } else if before & flag::OPENS == 0
            || flow.get(|value| value.flags[other & 1]) & flag::OPENS != 0
        {
            flag::ACCEPTS
        } else {
            // Nobody accepts what it opened itself, but where both ends did.
            0
        };
    }

    if payload > 0 {
        let expected = flow.get(|hot| hot.next_sequence[direction & 1]);
        // A SYN takes a sequence number itself; its data comes after it (RFC 7413).
        let syn = u32::from(header >> flag::SYN.trailing_zeros() & 1);
        let sequence = transport.sequence.wrapping_add(syn);
        let next = sequence.wrapping_add(payload);
        // Serial number arithmetic (RFC 9293 section 3.4).
        let is_new =
            before & (flag::SYN | flag::DATA) == 0 || (next.wrapping_sub(expected) as i32) > 0;
        if is_new {
            flow.update(|hot| hot.next_sequence[direction & 1] = next);
        } else {
            flow.update_cold(|cold| {
                let count = &mut cold.retransmits[direction & 1];
                *count = count.wrapping_add(1 - syn);
            });
        }
        if B::INSPECTS && flags & flag::INSPECTED == 0 {
            if before & (flag::SYN | flag::DATA) == 0 {
                flow.update_cold(|cold| cold.inspect_sequence[direction & 1] = sequence);
            }
            let place =
                inspect::Place::new(direction, transport.payload, payload, sequence, header);
            flags |= inspect::segment::<A, P, B>(packet, backend, key, flow, place);
        }
        flags |= flag::DATA;
    }

    if flags != before {
        flow.update(|hot| hot.flags[direction & 1] = flags);
    }

    // The first ACK of the opening side completes the handshake.
    let completes = flags & (flag::OPENS | flag::TIMED) == flag::OPENS
        && header & (flag::ACK | flag::SYN) == flag::ACK
        && flow.get(|hot| hot.flags[other & 1]) & flag::ACCEPTS != 0;
    if completes {
        let elapsed = backend
            .now_ns()
            .wrapping_sub(flow.get_cold(|cold| cold.syn_ns));
        let elapsed = if elapsed > u64::from(u32::MAX) {
            u32::MAX
        } else {
            elapsed as u32
        };
        flow.update_cold(|cold| cold.handshake_rtt_ns = if elapsed == 0 { 1 } else { elapsed });
        flow.update(|hot| hot.flags[direction & 1] = flags | flag::TIMED);
        let (next, theirs) = flow.get(|hot| (hot.next_sequence[other & 1], hot.flags[other & 1]));
        let begins = flow.get_cold(|cold| cold.inspect_sequence[other & 1]);
        if next != begins && theirs & flag::DATA == 0 {
            let copy = *flow;
            acknowledged(packet, &copy, other, network.transport);
        }
    }
}

/// There were SYN-ACKs that differ: the connection begins with the one that was acknowledged.
#[inline(never)]
fn acknowledged<P: Packet>(packet: &P, flow: &FlowCell<'_>, accepting: usize, header: u32) {
    if let Some(next) = packet
        .copy::<u32>(header + ACKNOWLEDGEMENT)
        .map(u32::from_be)
    {
        flow.update(|hot| hot.next_sequence[accepting & 1] = next);
        flow.update_cold(|cold| cold.inspect_sequence[accepting & 1] = next);
    }
}

/// A SYN: the start of the entry's connection, a retransmission of it, or a new connection between
/// the same ports.
#[inline(always)]
fn on_syn<A: Family, P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    key: &A::Key,
    flow: &FlowCell<'_>,
    direction: usize,
    transport: &Transport,
) {
    let next = transport.sequence.wrapping_add(1);
    let (own, opposite, expected) = flow.get(|hot| {
        (
            hot.flags[direction & 1],
            hot.flags[(direction ^ 1) & 1],
            hot.next_sequence[direction & 1],
        )
    });
    if u16::from(transport.flags) & flag::ACK == 0 {
        let untouched = (own | opposite) & !flag::FIRST == 0;
        let repeated = expected.wrapping_sub(next) < syn_room(own);
        // Both ends may open at once (RFC 9293 section 3.5).
        let simultaneous = own & flag::TCP_MASK == 0
            && opposite & flag::TCP_MASK == flag::SYN
            && opposite & flag::OPENS != 0;
        if !untouched && !repeated && !simultaneous {
            let copy = *flow;
            take_over::<A, B>(backend, key, &copy, direction);
        }
        let now = backend.now_ns();
        flow.update(|hot| {
            hot.next_sequence[direction & 1] = if repeated { expected } else { next };
        });
        flow.update_cold(|cold| {
            let count = &mut cold.retransmits[direction & 1];
            *count = count.wrapping_add(u32::from(repeated));
            cold.syn_ns = now;
            if !repeated {
                cold.inspect_sequence[direction & 1] = next;
            }
        });
    } else {
        let copy = *flow;
        accept(&copy, direction, next);
    }
    // A server's first packet is not the flow's, and another socket may have the ports by now.
    let cgroup_id = packet.cgroup_id();
    if cgroup_id != 0 {
        flow.update_cold(|cold| cold.cgroup_id = cgroup_id);
    }
}

/// A SYN-ACK: where the stream of the end that sends it begins.
///
/// Not inlined: what it decides by would be followed through all that comes after.
#[inline(never)]
fn accept(flow: &FlowCell<'_>, direction: usize, next: u32) {
    let (own, opposite) =
        flow.get(|hot| (hot.flags[direction & 1], hot.flags[(direction ^ 1) & 1]));
    let is_first = own & flag::ACCEPTS == 0;
    let is_opened = opposite & flag::OPENS != 0;
    // Whoever opened it has begun before; and once its end has taken one SYN-ACK, it discards others.
    let is_settled = own & flag::OPENS != 0
        || is_opened && (own & flag::DATA != 0 || opposite & flag::TIMED != 0);
    if !is_settled {
        flow.update(|hot| hot.next_sequence[direction & 1] = next);
        // Which of several counts, the ACK that follows tells.
        if is_first || !is_opened {
            flow.update_cold(|cold| cold.inspect_sequence[direction & 1] = next);
        }
    }
}

/// A repeated SYN is less than this behind what is expected after the one before; 0 where none was
/// seen. One with data (RFC 7413), a segment at most, may be repeated without.
///
/// Arithmetic rather than branches, all of which the verifier would follow.
#[inline(always)]
fn syn_room(own: u16) -> u32 {
    let has = |bit: u16| u32::from(own >> bit.trailing_zeros() & 1);
    let is_data_only = has(flag::DATA) & !has(flag::ACK);
    has(flag::OPENS) << (is_data_only * 16)
}

/// Ends the entry's connection and starts another in its place.
///
/// Where the end cannot be told, the entry keeps its counters: the new connection is then counted
/// within the old one, and the backend counts that.
#[inline(never)]
fn take_over<A: Family, B: Backend>(
    backend: &B,
    key: &A::Key,
    flow: &FlowCell<'_>,
    direction: usize,
) {
    if A::ended(backend, key, flow) {
        let (cgroup_id, generation) = flow.get_cold(|cold| (cold.cgroup_id, cold.generation));
        flow.clear();
        let now = backend.now_ns();
        flow.update_cold(|cold| {
            cold.first_seen_ns = now;
            cold.cgroup_id = cgroup_id;
            cold.generation = generation.wrapping_add(1);
        });
        flow.update(|hot| hot.flags[direction & 1] = flag::FIRST);
    }
}
