//! From where SSH is expected.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    entity::{NamedRange, normalise},
    event::Target,
};

/// Ranges that SSH is expected from, by what it leads to. Without a range nothing is declared, and
/// nothing is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// To nodes.
    pub node: Vec<NamedRange>,
    /// To pods.
    pub pod: Vec<NamedRange>,
}

/// Whether a connection is expected, and by which range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The range; `None` where none holds the source.
    pub(crate) range: Option<(Arc<str>, IpNet)>,
}

// === impl Expectations ===

impl Expectations {
    fn of(&self, target: Target) -> &[NamedRange] {
        match target {
            Target::Node => &self.node,
            Target::Pod => &self.pod,
            Target::External => &[],
        }
    }

    /// Whether SSH from an address is expected; `None` where nothing is declared for such a
    /// target. IPv4-mapped IPv6 addresses are IPv4 addresses. The longest prefix wins.
    pub(crate) fn judge(&self, target: Target, source: IpAddr) -> Option<Expected> {
        let ranges = self.of(target);
        if ranges.is_empty() {
            return None;
        }
        let source = normalise(source);
        let range = ranges
            .iter()
            .filter(|range| range.net.contains(&source))
            .max_by_key(|range| range.net.prefix_len())
            .map(|range| (Arc::clone(&range.name), range.net));
        Some(Expected { range })
    }

    /// The flag or key that declares ranges for a target.
    pub(crate) const fn declared_by(target: Target) -> &'static str {
        match target {
            Target::Pod => "--expect-ssh-pod",
            Target::Node | Target::External => "--expect-ssh",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_names_the_range_and_mapped_addresses_match() {
        let expectations = Expectations {
            node: ["all=10.0.0.0/8", "admin=10.1.0.0/16", "six=fd00::/8"]
                .map(|text| text.parse().unwrap())
                .into(),
            pod: Vec::new(),
        };
        let name = |ip: &str| {
            let expected = expectations.judge(Target::Node, ip.parse().unwrap());
            expected.unwrap().range.map(|(name, _)| name.to_string())
        };
        assert_eq!(name("10.1.2.3").as_deref(), Some("admin"));
        assert_eq!(name("10.2.2.3").as_deref(), Some("all"));
        assert_eq!(name("::ffff:10.1.2.3").as_deref(), Some("admin"));
        assert_eq!(name("fd00::1").as_deref(), Some("six"));
        assert_eq!(name("203.0.113.9"), None);
        let other = "10.1.2.3".parse().unwrap();
        assert_eq!(expectations.judge(Target::Pod, other), None);
        assert_eq!(expectations.judge(Target::External, other), None);
    }
}
