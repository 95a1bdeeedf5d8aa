//! The simple evaluator: every policy is looked at for every question.

mod namespaced;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use monitor_core::{
    cluster::{Namespace, Node, Phase, Pod, Service, TargetPort},
    event::Protocol,
    netpol::{
        Action, NetworkPolicy, Operator, Peer, Selector, Tier, TierPeer, TierPolicy, TierPort,
    },
};

/// Networks of which every combination is looked at.
const COMBINED: usize = 6;

/// Everything that there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Everything {
    pub(super) namespaces: Vec<Namespace>,
    pub(super) pods: Vec<Pod>,
    pub(super) nodes: Vec<Node>,
    pub(super) services: Vec<Service>,
    pub(super) policies: Vec<NetworkPolicy>,
    pub(super) tiers: Vec<TierPolicy>,
    pub(super) blocks_match_pods: bool,
}

/// An end: a pod that is not host-network by its number, an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) pod: Option<usize>,
    pub(super) ip: Option<IpAddr>,
}

/// A question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) source: Place,
    pub(super) destination: Place,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) via_service: bool,
}

/// What may be the case where something is not known.
#[derive(Clone, Debug, Default)]
struct Assumption {
    /// Networks that hold the address that is not known.
    holds: BTreeSet<IpNet>,
    /// Whether domain names have the address.
    has_name: bool,
    /// Whether the address is of IPv4.
    is_ipv4: bool,
}

/// All that may come out of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub(super) allowed: BTreeSet<bool>,
    /// Whether something is not known or not defined.
    pub(super) is_open: bool,
    /// Policies responsible, where nothing is open.
    pub(super) by: BTreeSet<String>,
}

// === impl Assumption ===

impl Assumption {
    /// Whether a network holds the address that is not known.
    fn holds(&self, net: &IpNet) -> bool {
        let is_ipv4 = matches!(net, IpNet::V4(_));
        is_ipv4 == self.is_ipv4 && (net.prefix_len() == 0 || self.holds.contains(net))
    }
}

// === impl Outcomes ===

impl Outcomes {
    fn one(allowed: bool, by: impl IntoIterator<Item = String>) -> Self {
        Self {
            allowed: [allowed].into(),
            is_open: false,
            by: by.into_iter().collect(),
        }
    }

    fn anything() -> Self {
        Self {
            allowed: [true, false].into(),
            is_open: true,
            by: BTreeSet::new(),
        }
    }

    fn join(&mut self, other: Self) {
        self.allowed.extend(other.allowed);
        self.is_open |= other.is_open;
        self.by.extend(other.by);
    }
}

fn selects(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    for requirement in &selector.requirements {
        let mut value = None;
        for (key, text) in labels {
            if key.as_str() == &*requirement.key {
                value = Some(text.as_str());
            }
        }
        let holds = match (&requirement.operator, value) {
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::In(_), None) => false,
            (Operator::NotIn(_), None) => true,
            (Operator::In(values), Some(value)) => values.iter().any(|one| &**one == value),
            (Operator::NotIn(values), Some(value)) => values.iter().all(|one| &**one != value),
        };
        if !holds {
            return false;
        }
    }
    true
}

fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => (u128::from(u32::from(ip)), 32),
            None => (u128::from(ip), 128),
        },
    }
}

fn in_net(net: IpNet, ip: IpAddr) -> bool {
    let ((net_bits, net_width), (ip_bits, width)) = (bits(net.addr()), bits(ip));
    let shift = u32::from(width - net.prefix_len().min(width));
    net_width == width
        && net_bits.checked_shr(shift).unwrap_or(0) == ip_bits.checked_shr(shift).unwrap_or(0)
}

fn text(policy: &NetworkPolicy) -> String {
    format!("NetworkPolicy {}/{}", policy.namespace, policy.name)
}

fn tier_text(policy: &TierPolicy) -> String {
    format!("{} {}", policy.kind.name(), policy.name)
}

// === impl Everything ===

impl Everything {
    fn namespace_labels(&self, name: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for namespace in &self.namespaces {
            if &*namespace.name == name {
                labels.clone_from(&namespace.labels);
            }
        }
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
        labels
    }

    /// The pod that holds an address.
    pub(super) fn holder(&self, ip: IpAddr) -> Option<usize> {
        self.pods.iter().position(|pod| {
            !pod.host_network && pod.phase == Phase::Active && pod.ips.contains(&ip)
        })
    }

    /// The service that has an address.
    pub(super) fn service(&self, ip: IpAddr) -> Option<&Service> {
        self.services
            .iter()
            .find(|service| service.ips.contains(&ip))
    }

