//! Connections against network policies, through the engine.

use super::*;
use crate::{
    cluster::{Change, Namespace, Pod},
    event::{EntityKind, FindingKind, FindingRecord, FlowRecord, Labels},
    netpol::{Basis, NetworkPolicy, Peer, PolicyChange, PolicyPort, PortMatch, Rule, Selector},
};

/// The workload interface.
const VETH: u32 = 2;

fn pod(name: &str, ip: &str) -> Change {
    Pod {
        ips: vec![ip.parse().unwrap()],
        workload: Some("StatefulSet/cart".into()),
        labels: Labels::new([("app".to_owned(), "cart".to_owned())].into()),
        ..Pod::new("shop", name)
    }
    .into()
}

/// Egress of all pods of the namespace: to these ports of anything.
fn egress(name: &str, ports: &[u16]) -> PolicyChange {
    let port = |port: &u16| PolicyPort {
        protocol: Protocol::TCP,
        port: Some(PortMatch::Range(*port, *port)),
    };
    let rule = Rule {
        peers: Vec::new(),
        ports: ports.iter().map(port).collect(),
    };
    PolicyChange::Namespaced(NetworkPolicy {
        namespace: "shop".into(),
        name: name.into(),
        selector: Selector::default(),
        ingress: None,
        egress: Some(if ports.is_empty() { vec![] } else { vec![rule] }),
    })
}

/// An engine at second 100 with the pod 10.244.1.7 behind veth1 and these policies.
fn engine_of(policies: Vec<PolicyChange>) -> Engine {
    let mut engine = engine();
    engine.declare(vec![pod("cart-0", "10.244.1.7")], policies);
    engine
}

fn key(port: u16) -> FlowKey {
    key4(VETH, Protocol::TCP, 40_000, port)
}

/// A connection that began in this second and ends with these flags; all of its records.
fn connection(engine: &mut Engine, key: FlowKey, first_seen: u64, flags: [u16; 2]) -> Vec<Record> {
    let packets = flags.map(|flags| u64::from(flags != 0) * 3);
    let value = reading(first_seen, packets, flags);
    let mut records = step(engine, Input::Flows(vec![(key, value)])).records;
    records.extend(step(engine, Input::Removed(vec![(key, value)])).records);
    records
}

pub(super) fn flows(records: &[Record]) -> Vec<&FlowRecord> {
    let mut flows = Vec::new();
    for record in records {
        if let Record::Flow(flow) = record {
            flows.push(&**flow);
        }
    }
    flows
}

pub(super) fn findings(records: &[Record]) -> Vec<&FindingRecord> {
    let mut findings = Vec::new();
    for record in records {
        if let Record::Finding(finding) = record {
            findings.push(&**finding);
        }
    }
    findings
}

/// Samples of the metric of connections by policy.
fn counted(engine: &Engine) -> Vec<String> {
    samples(engine, Metric::PolicyConnections)
}

fn samples(engine: &Engine, metric: Metric) -> Vec<String> {
    let mut lines = Vec::new();
    let rows = engine.snapshot().rows;
    rows.samples(metric, |labels, value| {
        let labels: Vec<_> = labels.iter().map(|(_, value)| *value).collect();
        lines.push(format!("{} {value:?}", labels.join(",")));
        Ok::<_, ()>(())
    })
    .unwrap();
    lines
}

/// A connection that is judged, also by what is proposed, and a pod that is looked at.
pub(super) fn one_is_judged(engine: &mut Engine) {
    engine.propose(vec![egress("later", &[])]);
    engine.declare(vec![pod("cart-0", "10.244.1.7")], vec![]);
    connection(engine, key(443), 50, [A, B]);
    engine.step(Input::Tick, Timestamp::from_seconds(200));
}

const SYN_ONLY: u16 = OPENS | FIRST | SYN;

