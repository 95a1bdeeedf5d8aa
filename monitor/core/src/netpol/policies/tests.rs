//! Services whose addresses are also those of nodes.

mod unlabelled;

use std::net::IpAddr;

use super::*;
use crate::{
    cluster::{Change, Endpoint, EndpointPort, EndpointSlice, Node, Pod, ServicePort, TargetPort},
    event::{Labels, Protocol},
    netpol::{IpBlock, Peer, PolicyPort, PortMatch, Rule, Selector},
    time::Timestamp,
};

const NODE: &str = "192.168.1.10";
const CLUSTER_IP: &str = "10.96.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A client, a node, and a service of port 80 that has the node's address and leads to what the
/// slice says.
fn cluster(endpoint: &str) -> Cluster {
    let port = |protocol, port| ServicePort {
        name: "".into(),
        protocol,
        port,
        target: TargetPort::Number(port),
    };
    let client = Pod {
        ips: vec![ip("10.244.1.7")],
        ..Pod::new("shop", "client")
    };
    let mut cluster = Cluster::new();
    for change in [
        client.into(),
        Change::Node(Node {
            name: "a".into(),
            labels: Labels::default(),
            ips: vec![ip(NODE)],
        }),
        Change::Service(Service {
            namespace: "shop".into(),
            name: "web".into(),
            ips: vec![ip(CLUSTER_IP), ip(NODE)],
            selector: None,
            ports: vec![port(Protocol::TCP, 80)],
        }),
        Change::EndpointSlice(EndpointSlice {
            namespace: "shop".into(),
            name: "web-1".into(),
            service: Some("web".into()),
            ports: vec![EndpointPort {
                name: "".into(),
                protocol: Protocol::TCP,
                port: 80,
            }],
            endpoints: vec![Endpoint {
                ip: ip(endpoint),
                is_terminating: false,
            }],
        }),
    ] {
        cluster.apply(change, Timestamp::from_seconds(1));
    }
    cluster
}

/// Egress of the namespace to this address and these ports.
fn egress(to: &str, port: u16) -> Policies {
    let mut policies = Policies::new(Options::default());
    policies.apply(PolicyChange::Namespaced(NetworkPolicy {
        namespace: "shop".into(),
        name: "out".into(),
        selector: Selector::default(),
        ingress: None,
        egress: Some(vec![Rule {
            peers: vec![Peer::Block(IpBlock {
                net: format!("{to}/32").parse().unwrap(),
                except: Vec::new(),
            })],
            ports: vec![PolicyPort {
                protocol: Protocol::TCP,
                port: Some(PortMatch::Range(port, port)),
            }],
        }]),
    }));
    policies
}

fn flow(cluster: &Cluster, to: &str, protocol: Protocol, port: u16) -> Flow {
    let ends = ["10.244.1.7", to].map(|text| cluster.end_of_ip(ip(text)));
    let [source, destination] = ends;
    Flow::new(source, destination, protocol, port)
}

#[test]
fn a_service_may_lead_to_its_own_address() {
    // A pod of the node's network behind a service that has the node's address.
    let cluster = cluster(NODE);
    let mut policies = egress(NODE, 80);
    for to in [NODE, CLUSTER_IP] {
        let flow = flow(&cluster, to, Protocol::TCP, 80);
        let verdict = policies.judge(&cluster, &flow);
        assert_eq!(verdict.allowed, Some(true));
        assert_eq!(verdict.service.as_deref(), Some("shop/web"));
        assert_eq!(&*verdict.egress.by[0], "NetworkPolicy shop/out");
        assert_eq!(policies.explain(&cluster, &flow).verdict, *verdict);
    }
}

#[test]
fn at_ports_that_a_service_does_not_have_a_node_answers_itself() {
    let cluster = cluster("192.0.2.9");
    let mut policies = egress(NODE, 22);
    let mut judge = |flow: &Flow| policies.judge(&cluster, flow);
    let verdict = judge(&flow(&cluster, NODE, Protocol::TCP, 22));
    assert_eq!(
        (verdict.allowed, verdict.service.as_deref()),
        (Some(true), None)
    );
    let verdict = judge(&flow(&cluster, NODE, Protocol::UDP, 80));
    assert_eq!(
        (verdict.allowed, verdict.service.as_deref()),
        (Some(false), None)
    );
    // An address of the pod's own node that no object tells of.
    let own = Flow {
        is_own_node: true,
        ..flow(&cluster, CLUSTER_IP, Protocol::TCP, 22)
    };
    assert_eq!(judge(&own).allowed, Some(true));
    // Where the address is nobody else's, nothing answers.
    let verdict = judge(&flow(&cluster, CLUSTER_IP, Protocol::TCP, 22));
    assert_eq!(verdict.allowed, None);
}

#[test]
fn behind_an_address_of_the_own_node_there_may_be_others() {
    // Where IPVS serves, the node has the addresses of all services.
    let cluster = cluster("192.0.2.9");
    let mut policies = egress("192.0.2.1", 80);
    let own = Flow {
        is_own_node: true,
        ..flow(&cluster, CLUSTER_IP, Protocol::TCP, 80)
    };
    let verdict = policies.judge(&cluster, &own);
    assert_eq!(verdict.allowed, Some(false));
    assert_eq!(verdict.service.as_deref(), Some("shop/web"));
}
