//! IP protocol numbers and their names.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::UnknownName;

/// An IP protocol number; reads and prints as its IANA name, or as the number where it has none
/// here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

/// Numbers, names and other spellings that are read (IANA, Assigned Internet Protocol Numbers).
const NAMES: &[(u8, &str, &[&str])] = &[
    (1, "ICMP", &[]),
    (2, "IGMP", &[]),
    (4, "IPv4", &[]),
    (6, "TCP", &[]),
    (17, "UDP", &[]),
    (33, "DCCP", &[]),
    (41, "IPv6", &[]),
    (47, "GRE", &[]),
    (50, "ESP", &[]),
    (51, "AH", &[]),
    (58, "ICMPv6", &["IPv6-ICMP", "ICMP6"]),
    (88, "EIGRP", &[]),
    (89, "OSPF", &["OSPFIGP"]),
    (94, "IPIP", &[]),
    (103, "PIM", &[]),
    (108, "IPComp", &[]),
    (112, "VRRP", &[]),
    (115, "L2TP", &[]),
    (132, "SCTP", &[]),
    (136, "UDPLite", &[]),
    (137, "MPLS-in-IP", &[]),
];

// === impl Protocol ===

impl Protocol {
    /// Internet Control Message Protocol.
    pub const ICMP: Self = Self(1);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// Internet Control Message Protocol for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// Stream Control Transmission Protocol.
    pub const SCTP: Self = Self(132);

    /// Whether flows of this protocol have ports.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// Whether this is ICMP or ICMPv6.
    pub const fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }

    /// Name, if it has one here.
    pub(crate) fn name(self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|(number, ..)| *number == self.0)
            .map(|(_, name, _)| *name)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => formatter.pad(name),
            None => self.0.fmt(formatter),
        }
    }
}

impl FromStr for Protocol {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |name: &&str| name.eq_ignore_ascii_case(text);
        NAMES
            .iter()
            .find(|(_, name, _)| named(name))
            .or_else(|| NAMES.iter().find(|(_, _, others)| others.iter().any(named)))
            .map(|(number, ..)| *number)
            .or_else(|| text.parse().ok())
            .map(Self)
            .ok_or_else(|| {
                UnknownName::new("protocol", text, "TCP, UDP, SCTP, ICMP, ICMPv6 or 0 to 255")
            })
    }
}

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_back() {
        for number in 0..=u8::MAX {
            let protocol = Protocol(number);
            assert_eq!(protocol.to_string().parse::<Protocol>().unwrap(), protocol);
            assert_eq!(number.to_string().parse::<Protocol>().unwrap(), protocol);
        }
    }

    #[test]
    fn reads_any_case_and_other_spellings() {
        let check = |text: &str, expected: Protocol| {
            assert_eq!(text.parse::<Protocol>().unwrap(), expected, "{text}");
        };
        check("tcp", Protocol::TCP);
        check("Udp", Protocol::UDP);
        check("icmpv6", Protocol::ICMPV6);
        check("ipv6-icmp", Protocol::ICMPV6);
        check("gre", Protocol(47));
        check("253", Protocol(253));
        for text in ["", "tcpp", "256", "-1"] {
            let error = text.parse::<Protocol>().unwrap_err();
            assert!(error.to_string().contains("ICMPv6"), "{error}");
        }
    }
}
