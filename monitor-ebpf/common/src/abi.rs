//! Layout of everything that crosses the kernel boundary.
//!
//! All types are `repr(C)` with integers and byte arrays only and explicit padding. Integers are in
//! host byte order; IPv6 addresses are the sixteen bytes of the wire. A layout change must raise
//! [`ABI_VERSION`], which the loader compares with the object's.

mod cell;
mod place;
mod traffic;
mod value;

pub use cell::{FlowCell, FlowEntry, HotCell, Shared, add_shared};
pub use place::{Aside, LEAVING, NEAR, Place, PlaceKey, split};
pub use traffic::{Carried, Traffic};
pub use value::{Cold, FlowValue, Hot};

/// Version of this layout; a global of the kernel object, compared at load.
pub const ABI_VERSION: u32 = 4;

/// Names of the maps and programs in the kernel object.
pub mod names {
    /// Array of [`super::Place`] with [`super::FlowKey4`].
    pub const PLACES4: &str = "PLACES4";
    /// Array of [`super::Place`] with [`super::FlowKey6`].
    pub const PLACES6: &str = "PLACES6";
    /// Array of [`Aside`](super::Aside), by the numbers of [`PLACES4`].
    pub const ASIDE4: &str = "ASIDE4";
    /// Array of [`Aside`](super::Aside), by the numbers of [`PLACES6`].
    pub const ASIDE6: &str = "ASIDE6";
    /// Hash of [`super::FlowKey4`] to a place.
    pub const FLOWS4: &str = "FLOWS4";
    /// Hash of [`super::FlowKey6`] to a place.
    pub const FLOWS6: &str = "FLOWS6";
    /// Stack of free spare places in [`PLACES4`].
    pub const SPARE4: &str = "SPARE4";
    /// Stack of free spare places in [`PLACES6`].
    pub const SPARE6: &str = "SPARE6";
    /// LRU hash of [`super::FragmentKey`] to [`super::FragmentPorts`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Array of [`super::Interface`], found by [`super::slot_probe`].
    pub const INTERFACES: &str = "INTERFACES";
    /// Per-CPU array of [`super::Counters`], one per interface slot and one more for unknown
    /// interfaces.
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of [`super::Uncounted`], one per interface slot and one more for unknown interfaces.
    pub const UNCOUNTED: &str = "UNCOUNTED";
    /// Array with one [`super::Lost`].
    pub const LOST: &str = "LOST";
    /// Array with one [`super::ClockSample`], written by [`CLOCK_PROGRAM`].
    pub const CLOCK: &str = "CLOCK";
    /// Ring buffer of [`super::FlowEnd`] and other events.
    pub const EVENTS: &str = "EVENTS";
    /// Program for the ingress hook.
    pub const INGRESS_PROGRAM: &str = "nodewatch_in";
    /// Program for the egress hook.
    pub const EGRESS_PROGRAM: &str = "nodewatch_out";
    /// Program that samples both kernel clocks; run with `BPF_PROG_TEST_RUN`, never attached.
    pub const CLOCK_PROGRAM: &str = "nodewatch_clock";
}

/// Number of interface slots; a power of two.
pub const SLOTS: u32 = 1024;
/// How many neighbouring slots an interface may sit in.
pub const SLOT_PROBES: u32 = 4;
/// Index in [`Counters`] and [`Uncounted`] for packets on an interface that has no slot.
pub const UNKNOWN_SLOT: u32 = SLOTS;
/// Default capacity for IPv4 flows, see [`split`].
pub const DEFAULT_FLOWS4: u32 = 131_072;
/// Default capacity for IPv6 flows, as [`DEFAULT_FLOWS4`].
pub const DEFAULT_FLOWS6: u32 = 65_536;
/// Capacity of the fragment map.
pub const FRAGMENT_ENTRIES: u32 = 4_096;
/// Default size of the event ring in bytes.
pub const EVENT_RING_BYTES: u32 = 1 << 22;
/// Payload bytes of a direction that are handed to userspace.
pub const CAPTURE_BYTES: u32 = 8_192;
/// Payload bytes in one [`SegmentHead`] event; a power of two.
pub const CHUNK_BYTES: u32 = 2_048;
/// Events of a direction, those without bytes included.
pub const CAPTURE_EVENTS: u8 = 64;

