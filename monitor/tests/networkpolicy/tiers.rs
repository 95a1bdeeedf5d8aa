//! Rules 46 to 60: cluster-scoped policies.

use monitor_core::netpol::Basis;

use super::world::{EVERYONE, OUTSIDE, World, anp, by, cnp, deny_all, policy, tier};

/// Rest of a policy about everyone, with these ingress rules.
fn ingress(rules: &str) -> String {
    format!("subject: {{{EVERYONE}}}, ingress: [{rules}]")
}

/// Rest of a policy about everyone, with these egress rules.
fn egress(rules: &str) -> String {
    format!("subject: {{{EVERYONE}}}, egress: [{rules}]")
}

/// A rule of v1alpha1 from everyone.
fn from_all(action: &str) -> String {
    format!("{{action: {action}, from: [{{{EVERYONE}}}]}}")
}

fn baseline(rest: &str) -> String {
    tier(
        "BaselineAdminNetworkPolicy",
        "default",
        &format!("{{{rest}}}"),
    )
}

#[test]
fn rule_46_admin_then_network_policy_then_baseline_then_allowed() {
    let admin = |action: &str| anp("admin", 1, &ingress(&from_all(action)));
    let base = baseline(&ingress(&from_all("Deny")));
    // Admin decides over NetworkPolicy.
    let mut world = World::new(&[admin("Allow"), deny_all("x"), base.clone()]);
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.allowed, verdict.ingress.basis),
        (Some(true), Basis::Admin)
    );
    assert_eq!(&*verdict.ingress.by[0], "AdminNetworkPolicy admin");
    let allow_all = policy("x", "allow-all", "{podSelector: {}, ingress: [{}]}");
    let mut world = World::new(&[admin("Deny"), allow_all.clone()]);
    assert_eq!(world.allows("y/a", "x/a"), Some(false));
    // NetworkPolicy decides over Baseline.
    let mut world = World::new(&[admin("Pass"), allow_all, base.clone()]);
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.allowed, verdict.ingress.basis),
        (Some(true), Basis::NetworkPolicy)
    );
    // Baseline decides where no NetworkPolicy isolates.
    let verdict = world.verdict("y/a", "z/a", "TCP", 80);
    assert_eq!(
        (verdict.allowed, verdict.ingress.basis),
        (Some(false), Basis::Baseline)
    );
    assert_eq!(
        &*verdict.ingress.by[0],
        "BaselineAdminNetworkPolicy default"
    );
    // Then everything is allowed, and both directions must be.
    let mut world = World::new(&[admin("Pass")]);
    assert_eq!(
        world.verdict("y/a", "z/a", "TCP", 80).ingress.basis,
        Basis::Default
    );
    let out = cnp(
        "out",
        "Baseline",
        5,
        &egress(&format!("{{action: Deny, to: [{{{EVERYONE}}}]}}")),
    );
    let mut world = World::new(&[admin("Allow"), out]);
    let verdict = world.verdict("y/a", "z/a", "TCP", 80);
    assert_eq!(
        (
            verdict.egress.allowed,
            verdict.ingress.allowed,
            verdict.allowed
        ),
        (Some(false), Some(true), Some(false))
    );
}

#[test]
fn rule_47_priorities_then_order_of_rules() {
    let mut world = World::new(&[
        anp("late", 20, &ingress(&from_all("Deny"))),
        anp(
            "early",
            10,
            &ingress(&format!("{}, {}", from_all("Allow"), from_all("Deny"))),
        ),
    ]);
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.allowed, by(&verdict.ingress)),
        (Some(true), vec!["early"])
    );
    // Equal priorities that disagree are not decided ...
    let equal = |action: &str| anp("equal", 10, &ingress(&from_all(action)));
    let mut world = World::new(&[
        equal("Deny"),
        anp("early", 10, &ingress(&from_all("Allow"))),
    ]);
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.allowed, by(&verdict.ingress)),
        (None, vec!["early", "equal"])
    );
    assert!(
        verdict
            .reason()
            .expect("a reason")
            .contains("equal priority")
    );
    // ... unless they agree, or only one of them matches.
    let mut world = World::new(&[
        equal("Allow"),
        anp("early", 10, &ingress(&from_all("Allow"))),
    ]);
    assert_eq!(world.allows("y/a", "x/a"), Some(true));
    let of_z = "{action: Deny, from: [{namespaces: {matchLabels: {ns: z}}}]}";
    let mut world = World::new(&[equal("Allow"), anp("early", 10, &ingress(of_z))]);
    assert_eq!(world.allows("y/a", "x/a"), Some(true));
    assert_eq!(world.allows("z/a", "x/a"), None);
    let world = World::faulty(&[anp("high", 1001, &ingress(&from_all("Deny")))]);
    world.assert_fault("spec.priority: expected a number from 0 to 1000");
}