    /// The questions that a question to a service stands for; none if that is not known.
    pub(super) fn behind(&self, service: &Service, question: &Question) -> Vec<Question> {
        let mut questions = Vec::new();
        let port = service
            .ports
            .iter()
            .find(|port| port.protocol == question.protocol && port.port == question.port);
        let (Some(port), Some(selector)) = (port, &service.selector) else {
            return questions;
        };
        for (number, pod) in self.pods.iter().enumerate() {
            let has_all = selector
                .iter()
                .all(|(key, value)| pod.labels.get(&**key).is_some_and(|text| **text == **value));
            if pod.namespace != service.namespace || pod.phase != Phase::Active || !has_all {
                continue;
            }
            let target = match &port.target {
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => pod
                    .ports
                    .iter()
                    .find(|one| one.name == *name && one.protocol == question.protocol)
                    .map(|one| one.port),
            };
            let is_ipv4 = question.destination.ip.is_some_and(|ip| ip.is_ipv4());
            let of_family = pod.ips.iter().find(|ip| ip.is_ipv4() == is_ipv4);
            if let Some(target) = target {
                questions.push(Question {
                    destination: Place {
                        pod: (!pod.host_network).then_some(number),
                        ip: of_family.or(pod.ips.first()).copied(),
                    },
                    port: target,
                    via_service: true,
                    ..*question
                });
            }
        }
        questions
    }

    /// All that may come out for a pod's ingress or egress.
    pub(super) fn direction(&self, question: &Question, is_ingress: bool) -> Outcomes {
        let (place, peer) = if is_ingress {
            (question.destination, question.source)
        } else {
            (question.source, question.destination)
        };
        let Some(subject) = place.pod else {
            return Outcomes::one(true, []);
        };
        let is_itself = question.source.pod == question.destination.pod;
        if is_itself && !question.via_service {
            return Outcomes::one(true, []);
        }
        // What depends on what is not known: every combination of it.
        let all = if peer.pod.is_some() && peer.ip.is_none() {
            self.nets()
        } else {
            Vec::new()
        };
        let nets: Vec<IpNet> = all
            .iter()
            .filter(|net| net.prefix_len() > 0)
            .take(COMBINED)
            .copied()
            .collect();
        // Both ends have addresses of one family.
        let families = match place.ip {
            Some(ip) => vec![ip.is_ipv4()],
            None => vec![true, false],
        };
        let mut outcomes = Outcomes::default();
        for combination in 0..1_u32 << nets.len() {
            let names: &[bool] = if peer.pod.is_none() {
                &[false, true]
            } else {
                &[false]
            };
            for has_name in names.iter().copied() {
                for is_ipv4 in families.iter().copied() {
                    let holds = nets
                        .iter()
                        .enumerate()
                        .filter(|(index, _)| combination >> index & 1 == 1)
                        .map(|(_, net)| *net)
                        .collect();
                    let assumption = Assumption {
                        holds,
                        has_name,
                        is_ipv4,
                    };
                    outcomes.join(self.tiered(question, is_ingress, subject, peer, &assumption));
                }
            }
        }
        outcomes.is_open |= !all.is_empty() || peer.pod.is_none() && self.has_names();
        outcomes
    }

    /// Whether a policy has domain names.
    fn has_names(&self) -> bool {
        let mut peers = self
            .tiers
            .iter()
            .flat_map(|policy| &policy.egress)
            .flat_map(|rule| &rule.peers);
        peers.any(|peer| matches!(peer, TierPeer::DomainNames(_)))
    }

    /// Networks that may hold an address that is not known.
    fn nets(&self) -> Vec<IpNet> {
        let mut nets = BTreeSet::new();
        for policy in &self.policies {
            for rule in [&policy.ingress, &policy.egress]
                .into_iter()
                .flatten()
                .flatten()
            {
                for peer in &rule.peers {
                    if let Peer::Block(block) = peer {
                        nets.insert(block.net);
                        nets.extend(&block.except);
                    }
                }
            }
        }
        for policy in &self.tiers {
            for peer in policy.egress.iter().flat_map(|rule| &rule.peers) {
                if let TierPeer::Networks(list) = peer {
                    nets.extend(list);
                }
            }
        }
        nets.into_iter().collect()
    }

