//! Bytes to headers: Ethernet, VLAN, IPv4, IPv6, TCP, UDP, SCTP, ICMP, ICMPv6.
//!
//! The only place that knows network byte order. Every packet that cannot be followed to its
//! ports has a [`Reason`]. Offsets count from the start of the link layer.

use crate::{
    abi::{Reason, link},
    packet::Packet,
};

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
/// Length of what ICMP and ICMPv6 errors put before the packet they quote, in bytes.
pub const ICMP_HEADER: u32 = 8;
/// Length of the IPv6 header without extension headers, in bytes.
pub const IPV6_HEADER: u32 = 40;
/// Length of an Ethernet header without VLAN tags, in bytes.
pub(crate) const ETHERNET_HEADER: u32 = 14;
const VLAN_HEADER: u32 = 4;
const MAX_VLAN_TAGS: u32 = 2;
const MAX_EXTENSION_HEADERS: u32 = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// Network-layer protocol and where its header starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer3 {
    /// IPv4 header at this offset.
    V4(u32),
    /// IPv6 header at this offset.
    V6(u32),
}

/// A network header, followed to its transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Protocol of the transport header.
    pub protocol: u8,
    /// Offset of the network header.
    pub offset: u32,
    /// Offset of the transport header.
    pub transport: u32,
    /// Offset behind the packet's last byte, by its length field.
    pub end: u32,
    /// Which part of a datagram the packet holds.
    pub part: Part,
    /// Identification field of a fragment.
    pub identification: u32,
}

/// Part of a datagram that a packet holds.
///
/// A plain enumeration rather than an `Option` of a structure: the BTF of a variant type is refused
/// by the kernel, and these types appear in the signatures of the kernel program's functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// All of it: not a fragment.
    Whole = 0,
    /// The first fragment, which holds the transport header.
    First = 1,
    /// A later fragment, without transport header.
    Later = 2,
}

/// What the transport header tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Source port; for ICMP the echo identifier, the same in both directions.
    pub source_port: u16,
    /// Destination port; for ICMP type and code of the message (of the request, for echo).
    pub destination_port: u16,
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP header flags; for ICMP the message type.
    pub flags: u8,
    /// Offset of the payload.
    pub payload: u32,
}

/// Finds the network header behind Ethernet and up to two VLAN tags.
#[inline(always)]
pub fn layer3<P: Packet>(packet: &P, link_type: u8) -> Result<Layer3, Reason> {
    if link_type == link::RAW_IP {
        let first = u32::from_be(packet.read(0).ok_or(Reason::Truncated)?);
        return match first >> 28 {
            4 => Ok(Layer3::V4(0)),
            6 => Ok(Layer3::V6(0)),
            _ => Err(Reason::NotIp),
        };
    }
    let ethertype = u16::from_be(packet.read(ETHERNET_HEADER - 2).ok_or(Reason::Truncated)?);
    match ethertype {
        ETHERTYPE_IPV4 => Ok(Layer3::V4(ETHERNET_HEADER)),
        ETHERTYPE_IPV6 => Ok(Layer3::V6(ETHERNET_HEADER)),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => tagged(packet),
        _ => Err(Reason::NotIp),
    }
}

/// Finds the network header behind VLAN tags.
#[inline(always)]
fn tagged<P: Packet>(packet: &P) -> Result<Layer3, Reason> {
    let mut tags = 1;
    loop {
        let offset = ETHERNET_HEADER + tags * VLAN_HEADER;
        let ethertype = u16::from_be(packet.copy(offset - 2).ok_or(Reason::Truncated)?);
        match ethertype {
            ETHERTYPE_IPV4 => return Ok(Layer3::V4(forget(packet, offset))),
            ETHERTYPE_IPV6 => return Ok(Layer3::V6(forget(packet, offset))),
            ETHERTYPE_VLAN | ETHERTYPE_QINQ if tags < MAX_VLAN_TAGS => tags += 1,
            ETHERTYPE_VLAN | ETHERTYPE_QINQ => return Err(Reason::VlanDepth),
            _ => return Err(Reason::NotIp),
        }
    }
}

/// An offset within the headers, see [`Packet::forget`].
#[inline(always)]
fn forget<P: Packet>(packet: &P, offset: u32) -> u32 {
    u32::from(packet.forget(offset as u16))
}

