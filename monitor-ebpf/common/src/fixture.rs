//! Packets for tests, byte by byte, and a table that counts them.

mod table;

use std::{vec, vec::Vec};

pub(crate) use table::Table;

use crate::{
    abi::Hook,
    packet::{Frame, Packet, Plain},
};

/// Local end of the packets here.
pub(crate) const LOCAL: u8 = 1;
/// Remote end of the packets here.
pub(crate) const REMOTE: u8 = 2;
/// A third party, such as a router.
pub(crate) const ROUTER: u8 = 9;

/// A socket buffer: what a frame of a capture cannot be, such as a GSO packet.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hook: Hook,
    pub(crate) segments: u32,
    pub(crate) ifindex: u32,
    pub(crate) cgroup_id: u64,
}

// === impl Buffer ===

impl Buffer {
    pub(crate) fn new(hook: Hook, bytes: Vec<u8>) -> Self {
        Self { bytes, hook, segments: 1, ifindex: 1, cgroup_id: 0 }
    }

    fn frame(&self) -> Frame<'_> {
        frame(&self.bytes)
    }
}

impl Packet for Buffer {
    fn length(&self) -> u32 {
        self.frame().length()
    }

    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        self.frame().read(offset)
    }

    fn copy<T: Plain>(&self, offset: u32) -> Option<T> {
        self.frame().copy(offset)
    }

    fn read_few(&self, offset: u32, count: u32) -> Option<u64> {
        self.frame().read_few(offset, count)
    }

    fn segments(&self) -> u32 {
        self.segments
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn hook(&self) -> Hook {
        self.hook
    }

    fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }
}

/// A frame that was captured whole.
pub(crate) fn frame(bytes: &[u8]) -> Frame<'_> {
    Frame { bytes, length: length(bytes), ifindex: 1, hook: Hook::Egress }
}

pub(crate) fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a short packet")
}

/// An Ethernet frame whose tags have these types.
pub(crate) fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    for tag in tags {
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0, 42]);
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An Ethernet frame with this IP packet.
pub(crate) fn framed(ip: &[u8]) -> Vec<u8> {
    ethernet(&[], if ip[0] >> 4 == 6 { 0x86dd } else { 0x0800 }, ip)
}

pub(crate) fn address4(end: u8) -> u32 {
    u32::from_be_bytes([10, 0, 0, end])
}

pub(crate) fn address6(end: u8) -> [u8; 16] {
    [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]
}

/// An address as the words of an IPv6 key.
pub(crate) fn words6(end: u8) -> [u64; 2] {
    let bytes = address6(end);
    let (high, low) = bytes.split_at(8);
    [high, low].map(|half| u64::from_ne_bytes(half.try_into().expect("eight bytes")))
}

/// An IPv4 packet with options and the given fragment field.
pub(crate) fn ipv4_with(
    ends: (u8, u8),
    protocol: u8,
    options: u8,
    (identification, fragment): (u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + 4 * usize::from(options);
    let total = u16::try_from(header + payload.len()).expect("a short packet");
    let mut bytes = vec![0x45 + options, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend(identification.to_be_bytes());
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(address4(ends.0).to_be_bytes());
    bytes.extend(address4(ends.1).to_be_bytes());
    bytes.resize(header, 1);
    bytes.extend(payload);
    bytes
}

pub(crate) fn ipv4(ends: (u8, u8), protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(ends, protocol, 0, (0, 0), payload)
}

/// An IPv6 packet with these extension headers; the first byte of each becomes the number of what
/// follows.
pub(crate) fn ipv6_with(
    ends: (u8, u8),
    extensions: &[(u8, Vec<u8>)],
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut tail = Vec::new();
    for (index, (_, bytes)) in extensions.iter().enumerate() {
        let next = extensions.get(index + 1).map_or(protocol, |(kind, _)| *kind);
        tail.push(next);
        tail.extend(&bytes[1..]);
    }
    tail.extend(payload);
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(u16::try_from(tail.len()).expect("a short packet").to_be_bytes());
    bytes.extend([extensions.first().map_or(protocol, |(kind, _)| *kind), 64]);
    bytes.extend(address6(ends.0));
    bytes.extend(address6(ends.1));
    bytes.extend(tail);
    bytes
}

pub(crate) fn ipv6(ends: (u8, u8), protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv6_with(ends, &[], protocol, payload)
}

/// An IPv6 packet (or IPv4) of either family.
pub(crate) fn ip(v6: bool, ends: (u8, u8), protocol: u8, payload: &[u8]) -> Vec<u8> {
    if v6 { ipv6(ends, protocol, payload) } else { ipv4(ends, protocol, payload) }
}

/// An IPv6 fragment header; `place` holds the offset and the flags.
pub(crate) fn fragment_header(identification: u32, place: u16) -> (u8, Vec<u8>) {
    let mut bytes = vec![0, 0];
    bytes.extend(place.to_be_bytes());
    bytes.extend(identification.to_be_bytes());
    (44, bytes)
}

pub(crate) fn tcp(ports: (u16, u16), sequence: u32, flags: u16, data: &[u8]) -> Vec<u8> {
    let [_, flags] = flags.to_be_bytes();
    let mut bytes = ports.0.to_be_bytes().to_vec();
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(data);
    bytes
}

pub(crate) fn udp(ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut bytes = ports.0.to_be_bytes().to_vec();
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(u16::try_from(8 + data.len()).expect("a short datagram").to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    bytes
}

pub(crate) fn icmp(kind: u8, code: u8, rest: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest.to_be_bytes());
    bytes.extend(data);
    bytes
}