#[test]
fn a_denied_connection_that_is_established_is_a_violation() {
    let mut engine = engine_of(vec![egress("deny-all", &[])]);
    let records = connection(&mut engine, key(443), 50, [A, B]);
    let flows = flows(&records);
    assert_eq!(flows.len(), 2, "open and closed");
    for flow in flows {
        assert_eq!(flow.finding.as_deref(), Some("policy-violation"));
        let verdict = flow.policy.as_ref().unwrap();
        assert_eq!(
            (verdict.allowed, verdict.egress.allowed),
            (Some(false), Some(false))
        );
        assert_eq!(&*verdict.egress.by[0], "NetworkPolicy shop/deny-all");
        assert_eq!(
            (verdict.ingress.allowed, verdict.ingress.basis),
            (Some(true), Basis::NoPod)
        );
        assert_eq!(flow.source.kind, EntityKind::Pod);
        assert_eq!(flow.source.pod.as_deref(), Some("cart-0"));
        assert_eq!(flow.source.workload.as_deref(), Some("StatefulSet/cart"));
    }
    let findings = findings(&records);
    assert_eq!(findings.len(), 1, "told once");
    assert_eq!(findings[0].finding, FindingKind::PolicyViolation);
    assert_eq!(findings[0].declared_by, "NetworkPolicy shop/deny-all");
    assert_eq!(
        findings[0].reason,
        "TCP 443 from shop/cart-0 to 203.0.113.9 is denied by policy, and established"
    );
    assert_eq!(
        counted(&engine),
        ["shop,StatefulSet/cart,egress,false,NetworkPolicy shop/deny-all,established Counter(1)"]
    );
    let text = serde_json::to_string(&records[0]).unwrap();
    let policy = r#""policy":{"allowed":false,"egress":{"allowed":false,"by":["NetworkPolicy shop/deny-all"],"basis":"network-policy"},"ingress":{"allowed":true,"by":[],"basis":"no-pod"}}"#;
    assert!(text.contains(policy), "{text}");
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), records[0]);
}

#[test]
fn what_is_blocked_as_declared_is_none() {
    for answer in [0, RST | ACK] {
        let mut engine = engine_of(vec![egress("deny-all", &[])]);
        let records = connection(&mut engine, key(443), 50, [SYN_ONLY, answer]);
        assert!(findings(&records).is_empty());
        let flow = *flows(&records).last().unwrap();
        assert_eq!(flow.policy.as_ref().unwrap().allowed, Some(false));
        assert_eq!(flow.finding, None);
        // It is counted all the same.
        assert_eq!(counted(&engine).len(), 1);
    }
}

#[test]
fn an_allowed_connection_without_an_answer_is_over_blocked_once_it_is_closed() {
    let mut engine = engine_of(vec![egress("web", &[443])]);
    let value = reading(50, [1, 0], [SYN_ONLY, 0]);
    step(&mut engine, Input::Flows(vec![(key(443), value)]));
    let open = engine.query(&FlowFilter::default(), None);
    assert_eq!(
        (open[0].state, open[0].finding.as_deref()),
        (State::Open, None)
    );
    let records = step(&mut engine, Input::Removed(vec![(key(443), value)])).records;
    assert_eq!(
        flows(&records)[0].finding.as_deref(),
        Some("policy-over-blocked")
    );
    assert_eq!(
        findings(&records)[0].finding,
        FindingKind::PolicyOverBlocked
    );
    assert_eq!(findings(&records)[0].declared_by, "NetworkPolicy shop/web");
    // A port that nothing listens at is nobody's policy; an answer is as declared.
    for flags in [[SYN_ONLY, RST | ACK], [A, B]] {
        let records = connection(
            &mut engine,
            key4(VETH, Protocol::TCP, 40_001, 443),
            50,
            flags,
        );
        assert!(findings(&records).is_empty());
    }
    // Where no policy says anything, nothing is declared.
    let mut engine = engine_of(vec![]);
    let records = connection(&mut engine, key(443), 50, [SYN_ONLY, 0]);
    assert!(findings(&records).is_empty());
    assert_eq!(
        counted(&engine),
        ["shop,StatefulSet/cart,egress,true,policy-none,unanswered Counter(1)"]
    );
}