/// Reads an IPv4 header (RFC 791).
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P, offset: u32) -> Result<Network<u32>, Reason> {
    let words: [u32; 5] = packet.read(offset).ok_or(Reason::Truncated)?;
    let [first, second, third, source, destination] = words.map(u32::from_be);
    let header = (first >> 24 & 0xf) * 4;
    if first >> 28 != 4 || header < 20 {
        return Err(Reason::Malformed);
    }
    let protocol = (third >> 16 & 0xff) as u8;
    let available = packet.length().wrapping_sub(offset);
    let mut total = first & 0xffff;
    if total == 0 && protocol == protocol::TCP {
        // Segmentation offload beyond 64 KiB (BIG TCP) leaves the field zero.
        total = available;
    }
    if total < header || total > available {
        return Err(Reason::Malformed);
    }
    let fragment_field = second & 0x3fff;
    let part = if fragment_field == 0 {
        Part::Whole
    } else if fragment_field & 0x1fff == 0 {
        Part::First
    } else {
        Part::Later
    };
    Ok(Network {
        source,
        destination,
        protocol,
        offset,
        transport: if header == 20 {
            offset + 20
        } else {
            forget(packet, offset + header)
        },
        end: offset + total,
        part,
        identification: second >> 16,
    })
}

/// Reads an IPv6 header and its extension headers (RFC 8200).
///
/// Addresses stay in the wire's byte order, as pairs of words: half as many loads as by 32 bits.
#[inline(always)]
pub fn ipv6<P: Packet>(packet: &P, offset: u32) -> Result<Network<[u64; 2]>, Reason> {
    let words: [u64; 5] = packet.read(offset).ok_or(Reason::Truncated)?;
    let [first, s0, s1, d0, d1] = words;
    let first = u64::from_be(first);
    if first >> 60 != 6 {
        return Err(Reason::Malformed);
    }
    let available = packet.length().wrapping_sub(offset);
    let mut next = (first >> 8 & 0xff) as u8;
    let mut total = (first >> 16 & 0xffff) as u32 + IPV6_HEADER;
    if total == IPV6_HEADER && (next == HOP_BY_HOP || next == protocol::TCP) {
        // A jumbogram (RFC 2675), or BIG TCP, which leaves the field zero.
        total = available;
    }
    if total > available {
        return Err(Reason::Malformed);
    }
    let end = offset + total;
    let mut transport = offset + IPV6_HEADER;
    let mut part = Part::Whole;
    let mut identification = 0;
    if is_extension(next) {
        let mut followed = 0;
        while followed < MAX_EXTENSION_HEADERS {
            if transport + 8 > end {
                return Err(Reason::Malformed);
            }
            let header: [u32; 2] = packet.copy(transport).ok_or(Reason::Truncated)?;
            let [head, second_word] = header.map(u32::from_be);
            let units = head >> 16 & 0xff;
            let length = match next {
                FRAGMENT => {
                    let place = head & 0xffff;
                    // An atomic fragment (RFC 6946) is a whole datagram.
                    if place & !0x6 != 0 {
                        identification = second_word;
                        part = if place & 0xfff8 == 0 {
                            Part::First
                        } else {
                            Part::Later
                        };
                    }
                    8
                }
                AUTHENTICATION => (units + 2) * 4,
                _ => (units + 1) * 8,
            };
            next = (head >> 24) as u8;
            transport += length;
            if transport > end {
                return Err(Reason::Malformed);
            }
            // What follows a later fragment's header is data, whatever `next` says.
            if part as u8 == Part::Later as u8 || !is_extension(next) {
                break;
            }
            followed += 1;
        }
        if followed == MAX_EXTENSION_HEADERS {
            return Err(Reason::ExtensionHeaders);
        }
        transport = forget(packet, transport);
        let known = packet.forget((part as u16) << 8 | u16::from(next));
        next = (known & 0xff) as u8;
        part = match known >> 8 {
            0 => Part::Whole,
            1 => Part::First,
            _ => Part::Later,
        };
    }
    Ok(Network {
        source: [s0, s1],
        destination: [d0, d1],
        protocol: next,
        offset,
        transport,
        end,
        part,
        identification,
    })
}

