//! Which way a connection goes, seen from the network card that rules are for.
//!
//! A flow that somebody asks about, and one of a capture whose local addresses nobody has named,
//! has two ends and no network card. Rules are for the cards of nodes and pods, so an end that is
//! one is behind it. Else the addresses tell, where only one end is of the virtual network. Where
//! both are, the flow leaves one card and arrives at another, and rules of either direction may be
//! meant.

use std::{fmt, net::IpAddr};

use super::{
    chain::Chain,
    model::Direction,
    names::{HOST, HOST_V6, METADATA},
};
use crate::{
    cluster::Cluster,
    entity::normalise,
    event::{EntityKind, Protocol},
};

/// What an end is in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// A node or a pod: rules are for their network cards.
    Member,
    /// An address of a Service: with floating IP, as AKS has it, nodes get packets to the address of
    /// the load balancer's frontend.
    Service,
    /// Nothing, or nothing that is known.
    #[default]
    Unknown,
}

/// Why a direction is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// Both ends are nodes or pods.
    Members,
    /// Both ends are of the virtual network.
    Inside,
    /// Neither end is of the virtual network.
    Outside,
    /// The virtual network is not declared, and both ends have private addresses.
    Private,
    /// The virtual network is not declared, and neither end has a private address.
    Public,
}

// === impl Standing ===

impl Standing {
    /// Of an address, as far as the cluster's objects tell.
    pub fn of(cluster: &Cluster, ip: IpAddr, port: Option<(Protocol, u16)>) -> Self {
        let ip = normalise(ip);
        if cluster.node_of(ip).is_some() || cluster.end_of_ip(ip).pod.is_some() {
            Self::Member
        } else if cluster.service_of(ip, port).is_some() {
            Self::Service
        } else {
            Self::Unknown
        }
    }
}

impl From<EntityKind> for Standing {
    fn from(kind: EntityKind) -> Self {
        match kind {
            EntityKind::Node | EntityKind::Pod => Self::Member,
            EntityKind::Service => Self::Service,
            _ => Self::Unknown,
        }
    }
}

// === impl Unclear ===

impl fmt::Display for Unclear {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Members => "both ends are nodes or pods of the cluster",
            Self::Inside => "both ends are of the virtual network",
            Self::Outside => "neither end is of the virtual network",
            Self::Private => "both ends have private addresses, and VirtualNetwork is not defined",
            Self::Public => "no end has a private address, and VirtualNetwork is not defined",
        })
    }
}

// === impl Chain ===

impl Chain {
    /// Which way a connection goes from `source` to `destination`. A virtual network that is not
    /// declared is taken for all private addresses.
    pub fn direction(
        &self,
        source: (IpAddr, Standing),
        destination: (IpAddr, Standing),
    ) -> Result<Direction, Unclear> {
        match (source.1, destination.1) {
            (Standing::Member, Standing::Member) => return Err(Unclear::Members),
            (Standing::Member, _) => return Ok(Direction::Outbound),
            (_, Standing::Member | Standing::Service) => return Ok(Direction::Inbound),
            (_, Standing::Unknown) => {}
        }
        // VirtualNetwork holds the host's address, and no card has it: it is the other end that has.
        match (is_platform(source.0), is_platform(destination.0)) {
            (false, true) => return Ok(Direction::Outbound),
            (true, false) => return Ok(Direction::Inbound),
            _ => {}
        }
        let is_declared = self.network().is_some();
        match (self.is_inside(source.0), self.is_inside(destination.0)) {
            (true, false) => Ok(Direction::Outbound),
            (false, true) => Ok(Direction::Inbound),
            (true, true) if is_declared => Err(Unclear::Inside),
            (true, true) => Err(Unclear::Private),
            (false, false) if is_declared => Err(Unclear::Outside),
            (false, false) => Err(Unclear::Public),
        }
    }

    /// Whether an address can be that of a network card of the virtual network.
    fn is_inside(&self, ip: IpAddr) -> bool {
        let ip = normalise(ip);
        let is_of_network = || match (self.network(), ip) {
            (Some(nets), _) => nets.iter().any(|net| net.contains(&ip)),
            (None, IpAddr::V4(ip)) => ip.is_private(),
            (None, IpAddr::V6(ip)) => ip.is_unique_local(),
        };
        !is_platform(ip) && is_of_network()
    }
}

