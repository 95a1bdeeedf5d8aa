//! Looks at the first payload bytes of a flow, and then never again.

use crate::{
    abi::{CAPTURE_BYTES, CAPTURE_EVENTS, CHUNK_BYTES, FlowCell, flag},
    classify::{self, App},
    packet::Packet,
    parse::{Network, Transport},
    program::{Backend, Family},
};

/// What looks at the segments of a TCP direction may cost: eight that bring something new, or more
/// where some of them are retransmissions.
const MAX_COST: u8 = 64;
/// Of a segment that brings something new.
const NEW: u8 = 8;
/// Of a retransmission: whoever repeats a byte must not use up what is looked at.
const OLD: u8 = 1;
/// Datagrams of a direction that are looked at.
const MAX_DATAGRAMS: u8 = 4;
/// Payload bytes that decide.
const PREFIX: u8 = 8;
/// By how much the flag PSH is shifted in a [`Place`]: to bit 15.
const PUSHED: u32 = 15 - flag::PSH.trailing_zeros();

/// Where a segment's payload is: direction, offset in the packet, whether it was pushed, length and
/// sequence number in one word, since a function of the kernel program takes no more than five
/// arguments.
#[derive(Clone, Copy)]
pub(super) struct Place(u64);

impl Place {
    #[inline(always)]
    pub(super) const fn new(
        direction: usize,
        offset: u32,
        length: u32,
        sequence: u32,
        header: u16,
    ) -> Self {
        // An IP packet has at most 65,535 bytes, an offset is below 2^14.
        Self(
            (sequence as u64) << 32
                | ((length & 0xffff) as u64) << 16
                | ((header & flag::PSH) as u64) << PUSHED
                | ((offset & 0x3fff) as u64) << 1
                | (direction & 1) as u64,
        )
    }

    #[inline(always)]
    const fn is_pushed(self) -> bool {
        self.0 >> (PUSHED + flag::PSH.trailing_zeros()) & 1 != 0
    }

    #[inline(always)]
    const fn direction(self) -> usize {
        (self.0 & 1) as usize
    }

    #[inline(always)]
    const fn offset(self) -> u32 {
        (self.0 >> 1 & 0x3fff) as u32
    }

    #[inline(always)]
    const fn length(self) -> u32 {
        (self.0 >> 16 & 0xffff) as u32
    }

    #[inline(always)]
    const fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A segment to hand to userspace.
#[derive(Clone, Copy)]
pub struct Segment {
    place: Place,
    /// How many of its bytes, at most [`CAPTURE_BYTES`].
    bytes: u32,
}

/// The part of a segment that one event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the segment before it.
    pub start: u32,
    /// Bytes that it tells of.
    pub length: u32,
    /// How many of them it has.
    pub captured: u32,
    /// Whether it is the last.
    pub is_last: bool,
}

/// The `index`th part of a segment of `length` bytes, of which `bytes` are wanted; `None` after the
/// last.
#[inline(always)]
pub const fn chunk(index: u32, length: u32, bytes: u32) -> Option<Chunk> {
    let start = index * CHUNK_BYTES;
    if index > 0 && start >= bytes {
        return None;
    }
    let rest = bytes.saturating_sub(start);
    // The last event tells of the bytes that are not wanted.
    Some(if rest > CHUNK_BYTES {
        Chunk {
            start,
            length: CHUNK_BYTES,
            captured: CHUNK_BYTES,
            is_last: false,
        }
    } else {
        Chunk {
            start,
            length: length.saturating_sub(start),
            captured: rest,
            is_last: true,
        }
    })
}

impl Segment {
    /// Payload bytes, and how many of them are wanted.
    #[inline(always)]
    pub const fn lengths(&self) -> (u32, u32) {
        (self.place.length(), self.bytes)
    }

    /// Where its payload is in the packet.
    #[inline(always)]
    pub const fn offset(&self) -> u32 {
        self.place.offset()
    }

    /// Direction, sequence number of its first byte, and whether its sender pushed it (PSH).
    #[inline(always)]
    pub const fn place(&self) -> (usize, u32, bool) {
        (
            self.place.direction(),
            self.place.sequence(),
            self.place.is_pushed(),
        )
    }

