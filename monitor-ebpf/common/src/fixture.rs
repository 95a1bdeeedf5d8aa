//! Building blocks of tests: packets, byte by byte, and a place to keep flows.

mod world;

use std::{vec, vec::Vec};

use crate::{
    abi::{CHUNK_BYTES, Hook},
    packet::{Frame, Packet, Plain, Window},
};

pub(crate) use world::{IFINDEX, Key, World};

/// The local end, IPv4.
pub(crate) const LOCAL: [u8; 4] = [10, 0, 0, 7];
/// The remote end, IPv4.
pub(crate) const REMOTE: [u8; 4] = [192, 0, 2, 9];
/// The local end, IPv6.
pub(crate) const LOCAL6: [u8; 16] = *b"\x20\x01\x0d\xb8\0\0\0\x01\0\0\0\0\0\0\0\x07";
/// The remote end, IPv6.
pub(crate) const REMOTE6: [u8; 16] = *b"\x20\x01\x0d\xb8\0\0\0\x02\0\0\0\0\0\0\0\x09";
/// Ports of both ends, the local one first.
pub(crate) const PORTS: (u16, u16) = (40_000, 443);

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// Both addresses of either family, source first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Addresses {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

/// From the local to the remote end, IPv4.
pub(crate) const OUT: Addresses = Addresses::V4(LOCAL, REMOTE);
/// From the remote to the local end, IPv4.
pub(crate) const IN: Addresses = Addresses::V4(REMOTE, LOCAL);
/// From the local to the remote end, IPv6.
pub(crate) const OUT6: Addresses = Addresses::V6(LOCAL6, REMOTE6);
/// From the remote to the local end, IPv6.
pub(crate) const IN6: Addresses = Addresses::V6(REMOTE6, LOCAL6);

/// Both families: to the remote end, and back.
pub(crate) const FAMILIES: [(Addresses, Addresses); 2] = [(OUT, IN), (OUT6, IN6)];

// === impl Addresses ===

impl Addresses {
    pub(crate) fn is_v6(self) -> bool {
        matches!(self, Self::V6(..))
    }

    /// Length of a plain header.
    pub(crate) fn header(self) -> u64 {
        if self.is_v6() { 40 } else { 20 }
    }

    /// Number of the control protocol.
    pub(crate) fn icmp(self) -> u8 {
        if self.is_v6() { 58 } else { 1 }
    }
}

/// An IPv6 extension header.
#[derive(Clone, Debug)]
pub(crate) struct Extension {
    pub(crate) kind: u8,
    /// Without the first byte, which names what follows.
    pub(crate) rest: Vec<u8>,
}

/// Part of a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment {
    pub(crate) identification: u16,
    /// In units of eight bytes.
    pub(crate) offset: u16,
    pub(crate) more: bool,
}

/// An IP packet.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) addresses: Addresses,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
    /// IPv4 options, whole words.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers.
    pub(crate) extensions: Vec<Extension>,
    /// Becomes the last extension header for IPv6.
    pub(crate) fragment: Option<Fragment>,
    /// What the length field says instead of the truth.
    pub(crate) length: Option<u16>,
}

// === impl Ip ===

