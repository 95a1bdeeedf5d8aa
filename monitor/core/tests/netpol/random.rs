//! Random clusters and policies, of few names, so that much matches.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use monitor_core::{
    cluster::{ContainerPort, Namespace, Node, Phase, Pod, Service, ServicePort, TargetPort},
    event::{Labels, Protocol},
    netpol::{
        Action, IpBlock, NetworkPolicy, Operator, Peer, PodSet, PolicyPort, PortMatch, Requirement,
        Rule, Selector, Tier, TierKind, TierPeer, TierPolicy, TierPort, TierRule,
    },
};

/// A generator of random numbers (splitmix64, Vigna 2015).
pub(super) struct Random(pub(super) u64);

pub(super) const NAMESPACES: [&str; 4] = ["one", "two", "three", "four"];
const PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
const KEYS: [&str; 3] = ["app", "tier", "kubernetes.io/metadata.name"];
const VALUES: [&str; 5] = ["web", "db", "one", "two", "x"];
const PORT_NAMES: [&str; 3] = ["http", "dns", "admin"];

// === impl Random ===

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a small number");
        usize::try_from(self.next() % end).expect("a small number")
    }

    /// True once in `of` times.
    pub(super) fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn labels(&mut self) -> Labels {
        let pairs = self.some(2, |random| {
            (
                random.pick(&KEYS[..2]).to_owned(),
                random.pick(&VALUES).to_owned(),
            )
        });
        Arc::new(pairs.into_iter().collect())
    }

    pub(super) fn namespace(&mut self, name: &str) -> Namespace {
        Namespace {
            name: name.into(),
            labels: self.labels(),
        }
    }

    /// Pod number `number`; its addresses are its own.
    pub(super) fn pod(&mut self, number: usize) -> Pod {
        let name = format!("pod-{number}");
        let mut pod = Pod::new(self.pick(&NAMESPACES), &name);
        pod.labels = self.labels();
        pod.node = Some(self.pick(&["n0", "n1", "n2"]).into());
        pod.host_network = self.once_in(10);
        pod.ips = match self.below(8) {
            0 => vec![],
            1 | 2 => vec![
                ip(&format!("10.1.{}.{number}", self.below(3))),
                ip(&format!("fd00::{number}")),
            ],
            _ => vec![ip(&format!("10.1.{}.{number}", self.below(3)))],
        };
        if pod.host_network {
            pod.ips = vec![ip(&format!("192.168.0.{}", self.below(3)))];
        }
        if self.once_in(4) {
            pod.host_ips = vec![ip(&format!("192.168.0.{}", self.below(3)))];
        }
        if self.once_in(12) {
            pod.phase = Phase::Ended;
        }
        pod.ports = self.some(3, |random| ContainerPort {
            name: random.pick(&PORT_NAMES).into(),
            protocol: random.pick(&PROTOCOLS),
            port: random.port(),
        });
        pod
    }

    pub(super) fn node(&mut self, number: usize) -> Node {
        Node {
            name: format!("n{number}").into(),
            labels: self.labels(),
            ips: vec![ip(&format!("192.168.0.{number}"))],
        }
    }

    pub(super) fn service(&mut self, number: usize) -> Service {
        let selector = self.labels();
        Service {
            namespace: self.pick(&NAMESPACES).into(),
            name: format!("service-{number}").into(),
            ips: vec![ip(&format!("10.96.0.{number}"))],
            selector: Some(selector).filter(|selector| !selector.is_empty()),
            ports: self.some(3, |random| ServicePort {
                name: "".into(),
                protocol: random.pick(&PROTOCOLS),
                port: random.port(),
                target: match random.below(2) {
                    0 => TargetPort::Number(random.port()),
                    _ => TargetPort::Name(random.pick(&PORT_NAMES).into()),
                },
            }),
        }
    }

    pub(super) fn port(&mut self) -> u16 {
        self.pick(&[53, 80, 81, 82, 443])
    }

    pub(super) fn protocol(&mut self) -> Protocol {
        match self.below(12) {
            0 => Protocol::ICMP,
            1 => Protocol::SCTP,
            2 | 3 => Protocol::UDP,
            _ => Protocol::TCP,
        }
    }

    fn selector(&mut self) -> Selector {
        let requirements = self.some(2, |random| {
            let values = |random: &mut Self| -> Vec<Arc<str>> {
                (0..=random.below(2))
                    .map(|_| random.pick(&VALUES).into())
                    .collect()
            };
            Requirement {
                key: random.pick(&KEYS).into(),
                operator: match random.below(5) {
                    0 => Operator::NotIn(values(random)),
                    1 => Operator::Exists,
                    2 => Operator::DoesNotExist,
                    _ => Operator::In(values(random)),
                },
            }
        });
        Selector { requirements }
    }

    fn net(&mut self) -> IpNet {
        let nets = [
            "0.0.0.0/0",
            "::/0",
            "10.1.0.0/16",
            "10.1.1.0/24",
            "10.1.2.0/25",
            "10.1.0.3/32",
            "192.168.0.0/24",
            "192.168.0.1/32",
            "203.0.113.0/24",
            "203.0.113.8/29",
            "fd00::/64",
            "fd00::4/126",
            "10.0.0.0/8",
        ];
        self.pick(&nets).parse().expect("a network")
    }

    fn block(&mut self) -> IpBlock {
        let net = self.net();
        let except = self.some(2, Self::net);
        IpBlock {
            net,
            except: except
                .into_iter()
                .filter(|hole| net.contains(hole) && *hole != net)
                .collect(),
        }
    }

    fn peer(&mut self) -> Peer {
        match self.below(9) {
            0 => Peer::Unknown,
            1..=3 => Peer::Block(self.block()),
            4 | 5 => Peer::Pods {
                namespaces: None,
                pods: Some(self.selector()),
            },
            6 => Peer::Pods {
                namespaces: Some(self.selector()),
                pods: None,
            },
            _ => Peer::Pods {
                namespaces: Some(self.selector()),
                pods: Some(self.selector()),
            },
        }
    }

    fn policy_port(&mut self) -> PolicyPort {
        PolicyPort {
            protocol: self.pick(&PROTOCOLS),
            port: match self.below(5) {
                0 => None,
                1 => Some(PortMatch::Name(self.pick(&PORT_NAMES).into())),
                2 => Some(PortMatch::Range(self.port(), 100)),
                _ => {
                    let port = self.port();
                    Some(PortMatch::Range(port, port))
                }
            },
        }
    }

    fn rules(&mut self) -> Option<Vec<Rule>> {
        (!self.once_in(3)).then(|| {
            self.some(3, |random| Rule {
                peers: random.some(3, Self::peer),
                ports: random.some(2, Self::policy_port),
            })
        })
    }

    pub(super) fn policy(&mut self, number: usize) -> NetworkPolicy {
        NetworkPolicy {
            namespace: self.pick(&NAMESPACES).into(),
            name: format!("policy-{number}").into(),
            selector: self.selector(),
            ingress: self.rules(),
            egress: self.rules(),
        }
    }

    fn pod_set(&mut self) -> PodSet {
        PodSet {
            namespaces: self.selector(),
            pods: (!self.once_in(2)).then(|| self.selector()),
        }
    }

    fn tier_rule(&mut self, is_egress: bool) -> TierRule {
        let action = self.pick(&[Action::Accept, Action::Deny, Action::Pass]);
        let peers = self.some(3, |random| {
            match random.below(if is_egress { 12 } else { 7 }) {
                0 if random.once_in(3) => TierPeer::Unknown,
                0..=6 => TierPeer::Pods(random.pod_set()),
                7 => TierPeer::Nodes(random.selector()),
                8 if action == Action::Accept => TierPeer::DomainNames(vec!["example.org".into()]),
                _ => TierPeer::Networks(random.some(2, Self::net)),
            }
        });
        let ports = (!self.once_in(2)).then(|| {
            self.some(3, |random| match random.below(10) {
                0 if random.once_in(3) => TierPort::Unknown,
                0..=2 => TierPort::Name(random.pick(&PORT_NAMES).into()),
                _ => TierPort::Range {
                    protocol: random.pick(&PROTOCOLS),
                    first: random.port(),
                    last: 100,
                },
            })
        });
        TierRule {
            name: None,
            action,
            peers,
            ports,
        }
    }

    pub(super) fn tier_policy(&mut self, number: usize) -> TierPolicy {
        let kind = self.pick(&[
            TierKind::Admin,
            TierKind::Cluster,
            TierKind::Cluster,
            TierKind::BaselineAdmin,
        ]);
        let priority = u16::try_from(self.below(6)).expect("a small number");
        let (name, tier, priority) = match kind {
            TierKind::Admin => (format!("tier-{number}"), Tier::Admin, priority),
            TierKind::Cluster => {
                let tier = self.pick(&[Tier::Admin, Tier::Baseline]);
                (format!("tier-{number}"), tier, priority)
            }
            // There is one, after all others of its tier.
            TierKind::BaselineAdmin => ("default".to_owned(), Tier::Baseline, 1_001),
        };
        let mut policy = TierPolicy {
            kind,
            name: name.into(),
            tier,
            priority,
            subject: self.pod_set(),
            ingress: self.some(3, |random| random.tier_rule(false)),
            egress: self.some(3, |random| random.tier_rule(true)),
        };
        if kind == TierKind::BaselineAdmin {
            for rule in policy.ingress.iter_mut().chain(&mut policy.egress) {
                if rule.action == Action::Pass {
                    rule.action = Action::Deny;
                }
            }
        }
        policy
    }

    /// An address outside, of a node, or near the pods'.
    pub(super) fn address(&mut self) -> IpAddr {
        let addresses = [
            "203.0.113.9",
            "203.0.113.77",
            "192.168.0.0",
            "192.168.0.1",
            "192.168.0.2",
            "10.1.1.200",
            "2001:db8::1",
            "fd00::99",
            "::ffff:203.0.113.9",
            "224.0.0.251",
        ];
        ip(self.pick(&addresses))
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
