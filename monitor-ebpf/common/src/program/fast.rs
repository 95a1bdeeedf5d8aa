//! The way of most packets: whole TCP segments and UDP datagrams without IP options, behind Ethernet, of a
//! connection that is known and of which nothing new is to be learnt.
//!
//! Whatever else comes is left to the general way, of which this is a part, with offsets that are
//! known: the same packets leave the same entry (`fast_and_general_ways_agree`). Nothing is changed
//! before that is certain.

use crate::{
    abi::{FlowKey4, FlowKey6, HotCell, Interface, RX, TX, flag, link, scope},
    packet::{Packet, Window},
    parse::{ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV6_HEADER, protocol},
    program::{Backend, Ends, Family},
};

/// Length of an IPv4 header without options, in bytes.
const IPV4_HEADER: u32 = 20;
/// Length of a TCP header without options, in bytes.
const TCP_HEADER: u32 = 20;
/// Length of a UDP header, in bytes.
const UDP_HEADER: u32 = 8;
/// Ethernet, IPv4 and UDP headers.
const UDP4: usize = 42;
/// Ethernet, IPv4 and TCP headers.
const TCP4: usize = 54;
/// Ethernet, IPv6 and UDP headers.
const UDP6: usize = 62;
/// Ethernet, IPv6 and TCP headers.
const TCP6: usize = 74;

/// What a TCP header tells, but for its ports.
#[derive(Clone, Copy)]
struct Tcp {
    sequence: u32,
    /// Header length and flags, as in the header (RFC 9293 section 3.1).
    control: u16,
}

/// A packet whose flow is to be found.
struct Found<'a> {
    hot: HotCell<'a>,
    direction: usize,
    /// Length of the network header, in bytes.
    network: u32,
    /// Layer-3 bytes by the packet's length field.
    length: u32,
    segments: u32,
}

/// Counts a packet in its flow: the layer-3 bytes counted; `None` if it has to go the general way.
#[inline(always)]
pub(super) fn on_packet<P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    interface: &Interface,
    segments: u32,
) -> Option<u64> {
    if !B::FAST || interface.link != link::ETHERNET {
        return None;
    }
    let window = packet.window::<UDP4>()?;
    match u16::from_be(window.get::<u16, 12>()) {
        ETHERTYPE_IPV4 => ipv4(packet, backend, interface, segments, &window),
        ETHERTYPE_IPV6 => ipv6(packet, backend, interface, segments),
        _ => None,
    }
}

#[inline(always)]
fn ipv4<P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    interface: &Interface,
    segments: u32,
    window: &Window<'_, UDP4>,
) -> Option<u64> {
    let is_plain =
        window.get::<u8, 14>() == 0x45 && window.get::<u16, 20>() & 0x3fff_u16.to_be() == 0;
    let length = u32::from(u16::from_be(window.get::<u16, 16>()));
    if !is_plain || length > packet.length().wrapping_sub(ETHERNET_HEADER) {
        return None;
    }
    let number = window.get::<u8, 23>();
    let tcp = match number {
        protocol::TCP => {
            let window = packet.window::<TCP4>()?;
            Some(Tcp {
                sequence: u32::from_be(window.get::<u32, 38>()),
                control: u16::from_be(window.get::<u16, 46>()),
            })
        }
        protocol::UDP => None,
        _ => return None,
    };
    // Source and destination in the upper and lower half.
    let addresses = u64::from_be(window.get::<u64, 26>());
    let ports = u32::from_be(window.get::<u32, 34>());
    let ends = Ends {
        source: [0, 0, 0, (addresses >> 32) as u32],
        destination: [0, 0, 0, addresses as u32],
        source_port: (ports >> 16) as u16,
        destination_port: ports as u16,
        v6: false,
    };
    let source_is_local = backend.source_is_local(interface, packet.hook(), &ends);
    // Without a branch: the local end in the lower half.
    let mask = u64::from(source_is_local).wrapping_neg();
    let change = (addresses ^ addresses >> 32) & mask & 0xffff_ffff;
    let addresses = addresses ^ (change | change << 32);
    let (local_port, remote_port) = local_and_remote(ports, mask);
    let key = FlowKey4 {
        local: addresses as u32,
        remote: (addresses >> 32) as u32,
        local_port,
        remote_port,
        scope: scope(interface.id, number),
    };
    let found = Found {
        hot: backend.near4(&key)?,
        direction: if source_is_local { TX } else { RX },
        network: IPV4_HEADER,
        length,
        segments,
    };
    count(backend, &found, tcp)
}

