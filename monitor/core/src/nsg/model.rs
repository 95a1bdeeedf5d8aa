//! Rules, whatever document they came from.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::address::{Address, Ports};
use crate::{event::UnknownName, words};

/// Which way a connection goes, seen from the network card that the rules protect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    /// To the network card.
    Inbound,
    /// From the network card.
    Outbound,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RuleAccess {
    /// Lets it pass. In admin rules: lets the network security groups decide.
    Allow,
    /// Stops it.
    Deny,
    /// Admin rules only: lets it pass, and no network security group is asked.
    AlwaysAllow,
}

/// The protocols that a rule can name (Azure REST API, `SecurityRuleProtocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleProtocol {
    /// `*`: TCP, UDP and ICMP for certain. Whether it holds others is not documented.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP, not ICMPv6.
    Icmp,
    /// Encapsulating security payload.
    Esp,
    /// Authentication header.
    Ah,
}

/// Who made a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The user, or a controller for the user.
    User,
    /// Azure, in every network security group.
    Default,
    /// Virtual Network Manager.
    Admin,
}

/// A program that writes rules, known by the names that it gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// cloud-provider-azure, for Kubernetes services of type `LoadBalancer`.
    AksLoadBalancer,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name, unique in its group without regard to case.
    pub name: Arc<str>,
    /// Who made it.
    pub origin: Origin,
    /// The direction it is for.
    pub direction: Direction,
    /// Lower numbers are asked first.
    pub priority: u16,
    /// What it does.
    pub access: RuleAccess,
    /// What it is for.
    pub protocol: RuleProtocol,
    /// Where the packet comes from; any of these.
    pub source: Vec<Address>,
    /// From which ports.
    pub source_ports: Ports,
    /// Where the packet goes; any of these.
    pub destination: Vec<Address>,
    /// To which ports.
    pub destination_ports: Ports,
}

/// A network security group, or the admin rules of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nsg {
    /// Its name.
    pub name: Arc<str>,
    /// Its rules, default rules included, by direction and priority.
    pub rules: Vec<Rule>,
    /// Whether changed rules hold for connections that are open (`flushConnection`: "flows created
    /// from Network Security Group connections will be re-evaluated when rules are updates").
    pub flushes: bool,
}

// === impl Direction ===

words::words!(Direction, Inbound = "Inbound", Outbound = "Outbound");

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn flipped(self) -> Self {
        match self {
            Self::Inbound => Self::Outbound,
            Self::Outbound => Self::Inbound,
        }
    }
}

impl FromStr for Direction {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |member: &&Self| member.name().eq_ignore_ascii_case(text);
        let unknown = || UnknownName::new("direction", text, "Inbound or Outbound");
        Self::ALL.iter().find(named).copied().ok_or_else(unknown)
    }
}

// === impl RuleAccess ===

words::words!(
    RuleAccess,
    Allow = "Allow",
    Deny = "Deny",
    AlwaysAllow = "AlwaysAllow"
);

// === impl Maker ===

words::words!(Maker, AksLoadBalancer = "aks-load-balancer");

impl Maker {
    /// The program that writes rules of such names, of users' rules only. cloud-provider-azure
    /// (`pkg/provider/securitygroup`) writes `k8s-azure-lb_allow_<IPv4|IPv6>_<MD5>` and
    /// `k8s-azure-lb_deny-all_<IPv4|IPv6>`.
    pub fn of(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let rest = lower.strip_prefix("k8s-azure-lb_")?;
        let is_family = |text: &str| text == "ipv4" || text == "ipv6";
        let is_own = match rest.split_once('_')? {
            ("allow", rest) => rest.split_once('_').is_some_and(|(family, hash)| {
                is_family(family)
                    && hash.len() == 32
                    && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            }),
            ("deny-all", family) => is_family(family),
            _ => false,
        };
        is_own.then_some(Self::AksLoadBalancer)
    }

    /// How to change what it writes.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::AksLoadBalancer => {
                "AKS writes this rule for Services of type LoadBalancer and undoes edits: change \
                 the Service (loadBalancerSourceRanges, azure-allowed-service-tags)"
            }
        }
    }
}

// === impl Rule ===

impl Rule {
    /// The program that wrote it, where its name tells.
    pub fn made_by(&self) -> Option<Maker> {
        match self.origin {
            Origin::User => Maker::of(&self.name),
            Origin::Default | Origin::Admin => None,
        }
    }
}

// === impl RuleProtocol ===

impl RuleProtocol {
    /// As documents write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "*",
            Self::Tcp => "Tcp",
            Self::Udp => "Udp",
            Self::Icmp => "Icmp",
            Self::Esp => "Esp",
            Self::Ah => "Ah",
        }
    }

    /// The IP protocol number, if it is for one only.
    pub const fn number(self) -> Option<u8> {
        match self {
            Self::Any => None,
            Self::Tcp => Some(6),
            Self::Udp => Some(17),
            Self::Icmp => Some(1),
            Self::Esp => Some(50),
            Self::Ah => Some(51),
        }
    }

    /// Reads it in any case. `All` is what effective rules print for `*`, `Any` what the portal
    /// does.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [
            ("*", Self::Any),
            ("all", Self::Any),
            ("any", Self::Any),
            ("tcp", Self::Tcp),
            ("udp", Self::Udp),
            ("icmp", Self::Icmp),
            ("esp", Self::Esp),
            ("ah", Self::Ah),
        ]
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, protocol)| *protocol)
    }
}

impl fmt::Display for RuleProtocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

// === impl Nsg ===

impl Nsg {
    /// A group of these rules and, for each direction, the default rules that are not among them.
    pub fn new(name: impl Into<Arc<str>>, mut rules: Vec<Rule>) -> Self {
        super::defaults::complete(&mut rules);
        Self::sorted(name.into(), rules)
    }

    /// Admin rules: they have no defaults, what none of them matches goes on to the groups.
    pub fn admin(name: impl Into<Arc<str>>, rules: Vec<Rule>) -> Self {
        Self::sorted(name.into(), rules)
    }

    fn sorted(name: Arc<str>, mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| (rule.direction, rule.priority));
        Self {
            name,
            rules,
            flushes: false,
        }
    }

    /// The rules of a direction, first asked first.
    pub fn of(&self, direction: Direction) -> impl Iterator<Item = &Rule> {
        self.rules
            .iter()
            .filter(move |rule| rule.direction == direction)
    }
}
