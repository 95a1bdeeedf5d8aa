//! Cluster-scoped policies of every version of their API that is read: one object each with every
//! field that the version's schema has (CustomResourceDefinitions of the Network Policy API v0.1.7
//! and v0.2.0, experimental channel), and what the versions differ in.

use monitor_core::netpol::Basis;

use super::world::{OUTSIDE, World};

/// AdminNetworkPolicy, v1alpha1.
const ADMIN: &str = "
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: every-field, labels: {team: net}, annotations: {a: b}}
spec:
  priority: 34
  subject:
    pods:
      namespaceSelector: {matchLabels: {ns: x}}
      podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]}
  ingress:
  - name: of-z
    action: Deny
    from:
    - namespaces: {matchLabels: {ns: z}}
    ports:
    - portNumber: {protocol: TCP, port: 80}
    - portRange: {protocol: UDP, start: 50, end: 60}
    - namedPort: serve-80-sctp
  - name: of-y
    action: Pass
    from:
    - pods:
        namespaceSelector: {matchLabels: {ns: y}}
        podSelector: {}
  egress:
  - name: web
    action: Allow
    to:
    - networks: [203.0.113.0/24, '2001:db8::/32']
    - domainNames: ['*.example.org', example.org.]
    ports:
    - portNumber: {port: 443}
  - name: nodes
    action: Deny
    to:
    - nodes: {matchExpressions: [{key: node, operator: Exists}]}
  - name: pods
    action: Deny
    to:
    - pods:
        namespaceSelector: {}
        podSelector: {matchLabels: {pod: c}}
status: {conditions: []}
";

/// BaselineAdminNetworkPolicy, v1alpha1.
const BASELINE: &str = "
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec:
  subject:
    namespaces: {matchLabels: {kubernetes.io/metadata.name: x}}
  ingress:
  - name: of-y
    action: Deny
    from:
    - namespaces: {matchLabels: {ns: y}}
    ports: [{portNumber: {port: 80}}]
  egress:
  - name: to-y
    action: Allow
    to:
    - pods: {namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: a}}}
    - networks: [198.51.100.0/24]
    - nodes: {}
    ports: [{portRange: {start: 80, end: 81}}]
  - action: Deny
    to: [{namespaces: {}}]
status: {conditions: []}
";

/// ClusterNetworkPolicy, of either version.
fn cluster(version: &str) -> String {
    format!(
        "
---
apiVersion: policy.networking.k8s.io/{version}
kind: ClusterNetworkPolicy
metadata: {{name: every-field}}
spec:
  tier: Admin
  priority: 0
  subject:
    pods:
      podSelector: {{matchLabels: {{pod: a}}}}
  ingress:
  - name: of-b
    action: Deny
    from:
    - pods:
        podSelector: {{matchLabels: {{pod: b}}}}
    protocols:
    - tcp: {{destinationPort: {{number: 80}}}}
    - udp: {{destinationPort: {{range: {{start: 53, end: 5353}}}}}}
    - sctp: {{destinationPort: {{number: 9003}}}}
    - destinationNamedPort: serve-81-tcp
  - action: Pass
    from: [{{namespaces: {{matchLabels: {{ns: z}}}}}}]
  egress:
  - name: out
    action: Accept
    to:
    - networks: [203.0.113.0/24]
    - domainNames: [www.example.org]
    protocols: [{{tcp: {{destinationPort: {{number: 443}}}}}}]
  - name: nodes
    action: Deny
    to: [{{nodes: {{matchLabels: {{node: n2}}}}}}, {{namespaces: {{matchLabels: {{ns: y}}}}}}]
  - name: rest
    action: Deny
    to: [{{networks: [0.0.0.0/0, '::/0']}}]
status: {{conditions: []}}
---
apiVersion: policy.networking.k8s.io/{version}
kind: ClusterNetworkPolicy
metadata: {{name: baseline}}
spec:
  tier: Baseline
  priority: 1000
  subject: {{namespaces: {{}}}}
  ingress:
  - action: Deny
    from: [{{namespaces: {{matchLabels: {{ns: z}}}}}}]
"
    )
}

