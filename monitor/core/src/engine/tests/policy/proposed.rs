//! Policies that are proposed.

use super::*;
use crate::{
    cluster::Missing,
    netpol::{Operator, Requirement},
};

#[test]
fn what_is_proposed_is_judged_beside_what_is_in_force() {
    let proposed = |force: &[u16], proposal: &[u16], flags| {
        let mut engine = engine();
        engine.propose(vec![egress("web", proposal)]);
        engine.declare(
            vec![pod("cart-0", "10.244.1.7")],
            vec![egress("web", force)],
        );
        let records = connection(&mut engine, key(443), 50, flags);
        let flow = flows(&records)[0];
        let found: Vec<_> = findings(&records)
            .iter()
            .map(|finding| {
                (
                    finding.finding,
                    finding.reason.clone(),
                    finding.declared_by.clone(),
                )
            })
            .collect();
        let proposed = flow.proposed.as_ref().map(|verdict| verdict.allowed);
        (
            flow.policy.as_ref().map(|verdict| verdict.allowed),
            proposed,
            found,
        )
    };
    let (yes, no) = (Some(Some(true)), Some(Some(false)));
    let by = "NetworkPolicy shop/web".to_owned();
    let from_to = "TCP 443 from shop/cart-0 to 203.0.113.9";
    let reason = format!("{from_to} would be denied by what is proposed, and established");
    assert_eq!(
        proposed(&[443], &[80], [A, B]),
        (
            yes,
            no,
            vec![(FindingKind::PolicyWouldDeny, reason, by.clone())]
        )
    );
    let reason = format!("{from_to} would be allowed by what is proposed, and refused");
    assert_eq!(
        proposed(&[80], &[443], [SYN_ONLY, RST | ACK]),
        (no, yes, vec![(FindingKind::PolicyWouldAllow, reason, by)])
    );
    // What stays the same is not told.
    assert_eq!(proposed(&[443], &[443, 80], [A, B]), (yes, None, vec![]));
    // A change of what is in force counts for both, unless it is of what is proposed.
    let mut engine = engine();
    engine.propose(vec![egress("web", &[80])]);
    engine.declare(vec![pod("cart-0", "10.244.1.7")], vec![]);
    let mut judged = |change, port| {
        step(&mut engine, Input::Policies(vec![change]));
        let records = connection(
            &mut engine,
            key4(VETH, Protocol::TCP, port, 443),
            150,
            [A, B],
        );
        let flow = flows(&records)[0];
        let proposed = flow.proposed.as_ref().map(|verdict| verdict.allowed);
        (
            flow.policy.as_ref().map(|verdict| verdict.allowed),
            proposed,
        )
    };
    assert_eq!(judged(egress("web", &[443]), 40_000), (yes, no));
    assert_eq!(judged(egress("more", &[443]), 40_001), (yes, None));
}

#[test]
fn no_change_is_told_of_where_it_is_not_known_what_is_so_now() {
    let team = Requirement {
        key: "team".into(),
        operator: Operator::In(vec!["db".into()]),
    };
    let peer = Peer::Pods {
        namespaces: Some(Selector {
            requirements: vec![team],
        }),
        pods: None,
    };
    let rule = Rule {
        peers: vec![peer],
        ports: Vec::new(),
    };
    let of_team = PolicyChange::Namespaced(NetworkPolicy {
        namespace: "shop".into(),
        name: "web".into(),
        selector: Selector::default(),
        ingress: None,
        egress: Some(vec![rule]),
    });
    let other = Pod {
        ips: vec!["203.0.113.9".parse().unwrap()],
        ..Pod::new("db", "pg-0")
    };
    // Whether the labels of the other pod's namespace are known.
    for is_known in [true, false] {
        let mut engine = engine();
        let missing = Missing {
            namespaces: !is_known,
            nodes: false,
        };
        engine.books.names.cluster_mut().set_missing(missing);
        engine.propose(vec![egress("web", &[])]);
        let pods = vec![pod("cart-0", "10.244.1.7"), other.clone().into()];
        engine.declare(pods, vec![of_team.clone()]);
        let records = connection(&mut engine, key(443), 50, [SYN_ONLY, RST | ACK]);
        let flow = flows(&records)[0];
        let allowed = flow.policy.as_ref().map(|verdict| verdict.allowed);
        assert_eq!(allowed, Some(is_known.then_some(false)));
        assert_eq!(findings(&records).len(), 0);
        let changes = samples(&engine, Metric::PolicyProposedConnections);
        assert!(changes.is_empty(), "{changes:?}");
    }
}

#[test]
fn each_connection_that_would_change_is_counted() {
    let mut engine = engine();
    engine.propose(vec![egress("web", &[80])]);
    engine.declare(
        vec![pod("cart-0", "10.244.1.7")],
        vec![egress("web", &[443])],
    );
    let mut told = 0;
    for local_port in 40_000..40_003 {
        for (port, flags) in [(443, [A, B]), (80, [SYN_ONLY, RST | ACK]), (22, [A, B])] {
            let key = key4(VETH, Protocol::TCP, local_port, port);
            told += findings(&connection(&mut engine, key, 50, flags))
                .iter()
                .filter(|finding| finding.declared_by == "NetworkPolicy shop/web")
                .filter(|finding| finding.finding != FindingKind::PolicyViolation)
                .count();
        }
    }
    assert_eq!(told, 2, "a finding is told of once in a while");
    let by = "NetworkPolicy shop/web";
    assert_eq!(
        samples(&engine, Metric::PolicyProposedConnections),
        [
            format!("shop,StatefulSet/cart,egress,policy-would-allow,{by},refused Counter(3)"),
            format!("shop,StatefulSet/cart,egress,policy-would-deny,{by},established Counter(3)"),
        ]
    );
}

