//! Cluster-scoped policies: the first rule that matches, by priority, then by order.

use std::sync::Arc;

use super::{Case, Named, Outcome, decided};
use crate::netpol::{
    Action, Part, PodSet, Tier, TierPeer, TierPolicy, TierPort, TierRule,
    trace::{Stage, Trace},
};

/// Whether a rule matches.
enum Match {
    Yes(Action),
    No,
    /// That cannot be told, for this reason. If it is an Accept rule, what follows may still tell.
    Unclear(&'static str),
}

const NO_ADDRESS: &str = "the address of the other pod is not known";
const DOMAIN_NAMES: &str =
    "a rule for domain names may accept, and which addresses these have is not known";
const EQUAL_PRIORITY: &str =
    "policies of equal priority disagree, and which of them is applied is not defined";

impl Case<'_> {
    /// What the policies of a tier say that select the pod. `open` is set where a rule may have
    /// accepted and that cannot be told.
    pub(super) fn tier(
        &self,
        tier: Tier,
        policies: &[Arc<Named<TierPolicy>>],
        open: &mut Option<Part>,
        trace: &mut impl Trace,
    ) -> Outcome {
        for equals in policies.chunk_by(|a, b| a.policy.priority == b.policy.priority) {
            let mut hits: Vec<(Action, &Arc<str>)> = Vec::new();
            for named in equals {
                match self.policy_hit(tier, named, open, trace) {
                    Match::Yes(action) => hits.push((action, &named.label)),
                    Match::No => {}
                    Match::Unclear(reason) => {
                        return Outcome::Final(Part::undecided(
                            reason,
                            vec![Arc::clone(&named.label)],
                        ));
                    }
                }
            }
            let Some((action, _)) = hits.first().copied() else {
                continue;
            };
            let by: Vec<_> = hits.iter().map(|(_, label)| Arc::clone(label)).collect();
            if hits.iter().any(|(other, _)| *other != action) {
                trace.note(self.direction, Stage::of(tier), || {
                    format!("{}: {EQUAL_PRIORITY}", by.join(", "))
                });
                return Outcome::Final(Part::undecided(EQUAL_PRIORITY, by));
            }
            return decided(tier, action, by);
        }
        Outcome::Next
    }

    /// The first rule of a policy that matches.
    fn policy_hit(
        &self,
        tier: Tier,
        named: &Named<TierPolicy>,
        open: &mut Option<Part>,
        trace: &mut impl Trace,
    ) -> Match {
        for (index, rule) in named.policy.rules(self.direction).iter().enumerate() {
            let hit = self.tier_rule(rule);
            trace.note(self.direction, Stage::of(tier), || {
                let action = rule.action;
                let name = rule.name.as_deref().unwrap_or_default();
                let text = match &hit {
                    Match::Yes(hit) if *hit != action => "cannot be read whole: denies",
                    Match::Yes(_) => "matches",
                    Match::No => "does not match",
                    Match::Unclear(reason) => reason,
                };
                let (label, direction) = (&named.label, self.direction);
                format!("{label}: {direction}[{index}] {name} {action}: {text}")
            });
            match hit {
                Match::No => {}
                Match::Unclear(reason) if rule.action == Action::Accept => {
                    let by = vec![Arc::clone(&named.label)];
                    open.get_or_insert_with(|| Part::undecided(reason, by));
                }
                Match::Yes(_) | Match::Unclear(_) => return hit,
            }
        }
        Match::No
    }

    fn tier_rule(&self, rule: &TierRule) -> Match {
        if !rule.is_known() {
            return match rule.action {
                Action::Accept => Match::No,
                Action::Deny | Action::Pass => Match::Yes(Action::Deny),
            };
        }
        if !self.tier_ports(rule) {
            return Match::No;
        }
        let mut unclear = None;
        for peer in &rule.peers {
            match self.tier_peer(rule.action, peer) {
                Match::Yes(_) => return Match::Yes(rule.action),
                Match::No => {}
                Match::Unclear(reason) => unclear = Some(reason),
            }
        }
        unclear.map_or(Match::No, Match::Unclear)
    }

    fn tier_ports(&self, rule: &TierRule) -> bool {
        let Some(ports) = &rule.ports else {
            return true;
        };
        let flow = self.flow;
        ports.iter().any(|port| match port {
            TierPort::Range {
                protocol,
                first,
                last,
            } => *protocol == flow.protocol && (*first..=*last).contains(&flow.port),
            TierPort::Name(name) => {
                !rule.has_addresses()
                    && flow
                        .destination
                        .pod
                        .as_ref()
                        .is_some_and(|pod| pod.pod.has_port(name, flow.protocol, flow.port))
            }
            TierPort::Unknown => false,
        })
    }

    fn tier_peer(&self, action: Action, peer: &TierPeer) -> Match {
        let end = self.peer();
        let when = |is: bool| if is { Match::Yes(action) } else { Match::No };
        match peer {
            TierPeer::Pods(set) => when(
                end.pod
                    .as_ref()
                    .is_some_and(|pod| set.matches(&self.namespace_labels(pod), &pod.pod.labels)),
            ),
            TierPeer::Nodes(selector) => {
                let node = end.ip.and_then(|ip| self.cluster.node_of(ip));
                when(end.pod.is_none() && node.is_some_and(|node| selector.matches(&node.labels)))
            }
            TierPeer::Networks(nets) => match end.ip {
                Some(ip) => when(nets.iter().any(|net| net.contains(&ip))),
                None => {
                    let nets = nets.iter().map(|net| (net, net.prefix_len() == 0));
                    self.hold_unknown(&nets)
                        .map_or(Match::Unclear(NO_ADDRESS), when)
                }
            },
            // Only Accept rules may have them; they are meant for what is outside the cluster.
            TierPeer::DomainNames(_) if action == Action::Accept && end.pod.is_none() => {
                Match::Unclear(DOMAIN_NAMES)
            }
            TierPeer::DomainNames(_) | TierPeer::Unknown => Match::No,
        }
    }
}

// === impl TierRule ===

impl TierRule {
    /// Whether all of it is known here.
    fn is_known(&self) -> bool {
        !self.peers.contains(&TierPeer::Unknown)
            && !self
                .ports
                .as_ref()
                .is_some_and(|ports| ports.contains(&TierPort::Unknown))
    }

    /// Whether one of its peers is about addresses: such a rule has no named ports.
    fn has_addresses(&self) -> bool {
        self.peers.iter().any(|peer| match peer {
            TierPeer::Nodes(_) | TierPeer::Networks(_) | TierPeer::DomainNames(_) => true,
            TierPeer::Pods(_) | TierPeer::Unknown => false,
        })
    }
}

// === impl PodSet ===

impl PodSet {
    /// Whether a pod with these labels, in a namespace with these, is meant.
    pub(in crate::netpol) fn matches(
        &self,
        namespace: &crate::event::Labels,
        pod: &crate::event::Labels,
    ) -> bool {
        self.namespaces.matches(namespace)
            && self.pods.as_ref().is_none_or(|pods| pods.matches(pod))
    }
}
