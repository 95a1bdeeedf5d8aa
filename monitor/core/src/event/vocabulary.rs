//! The closed sets of words in records, filters and metric labels.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::words;

/// A word that is not in the set it was read as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{value}`, expected {expected}")]
pub struct UnknownName {
    /// What was read.
    what: &'static str,
    /// The word.
    value: String,
    /// What it could have been.
    expected: &'static str,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Both ends talk: the TCP handshake completed, or packets went both ways.
    Established,
    /// The responder, or a router, said no: RST to a SYN, ICMP destination unreachable.
    Refused,
    /// The responder said nothing, or the handshake never completed.
    Unanswered,
    /// A TCP connection that the responder accepted and either end reset.
    Reset,
    /// Packets in one direction of a protocol that needs no answer.
    OneWay,
    /// A TCP connection that was picked up after its handshake.
    Midstream,
}

/// Vantage point of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Point {
    /// The node's network card: what the network security group sees.
    Uplink,
    /// The host side of a pod's veth: what a network policy is about.
    Workload,
}

/// What an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntityKind {
    /// A pod with an address of its own.
    Pod,
    /// A node, or a pod on the node's network.
    Node,
    /// A Kubernetes service's virtual address.
    Service,
    /// A configured named range.
    Range,
    /// A public address that has no other name.
    Internet,
    /// None of these: private, local and multicast addresses that have no name.
    Unknown,
}

/// Whether a connection may still go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Packets may follow.
    Open,
    /// Ended or idle for long; its counts are final.
    Closed,
}

/// Whether a record's source is known to have opened the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Initiator {
    /// The source opened it.
    Source,
    /// Picked up midstream: the direction is a guess.
    Unknown,
}

/// Which end of a record is the local one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocalEnd {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

// === impl UnknownName ===

impl UnknownName {
    pub(crate) fn new(what: &'static str, value: &str, expected: &'static str) -> Self {
        Self {
            what,
            value: value.to_owned(),
            expected,
        }
    }
}

// === impl of every set of words ===

macro_rules! readable {
    ($type:ident, $what:literal, $expected:literal, $($variant:ident = $name:literal),+) => {
        words::words!($type, $($variant = $name),+);

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL
                    .iter()
                    .find(|member| member.name().eq_ignore_ascii_case(text))
                    .copied()
                    .ok_or_else(|| UnknownName::new($what, text, $expected))
            }
        }
    };
}

readable!(
    Outcome,
    "outcome",
    "established, refused, unanswered, reset, one-way or midstream",
    Established = "established",
    Refused = "refused",
    Unanswered = "unanswered",
    Reset = "reset",
    OneWay = "one-way",
    Midstream = "midstream"
);
readable!(
    Point,
    "point",
    "uplink or workload",
    Uplink = "uplink",
    Workload = "workload"
);
readable!(
    EntityKind,
    "kind",
    "pod, node, service, range, internet or unknown",
    Pod = "pod",
    Node = "node",
    Service = "service",
    Range = "range",
    Internet = "internet",
    Unknown = "unknown"
);
readable!(
    State,
    "state",
    "open or closed",
    Open = "open",
    Closed = "closed"
);
readable!(
    Initiator,
    "initiator",
    "source or unknown",
    Source = "source",
    Unknown = "unknown"
);
readable!(
    LocalEnd,
    "local end",
    "source or destination",
    Source = "source",
    Destination = "destination"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_match_json() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.name().to_uppercase().parse(), Ok(*outcome));
            assert_eq!(
                serde_json::to_string(outcome).unwrap(),
                format!("\"{outcome}\"")
            );
        }
        for kind in EntityKind::ALL {
            assert_eq!(serde_json::to_string(kind).unwrap(), format!("\"{kind}\""));
        }
        for point in Point::ALL {
            assert_eq!(
                serde_json::to_string(point).unwrap(),
                format!("\"{point}\"")
            );
        }
    }

    #[test]
    fn an_unknown_word_says_what_was_expected() {
        let error = "uplnk".parse::<Point>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown point `uplnk`, expected uplink or workload"
        );
    }
}