impl Ip {
    pub(crate) fn new(addresses: Addresses, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            addresses,
            protocol,
            payload,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            length: None,
        }
    }

    /// The packet's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self.addresses {
            Addresses::V4(source, destination) => self.v4(source, destination),
            Addresses::V6(source, destination) => self.v6(source, destination),
        }
    }

    fn v4(&self, source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let length = self
            .length
            .unwrap_or_else(|| short(header + self.payload.len()));
        let mut bytes = vec![
            0x40 | u8::try_from(header / 4).expect("at most 15 words"),
            0,
        ];
        bytes.extend(length.to_be_bytes());
        let (identification, place) = match self.fragment {
            Some(Fragment {
                identification,
                offset,
                more,
            }) => (identification, offset | u16::from(more) << 13),
            // Do not fragment.
            None => (0, 0x4000),
        };
        bytes.extend(identification.to_be_bytes());
        bytes.extend(place.to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        bytes
    }

    fn v6(&self, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let mut extensions = self.extensions.clone();
        if let Some(Fragment {
            identification,
            offset,
            more,
        }) = self.fragment
        {
            let mut rest = vec![0];
            rest.extend((offset << 3 | u16::from(more)).to_be_bytes());
            rest.extend(u32::from(identification).to_be_bytes());
            extensions.push(Extension { kind: 44, rest });
        }
        let mut tail = Vec::new();
        for (index, extension) in extensions.iter().enumerate() {
            tail.push(
                extensions
                    .get(index + 1)
                    .map_or(self.protocol, |next| next.kind),
            );
            tail.extend(&extension.rest);
        }
        tail.extend(&self.payload);
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(
            self.length
                .unwrap_or_else(|| short(tail.len()))
                .to_be_bytes(),
        );
        bytes.push(extensions.first().map_or(self.protocol, |first| first.kind));
        bytes.push(64);
        bytes.extend(source);
        bytes.extend(destination);
        bytes.extend(tail);
        bytes
    }
}

fn short(length: usize) -> u16 {
    u16::try_from(length).expect("a short packet")
}

/// An IP packet without anything special.
pub(crate) fn ip(addresses: Addresses, protocol: u8, payload: Vec<u8>) -> Vec<u8> {
    Ip::new(addresses, protocol, payload).bytes()
}

/// A TCP segment.
pub(crate) fn tcp(ports: (u16, u16), sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = both(ports);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(data);
    bytes
}

/// A UDP datagram.
pub(crate) fn udp(ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut bytes = both(ports);
    bytes.extend(short(8 + data.len()).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    bytes
}

/// An SCTP packet without chunks.
pub(crate) fn sctp(ports: (u16, u16)) -> Vec<u8> {
    let mut bytes = both(ports);
    bytes.extend([0; 8]);
    bytes
}

/// An ICMP or ICMPv6 message.
pub(crate) fn icmp(kind: u8, code: u8, identity: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(identity.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(data);
    bytes
}

fn both(ports: (u16, u16)) -> Vec<u8> {
    [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat()
}

/// A frame around an IP packet, behind VLAN tags of these types.
pub(crate) fn ethernet(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let inner = if packet.first().is_some_and(|first| first >> 4 == 6) {
        0x86dd
    } else {
        0x0800
    };
    frame(tags, inner, packet)
}

/// A frame of any type, behind VLAN tags of these types.
pub(crate) fn frame(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2; 12];
    for tag in tags {
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0, 42]);
    }
    // A tag's type stands in front of its number.
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Both ends of a port pair swapped: the ports of an answer.
pub(crate) fn back(ports: (u16, u16)) -> (u16, u16) {
    (ports.1, ports.0)
}

/// A whole frame.
pub(crate) fn captured(bytes: &[u8]) -> Frame<'_> {
    let length = u32::try_from(bytes.len()).expect("a short frame");
    Frame {
        bytes,
        length,
        ifindex: IFINDEX,
        hook: Hook::Egress,
    }
}

/// A frame that stands for several segments, sent by a socket of a cgroup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gso<'a> {
    pub(crate) frame: Frame<'a>,
    pub(crate) segments: u32,
    pub(crate) cgroup_id: u64,
}

impl Packet for Gso<'_> {
    fn length(&self) -> u32 {
        self.frame.length()
    }

    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        self.frame.read(offset)
    }

    fn window<const N: usize>(&self) -> Option<Window<'_, N>> {
        self.frame.window()
    }

    fn copy<T: Plain>(&self, offset: u32) -> Option<T> {
        self.frame.copy(offset)
    }

    fn read_few(&self, offset: u32, count: u32) -> Option<u64> {
        self.frame.read_few(offset, count)
    }

    fn copy_to(&self, offset: u32, count: u32, to: &mut [u8; CHUNK_BYTES as usize]) -> bool {
        self.frame.copy_to(offset, count, to)
    }

    fn segments(&self) -> u32 {
        self.segments
    }

    fn ifindex(&self) -> u32 {
        self.frame.ifindex()
    }

    fn hook(&self) -> Hook {
        self.frame.hook()
    }

    fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }
}
