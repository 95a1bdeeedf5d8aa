//! What is not told of yet, or was changed only now.

use super::*;
use crate::{
    cluster::{Service, ServicePort, TargetPort},
    engine::{KubernetesStatus, LossStage},
    fixture::key4_between,
    netpol::{Operator, Requirement},
};

/// A pod of another node, with its labels.
fn peer(name: &str, ip: &str, app: &str, start: u64) -> Change {
    Pod {
        ips: vec![ip.parse().unwrap()],
        labels: Labels::new([("app".to_owned(), app.to_owned())].into()),
        start: Some(Timestamp::from_seconds(start.cast_signed())),
        ..Pod::new("shop", name)
    }
    .into()
}

fn selector(app: &str) -> Selector {
    let requirement = Requirement {
        key: "app".into(),
        operator: Operator::In(vec![app.into()]),
    };
    Selector {
        requirements: vec![requirement],
    }
}

/// Ingress from pods with this label.
fn ingress(app: &str) -> PolicyChange {
    PolicyChange::Namespaced(NetworkPolicy {
        namespace: "shop".into(),
        name: "in".into(),
        selector: Selector::default(),
        ingress: Some(vec![Rule {
            peers: vec![Peer::Pods {
                namespaces: None,
                pods: Some(selector(app)),
            }],
            ports: vec![],
        }]),
        egress: None,
    })
}

const NEW: &str = "10.244.2.9";

/// A connection from [`NEW`] to the pod of this node.
fn inbound() -> FlowKey {
    key4_between(VETH, Protocol::TCP, ("10.244.1.7", 443), (NEW, 50_000))
}

/// An engine that a live cluster tells of its pods.
fn live() -> Engine {
    let mut engine = engine_of(vec![ingress("web")]);
    step(&mut engine, Input::Kubernetes(KubernetesStatus::default()));
    engine
}

fn at(engine: &mut Engine, second: i64, input: Input) -> Vec<Record> {
    engine.step(input, Timestamp::from_seconds(second)).records
}

fn reads(packets: u64) -> Input {
    Input::Flows(vec![(inbound(), reading(99, [packets; 2], [B, A]))])
}

#[test]
fn a_connection_of_a_pod_that_is_told_of_later_is_judged_by_that_pod() {
    let mut engine = live();
    let records = at(&mut engine, 100, reads(1));
    assert_eq!(flows(&records).len(), 1, "it is told of at once");
    assert_eq!(flows(&records)[0].policy, None);
    assert_eq!(connections(&engine).len(), 1, "and counted");
    assert!(findings(&at(&mut engine, 101, Input::Tick)).is_empty());
    let arrives = Input::Cluster(vec![peer("web-9", NEW, "web", 97)]);
    assert!(at(&mut engine, 102, arrives).is_empty());
    assert!(findings(&at(&mut engine, 102, Input::Tick)).is_empty());
    assert_eq!(
        counted(&engine),
        ["shop,StatefulSet/cart,ingress,true,NetworkPolicy shop/in,established Counter(1)"]
    );
    let last = reading(99, [9; 2], [B, A]);
    let records = at(&mut engine, 140, Input::Removed(vec![(inbound(), last)]));
    let verdict = flows(&records)[0].policy.as_ref().unwrap();
    assert_eq!(verdict.allowed, Some(true));
    assert!(findings(&records).is_empty());
    assert_eq!(counted(&engine).len(), 1, "counted once");
}

#[test]
fn who_is_not_told_of_in_time_is_no_pod() {
    let mut engine = live();
    at(&mut engine, 100, reads(1));
    // More of its packets make it wait no longer, nor shorter.
    assert!(findings(&at(&mut engine, 108, reads(2))).is_empty());
    assert!(findings(&at(&mut engine, 108, Input::Tick)).is_empty());
    let records = at(&mut engine, 109, Input::Tick);
    let told = findings(&records);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].finding, FindingKind::PolicyViolation);
    assert!(findings(&at(&mut engine, 110, Input::Tick)).is_empty());
    assert_eq!(
        counted(&engine),
        ["shop,StatefulSet/cart,ingress,false,NetworkPolicy shop/in,established Counter(1)"]
    );
    // A clock that is set back does not make it wait for ever.
    let mut engine = live();
    at(&mut engine, 100, reads(1));
    assert_eq!(findings(&at(&mut engine, 50, Input::Tick)).len(), 1);
}

