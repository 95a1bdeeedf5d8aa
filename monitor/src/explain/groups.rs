//! What network security groups say about a flow that somebody asks about.

use std::{borrow::Cow, net::IpAddr};

use monitor_core::{
    cluster::End,
    event::Protocol,
    nsg::{
        Access, Chain, Direction, Standing, Tuple, Unclear,
        explain::{Explained, explain},
    },
};
use serde::{Deserialize, Serialize};

use super::{Asked, World};

/// What network security groups say about a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NsgExplanation {
    /// Which way it goes, seen from the network card; absent where nobody knows, and rules of both
    /// directions are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Whether it may pass.
    pub access: Cow<'static, str>,
    /// The rule that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What decides: `subnet`, `nic`, `admin`, `platform` or `none`.
    pub nsg: Cow<'static, str>,
    /// What the profile needs it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<String>,
    /// Why nobody knows, or why no rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it rests on an `Internet` that is computed from `VirtualNetwork`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approximate: bool,
    /// Rule by rule.
    #[serde(rename = "evaluatedNetworkSecurityGroups")]
    pub evaluated: Vec<Explained>,
}

/// An end, and what tells whether it is behind the groups' network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Located {
    ip: IpAddr,
    standing: Standing,
    /// Whether it is the node that the groups are of, or a pod on it.
    is_here: bool,
}

// === impl Located ===

impl Located {
    /// An address of which nothing else is known.
    pub(super) fn at(ip: IpAddr) -> Self {
        let standing = Standing::Unknown;
        Self {
            ip,
            standing,
            is_here: false,
        }
    }

    /// A node or a pod.
    pub(super) fn member(ip: IpAddr) -> Self {
        let standing = Standing::Member;
        Self {
            standing,
            ..Self::at(ip)
        }
    }

    /// An end that was asked for by this text, as far as the cluster's objects tell.
    pub(super) fn of(
        world: &World<'_>,
        text: &str,
        end: &End,
        ip: IpAddr,
        (protocol, port): (Protocol, Option<u16>),
    ) -> Self {
        let port = port.map(|port| (protocol, port));
        // Names are of nodes and pods only.
        let is_named = text.parse::<IpAddr>().is_err();
        let is_own = world.own.contains(&ip);
        let standing = match Standing::of(world.cluster, ip, port) {
            _ if is_named || is_own || end.pod.is_some() => Standing::Member,
            standing => standing,
        };
        let node = match &end.pod {
            Some(known) => known.pod.node.as_ref(),
            None => {
                let mut nodes = world.cluster.nodes();
                nodes
                    .find(|node| node.ips.contains(&ip))
                    .map(|node| &node.name)
            }
        };
        Self {
            ip,
            standing,
            is_here: is_own || node.is_some() && node == world.node.as_ref(),
        }
    }
}

// === impl NsgExplanation ===

impl NsgExplanation {
    /// Asks the groups; those of both directions where nothing tells which way it goes.
    pub(super) fn new(chain: &Chain, asked: &Asked, [from, to]: [Located; 2]) -> Self {
        let tuple = |direction| Tuple {
            direction,
            protocol: asked.protocol,
            source: from.ip,
            source_port: asked.source_port,
            destination: to.ip,
            destination_port: asked.port,
        };
        let direction = match (asked.direction, from.is_here, to.is_here) {
            (Some(direction), ..) => Ok(direction),
            (None, true, false) => Ok(Direction::Outbound),
            (None, false, true) => Ok(Direction::Inbound),
            _ => chain.direction((from.ip, from.standing), (to.ip, to.standing)),
        };
        match direction {
            Ok(direction) => Self::one_way(chain, &tuple(direction)),
            Err(unclear) => Self::either_way(
                unclear,
                [Direction::Inbound, Direction::Outbound]
                    .map(|direction| Self::one_way(chain, &tuple(direction))),
            ),
        }
    }

    fn one_way(chain: &Chain, tuple: &Tuple) -> Self {
        let verdict = chain.judge(tuple);
        let need = chain.needs().of(verdict.tuple());
        Self {
            direction: Some(tuple.direction),
            access: verdict.access.name().into(),
            rule: verdict.rule.map(|rule| rule.name.to_string()),
            nsg: verdict.decided_by.name().into(),
            need: need.map(|need| need.name.to_string()),
            reason: verdict.reason(),
            approximate: verdict.is_approximate(),
            evaluated: explain(chain, tuple),
        }
    }

