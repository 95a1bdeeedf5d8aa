//! Policies as declared, checked and with defaults filled in.
//!
//! [`NetworkPolicy`] is `networking.k8s.io/v1`. [`TierPolicy`] is what the cluster-scoped kinds of
//! `policy.networking.k8s.io` have in common: AdminNetworkPolicy and BaselineAdminNetworkPolicy
//! (v1alpha1), and ClusterNetworkPolicy (v1alpha2 and v1beta1) of either tier.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::Selector;
use crate::{event::Protocol, words::words};

/// Direction of a connection, as seen from the pod that a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress = 0,
    /// From the pod.
    Egress = 1,
}

words!(Direction, Ingress = "ingress", Egress = "egress");

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Its namespace: it selects pods of this one only.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Pods that it selects.
    pub selector: Selector,
    /// What may reach them. `None`: it does not isolate them for ingress.
    pub ingress: Option<Vec<Rule>>,
    /// What they may reach. `None`: it does not isolate them for egress.
    pub egress: Option<Vec<Rule>>,
}

/// A rule of a NetworkPolicy: what one of the peers sends, or is sent, to one of the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Other ends. None: everything, inside and outside the cluster.
    pub peers: Vec<Peer>,
    /// Ports of the destination. None: all ports of all protocols.
    pub ports: Vec<PolicyPort>,
}

/// The other end of a connection in a NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods, never any other address.
    Pods {
        /// Namespaces; `None`: the policy's own.
        namespaces: Option<Selector>,
        /// Pods; `None`: all of these namespaces.
        pods: Option<Selector>,
    },
    /// Addresses.
    Block(IpBlock),
    /// A peer without any field that is known: it matches nothing.
    Unknown,
}

/// A range of addresses with holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpBlock {
    /// The range; host bits are zero.
    pub net: IpNet,
    /// Ranges within it that are not meant.
    pub except: Vec<IpNet>,
}

/// Ports of the destination in a NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Its ports; `None`: all.
    pub port: Option<PortMatch>,
}

/// Ports by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortMatch {
    /// From the first to the second, both included.
    Range(u16, u16),
    /// The port of this name, on the destination pod.
    Name(Arc<str>),
}

/// Kind of a cluster-scoped policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TierKind {
    /// `AdminNetworkPolicy`.
    Admin,
    /// `BaselineAdminNetworkPolicy`.
    BaselineAdmin,
    /// `ClusterNetworkPolicy`.
    Cluster,
}

words!(
    TierKind,
    Admin = "AdminNetworkPolicy",
    BaselineAdmin = "BaselineAdminNetworkPolicy",
    Cluster = "ClusterNetworkPolicy"
);

/// When a policy is evaluated: before or after NetworkPolicies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Before: they cannot override it.
    Admin = 0,
    /// After, for pods that none of them isolates.
    Baseline = 1,
}

words!(Tier, Admin = "Admin", Baseline = "Baseline");

/// A cluster-scoped policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierPolicy {
    /// Kind.
    pub kind: TierKind,
    /// Name.
    pub name: Arc<str>,
    /// Tier.
    pub tier: Tier,
    /// 0 to 1000, the lowest first; [`TierPolicy::BASELINE_ADMIN_PRIORITY`] for the one
    /// BaselineAdminNetworkPolicy, which has none.
    pub priority: u16,
    /// Pods that it is about; host-network pods are never meant.
    pub subject: PodSet,
    /// Rules for what reaches them; the first that matches decides.
    pub ingress: Vec<TierRule>,
    /// Rules for what they reach; the first that matches decides.
    pub egress: Vec<TierRule>,
}

/// Pods by the labels of their namespaces and their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSet {
    /// Namespaces.
    pub namespaces: Selector,
    /// Pods of these; `None`: all.
    pub pods: Option<Selector>,
}

