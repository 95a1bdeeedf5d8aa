//! SSH connections and findings as records.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Endpoint, FlowRecord, LocalEnd, Point, State, Traffic, Translated};
use crate::{
    ssh::{AuthOutcome, Basis, Class, Hint},
    time::Timestamp,
    words::words,
};

/// One SSH connection as seen at one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshRecord {
    /// [`super::VERSION`].
    pub version: u32,
    /// When the record was made.
    pub time: Timestamp,
    /// First packet.
    pub start: Timestamp,
    /// Last packet so far.
    pub end: Timestamp,
    /// Whether the connection may still go on.
    pub state: State,
    /// Kind of interface that it was seen at.
    pub point: Point,
    /// Name of that interface.
    pub interface: Arc<str>,
    /// Which ends speak SSH; absent where the packets that tell were lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The end that opened the connection.
    pub source: Endpoint,
    /// The other end.
    pub destination: Endpoint,
    /// What the ends are called where addresses are translated on this node, `source` and
    /// `destination` being who opened the connection and who answers; or that it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated: Option<Translated>,
    /// Which of both ends is the local one.
    pub local: LocalEnd,
    /// What the connection leads to.
    pub target: Target,
    /// Identification line of the client, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_banner: Option<String>,
    /// Identification line of the server, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_banner: Option<String>,
    /// MD5 of the client's algorithms, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hassh: Option<String>,
    /// MD5 of the server's algorithms, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hassh_server: Option<String>,
    /// Whether the source is in a range that may use SSH to such a target; absent where no range
    /// is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<bool>,
    /// Name of that range.
    #[serde(default)]
    pub range: Option<Arc<str>>,
    /// Whether the server's port is 22.
    pub standard_port: bool,
    /// Whether the client logged in.
    pub authentication: AuthOutcome,
    /// Attempts to log in, where they could be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// What `authentication` rests on.
    pub basis: Basis,
    /// From the first to the last packet, in milliseconds.
    pub duration_ms: u64,
    /// Packets and bytes from the source, where they were counted already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<Traffic>,
    /// Packets and bytes from the destination, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse: Option<Traffic>,
    /// User on this node: of a server who logged in, of a client who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Process that holds the connection on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessRecord>,
    /// What is out of the ordinary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<Hint>,
    /// The gravest finding on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<FindingKind>,
}

/// A process on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Process number, in the node's namespace.
    pub pid: u32,
    /// Name as in `/proc/<pid>/comm`, escaped.
    pub name: String,
    /// Path of its program, escaped; as its container sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// Identifier of its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// Something that is not as declared, or that points to an attack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRecord {
    /// [`super::VERSION`].
    pub version: u32,
    /// When the record was made.
    pub time: Timestamp,
    /// What was found.
    pub finding: FindingKind,
    /// How grave it is.
    pub severity: Severity,
    /// One sentence.
    pub reason: String,
    /// The declaration that it rests on, or the rule of detection.
    pub declared_by: String,
    /// Technique in MITRE ATT&CK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub technique: Option<String>,
    /// What the statement rests on: `ident`, `kexinit`, `sizes`, `process`, `flow`.
    pub basis: Vec<String>,
    /// Address that it is about.
    pub source: IpAddr,
    /// The SSH connection that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<Box<SshRecord>>,
    /// The connection that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Box<FlowRecord>>,
}

/// What an SSH connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A node.
    Node,
    /// A pod.
    Pod,
    /// Something that is no part of the cluster as far as is known.
    External,
}

words!(Target, Node = "node", Pod = "pod", External = "external");

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// For the record.
    Info,
    /// Hardly harmful.
    Low,
    /// To be looked at.
    Medium,
    /// To be looked at soon.
    High,
    /// To be looked at now.
    Critical,
}

words!(
    Severity,
    Info = "info",
    Low = "low",
    Medium = "medium",
    High = "high",
    Critical = "critical"
);

/// What was found, the least grave first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// Proposed policies would allow a connection that the policies in force deny.
    PolicyWouldAllow,
    /// Proposed policies would deny a connection that the policies in force do not.
    PolicyWouldDeny,
    /// Network security groups allow it, and it is not answered.
    NsgOverBlocked,
    /// SSH to another port than 22.
    SshNonstandardPort,
    /// SSH from a range that is expected was refused or unanswered.
    SshExpectedBlocked,
    /// A connection that the network policies allow was not answered: something else stops it.
    PolicyOverBlocked,
    /// A node or pod answers on a public address, or answers the Internet, and no rule that a user
    /// or a Service asked for says so.
    PublicAddress,
    /// A source that looks at many SSH servers without logging in.
    SshScan,
    /// Network security groups deny it, and it gets through.
    NsgDrift,
    /// A pod reaches a node's SSH server.
    SshFromPod,
    /// A connection that the network policies deny was established.
    PolicyViolation,
    /// SSH from outside the ranges that it is expected from.
    SshUnexpected,
    /// Few attempts at many servers, or from many sources at one.
    SshSpray,
    /// Many failed attempts to log in.
    SshBruteForce,
    /// A login after many failed attempts.
    SshSuccessAfterFailures,
}

words!(
    FindingKind,
    PolicyWouldAllow = "policy-would-allow",
    PolicyWouldDeny = "policy-would-deny",
    NsgOverBlocked = "nsg-over-blocked",
    SshNonstandardPort = "ssh-nonstandard-port",
    SshExpectedBlocked = "ssh-expected-blocked",
    PolicyOverBlocked = "policy-over-blocked",
    PublicAddress = "public-address",
    SshScan = "ssh-scan",
    NsgDrift = "nsg-drift",
    SshFromPod = "ssh-from-pod",
    PolicyViolation = "policy-violation",
    SshUnexpected = "ssh-unexpected",
    SshSpray = "ssh-spray",
    SshBruteForce = "ssh-brute-force",
    SshSuccessAfterFailures = "ssh-success-after-failures"
);