#[test]
fn rule_48_accept_and_deny_are_final_for_their_direction() {
    let accept = cnp(
        "out",
        "Admin",
        1,
        &egress(&format!("{{action: Accept, to: [{{{EVERYONE}}}]}}")),
    );
    let mut world = World::new(&[
        accept,
        policy("y", "no-egress", "{podSelector: {}, policyTypes: [Egress]}"),
        deny_all("x"),
    ]);
    // It overrides the source's NetworkPolicy, not the destination's.
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.egress.allowed, verdict.ingress.allowed),
        (Some(true), Some(false))
    );
    assert_eq!(world.allows("y/a", "z/a"), Some(true));
}

#[test]
fn rule_49_pass_skips_the_rest_of_the_tier() {
    let mut world = World::new(&[
        anp("pass", 1, &ingress(&from_all("Pass"))),
        anp("deny", 2, &ingress(&from_all("Deny"))),
    ]);
    assert_eq!(world.allows("y/a", "x/a"), Some(true));
    let mut world = World::new(&[
        cnp("pass", "Baseline", 1, &ingress(&from_all("Pass"))),
        cnp("deny", "Baseline", 2, &ingress(&from_all("Deny"))),
    ]);
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.allowed, verdict.ingress.basis),
        (Some(true), Basis::Default)
    );
}

#[test]
fn rule_50_a_policy_that_does_not_match_isolates_nothing() {
    let of_z = "{action: Allow, from: [{namespaces: {matchLabels: {ns: z}}}]}";
    let mut world = World::new(&[anp("of-z", 1, &ingress(of_z))]);
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.allowed, verdict.ingress.basis),
        (Some(true), Basis::Default)
    );
    // Without rules of a direction, that is not touched.
    let out = format!("{{action: Deny, to: [{{{EVERYONE}}}]}}");
    let mut world = World::new(&[anp("out", 1, &egress(&out))]);
    assert_eq!(
        world.verdict("y/a", "x/a", "TCP", 80).ingress.allowed,
        Some(true)
    );
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(true));
}

#[test]
fn rule_51_baseline_is_for_directions_that_are_not_isolated() {
    let base = baseline(&format!(
        "{}, egress: [{{action: Deny, to: [{{{EVERYONE}}}]}}]",
        ingress(&from_all("Deny"))
    ));
    // Isolated for ingress only: Baseline still decides its egress.
    let allow_in = policy(
        "x",
        "in",
        "{podSelector: {}, policyTypes: [Ingress], ingress: [{}]}",
    );
    let mut world = World::new(&[base, allow_in]);
    let inbound = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(
        (inbound.ingress.allowed, inbound.ingress.basis),
        (Some(true), Basis::NetworkPolicy)
    );
    let outbound = world.verdict("x/a", "y/a", "TCP", 80);
    assert_eq!(
        (outbound.egress.allowed, outbound.egress.basis),
        (Some(false), Basis::Baseline)
    );
}

#[test]
fn rule_52_subjects_and_peers() {
    let host = "
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: x, labels: {pod: b}}
spec: {hostNetwork: true, nodeName: n2}
status: {podIP: 192.168.0.2}
";
    let rule = "{action: Deny, from: [{pods: {namespaceSelector: {matchLabels: {ns: x}}, podSelector: {matchLabels: {pod: b}}}}]}";
    let subject = "subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}}";
    let mut world = World::new(&[
        anp("p", 1, &format!("{subject}, ingress: [{rule}]")),
        host.to_owned(),
    ]);
    assert_eq!(world.allows("x/b", "y/a"), Some(false));
    assert_eq!(world.allows("x/b", "y/b"), Some(true));
    assert_eq!(world.allows("y/b", "y/a"), Some(true));
    // A host-network pod is neither peer nor subject.
    assert_eq!(world.allows("x/host", "y/a"), Some(true));
    world.add(&anp("all", 2, &ingress(&from_all("Deny"))));
    assert_eq!(world.allows("x/c", "x/host"), Some(true));
    for (subject, fault) in [
        ("{}", "spec.subject: missing: expected namespaces or pods"),
        (
            "{namespaces: {}, pods: {}}",
            "spec.subject: use one of namespaces, pods",
        ),
    ] {
        let world = World::faulty(&[anp("p", 1, &format!("subject: {subject}"))]);
        world.assert_fault(fault);
    }
}

