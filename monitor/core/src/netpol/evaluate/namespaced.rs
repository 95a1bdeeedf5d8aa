//! NetworkPolicies: the union of what their rules allow.

use std::{net::IpAddr, sync::Arc};

use super::{Case, Named, UNLABELLED};
use crate::{
    cluster::KnownPod,
    event::Protocol,
    netpol::{
        Direction, IpBlock, NetworkPolicy, Part, Peer, PolicyPort, PortMatch, Rule,
        trace::{Stage, Trace},
        verdict::Basis,
    },
};

/// How well something matches, the least first. Alternatives count as the best of them,
/// conditions that must all hold as the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    /// Not as configured; other network plugins would match.
    NotHere,
    /// It depends on an address that is not known.
    Unclear,
    /// It depends on labels of a namespace that are not known.
    Unlabelled,
    /// As configured; other network plugins would not match.
    Here,
    Yes,
}

// === impl Fit ===

impl Fit {
    fn when(is: bool) -> Self {
        if is { Self::Yes } else { Self::No }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::No => "does not match",
            Self::NotHere => "does not match here, with other network plugins it would",
            Self::Unclear => "may match: an address is not known",
            Self::Unlabelled => "may match: labels of a namespace are not known",
            Self::Here => "matches here, with other network plugins it would not",
            Self::Yes => "matches",
        }
    }
}

