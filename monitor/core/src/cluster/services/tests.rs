//! Whose an address is.

use std::net::IpAddr;

use crate::{
    cluster::{Change, Cluster, Service, ServicePort, TargetPort},
    event::Protocol,
    time::Timestamp,
};

#[test]
fn services_of_one_address_are_told_apart_by_protocol_and_port() {
    let mut cluster = Cluster::new();
    let address: IpAddr = "20.1.2.3".parse().unwrap();
    let service = |name: &str, protocol, port| {
        Change::Service(Service {
            namespace: "shop".into(),
            name: name.into(),
            ips: vec![address],
            selector: None,
            ports: vec![ServicePort {
                name: "".into(),
                protocol,
                port,
                target: TargetPort::Number(port),
            }],
        })
    };
    let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
    cluster.apply(service("dns-tcp", tcp, 53), Timestamp::from_seconds(1));
    cluster.apply(service("dns-udp", udp, 53), Timestamp::from_seconds(1));
    cluster.apply(service("api", tcp, 443), Timestamp::from_seconds(1));
    let found = |cluster: &Cluster, port| {
        let service = cluster.service_of(address, port);
        service.map(|service| service.name.to_string())
    };
    let check = |cluster: &Cluster, port, expected: Option<&str>| {
        assert_eq!(found(cluster, port).as_deref(), expected, "{port:?}");
    };
    check(&cluster, Some((tcp, 53)), Some("dns-tcp"));
    check(&cluster, Some((udp, 53)), Some("dns-udp"));
    check(&cluster, Some((tcp, 443)), Some("api"));
    // None of them has it: always the same.
    check(&cluster, Some((tcp, 80)), Some("api"));
    check(&cluster, None, Some("api"));
    // One goes, one gets another port: the rest is as it was.
    cluster.apply(
        Change::ServiceGone("shop".into(), "api".into()),
        Timestamp::from_seconds(2),
    );
    cluster.apply(service("dns-tcp", tcp, 5_353), Timestamp::from_seconds(2));
    check(&cluster, Some((udp, 53)), Some("dns-udp"));
    check(&cluster, Some((tcp, 5_353)), Some("dns-tcp"));
    check(&cluster, Some((tcp, 53)), Some("dns-tcp"));
    cluster.apply(
        Change::ServiceGone("shop".into(), "dns-tcp".into()),
        Timestamp::from_seconds(3),
    );
    check(&cluster, Some((tcp, 53)), Some("dns-udp"));
    cluster.apply(
        Change::ServiceGone("shop".into(), "dns-udp".into()),
        Timestamp::from_seconds(3),
    );
    check(&cluster, Some((udp, 53)), None);
}
