//! Both evaluators asked the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use monitor_core::{
    cluster::{Change, Cluster, End, Phase},
    entity::normalise,
    event::Protocol,
    netpol::{Basis, Flow, Options, Part, Policies, PolicyChange, Tier, TierKind, TierPeer},
    time::Timestamp,
};

use super::{
    random::{NAMESPACES, Random},
    simple::{Everything, Outcomes, Place, Question},
};

/// Verdicts to compare: more than a million in an optimised build.
const VERDICTS: u64 = if cfg!(debug_assertions) {
    20_000
} else {
    2_000_000
};
/// Questions about one cluster.
const QUESTIONS: usize = 200;
/// Questions between two changes.
const STEADY: usize = 10;
/// Where the random numbers begin.
const SEED: u64 = 20_261_124;

/// Both, with the same in them.
struct Both {
    random: Random,
    simple: Everything,
    cluster: Cluster,
    policies: Policies,
}

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    /// Verdicts.
    verdicts: u64,
    /// Directions where nothing is open.
    closed: u64,
    allowed: u64,
    denied: u64,
    /// Directions where something is open, and how many of these were told or could have been.
    open: u64,
    open_told: u64,
    open_untold: u64,
    services: u64,
    changes: u64,
    /// Directions by what they rest on.
    by_basis: BTreeMap<&'static str, u64>,
    by_baseline_admin: u64,
    ipv6: u64,
    sctp: u64,
}

// === impl Both ===

