//! NetworkPolicies, simply.

use std::collections::BTreeSet;

use ipnet::IpNet;
use monitor_core::{
    event::Protocol,
    netpol::{NetworkPolicy, Peer, PortMatch},
};

use super::{Assumption, Everything, Outcomes, Place, Question, in_net, selects, text};

impl Everything {
    /// What NetworkPolicies say; nothing if none isolates the pod.
    pub(super) fn namespaced(
        &self,
        question: &Question,
        is_ingress: bool,
        subject: usize,
        peer: Place,
        assumption: &Assumption,
    ) -> Option<Outcomes> {
        let pod = &self.pods[subject];
        let isolating: Vec<&NetworkPolicy> = self
            .policies
            .iter()
            .filter(|policy| {
                let rules = if is_ingress {
                    &policy.ingress
                } else {
                    &policy.egress
                };
                policy.namespace == pod.namespace
                    && selects(&policy.selector, &pod.labels)
                    && rules.is_some()
            })
            .collect();
        if isolating.is_empty() {
            return None;
        }
        let is_own_node = peer.pod.is_none()
            && peer.ip.is_some_and(|ip| {
                let of_node = self
                    .nodes
                    .iter()
                    .any(|node| Some(&node.name) == pod.node.as_ref() && node.ips.contains(&ip));
                of_node || pod.host_ips.contains(&ip)
            });
        if is_own_node {
            return Some(Outcomes::one(true, []));
        }
        let to_many = !is_ingress && peer.ip.is_some_and(|ip| ip.is_multicast());
        let is_hairpin = question.source.pod == question.destination.pod;
        if !matches!(
            question.protocol,
            Protocol::TCP | Protocol::UDP | Protocol::SCTP
        ) || to_many
            || is_hairpin
        {
            return Some(Outcomes::anything());
        }
        let allowing = |blocks_match_pods: bool| -> BTreeSet<String> {
            isolating
                .iter()
                .filter(|policy| {
                    let rules = if is_ingress {
                        &policy.ingress
                    } else {
                        &policy.egress
                    };
                    rules.iter().flatten().any(|rule| {
                        let port = rule.ports.is_empty()
                            || rule.ports.iter().any(|port| {
                                port.protocol == question.protocol
                                    && match &port.port {
                                        None => true,
                                        Some(PortMatch::Range(first, last)) => {
                                            question.port >= *first && question.port <= *last
                                        }
                                        Some(PortMatch::Name(name)) => {
                                            self.named(question).contains(&&**name)
                                        }
                                    }
                            });
                        let end = rule.peers.is_empty()
                            || rule.peers.iter().any(|one| {
                                self.peer(one, policy, peer, assumption, blocks_match_pods)
                            });
                        port && end
                    })
                })
                .map(|policy| text(policy))
                .collect()
        };
        let (here, elsewhere) = (
            allowing(self.blocks_match_pods),
            allowing(!self.blocks_match_pods),
        );
        if here.is_empty() {
            let by = isolating.iter().map(|policy| text(policy));
            return Some(Outcomes::one(false, by));
        }
        let everywhere: BTreeSet<_> = here.intersection(&elsewhere).cloned().collect();
        let by = if everywhere.is_empty() {
            here
        } else {
            everywhere
        };
        Some(Outcomes::one(true, by))
    }

    fn peer(
        &self,
        peer: &Peer,
        policy: &NetworkPolicy,
        end: Place,
        assumption: &Assumption,
        blocks_match_pods: bool,
    ) -> bool {
        match peer {
            Peer::Unknown => false,
            Peer::Pods { namespaces, pods } => end.pod.is_some_and(|number| {
                let pod = &self.pods[number];
                let in_namespace = match namespaces {
                    None => pod.namespace == policy.namespace,
                    Some(selector) => selects(selector, &self.namespace_labels(&pod.namespace)),
                };
                in_namespace && pods.as_ref().is_none_or(|pods| selects(pods, &pod.labels))
            }),
            Peer::Block(block) => {
                let holds = |net: &IpNet| match end.ip {
                    Some(ip) => in_net(*net, ip),
                    None => assumption.holds(net),
                };
                (end.pod.is_none() || blocks_match_pods)
                    && holds(&block.net)
                    && !block.except.iter().any(holds)
            }
        }
    }
}