#[inline(always)]
fn ipv6<P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    interface: &Interface,
    segments: u32,
) -> Option<u64> {
    let window = packet.window::<UDP6>()?;
    let length = u32::from(u16::from_be(window.get::<u16, 18>())) + IPV6_HEADER;
    if window.get::<u8, 14>() >> 4 != 6 || length > packet.length().wrapping_sub(ETHERNET_HEADER) {
        return None;
    }
    let number = window.get::<u8, 20>();
    let tcp = match number {
        protocol::TCP => {
            let window = packet.window::<TCP6>()?;
            Some(Tcp {
                sequence: u32::from_be(window.get::<u32, 58>()),
                control: u16::from_be(window.get::<u16, 66>()),
            })
        }
        protocol::UDP => None,
        _ => return None,
    };
    let source = [window.get::<u64, 22>(), window.get::<u64, 30>()];
    let destination = [window.get::<u64, 38>(), window.get::<u64, 46>()];
    let ports = u32::from_be(window.get::<u32, 54>());
    let ends = Ends {
        source: Family::words(source),
        destination: Family::words(destination),
        source_port: (ports >> 16) as u16,
        destination_port: ports as u16,
        v6: true,
    };
    let source_is_local = backend.source_is_local(interface, packet.hook(), &ends);
    let mask = u64::from(source_is_local).wrapping_neg();
    let changes = [
        (source[0] ^ destination[0]) & mask,
        (source[1] ^ destination[1]) & mask,
    ];
    let (local_port, remote_port) = local_and_remote(ports, mask);
    let key = FlowKey6 {
        local: [destination[0] ^ changes[0], destination[1] ^ changes[1]],
        remote: [source[0] ^ changes[0], source[1] ^ changes[1]],
        local_port,
        remote_port,
        scope: scope(interface.id, number),
    };
    let found = Found {
        hot: backend.near6(&key)?,
        direction: if source_is_local { TX } else { RX },
        network: IPV6_HEADER,
        length,
        segments,
    };
    count(backend, &found, tcp)
}

/// Local and remote port of a source port in the upper and a destination port in the lower half; `mask` has
/// all bits where the source is local.
#[inline(always)]
const fn local_and_remote(ports: u32, mask: u64) -> (u16, u16) {
    let change = (ports ^ ports >> 16) & mask as u32 & 0xffff;
    let ports = ports ^ (change | change << 16);
    (ports as u16, (ports >> 16) as u16)
}

/// Counts a packet in the entry of its flow.
#[inline(always)]
fn count<B: Backend>(backend: &B, found: &Found<'_>, tcp: Option<Tcp>) -> Option<u64> {
    let Found {
        hot,
        direction,
        network,
        length,
        segments,
    } = *found;
    let headers = match tcp {
        Some(tcp) => on_segment::<B>(found, tcp)?,
        None => {
            let is_inspected = hot.get(|hot| hot.flags[direction & 1]) & flag::INSPECTED != 0;
            if length < network + UDP_HEADER || B::INSPECTS && !is_inspected {
                return None;
            }
            network + UDP_HEADER
        }
    };
    let length = u64::from(length);
    let bytes = if segments > 1 {
        length + u64::from(segments - 1) * u64::from(headers)
    } else {
        length
    };
    hot.add(direction, u64::from(segments), bytes);
    let ticks = backend.ticks();
    if hot.get(|hot| hot.last_seen_ticks) != ticks {
        hot.update(|hot| hot.last_seen_ticks = ticks);
    }
    Some(bytes)
}

/// Notes what a segment tells about its connection, as `tcp::on_segment` does: the length of its headers.
#[inline(always)]
fn on_segment<B: Backend>(found: &Found<'_>, tcp: Tcp) -> Option<u32> {
    let (hot, direction) = (found.hot, found.direction & 1);
    let header = u32::from(tcp.control >> 12) * 4;
    let headers = found.network + header;
    let flags = tcp.control & flag::TCP_MASK;
    if header < TCP_HEADER || headers > found.length || flags & flag::SYN != 0 {
        return None;
    }
    let before = hot.get(|hot| hot.flags[direction]);
    let mut flags = before | flags;
    // It may complete the handshake.
    if flags & (flag::OPENS | flag::TIMED) == flag::OPENS {
        return None;
    }
    let payload = found.length - headers;
    if payload > 0 {
        let next = tcp.sequence.wrapping_add(payload);
        let expected = hot.get(|hot| hot.next_sequence[direction]);
        let is_known = before & (flag::SYN | flag::DATA) != 0
            && (!B::INSPECTS || before & flag::INSPECTED != 0);
        // Serial number arithmetic (RFC 9293 section 3.4).
        if !is_known || next.wrapping_sub(expected) as i32 <= 0 {
            return None;
        }
        hot.update(|hot| hot.next_sequence[direction] = next);
        flags |= flag::DATA;
    }
    if flags != before {
        hot.update(|hot| hot.flags[direction] = flags);
    }
    Some(headers)
}
