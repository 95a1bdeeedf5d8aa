//! Which flows a user asks for.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    entity::{normalise, parse_net},
    event::{
        Endpoint, FindingKind, FindingRecord, FlowRecord, Outcome, Point, Protocol, SshRecord,
        Translated, UnknownName,
    },
    time::Timestamp,
};

/// Which flows a user asks for; everything by default.
///
/// Terms of the same kind are alternatives, terms of different kinds must all hold: `--port 22
/// --port 80 --protocol tcp` is (port 22 or port 80) and TCP. A negated term must not hold,
/// whatever the others say: `--not --port 22 --not --port 80` is neither of both ports. Addresses,
/// ports, pods and namespaces may be those of either end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// The terms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<Term>,
    /// Flows of all namespaces: namespace terms that are not negated do not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_namespaces: bool,
    /// Flows with packets at or after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// A condition or its negation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Whether the condition must not hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
    /// The condition.
    #[serde(flatten)]
    pub condition: Condition,
}

/// One thing that may be true of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// An end is in this namespace.
    Namespace(String),
    /// An end is this pod.
    Pod(PodName),
    /// An end's address is in this range.
    Ip(IpNet),
    /// An end's port.
    Port(u16),
    /// IP protocol.
    Protocol(Protocol),
    /// Application protocol.
    App(String),
    /// Vantage point.
    Point(Point),
    /// What became of it.
    Outcome(Outcome),
    /// Finding on it.
    Finding(String),
}

/// A pod by namespace and name; reads and prints as `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What is known of a flow before its ends are named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// Addresses, normalised.
    pub(crate) ips: [IpAddr; 2],
    /// Ports, for protocols that have ports.
    pub(crate) ports: [Option<u16>; 2],
    /// IP protocol.
    pub(crate) protocol: Protocol,
    /// Application protocol.
    pub(crate) app: &'a str,
    /// Vantage point.
    pub(crate) point: Point,
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// Last packet.
    pub(crate) end: Timestamp,
}

/// What naming adds to [`Facts`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    /// Both ends, and those on the other side of a translation.
    pub(crate) ends: [NamedEnd<'a>; 4],
    /// Finding on the flow.
    pub(crate) finding: Option<&'a str>,
}

/// An end by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NamedEnd<'a> {
    /// Kubernetes namespace.
    pub(crate) namespace: Option<&'a str>,
    /// Name of the pod.
    pub(crate) pod: Option<&'a str>,
}

// === impl FlowFilter ===

impl FlowFilter {
    /// Whether a flow is asked for.
    pub fn matches(&self, record: &FlowRecord) -> bool {
        self.matches_named(&Facts::of(record), &Named::of(record))
    }

    /// Whether an SSH connection is asked for.
    pub fn matches_ssh(&self, record: &SshRecord) -> bool {
        let facts = Facts {
            ips: [record.source.ip, record.destination.ip].map(normalise),
            ports: [record.source.port, record.destination.port],
            protocol: Protocol::TCP,
            app: "ssh",
            point: record.point,
            outcome: Outcome::Established,
            end: record.end,
        };
        let named = Named {
            ends: NamedEnd::all(
                [&record.source, &record.destination].map(NamedEnd::of),
                record.translated.as_ref(),
            ),
            finding: record.finding.map(FindingKind::name),
        };
        self.matches_named(&facts, &named)
    }

    /// Whether a finding is asked for: by what it is, and by the connection that made it.
    pub fn matches_finding(&self, record: &FindingRecord) -> bool {
        match (&record.ssh, &record.flow) {
            (Some(ssh), _) => self.matches_ssh(ssh),
            (None, Some(flow)) => {
                let named = Named {
                    finding: Some(record.finding.name()),
                    ..Named::of(flow)
                };
                self.matches_named(&Facts::of(flow), &named)
            }
            (None, None) => true,
        }
    }

    /// Whether a flow may be asked for, as far as is known before its ends are named. Exact if
    /// [`FlowFilter::needs_names`] is false.
    pub(crate) fn may_match(&self, facts: &Facts<'_>) -> bool {
        self.judge(facts, None)
    }

    /// Whether a flow is asked for.
    pub(crate) fn matches_named(&self, facts: &Facts<'_>, named: &Named<'_>) -> bool {
        self.judge(facts, Some(named))
    }

    /// Whether some term is about names.
    pub(crate) fn needs_names(&self) -> bool {
        self.terms.iter().any(|term| term.condition.is_by_name())
    }

