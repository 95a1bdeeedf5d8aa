//! Services of the platform that rules do not apply to.
//!
//! Azure, "Network security groups", Azure platform considerations: DHCP, DNS, instance metadata and
//! health monitoring "aren't subject to the configured network security groups unless targeted by
//! service tags specific to each service". A rule for everything, or for the address, does not
//! stop them. "What is IP address 168.63.129.16" lists the ports.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use super::{
    address::Address,
    matching::{FieldMatch, Resolved},
    model::Direction,
    names::{HOST, HOST_V6, LICENSING, METADATA},
    tuple::Tuple,
};
use crate::event::Protocol;

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// Azure DNS.
    Dns,
    /// The agent's host: goal state, health reports.
    Wire,
    /// DHCP.
    Dhcp,
    /// Instance metadata.
    Metadata,
    /// Windows activation.
    Licensing,
}

// === impl Service ===

impl Service {
    /// The service that a connection leads to, or that it answers for.
    pub(super) fn of(tuple: &Tuple) -> Option<Self> {
        if tuple.direction == Direction::Inbound {
            // The answer to a broadcast, or to a multicast, is no reply to it by its addresses.
            // The ports of DHCPv6 are others (RFC 8415 section 7.2).
            let ports = match tuple.source {
                ip if ip == IpAddr::from(HOST) => (67, 68),
                ip if ip == IpAddr::from(HOST_V6) => (547, 546),
                _ => return None,
            };
            let is_dhcp = tuple.protocol == Protocol::UDP
                && (tuple.source_port, tuple.destination_port) == (Some(ports.0), Some(ports.1));
            return is_dhcp.then_some(Self::Dhcp);
        }
        let IpAddr::V4(destination) = tuple.destination else {
            return None;
        };
        match (destination, tuple.protocol, tuple.destination_port?) {
            (HOST, Protocol::TCP | Protocol::UDP, 53) => Some(Self::Dns),
            (HOST, Protocol::TCP, 80 | 32526) => Some(Self::Wire),
            // Before it has an address, a client asks by broadcast (RFC 2131 section 4.1).
            (HOST | Ipv4Addr::BROADCAST, Protocol::UDP, 67) => Some(Self::Dhcp),
            (METADATA, Protocol::TCP, 80) => Some(Self::Metadata),
            (host, Protocol::TCP, 1688) if LICENSING.contains(&host) => Some(Self::Licensing),
            _ => None,
        }
    }

    /// The tag that makes rules apply to it.
    pub(super) const fn tag(self) -> Option<&'static str> {
        match self {
            Self::Dns => Some("AzurePlatformDNS"),
            Self::Metadata => Some("AzurePlatformIMDS"),
            Self::Licensing => Some("AzurePlatformLKM"),
            Self::Wire | Self::Dhcp => None,
        }
    }

    /// Whether a rule is for this service, and matches.
    pub(super) fn matches(self, rule: &Resolved, tuple: &Tuple) -> FieldMatch {
        let is_for = |address: &Address| match address {
            Address::Tag { name, .. } => {
                self.tag().is_some_and(|tag| tag.eq_ignore_ascii_case(name))
            }
            _ => false,
        };
        if !rule.rule.destination.iter().any(is_for) {
            return FieldMatch::No;
        }
        let mut fields = rule.fields(tuple);
        fields.destination = FieldMatch::Yes;
        fields.all()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Dns => "Azure DNS",
            Self::Wire => "the virtual machine's host",
            Self::Dhcp => "Azure DHCP",
            Self::Metadata => "the instance metadata service",
            Self::Licensing => "Windows activation",
        };
        write!(formatter, "rules do not apply to {what}")?;
        match self.tag() {
            Some(tag) => write!(formatter, " unless they name {tag}"),
            None => Ok(()),
        }
    }
}