#[test]
fn inbound_connections_are_judged_in_the_direction_of_their_opener() {
    let deny = PolicyChange::Namespaced(NetworkPolicy {
        namespace: "shop".into(),
        name: "in".into(),
        selector: Selector::default(),
        ingress: Some(vec![Rule {
            peers: vec![Peer::Pods {
                namespaces: None,
                pods: Some(Selector::default()),
            }],
            ports: vec![],
        }]),
        egress: None,
    });
    let mut engine = engine_of(vec![deny]);
    // Local port 443, opened by the remote end.
    let inbound = key4(VETH, Protocol::TCP, 443, 50_000);
    let records = connection(&mut engine, inbound, 50, [B, A]);
    assert_eq!(findings(&records)[0].declared_by, "NetworkPolicy shop/in");
    // Opened by the pod, answers come in.
    let records = connection(&mut engine, key(443), 50, [A, B]);
    assert!(findings(&records).is_empty());
    assert_eq!(
        flows(&records)[0].policy.as_ref().unwrap().allowed,
        Some(true)
    );
    assert_eq!(
        counted(&engine),
        [
            "shop,StatefulSet/cart,egress,true,policy-none,established Counter(1)",
            "shop,StatefulSet/cart,ingress,false,NetworkPolicy shop/in,established Counter(1)",
        ]
    );
}

#[test]
fn without_a_known_opener_or_at_an_uplink_nothing_is_judged() {
    let mut engine = engine_of(vec![egress("deny-all", &[])]);
    let midstream = [ACK | PSH | DATA, ACK | DATA];
    for (key, first_seen, flags) in [
        (key(443), 50, midstream),
        (key4(1, Protocol::TCP, 40_000, 443), 50, [A, B]),
        // Within the settle period of its interface, the first packet may not be the first.
        (key4(VETH, Protocol::UDP, 40_000, 53), 1, [FIRST, DATA]),
    ] {
        let records = connection(&mut engine, key, first_seen, flags);
        for flow in flows(&records) {
            assert_eq!(
                (flow.policy.as_ref(), flow.finding.as_deref()),
                (None, None)
            );
        }
        assert!(findings(&records).is_empty());
    }
    assert!(counted(&engine).is_empty());
    let mut engine = engine_with(Config {
        policy_everywhere: true,
        ..Config::default()
    });
    engine.declare(
        vec![pod("cart-0", "10.244.1.7")],
        vec![egress("deny-all", &[])],
    );
    let records = connection(&mut engine, key4(1, Protocol::TCP, 40_000, 443), 50, [A, B]);
    assert_eq!(findings(&records).len(), 1, "a capture");
}

#[test]
fn the_own_node_is_known_by_the_interfaces_addresses() {
    let mut engine = engine_of(vec![egress("deny-all", &[])]);
    let addresses = vec!["203.0.113.9/24".parse().unwrap()];
    step(&mut engine, Input::Addresses(addresses));
    let records = connection(&mut engine, key(443), 50, [A, B]);
    let verdict = flows(&records)[0].policy.as_ref().unwrap();
    assert_eq!(
        (verdict.allowed, verdict.egress.basis),
        (Some(true), Basis::OwnNode)
    );
}

#[test]
fn rule_43_a_connection_keeps_the_verdict_of_its_start() {
    let mut engine = engine_of(vec![egress("web", &[443])]);
    let value = reading(50, [1, 0], [SYN_ONLY, 0]);
    step(&mut engine, Input::Flows(vec![(key(443), value)]));
    step(&mut engine, Input::Policies(vec![egress("web", &[])]));
    let records = connection(&mut engine, key(443), 50, [A, B]);
    let verdict = flows(&records)[0].policy.as_ref().unwrap();
    assert_eq!(verdict.allowed, Some(true));
    assert!(findings(&records).is_empty());
    // One that begins later has the verdict of later.
    let records = connection(
        &mut engine,
        key4(VETH, Protocol::TCP, 40_001, 443),
        200,
        [A, B],
    );
    assert_eq!(
        flows(&records)[0].policy.as_ref().unwrap().allowed,
        Some(false)
    );
}

