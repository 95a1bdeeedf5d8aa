//! The whole per-packet logic: which flow a packet belongs to, and what it tells about it.
//!
//! Generic over where bytes come from ([`Packet`]) and where flows are kept ([`Backend`]), so that
//! kernel and replay cannot disagree. Nothing here drops, changes or delays a packet.

mod family;
mod fast;
mod inspect;
mod tcp;

pub use family::Family;
pub use inspect::{Chunk, Segment, chunk};

use crate::{
    abi::{
        FlowCell, FlowKey4, FlowKey6, FragmentKey, FragmentPorts, Hook, HotCell, Interface, RX,
        Reason, TX, UNKNOWN_SLOT, flag, point, scope,
    },
    packet::Packet,
    parse::{self, ICMP_HEADER, Layer3, Network, Part, Transport, icmp_type, protocol},
};

/// Where flows, counters and events are kept, and what time it is.
pub trait Backend {
    /// Whether payload is looked at. Only what the benchmark compares with says no.
    const INSPECTS: bool = true;

    /// Whether most packets go the fast way. Only what that is compared with says no.
    const FAST: bool = true;

    /// The registered interface `ifindex` and its slot.
    fn interface(&self, ifindex: u32) -> Option<(u32, &Interface)>;

    /// Accounts for one buffer of `packets` packets on the interface of `slot`: added to a flow
    /// with so many layer-3 bytes, or not for this reason.
    fn account(&self, slot: u32, hook: Hook, packets: u32, result: Result<u64, Reason>);

    /// The entry of an IPv4 flow.
    fn flow4(&self, key: &FlowKey4) -> Option<FlowCell<'_>>;

    /// The entry of an IPv6 flow.
    fn flow6(&self, key: &FlowKey6) -> Option<FlowCell<'_>>;

    /// What most packets touch of an IPv4 flow's entry, where that is found at once.
    #[inline(always)]
    fn near4(&self, key: &FlowKey4) -> Option<HotCell<'_>> {
        self.flow4(key).map(|flow| flow.hot())
    }

    /// What most packets touch of an IPv6 flow's entry, where that is found at once.
    #[inline(always)]
    fn near6(&self, key: &FlowKey6) -> Option<HotCell<'_>> {
        self.flow6(key).map(|flow| flow.hot())
    }

    /// Adds an IPv4 flow with a value of zeros; `false` where another processor did so meanwhile.
    fn insert4(&self, key: &FlowKey4) -> Result<bool, Reason>;

    /// Adds an IPv6 flow with a value of zeros; `false` where another processor did so meanwhile.
    fn insert6(&self, key: &FlowKey6) -> Result<bool, Reason>;

    /// Tells that the connection of an IPv4 entry ended because another one takes its place, and takes
    /// the packets and bytes that it tells out of the entry; `false` where it could not be told.
    fn ended4(&self, key: &FlowKey4, last: &FlowCell<'_>) -> bool;

    /// Tells that the connection of an IPv6 entry ended because another one takes its place, and takes
    /// the packets and bytes that it tells out of the entry; `false` where it could not be told.
    fn ended6(&self, key: &FlowKey6, last: &FlowCell<'_>) -> bool;

    /// Hands a segment of an IPv4 connection to userspace.
    fn segment4<P: Packet>(
        &self,
        packet: &P,
        key: &FlowKey4,
        flow: &FlowCell<'_>,
        segment: &Segment,
    );

    /// Hands a segment of an IPv6 connection to userspace.
    fn segment6<P: Packet>(
        &self,
        packet: &P,
        key: &FlowKey6,
        flow: &FlowCell<'_>,
        segment: &Segment,
    );

    /// The ports of a datagram whose first fragment was remembered.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;

    /// Remembers the ports of a first fragment.
    fn remember_fragment(&self, key: &FragmentKey, ports: &FragmentPorts);

    /// Coarse time in ticks; cheap enough for every packet.
    fn ticks(&self) -> u32;

    /// Precise time in nanoseconds; for the packets that open a flow or complete a handshake.
    fn now_ns(&self) -> u64;

    /// Whether the source of a packet is its flow's local end. The hook tells in the kernel: what
    /// a network card sends and what a pod's veth receives comes from the local end. A replay
    /// decides by address.
    #[inline(always)]
    fn source_is_local(&self, interface: &Interface, hook: Hook, ends: &Ends) -> bool {
        let _ = ends;
        (hook as u8 == Hook::Egress as u8) == (interface.point == point::UPLINK)
    }
}

/// Both ends of a packet; IPv4 addresses sit in the last word, in host byte order, IPv6 addresses
/// are in the wire's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source address.
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Whether the addresses are IPv6.
    pub v6: bool,
}

