//! Who holds an address, and when.

use super::*;
use crate::{
    entity::{Names, Sight},
    event::{EntityKind, Labels, Point},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(name: &str, address: &str) -> Pod {
    Pod {
        uid: Some(format!("uid-{name}").into()),
        ips: vec![ip(address)],
        ..Pod::new("shop", name)
    }
}

fn gone(name: &str) -> Change {
    Change::PodGone("shop".into(), name.into())
}

/// Name of the pod that held an address.
fn holder(cluster: &Cluster, address: &str, seconds: i64) -> Option<String> {
    let end = cluster.end_at(ip(address), at(seconds));
    end.pod.map(|known| known.pod.name.to_string())
}

/// Name of the pod that holds an address now.
fn current(cluster: &Cluster, address: &str) -> Option<String> {
    let end = cluster.end_of_ip(ip(address));
    end.pod.map(|known| known.pod.name.to_string())
}

#[test]
fn a_reused_address_belongs_to_whom_held_it_then() {
    let mut cluster = Cluster::new();
    let address = "10.244.1.7";
    cluster.apply(pod("first", address).into(), at(100));
    cluster.apply(gone("first"), at(200));
    let second = Pod {
        start: Some(at(195)),
        ..pod("second", address)
    };
    cluster.apply(second.into(), at(210));
    for (time, name) in [
        (100, "first"),
        (199, "first"),
        (200, "second"),
        (210, "second"),
        (9_999, "second"),
    ] {
        assert_eq!(
            holder(&cluster, address, time).as_deref(),
            Some(name),
            "{time}"
        );
    }
    assert_eq!(current(&cluster, address).as_deref(), Some("second"));
}

#[test]
fn a_pod_stays_named_shortly_after_its_end() {
    let mut cluster = Cluster::new();
    let address = "10.244.1.7";
    let start = Some(at(50));
    cluster.apply(
        Pod {
            start,
            ..pod("a", address)
        }
        .into(),
        at(100),
    );
    cluster.apply(gone("a"), at(200));
    assert_eq!(current(&cluster, address), None);
    assert_eq!(holder(&cluster, address, 49), None);
    assert_eq!(holder(&cluster, address, 50).as_deref(), Some("a"));
    assert_eq!(holder(&cluster, address, 229).as_deref(), Some("a"));
    assert_eq!(holder(&cluster, address, 230), None);
}

#[test]
fn an_ended_pod_frees_its_address_when_its_containers_ended() {
    let mut cluster = Cluster::new();
    let address = "10.244.1.7";
    cluster.apply(pod("job", address).into(), at(100));
    let ended = Pod {
        phase: Phase::Ended,
        end: Some(at(150)),
        ..pod("job", address)
    };
    cluster.apply(ended.clone().into(), at(300));
    assert_eq!(current(&cluster, address), None);
    assert_eq!(holder(&cluster, address, 149).as_deref(), Some("job"));
    assert_eq!(holder(&cluster, address, 190), None);
    // It is still an object, and its deletion changes nothing.
    assert!(cluster.pod("shop", "job").is_some());
    cluster.apply(gone("job"), at(400));
    assert_eq!(holder(&cluster, address, 149).as_deref(), Some("job"));
    assert_eq!(holder(&cluster, address, 399), None);
    // One that had ended before it was first seen, and does not say when, held nothing.
    let late = Pod { end: None, ..ended };
    let mut cluster = Cluster::new();
    cluster.apply(late.into(), at(300));
    assert_eq!(holder(&cluster, address, 149), None);
    assert_eq!(cluster.addresses_len(), 0);
}

#[test]
fn a_pod_that_is_made_anew_under_its_name_is_another() {
    let mut cluster = Cluster::new();
    cluster.apply(pod("web-0", "10.244.1.7").into(), at(100));
    let first = cluster.pod("shop", "web-0").unwrap().id;
    let again = Pod {
        uid: Some("uid-other".into()),
        labels: Arc::new([("v".to_owned(), "2".to_owned())].into()),
        start: Some(at(200)),
        ..pod("web-0", "10.244.1.8")
    };
    cluster.apply(again.into(), at(210));
    assert_ne!(cluster.pod("shop", "web-0").unwrap().id, first);
    let labels = |address: &str, time: i64| {
        let end = cluster.end_at(ip(address), at(time));
        end.pod.map(|known| known.pod.labels.len())
    };
    assert_eq!(labels("10.244.1.7", 150), Some(0));
    assert_eq!(labels("10.244.1.8", 250), Some(1));
    assert_eq!(labels("10.244.1.7", 250), None);
}

#[test]
fn a_change_of_a_pod_keeps_its_address_and_gives_it_another_identity() {
    let mut cluster = Cluster::new();
    let before = Pod::new("shop", "a");
    cluster.apply(before.clone().into(), at(1));
    let id = |cluster: &Cluster| cluster.pod("shop", "a").unwrap().id;
    let first = id(&cluster);
    cluster.apply(before.clone().into(), at(2));
    assert_eq!(id(&cluster), first, "nothing changed");
    let running = Pod {
        ips: vec![ip("10.244.1.7"), ip("fd00::7")],
        ..before
    };
    cluster.apply(running.clone().into(), at(3));
    assert_ne!(id(&cluster), first);
    let labelled = Pod {
        labels: Arc::new([("v".to_owned(), "2".to_owned())].into()),
        ..running
    };
    cluster.apply(labelled.into(), at(4));
    for address in ["10.244.1.7", "fd00::7", "::ffff:10.244.1.7"] {
        let end = cluster.end_of_ip(ip(address));
        assert_eq!(end.pod.unwrap().pod.labels.len(), 1, "{address}");
    }
}

#[test]
fn what_is_kept_of_ended_pods_is_bounded() {
    let mut cluster = Cluster::new();
    for number in 0..70_000_u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).to_string();
        let name = format!("pod-{number}");
        cluster.apply(pod(&name, &address).into(), at(1));
        cluster.apply(gone(&name), at(2));
    }
    assert_eq!(cluster.pod_count(), 0);
    assert_eq!(cluster.addresses_len(), 65_536);
    // So is what is kept of one address.
    for number in 0..100 {
        let name = format!("other-{number}");
        let start = Some(at(number * 10));
        cluster.apply(
            Pod {
                start,
                ..pod(&name, "192.0.2.1")
            }
            .into(),
            at(number * 10),
        );
        cluster.apply(gone(&name), at(number * 10 + 9));
    }
    assert_eq!(
        holder(&cluster, "192.0.2.1", 995).as_deref(),
        Some("other-99")
    );
    assert_eq!(holder(&cluster, "192.0.2.1", 5), None);
}

