//! What differs between IPv4 and IPv6: addresses, keys, maps.

use crate::{
    abi::{FlowCell, FlowKey4, FlowKey6, Reason},
    packet::Packet,
    parse::{self, Network, Part, protocol},
    program::{Backend, Segment},
};

/// An address family; implemented by its address type.
pub trait Family: Copy {
    /// Whether it is IPv6.
    const V6: bool;
    /// Protocol number of its control messages.
    const ICMP: u8;
    /// Flow key of this family.
    type Key: Copy;

    /// Reads the network header at `offset`.
    fn parse<P: Packet>(packet: &P, offset: u32) -> Result<Network<Self>, Reason>;

    /// Source and destination address of the network header at `offset`.
    fn addresses<P: Packet>(packet: &P, offset: u32) -> Option<(Self, Self)>;

    /// The address as four words, IPv4 in the last.
    fn words(self) -> [u32; 4];

    /// Flow key of a packet between `(source, destination)`.
    fn key(
        addresses: (Self, Self),
        ports: (u16, u16),
        source_is_local: bool,
        scope: u32,
    ) -> Self::Key;

    /// Entry of a flow.
    fn flow<'a, B: Backend>(backend: &'a B, key: &Self::Key) -> Option<FlowCell<'a>>;

    /// Adds a flow; `false` where it is there already.
    fn insert<B: Backend>(backend: &B, key: &Self::Key) -> Result<bool, Reason>;

    /// Tells that a connection ended.
    fn ended<B: Backend>(backend: &B, key: &Self::Key, last: &FlowCell<'_>) -> bool;

    /// Hands a segment to userspace.
    fn tell<P: Packet, B: Backend>(
        backend: &B,
        packet: &P,
        key: &Self::Key,
        flow: &FlowCell<'_>,
        segment: &Segment,
    );

    /// Reads the network header that an ICMP error quotes at `offset`; the quoted packet may be
    /// cut short, so its length is not checked.
    fn quoted<P: Packet>(packet: &P, offset: u32) -> Option<Network<Self>>;
}

/// Local and remote port; the ports of an ICMP message do not depend on its direction.
#[inline(always)]
const fn local_and_remote(ports: (u16, u16), source_is_local: bool, scope: u32) -> (u16, u16) {
    let protocol = (scope & 0xff) as u8;
    if source_is_local || protocol == protocol::ICMP || protocol == protocol::ICMPV6 {
        ports
    } else {
        (ports.1, ports.0)
    }
}

// === impl Family for IPv4 ===

impl Family for u32 {
    const V6: bool = false;
    const ICMP: u8 = protocol::ICMP;
    type Key = FlowKey4;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, offset: u32) -> Result<Network<Self>, Reason> {
        parse::ipv4(packet, offset)
    }

    #[inline(always)]
    fn addresses<P: Packet>(packet: &P, offset: u32) -> Option<(Self, Self)> {
        let addresses: [u32; 2] = packet.copy(offset + 12)?;
        let [source, destination] = addresses.map(u32::from_be);
        Some((source, destination))
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        [0, 0, 0, self]
    }

    #[inline(always)]
    fn key(
        (source, destination): (Self, Self),
        ports: (u16, u16),
        source_is_local: bool,
        scope: u32,
    ) -> FlowKey4 {
        let (local, remote) = if source_is_local {
            (source, destination)
        } else {
            (destination, source)
        };
        let (local_port, remote_port) = local_and_remote(ports, source_is_local, scope);
        FlowKey4 {
            local,
            remote,
            local_port,
            remote_port,
            scope,
        }
    }

    #[inline(always)]
    fn flow<'a, B: Backend>(backend: &'a B, key: &FlowKey4) -> Option<FlowCell<'a>> {
        backend.flow4(key)
    }

    #[inline(always)]
    fn insert<B: Backend>(backend: &B, key: &FlowKey4) -> Result<bool, Reason> {
        backend.insert4(key)
    }

    #[inline(always)]
    fn ended<B: Backend>(backend: &B, key: &FlowKey4, last: &FlowCell<'_>) -> bool {
        backend.ended4(key, last)
    }

    #[inline(always)]
    fn tell<P: Packet, B: Backend>(
        backend: &B,
        packet: &P,
        key: &FlowKey4,
        flow: &FlowCell<'_>,
        segment: &Segment,
    ) {
        backend.segment4(packet, key, flow, segment);
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, offset: u32) -> Option<Network<Self>> {
        let words: [u32; 5] = packet.copy(offset)?;
        let [first, _, third, source, destination] = words.map(u32::from_be);
        let header = (first >> 24 & 0xf) * 4;
        if first >> 28 != 4 || header < 20 {
            return None;
        }
        let transport = offset + header;
        Some(Network {
            source,
            destination,
            protocol: (third >> 16 & 0xff) as u8,
            offset,
            transport,
            end: transport,
            part: Part::Whole,
            identification: 0,
        })
    }
}

