//! Cluster-scoped policies: the first rule that matches, by priority, then by order.

use std::sync::Arc;

use super::{Case, Outcome, Subject, UNLABELLED, decided};
use crate::{
    event::Labels,
    netpol::{
        Action, Part, PodSet, Tier, TierPeer, TierPort, TierRule,
        trace::{Stage, Trace},
    },
};

/// Whether a rule matches.
enum Match {
    Yes(Action),
    No,
    /// That cannot be told, for this reason. If it is an Accept rule, what follows may still tell.
    Unclear(&'static str),
}

const NO_ADDRESS: &str = "the address of the other pod is not known";
const NODES: &str =
    "it depends on which nodes there are, which is not known (`nodewatch status` says why)";
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
        policies: &[Subject],
        open: &mut Option<Part>,
        trace: &mut impl Trace,
    ) -> Outcome {
        let priority = |subject: &Subject| subject.named.policy.priority;
        for equals in policies.chunk_by(|a, b| priority(a) == priority(b)) {
            let mut hits: Vec<(Action, &Arc<str>)> = Vec::new();
            for subject in equals {
                let named = &subject.named;
                match self.policy_hit(tier, subject, open, trace) {
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
        Subject { named, is_certain }: &Subject,
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
                // If the policy selects the pod at all. What follows in it counts only if it does.
                Match::Yes(Action::Accept) if !is_certain => {
                    let by = vec![Arc::clone(&named.label)];
                    open.get_or_insert_with(|| Part::undecided(UNLABELLED, by));
                    return Match::No;
                }
                Match::Yes(_) if !is_certain => return Match::Unclear(UNLABELLED),
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
            TierPeer::Pods(set) => match &end.pod {
                Some(pod) => set
                    .matches(self.namespace_labels(pod), &pod.pod.labels)
                    .map_or(Match::Unclear(UNLABELLED), when),
                None => Match::No,
            },
            TierPeer::Nodes(selector) => {
                let node = end.ip.and_then(|ip| self.cluster.node_of(ip));
                if end.pod.is_none() && node.is_none() && !self.cluster.knows_nodes() {
                    return Match::Unclear(NODES);
                }
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
    /// Whether a pod with these labels is meant, in a namespace with these, of which it is said
    /// whether they are all; `None` where that depends on others.
    pub(in crate::netpol) fn matches(
        &self,
        (namespace, is_whole): (&Labels, bool),
        pod: &Labels,
    ) -> Option<bool> {
        if !self.pods.as_ref().is_none_or(|pods| pods.matches(pod)) {
            return Some(false);
        }
        self.namespaces.matches_namespace(namespace, is_whole)
    }
}