#[test]
fn every_field_of_v1alpha1_is_read() {
    // Without a fault: no field is unknown, none is refused.
    let mut world = World::new(&[ADMIN.to_owned(), BASELINE.to_owned()]);
    let mut ask = |from: &str, to: &str, protocol: &str, port: u16| {
        let verdict = world.verdict(from, to, protocol, port);
        let part = if from.starts_with("x/") {
            &verdict.egress
        } else {
            &verdict.ingress
        };
        (part.allowed, part.basis)
    };
    let (yes, no) = (Some(true), Some(false));
    // Ingress of x/a: by the rules in order, then by Baseline.
    for (protocol, port) in [("TCP", 80), ("UDP", 50), ("UDP", 60), ("SCTP", 80)] {
        let found = ask("z/a", "x/a", protocol, port);
        assert_eq!(found, (no, Basis::Admin), "{protocol} {port}");
    }
    for (protocol, port) in [("TCP", 81), ("UDP", 49), ("UDP", 61), ("SCTP", 81)] {
        let found = ask("z/a", "x/a", protocol, port);
        assert_eq!(found, (yes, Basis::Default), "{protocol} {port}");
    }
    assert_eq!(ask("y/a", "x/a", "TCP", 80), (no, Basis::Baseline));
    assert_eq!(ask("y/a", "x/a", "TCP", 81), (yes, Basis::Default));
    // The subject is of pods a and b only.
    assert_eq!(ask("z/a", "x/c", "TCP", 80), (yes, Basis::Default));
    // Egress of x/a.
    assert_eq!(ask("x/a", OUTSIDE, "TCP", 443), (yes, Basis::Admin));
    assert_eq!(ask("x/a", "2001:db8::1", "TCP", 443), (yes, Basis::Admin));
    assert_eq!(ask("x/a", "192.168.0.2", "TCP", 1), (no, Basis::Admin));
    assert_eq!(ask("x/a", "z/c", "TCP", 1), (no, Basis::Admin));
    assert_eq!(ask("x/a", "z/b", "TCP", 1), (no, Basis::Baseline));
    assert_eq!(ask("x/a", "y/a", "TCP", 80), (yes, Basis::Baseline));
    assert_eq!(ask("x/a", "y/a", "TCP", 82), (no, Basis::Baseline));
    assert_eq!(
        ask("x/a", "198.51.100.1", "TCP", 81),
        (yes, Basis::Baseline)
    );
    assert_eq!(ask("x/a", "198.51.100.1", "TCP", 82), (yes, Basis::Default));
    // Whether a name has an address is not known; that may only matter where it would be allowed.
    assert_eq!(ask("x/a", "192.0.2.1", "TCP", 443), (yes, Basis::Default));
}

#[test]
fn every_field_of_v1alpha2_and_v1beta1_is_read() {
    for version in ["v1alpha2", "v1beta1"] {
        let mut world = World::new(&[cluster(version)]);
        let mut ask = |from: &str, to: &str, protocol: &str, port: u16| {
            let verdict = world.verdict(from, to, protocol, port);
            let part = if to == "x/a" {
                &verdict.ingress
            } else {
                &verdict.egress
            };
            (part.allowed, part.basis)
        };
        let (yes, no) = (Some(true), Some(false));
        // Without a selector of namespaces the pods of all are meant, as subject and as peer.
        for from in ["x/b", "y/b", "z/b"] {
            for (protocol, port) in [("TCP", 80), ("TCP", 81), ("UDP", 53), ("SCTP", 9_003)] {
                let found = ask(from, "x/a", protocol, port);
                assert_eq!(
                    found,
                    (no, Basis::Admin),
                    "{version} {from} {protocol} {port}"
                );
            }
        }
        assert_eq!(ask("y/b", "x/a", "UDP", 5_354), (yes, Basis::Default));
        assert_eq!(ask("y/c", "x/a", "TCP", 80), (yes, Basis::Default));
        assert_eq!(ask("z/c", "x/a", "TCP", 80), (no, Basis::Baseline));
        for from in ["x/a", "y/a", "z/a"] {
            assert_eq!(ask(from, OUTSIDE, "TCP", 443), (yes, Basis::Admin));
            assert_eq!(
                ask(from, "192.168.0.2", "TCP", 443).0,
                None,
                "a name may have it"
            );
            assert_eq!(ask(from, "192.168.0.2", "TCP", 80), (no, Basis::Admin));
            assert_eq!(ask(from, "y/c", "UDP", 1), (no, Basis::Admin));
            assert_eq!(ask(from, "2001:db8::1", "UDP", 1), (no, Basis::Admin));
            // Networks hold what ICMP reaches, too.
            assert_eq!(ask(from, OUTSIDE, "ICMP", 0), (no, Basis::Admin));
        }
        assert_eq!(ask("y/b", OUTSIDE, "TCP", 80), (yes, Basis::Default));
    }
}

#[test]
fn what_a_version_requires_is_required() {
    let of_pods = |kind: &str, pods: &str| {
        let (version, more) = match kind {
            "ClusterNetworkPolicy" => ("v1beta1", "tier: Admin, priority: 1, "),
            "AdminNetworkPolicy" => ("v1alpha1", "priority: 1, "),
            _ => ("v1alpha1", ""),
        };
        format!(
            "
---
apiVersion: policy.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: default}}
spec: {{{more}subject: {{pods: {pods}}}}}
"
        )
    };
    let kinds = [
        "AdminNetworkPolicy",
        "BaselineAdminNetworkPolicy",
        "ClusterNetworkPolicy",
    ];
    for kind in kinds {
        World::new(&[of_pods(kind, "{namespaceSelector: {}, podSelector: {}}")]);
        for (pods, missing) in [
            ("{namespaceSelector: {}}", "podSelector: missing"),
            (
                "{podSelectors: {}, namespaceSelector: {}}",
                "podSelector: missing",
            ),
            // One that is misspelled is not one that is absent.
            (
                "{podSelector: {}, nameSpaceSelector: {}}",
                "namespaceSelector: missing",
            ),
        ] {
            World::faulty(&[of_pods(kind, pods)]).assert_fault(missing);
        }
        let world = World::faulty(&[of_pods(kind, "{podSelector: {}}")]);
        if kind == "ClusterNetworkPolicy" {
            assert_eq!(world.diagnostics, []);
        } else {
            world.assert_fault("namespaceSelector: missing");
        }
    }
}