impl Both {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let blocks_match_pods = !random.once_in(3);
        let mut both = Self {
            simple: Everything {
                blocks_match_pods,
                ..Everything::default()
            },
            cluster: Cluster::new(),
            policies: Policies::new(Options { blocks_match_pods }),
            random,
        };
        for name in NAMESPACES {
            if !both.random.once_in(5) {
                let namespace = both.random.namespace(name);
                both.apply(Change::Namespace(namespace));
            }
        }
        for number in 0..3 {
            let node = both.random.node(number);
            both.apply(Change::Node(node));
        }
        for number in 0..12 {
            let pod = both.random.pod(number);
            both.apply(pod.into());
        }
        for number in 0..3 {
            let service = both.random.service(number);
            both.apply(Change::Service(service));
        }
        for number in 0..both.random.below(7) {
            let policy = both.random.policy(number);
            both.apply_policy(PolicyChange::Namespaced(policy));
        }
        for number in 0..both.random.below(6) {
            both.tier(number);
        }
        both
    }

    fn tier(&mut self, number: usize) {
        let policy = self.random.tier_policy(number);
        self.apply_policy(PolicyChange::Tier(policy));
    }

    /// One change in both.
    fn apply(&mut self, change: Change) {
        let simple = &mut self.simple;
        match change.clone() {
            Change::Namespace(namespace) => {
                simple.namespaces.retain(|one| one.name != namespace.name);
                simple.namespaces.push(namespace);
            }
            Change::Pod(pod) => match simple.pods.iter_mut().find(|one| one.name == pod.name) {
                Some(known) => *known = *pod,
                None => simple.pods.push(*pod),
            },
            Change::Node(node) => {
                simple.nodes.retain(|one| one.name != node.name);
                simple.nodes.push(node);
            }
            Change::NodeGone(name) => simple.nodes.retain(|one| one.name != name),
            Change::Service(service) => {
                simple.services.retain(|one| one.name != service.name);
                simple.services.push(service);
            }
            Change::NamespaceGone(_)
            | Change::PodGone(..)
            | Change::PodLost(..)
            | Change::ServiceGone(..)
            | Change::EndpointSlice(_)
            | Change::EndpointSliceGone(..) => {}
        }
        self.cluster.apply(change, Timestamp::UNIX_EPOCH);
    }

    fn apply_policy(&mut self, change: PolicyChange) {
        let simple = &mut self.simple;
        match change.clone() {
            PolicyChange::Namespaced(policy) => {
                simple
                    .policies
                    .retain(|one| (&one.namespace, &one.name) != (&policy.namespace, &policy.name));
                simple.policies.push(policy);
            }
            PolicyChange::NamespacedGone(namespace, name) => simple
                .policies
                .retain(|one| one.namespace != namespace || one.name != name),
            PolicyChange::Tier(policy) => {
                simple
                    .tiers
                    .retain(|one| (one.kind, &one.name) != (policy.kind, &policy.name));
                simple.tiers.push(policy);
            }
            PolicyChange::TierGone(kind, name) => simple
                .tiers
                .retain(|one| one.kind != kind || one.name != name),
        }
        self.policies.apply(change);
    }

    /// Something changes.
    fn change(&mut self) {
        match self.random.below(8) {
            0 | 1 => {
                let number = self.random.below(self.simple.pods.len());
                let mut pod = self.random.pod(number);
                // It stays where it is.
                pod.namespace = Arc::clone(&self.simple.pods[number].namespace);
                self.apply(pod.into());
            }
            2 => {
                let name = self.random.pick(&NAMESPACES);
                let namespace = self.random.namespace(name);
                self.apply(Change::Namespace(namespace));
            }
            3 => {
                let number = self.random.below(3);
                let node = self.random.node(number);
                let change = if self.random.once_in(4) {
                    Change::NodeGone(node.name)
                } else {
                    Change::Node(node)
                };
                self.apply(change);
            }
            4 | 5 => {
                let number = self.random.below(7);
                let policy = self.random.policy(number);
                let change = if self.random.once_in(3) {
                    PolicyChange::NamespacedGone(policy.namespace, policy.name)
                } else {
                    PolicyChange::Namespaced(policy)
                };
                self.apply_policy(change);
            }
            _ => {
                let number = self.random.below(6);
                if self.random.once_in(3) {
                    let policy = self.random.tier_policy(number);
                    self.apply_policy(PolicyChange::TierGone(policy.kind, policy.name));
                } else {
                    self.tier(number);
                }
            }
        }
    }

    /// A place that a connection may begin or end at.
    fn place(&mut self) -> Place {
        if self.random.once_in(4) {
            let ip = normalise(self.random.address());
            return Place {
                pod: self.simple.holder(ip),
                ip: Some(ip),
            };
        }
        let number = self.random.below(self.simple.pods.len());
        let pod = &self.simple.pods[number];
        let ip = (!pod.ips.is_empty()).then(|| self.random.pick(&pod.ips));
        Place {
            pod: (!pod.host_network).then_some(number),
            ip,
        }
    }

    fn end(&self, place: Place) -> End {
        End {
            pod: place.pod.map(|number| {
                let pod = &self.simple.pods[number];
                let known = self.cluster.pod(&pod.namespace, &pod.name);
                Arc::clone(known.expect("both have the same pods"))
            }),
            ip: place.ip,
        }
    }

    fn ask(&mut self, tally: &mut Tally) {
        let protocol = self.random.protocol();
        let is_service = self.random.once_in(12);
        let destination = if is_service {
            let ip = format!("10.96.0.{}", self.random.below(3));
            let ip: IpAddr = ip.parse().expect("an address");
            Place {
                pod: None,
                ip: Some(ip),
            }
        } else {
            self.place()
        };
        let question = Question {
            source: self.place(),
            destination,
            protocol,
            port: self.random.port(),
            via_service: false,
        };
        let flow = Flow::new(
            self.end(question.source),
            self.end(question.destination),
            protocol,
            question.port,
        );
        // By address, the cluster finds the same pod.
        if let (Some(ip), Some(pod)) = (question.source.ip, question.source.pod)
            && self.simple.pods[pod].phase == Phase::Active
            && self.simple.holder(ip) == Some(pod)
        {
            assert_eq!(self.cluster.end_of_ip(ip), flow.source);
        }
        let verdict = self.policies.judge(&self.cluster, &flow);
        let parts = [(&verdict.egress, false), (&verdict.ingress, true)];
        let service = question
            .destination
            .ip
            .filter(|_| question.destination.pod.is_none())
            .and_then(|ip| self.simple.service(ip));
        let questions = match service {
            Some(service) => self.simple.behind(service, &question),
            None => vec![question],
        };
        tally.services += u64::from(service.is_some());
        tally.sctp += u64::from(protocol == Protocol::SCTP);
        tally.ipv6 += u64::from(question.destination.ip.is_some_and(|ip| ip.is_ipv6()));
        for (part, is_ingress) in parts {
            *tally.by_basis.entry(part.basis.name()).or_default() += 1;
            let by = part.by.iter().any(|by| by.starts_with("Baseline"));
            tally.by_baseline_admin += u64::from(by);
            if questions.is_empty() {
                let is_source = !is_ingress && question.source.pod.is_none();
                assert_eq!(part.allowed, is_source.then_some(true), "{question:?}");
                continue;
            }
            let mut outcomes = Outcomes::default();
            for question in &questions {
                let one = self.simple.direction(question, is_ingress);
                outcomes.allowed.extend(&one.allowed);
                outcomes.is_open |= one.is_open;
                outcomes.by.extend(one.by);
            }
            outcomes.is_open |= outcomes.allowed.len() > 1;
            self.compare(part, &outcomes, &question, tally);
        }
        let allowed = [verdict.egress.allowed, verdict.ingress.allowed];
        let expected = if allowed.contains(&Some(false)) {
            Some(false)
        } else if allowed.contains(&None) {
            None
        } else {
            Some(true)
        };
        assert_eq!(verdict.allowed, expected);
        tally.verdicts += 1;
    }

    fn compare(&self, part: &Part, outcomes: &Outcomes, question: &Question, tally: &mut Tally) {
        let context = || {
            format!(
                "{question:#?}\n{part:#?}\n{outcomes:#?}\n{:#?}",
                self.simple
            )
        };
        if outcomes.is_open {
            tally.open += 1;
            match part.allowed {
                Some(allowed) => {
                    tally.open_told += 1;
                    assert_eq!(outcomes.allowed, [allowed].into(), "{}", context());
                }
                None => {
                    tally.open_untold += u64::from(outcomes.allowed.len() == 1);
                    assert!(part.reason.is_some(), "{}", context());
                }
            }
            return;
        }
        let allowed = part
            .allowed
            .unwrap_or_else(|| panic!("untold: {}", context()));
        assert_eq!(outcomes.allowed, [allowed].into(), "{}", context());
        tally.closed += 1;
        tally.allowed += u64::from(allowed);
        tally.denied += u64::from(!allowed);
        // One name for several ports makes other policies than these responsible elsewhere.
        if !self.has_ambiguous_ports() {
            let by: BTreeSet<String> = part.by.iter().map(ToString::to_string).collect();
            assert_eq!(by, outcomes.by, "{}", context());
        }
    }

    fn has_ambiguous_ports(&self) -> bool {
        let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
        self.simple.pods.iter().any(|pod| {
            pod.ports.iter().any(|port| {
                protocols
                    .iter()
                    .any(|protocol| pod.has_ambiguous_port(&port.name, *protocol))
            })
        })
    }
}