    /// Every event with its bytes, for a backend that keeps them itself.
    #[cfg(not(target_arch = "bpf"))]
    pub fn each<K: Copy, P: Packet>(
        &self,
        packet: &P,
        (kind, key, time_ns): (u32, &K, u64),
        flow: &FlowCell<'_>,
        mut on_event: impl FnMut(&crate::abi::SegmentHead<K>, &[u8]),
    ) {
        let mut buffer = [0; CHUNK_BYTES as usize];
        let (direction, sequence, is_pushed) = self.place();
        let mut head = flow.head((direction, sequence, is_pushed), (kind, key, time_ns));
        let (length, bytes) = self.lengths();
        for part in (0..).map_while(|index| chunk(index, length, bytes)) {
            let is_there = packet.copy_to(self.offset() + part.start, part.captured, &mut buffer);
            let captured = if is_there { part.captured as usize } else { 0 };
            head.sequence = sequence.wrapping_add(part.start);
            head.length = part.length as u16;
            head.captured = captured as u16;
            head.pushed = u8::from(is_pushed && part.is_last);
            on_event(&head, buffer.get(..captured).unwrap_or_default());
        }
    }
}

/// Nothing more is wanted of this direction.
const DONE: u16 = 1;
/// This direction may be lines before an SSH banner.
const MAYBE: u16 = 2;
/// The segment is wanted.
const TELL: u16 = 4;

/// Looks at a TCP segment with payload; flags to add to its direction, [`flag::INSPECTED`] where
/// that needs no further look.
///
/// Either direction marks a connection as SSH by its first eight bytes. From then on the segments
/// of both are handed to userspace, up to a limit. So are those that may be lines before a
/// server's banner.
#[inline(always)]
pub(super) fn segment<A: Family, P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    key: &A::Key,
    flow: &FlowCell<'_>,
    place: Place,
) -> u16 {
    // How the answer came about must not multiply what the verifier follows.
    // A copy: what is passed by reference has to be in memory.
    let copy = *flow;
    let wanted = packet.forget(look(packet, &copy, place));
    let full = if wanted & TELL != 0 {
        packet.forget(tell::<A, P, B>(packet, backend, key, &copy, place))
    } else {
        0
    };
    let done = (wanted | full) & DONE;
    let maybe = (wanted & MAYBE) >> MAYBE.trailing_zeros();
    done << flag::INSPECTED.trailing_zeros() | maybe << flag::TEXT.trailing_zeros()
}

/// What to do about a segment.
///
/// Not inlined: it runs for the first few segments only.
#[inline(never)]
fn look<P: Packet>(packet: &P, flow: &FlowCell<'_>, place: Place) -> u16 {
    let direction = place.direction();
    let (known, inspected, expected) = flow.get_cold(|cold| {
        (
            cold.app,
            cold.inspected[direction & 1],
            cold.inspect_sequence[direction & 1],
        )
    });
    let own = flow.get(|hot| hot.flags[direction & 1]);
    if known == App::Ssh as u8 {
        return TELL;
    }
    if inspected >= MAX_COST {
        return DONE;
    }
    let is_old = place.sequence().wrapping_sub(expected) >> 31 == 1;
    let cost = inspected + if is_old { OLD } else { NEW };
    flow.update_cold(|cold| cold.inspected[direction & 1] = cost);
    let last = u16::from(cost >= MAX_COST) * DONE;
    if own & flag::TEXT != 0 {
        return last | TELL;
    }
    // A retransmission, or a segment before its turn.
    if place.sequence() != expected {
        return last;
    }
    let filled = flow.get_cold(|cold| cold.prefix_length[direction & 1]);
    let length = place.length();
    let head = if filled == 0 && length >= u32::from(PREFIX) {
        whole(packet, flow, direction, place.offset())
    } else {
        gather(packet, flow, direction, place.offset(), length)
    };
    let Some(head) = head else {
        return last;
    };
    let app = classify::tcp(head, length, inspected == 0) as u8;
    if app == App::Ssh as u8 {
        flow.update_cold(|cold| cold.app = app);
        // The other end's segments are wanted from now on.
        flow.update(|hot| hot.flags[(direction ^ 1) & 1] &= !flag::INSPECTED);
        return TELL;
    }
    if known == App::Unknown as u8 {
        flow.update_cold(|cold| cold.app = app);
        if app == App::Unknown as u8 && own & flag::OPENS == 0 && classify::is_text(head) {
            return MAYBE | TELL | last;
        }
    }
    DONE
}