#[test]
fn proposals_of_a_live_cluster_come_and_go() {
    let mut engine = engine_of(vec![egress("web", &[443])]);
    let mut port = 40_000;
    let mut judged = |engine: &mut Engine| {
        port += 1;
        let key = key4(VETH, Protocol::TCP, port, 443);
        let records = connection(engine, key, 150, [A, B]);
        let proposed = flows(&records)[0].proposed.clone();
        proposed.map(|verdict| verdict.allowed)
    };
    assert_eq!(judged(&mut engine), None);
    // Beside what is in force already, in place of what has its name.
    step(&mut engine, Input::Proposed(vec![egress("web", &[80])]));
    assert_eq!(judged(&mut engine), Some(Some(false)));
    // Gone, what is in force counts again; so does what came in force meanwhile.
    step(&mut engine, Input::Proposed(vec![egress("other", &[22])]));
    let gone = |name: &str| PolicyChange::NamespacedGone("shop".into(), name.into());
    step(&mut engine, Input::Proposed(vec![gone("web")]));
    assert_eq!(judged(&mut engine), None);
    step(
        &mut engine,
        Input::Proposed(vec![gone("other"), gone("never")]),
    );
    assert_eq!(judged(&mut engine), None);
}

#[test]
fn what_is_proposed_may_change_while_it_runs() {
    let mut engine = engine_of(vec![egress("web", &[443]), egress("more", &[8_443])]);
    let mut port = 40_000;
    let mut proposed = |engine: &mut Engine| {
        port += 1;
        let key = key4(VETH, Protocol::TCP, port, 443);
        let records = connection(engine, key, 150, [A, B]);
        let flow = flows(&records)[0];
        flow.proposed.as_ref().map(|verdict| verdict.allowed)
    };
    assert_eq!(proposed(&mut engine), None, "nothing is proposed");
    let propose = |engine: &mut Engine, changes| step(engine, Input::ProposedByFiles(changes));
    propose(&mut engine, vec![egress("web", &[80])]);
    assert_eq!(proposed(&mut engine), Some(Some(false)));
    // Beside the others that are in force.
    let more = PolicyChange::NamespacedGone("shop".into(), "none".into());
    propose(&mut engine, vec![egress("more", &[443]), more]);
    assert_eq!(proposed(&mut engine), None, "the same");
    propose(&mut engine, vec![egress("web", &[]), egress("more", &[])]);
    assert_eq!(proposed(&mut engine), Some(Some(false)));
    propose(&mut engine, vec![]);
    assert_eq!(proposed(&mut engine), None);
}

#[test]
fn what_no_longer_denies_is_named_at_either_end() {
    let peer = Pod {
        ips: vec!["203.0.113.9".parse().unwrap()],
        workload: Some("StatefulSet/pg".into()),
        ..Pod::new("db", "pg-0")
    };
    let db = |name: &str, rules: Vec<Rule>| {
        PolicyChange::Namespaced(NetworkPolicy {
            namespace: "db".into(),
            name: name.into(),
            selector: Selector::default(),
            ingress: Some(rules),
            egress: None,
        })
    };
    // Denied at the other end only, and allowed there by what is proposed.
    let mut engine = engine();
    engine.propose(vec![db("open", vec![Rule::default()])]);
    let pods = vec![pod("cart-0", "10.244.1.7"), peer.into()];
    engine.declare(pods, vec![egress("web", &[443]), db("deny", vec![])]);
    connection(&mut engine, key(443), 50, [SYN_ONLY, RST | ACK]);
    assert_eq!(
        samples(&engine, Metric::PolicyProposedConnections),
        [
            "shop,StatefulSet/cart,egress,policy-would-allow,NetworkPolicy db/open,refused Counter(1)"
        ]
    );
}

#[test]
fn what_is_proposed_pushes_no_other_finding_out() {
    let mut engine = engine();
    engine.declare(
        vec![pod("cart-0", "10.244.1.7")],
        vec![egress("web", &[80])],
    );
    let records = connection(&mut engine, key(443), 50, [A, B]);
    let violation = findings(&records)[0].clone();
    assert_eq!(violation.finding, FindingKind::PolicyViolation);
    for _ in 0..5_000 {
        engine.books.push_finding(FindingRecord {
            finding: FindingKind::PolicyWouldDeny,
            ..violation.clone()
        });
    }
    let kept = engine.query_findings(&FlowFilter::default(), None);
    assert!(kept.len() < 5_000, "they are bounded, too");
    let is_violation = |record: &&FindingRecord| record.finding == FindingKind::PolicyViolation;
    assert_eq!(kept.iter().filter(is_violation).count(), 1);
}