#[test]
fn compiled_and_simple_verdicts_are_the_same() {
    let mut tally = Tally::default();
    let mut seed = SEED;
    while tally.verdicts < VERDICTS {
        seed += 1;
        let mut both = Both::new(seed);
        for number in 0..QUESTIONS {
            if number % STEADY == STEADY - 1 {
                both.change();
                tally.changes += 1;
            }
            both.ask(&mut tally);
        }
    }
    println!("{} clusters: {tally:?}", seed - SEED);
    // The comparison means nothing if it is about nothing.
    assert!(
        tally.allowed > VERDICTS / 10 && tally.denied > VERDICTS / 10,
        "{tally:?}"
    );
    assert!(
        tally.services > VERDICTS / 100 && tally.changes > VERDICTS / 100,
        "{tally:?}"
    );
    for basis in Basis::ALL {
        let count = tally.by_basis.get(basis.name()).copied().unwrap_or(0);
        assert!(count > VERDICTS / 200, "{basis}: {tally:?}");
    }
    for count in [tally.by_baseline_admin, tally.ipv6, tally.sctp] {
        assert!(count > VERDICTS / 100, "{tally:?}");
    }
    // What could be told is told, as a rule.
    assert!(tally.open_untold < tally.open / 2, "{tally:?}");
}

#[test]
fn random_policies_have_what_is_rare() {
    let mut random = Random(SEED);
    let policies: Vec<_> = (0..1_000)
        .map(|number| random.tier_policy(number))
        .collect();
    let peers = || {
        policies
            .iter()
            .flat_map(|policy| policy.egress.iter().flat_map(|rule| &rule.peers))
    };
    assert!(policies.iter().any(|policy| policy.tier == Tier::Baseline));
    for kind in TierKind::ALL {
        assert!(policies.iter().any(|policy| policy.kind == *kind));
    }
    assert!(peers().any(|peer| matches!(peer, TierPeer::DomainNames(_))));
    assert!(peers().any(|peer| matches!(peer, TierPeer::Nodes(_))));
    assert!(peers().any(|peer| *peer == TierPeer::Unknown));
}