#[test]
fn a_connection_that_closes_sooner_has_its_finding_later() {
    for (arrives, expected) in [(false, 1), (true, 0)] {
        for has_last in [true, false] {
            let mut engine = live();
            at(&mut engine, 100, reads(1));
            let last = reading(99, [9; 2], [B, A]);
            let closes = if has_last {
                Input::Removed(vec![(inbound(), last)])
            } else {
                Input::Missing(vec![inbound()])
            };
            let records = at(&mut engine, 101, closes);
            let flow = flows(&records)[0];
            assert_eq!(flow.policy.as_ref().unwrap().allowed, Some(false));
            assert_eq!(flow.finding, None);
            assert!(findings(&records).is_empty());
            assert_eq!(counted(&engine).len(), 1);
            if arrives {
                let arrives = Input::Cluster(vec![peer("web-9", NEW, "web", 97)]);
                at(&mut engine, 102, arrives);
            }
            assert!(findings(&at(&mut engine, 108, Input::Tick)).is_empty());
            let records = at(&mut engine, 109, Input::Tick);
            assert_eq!(findings(&records).len(), expected, "{arrives} {has_last}");
            assert!(findings(&at(&mut engine, 110, Input::Tick)).is_empty());
        }
    }
}

#[test]
fn an_address_that_passed_on_is_not_the_earlier_pods() {
    let mut engine = live();
    let before = Input::Cluster(vec![peer("job-1", NEW, "job", 10)]);
    at(&mut engine, 20, before);
    let gone = Change::PodGone("shop".into(), "job-1".into());
    at(&mut engine, 95, Input::Cluster(vec![gone]));
    let records = at(&mut engine, 100, reads(1));
    assert_eq!(flows(&records)[0].policy, None);
    let arrives = Input::Cluster(vec![peer("web-9", NEW, "web", 97)]);
    at(&mut engine, 102, arrives);
    at(&mut engine, 102, Input::Tick);
    assert_eq!(
        counted(&engine),
        ["shop,StatefulSet/cart,ingress,true,NetworkPolicy shop/in,established Counter(1)"]
    );
}

#[test]
fn where_both_ends_are_told_of_nothing_waits() {
    let mut engine = live();
    let known = Input::Cluster(vec![peer("job-1", NEW, "job", 10)]);
    at(&mut engine, 20, known);
    let records = at(&mut engine, 100, reads(1));
    assert_eq!(findings(&records).len(), 1);
    // Nor for what is outside: no pod has such an address.
    let outside = key4(VETH, Protocol::TCP, 443, 50_000);
    let value = reading(99, [1; 2], [B, A]);
    let records = at(&mut engine, 100, Input::Flows(vec![(outside, value)]));
    assert_eq!(findings(&records).len(), 1);
}