// === impl Family for IPv6 ===

impl Family for [u64; 2] {
    const V6: bool = true;
    const ICMP: u8 = protocol::ICMPV6;
    type Key = FlowKey6;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, offset: u32) -> Result<Network<Self>, Reason> {
        parse::ipv6(packet, offset)
    }

    #[inline(always)]
    fn addresses<P: Packet>(packet: &P, offset: u32) -> Option<(Self, Self)> {
        Some((packet.copy(offset + 8)?, packet.copy(offset + 24)?))
    }

    #[inline(always)]
    fn words(self) -> [u32; 4] {
        let [high, low] = self;
        let halves = |word: u64| -> [u32; 2] {
            let bytes = word.to_ne_bytes();
            let [b0, b1, b2, b3, b4, b5, b6, b7] = bytes;
            [
                u32::from_ne_bytes([b0, b1, b2, b3]),
                u32::from_ne_bytes([b4, b5, b6, b7]),
            ]
        };
        let ([w0, w1], [w2, w3]) = (halves(high), halves(low));
        [w0, w1, w2, w3]
    }

    #[inline(always)]
    fn key(
        (source, destination): (Self, Self),
        ports: (u16, u16),
        source_is_local: bool,
        scope: u32,
    ) -> FlowKey6 {
        let (local, remote) = if source_is_local {
            (source, destination)
        } else {
            (destination, source)
        };
        let (local_port, remote_port) = local_and_remote(ports, source_is_local, scope);
        FlowKey6 {
            local,
            remote,
            local_port,
            remote_port,
            scope,
        }
    }

    #[inline(always)]
    fn flow<'a, B: Backend>(backend: &'a B, key: &FlowKey6) -> Option<FlowCell<'a>> {
        backend.flow6(key)
    }

    #[inline(always)]
    fn insert<B: Backend>(backend: &B, key: &FlowKey6) -> Result<bool, Reason> {
        backend.insert6(key)
    }

    #[inline(always)]
    fn ended<B: Backend>(backend: &B, key: &FlowKey6, last: &FlowCell<'_>) -> bool {
        backend.ended6(key, last)
    }

    #[inline(always)]
    fn tell<P: Packet, B: Backend>(
        backend: &B,
        packet: &P,
        key: &FlowKey6,
        flow: &FlowCell<'_>,
        segment: &Segment,
    ) {
        backend.segment6(packet, key, flow, segment);
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, offset: u32) -> Option<Network<Self>> {
        let [first, second] = packet.copy::<[u32; 2]>(offset)?;
        if u32::from_be(first) >> 28 != 6 {
            return None;
        }
        let source = packet.copy(offset + 8)?;
        let destination = packet.copy(offset + 24)?;
        let transport = offset + parse::IPV6_HEADER;
        Some(Network {
            source,
            destination,
            protocol: (u32::from_be(second) >> 8 & 0xff) as u8,
            offset,
            transport,
            end: transport,
            part: Part::Whole,
            identification: 0,
        })
    }
}