#[test]
fn names_tell_pods_nodes_and_services() {
    let mut names = Names::new(vec!["all=10.0.0.0/8".parse().unwrap()]).unwrap();
    names.set_addresses(&["10.224.0.4/16".parse().unwrap()]);
    let cluster = names.cluster_mut();
    let web = Pod {
        workload: Some("Deployment/web".into()),
        labels: Arc::new([("app".to_owned(), "web".to_owned())].into()),
        ..pod("web-1", "10.244.1.7")
    };
    cluster.apply(web.into(), at(100));
    let host = Pod {
        host_network: true,
        ..pod("host", "10.224.0.5")
    };
    cluster.apply(host.into(), at(100));
    for (name, address) in [("n4", "10.224.0.4"), ("n5", "10.224.0.5")] {
        let node = Node {
            name: name.into(),
            labels: Labels::default(),
            ips: vec![ip(address)],
        };
        cluster.apply(Change::Node(node), at(100));
    }
    let service = Service {
        namespace: "shop".into(),
        name: "web".into(),
        ips: vec![ip("10.96.0.1")],
        selector: None,
        ports: Vec::new(),
    };
    cluster.apply(Change::Service(service), at(100));
    let resolve = |address: &str| {
        names.resolve(&Sight {
            ip: ip(address),
            port: None,
            point: Point::Workload,
            at: at(150),
        })
    };
    let entity = resolve("10.244.1.7");
    assert_eq!((entity.kind, &*entity.class), (EntityKind::Pod, "pod:shop"));
    assert_eq!(entity.pod.as_deref(), Some("web-1"));
    assert_eq!(entity.namespace.as_deref(), Some("shop"));
    assert_eq!(entity.workload.as_deref(), Some("Deployment/web"));
    assert_eq!(entity.labels.unwrap()["app"], "web");
    // Neither the node itself nor another is a host-network pod.
    for (address, name) in [("10.224.0.4", "n4"), ("10.224.0.5", "n5")] {
        let entity = resolve(address);
        assert_eq!((entity.kind, &*entity.class), (EntityKind::Node, "node"));
        assert_eq!((entity.name.as_deref(), entity.pod), (Some(name), None));
    }
    let entity = resolve("10.96.0.1");
    assert_eq!(
        (entity.kind, &*entity.class),
        (EntityKind::Service, "service")
    );
    assert_eq!(
        (entity.name.as_deref(), entity.namespace.as_deref()),
        (Some("web"), Some("shop"))
    );
    // What the cluster does not know, the ranges do.
    assert_eq!(&*resolve("10.9.9.9").class, "range:all");
}

#[test]
fn workloads_stand_in_for_pods_that_are_not_there() {
    let workload = |kind: &str, name: &str, labels: &[(&str, &str)], is_owned: bool| Workload {
        kind: kind.into(),
        namespace: "shop".into(),
        name: name.into(),
        is_owned,
        template: Pod {
            labels: Arc::new(
                labels
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            ),
            ..Pod::new("shop", name)
        },
    };
    let mut real = pod("web-5d9f-x", "10.244.1.7");
    real.labels = Arc::new(
        [
            ("app".to_owned(), "web".to_owned()),
            ("hash".to_owned(), "5d9f".to_owned()),
        ]
        .into(),
    );
    let workloads = vec![
        workload("Deployment", "web", &[("app", "web")], false),
        workload("Deployment", "db", &[("app", "db")], false),
        workload("ReplicaSet", "db-1", &[("app", "db")], true),
        workload(
            "StatefulSet",
            "db",
            &[("app", "db"), ("role", "main")],
            false,
        ),
        workload("Job", "bare", &[], false),
    ];
    let stand_ins = Workload::stand_ins(workloads, &[real]);
    let found: Vec<_> = stand_ins
        .iter()
        .map(|pod| (&*pod.name, pod.workload.as_deref().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("db", "Deployment/db"),
            ("StatefulSet/db", "StatefulSet/db"),
            ("bare", "Job/bare"),
        ]
    );
}