/// The slots in which the interface `ifindex` may be registered, in probe order.
#[inline(always)]
pub const fn slot_probe(ifindex: u32, probe: u32) -> u32 {
    ifindex.wrapping_add(probe) & (SLOTS - 1)
}

/// Which side of a hook a packet passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hook {
    /// Received by the interface (tc ingress).
    Ingress = 0,
    /// Sent by the interface (tc egress).
    Egress = 1,
}

/// Index of the sending direction, seen from a flow's local end, in two-element arrays.
pub const TX: usize = 0;
/// Index of the receiving direction, seen from a flow's local end, in two-element arrays.
pub const RX: usize = 1;

/// Vantage point of an interface: [`Interface::point`].
pub mod point {
    /// The node's network card: the local end is the node.
    pub const UPLINK: u8 = 0;
    /// The host side of a pod's veth: the local end is the pod.
    pub const WORKLOAD: u8 = 1;
}

/// Link layer of an interface: [`Interface::link`].
pub mod link {
    /// Ethernet II frames (`ARPHRD_ETHER`).
    pub const ETHERNET: u8 = 0;
    /// No link layer: the packet starts with its IP header (`ARPHRD_NONE`, tunnels).
    pub const RAW_IP: u8 = 1;
}

/// A watched interface, registered by userspace before its programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Interface {
    /// Kernel interface index; 0 marks a free slot.
    pub ifindex: u32,
    /// Identity of this registration (24 bits, never reused by one daemon): part of flow keys, so
    /// that a later interface with the same index is another interface.
    pub id: u32,
    /// [`point`].
    pub point: u8,
    /// [`link`].
    pub link: u8,
    /// Padding, zero.
    pub _pad: [u8; 2],
}

/// Joins an interface identity and an IP protocol number into [`FlowKey4::scope`].
#[inline(always)]
pub const fn scope(interface_id: u32, protocol: u8) -> u32 {
    interface_id << 8 | protocol as u32
}

/// Splits [`FlowKey4::scope`] into interface identity and IP protocol number.
#[inline(always)]
pub const fn split_scope(scope: u32) -> (u32, u8) {
    (scope >> 8, (scope & 0xff) as u8)
}

/// Key of an IPv4 flow, from its local end's view.
///
/// `local_port` and `remote_port` are zero for protocols without ports. For ICMP, `remote_port` is
/// `type << 8 | code` of the message (of the request, for echo) and `local_port` the echo
/// identifier, so that both directions of an echo share a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey4 {
    /// Address of the local end.
    pub local: u32,
    /// Address of the remote end.
    pub remote: u32,
    /// Port of the local end.
    pub local_port: u16,
    /// Port of the remote end.
    pub remote_port: u16,
    /// [`scope`] of interface and protocol.
    pub scope: u32,
}

/// Key of an IPv6 flow, from its local end's view; see [`FlowKey4`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey6 {
    /// Address of the local end, as two words of the wire's bytes.
    pub local: [u64; 2],
    /// Address of the remote end, as two words of the wire's bytes.
    pub remote: [u64; 2],
    /// Port of the local end.
    pub local_port: u16,
    /// Port of the remote end.
    pub remote_port: u16,
    /// [`scope`] of interface and protocol.
    pub scope: u32,
}

