//! Namespaces, and nodes, that could not be listed: nothing is said that may be otherwise.

use std::sync::Arc;

use super::ip;
use crate::{
    cluster::{Change, Cluster, End, Missing, NAME_LABEL, Namespace, Node, Pod},
    event::Protocol,
    netpol::{
        Action, Flow, NetworkPolicy, Operator, Options, Part, Peer, PodSet, Policies, PolicyChange,
        Requirement, Rule, Selector, Tier, TierKind, TierPeer, TierPolicy, TierRule,
    },
    time::Timestamp,
};

const KEY: &str = "team";
const ALL_MISSING: Missing = Missing {
    namespaces: true,
    nodes: true,
};

/// Pseudorandom numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn selector(&mut self) -> Selector {
        let mut requirements = Vec::new();
        for _ in 0..self.below(3) {
            let (key, values) = match self.below(3) {
                0 => (NAME_LABEL, ["a", "b"]),
                _ => (KEY, ["x", "y"]),
            };
            let value: Arc<str> = values[usize::from(self.below(2) == 0)].into();
            let operator = match self.below(4) {
                0 => Operator::NotIn(vec![value]),
                1 => Operator::Exists,
                2 => Operator::DoesNotExist,
                _ => Operator::In(vec![value]),
            };
            let key = key.into();
            requirements.push(Requirement { key, operator });
        }
        Selector { requirements }
    }

    fn set(&mut self) -> PodSet {
        PodSet {
            namespaces: self.selector(),
            pods: None,
        }
    }

    fn namespaced(&mut self) -> NetworkPolicy {
        let peer = |random: &mut Self| Peer::Pods {
            namespaces: (random.below(4) > 0).then(|| random.selector()),
            pods: None,
        };
        let rule = |random: &mut Self| Rule {
            peers: (0..=random.below(2)).map(|_| peer(random)).collect(),
            ports: Vec::new(),
        };
        let rules = |random: &mut Self| {
            (random.below(3) > 0).then(|| (0..random.below(3)).map(|_| rule(random)).collect())
        };
        NetworkPolicy {
            namespace: ["a", "b"][usize::from(self.below(2) == 0)].into(),
            name: format!("p{}", self.below(3)).into(),
            selector: Selector::default(),
            ingress: rules(self),
            egress: rules(self),
        }
    }

    fn tier(&mut self) -> TierPolicy {
        let rule = |random: &mut Self| TierRule {
            name: None,
            action: [Action::Accept, Action::Deny, Action::Pass]
                [usize::try_from(random.below(3)).unwrap()],
            peers: (0..=random.below(2))
                .map(|_| TierPeer::Pods(random.set()))
                .collect(),
            ports: None,
        };
        let rules = |random: &mut Self| (0..random.below(3)).map(|_| rule(random)).collect();
        let tier = [Tier::Admin, Tier::Baseline][usize::from(self.below(2) == 0)];
        TierPolicy {
            kind: TierKind::Cluster,
            name: format!("t{}", self.below(4)).into(),
            tier,
            priority: u16::try_from(self.below(3)).unwrap(),
            subject: self.set(),
            ingress: rules(self),
            egress: rules(self),
        }
    }
}

/// Two pods in namespaces of which nothing but their names is told, unless it is.
fn cluster(labels: Option<[&str; 2]>) -> Cluster {
    let mut cluster = Cluster::new();
    let mut apply = |change: Change| cluster.apply(change, Timestamp::from_seconds(1));
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        if let Some(values) = labels {
            let label = (KEY.to_owned(), values[index].to_owned());
            let labels = Some(label).filter(|(_, value)| !value.is_empty());
            apply(Change::Namespace(Namespace {
                name: name.into(),
                labels: Arc::new(labels.into_iter().collect()),
            }));
        }
        let pod = Pod {
            ips: vec![ip(&format!("10.0.0.{}", index + 1))],
            ..Pod::new(name, "pod")
        };
        apply(pod.into());
    }
    cluster.set_missing(ALL_MISSING);
    cluster
}

fn flow(cluster: &Cluster) -> Flow {
    let [from, to] = ["10.0.0.1", "10.0.0.2"].map(|address| cluster.end_of_ip(ip(address)));
    Flow::new(from, to, Protocol::TCP, 80)
}

