//! What is behind a service.

use super::super::{Change, EndpointPort, Pod};
use super::*;
use crate::{event::Labels, time::Timestamp};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(selector: Option<Labels>) -> Service {
    let port = |name: &str, protocol, port, target| ServicePort {
        name: name.into(),
        protocol,
        port,
        target,
    };
    Service {
        namespace: "shop".into(),
        name: "api".into(),
        ips: vec![ip("10.96.0.1"), ip("fd00:96::1")],
        selector,
        ports: vec![
            port("https", Protocol::TCP, 443, TargetPort::Number(6443)),
            port("dns", Protocol::UDP, 53, TargetPort::Name("dns".into())),
        ],
    }
}

fn slice(name: &str, endpoints: &[(&str, bool)]) -> Change {
    let port = |name: &str, protocol, port| EndpointPort {
        name: name.into(),
        protocol,
        port,
    };
    Change::EndpointSlice(EndpointSlice {
        namespace: "shop".into(),
        name: name.into(),
        service: Some("api".into()),
        ports: vec![
            port("https", Protocol::TCP, 6443),
            port("dns", Protocol::UDP, 5353),
        ],
        endpoints: endpoints
            .iter()
            .map(|(address, is_terminating)| Endpoint {
                ip: ip(address),
                is_terminating: *is_terminating,
            })
            .collect(),
    })
}

fn cluster(changes: Vec<Change>) -> Cluster {
    let mut cluster = Cluster::new();
    for change in changes {
        cluster.apply(change, Timestamp::from_seconds(1));
    }
    cluster
}

/// Addresses and ports behind port 443 or 53 of one of the service's addresses.
fn behind(
    cluster: &Cluster,
    service: &Service,
    address: &str,
    protocol: Protocol,
) -> Result<Vec<(String, u16)>, &'static str> {
    let port = if protocol == Protocol::TCP { 443 } else { 53 };
    let ends = cluster.backends(service, protocol, Some(ip(address)), port)?;
    let mut told: Vec<_> = ends
        .into_iter()
        .map(|(end, port)| {
            let name = end.pod.map(|pod| pod.pod.name.to_string());
            (name.unwrap_or_else(|| end.ip.unwrap().to_string()), port)
        })
        .collect();
    told.sort();
    Ok(told)
}

fn some(ends: &[(&str, u16)]) -> Vec<(String, u16)> {
    ends.iter()
        .map(|(name, port)| ((*name).to_owned(), *port))
        .collect()
}

#[test]
fn without_a_selector_the_endpoints_count() {
    let service = service(None);
    let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
    let pod = Pod {
        ips: vec![ip("10.244.0.7")],
        ..Pod::new("other", "server")
    };
    let mut cluster = cluster(vec![
        slice("api-v4", &[("192.0.2.1", false), ("10.244.0.7", false)]),
        slice("api-v6", &[("2001:db8::1", false)]),
        pod.into(),
    ]);
    let found = behind(&cluster, &service, "10.96.0.1", tcp);
    assert_eq!(
        found.unwrap(),
        some(&[("192.0.2.1", 6443), ("server", 6443)])
    );
    // Dual stack: an address leads to endpoints of its family. Named ports are resolved.
    let found = behind(&cluster, &service, "fd00:96::1", udp);
    assert_eq!(found.unwrap(), some(&[("2001:db8::1", 5353)]));
    // A slice that changes, and those that go.
    let now = Timestamp::from_seconds(2);
    cluster.apply(slice("api-v4", &[("192.0.2.9", false)]), now);
    let found = behind(&cluster, &service, "10.96.0.1", tcp);
    assert_eq!(found.unwrap(), some(&[("192.0.2.9", 6443)]));
    for name in ["api-v4", "api-v6", "api-v4"] {
        cluster.apply(Change::EndpointSliceGone("shop".into(), name.into()), now);
    }
    let found = behind(&cluster, &service, "10.96.0.1", tcp);
    assert!(found.expect_err("nothing").contains("not known"));
    assert!(cluster.slices.by_service.is_empty() && cluster.slices.services.is_empty());
}

#[test]
fn ending_endpoints_count_where_there_are_no_others() {
    let service = service(None);
    let ending = cluster(vec![
        slice("a", &[("192.0.2.1", true)]),
        slice("b", &[("192.0.2.2", true)]),
    ]);
    let found = behind(&ending, &service, "10.96.0.1", Protocol::TCP);
    assert_eq!(
        found.unwrap(),
        some(&[("192.0.2.1", 6443), ("192.0.2.2", 6443)])
    );
    let some_ready = cluster(vec![
        slice("a", &[("192.0.2.1", true)]),
        slice("b", &[("192.0.2.2", false)]),
    ]);
    let found = behind(&some_ready, &service, "10.96.0.1", Protocol::TCP);
    assert_eq!(found.unwrap(), some(&[("192.0.2.2", 6443)]));
}

#[test]
fn with_a_selector_its_pods_count_and_else_the_endpoints() {
    let labels: Labels = Arc::new([("app".to_owned(), "api".to_owned())].into());
    let service = service(Some(Arc::clone(&labels)));
    let endpoints = slice("a", &[("192.0.2.1", false)]);
    let pod = Pod {
        ips: vec![ip("10.244.0.7"), ip("fd00:244::7")],
        labels,
        ..Pod::new("shop", "one")
    };
    let cluster_of = |changes| cluster(changes);
    let found = cluster_of(vec![endpoints.clone(), pod.into()]);
    let found = behind(&found, &service, "10.96.0.1", Protocol::TCP);
    assert_eq!(found.unwrap(), some(&[("one", 6443)]));
    // No right to see pods.
    let found = behind(
        &cluster_of(vec![endpoints]),
        &service,
        "10.96.0.1",
        Protocol::TCP,
    );
    assert_eq!(found.unwrap(), some(&[("192.0.2.1", 6443)]));
    let found = behind(
        &cluster_of(Vec::new()),
        &service,
        "10.96.0.1",
        Protocol::TCP,
    );
    assert_eq!(found, Err("no pod is behind it"));
}