/// Hands a segment to userspace, with the first bytes that were seen before; [`DONE`] where it was
/// the last one.
#[inline(never)]
fn tell<A: Family, P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    key: &A::Key,
    flow: &FlowCell<'_>,
    place: Place,
) -> u16 {
    let direction = place.direction();
    let (told, captured) =
        flow.get_cold(|cold| (cold.told[direction & 1], cold.captured[direction & 1]));
    if told >= CAPTURE_EVENTS {
        return DONE;
    }
    let room = CAPTURE_BYTES.saturating_sub(u32::from(captured));
    let length = place.length();
    let bytes = if length < room { length } else { room };
    flow.update_cold(|cold| {
        cold.told[direction & 1] = told + 1;
        cold.captured[direction & 1] = captured + bytes as u16;
    });
    A::tell(backend, packet, key, flow, &Segment { place, bytes });
    u16::from(told + 1 >= CAPTURE_EVENTS) * DONE
}

/// Eight bytes as one number, first byte most significant.
#[inline(always)]
const fn join(bytes: [u32; 2]) -> u64 {
    (u32::from_be(bytes[0]) as u64) << 32 | u32::from_be(bytes[1]) as u64
}

/// Takes the prefix from one segment.
#[inline(always)]
fn whole<P: Packet>(packet: &P, flow: &FlowCell<'_>, direction: usize, offset: u32) -> Option<u64> {
    let head = packet.copy::<[u32; 2]>(offset).map(join)?;
    keep(flow, direction, head, u32::from(PREFIX), PREFIX);
    Some(head)
}

/// Notes the prefix after `count` more bytes of it, `filled` in all.
#[inline(always)]
fn keep(flow: &FlowCell<'_>, direction: usize, head: u64, count: u32, filled: u8) {
    flow.update_cold(|cold| {
        let next = &mut cold.inspect_sequence[direction & 1];
        *next = next.wrapping_add(count);
        cold.prefix[direction & 1] = head.to_be_bytes();
        cold.prefix_length[direction & 1] = filled;
    });
}

/// Adds a segment's bytes to the prefix; all eight once they are there.
#[inline(always)]
fn gather<P: Packet>(
    packet: &P,
    flow: &FlowCell<'_>,
    direction: usize,
    offset: u32,
    length: u32,
) -> Option<u64> {
    let (prefix, filled) = flow.get_cold(|cold| {
        (
            cold.prefix[direction & 1],
            cold.prefix_length[direction & 1],
        )
    });
    let wanted = u32::from(PREFIX - (filled & (PREFIX - 1)));
    // Fewer than eight: whole prefixes are read at once.
    let count = if length < wanted { length } else { wanted };
    let bytes = packet.read_few(offset, count)?;
    let head = u64::from_be_bytes(prefix) | (bytes >> ((8 * u32::from(filled)) & 63));
    let filled = filled + count as u8;
    keep(flow, direction, head, count, filled);
    (filled >= PREFIX).then_some(head)
}

/// Looks at a datagram.
#[inline(always)]
pub(super) fn datagram<A, P: Packet>(
    packet: &P,
    flow: &FlowCell<'_>,
    direction: usize,
    transport: &Transport,
    network: &Network<A>,
) {
    let before = flow.get(|hot| hot.flags[direction & 1]);
    if before & flag::INSPECTED != 0 {
        return;
    }
    let length = network.end - transport.payload;
    if length == 0 {
        return;
    }
    let (inspected, known) = flow.get_cold(|cold| (cold.inspected[direction & 1], cold.app));
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
    flow.update_cold(|cold| {
        cold.app = app;
        cold.inspected[direction & 1] = inspected + 1;
    });
    let done = if done { flag::INSPECTED } else { 0 };
    flow.update(|hot| hot.flags[direction & 1] = before | flag::DATA | done);
}