#[test]
fn addresses_of_nodes_and_services_move_and_go() {
    let mut cluster = Cluster::new();
    let service = |name: &str, addresses: &[&str]| {
        Change::Service(Service {
            namespace: "shop".into(),
            name: name.into(),
            ips: addresses.iter().map(|address| ip(address)).collect(),
            selector: None,
            ports: Vec::new(),
        })
    };
    let node = |name: &str, addresses: &[&str]| {
        Change::Node(Node {
            name: name.into(),
            labels: Labels::default(),
            ips: addresses.iter().map(|address| ip(address)).collect(),
        })
    };
    for change in [
        service("web", &["10.96.0.1", "10.96.0.2"]),
        node("n1", &["10.224.0.1", "10.224.0.2"]),
        service("web", &["10.96.0.2", "10.96.0.3"]),
        node("n1", &["10.224.0.2", "10.224.0.3"]),
        // Another takes an address over before the first gives it up.
        service("api", &["10.96.0.3"]),
        node("n2", &["10.224.0.3"]),
        Change::ServiceGone("shop".into(), "web".into()),
        Change::NodeGone("n1".into()),
    ] {
        cluster.apply(change, at(1));
    }
    let found = |address: &str| {
        let service = cluster
            .service_of(ip(address), None)
            .map(|service| service.name.to_string());
        let node = cluster
            .node_of(ip(address))
            .map(|node| node.name.to_string());
        service.or(node)
    };
    assert_eq!(found("10.96.0.3").as_deref(), Some("api"));
    assert_eq!(found("10.224.0.3").as_deref(), Some("n2"));
    for address in ["10.96.0.1", "10.96.0.2", "10.224.0.1", "10.224.0.2"] {
        assert_eq!(found(address), None, "{address}");
    }
}

#[test]
fn an_end_that_nobody_saw_is_before_the_next_begins() {
    let address = "10.244.1.7";
    let next = Pod {
        start: Some(at(195)),
        ..pod("next", address)
    };
    // Seen: the earlier one holds its address until then.
    let mut cluster = Cluster::new();
    cluster.apply(pod("first", address).into(), at(100));
    cluster.apply(next.clone().into(), at(205));
    cluster.apply(gone("first"), at(210));
    assert_eq!(holder(&cluster, address, 200).as_deref(), Some("first"));
    // Not seen, as after an outage: whoever learns of it in which order.
    let lost = Change::PodLost("shop".into(), "first".into());
    for order in [[true, false], [false, true]] {
        let mut cluster = Cluster::new();
        cluster.apply(pod("first", address).into(), at(100));
        for is_lost in order {
            let change = if is_lost {
                lost.clone()
            } else {
                next.clone().into()
            };
            cluster.apply(change, at(300));
        }
        for (time, name) in [(100, "first"), (194, "first"), (195, "next"), (299, "next")] {
            let found = holder(&cluster, address, time);
            assert_eq!(found.as_deref(), Some(name), "{time}");
        }
        assert_eq!(current(&cluster, address).as_deref(), Some("next"));
    }
    // Nobody else has it: it held it as long as that is known.
    let mut cluster = Cluster::new();
    cluster.apply(pod("first", address).into(), at(100));
    cluster.apply(lost, at(300));
    assert_eq!(holder(&cluster, address, 299).as_deref(), Some("first"));
    assert_eq!(holder(&cluster, address, 331), None);
}

#[test]
fn a_pod_that_only_looks_like_a_workloads_takes_it_away_from_nobody() {
    let labels: Labels = Labels::new([("app".to_owned(), "web".to_owned())].into());
    let workload = || Workload {
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: "web".into(),
        is_owned: false,
        template: Pod {
            labels: Arc::clone(&labels),
            ..Pod::new("shop", "web")
        },
    };
    let stands_in = |name: &str, owner: Option<&str>| {
        let pod = Pod {
            labels: Arc::clone(&labels),
            workload: owner.map(Into::into),
            ..Pod::new("shop", name)
        };
        !Workload::stand_ins(vec![workload()], &[pod]).is_empty()
    };
    // Its own, and one without an owner that is named and labelled like it.
    assert!(!stands_in("web-5d9f7c-x2x4z", Some("Deployment/web")));
    assert!(!stands_in("web-5d9f7c-x2x4z", None));
    // Another's with the same labels, and one of another name.
    assert!(stands_in("web-0", Some("StatefulSet/web")));
    assert!(stands_in("probe", None));
    assert!(stands_in("webmail-0", None));
}