/// Whether an address is that of the host or of what tells instances about themselves.
fn is_platform(ip: IpAddr) -> bool {
    [IpAddr::from(HOST), HOST_V6.into(), METADATA.into()].contains(&normalise(ip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nsg::{
        Names,
        tests::fixture::{names, subnet},
    };

    #[test]
    fn the_end_behind_the_network_card_tells_the_direction() {
        use Direction::{Inbound, Outbound};
        use Standing::{Member, Service, Unknown};
        // The network of the fixture is 10.224.0.0/12, and the host.
        let (declared, bare) = (subnet(&[], &names(&[])), subnet(&[], &Names::default()));
        let check = |from: (&str, Standing), to: (&str, Standing), known, unknown| {
            let end =
                |(ip, standing): (&str, Standing)| (ip.parse().expect("an address"), standing);
            let (from, to) = (end(from), end(to));
            assert_eq!(declared.direction(from, to), known, "{from:?} {to:?}");
            assert_eq!(bare.direction(from, to), unknown, "{from:?} {to:?}");
        };
        let node = "10.224.0.4";
        for (ip, inside) in [("203.0.113.9", None), ("10.9.0.1", Some(Unclear::Private))] {
            let unless = |direction| inside.map_or(Ok(direction), Err);
            check(
                (node, Unknown),
                (ip, Unknown),
                Ok(Outbound),
                unless(Outbound),
            );
            check((ip, Unknown), (node, Unknown), Ok(Inbound), unless(Inbound));
            // A pod of an overlay network is not of the virtual network, and behind the card.
            let pod = ("10.244.1.7", Member);
            check(pod, (ip, Unknown), Ok(Outbound), Ok(Outbound));
            check((ip, Unknown), pod, Ok(Inbound), Ok(Inbound));
        }
        // A peer is of VirtualNetwork, too: what the cluster's objects say is nearer.
        let (peer, member) = (("10.239.0.1", Unknown), (node, Member));
        check(member, peer, Ok(Outbound), Ok(Outbound));
        check(peer, member, Ok(Inbound), Ok(Inbound));
        check(member, peer, Ok(Outbound), Ok(Outbound));
        check(member, member, Err(Unclear::Members), Err(Unclear::Members));
        let unclear = (Err(Unclear::Inside), Err(Unclear::Private));
        check(peer, (node, Unknown), unclear.0, unclear.1);
        // The host and what tells instances about themselves are nobody's network card.
        for ip in ["168.63.129.16", "169.254.169.254"] {
            let platform = (ip, Unknown);
            check((node, Unknown), platform, Ok(Outbound), Ok(Outbound));
            check(platform, (node, Unknown), Ok(Inbound), Ok(Inbound));
            // Also where nothing is known of the other end, as of a pod of an overlay network.
            let pod = ("100.64.1.7", Unknown);
            check(pod, platform, Ok(Outbound), Ok(Outbound));
            check(platform, pod, Ok(Inbound), Ok(Inbound));
            let both = (Err(Unclear::Outside), Err(Unclear::Public));
            check(platform, platform, both.0, both.1);
        }
        let probe = ("fe80::1234:5678:9abc", Unknown);
        check(probe, ("2001:db8::4", Unknown), Ok(Inbound), Ok(Inbound));
        check(
            ("::ffff:10.224.0.4", Unknown),
            ("::ffff:192.0.2.1", Unknown),
            Ok(Outbound),
            Ok(Outbound),
        );
        // A frontend with floating IP is an address of the nodes for whoever comes from outside.
        let frontend = ("20.61.9.9", Service);
        check(("203.0.113.9", Unknown), frontend, Ok(Inbound), Ok(Inbound));
        check(peer, frontend, Ok(Inbound), Ok(Inbound));
        check(member, frontend, Ok(Outbound), Ok(Outbound));
        let (one, other) = (("203.0.113.9", Unknown), ("20.61.9.9", Unknown));
        check(one, other, Err(Unclear::Outside), Err(Unclear::Public));
    }
}
