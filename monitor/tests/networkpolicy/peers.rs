//! Rules 10 to 22: peers and selectors.

use monitor_core::netpol::Options;

use super::world::{OUTSIDE, World, deny_all, policy};

/// A policy of namespace x with one ingress rule from these peers.
fn from(peers: &str) -> String {
    let spec = format!("{{podSelector: {{}}, ingress: [{{from: {peers}}}]}}");
    policy("x", "from", &spec)
}

/// A policy of namespace x with one egress rule to these peers.
fn to(peers: &str) -> String {
    let spec = format!("{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: {peers}}}]}}");
    policy("x", "to", &spec)
}

#[test]
fn rule_10_no_peers_are_everything_outside_included() {
    for peers in ["[]", "null"] {
        let mut world = World::new(&[from(peers)]);
        assert_eq!(world.allows("y/a", "x/a"), Some(true), "{peers}");
        assert_eq!(world.allows(OUTSIDE, "x/a"), Some(true), "{peers}");
        let mut world = World::new(&[to(peers)]);
        assert_eq!(world.allows("x/a", OUTSIDE), Some(true), "{peers}");
    }
    let spec = "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}";
    let mut world = World::new(&[policy("x", "ports", spec)]);
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(true));
    assert_eq!(world.allows_port((OUTSIDE, "x/a"), "TCP", 81), Some(false));
}

#[test]
fn rule_11_peers_are_alternatives_ports_and_peers_are_not_rules_are() {
    let spec = "{podSelector: {}, ingress: [
        {from: [{podSelector: {matchLabels: {pod: b}}}, {namespaceSelector: {matchLabels: {ns: y}}}], ports: [{port: 80}]},
        {from: [{podSelector: {matchLabels: {pod: c}}}], ports: [{port: 81}]}]}";
    let mut world = World::new(&[policy("x", "p", spec)]);
    for (source, port, expected) in [
        ("x/b", 80, true),
        ("y/a", 80, true),
        ("x/c", 80, false),
        ("x/c", 81, true),
        ("x/b", 81, false),
        ("z/a", 80, false),
    ] {
        let allowed = world.allows_port((source, "x/a"), "TCP", port);
        assert_eq!(allowed, Some(expected), "{source} {port}");
    }
}

#[test]
fn rule_12_selectors_in_one_entry_must_both_match() {
    let mut world = World::new(&[from(
        "[{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: b}}}]",
    )]);
    world.assert_reach("x/a", &["y/b"]);
    let mut world = World::new(&[from(
        "[{namespaceSelector: {matchLabels: {ns: y}}}, {podSelector: {matchLabels: {pod: b}}}]",
    )]);
    world.assert_reach("x/a", &["y/a", "y/b", "y/c", "x/b"]);
}

#[test]
fn rule_13_an_absent_selector_is_not_an_empty_one() {
    // Pods alone: those of the policy's own namespace.
    let mut world = World::new(&[from("[{podSelector: {}}]")]);
    world.assert_reach("x/a", &["x/a", "x/b", "x/c"]);
    // Namespaces alone: all of their pods.
    let mut world = World::new(&[from("[{namespaceSelector: {matchLabels: {ns: z}}}]")]);
    world.assert_reach("x/a", &["z/a", "z/b", "z/c"]);
    // All namespaces are all pods, and nothing else.
    let mut world = World::new(&[from("[{namespaceSelector: {}}]")]);
    assert_eq!(world.allows("z/c", "x/a"), Some(true));
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(false));
    let mut world = World::new(&[from(
        "[{namespaceSelector: {}, podSelector: {matchLabels: {pod: b}}}]",
    )]);
    world.assert_reach("x/a", &["x/b", "y/b", "z/b"]);
    let mut world = World::new(&[from(
        "[{namespaceSelector: null, podSelector: {matchLabels: {pod: b}}}]",
    )]);
    world.assert_reach("x/a", &["x/b"]);
}

#[test]
fn rule_14_selectors_match_no_other_addresses() {
    let all = "[{namespaceSelector: {}, podSelector: {}}]";
    let mut world = World::new(&[from(all), to(all)]);
    for ip in [OUTSIDE, "192.168.0.2", "10.9.9.9", "2001:db8::1"] {
        assert_eq!(world.allows(ip, "x/a"), Some(false), "{ip}");
        assert_eq!(world.allows("x/a", ip), Some(false), "{ip}");
    }
    // Nor a pod of the node's network.
    world.add(&host_pod());
    assert_eq!(world.allows("x/host", "x/a"), Some(false));
    assert_eq!(world.allows("x/a", "y/a"), Some(true));
}