/// Whether an IPv6 next-header value is an extension header that is followed.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY
    )
}

/// Reads the transport header at `offset`; the packet ends at `end`.
#[inline(always)]
pub fn transport<P: Packet>(
    packet: &P,
    protocol: u8,
    offset: u32,
    end: u32,
) -> Result<Transport, Reason> {
    let room = end - offset;
    match protocol {
        protocol::TCP => tcp(packet, offset, room),
        protocol::UDP => {
            if room < 8 {
                return Err(Reason::Malformed);
            }
            ports(packet, offset, 8)
        }
        protocol::SCTP => {
            if room < 12 {
                return Err(Reason::Malformed);
            }
            ports(packet, offset, 12)
        }
        protocol::ICMP | protocol::ICMPV6 => icmp(packet, protocol, offset, room),
        _ => Ok(Transport {
            payload: offset,
            ..Transport::default()
        }),
    }
}

/// A TCP header (RFC 9293 section 3.1).
#[inline(always)]
fn tcp<P: Packet>(packet: &P, offset: u32, room: u32) -> Result<Transport, Reason> {
    if room < 20 {
        return Err(Reason::Malformed);
    }
    let words: [u32; 4] = packet.read(offset).ok_or(Reason::Truncated)?;
    let [ports, sequence, _, control] = words.map(u32::from_be);
    let header = (control >> 28) * 4;
    if header < 20 || header > room {
        return Err(Reason::Malformed);
    }
    Ok(Transport {
        source_port: (ports >> 16) as u16,
        destination_port: (ports & 0xffff) as u16,
        sequence,
        flags: (control >> 16 & 0xff) as u8,
        payload: offset + header,
    })
}

/// The ports that UDP (RFC 768) and SCTP (RFC 9260) start with.
#[inline(always)]
fn ports<P: Packet>(packet: &P, offset: u32, header: u32) -> Result<Transport, Reason> {
    let ports = u32::from_be(packet.read(offset).ok_or(Reason::Truncated)?);
    Ok(Transport {
        source_port: (ports >> 16) as u16,
        destination_port: (ports & 0xffff) as u16,
        payload: offset + header,
        ..Transport::default()
    })
}

/// ICMP message types that the flow key or the outcome depends on.
pub mod icmp_type {
    /// ICMP echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// ICMP destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// ICMP echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// ICMPv6 destination unreachable.
    pub const V6_UNREACHABLE: u8 = 1;
    /// ICMPv6 echo request.
    pub const V6_ECHO_REQUEST: u8 = 128;
    /// ICMPv6 echo reply.
    pub const V6_ECHO_REPLY: u8 = 129;
}

/// An ICMP (RFC 792) or ICMPv6 (RFC 4443) message; both directions of an echo read the same.
#[inline(always)]
fn icmp<P: Packet>(packet: &P, protocol: u8, offset: u32, room: u32) -> Result<Transport, Reason> {
    if room < 8 {
        return Err(Reason::Malformed);
    }
    let words: [u32; 2] = packet.read(offset).ok_or(Reason::Truncated)?;
    let [head, rest] = words.map(u32::from_be);
    let (identity, message) = icmp_ports(protocol, head, rest);
    Ok(Transport {
        source_port: identity,
        destination_port: message,
        flags: (head >> 24) as u8,
        payload: offset + ICMP_HEADER,
        ..Transport::default()
    })
}

/// What stands in the place of ports for the first two words of an ICMP or ICMPv6 message:
/// [`Transport::source_port`] and [`Transport::destination_port`].
#[inline(always)]
pub(crate) const fn icmp_ports(protocol: u8, head: u32, rest: u32) -> (u16, u16) {
    let kind = (head >> 24) as u8;
    let (request, reply) = if protocol == protocol::ICMP {
        (icmp_type::ECHO_REQUEST, icmp_type::ECHO_REPLY)
    } else {
        (icmp_type::V6_ECHO_REQUEST, icmp_type::V6_ECHO_REPLY)
    };
    if kind == request || kind == reply {
        ((rest >> 16) as u16, (request as u16) << 8)
    } else {
        (0, (head >> 16) as u16)
    }
}

#[cfg(test)]
mod tests;