    fn tiered(
        &self,
        question: &Question,
        is_ingress: bool,
        subject: usize,
        peer: Place,
        assumption: &Assumption,
    ) -> Outcomes {
        let hit = |tier, next: &dyn Fn() -> Outcomes| {
            let mut joined = Outcomes::default();
            let (actions, by) = self.tier(tier, question, is_ingress, subject, peer, assumption);
            for action in &actions {
                joined.join(match action {
                    Some(Action::Accept) => Outcomes::one(true, by.iter().cloned()),
                    Some(Action::Deny) => Outcomes::one(false, by.iter().cloned()),
                    Some(Action::Pass) | None => next(),
                });
            }
            joined.is_open |= actions.len() > 1;
            joined
        };
        hit(Tier::Admin, &|| {
            self.namespaced(question, is_ingress, subject, peer, assumption)
                .unwrap_or_else(|| hit(Tier::Baseline, &|| Outcomes::one(true, [])))
        })
    }

    /// What the policies of a tier do, each possibility, and those that do it.
    fn tier(
        &self,
        tier: Tier,
        question: &Question,
        is_ingress: bool,
        subject: usize,
        peer: Place,
        assumption: &Assumption,
    ) -> (Vec<Option<Action>>, Vec<String>) {
        let pod = &self.pods[subject];
        let labels = self.namespace_labels(&pod.namespace);
        for priority in (0..=10).chain([1_001]) {
            let (mut actions, mut by) = (Vec::new(), Vec::new());
            for policy in &self.tiers {
                let is_subject = selects(&policy.subject.namespaces, &labels)
                    && policy
                        .subject
                        .pods
                        .as_ref()
                        .is_none_or(|pods| selects(pods, &pod.labels));
                if policy.tier != tier || policy.priority != priority || !is_subject {
                    continue;
                }
                let rules = if is_ingress {
                    &policy.ingress
                } else {
                    &policy.egress
                };
                for rule in rules {
                    let ports = rule.ports.as_deref();
                    let is_unknown = rule.peers.contains(&TierPeer::Unknown)
                        || ports.is_some_and(|ports| ports.contains(&TierPort::Unknown));
                    let action = match (is_unknown, rule.action) {
                        (true, Action::Accept) => continue,
                        (true, _) => Action::Deny,
                        (false, action) => action,
                    };
                    let has_addresses = rule
                        .peers
                        .iter()
                        .any(|peer| !matches!(peer, TierPeer::Pods(_)));
                    let port = ports.is_none_or(|ports| {
                        ports
                            .iter()
                            .any(|port| self.tier_port(port, question, has_addresses))
                    });
                    let end = rule
                        .peers
                        .iter()
                        .any(|one| self.tier_peer(one, action, peer, assumption));
                    if is_unknown || port && end {
                        actions.push(Some(action));
                        by.push(tier_text(policy));
                        break;
                    }
                }
            }
            actions.dedup();
            actions.sort_by_key(|action| action.map(|action| action as u8));
            actions.dedup();
            if !actions.is_empty() {
                return (actions, by);
            }
        }
        (vec![None], Vec::new())
    }

    fn tier_port(&self, port: &TierPort, question: &Question, has_addresses: bool) -> bool {
        match port {
            TierPort::Unknown => false,
            TierPort::Range {
                protocol,
                first,
                last,
            } => {
                *protocol == question.protocol && question.port >= *first && question.port <= *last
            }
            TierPort::Name(name) => !has_addresses && self.named(question).contains(&&**name),
        }
    }

    /// Names of the destination's port.
    fn named(&self, question: &Question) -> Vec<&str> {
        let Some(pod) = question.destination.pod else {
            return Vec::new();
        };
        self.pods[pod]
            .ports
            .iter()
            .filter(|port| port.protocol == question.protocol && port.port == question.port)
            .map(|port| &*port.name)
            .collect()
    }

    fn tier_peer(
        &self,
        peer: &TierPeer,
        action: Action,
        end: Place,
        assumption: &Assumption,
    ) -> bool {
        match (peer, end.pod) {
            (TierPeer::Pods(set), Some(number)) => {
                let pod = &self.pods[number];
                selects(&set.namespaces, &self.namespace_labels(&pod.namespace))
                    && set
                        .pods
                        .as_ref()
                        .is_none_or(|pods| selects(pods, &pod.labels))
            }
            (TierPeer::Pods(_) | TierPeer::Unknown, _)
            | (TierPeer::Nodes(_) | TierPeer::DomainNames(_), Some(_)) => false,
            (TierPeer::Nodes(selector), None) => self.nodes.iter().any(|node| {
                end.ip.is_some_and(|ip| node.ips.contains(&ip)) && selects(selector, &node.labels)
            }),
            (TierPeer::DomainNames(_), None) => action == Action::Accept && assumption.has_name,
            (TierPeer::Networks(nets), _) => nets.iter().any(|net| match end.ip {
                Some(ip) => in_net(*net, ip),
                None => assumption.holds(net),
            }),
        }
    }
}
