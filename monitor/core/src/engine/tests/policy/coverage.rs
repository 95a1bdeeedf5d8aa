//! Pods that no policy selects.

use super::*;
use crate::{
    cluster::Node,
    netpol::{Action, PodSet, Tier, TierKind, TierPeer, TierPolicy, TierRule},
};

const HERE: &str = "10.224.0.4";
const ELSEWHERE: &str = "10.224.0.5";

fn named(namespace: &str, name: &str) -> Pod {
    Pod {
        ips: vec!["10.244.1.7".parse().unwrap()],
        ..Pod::new(namespace, name)
    }
}

fn at(pod: Pod, host: &str) -> Change {
    let host_ips = vec![host.parse().unwrap()];
    Pod { host_ips, ..pod }.into()
}

fn tick(engine: &mut Engine, second: i64) {
    engine.step(Input::Tick, Timestamp::from_seconds(second));
}

fn covered(engine: &Engine) -> Vec<String> {
    samples(engine, Metric::PolicyPods)
}

#[test]
fn pods_of_this_node_that_no_policy_selects_are_counted() {
    let mut engine = engine();
    assert_eq!((covered(&engine), engine.status().policy), (vec![], None));
    let net = format!("{HERE}/16").parse().unwrap();
    step(&mut engine, Input::Addresses(vec![net]));
    let by_node = |name: &str, node: &str| Pod {
        node: Some(node.into()),
        ..named("db", name)
    };
    let node = Node {
        name: "here".into(),
        labels: Labels::default(),
        ips: vec![HERE.parse().unwrap()],
    };
    let objects = vec![
        Change::Node(node),
        at(named("shop", "a"), HERE),
        at(named("shop", "b"), HERE),
        by_node("by-name", "here").into(),
        // Of files, which say nothing of nodes.
        named("db", "of-files").into(),
        // Elsewhere; over; on the node's network; not there yet.
        at(named("shop", "c"), ELSEWHERE),
        by_node("by-name-elsewhere", "there").into(),
        at(
            Pod {
                phase: crate::cluster::Phase::Ended,
                ..named("shop", "d")
            },
            HERE,
        ),
        at(
            Pod {
                host_network: true,
                ..named("shop", "e")
            },
            HERE,
        ),
        at(
            Pod {
                ips: vec![],
                ..named("shop", "f")
            },
            HERE,
        ),
    ];
    engine.declare(objects, vec![egress("deny-all", &[])]);
    tick(&mut engine, 200);
    assert_eq!(
        covered(&engine),
        [
            "db,ingress,policy-none Gauge(2)",
            "db,egress,policy-none Gauge(2)",
            "shop,ingress,policy-none Gauge(2)",
            "shop,egress,selected Gauge(2)",
        ]
    );
    let status = engine.status().policy.unwrap();
    assert_eq!((status.policies, status.proposed, status.pods), (1, 0, 4));
    assert_eq!((status.no_ingress, status.no_egress), (4, 2));
    // A cluster-scoped policy with rules of a direction has a say on that.
    let deny = TierRule {
        name: None,
        action: Action::Deny,
        peers: vec![TierPeer::Pods(PodSet::default())],
        ports: None,
    };
    let everyone = TierPolicy {
        kind: TierKind::Cluster,
        name: "all".into(),
        tier: Tier::Baseline,
        priority: 1,
        subject: PodSet::default(),
        ingress: vec![deny],
        egress: vec![],
    };
    step(
        &mut engine,
        Input::Policies(vec![PolicyChange::Tier(everyone)]),
    );
    step(&mut engine, Input::Proposed(vec![egress("more", &[80])]));
    // Not at each tick: in ten seconds.
    tick(&mut engine, 205);
    assert_eq!(engine.status().policy.unwrap().no_ingress, 4);
    tick(&mut engine, 210);
    let status = engine.status().policy.unwrap();
    assert_eq!((status.policies, status.proposed), (2, 1));
    assert_eq!((status.no_ingress, status.no_egress), (0, 2));
    assert_eq!(
        covered(&engine),
        [
            "db,ingress,selected Gauge(2)",
            "db,egress,policy-none Gauge(2)",
            "shop,ingress,selected Gauge(2)",
            "shop,egress,selected Gauge(2)",
        ]
    );
}

#[test]
fn rows_of_coverage_are_bounded() {
    let mut engine = engine();
    let pods = (0..1_030).map(|number| named(&format!("n-{number:04}"), "a").into());
    engine.declare(pods.collect(), vec![]);
    tick(&mut engine, 200);
    let rows = covered(&engine);
    assert_eq!(rows.len(), 2 * 1_024 + 2);
    assert_eq!(rows[2 * 1_024], "other,ingress,policy-none Gauge(6)");
}