impl Case<'_> {
    /// What the NetworkPolicies that isolate a pod say together.
    pub(super) fn namespaced(
        &self,
        pod: &KnownPod,
        isolating: &[Arc<Named<NetworkPolicy>>],
        trace: &mut impl Trace,
    ) -> Part {
        if let Some(part) = self.exempt(pod, isolating, trace) {
            return part;
        }
        let mut best = Fit::No;
        let mut by: Vec<Arc<str>> = Vec::new();
        for named in isolating {
            let fit = self.policy(named, trace);
            if fit > best {
                best = fit;
                by.clear();
            }
            if fit == best && fit >= Fit::Unclear {
                by.push(Arc::clone(&named.label));
            }
        }
        match best {
            Fit::Yes | Fit::Here => {
                Part::decided(true, Basis::NetworkPolicy, by).plugin_dependent(best == Fit::Here)
            }
            Fit::Unclear => Part::undecided(
                "an ipBlock decides, and the address of the other pod is not known",
                by,
            ),
            Fit::Unlabelled => Part::undecided(UNLABELLED, by),
            Fit::No | Fit::NotHere => Part::decided(false, Basis::NetworkPolicy, labels(isolating))
                .plugin_dependent(best == Fit::NotHere),
        }
    }

    /// What rules do not decide.
    fn exempt(
        &self,
        pod: &KnownPod,
        isolating: &[Arc<Named<NetworkPolicy>>],
        trace: &mut impl Trace,
    ) -> Option<Part> {
        let peer = self.peer();
        let is_own_node = peer.pod.is_none()
            && (self.flow.is_own_node
                || peer
                    .ip
                    .is_some_and(|ip| self.cluster.is_own_node(&pod.pod, ip)));
        if is_own_node {
            trace.note(self.direction, Stage::Exemption, || {
                "the other end is the pod's own node, which is always allowed".to_owned()
            });
            return Some(Part::allowed(Basis::OwnNode));
        }
        let protocol = self.flow.protocol;
        let is_to_many = self.direction == Direction::Egress && peer.ip.is_some_and(is_to_many);
        let reason: Arc<str> = if !protocol.has_ports() {
            format!("NetworkPolicy does not define what it means for {protocol}").into()
        } else if is_to_many {
            "NetworkPolicy does not define what it means for multicast and broadcast".into()
        } else if self.flow.is_one_pod() {
            "NetworkPolicy does not define what it means for a pod that reaches itself through a Service".into()
        } else {
            return None;
        };
        trace.note(self.direction, Stage::NetworkPolicy, || reason.to_string());
        Some(Part::undecided(reason, labels(isolating)))
    }

    fn policy(&self, named: &Named<NetworkPolicy>, trace: &mut impl Trace) -> Fit {
        let rules = named.policy.rules(self.direction).unwrap_or_default();
        let mut best = Fit::No;
        for (index, rule) in rules.iter().enumerate() {
            let fit = self.rule(&named.policy, rule);
            trace.note(self.direction, Stage::NetworkPolicy, || {
                let (direction, text) = (self.direction, fit.text());
                let rule = describe(rule);
                format!("{}: {direction}[{index}] ({rule}) {text}", named.label)
            });
            best = best.max(fit);
            if best == Fit::Yes {
                return best;
            }
        }
        if rules.is_empty() {
            trace.note(self.direction, Stage::NetworkPolicy, || {
                format!(
                    "{}: no {} rules: allows nothing",
                    named.label, self.direction
                )
            });
        }
        best
    }

    fn rule(&self, policy: &NetworkPolicy, rule: &Rule) -> Fit {
        let best = |fits: &mut dyn Iterator<Item = Fit>| fits.max();
        let ports = best(&mut rule.ports.iter().map(|port| self.port(port)));
        let ports = ports.unwrap_or(Fit::Yes);
        if ports == Fit::No {
            return Fit::No;
        }
        let peers = best(&mut rule.peers.iter().map(|peer| self.other_end(policy, peer)));
        let together = if self.peer().ip.is_none() {
            self.blocks_together(&rule.peers)
        } else {
            Fit::No
        };
        peers
            .map_or(Fit::Yes, |peers| peers.max(together))
            .min(ports)
    }

    fn port(&self, port: &PolicyPort) -> Fit {
        if port.protocol != self.flow.protocol {
            return Fit::No;
        }
        match &port.port {
            None => Fit::Yes,
            Some(PortMatch::Range(first, last)) => {
                Fit::when((*first..=*last).contains(&self.flow.port))
            }
            // In either direction it is the destination's containers that name the port.
            Some(PortMatch::Name(name)) => match &self.flow.destination.pod {
                Some(pod) => named_port(pod, name, self.flow.protocol, self.flow.port),
                None => Fit::No,
            },
        }
    }

    fn other_end(&self, policy: &NetworkPolicy, peer: &Peer) -> Fit {
        let end = self.peer();
        match peer {
            Peer::Unknown => Fit::No,
            Peer::Pods { namespaces, pods } => {
                let Some(pod) = &end.pod else {
                    return Fit::No;
                };
                let in_namespace = match namespaces {
                    None => Some(pod.pod.namespace == policy.namespace),
                    Some(selector) => {
                        let (labels, is_whole) = self.namespace_labels(pod);
                        selector.matches_namespace(labels, is_whole)
                    }
                };
                let selects = |pods: &super::super::Selector| pods.matches(&pod.pod.labels);
                match in_namespace {
                    _ if !pods.as_ref().is_none_or(selects) => Fit::No,
                    Some(is_in) => Fit::when(is_in),
                    None => Fit::Unlabelled,
                }
            }
            Peer::Block(block) => self.block(block),
        }
    }

    fn block(&self, block: &IpBlock) -> Fit {
        self.held(match self.peer().ip {
            Some(ip) => Some(block.contains(ip)),
            None => self.hold_unknown(&[(&block.net, block.is_everything())].into_iter()),
        })
    }

    /// What blocks that each hold all of one family are together.
    fn blocks_together(&self, peers: &[Peer]) -> Fit {
        self.held(
            self.hold_unknown(&peers.iter().filter_map(|peer| match peer {
                Peer::Block(block) => Some((&block.net, block.is_everything())),
                Peer::Unknown | Peer::Pods { .. } => None,
            })),
        )
    }

    /// What it means that a block holds the other end, or that this cannot be told.
    fn held(&self, holds: Option<bool>) -> Fit {
        match (holds, &self.peer().pod) {
            (Some(false), _) => Fit::No,
            (Some(true), None) => Fit::Yes,
            (Some(true), Some(_)) if self.blocks_match_pods => Fit::Here,
            (None, _) if self.blocks_match_pods => Fit::Unclear,
            (Some(true) | None, _) => Fit::NotHere,
        }
    }
}

fn named_port(pod: &KnownPod, name: &str, protocol: Protocol, port: u16) -> Fit {
    if !pod.pod.has_port(name, protocol, port) {
        Fit::No
    } else if pod.pod.has_ambiguous_port(name, protocol) {
        Fit::Here
    } else {
        Fit::Yes
    }
}

/// Whether packets to an address go to many.
fn is_to_many(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    }
}

fn labels(policies: &[Arc<Named<NetworkPolicy>>]) -> Vec<Arc<str>> {
    policies
        .iter()
        .map(|named| Arc::clone(&named.label))
        .collect()
}

fn describe(rule: &Rule) -> String {
    let list = |items: Vec<String>, none: &str| {
        if items.is_empty() {
            none.to_owned()
        } else {
            items.join(" or ")
        }
    };
    let peers = rule.peers.iter().map(ToString::to_string).collect();
    let ports = rule.ports.iter().map(ToString::to_string).collect();
    format!(
        "{}; {}",
        list(peers, "everything"),
        list(ports, "all ports")
    )
}
