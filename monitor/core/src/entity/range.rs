//! Configured names for address ranges.

use std::{collections::HashMap, net::IpAddr, str::FromStr, sync::Arc};

use ipnet::{IpNet, Ipv4Net};

use super::normalise;

/// A name for a range of addresses; reads `NAME=CIDR` or `NAME=ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRange {
    /// Name: letters, digits, `.`, `_` and `-`, at most 63.
    pub name: Arc<str>,
    /// Addresses; host bits are zero and an IPv4-mapped IPv6 range is the IPv4 range.
    pub net: IpNet,
}

/// Why ranges cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// No `=`.
    #[error("`{text}` is not NAME=CIDR")]
    Shape {
        /// What was read.
        text: String,
    },
    /// A name that could not stand in a label.
    #[error("`{name}` is not a range name: use 1 to 63 letters, digits, `.`, `_` or `-`")]
    Name {
        /// The name.
        name: String,
    },
    /// Not an address range.
    #[error("`{text}` is not an address or address range such as 192.0.2.0/24")]
    Net {
        /// What was read.
        text: String,
    },
    /// Two names for one range.
    #[error("range {net} has two names, `{first}` and `{second}`")]
    Duplicate {
        /// The range.
        net: IpNet,
        /// Its first name.
        first: Arc<str>,
        /// Its second name.
        second: Arc<str>,
    },
}

/// Ranges by prefix: one hash lookup for each prefix length in use.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    by_net: HashMap<IpNet, Range>,
    /// Prefix lengths in use, longest first.
    lengths4: Vec<u8>,
    lengths6: Vec<u8>,
}

/// A range's name and its peer class.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) name: Arc<str>,
    pub(super) class: Arc<str>,
}

// === impl NamedRange ===

impl FromStr for NamedRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = || RangeError::Shape {
            text: text.to_owned(),
        };
        let (name, net) = text.split_once('=').ok_or_else(shape)?;
        let is_name = (1..=63).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_name {
            return Err(RangeError::Name {
                name: name.to_owned(),
            });
        }
        let net = parse_net(net).ok_or_else(|| RangeError::Net {
            text: net.to_owned(),
        })?;
        Ok(Self {
            name: name.into(),
            net,
        })
    }
}

/// Reads `CIDR` or an address; host bits become zero, IPv4-mapped ranges IPv4 ranges.
pub fn parse_net(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let net = net.trunc();
    match (net, normalise(net.addr())) {
        (IpNet::V6(_), IpAddr::V4(ip)) if net.prefix_len() >= 96 => {
            Ipv4Net::new(ip, net.prefix_len() - 96).ok().map(IpNet::V4)
        }
        _ => Some(net),
    }
}

// === impl Ranges ===

impl Ranges {
    pub(super) fn new(ranges: Vec<NamedRange>) -> Result<Self, RangeError> {
        let mut by_net = HashMap::with_capacity(ranges.len());
        for NamedRange { name, net } in ranges {
            let class = format!("range:{name}").into();
            if let Some(Range { name: first, .. }) = by_net.insert(
                net,
                Range {
                    name: Arc::clone(&name),
                    class,
                },
            ) && first != name
            {
                return Err(RangeError::Duplicate {
                    net,
                    first,
                    second: name,
                });
            }
        }
        let lengths = |wanted: fn(&IpNet) -> bool| {
            let mut lengths: Vec<u8> = by_net
                .keys()
                .filter(|net| wanted(net))
                .map(IpNet::prefix_len)
                .collect();
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
            lengths
        };
        let lengths4 = lengths(|net| matches!(net, IpNet::V4(_)));
        let lengths6 = lengths(|net| matches!(net, IpNet::V6(_)));
        Ok(Self {
            by_net,
            lengths4,
            lengths6,
        })
    }

    /// The range with the longest prefix that holds a normalised address.
    pub(super) fn find(&self, ip: IpAddr) -> Option<&Range> {
        let lengths = if ip.is_ipv4() {
            &self.lengths4
        } else {
            &self.lengths6
        };
        lengths.iter().find_map(|length| {
            let net = IpNet::new(ip, *length).ok()?.trunc();
            self.by_net.get(&net)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_ranges() {
        let check = |text: &str, name: &str, net: &str| {
            let range: NamedRange = text.parse().unwrap();
            assert_eq!(
                (&*range.name, range.net.to_string().as_str()),
                (name, net),
                "{text}"
            );
        };
        check("office=198.51.100.0/24", "office", "198.51.100.0/24");
        check("office=198.51.100.77/24", "office", "198.51.100.0/24");
        check(
            "jump-host_1.a=198.51.100.7",
            "jump-host_1.a",
            "198.51.100.7/32",
        );
        check("any=0.0.0.0/0", "any", "0.0.0.0/0");
        check("six=2001:db8::1", "six", "2001:db8::1/128");
        check("mapped=::ffff:10.0.0.0/104", "mapped", "10.0.0.0/8");
        check("all=::/0", "all", "::/0");
    }

    #[test]
    fn refuses_what_cannot_be_used() {
        let check = |text: &str, message: &str| {
            let error = text.parse::<NamedRange>().unwrap_err();
            assert!(error.to_string().contains(message), "{text}: {error}");
        };
        check("198.51.100.0/24", "not NAME=CIDR");
        check("=198.51.100.0/24", "range name");
        check("a b=198.51.100.0/24", "range name");
        check("a=198.51.100.0/33", "198.51.100.0/33");
        check("a=", "address range");
        let long = format!("{}=10.0.0.0/8", "x".repeat(64));
        check(&long, "1 to 63");
    }

    #[test]
    fn two_names_for_a_range_are_refused() {
        let ranges =
            |texts: &[&str]| Ranges::new(texts.iter().map(|text| text.parse().unwrap()).collect());
        let error = ranges(&["a=10.0.0.0/8", "b=10.1.2.3/8"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "range 10.0.0.0/8 has two names, `a` and `b`"
        );
        assert!(ranges(&["a=10.0.0.0/8", "a=10.0.0.0/8", "a=10.0.0.0/9"]).is_ok());
    }

    #[test]
    fn the_longest_prefix_wins_down_to_the_default_route() {
        let texts = ["all=0.0.0.0/0", "ten=10.0.0.0/8", "host=10.1.2.3"];
        let ranges = Ranges::new(texts.iter().map(|text| text.parse().unwrap()).collect()).unwrap();
        let find = |ip: &str| ranges.find(ip.parse().unwrap()).map(|range| &*range.name);
        assert_eq!(find("10.1.2.3"), Some("host"));
        assert_eq!(find("10.1.2.4"), Some("ten"));
        assert_eq!(find("192.0.2.1"), Some("all"));
        assert_eq!(find("2001:db8::1"), None);
    }
}