#[test]
fn what_is_said_without_labels_holds_with_whatever_labels() {
    let unlabelled = cluster(None);
    let mut worlds = Vec::new();
    for first in ["", "x", "y"] {
        for second in ["", "x", "y"] {
            worlds.push(cluster(Some([first, second])));
        }
    }
    let mut random = Random(5);
    // Parts that are told, and those that are not, and would be told alike by all worlds.
    let (mut told, mut untold, mut timid) = (0, 0, 0);
    for round in 0..20_000 {
        let mut policies = Policies::new(Options::default());
        for _ in 0..random.below(4) {
            policies.apply(PolicyChange::Namespaced(random.namespaced()));
        }
        for _ in 0..random.below(4) {
            policies.apply(PolicyChange::Tier(random.tier()));
        }
        let verdict = policies.judge(&unlabelled, &flow(&unlabelled));
        let explained = policies.explain(&unlabelled, &flow(&unlabelled));
        assert_eq!(*verdict, explained.verdict);
        let of_worlds: Vec<_> = worlds
            .iter()
            .map(|world| {
                // Each is another cluster, which no policies can tell.
                let mut policies = {
                    let mut same = Policies::new(Options::default());
                    policies.in_force().for_each(|change| same.apply(change));
                    same
                };
                policies.judge(world, &flow(world))
            })
            .collect();
        let sides: [fn(&crate::netpol::Verdict) -> &Part; 2] =
            [|verdict| &verdict.egress, |verdict| &verdict.ingress];
        for side in sides {
            let part = side(&verdict);
            let mut others = of_worlds.iter().map(|verdict| side(verdict).allowed);
            match part.allowed {
                Some(_) => {
                    told += 1;
                    // Where policies of one priority disagree, nothing is told with labels, either.
                    let same = others.all(|other| other == part.allowed || other.is_none());
                    assert!(same, "round {round}: {part:?} {policies:#?}");
                }
                None => {
                    untold += 1;
                    let first = others.next().flatten();
                    timid += u32::from(first.is_some() && others.all(|other| other == first));
                    assert!(part.reason.is_some() && !part.by.is_empty(), "{part:?}");
                }
            }
        }
    }
    println!("told {told}, not told {untold}, of them with one answer {timid}");
    assert!(told > 10_000 && untold > 5_000, "{told} {untold}");
    // Where it is not told, it mostly does depend on them; else several rules would have to be seen
    // together that cannot be told one by one.
    assert!(timid * 2 < untold, "{timid} of {untold}");
}

#[test]
fn names_of_namespaces_are_enough_where_only_they_are_asked_for() {
    let cluster = cluster(None);
    let ingress = |requirements: &[(&str, &str)]| {
        let requirement = |(key, value): &(&str, &str)| Requirement {
            key: (*key).into(),
            operator: Operator::In(vec![(*value).into()]),
        };
        let mut policies = Policies::new(Options::default());
        policies.apply(PolicyChange::Namespaced(NetworkPolicy {
            namespace: "b".into(),
            name: "in".into(),
            selector: Selector::default(),
            ingress: Some(vec![Rule {
                peers: vec![Peer::Pods {
                    namespaces: Some(Selector {
                        requirements: requirements.iter().map(requirement).collect(),
                    }),
                    pods: None,
                }],
                ports: Vec::new(),
            }]),
            egress: None,
        }));
        let verdict = policies.judge(&cluster, &flow(&cluster));
        verdict.ingress.clone()
    };
    assert_eq!(ingress(&[]).allowed, Some(true));
    assert_eq!(ingress(&[(NAME_LABEL, "a")]).allowed, Some(true));
    assert_eq!(ingress(&[(NAME_LABEL, "b")]).allowed, Some(false));
    // Whatever its labels are, it is not this one.
    assert_eq!(
        ingress(&[(KEY, "x"), (NAME_LABEL, "b")]).allowed,
        Some(false)
    );
    let part = ingress(&[(KEY, "x"), (NAME_LABEL, "a")]);
    assert_eq!(part.allowed, None);
    let reason = part.reason.expect("why");
    assert!(reason.contains("labels of a namespace"), "{reason}");
    assert_eq!(*part.by, ["NetworkPolicy b/in".into()]);
}

#[test]
fn what_is_known_of_a_namespace_counts_also_while_others_are_missing() {
    let mut cluster = cluster(Some(["x", ""]));
    let mut policies = Policies::new(Options::default());
    let set = PodSet {
        namespaces: Selector {
            requirements: vec![Requirement {
                key: KEY.into(),
                operator: Operator::Exists,
            }],
        },
        pods: None,
    };
    let rule = |peers| TierRule {
        name: None,
        action: Action::Deny,
        peers,
        ports: None,
    };
    policies.apply(PolicyChange::Tier(TierPolicy {
        kind: TierKind::Admin,
        name: "t".into(),
        tier: Tier::Admin,
        priority: 1,
        subject: set,
        ingress: Vec::new(),
        egress: vec![rule(vec![TierPeer::Nodes(Selector::default())])],
    }));
    // The policy is known to select the pod, and what is no pod may be a node.
    let pod = cluster.end_of_ip(ip("10.0.0.1"));
    let to = |cluster: &Cluster, policies: &mut Policies, end: End| {
        let flow = Flow::new(pod.clone(), end, Protocol::TCP, 80);
        policies.judge(cluster, &flow).egress.clone()
    };
    let other = cluster.end_of_ip(ip("10.0.0.2"));
    assert_eq!(to(&cluster, &mut policies, other).allowed, Some(true));
    let node = || End::outside(ip("192.0.2.1"));
    let part = to(&cluster, &mut policies, node());
    assert_eq!(part.allowed, None);
    assert!(part.reason.expect("why").contains("which nodes there are"));
    cluster.apply(
        Change::Node(Node {
            name: "one".into(),
            labels: crate::event::Labels::default(),
            ips: vec![ip("192.0.2.1")],
        }),
        Timestamp::from_seconds(2),
    );
    assert_eq!(to(&cluster, &mut policies, node()).allowed, Some(false));
    let outside = || End::outside(ip("192.0.2.2"));
    assert_eq!(to(&cluster, &mut policies, outside()).allowed, None);
    // Once all are known, it is none.
    cluster.set_missing(Missing::default());
    assert_eq!(to(&cluster, &mut policies, outside()).allowed, Some(true));
}
