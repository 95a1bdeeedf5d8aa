//! The two ends of a rule: addresses and ports.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use ipnet::IpNet;

use crate::entity::parse_net;

/// The tag of the network, its peers and what its routes lead to.
pub(super) const VIRTUAL_NETWORK: &str = "VirtualNetwork";
/// The tag of public addresses outside the network.
pub(super) const INTERNET: &str = "Internet";

/// The longest tag or group name that is read.
const MOST_NAME: usize = 128;

/// One of the addresses that an end of a rule names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `*`: both families.
    Any,
    /// An address or range.
    Prefix(IpNet),
    /// A service tag.
    Tag {
        /// Its name as written; compared without regard to case.
        name: Arc<str>,
        /// What Azure expanded it to, where the document says so.
        expanded: Option<Arc<[IpNet]>>,
    },
    /// An application security group, by the name at the end of its resource id.
    Group(Arc<str>),
}

/// Ports: disjoint ranges in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

/// Why a text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither address nor tag.
    #[error("`{0}` is not `*`, an address, an address range such as 10.0.0.0/24 or a service tag")]
    Address(String),
    /// Not a port.
    #[error("`{0}` is not `*`, a port or a range of ports such as 8000-8080")]
    Port(String),
    /// Last port before the first.
    #[error("the range of ports `{0}` is reversed: write the lower port first")]
    Reversed(String),
}

// === impl Address ===

impl Address {
    /// Reads `*`, an address, a range or a tag.
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text == "*" || text.eq_ignore_ascii_case("any") {
            return Ok(Self::Any);
        }
        if let Some(net) = parse_net(text) {
            return Ok(Self::Prefix(net));
        }
        if is_tag(text) {
            return Ok(Self::Tag {
                name: text.into(),
                expanded: None,
            });
        }
        Err(AddressError::Address(quotable(text)))
    }

    /// The family of a literal address.
    pub(super) fn is_v6(&self) -> Option<bool> {
        match self {
            Self::Prefix(net) => Some(net.addr().is_ipv6()),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("*"),
            Self::Prefix(net) if net.prefix_len() == net.max_prefix_len() => {
                net.addr().fmt(formatter)
            }
            Self::Prefix(net) => net.fmt(formatter),
            Self::Tag { name, .. } => formatter.write_str(name),
            Self::Group(name) => write!(formatter, "group {name}"),
        }
    }
}

/// Whether a text can be a service tag: letters first, no sign that an address would have.
pub(super) fn is_tag(text: &str) -> bool {
    text.len() <= MOST_NAME
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// A text from a document as it may stand in a message: bounded, nothing that a terminal obeys.
pub(super) fn quotable(text: &str) -> String {
    quotable_to(text, 80)
}

/// The same of so many characters at most.
pub(super) fn quotable_to(text: &str, most: usize) -> String {
    let mut quoted = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == most {
            quoted.push('…');
            break;
        }
        let is_plain = character.is_ascii_graphic()
            || character == ' '
            || (!character.is_ascii() && character.is_alphanumeric());
        if is_plain {
            quoted.push(character);
        } else {
            quoted.extend(character.escape_default());
        }
    }
    quoted
}

// === impl Ports ===

impl Ports {
    /// All of them, and what has none.
    pub fn any() -> Self {
        Self(vec![0..=u16::MAX])
    }

    /// Merges ranges.
    pub(super) fn merged(mut ranges: Vec<RangeInclusive<u16>>) -> Self {
        ranges.sort_by_key(|range| (*range.start(), *range.end()));
        let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=*last.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Reads `*`, a port or `FROM-TO`.
    pub(super) fn parse(text: &str) -> Result<RangeInclusive<u16>, AddressError> {
        let text = text.trim();
        if text == "*" || text.eq_ignore_ascii_case("any") {
            return Ok(0..=u16::MAX);
        }
        let bad = || AddressError::Port(quotable(text));
        let port = |text: &str| {
            let text = text.trim();
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse::<u16>().ok()).flatten()
        };
        match text.split_once('-') {
            None => port(text).map(|port| port..=port).ok_or_else(bad),
            Some((from, to)) => {
                let (from, to) = port(from).zip(port(to)).ok_or_else(bad)?;
                if from > to {
                    return Err(AddressError::Reversed(quotable(text)));
                }
                Ok(from..=to)
            }
        }
    }

    /// The ranges.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    /// Whether these are all ports: then a packet without ports matches, too.
    pub fn is_any(&self) -> bool {
        self.0 == [0..=u16::MAX]
    }

    /// Whether a port is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return formatter.write_str("*");
        }
        for (index, range) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            if range.start() == range.end() {
                write!(formatter, "{separator}{}", range.start())?;
            } else {
                write!(formatter, "{separator}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}
