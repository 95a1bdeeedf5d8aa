//! What an address can be where nobody has said so.
//!
//! `Internet` is "outside the virtual network and reachable by the public internet" (Azure,
//! "Service tags"). The list that Azure expands it to is printed in "Diagnose a virtual machine
//! network traffic filter problem": unicast without the private ranges of RFC 1918, with shared
//! (RFC 6598), loopback and link-local addresses in it, and with gaps that no document explains.
//! So the ranges on which list and definition disagree are neither certainly in nor out, and a
//! computed `Internet` remains an approximation: effective rules know better.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Term, v4, v6};
use crate::nsg::{
    interval::{Family, IntervalSet},
    matching::{FieldMatch, Why},
};

/// Private use: a virtual network may have these.
const PRIVATE: [IpNet; 3] = [v4(10, 0, 8), v4(172, 16, 12), v4(192, 168, 16)];
/// Not public, but in the list that Azure prints for `Internet`.
const DISPUTED: [IpNet; 3] = [v4(100, 64, 10), v4(127, 0, 8), v4(169, 254, 16)];
/// Shared address space: a virtual network may have it.
const SHARED: IpNet = v4(100, 64, 10);
/// No host has these.
const NO_HOST: [IpNet; 3] = [v4(0, 0, 8), v4(224, 0, 4), v4(240, 0, 4)];
/// Public addresses of IPv6.
const PUBLIC_V6: IpNet = v6(0x2000, 3);
/// Neither a network's nor public.
const LINK_V6: [IpNet; 2] = [v6(0xfe80, 10), v6(0xff00, 8)];

/// Addresses of one family that a term certainly holds, and those that it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::nsg) struct Space {
    /// Certainly.
    pub(in crate::nsg) yes: IntervalSet,
    /// Certainly or perhaps.
    pub(in crate::nsg) maybe: IntervalSet,
}

// === impl Term ===

impl Term {
    /// Whether an address is among those that this stands for.
    pub(in crate::nsg) fn matches(&self, ip: IpAddr) -> FieldMatch {
        match self {
            Self::Any => FieldMatch::Yes,
            Self::Net(net) => net.contains(&ip).into(),
            Self::Nets(nets) => contains(nets, ip).into(),
            Self::Zero if ip.is_ipv4() => FieldMatch::Yes,
            Self::Zero => FieldMatch::Unknown(Why::ZeroPrefix),
            Self::Unknown(why) => FieldMatch::Unknown(why.clone()),
            Self::Undeclared if ip == IpAddr::from(super::HOST) => FieldMatch::Yes,
            Self::Undeclared if may_be_network(ip) => FieldMatch::Unknown(Why::Network),
            Self::Undeclared => FieldMatch::No,
            Self::Internet(network) => {
                let is_network = match network {
                    Some(nets) => contains(nets, ip),
                    None => ip == IpAddr::from(super::HOST),
                };
                if is_network {
                    FieldMatch::No
                } else if contains(&DISPUTED, ip) {
                    FieldMatch::Unknown(Why::Disputed)
                } else {
                    is_public(ip).into()
                }
            }
        }
    }

    /// The same as sets.
    pub(in crate::nsg) fn space(&self, family: Family) -> Space {
        let all = || family.all();
        let none = IntervalSet::default;
        match self {
            Self::Any => Space::certain(all()),
            Self::Net(net) => Space::certain(family.ranges([net])),
            Self::Nets(nets) => Space::certain(family.ranges(&**nets)),
            Self::Zero if family == Family::V4 => Space::certain(all()),
            Self::Zero | Self::Unknown(_) => Space {
                yes: none(),
                maybe: all(),
            },
            Self::Undeclared => {
                let host = family.ranges(&[IpNet::from(IpAddr::from(super::HOST))]);
                let maybe = match family {
                    Family::V4 => family.ranges(PRIVATE.iter().chain([&SHARED])),
                    Family::V6 => all()
                        .difference(&family.ranges([&PUBLIC_V6]))
                        .difference(&family.ranges(&LINK_V6)),
                };
                Space {
                    maybe: maybe.union(&host),
                    yes: host,
                }
            }
            Self::Internet(network) => {
                let host = [IpNet::from(IpAddr::from(super::HOST))];
                let network = family.ranges(network.as_deref().unwrap_or(&host));
                let disputed = family.ranges(&DISPUTED);
                let public = match family {
                    Family::V4 => all()
                        .difference(&family.ranges(&PRIVATE))
                        .difference(&family.ranges(&NO_HOST)),
                    Family::V6 => family.ranges([&PUBLIC_V6]),
                };
                let maybe = public.difference(&network);
                Space {
                    yes: maybe.difference(&disputed),
                    maybe,
                }
            }
        }
    }
}

// === impl Space ===

impl Space {
    fn certain(set: IntervalSet) -> Self {
        Self {
            maybe: set.clone(),
            yes: set,
        }
    }

    /// What several terms together stand for.
    pub(in crate::nsg) fn of(terms: &[Term], family: Family) -> Self {
        let mut spaces = terms.iter().map(|term| term.space(family));
        let first = spaces.next().unwrap_or_else(|| Self {
            yes: IntervalSet::default(),
            maybe: IntervalSet::default(),
        });
        spaces.fold(first, |all, space| Self {
            yes: all.yes.union(&space.yes),
            maybe: all.maybe.union(&space.maybe),
        })
    }
}

fn contains(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

/// Whether an address that nobody has declared may belong to a virtual network. Public ranges
/// may, too, but nobody uses them without saying so.
fn may_be_network(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => contains(&PRIVATE, ip) || SHARED.contains(&ip),
        IpAddr::V6(_) => !PUBLIC_V6.contains(&ip) && !contains(&LINK_V6, ip),
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => !contains(&PRIVATE, ip) && !contains(&NO_HOST, ip),
        IpAddr::V6(_) => PUBLIC_V6.contains(&ip),
    }
}
