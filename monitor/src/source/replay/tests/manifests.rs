//! Captures with manifests: pods are named, and connections judged by network policies.

use monitor_core::event::{EntityKind, FindingRecord};

use super::*;
use crate::kube::manifests::Manifests;

const MANIFESTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, labels: {app: cart}}
status: {phase: Running, startTime: '2023-11-14T22:00:00Z', podIP: 192.0.2.1}
---
# Had the address before pg-0.
apiVersion: v1
kind: Pod
metadata: {name: migrate, namespace: db}
status:
  phase: Succeeded
  startTime: '2023-11-14T22:00:00Z'
  podIP: 192.0.2.2
  containerStatuses: [{state: {terminated: {finishedAt: '2023-11-14T22:13:30Z'}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: pg-0, namespace: db}
status: {phase: Running, startTime: '2023-11-14T22:13:25Z', podIP: 192.0.2.2}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: db}
spec: {hostNetwork: true}
status: {phase: Running, podIP: 192.0.2.9}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: pg-default-deny, namespace: db}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

/// A TCP segment between these ends of 192.0.2.0/24.
fn tcp(source: (u8, u16), destination: (u8, u16), flags: u8, sequence: u32) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    bytes.extend([192, 0, 2, source.0, 192, 0, 2, destination.0]);
    bytes.extend(source.1.to_be_bytes());
    bytes.extend(destination.1.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

/// A handshake that begins at a time.
fn handshake(time_ns: u64, source: (u8, u16), destination: (u8, u16)) -> Vec<Sent> {
    vec![
        (time_ns, tcp(source, destination, 0x02, 1)),
        (time_ns + 1_000, tcp(destination, source, 0x12, 1)),
        (time_ns + 2_000, tcp(source, destination, 0x10, 2)),
    ]
}

fn judged(packets: Vec<Sent>) -> (Vec<FlowRecord>, Vec<FindingRecord>) {
    let mut engine = Engine::new(Config {
        policy_everywhere: true,
        is_all_local: true,
        ..Config::default()
    })
    .expect("no ranges");
    let manifests = Manifests::parse("m", MANIFESTS);
    assert_eq!(manifests.diagnostics, []);
    engine.declare(manifests.cluster, manifests.policies);
    let (mut flows, mut findings) = (Vec::new(), Vec::new());
    let outcome = replay(&*pcap(packets), &options(), &mut engine, |record| {
        match record {
            Record::Flow(flow) if flow.state == State::Closed => flows.push(*flow),
            Record::Finding(finding) => findings.push(*finding),
            _ => {}
        }
        Ok::<_, Infallible>(())
    });
    assert!(matches!(outcome, Ok(Ok(()))));
    (flows, findings)
}

#[test]
fn a_reused_address_is_named_and_judged_as_of_its_time() {
    // START is 22:13:20: the job ends ten seconds later, while the other pod already begins.
    let mut packets = handshake(START + SECOND, (1, 40_000), (2, 5432));
    packets.extend(handshake(START + 8 * SECOND, (1, 40_001), (2, 5432)));
    packets.extend(handshake(START + 20 * SECOND, (1, 40_002), (2, 5432)));
    let (mut flows, findings) = judged(packets);
    flows.sort_by_key(|flow| flow.start);
    let names: Vec<_> = flows
        .iter()
        .map(|flow| flow.destination.pod.as_deref())
        .collect();
    assert_eq!(names, [Some("migrate"), Some("migrate"), Some("pg-0")]);
    for flow in &flows {
        assert_eq!(flow.source.pod.as_deref(), Some("cart-0"));
        assert_eq!(flow.source.kind, EntityKind::Pod);
        assert_eq!(
            flow.source.labels.as_ref().map(|labels| &*labels["app"]),
            Some("cart")
        );
        assert_eq!(flow.finding.as_deref(), Some("policy-violation"));
        let verdict = flow.policy.as_ref().expect("judged");
        assert_eq!(verdict.allowed, Some(false));
        assert_eq!(&*verdict.ingress.by[0], "NetworkPolicy db/pg-default-deny");
    }
    // One finding for each pair of pods.
    let reasons: Vec<_> = findings.iter().map(|finding| &*finding.reason).collect();
    assert_eq!(
        reasons,
        [
            "TCP 5432 from shop/cart-0 to db/migrate is denied by policy, and established",
            "TCP 5432 from shop/cart-0 to db/pg-0 is denied by policy, and established",
        ]
    );
    assert_eq!(findings[0].declared_by, "NetworkPolicy db/pg-default-deny");
}

#[test]
fn a_host_network_pod_is_not_named_by_the_nodes_address() {
    let (flows, findings) = judged(handshake(START + SECOND, (1, 40_000), (9, 443)));
    assert_eq!(flows[0].destination.pod, None);
    assert_ne!(flows[0].destination.kind, EntityKind::Pod);
    assert_eq!(
        flows[0].policy.as_ref().and_then(|verdict| verdict.allowed),
        Some(true)
    );
    assert!(findings.is_empty());
}

#[test]
fn a_connection_without_its_beginning_is_not_judged() {
    let packets = vec![
        (START + SECOND, tcp((1, 40_000), (2, 5432), 0x10, 7)),
        (START + SECOND + 1, tcp((2, 5432), (1, 40_000), 0x10, 7)),
    ];
    let (flows, findings) = judged(packets);
    assert_eq!(
        (flows[0].policy.as_ref(), flows[0].finding.as_deref()),
        (None, None)
    );
    assert!(findings.is_empty());
}