#[test]
fn rule_44_changes_have_a_grace_period() {
    type Changed = fn(&mut Engine);
    let changes: [Changed; 4] = [
        |engine| drop(step(engine, Input::Policies(vec![egress("deny-all", &[])]))),
        |engine| {
            let mut changed = pod("cart-0", "10.244.1.7");
            if let Change::Pod(pod) = &mut changed {
                pod.labels = Labels::default();
            }
            step(engine, Input::Cluster(vec![changed]));
        },
        |engine| {
            let namespace = Namespace {
                name: "shop".into(),
                labels: Labels::default(),
            };
            step(engine, Input::Cluster(vec![Change::Namespace(namespace)]));
        },
        |engine| {
            // Another namespace changes nothing here.
            let namespace = Namespace {
                name: "other".into(),
                labels: Labels::default(),
            };
            step(engine, Input::Cluster(vec![Change::Namespace(namespace)]));
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        for (first_seen, in_grace) in [(99, true), (105, true), (109, true), (110, false)] {
            let mut engine = engine_of(vec![egress("deny-all", &[])]);
            change(&mut engine);
            let records = connection(&mut engine, key(443), first_seen, [A, B]);
            let expected = usize::from(!in_grace || index == 3);
            assert_eq!(findings(&records).len(), expected, "{index} {first_seen}");
            let flow = flows(&records)[0];
            assert_eq!(flow.policy.as_ref().unwrap().allowed, Some(false));
            assert_eq!(flow.finding.is_some(), expected == 1);
        }
    }
}

#[test]
fn the_same_is_told_once_in_a_while() {
    let mut engine = engine_of(vec![egress("deny-all", &[])]);
    let mut told = |local_port, first_seen| {
        let key = key4(VETH, Protocol::TCP, local_port, 443);
        let records = connection(&mut engine, key, first_seen, [A, B]);
        assert_eq!(
            flows(&records)[0].finding.as_deref(),
            Some("policy-violation")
        );
        findings(&records).len()
    };
    assert_eq!(told(40_000, 50), 1);
    assert_eq!(told(40_001, 51), 0);
    assert_eq!(told(40_002, 649), 0);
    assert_eq!(told(40_003, 650), 1);
}

#[test]
fn rows_are_bounded() {
    let mut engine = engine();
    let pods = (0..5_000_u32).map(|number| {
        let mut change = pod(&format!("pod-{number}"), "10.244.1.7");
        if let Change::Pod(pod) = &mut change {
            pod.workload = Some(format!("Job/{number}").into());
            pod.uid = Some(number.to_string().into());
        }
        change
    });
    for (number, change) in pods.enumerate() {
        engine.declare(vec![change], vec![]);
        let name = format!("pod-{number}");
        connection(&mut engine, key(443), 50, [A, B]);
        engine.declare(vec![Change::PodGone("shop".into(), name.into())], vec![]);
    }
    let lines = counted(&engine);
    assert_eq!(lines.len(), 4_097);
    assert_eq!(
        lines[4_096],
        "other,other,other,other,other,other Counter(904)"
    );
    assert_eq!(engine.snapshot().rows.sum(Metric::PolicyConnections), 5_000);
}

#[test]
fn rows_of_workloads_that_are_gone_end() {
    let mut engine = engine();
    let gone = || Change::PodGone("shop".into(), "cart-0".into());
    let tick = |engine: &mut Engine, seconds: std::ops::Range<i64>| {
        for second in seconds.step_by(100) {
            engine.step(Input::Tick, Timestamp::from_seconds(second));
        }
    };
    engine.propose(vec![egress("later", &[])]);
    engine.declare(vec![pod("cart-0", "10.244.1.7")], vec![]);
    connection(&mut engine, key(443), 50, [A, B]);
    let rows = |engine: &Engine| {
        let proposed = samples(engine, Metric::PolicyProposedConnections);
        [counted(engine).len(), proposed.len()]
    };
    tick(&mut engine, 200..20_000);
    assert_eq!(rows(&engine), [1, 1], "the workload is there");
    engine.declare(vec![gone()], vec![]);
    tick(&mut engine, 20_000..23_500);
    assert_eq!(rows(&engine), [1, 1]);
    // A clock that is set back ends them no later than it should by then.
    tick(&mut engine, 100..3_700);
    assert_eq!(rows(&engine), [1, 1]);
    tick(&mut engine, 3_700..3_900);
    assert_eq!(rows(&engine), [0, 0]);
}

mod coverage;
mod fresh;
mod proposed;