fn host_pod() -> String {
    "
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: x, labels: {pod: b}}
spec: {hostNetwork: true, nodeName: n2}
status: {podIP: 192.168.0.2, hostIP: 192.168.0.2}
"
    .to_owned()
}

#[test]
fn rule_15_a_peer_without_fields_matches_nothing() {
    for peer in ["{}", "null", "{serviceSelector: {}}"] {
        let mut world = World::faulty(&[from(&format!("[{peer}]"))]);
        world.assert_fault("spec.ingress[0].from[0]: a peer without");
        world.assert_reach("x/a", &[]);
        assert_eq!(world.allows(OUTSIDE, "x/a"), Some(false), "{peer}");
    }
}

#[test]
fn rule_16_an_ip_block_excludes_selectors() {
    let mut world = World::faulty(&[
        from("[{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]"),
        deny_all("y"),
    ]);
    world.assert_fault("spec.ingress[0].from[0].ipBlock: excludes podSelector");
    // The policy is left out, the other is in force.
    assert_eq!(world.allows("z/a", "x/a"), Some(true));
    assert_eq!(world.allows("z/a", "y/a"), Some(false));
}

#[test]
fn rule_17_exceptions_are_of_their_own_block() {
    let block = "{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/28]}}";
    let mut world = World::new(&[from(&format!("[{block}]"))]);
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(false));
    assert_eq!(world.allows("203.0.113.99", "x/a"), Some(true));
    // Another entry may allow what is excepted; so may another policy.
    let mut world = World::new(&[from(&format!(
        "[{block}, {{ipBlock: {{cidr: {OUTSIDE}/32}}}}]"
    ))]);
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(true));
    let other = policy(
        "x",
        "other",
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.8/29}}]}]}",
    );
    let mut world = World::new(&[from(&format!("[{block}]")), other]);
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(true));
    assert_eq!(world.allows("203.0.113.1", "x/a"), Some(false));
    let world = World::faulty(&[from(
        "[{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]",
    )]);
    world.assert_fault("ipBlock.except[0]: 11.0.0.0/9 is no part of 10.0.0.0/8");
}

#[test]
fn rule_18_whether_a_block_matches_pods_is_an_option() {
    let manifests = [from("[{ipBlock: {cidr: 0.0.0.0/0}}]")];
    let mut world = World::new(&manifests);
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(verdict.allowed, Some(true));
    assert!(verdict.ingress.plugin_dependent);
    let options = Options {
        blocks_match_pods: false,
    };
    let mut world = World::with(&manifests, options);
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(verdict.allowed, Some(false));
    assert!(verdict.ingress.plugin_dependent);
    // What does not depend on it does not say so.
    let verdict = world.verdict(OUTSIDE, "x/a", "TCP", 80);
    assert_eq!(verdict.allowed, Some(true));
    assert!(!verdict.ingress.plugin_dependent);
    let mut world = World::new(&[from(
        "[{ipBlock: {cidr: 0.0.0.0/0}}, {namespaceSelector: {}}]",
    )]);
    assert!(
        !world
            .verdict("y/a", "x/a", "TCP", 80)
            .ingress
            .plugin_dependent
    );
}

#[test]
fn rule_19_host_bits_families_and_mapped_addresses() {
    let mut world = World::new(&[from("[{ipBlock: {cidr: 10.0.0.5/8}}]")]);
    assert_eq!(world.allows("10.200.0.1", "x/a"), Some(true));
    assert_eq!(world.allows("::ffff:10.200.0.1", "x/a"), Some(true));
    assert_eq!(world.allows("11.0.0.1", "x/a"), Some(false));
    // Blocks are of one family.
    let mut world = World::new(&[from("[{ipBlock: {cidr: 0.0.0.0/0}}]")]);
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(true));
    assert_eq!(world.allows("2001:db8::1", "x/a"), Some(false));
    let mut world = World::new(&[from("[{ipBlock: {cidr: '::/0'}}]")]);
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(false));
    assert_eq!(world.allows("::ffff:203.0.113.9", "x/a"), Some(false));
    assert_eq!(world.allows("2001:db8::1", "x/a"), Some(true));
    // A pod is itself by any of its addresses; blocks match the one that is used.
    let mut world = World::new(&[from("[{ipBlock: {cidr: 'fd00:2::/32'}}]")]);
    assert_eq!(world.allows("10.2.0.1", "10.1.0.1"), Some(false));
    assert_eq!(world.allows("fd00:2::1", "fd00:1::1"), Some(true));
    let mut world = World::new(&[from("[{namespaceSelector: {matchLabels: {ns: y}}}]")]);
    assert_eq!(world.allows("10.2.0.1", "10.1.0.1"), Some(true));
    assert_eq!(world.allows("fd00:2::1", "fd00:1::1"), Some(true));
    let world = World::faulty(&[from("[{ipBlock: {cidr: 10.0.0.0/33}}]")]);
    world.assert_fault("spec.ingress[0].from[0].ipBlock.cidr: `10.0.0.0/33` is no address range");
}

