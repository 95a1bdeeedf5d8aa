//! A large cluster, the same each time: 10,000 pods in 500 namespaces, on 200 nodes, with 2,000
//! policies.

use std::{net::Ipv4Addr, sync::Arc};

use monitor_core::{
    cluster::{Change, Cluster, ContainerPort, KnownPod, Namespace, Node, Pod},
    event::{Labels, Protocol},
    netpol::{
        Flow, IpBlock, NetworkPolicy, Operator, Peer, PolicyChange, PolicyPort, PortMatch,
        Requirement, Rule, Selector,
    },
};

pub(crate) const NAMESPACES: u32 = 500;
pub(crate) const PODS: u32 = 10_000;
pub(crate) const POLICIES: u32 = 2_000;
const NODES: u32 = 200;

pub(crate) fn labels(pairs: &[(&str, String)]) -> Labels {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()));
    Arc::new(pairs.collect())
}

pub(crate) fn selector(key: &str, value: &str) -> Selector {
    Selector {
        requirements: vec![Requirement {
            key: key.into(),
            operator: Operator::In(vec![value.into()]),
        }],
    }
}

pub(crate) fn namespace_name(number: u32) -> String {
    format!("namespace-{}", number % NAMESPACES)
}

/// A pod with as many labels as charts give.
pub(crate) fn pod(number: u32) -> Pod {
    let app = format!("app-{}", number / NAMESPACES % 5);
    Pod {
        uid: Some(format!("0d6a6f2e-0000-4000-8000-{number:012}").into()),
        labels: labels(&[
            ("app.kubernetes.io/name", app.clone()),
            ("app.kubernetes.io/instance", namespace_name(number)),
            ("app.kubernetes.io/managed-by", "Helm".to_owned()),
            ("helm.sh/chart", format!("{app}-1.2.3")),
            ("pod-template-hash", format!("5d9f7c{}", number % 7)),
            ("tier", format!("tier-{}", number % 3)),
        ]),
        ips: vec![Ipv4Addr::from_bits(0x0af4_0000 + number).into()],
        host_ips: vec![Ipv4Addr::from_bits(0x0ae0_0000 + number % NODES).into()],
        node: Some(format!("node-{}", number % NODES).into()),
        ports: vec![ContainerPort {
            name: "http".into(),
            protocol: Protocol::TCP,
            port: 8_080,
        }],
        workload: Some(format!("Deployment/{app}").into()),
        ..Pod::new(&namespace_name(number), &format!("pod-{number}"))
    }
}

/// One of four policies of each namespace: deny all, from an application, from a team and blocks,
/// egress to the name service and to an application.
pub(crate) fn policy(number: u32) -> NetworkPolicy {
    let tcp = |port| PolicyPort {
        protocol: Protocol::TCP,
        port: Some(port),
    };
    let of_app = |name: &str| Peer::Pods {
        namespaces: None,
        pods: Some(selector("app.kubernetes.io/name", name)),
    };
    let of_team = Peer::Pods {
        namespaces: Some(selector("team", &format!("team-{}", number % 20))),
        pods: Some(selector("tier", "tier-1")),
    };
    let block = |net: &str, except: &[&str]| {
        Peer::Block(IpBlock {
            net: net.parse().expect("a network"),
            except: except
                .iter()
                .map(|net| net.parse().expect("a network"))
                .collect(),
        })
    };
    let (subject, ingress, egress) = match number / NAMESPACES {
        0 => (Selector::default(), Some(vec![]), None),
        1 => (
            selector("app.kubernetes.io/name", "app-0"),
            Some(vec![Rule {
                peers: vec![of_app("app-1"), of_app("app-2")],
                ports: vec![tcp(PortMatch::Name("http".into()))],
            }]),
            None,
        ),
        2 => (
            selector("tier", "tier-0"),
            Some(vec![Rule {
                peers: vec![of_team, block("203.0.113.0/24", &["203.0.113.0/28"])],
                ports: vec![tcp(PortMatch::Range(8_000, 9_000))],
            }]),
            None,
        ),
        _ => (
            selector("app.kubernetes.io/name", "app-1"),
            None,
            Some(vec![
                Rule {
                    peers: vec![Peer::Pods {
                        namespaces: Some(selector("kubernetes.io/metadata.name", "namespace-0")),
                        pods: None,
                    }],
                    ports: vec![PolicyPort {
                        protocol: Protocol::UDP,
                        port: Some(PortMatch::Range(53, 53)),
                    }],
                },
                Rule {
                    peers: vec![of_app("app-0")],
                    ports: vec![],
                },
            ]),
        ),
    };
    NetworkPolicy {
        namespace: namespace_name(number).into(),
        name: format!("policy-{number}").into(),
        selector: subject,
        ingress,
        egress,
    }
}

/// Everything that there is, as changes.
pub(crate) fn changes() -> (Vec<Change>, Vec<PolicyChange>) {
    let namespaces = (0..NAMESPACES).map(|number| {
        Change::Namespace(Namespace {
            name: namespace_name(number).into(),
            labels: labels(&[("team", format!("team-{}", number % 20))]),
        })
    });
    let nodes = (0..NODES).map(|number| {
        Change::Node(Node {
            name: format!("node-{number}").into(),
            labels: Labels::default(),
            ips: vec![Ipv4Addr::from_bits(0x0ae0_0000 + number).into()],
        })
    });
    let pods = (0..PODS).map(|number| Change::from(pod(number)));
    let policies = (0..POLICIES).map(|number| PolicyChange::Namespaced(policy(number)));
    (
        namespaces.chain(nodes).chain(pods).collect(),
        policies.collect(),
    )
}

/// Flow number `number`: most stay in their namespace, some come from other ones, some from outside.
pub(crate) fn flow(cluster: &Cluster, pods: &[Arc<KnownPod>], number: u32) -> Flow {
    let mixed = number.wrapping_mul(2_654_435_761);
    let pod = |number: u32| &pods[(number % PODS) as usize];
    let destination = cluster.end_of_pod(pod(mixed), None);
    let source = match number % 8 {
        0 => cluster.end_of_ip(Ipv4Addr::from_bits(0xcb00_7100 + number % 256).into()),
        1 | 2 => cluster.end_of_pod(pod(mixed >> 7), None),
        // Pods of one namespace are so many apart.
        _ => cluster.end_of_pod(pod(mixed.wrapping_add(NAMESPACES * (number % 13))), None),
    };
    let port = if number.is_multiple_of(3) {
        9_090
    } else {
        8_080
    };
    Flow::new(source, destination, Protocol::TCP, port)
}

/// All pods, by their numbers.
pub(crate) fn sorted_pods(cluster: &Cluster) -> Vec<Arc<KnownPod>> {
    let mut pods: Vec<Arc<KnownPod>> = cluster.pods().map(Arc::clone).collect();
    let number = |known: &Arc<KnownPod>| {
        let digits = known.pod.name.rsplit('-').next();
        digits.and_then(|digits| digits.parse::<u32>().ok())
    };
    pods.sort_by_key(number);
    pods
}