/// A rule of a cluster-scoped policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierRule {
    /// Name, if it has one.
    pub name: Option<Arc<str>>,
    /// What to do with what matches.
    pub action: Action,
    /// Other ends. None: nothing matches.
    pub peers: Vec<TierPeer>,
    /// Ports of the destination; `None`: all traffic of any protocol.
    pub ports: Option<Vec<TierPort>>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Allows, finally for its direction; `Allow` in v1alpha1.
    Accept,
    /// Denies, finally.
    Deny,
    /// Leaves it to the next tier.
    Pass,
}

words!(Action, Accept = "Accept", Deny = "Deny", Pass = "Pass");

/// The other end of a connection in a cluster-scoped policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierPeer {
    /// Pods; host-network pods are never meant.
    Pods(PodSet),
    /// Addresses of nodes with these labels (experimental; egress only).
    Nodes(Selector),
    /// Addresses, those of pods and nodes included (egress only).
    Networks(Vec<IpNet>),
    /// Addresses that these names resolve to (experimental; egress only).
    DomainNames(Vec<Arc<str>>),
    /// A peer without any field that is known, of a newer version of the API: the rule fails
    /// closed.
    Unknown,
}

/// Ports of the destination in a cluster-scoped policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TierPort {
    /// From the first to the last, both included.
    Range {
        /// Protocol.
        protocol: Protocol,
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// The port of this name on the destination pod, of whatever protocol it is declared with.
    Name(Arc<str>),
    /// An entry without any field that is known: the rule fails closed.
    Unknown,
}

// === impl NetworkPolicy ===

impl NetworkPolicy {
    /// Whether a policy isolates for ingress and for egress, by its `policyTypes`: where these are
    /// absent or empty, always for ingress, and for egress if it has rules for that.
    pub fn isolates(types: &[Direction], has_egress_rules: bool) -> [bool; 2] {
        if types.is_empty() {
            return [true, has_egress_rules];
        }
        [Direction::Ingress, Direction::Egress].map(|direction| types.contains(&direction))
    }

    /// Rules of a direction; `None` where the policy does not isolate.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

impl fmt::Display for NetworkPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NetworkPolicy {}/{}", self.namespace, self.name)
    }
}

// === impl IpBlock ===

impl IpBlock {
    /// Whether a normalised address is in the block.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.net.contains(&ip) && !self.except.iter().any(|net| net.contains(&ip))
    }

    /// Whether every address of its family is in it.
    pub(super) fn is_everything(&self) -> bool {
        self.net.prefix_len() == 0 && self.except.is_empty()
    }
}

impl fmt::Display for IpBlock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.net.fmt(formatter)?;
        for (index, net) in self.except.iter().enumerate() {
            let word = if index == 0 { " except " } else { ", " };
            write!(formatter, "{word}{net}")?;
        }
        Ok(())
    }
}

// === impl TierPolicy ===

impl TierPolicy {
    /// Priority of a BaselineAdminNetworkPolicy: after all that have one.
    pub const BASELINE_ADMIN_PRIORITY: u16 = 1_001;
    /// The highest number that a priority can have.
    pub const MAX_PRIORITY: u16 = 1_000;

    /// Rules of a direction.
    pub fn rules(&self, direction: Direction) -> &[TierRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl fmt::Display for TierPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.name)
    }
}

// === impl Peer ===

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods { namespaces, pods } => {
                match namespaces {
                    Some(namespaces) => write!(formatter, "namespaces {namespaces}")?,
                    None => formatter.write_str("own namespace")?,
                }
                match pods {
                    Some(pods) => write!(formatter, ", pods {pods}"),
                    None => Ok(()),
                }
            }
            Self::Block(block) => write!(formatter, "ipBlock {block}"),
            Self::Unknown => formatter.write_str("nothing (no known field)"),
        }
    }
}

// === impl PolicyPort ===

impl fmt::Display for PolicyPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol;
        match &self.port {
            None => write!(formatter, "{protocol} all"),
            Some(PortMatch::Range(first, last)) if first == last => {
                write!(formatter, "{protocol} {first}")
            }
            Some(PortMatch::Range(first, last)) => write!(formatter, "{protocol} {first}-{last}"),
            Some(PortMatch::Name(name)) => write!(formatter, "{protocol} `{name}`"),
        }
    }
}