#[test]
fn rule_20_namespaces_have_their_name_as_a_label() {
    let of_y = "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}]";
    let mut world = World::new(&[from(of_y)]);
    world.assert_reach("x/a", &["y/a", "y/b", "y/c"]);
    // Also where its object is not among the manifests.
    let of_new = "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: new}}}]";
    let mut world = World::new(&[from(of_new)]);
    world.add("{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: new}}");
    assert_eq!(world.allows("new/a", "x/a"), Some(true));
}

#[test]
fn rule_21_selectors() {
    let matches = |expressions: &str| {
        let peers = format!("[{{namespaceSelector: {{}}, podSelector: {{{expressions}}}}}]");
        let mut world = World::new(&[from(&peers)]);
        world.add("{apiVersion: v1, kind: Pod, metadata: {name: bare, namespace: y}}");
        world.add("{apiVersion: v1, kind: Pod, metadata: {name: more, namespace: y, labels: {pod: b, tier: web}}}");
        ["y/a", "y/b", "y/more", "y/bare"].map(|pod| world.allows(pod, "x/a") == Some(true))
    };
    let expression = |key: &str, operator: &str, values: &str| {
        matches(&format!(
            "matchExpressions: [{{key: {key}, operator: {operator}{values}}}]"
        ))
    };
    assert_eq!(matches(""), [true; 4]);
    assert_eq!(matches("matchLabels: {}, matchExpressions: []"), [true; 4]);
    assert_eq!(
        expression("pod", "In", ", values: [a, b]"),
        [true, true, true, false]
    );
    assert_eq!(expression("pod", "In", ", values: [c]"), [false; 4]);
    // What is not there is not in a list.
    assert_eq!(
        expression("pod", "NotIn", ", values: [b]"),
        [true, false, false, true]
    );
    assert_eq!(
        expression("tier", "Exists", ""),
        [false, false, true, false]
    );
    assert_eq!(
        expression("tier", "DoesNotExist", ""),
        [true, true, false, true]
    );
    // All requirements must hold.
    assert_eq!(
        matches("matchLabels: {pod: b}, matchExpressions: [{key: tier, operator: DoesNotExist}]"),
        [false, true, false, false]
    );
    for (expression, fault) in [
        (
            "{key: pod, operator: In}",
            "matchExpressions[0].values: missing",
        ),
        (
            "{key: pod, operator: Is, values: [a]}",
            "matchExpressions[0].operator: `Is` is no operator",
        ),
        (
            "{key: pod, operator: Exists, values: [a]}",
            "take no values",
        ),
        ("{operator: Exists}", "matchExpressions[0].key: missing"),
    ] {
        let spec = format!("{{podSelector: {{matchExpressions: [{expression}]}}}}");
        let world = World::faulty(&[policy("x", "p", &spec)]);
        world.assert_fault(fault);
    }
}

#[test]
fn rule_22_labels_count_as_they_are_now() {
    let mut world = World::new(&[from(
        "[{namespaceSelector: {matchLabels: {team: one}}, podSelector: {matchLabels: {role: client}}}]",
    )]);
    assert_eq!(world.allows("y/a", "x/a"), Some(false));
    world.add("{apiVersion: v1, kind: Namespace, metadata: {name: y, labels: {team: one}}}");
    assert_eq!(world.allows("y/a", "x/a"), Some(false));
    world.add(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: y, labels: {role: client}}}",
    );
    assert_eq!(world.allows("y/a", "x/a"), Some(true));
    world.add("{apiVersion: v1, kind: Namespace, metadata: {name: y}}");
    assert_eq!(world.allows("y/a", "x/a"), Some(false));
    // So does the label by which a policy selects.
    let mut world = World::new(&[policy(
        "x",
        "p",
        "{podSelector: {matchLabels: {locked: 'yes'}}}",
    )]);
    assert_eq!(world.allows("y/a", "x/a"), Some(true));
    world.add(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, labels: {locked: 'yes'}}}",
    );
    assert_eq!(world.allows("y/a", "x/a"), Some(false));
}