/// Counts a packet: in its flow, or by the reason why it has none.
#[inline(always)]
pub fn on_packet<P: Packet, B: Backend>(packet: &P, backend: &B) -> Result<(), Reason> {
    let hook = packet.hook();
    let Some((slot, interface)) = backend.interface(packet.ifindex()) else {
        let unknown = Reason::UnknownInterface;
        backend.account(UNKNOWN_SLOT, hook, packet.segments(), Err(unknown));
        return Err(unknown);
    };
    let segments = packet.segments();
    if let Some(bytes) = fast::on_packet(packet, backend, interface, segments) {
        backend.account(slot, hook, segments, Ok(bytes));
        return Ok(());
    }
    let result = match parse::layer3(packet, interface.link) {
        Ok(Layer3::V4(offset)) => on_ip::<u32, P, B>(packet, backend, interface, offset, segments),
        Ok(Layer3::V6(offset)) => {
            on_ip::<[u64; 2], P, B>(packet, backend, interface, offset, segments)
        }
        Err(reason) => Err(reason),
    };
    backend.account(slot, hook, segments, result);
    result.map(|_| ())
}

/// Counts an IP packet; the layer-3 bytes counted.
#[inline(always)]
fn on_ip<A: Family, P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    interface: &Interface,
    offset: u32,
    segments: u32,
) -> Result<u64, Reason> {
    match A::parse(packet, offset) {
        Ok(network) => on_network(packet, backend, interface, segments, &network),
        Err(reason) => Err(reason),
    }
}

/// Counts a packet whose network header is known; the layer-3 bytes counted.
#[inline(always)]
fn on_network<A: Family, P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    interface: &Interface,
    segments: u32,
    network: &Network<A>,
) -> Result<u64, Reason> {
    let hook = packet.hook();
    let scope = scope(interface.id, network.protocol);
    let transport = if network.part as u8 == Part::Later as u8 {
        let identification = network.identification;
        let ports =
            later_fragment::<A, P, B>(packet, backend, network.offset, identification, scope)
                .ok_or(Reason::FragmentUnknown)?;
        Transport {
            source_port: (ports >> 16) as u16,
            destination_port: (ports & 0xffff) as u16,
            payload: network.transport,
            ..Transport::default()
        }
    } else {
        parse::transport(packet, network.protocol, network.transport, network.end)?
    };
    if network.part as u8 == Part::First as u8 {
        let identification = network.identification;
        let scope_and_ports = u64::from(scope) << 32
            | u64::from(transport.source_port) << 16
            | u64::from(transport.destination_port);
        first_fragment::<A, P, B>(
            packet,
            backend,
            network.offset,
            identification,
            scope_and_ports,
        );
    }

    let protocol = packet.forget(u16::from(network.protocol)) as u8;
    let ends = Ends {
        source: network.source.words(),
        destination: network.destination.words(),
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        v6: A::V6,
    };
    let source_is_local = backend.source_is_local(interface, hook, &ends);
    let key = A::key(
        (network.source, network.destination),
        (transport.source_port, transport.destination_port),
        source_is_local,
        scope,
    );
    let direction = if source_is_local { TX } else { RX };

    let flow = match A::flow(backend, &key) {
        Some(flow) => flow,
        None => {
            let is_ours = A::insert(backend, &key)?;
            let flow = A::flow(backend, &key).ok_or(Reason::InsertFailed)?;
            // Whoever inserted it notes how it began.
            if is_ours {
                open(packet, backend, &flow, direction, &transport, protocol);
            }
            flow
        }
    };

    // A GRO or GSO packet stands for `segments` packets that each had these headers.
    let headers = u64::from(transport.payload - network.offset);
    let length = u64::from(network.end - network.offset);
    let bytes = if segments > 1 {
        length + u64::from(segments - 1) * headers
    } else {
        length
    };

    if network.part as u8 != Part::Later as u8 {
        match protocol {
            protocol::TCP => {
                tcp::on_segment(packet, backend, &key, &flow, direction, &transport, network);
            }
            protocol::UDP if B::INSPECTS => {
                inspect::datagram(packet, &flow, direction, &transport, network);
            }
            protocol::ICMP | protocol::ICMPV6 if protocol == A::ICMP => {
                on_icmp::<A, P, B>(packet, backend, interface, network.transport);
            }
            _ => {}
        }
    }
    flow.add(direction, u64::from(segments), bytes);
    let ticks = backend.ticks();
    if flow.get(|hot| hot.last_seen_ticks) != ticks {
        flow.update(|hot| hot.last_seen_ticks = ticks);
    }
    Ok(bytes)
}