#[test]
fn rule_53_a_peer_of_a_newer_version_fails_closed() {
    let unknown = |action: &str| {
        let rule = format!("{{action: {action}, from: [{{services: {{}}}}, {{{EVERYONE}}}]}}");
        let world = World::faulty(&[cnp("new", "Admin", 1, &ingress(&rule)), deny_all("x")]);
        world.assert_fault("spec.ingress[0].from[0]: a peer with none of");
        world
    };
    // A rule that accepts matches nothing; one that denies or passes denies all.
    let mut world = unknown("Accept");
    assert_eq!(
        world.verdict("y/a", "x/a", "TCP", 80).ingress.basis,
        Basis::NetworkPolicy
    );
    assert_eq!(world.allows("y/a", "z/a"), Some(true));
    for action in ["Deny", "Pass"] {
        let mut world = unknown(action);
        for source in ["y/a", OUTSIDE] {
            let verdict = world.verdict(source, "z/a", "TCP", 80);
            assert_eq!(
                (verdict.allowed, by(&verdict.ingress)),
                (Some(false), vec!["new"]),
                "{action}"
            );
        }
    }
}

#[test]
fn rule_54_no_peers_are_nobody() {
    for list in ["[]", "null"] {
        let rule = format!("{{action: Deny, from: {list}}}");
        let mut world = World::faulty(&[anp("p", 1, &ingress(&rule))]);
        world.assert_fault("spec.ingress[0].from: a rule without peers matches nothing");
        assert_eq!(world.allows("y/a", "x/a"), Some(true), "{list}");
    }
}

#[test]
fn rule_55_ports_of_both_versions() {
    let check = |manifest: String, expected: &[(&str, u16, bool)]| {
        let mut world = World::new(std::slice::from_ref(&manifest));
        for (protocol, port, denied) in expected {
            let allowed = world.allows_port(("y/a", "x/a"), protocol, *port);
            assert_eq!(allowed, Some(!denied), "{protocol} {port}: {manifest}");
        }
    };
    let old = |ports: &str| {
        let rule = format!("{{action: Deny, from: [{{{EVERYONE}}}]{ports}}}");
        anp("p", 1, &ingress(&rule))
    };
    let new = |protocols: &str| {
        let rule = format!("{{action: Deny, from: [{{{EVERYONE}}}]{protocols}}}");
        cnp("p", "Admin", 1, &ingress(&rule))
    };
    // Absent: all traffic, whatever the protocol.
    for manifest in [old(""), new("")] {
        check(
            manifest,
            &[
                ("TCP", 80, true),
                ("UDP", 9, true),
                ("SCTP", 1, true),
                ("ICMP", 0, true),
            ],
        );
    }
    check(
        old(
            ", ports: [{portNumber: {protocol: TCP, port: 80}}, {portRange: {protocol: UDP, start: 10, end: 20}}]",
        ),
        &[
            ("TCP", 80, true),
            ("TCP", 81, false),
            ("UDP", 9, false),
            ("UDP", 10, true),
            ("UDP", 20, true),
            ("UDP", 21, false),
            ("TCP", 15, false),
            ("ICMP", 0, false),
        ],
    );
    check(
        new(
            ", protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 10, end: 20}}}}, {sctp: {destinationPort: {number: 7}}}]",
        ),
        &[
            ("TCP", 80, true),
            ("UDP", 80, false),
            ("UDP", 20, true),
            ("UDP", 21, false),
            ("SCTP", 7, true),
            ("TCP", 7, false),
        ],
    );
    // A name stands for any protocol that the port is declared with.
    for manifest in [
        old(", ports: [{namedPort: serve-80-udp}]"),
        new(", protocols: [{destinationNamedPort: serve-80-udp}]"),
    ] {
        check(
            manifest,
            &[("UDP", 80, true), ("TCP", 80, false), ("UDP", 81, false)],
        );
    }
    // In v1alpha1 the ends of a range may be one port.
    check(
        old(", ports: [{portRange: {start: 80, end: 80}}]"),
        &[("TCP", 80, true), ("TCP", 81, false), ("UDP", 80, false)],
    );
    for (manifest, fault) in [
        (
            old(", ports: [{portRange: {protocol: TCP, start: 81, end: 80}}]"),
            "start 81 is above end 80: matches nothing",
        ),
        (
            new(", protocols: [{tcp: {destinationPort: {range: {start: 80, end: 80}}}}]"),
            "start 80 is not below end 80",
        ),
        (
            new(", protocols: [{tcp: {}}]"),
            "tcp.destinationPort: missing",
        ),
        (
            new(", protocols: [{tcp: {destinationPort: {number: 0}}}]"),
            "0 is no port number",
        ),
        (
            new(", protocols: [{quic: {}}]"),
            "protocols[0]: not known here: the rule fails closed",
        ),
    ] {
        World::faulty(&[manifest]).assert_fault(fault);
    }
}

#[test]
fn rule_56_named_ports_are_not_for_addresses() {
    let rule = "{action: Deny, to: [{networks: [0.0.0.0/0]}, {namespaces: {}}], ports: [{namedPort: serve-80-tcp}]}";
    let mut world = World::faulty(&[anp("p", 1, &egress(rule))]);
    world.assert_fault("spec.egress[0].ports: named ports match nothing in a rule for nodes, networks or domainNames");
    assert_eq!(world.allows("x/a", "y/a"), Some(true));
    assert_eq!(world.allows("x/a", OUTSIDE), Some(true));
}