    fn judge(&self, facts: &Facts<'_>, named: Option<&Named<'_>>) -> bool {
        if self.since.is_some_and(|since| facts.end < since) {
            return false;
        }
        let (mut wanted, mut found) = (0, 0);
        for Term { not, condition } in &self.terms {
            let is_ignored =
                self.all_namespaces && !not && matches!(condition, Condition::Namespace(_));
            let Some(holds) = condition.holds(facts, named) else {
                continue;
            };
            if is_ignored {
                continue;
            }
            match (not, holds) {
                (true, true) => return false,
                (true, false) => {}
                (false, holds) => {
                    let kind = condition.kind();
                    wanted |= kind;
                    found |= if holds { kind } else { 0 };
                }
            }
        }
        wanted == found
    }
}

// === impl Term ===

impl From<Condition> for Term {
    fn from(condition: Condition) -> Self {
        Self {
            not: false,
            condition,
        }
    }
}

impl std::ops::Not for Term {
    type Output = Self;

    fn not(self) -> Self {
        Self {
            not: !self.not,
            ..self
        }
    }
}

// === impl Condition ===

impl Condition {
    /// A bit for each kind of condition.
    const fn kind(&self) -> u16 {
        match self {
            Self::Namespace(_) => 1,
            Self::Pod(_) => 1 << 1,
            Self::Ip(_) => 1 << 2,
            Self::Port(_) => 1 << 3,
            Self::Protocol(_) => 1 << 4,
            Self::App(_) => 1 << 5,
            Self::Point(_) => 1 << 6,
            Self::Outcome(_) => 1 << 7,
            Self::Finding(_) => 1 << 8,
        }
    }

    const fn is_by_name(&self) -> bool {
        matches!(self, Self::Namespace(_) | Self::Pod(_) | Self::Finding(_))
    }

    /// Whether it holds; `None` if names are needed to tell.
    fn holds(&self, facts: &Facts<'_>, named: Option<&Named<'_>>) -> Option<bool> {
        Some(match self {
            Self::Namespace(namespace) => named?
                .ends
                .iter()
                .any(|end| end.namespace == Some(namespace)),
            Self::Pod(PodName { namespace, name }) => {
                let pod = NamedEnd {
                    namespace: Some(namespace),
                    pod: Some(name),
                };
                named?.ends.contains(&pod)
            }
            Self::Finding(finding) => named?.finding == Some(finding),
            Self::Ip(net) => facts.ips.iter().any(|ip| net.contains(ip)),
            Self::Port(port) => facts.ports.contains(&Some(*port)),
            Self::Protocol(protocol) => facts.protocol == *protocol,
            Self::App(app) => facts.app.eq_ignore_ascii_case(app),
            Self::Point(point) => facts.point == *point,
            Self::Outcome(outcome) => facts.outcome == *outcome,
        })
    }

    /// Reads an address or address range for [`Condition::Ip`].
    pub fn ip(text: &str) -> Result<Self, UnknownName> {
        parse_net(text).map(Self::Ip).ok_or_else(|| {
            UnknownName::new(
                "address range",
                text,
                "an address or a range such as 192.0.2.0/24",
            )
        })
    }
}

// === impl PodName ===

impl FromStr for PodName {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(UnknownName::new("pod", text, "NAMESPACE/NAME")),
        }
    }
}

impl std::fmt::Display for PodName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

// === impl Facts ===

impl<'a> Facts<'a> {
    fn of(record: &'a FlowRecord) -> Self {
        Self {
            ips: [
                normalise(record.source.ip),
                normalise(record.destination.ip),
            ],
            ports: [record.source.port, record.destination.port],
            protocol: record.protocol,
            app: &record.app,
            point: record.point,
            outcome: record.outcome,
            end: record.end,
        }
    }
}

// === impl NamedEnd ===

impl<'a> NamedEnd<'a> {
    fn of(end: &'a Endpoint) -> Self {
        Self {
            namespace: end.namespace.as_deref(),
            pod: end.pod.as_deref(),
        }
    }

    /// Both ends with those on the other side of a translation.
    pub(crate) fn all(ends: [Self; 2], translated: Option<&'a Translated>) -> [Self; 4] {
        let other = translated.and_then(Translated::ends);
        let end = |end: Option<&'a Endpoint>| end.map_or_else(Self::default, Self::of);
        let [source, destination] = ends;
        [
            source,
            destination,
            end(other.and_then(|other| other.source.as_ref())),
            end(other.and_then(|other| other.destination.as_ref())),
        ]
    }
}

// === impl Named ===

impl<'a> Named<'a> {
    fn of(record: &'a FlowRecord) -> Self {
        Self {
            ends: NamedEnd::all(
                [&record.source, &record.destination].map(NamedEnd::of),
                record.translated.as_ref(),
            ),
            finding: record.finding.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests;