/// TCP flag bits as in the header (RFC 9293 section 3.1), plus what was observed of a direction.
pub mod flag {
    /// FIN was seen.
    pub const FIN: u16 = 0x01;
    /// SYN was seen.
    pub const SYN: u16 = 0x02;
    /// RST was seen.
    pub const RST: u16 = 0x04;
    /// PSH was seen.
    pub const PSH: u16 = 0x08;
    /// ACK was seen.
    pub const ACK: u16 = 0x10;
    /// All eight header flags.
    pub const TCP_MASK: u16 = 0xff;
    /// A SYN without ACK was seen in this direction: it opens the connection.
    pub const OPENS: u16 = 0x100;
    /// A SYN with ACK was seen in this direction: it accepts the connection.
    pub const ACCEPTS: u16 = 0x200;
    /// The first packet of the flow went in this direction.
    pub const FIRST: u16 = 0x400;
    /// An ICMP destination-unreachable message answered a packet of this direction.
    pub const UNREACHABLE: u16 = 0x800;
    /// Payload was seen in this direction.
    pub const DATA: u16 = 0x1000;
    /// Payload of this direction is no longer inspected.
    pub const INSPECTED: u16 = 0x2000;
    /// This direction began with text of no known protocol: maybe lines before an SSH banner (RFC
    /// 4253 section 4.2). Its segments are handed to userspace until it is inspected.
    pub const TEXT: u16 = 0x4000;
    /// This direction opened the connection, and its handshake was timed.
    pub const TIMED: u16 = 0x8000;
}

/// Key under which the ports of a fragmented datagram's first fragment are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address; IPv4 in the last word, the others zero.
    pub source: [u32; 4],
    /// Destination address; IPv4 in the last word, the others zero.
    pub destination: [u32; 4],
    /// IPv4 identification or IPv6 fragment identification.
    pub identification: u32,
    /// [`scope`] of interface and protocol.
    pub scope: u32,
}

/// Ports of a fragmented datagram, as in its first fragment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FragmentPorts {
    /// [`crate::parse::Transport::source_port`].
    pub source: u16,
    /// [`crate::parse::Transport::destination_port`].
    pub destination: u16,
}

/// Per-CPU totals of one interface; arrays are indexed by [`Hook`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Packets that reached the program, segments of a GRO/GSO packet counted one each.
    pub seen: [u64; 2],
    /// Packets that were added to a flow, in the same unit.
    pub counted: [u64; 2],
    /// Socket buffers that reached the program: what the interface's own statistics count.
    pub buffers: [u64; 2],
    /// Layer-3 bytes that were added to flows.
    pub bytes: [u64; 2],
}

/// Why a packet was not added to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Not IPv4 or IPv6: ARP, LLDP, MPLS, 802.3 and others.
    NotIp = 0,
    /// The frame ends inside a header that is needed.
    Truncated = 1,
    /// A header contradicts itself or the frame: version, header length, total length.
    Malformed = 2,
    /// A later fragment of a datagram whose first fragment was not seen.
    FragmentUnknown = 3,
    /// More IPv6 extension headers than are followed.
    ExtensionHeaders = 4,
    /// More than two VLAN tags.
    VlanDepth = 5,
    /// The flow map is full.
    TableFull = 6,
    /// The flow map refused the insertion for another cause (memory, contention).
    InsertFailed = 7,
    /// The interface is not registered (it is being added or removed).
    UnknownInterface = 8,
}

impl Reason {
    /// Every reason, in the order of its index.
    pub const ALL: [Self; 9] = [
        Self::NotIp,
        Self::Truncated,
        Self::Malformed,
        Self::FragmentUnknown,
        Self::ExtensionHeaders,
        Self::VlanDepth,
        Self::TableFull,
        Self::InsertFailed,
        Self::UnknownInterface,
    ];

    /// Name in records and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::FragmentUnknown => "fragment_unknown",
            Self::ExtensionHeaders => "extension_headers",
            Self::VlanDepth => "vlan_depth",
            Self::TableFull => "table_full",
            Self::InsertFailed => "insert_failed",
            Self::UnknownInterface => "unknown_interface",
        }
    }
}

/// Room for reasons in [`Uncounted`]; a power of two.
pub const REASONS: usize = 16;

/// Packets of one interface that were not added to a flow: by [`Hook`], then [`Reason`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Uncounted {
    /// Packets, in the unit of [`Counters::seen`].
    pub packets: [[u64; REASONS]; 2],
}

/// What was lost between the kernel program and its reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Lost {
    /// Events that found the ring full.
    pub ring_full: u64,
    /// Connections that reused a flow entry while the ring was full: counted within the earlier one.
    pub merged_connections: u64,
}