    /// Of both ways; what is the same both ways is certain.
    fn either_way(unclear: Unclear, [inbound, outbound]: [Self; 2]) -> Self {
        let is_same = inbound.access == outbound.access;
        let denies = |one: &Self| one.access == Access::Deny.name();
        let nsg = if denies(&outbound) && !denies(&inbound) {
            outbound.nsg.clone()
        } else {
            inbound.nsg.clone()
        };
        let says = |one: &Self| match &one.rule {
            Some(rule) => format!("{} by {rule}", one.access),
            None => format!("{} ({})", one.access, one.nsg),
        };
        let reason = format!(
            "which end is at the network card is not known, for {unclear} (--direction says it): \
             inbound it is {}, outbound {}",
            says(&inbound),
            says(&outbound)
        );
        let evaluated = [
            (Direction::Inbound, inbound.evaluated),
            (Direction::Outbound, outbound.evaluated),
        ];
        let of = |(direction, explained): (Direction, Vec<Explained>)| {
            explained.into_iter().map(move |explained| Explained {
                direction: Some(direction),
                ..explained
            })
        };
        Self {
            direction: None,
            access: if is_same {
                inbound.access
            } else {
                Access::Indeterminate.name().into()
            },
            // Each way has its own.
            rule: None,
            nsg,
            need: inbound.need.or(outbound.need),
            reason: Some(reason),
            approximate: inbound.approximate || outbound.approximate,
            evaluated: evaluated.into_iter().flat_map(of).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc};

    use monitor_core::{
        netpol::Options,
        nsg::{Levels, Names},
    };

    use super::*;
    use crate::kube::manifests::Manifests;

    fn ssh(from: &str, to: &str) -> Asked {
        Asked {
            source: from.to_owned(),
            destination: to.to_owned(),
            protocol: Protocol::TCP,
            port: Some(22),
            source_port: None,
            direction: None,
        }
    }

    #[test]
    fn of_two_ends_of_the_cluster_the_one_on_this_node_is_at_the_network_card() {
        let text = "
kind: Node
apiVersion: v1
metadata: {name: here}
status: {addresses: [{type: InternalIP, address: 10.224.0.4}]}
---
kind: Node
apiVersion: v1
metadata: {name: there}
status: {addresses: [{type: InternalIP, address: 10.224.0.5}]}
---
kind: Pod
apiVersion: v1
metadata: {name: web, namespace: shop}
spec: {nodeName: here}
status: {podIP: 10.244.0.7}
";
        let (cluster, mut policies) = Manifests::parse("m", text).build(Options::default());
        let chain = Chain::new(Levels::default(), &Names::default());
        let own = HashSet::new();
        let mut check = |node: Option<&str>, from: &str, to: &str, expected| {
            let asked = ssh(from, to);
            let world = World {
                cluster: &cluster,
                policies: &mut policies,
                node: node.map(Arc::from),
                own: &own,
            };
            let found = super::super::explained(&asked, Some(&chain), Some(world));
            let found = found.expect("known ends").nsg.expect("groups").direction;
            assert_eq!(found, expected, "{node:?} {from} {to}");
        };
        let (inbound, outbound) = (Some(Direction::Inbound), Some(Direction::Outbound));
        check(None, "shop/web", "node/there", None);
        check(Some("here"), "shop/web", "node/there", outbound);
        check(Some("there"), "shop/web", "10.224.0.5", inbound);
        check(Some("here"), "node/here", "shop/web", None);
        check(Some("other"), "node/here", "node/there", None);
    }

    #[test]
    fn the_nodes_own_addresses_are_at_the_network_card_without_a_cluster() {
        let (cluster, mut policies) = Manifests::parse("m", "").build(Options::default());
        let chain = Chain::new(Levels::default(), &Names::default());
        let own = ["10.224.0.4", "fd00::4"].map(|ip| ip.parse().unwrap());
        let own = HashSet::from(own);
        let mut check = |from: &str, to: &str, expected| {
            let asked = ssh(from, to);
            let world = World {
                cluster: &cluster,
                policies: &mut policies,
                node: None,
                own: &own,
            };
            let found = super::super::explained(&asked, Some(&chain), Some(world));
            let found = found.expect("known ends").nsg.expect("groups").direction;
            assert_eq!(found, expected, "{from} {to}");
        };
        check("10.224.0.5", "10.224.0.4", Some(Direction::Inbound));
        check("10.224.0.4", "10.224.0.5", Some(Direction::Outbound));
        check(
            "::ffff:10.224.0.5",
            "::ffff:10.224.0.4",
            Some(Direction::Inbound),
        );
        check("fd00::5", "fd00::4", Some(Direction::Inbound));
        check("10.224.0.4", "10.224.0.4", None);
        check("10.224.0.5", "10.224.0.6", None);
    }
}
