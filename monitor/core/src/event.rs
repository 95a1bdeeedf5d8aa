//! The public record schema: what is logged, followed and printed by a replay.
//!
//! Every record is one JSON object with `type`, `version` and `time`. What is unknown is absent.
//! Fields may be added within a version, never renamed or dropped.

mod protocol;
mod ssh;
mod tcp;
mod translation;
mod vocabulary;

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

pub use protocol::Protocol;
pub use ssh::{FindingKind, FindingRecord, ProcessRecord, Severity, SshRecord, Target};
pub use tcp::TcpFlags;
pub use translation::{Translated, TranslatedEnds, TranslatedWord};
pub use vocabulary::{EntityKind, Initiator, LocalEnd, Outcome, Point, State, UnknownName};

use crate::{
    netpol::Verdict,
    nsg::{Access, Direction, Maker},
    time::Timestamp,
};

/// Version of the record schema.
pub const VERSION: u32 = 1;

/// Labels of a pod, shared between records.
pub type Labels = Arc<BTreeMap<String, String>>;

/// Any record; `type` tells which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Record {
    /// A connection, open or closed.
    Flow(Box<FlowRecord>),
    /// An SSH connection, open or closed.
    Ssh(Box<SshRecord>),
    /// Something that is not as declared, or that points to an attack.
    Finding(Box<FindingRecord>),
    /// The end of a replay.
    Summary(Box<SummaryRecord>),
}

/// One connection as seen at one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    /// [`VERSION`].
    pub version: u32,
    /// When the record was made; the last packet for records that a query returns.
    pub time: Timestamp,
    /// First packet.
    pub start: Timestamp,
    /// Last packet so far, to the precision of the kernel's coarse clock.
    pub end: Timestamp,
    /// Whether the connection may still go on.
    pub state: State,
    /// Whether it is closed only because observation ended: the capture, or the daemon. Absent
    /// where it is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Kind of interface that it was seen at.
    pub point: Point,
    /// Name of that interface.
    pub interface: Arc<str>,
    /// IP protocol.
    pub protocol: Protocol,
    /// The end that opened the connection, or a guess ([`FlowRecord::initiator`]).
    pub source: Endpoint,
    /// The other end.
    pub destination: Endpoint,
    /// Which of both ends is the local one: the node at the uplink, the pod at its veth.
    pub local: LocalEnd,
    /// Whether `source` is known to have opened the connection.
    pub initiator: Initiator,
    /// Application protocol by payload (`monitor_common::classify::App`).
    pub app: Cow<'static, str>,
    /// From source to destination.
    pub forward: Traffic,
    /// From destination to source.
    pub reverse: Traffic,
    /// What only TCP has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpRecord>,
    /// What only ICMP and ICMPv6 have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpRecord>,
    /// TCP segments whose payload had been sent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<Retransmits>,
    /// What became of the connection so far.
    pub outcome: Outcome,
    /// Cgroup of the local socket, where the hook knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// The ends on the other side of a translation on this node, or that it is not known; absent
    /// where nothing is translated, or no name or verdict depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated: Option<Translated>,
    /// What the network policies say; absent where nobody is known to have opened the connection,
    /// where neither end is a pod, and at uplinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<Verdict>>,
    /// What the policies would say with those that are proposed; absent where that is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed: Option<Arc<Verdict>>,
    /// What network security groups say about it; at the uplink, where groups are declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nsg: Option<NsgRecord>,
    /// Where traffic and declaration disagree; absent when as declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Cow<'static, str>>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address; an IPv4-mapped IPv6 address reads as the IPv4 address.
    pub ip: IpAddr,
    /// Port, for protocols that have ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What the address belongs to.
    pub kind: EntityKind,
    /// Name of the configured range, or of the node or service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Kubernetes namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Arc<str>>,
    /// Kind and name of what owns the pod: `StatefulSet/cart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Arc<str>>,
    /// Labels of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// The pod uses the network of its node, whose address this is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    /// Control group on this node of the socket with this end, where the kernel told: its path in
    /// the unified hierarchy, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Arc<str>>,
    /// Identifier of the container of that group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Arc<str>>,
    /// Process on this node that holds this end, where it was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Box<ProcessRecord>>,
}

/// Packets and layer-3 bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets on the wire: segments of a GRO or GSO packet count one each.
    pub packets: u64,
    /// Bytes, IP headers included, link layer excluded.
    pub bytes: u64,
}

/// What only TCP has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRecord {
    /// All flags that the source sent; absent without a packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_flags: Option<TcpFlags>,
    /// All flags that the destination sent; absent without a packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_flags: Option<TcpFlags>,
    /// From the last SYN to the ACK that completed the handshake, in microseconds, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_rtt_us: Option<u64>,
}

/// What only ICMP and ICMPv6 have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpRecord {
    /// Type of the message; of the request, for echo.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code of the message.
    pub code: u8,
    /// Echo identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
}

/// TCP segments whose payload had been sent before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retransmits {
    /// Sent by the source.
    pub forward: u32,
    /// Sent by the destination.
    pub reverse: u32,
}

/// What network security groups say about a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NsgRecord {
    /// Whether it may pass.
    pub access: Access,
    /// Which way it goes, seen from the network card; absent where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The rule that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Arc<str>>,
    /// Name of its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nsg: Option<Arc<str>>,
    /// The program that wrote the rule, where its name tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<Maker>,
    /// What the profile needs it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<Arc<str>>,
    /// Why nobody knows, or why no rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The end of a replay, or of a daemon: totals of all that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryRecord {
    /// [`VERSION`].
    pub version: u32,
    /// When the record was made.
    pub time: Timestamp,
    /// Captures that were read, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Interfaces that packets were seen at.
    pub interfaces: u64,
    /// Packets that reached the program, segments of a GRO or GSO packet counted one each.
    pub packets_seen: u64,
    /// Packets that were added to flows.
    pub packets_counted: u64,
    /// Packets that were not added to a flow.
    pub packets_uncounted: u64,
    /// [`SummaryRecord::packets_uncounted`] by reason (`monitor_common::abi::Reason`); reasons
    /// without packets are absent.
    pub uncounted: BTreeMap<Cow<'static, str>, u64>,
    /// Layer-3 bytes of the packets that were counted.
    pub bytes_counted: u64,
    /// Connections.
    pub flows: u64,
    /// SSH connections.
    pub ssh_connections: u64,
    /// Findings.
    pub findings: u64,
    /// How long the replay took, in milliseconds.
    pub wall_time_ms: u64,
}

// === impl Record ===

impl From<FlowRecord> for Record {
    fn from(record: FlowRecord) -> Self {
        Self::Flow(Box::new(record))
    }
}

impl From<SshRecord> for Record {
    fn from(record: SshRecord) -> Self {
        Self::Ssh(Box::new(record))
    }
}

impl From<FindingRecord> for Record {
    fn from(record: FindingRecord) -> Self {
        Self::Finding(Box::new(record))
    }
}

impl From<SummaryRecord> for Record {
    fn from(record: SummaryRecord) -> Self {
        Self::Summary(Box::new(record))
    }
}

#[cfg(test)]
mod tests;