/// Both kernel clocks, read together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ClockSample {
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub monotonic_ns: u64,
    /// `bpf_jiffies64`.
    pub ticks: u64,
}

/// Kinds of events in the ring: the first word of each.
pub mod event {
    /// [`super::FlowEnd`] with an IPv4 key.
    pub const FLOW_END4: u32 = 1;
    /// [`super::FlowEnd`] with an IPv6 key.
    pub const FLOW_END6: u32 = 2;
    /// [`super::SegmentHead`] with an IPv4 key, and bytes.
    pub const SEGMENT4: u32 = 3;
    /// [`super::SegmentHead`] with an IPv6 key, and bytes.
    pub const SEGMENT6: u32 = 4;
}

/// A connection ended because another one took over its entry; with its last state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FlowEnd<K> {
    /// [`event`] kind.
    pub kind: u32,
    /// Padding, zero.
    pub _pad: u32,
    /// Key of the entry.
    pub key: K,
    /// State before the new connection.
    pub hot: Hot,
    /// The rest of it.
    pub cold: Cold,
}

impl<K> FlowEnd<K> {
    /// State before the new connection.
    pub const fn value(&self) -> FlowValue {
        FlowValue::of(&self.hot, &self.cold)
    }
}

/// A TCP segment of an SSH connection, or of one that may become one; `captured` bytes follow.
///
/// A segment with more than [`CHUNK_BYTES`] is told by several events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SegmentHead<K> {
    /// [`event`] kind.
    pub kind: u32,
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// Precise clock in nanoseconds.
    pub time_ns: u64,
    /// [`flag`]s of each direction, those of this segment not yet included.
    pub flags: [u16; 2],
    /// [`FlowValue::generation`].
    pub generation: u32,
    /// Payload bytes, in the kernel those of all segments of a GRO packet.
    pub length: u16,
    /// How many of them follow.
    pub captured: u16,
    /// [`TX`] or [`RX`].
    pub direction: u8,
    /// [`crate::classify::App`] of the flow so far.
    pub app: u8,
    /// How many bytes of `prefix` are filled.
    pub prefix_length: u8,
    /// 1 where the sender pushed it (PSH), and this is the last of its events; else 0.
    pub pushed: u8,
    /// [`FlowValue::inspect_sequence`] of the direction.
    pub prefix_end: u32,
    /// [`FlowValue::prefix`] of the direction: bytes that may have passed before this segment.
    pub prefix: [u8; 8],
    /// Key of the entry.
    pub key: K,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<FlowKey4>() == 16);
    assert!(size_of::<FlowKey6>() == 40);
    assert!(size_of::<Carried>() == 8);
    assert!(size_of::<Hot>() == 48);
    assert!(size_of::<Cold>() == 80);
    assert!(offset_of!(Hot, flags) == 16);
    assert!(offset_of!(Hot, last_seen_ticks) == 20);
    assert!(offset_of!(Hot, next_sequence) == 24);
    assert!(offset_of!(Hot, carried) == 32);
    assert!(offset_of!(Cold, app) == 4);
    assert!(offset_of!(Cold, first_seen_ns) == 8);
    assert!(offset_of!(Cold, cgroup_id) == 24);
    assert!(offset_of!(Cold, prefix) == 40);
    assert!(offset_of!(Cold, generation) == 60);
    assert!(offset_of!(Cold, inspect_sequence) == 64);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<FragmentPorts>() == 4);
    assert!(size_of::<Interface>() == 12);
    assert!(size_of::<Counters>() == 64);
    assert!(size_of::<Uncounted>() == 256);
    assert!(size_of::<Lost>() == 16);
    assert!(size_of::<ClockSample>() == 16);
    assert!(size_of::<FlowEnd<FlowKey4>>() == 152);
    assert!(size_of::<FlowEnd<FlowKey6>>() == 176);
    assert!(size_of::<SegmentHead<FlowKey4>>() == 64);
    assert!(size_of::<SegmentHead<FlowKey6>>() == 88);
    assert!(SLOTS.is_power_of_two());
    assert!(Reason::ALL.len() <= REASONS);
};