/// Key under which a datagram's fragments find each other.
///
/// Reads the addresses anew: fragments are rare, and what is passed by reference would have to be
/// kept in memory for every packet.
#[inline(always)]
fn fragment_key<A: Family, P: Packet>(
    packet: &P,
    offset: u32,
    identification: u32,
    scope: u32,
) -> Option<FragmentKey> {
    let (source, destination) = A::addresses(packet, offset)?;
    Some(FragmentKey {
        source: source.words(),
        destination: destination.words(),
        identification,
        scope,
    })
}

/// Remembers the ports of a datagram's first fragment. `scope_and_ports` holds the scope in its
/// upper half, source and destination port in the quarters of its lower half: a function of the
/// kernel program takes no more than five arguments.
#[inline(never)]
fn first_fragment<A: Family, P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    offset: u32,
    identification: u32,
    scope_and_ports: u64,
) {
    let scope = (scope_and_ports >> 32) as u32;
    if let Some(key) = fragment_key::<A, P>(packet, offset, identification, scope) {
        let ports = FragmentPorts {
            source: (scope_and_ports >> 16 & 0xffff) as u16,
            destination: (scope_and_ports & 0xffff) as u16,
        };
        backend.remember_fragment(&key, &ports);
    }
}

/// The ports of a later fragment's datagram: source and destination port in the halves of a word.
#[inline(never)]
fn later_fragment<A: Family, P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    offset: u32,
    identification: u32,
    scope: u32,
) -> Option<u32> {
    let key = fragment_key::<A, P>(packet, offset, identification, scope)?;
    let ports = backend.fragment(&key)?;
    Some(u32::from(ports.source) << 16 | u32::from(ports.destination))
}

/// Notes what a flow's first packet tells.
#[inline(always)]
fn open<P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    flow: &FlowCell<'_>,
    direction: usize,
    transport: &Transport,
    protocol: u8,
) {
    // The answer to an echo request that was not seen does not open its flow.
    let is_reply = match protocol {
        protocol::ICMP => transport.flags == icmp_type::ECHO_REPLY,
        protocol::ICMPV6 => transport.flags == icmp_type::V6_ECHO_REPLY,
        _ => false,
    };
    let first_seen_ns = backend.now_ns();
    let cgroup_id = packet.cgroup_id();
    flow.update_cold(|cold| {
        cold.first_seen_ns = first_seen_ns;
        cold.cgroup_id = cgroup_id;
    });
    if !is_reply {
        flow.update(|hot| hot.flags[direction & 1] |= flag::FIRST);
    }
}

/// Marks the flow whose packet an ICMP destination-unreachable message quotes.
#[inline(never)]
fn on_icmp<A: Family, P: Packet, B: Backend>(
    packet: &P,
    backend: &B,
    interface: &Interface,
    offset: u32,
) {
    let Some([kind, code]) = packet.copy::<[u8; 2]>(offset) else {
        return;
    };
    // Code 4, fragmentation needed (RFC 1191), does not refuse the packet; ICMPv6 has a type of
    // its own for it.
    let unreachable = if A::V6 {
        kind == icmp_type::V6_UNREACHABLE
    } else {
        kind == icmp_type::UNREACHABLE && code != 4
    };
    if !unreachable {
        return;
    }
    let Some(quoted) = A::quoted(packet, offset + ICMP_HEADER) else {
        return;
    };
    let ports = match quoted.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let Some(ports) = packet.copy::<u32>(quoted.transport).map(u32::from_be) else {
                return;
            };
            ((ports >> 16) as u16, (ports & 0xffff) as u16)
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let Some(words) = packet.copy::<[u32; 2]>(quoted.transport) else {
                return;
            };
            let [head, rest] = words.map(u32::from_be);
            parse::icmp_ports(quoted.protocol, head, rest)
        }
        // As their flows have it.
        _ => (0, 0),
    };
    let ends = Ends {
        source: quoted.source.words(),
        destination: quoted.destination.words(),
        source_port: ports.0,
        destination_port: ports.1,
        v6: A::V6,
    };
    // The quoted packet went the other way.
    let other = match packet.hook() {
        Hook::Ingress => Hook::Egress,
        Hook::Egress => Hook::Ingress,
    };
    let source_is_local = backend.source_is_local(interface, other, &ends);
    let key = A::key(
        (quoted.source, quoted.destination),
        ports,
        source_is_local,
        scope(interface.id, quoted.protocol),
    );
    if let Some(flow) = A::flow(backend, &key) {
        let direction = if source_is_local { TX } else { RX };
        flow.update(|hot| hot.flags[direction & 1] |= flag::UNREACHABLE);
    }
}

#[cfg(test)]
mod tests;
