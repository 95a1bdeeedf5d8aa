//! Whether a rule matches: yes, no, or nobody knows, and why.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    address::Ports,
    model::{Rule, RuleProtocol},
    names::{Names, Term},
    tuple::Tuple,
};
use crate::event::Protocol;

/// Whether one field of a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldMatch {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It may.
    Unknown(Why),
}

/// Why nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// A service tag that no file and no flag defines.
    Tag(Arc<str>),
    /// An application security group whose members nobody has named.
    Group(Arc<str>),
    /// A private address, and nobody has said what the virtual network is.
    Network,
    /// An address on which the definition and the printed list of `Internet` disagree.
    Disputed,
    /// `*` is documented for TCP, UDP and ICMP.
    Protocol(Protocol),
    /// Network security groups do not support ICMPv6.
    Icmpv6,
    /// A literal `0.0.0.0/0` and an IPv6 address.
    ZeroPrefix,
    /// The rule limits ports, and the flow does not say its port.
    Port,
}

/// Something that nobody knows, and that may be asked for by several rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether `*` holds the protocol.
    Protocol(Why),
    /// Whether the source port (0) or the destination port (1) is among these.
    Port(u8, Ports),
    /// Whether an address is what this says; `None` where the answer is one for all addresses.
    Address(Why, Option<IpAddr>),
}

/// A rule with what its names stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) rule: Rule,
    pub(super) source: Vec<Term>,
    pub(super) destination: Vec<Term>,
}

/// How the fields of a rule match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleMatch {
    pub(super) protocol: FieldMatch,
    pub(super) source: FieldMatch,
    pub(super) source_port: FieldMatch,
    pub(super) destination: FieldMatch,
    pub(super) destination_port: FieldMatch,
}

// === impl FieldMatch ===

impl From<bool> for FieldMatch {
    fn from(is_match: bool) -> Self {
        if is_match { Self::Yes } else { Self::No }
    }
}

impl FieldMatch {
    /// What the first of them decides: no over unknown over yes.
    fn all(fields: [&Self; 5]) -> Self {
        let mut result = Self::Yes;
        for field in fields {
            match (field, &result) {
                (Self::No, _) => return Self::No,
                (Self::Unknown(_), Self::Yes) => result = field.clone(),
                _ => {}
            }
        }
        result
    }

    /// Yes if any of them says so, else unknown if any of them may.
    fn any(terms: &[Term], ip: IpAddr) -> Self {
        let mut result = Self::No;
        for term in terms {
            match term.matches(ip) {
                Self::Yes => return Self::Yes,
                unknown @ Self::Unknown(_) if result == Self::No => result = unknown,
                _ => {}
            }
        }
        result
    }
}

// === impl Question ===

impl Question {
    fn address(why: Why, ip: IpAddr) -> Self {
        // Names are compared without regard to case.
        let lower = |name: &str| name.to_ascii_lowercase().into();
        let why = match why {
            Why::Tag(name) => Why::Tag(lower(&name)),
            Why::Group(name) => Why::Group(lower(&name)),
            other => other,
        };
        let ip = (why != Why::ZeroPrefix).then_some(ip);
        Self::Address(why, ip)
    }
}

// === impl Resolved ===

impl Resolved {
    pub(super) fn new(rule: &Rule, names: &Names, network: Option<&Arc<[IpNet]>>) -> Self {
        let terms = |addresses: &[_]| {
            let terms = addresses.iter().map(|address| names.term(address, network));
            terms.collect()
        };
        Self {
            source: terms(&rule.source),
            destination: terms(&rule.destination),
            rule: rule.clone(),
        }
    }

    /// How each field matches.
    pub(super) fn fields(&self, tuple: &Tuple) -> RuleMatch {
        let Rule {
            protocol,
            source_ports,
            destination_ports,
            ..
        } = &self.rule;
        RuleMatch {
            protocol: protocol_matches(*protocol, tuple.protocol),
            source: FieldMatch::any(&self.source, tuple.source),
            source_port: port_matches(source_ports, tuple.protocol, tuple.source_port),
            destination: FieldMatch::any(&self.destination, tuple.destination),
            destination_port: port_matches(
                destination_ports,
                tuple.protocol,
                tuple.destination_port,
            ),
        }
    }

    /// Whether the rule matches.
    pub(super) fn matches(&self, tuple: &Tuple) -> FieldMatch {
        self.fields(tuple).all()
    }