#[test]
fn rule_57_networks_match_pods_and_nodes() {
    let rule = "{action: Deny, to: [{networks: [0.0.0.0/0]}]}";
    let mut world = World::new(&[cnp("p", "Admin", 1, &egress(rule))]);
    for destination in ["y/a", "192.168.0.2", OUTSIDE] {
        let verdict = world.verdict("x/a", destination, "TCP", 80);
        assert_eq!(verdict.allowed, Some(false), "{destination}");
        assert!(!verdict.egress.plugin_dependent);
    }
    assert_eq!(world.allows("x/a", "2001:db8::1"), Some(true));
    // An address that is not known yet is of the family of the other end's, which may not be known.
    let pending = |name: &str| {
        format!(
            "\n---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: x}}, status: {{phase: Pending}}}}"
        )
    };
    let to = |networks: &str| {
        let rule = egress(&format!(
            "{{action: Deny, to: [{{networks: [{networks}]}}]}}"
        ));
        let mut world = World::new(&[cnp("p", "Admin", 1, &rule), pending("new"), pending("more")]);
        ["y/a", "x/more"].map(|source| world.allows(source, "x/new"))
    };
    assert_eq!(to("0.0.0.0/0"), [Some(false), None]);
    assert_eq!(to("'::/0'"), [Some(true), None]);
    assert_eq!(to("0.0.0.0/0, '::/0'"), [Some(false), Some(false)]);
    // Passing what goes to pods before keeps it.
    let pass = format!("{{action: Pass, to: [{{{EVERYONE}}}]}}, {rule}");
    let mut world = World::new(&[cnp("p", "Admin", 1, &egress(&pass))]);
    assert_eq!(world.allows("x/a", "y/a"), Some(true));
    assert_eq!(world.allows("x/a", OUTSIDE), Some(false));
}

#[test]
fn rule_58_nodes_and_domain_names() {
    let rule = "{action: Deny, to: [{nodes: {matchLabels: {node: n2}}}]}";
    let mut world = World::new(&[anp("p", 1, &egress(rule))]);
    assert_eq!(world.allows("x/a", "192.168.0.2"), Some(false));
    assert_eq!(world.allows("x/a", "192.168.0.1"), Some(true));
    assert_eq!(world.allows("x/a", "y/c"), Some(true));
    // Which addresses a name has is not known: what is denied anyway is not told as denied.
    let names = "{action: Accept, to: [{domainNames: ['*.example.org']}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}";
    let mut world = World::new(&[cnp("p", "Admin", 1, &egress(names))]);
    let verdict = world.verdict("x/a", OUTSIDE, "TCP", 80);
    assert_eq!(verdict.allowed, None);
    assert!(verdict.reason().expect("a reason").contains("domain names"));
    // Names are for what is outside the cluster; and what is allowed anyway is certain.
    assert_eq!(world.allows("x/a", "y/a"), Some(false));
    assert_eq!(world.allows("x/a", "2001:db8::1"), Some(true));
    let world = World::faulty(&[cnp(
        "p",
        "Admin",
        1,
        &egress("{action: Deny, to: [{domainNames: [example.org]}]}"),
    )]);
    world.assert_fault("domainNames: only rules that accept may have domain names");
}

#[test]
fn rule_59_one_baseline_admin_policy_many_cluster_policies() {
    let other = tier(
        "BaselineAdminNetworkPolicy",
        "other",
        &format!("{{{}}}", ingress(&from_all("Deny"))),
    );
    let mut world = World::faulty(&[other]);
    world.assert_fault("metadata.name: the only BaselineAdminNetworkPolicy is named `default`");
    assert_eq!(world.allows("y/a", "x/a"), Some(true));
    let mut world = World::new(&[
        cnp("second", "Baseline", 2, &ingress(&from_all("Deny"))),
        cnp("first", "Baseline", 1, &ingress(&from_all("Accept"))),
    ]);
    let verdict = world.verdict("y/a", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.allowed, by(&verdict.ingress)),
        (Some(true), vec!["first"])
    );
}

#[test]
fn rule_60_peers_that_were_removed_fail_closed() {
    for field in ["sameLabels: [team]", "notSameLabels: [team]"] {
        let rule = format!("{{action: Allow, from: [{{{field}}}]}}");
        let mut world = World::faulty(&[anp("p", 1, &ingress(&rule)), deny_all("x")]);
        world.assert_fault("the rule fails closed");
        assert_eq!(world.allows("y/a", "x/a"), Some(false), "{field}");
    }
}