#[test]
fn a_change_behind_a_service_has_its_grace() {
    let service = || {
        Change::Service(Service {
            namespace: "db".into(),
            name: "pg".into(),
            ips: vec!["203.0.113.9".parse().unwrap()],
            selector: Some(Labels::new([("app".to_owned(), "pg".to_owned())].into())),
            ports: vec![ServicePort {
                name: "".into(),
                protocol: Protocol::TCP,
                port: 443,
                target: TargetPort::Number(443),
            }],
        })
    };
    let pg = |version: &str| -> Change {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Pod {
            ips: vec!["10.244.2.7".parse().unwrap()],
            labels: Labels::new([label("app", "pg"), label("version", version)].into()),
            ..Pod::new("db", "pg-0")
        }
        .into()
    };
    let deny = || {
        PolicyChange::Namespaced(NetworkPolicy {
            namespace: "db".into(),
            name: "deny".into(),
            selector: Selector::default(),
            ingress: Some(vec![]),
            egress: None,
        })
    };
    type Changed = fn(&mut Engine, PolicyChange, Change);
    let changes: [(Changed, [usize; 2]); 3] = [
        (|_, _, _| {}, [1, 1]),
        (
            |engine, deny, _| drop(step(engine, Input::Policies(vec![deny]))),
            [0, 1],
        ),
        (
            |engine, _, pod| drop(step(engine, Input::Cluster(vec![pod]))),
            [0, 1],
        ),
    ];
    for (index, (change, expected)) in changes.into_iter().enumerate() {
        for (first_seen, expected) in [105, 110].into_iter().zip(expected) {
            let mut engine = engine_of(vec![deny()]);
            engine.declare(vec![service(), pg("1")], vec![]);
            change(&mut engine, deny(), pg("2"));
            let records = connection(&mut engine, key(443), first_seen, [A, B]);
            let verdict = flows(&records)[0].policy.as_ref().unwrap();
            assert_eq!(verdict.service.as_deref(), Some("db/pg"));
            assert_eq!(verdict.allowed, Some(false));
            assert_eq!(findings(&records).len(), expected, "{index} {first_seen}");
        }
    }
}

#[test]
fn a_clock_that_is_set_back_silences_nothing() {
    // All of these come at second 5,000; then it is 100 again.
    let tier = || PolicyChange::TierGone(crate::netpol::TierKind::Admin, "x".into());
    let changes: [fn() -> Input; 3] = [
        || Input::Policies(vec![egress("deny-all", &[])]),
        || Input::Cluster(vec![peer("cart-0", "10.244.1.7", "new", 1)]),
        || Input::Tick,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut engine = engine_of(vec![egress("deny-all", &[])]);
        at(&mut engine, 5_000, change());
        at(&mut engine, 5_000, Input::Policies(vec![tier()]));
        let records = connection(&mut engine, key(443), 50, [A, B]);
        assert_eq!(findings(&records).len(), 1, "{index}");
    }
    // A change that comes after counts.
    let mut engine = engine_of(vec![egress("deny-all", &[])]);
    at(&mut engine, 5_000, Input::Policies(vec![tier()]));
    at(&mut engine, 100, Input::Policies(vec![tier()]));
    assert!(findings(&connection(&mut engine, key(443), 95, [A, B])).is_empty());
    // The same is told of again.
    let mut engine = engine_of(vec![egress("deny-all", &[])]);
    let records = connection(&mut engine, key(443), 5_000, [A, B]);
    assert_eq!(findings(&records).len(), 1);
    let later = key4(VETH, Protocol::TCP, 40_001, 443);
    let records = connection(&mut engine, later, 50, [A, B]);
    assert_eq!(findings(&records).len(), 1);
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_pods_from_being_looked_at() {
    let mut engine = engine();
    at(&mut engine, 5_000, Input::Tick);
    engine.declare(vec![pod("cart-0", "10.244.1.7")], vec![]);
    at(&mut engine, 100, Input::Tick);
    assert_eq!(engine.snapshot().status.policy.unwrap().pods, 1);
}

#[test]
fn connections_that_find_no_room_to_wait_are_counted() {
    let mut engine = live();
    let key = |port| key4_between(VETH, Protocol::TCP, ("10.244.1.7", 443), (NEW, port));
    let flows = |ports: std::ops::Range<u16>| {
        let flows = ports.map(|port| (key(port), reading(99, [1, 1], [B, A])));
        Input::Flows(flows.collect())
    };
    let lost = |engine: &mut Engine| {
        at(engine, 101, Input::Tick);
        engine.snapshot().status.events_lost[&LossStage::PodNames]
    };
    at(&mut engine, 100, flows(20_000..28_192));
    assert_eq!(lost(&mut engine), 0);
    at(&mut engine, 100, flows(30_000..30_003));
    assert_eq!(lost(&mut engine), 3);
}