    /// What must be known to say whether it matches, by field: each needs one of its questions
    /// answered with yes. Fields that match for certain ask nothing. `for_service` where its
    /// destination matches by the name of a platform service.
    pub(super) fn questions(&self, tuple: &Tuple, for_service: bool) -> Vec<Vec<Question>> {
        let rule = &self.rule;
        let mut fields = Vec::new();
        if let FieldMatch::Unknown(why) = protocol_matches(rule.protocol, tuple.protocol) {
            fields.push(vec![Question::Protocol(why)]);
        }
        for (ports, port, side) in [
            (&rule.source_ports, tuple.source_port, 0),
            (&rule.destination_ports, tuple.destination_port, 1),
        ] {
            if let FieldMatch::Unknown(_) = port_matches(ports, tuple.protocol, port) {
                fields.push(vec![Question::Port(side, ports.clone())]);
            }
        }
        let mut ends = vec![(&self.source, tuple.source)];
        if !for_service {
            ends.push((&self.destination, tuple.destination));
        }
        for (terms, ip) in ends {
            if let FieldMatch::Unknown(_) = FieldMatch::any(terms, ip) {
                let unknown = terms.iter().filter_map(|term| match term.matches(ip) {
                    FieldMatch::Unknown(why) => Some(Question::address(why, ip)),
                    FieldMatch::Yes | FieldMatch::No => None,
                });
                fields.push(unknown.collect());
            }
        }
        fields
    }

    /// Whether it matches by a computed `Internet`, which is an approximation.
    pub(super) fn is_approximate(&self, tuple: &Tuple) -> bool {
        let by_internet = |terms: &[Term], ip| {
            let exact = |term: &Term| !matches!(term, Term::Internet(_));
            let holds = |term: &&Term| term.matches(ip) == FieldMatch::Yes;
            terms.iter().any(|term| !exact(term))
                && !terms
                    .iter()
                    .filter(|term| exact(term))
                    .any(|term| holds(&term))
        };
        by_internet(&self.source, tuple.source) || by_internet(&self.destination, tuple.destination)
    }
}

// === impl RuleMatch ===

impl RuleMatch {
    /// Whether the rule matches.
    pub(super) fn all(&self) -> FieldMatch {
        let Self {
            protocol,
            source,
            source_port,
            destination,
            destination_port,
        } = self;
        FieldMatch::all([protocol, source, source_port, destination, destination_port])
    }
}

/// Whether a rule's protocol holds a packet's.
pub(super) fn protocol_matches(rule: RuleProtocol, protocol: Protocol) -> FieldMatch {
    match (rule.number(), protocol) {
        (Some(number), _) => (number == protocol.0).into(),
        (None, Protocol::TCP | Protocol::UDP | Protocol::ICMP) => FieldMatch::Yes,
        (None, Protocol::ICMPV6) => FieldMatch::Unknown(Why::Icmpv6),
        (None, _) => FieldMatch::Unknown(Why::Protocol(protocol)),
    }
}

/// Whether a rule's ports hold a packet's. What has no ports is held by all ports only.
fn port_matches(ports: &Ports, protocol: Protocol, port: Option<u16>) -> FieldMatch {
    match port {
        _ if ports.is_any() => FieldMatch::Yes,
        _ if !protocol.has_ports() => FieldMatch::No,
        Some(port) => ports.contains(port).into(),
        None => FieldMatch::Unknown(Why::Port),
    }
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(name) => write!(
                formatter,
                "service tag {name} is not known: give --service-tags FILE or --tag {name}=CIDR,…"
            ),
            Self::Group(name) => write!(
                formatter,
                "the members of application security group {name} are not known: give --asg \
                 {name}=IP,…"
            ),
            Self::Network => formatter.write_str(
                "whether a private address is in VirtualNetwork is not known: give \
                 --virtual-network CIDR or effective rules",
            ),
            Self::Disputed => formatter.write_str(
                "Azure's definition and printed list of Internet disagree about this address: \
                 give --tag Internet=CIDR,… or effective rules",
            ),
            Self::Protocol(protocol) => write!(
                formatter,
                "`*` is documented for TCP, UDP and ICMP only, not for {protocol}"
            ),
            Self::Icmpv6 => formatter.write_str("network security groups do not support ICMPv6"),
            Self::ZeroPrefix => formatter
                .write_str("whether a literal 0.0.0.0/0 holds IPv6 addresses is not documented"),
            Self::Port => formatter.write_str("the rule limits ports and the flow states none"),
        }
    }
}
