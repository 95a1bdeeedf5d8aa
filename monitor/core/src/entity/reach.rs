//! What an address says of itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Any host of the Internet may have it.
    Internet,
    /// Not routed on the Internet: private, shared, link-local, loopback, unspecified.
    Private,
    /// Many hosts receive it: multicast and limited broadcast.
    Multicast,
}

/// The IPv4 address of an IPv4-mapped IPv6 address, else the address itself.
pub fn normalise(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Whether any host of the Internet may have an address.
pub fn is_public(ip: IpAddr) -> bool {
    Reach::of(normalise(ip)) == Reach::Internet
}

// === impl Reach ===

impl Reach {
    /// The reach of a normalised address (IANA special-purpose address registries).
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast() => Self::Multicast,
            IpAddr::V6(ip) if ip.is_multicast() => Self::Multicast,
            IpAddr::V4(ip) if is_private4(ip) => Self::Private,
            IpAddr::V6(ip) if is_private6(ip) => Self::Private,
            _ => Self::Internet,
        }
    }
}

fn is_private4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    let is_shared = first == 100 && second & 0xc0 == 64;
    first == 0 || ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared
}

fn is_private6(ip: Ipv6Addr) -> bool {
    ip.is_unspecified() || ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_follows_the_registries_to_the_last_address() {
        let check = |ip: &str, reach: Reach| {
            assert_eq!(Reach::of(ip.parse().unwrap()), reach, "{ip}");
        };
        check("0.0.0.0", Reach::Private);
        check("9.255.255.255", Reach::Internet);
        check("10.0.0.0", Reach::Private);
        check("11.0.0.0", Reach::Internet);
        check("100.63.255.255", Reach::Internet);
        check("100.64.0.0", Reach::Private);
        check("100.127.255.255", Reach::Private);
        check("100.128.0.0", Reach::Internet);
        check("169.254.169.254", Reach::Private);
        check("172.15.255.255", Reach::Internet);
        check("172.31.255.255", Reach::Private);
        check("172.32.0.0", Reach::Internet);
        check("192.168.0.1", Reach::Private);
        check("223.255.255.255", Reach::Internet);
        check("224.0.0.0", Reach::Multicast);
        check("239.255.255.255", Reach::Multicast);
        check("255.255.255.255", Reach::Multicast);
        check("::", Reach::Private);
        check("::1", Reach::Private);
        check("fbff::1", Reach::Internet);
        check("fc00::1", Reach::Private);
        check("fdff::1", Reach::Private);
        check("fe80::1", Reach::Private);
        check("ff00::1", Reach::Multicast);
        check("2a00::1", Reach::Internet);
    }

    #[test]
    fn mapped_addresses_are_normalised() {
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(normalise(mapped), "192.0.2.1".parse::<IpAddr>().unwrap());
        let compatible: IpAddr = "::192.0.2.1".parse().unwrap();
        assert_eq!(normalise(compatible), compatible);
    }
}
