//! Rules 23 to 35: ports and protocols.

use monitor_core::netpol::Basis;

use super::world::{OUTSIDE, World, policy};

/// A policy of namespace x with one ingress rule for these ports.
fn ports(ports: &str) -> String {
    let spec = format!("{{podSelector: {{}}, ingress: [{{ports: {ports}}}]}}");
    policy("x", "ports", &spec)
}

/// Asserts what x/a may be sent from y/a under one rule for these ports.
fn check(list: &str, expected: &[(&str, u16, bool)]) {
    let mut world = World::new(&[ports(list)]);
    for (protocol, port, expected) in expected {
        let allowed = world.allows_port(("y/a", "x/a"), protocol, *port);
        assert_eq!(allowed, Some(*expected), "{list}: {protocol} {port}");
    }
}

#[test]
fn rule_23_absent_ports_and_protocols() {
    for list in ["[]", "null"] {
        check(
            list,
            &[("TCP", 80, true), ("UDP", 1, true), ("SCTP", 65_535, true)],
        );
    }
    check(
        "[{protocol: UDP}]",
        &[("UDP", 1, true), ("UDP", 65_535, true), ("TCP", 1, false)],
    );
    check(
        "[{port: 80}]",
        &[("TCP", 80, true), ("UDP", 80, false), ("TCP", 81, false)],
    );
    check("[{}]", &[("TCP", 1, true), ("UDP", 1, false)]);
}

#[test]
fn rule_24_dns_needs_udp_as_well() {
    check("[{port: 53}]", &[("TCP", 53, true), ("UDP", 53, false)]);
    check(
        "[{port: 53}, {port: 53, protocol: UDP}]",
        &[("TCP", 53, true), ("UDP", 53, true)],
    );
}

/// A service of namespace y in front of its pods.
fn service(name: &str, ip: &str, rest: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: y}}
spec: {{clusterIP: {ip}, {rest}}}
"
    )
}

#[test]
fn rule_25_ports_are_those_of_pods_not_of_services() {
    let egress = |port: u16| {
        let spec = format!(
            "{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{namespaceSelector: {{matchLabels: {{ns: y}}}}}}], ports: [{{port: {port}}}]}}]}}"
        );
        policy("x", "egress", &spec)
    };
    let web = service(
        "web",
        "10.96.0.10",
        "selector: {pod: a}, ports: [{port: 8080, targetPort: 80}, {port: 9090, targetPort: serve-81-tcp}]",
    );
    let mut world = World::new(&[egress(80), web.clone()]);
    let verdict = world.verdict("x/a", "10.96.0.10", "TCP", 8080);
    assert_eq!(verdict.allowed, Some(true));
    assert_eq!(verdict.service.as_deref(), Some("y/web"));
    assert_eq!(
        world.allows_port(("x/a", "10.96.0.10"), "TCP", 9090),
        Some(false)
    );
    let mut world = World::new(&[egress(8080), web.clone()]);
    assert_eq!(
        world.allows_port(("x/a", "10.96.0.10"), "TCP", 8080),
        Some(false)
    );
    let mut world = World::new(&[egress(81), web]);
    assert_eq!(
        world.allows_port(("x/a", "10.96.0.10"), "TCP", 9090),
        Some(true)
    );
}

#[test]
fn rule_26_named_ports_are_the_destinations_in_both_directions() {
    // The name is 80 in all pods of the cluster, and 8080 in this one.
    let other = "
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: y}
spec: {containers: [{name: c, ports: [{name: serve-80-tcp, containerPort: 8080}]}]}
status: {podIP: 10.2.0.9}
";
    let spec =
        "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}";
    let mut world = World::new(&[policy("x", "egress", spec), other.to_owned()]);
    assert_eq!(world.allows_port(("x/a", "y/a"), "TCP", 80), Some(true));
    assert_eq!(
        world.allows_port(("x/a", "y/other"), "TCP", 80),
        Some(false)
    );
    assert_eq!(
        world.allows_port(("x/a", "y/other"), "TCP", 8080),
        Some(true)
    );
    let mut world = World::new(&[
        policy(
            "y",
            "in",
            "{podSelector: {}, ingress: [{ports: [{port: serve-80-tcp}]}]}",
        ),
        other.to_owned(),
    ]);
    assert_eq!(world.allows_port(("x/a", "y/a"), "TCP", 80), Some(true));
    assert_eq!(
        world.allows_port(("x/a", "y/other"), "TCP", 80),
        Some(false)
    );
    assert_eq!(
        world.allows_port(("x/a", "y/other"), "TCP", 8080),
        Some(true)
    );
}

#[test]
fn rule_27_a_named_port_is_name_protocol_and_number() {
    check(
        "[{port: serve-80-tcp}]",
        &[("TCP", 80, true), ("TCP", 81, false), ("UDP", 80, false)],
    );
    check(
        "[{port: serve-80-udp, protocol: UDP}]",
        &[("UDP", 80, true), ("TCP", 80, false)],
    );
    // The name is of another protocol, or of no port at all: nothing matches, the pod is isolated.
    check(
        "[{port: serve-80-udp}]",
        &[("UDP", 80, false), ("TCP", 80, false)],
    );
    check(
        "[{port: no-such-port}]",
        &[("TCP", 80, false), ("UDP", 80, false)],
    );
}

#[test]
fn rule_28_named_ports_match_nothing_outside() {
    let spec =
        "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}";
    let mut world = World::new(&[policy("x", "egress", spec)]);
    assert_eq!(world.allows("x/a", "y/a"), Some(true));
    assert_eq!(world.allows("x/a", OUTSIDE), Some(false));
}

#[test]
fn rule_29_native_sidecars_have_named_ports() {
    let mut world = World::new(&[ports("[{port: proxy}]")]);
    let pod = |restart: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: s, namespace: x}}, spec: {{containers: [], initContainers: [{{name: i, {restart}ports: [{{name: proxy, containerPort: 15001}}]}}]}}}}"
        )
    };
    world.add(&pod("restartPolicy: Always, "));
    assert_eq!(world.allows_port(("y/a", "x/s"), "TCP", 15_001), Some(true));
    // A plain init container has ended when the others run.
    world.add(&pod(""));
    assert_eq!(
        world.allows_port(("y/a", "x/s"), "TCP", 15_001),
        Some(false)
    );
}

#[test]
fn rule_30_one_name_for_several_ports_depends_on_the_plugin() {
    let mut world = World::new(&[ports("[{port: web}]")]);
    world.add("
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: x, labels: {app: two}}
spec: {containers: [{name: a, ports: [{name: web, containerPort: 8001}]}, {name: b, ports: [{name: web, containerPort: 8002}]}]}
status: {podIP: 10.1.0.77}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: x}
spec: {clusterIP: 10.96.0.77, selector: {app: two}, ports: [{port: 80, targetPort: web}]}
");
    for port in [8001, 8002] {
        let verdict = world.verdict("y/a", "x/two", "TCP", port);
        assert_eq!(verdict.allowed, Some(true), "{port}");
        assert!(verdict.ingress.plugin_dependent, "{port}");
    }
    assert_eq!(
        world.allows_port(("y/a", "x/two"), "TCP", 8003),
        Some(false)
    );
    // A service takes the first container's, 8001.
    world.add(&ports("[{port: 8001}]"));
    assert_eq!(world.allows("y/a", "10.96.0.77"), Some(true));
    world.add(&ports("[{port: 8002}]"));
    assert_eq!(world.allows("y/a", "10.96.0.77"), Some(false));
}

#[test]
fn rule_31_ranges_include_both_ends() {
    check(
        "[{port: 80, endPort: 82}]",
        &[
            ("TCP", 79, false),
            ("TCP", 80, true),
            ("TCP", 81, true),
            ("TCP", 82, true),
            ("TCP", 83, false),
            ("UDP", 81, false),
        ],
    );
    check(
        "[{port: 80, endPort: 80}]",
        &[("TCP", 80, true), ("TCP", 81, false)],
    );
    for (port, fault) in [
        (
            "{port: 80, endPort: 79}",
            "endPort: 79 is below the port 80",
        ),
        (
            "{port: serve-80-tcp, endPort: 90}",
            "endPort: needs a port that is a number",
        ),
        ("{endPort: 90}", "endPort: needs a port that is a number"),
        ("{port: 0}", "port: 0 is no port number"),
        ("{port: 65536}", "port: 65536 is no port number"),
        (
            "{port: 80, protocol: ICMP}",
            "protocol: `ICMP` is no protocol of policies",
        ),
    ] {
        let world = World::faulty(&[ports(&format!("[{port}]"))]);
        world.assert_fault(fault);
    }
}

#[test]
fn rule_32_sctp_is_neither_tcp_nor_udp() {
    check(
        "[{protocol: SCTP, port: 80}]",
        &[
            ("SCTP", 80, true),
            ("TCP", 80, false),
            ("UDP", 80, false),
            ("SCTP", 81, false),
        ],
    );
}

#[test]
fn rule_33_other_protocols_cannot_be_told() {
    for list in ["[]", "[{port: 80}]"] {
        let mut world = World::new(&[ports(list)]);
        for protocol in ["ICMP", "ICMPv6", "GRE"] {
            let verdict = world.verdict("y/a", "x/a", protocol, 0);
            assert_eq!(verdict.allowed, None, "{list} {protocol}");
            assert_eq!(verdict.ingress.basis, Basis::Undecided);
            let reason = verdict.reason().expect("a reason");
            assert!(reason.contains(protocol), "{reason}");
        }
        // Where no policy isolates, nothing is left open.
        assert_eq!(world.allows_port(("y/a", "z/a"), "ICMP", 0), Some(true));
    }
}

#[test]
fn rule_34_numbers_need_no_declared_port() {
    check(
        "[{port: 12345}]",
        &[("TCP", 12_345, true), ("TCP", 12_346, false)],
    );
}

#[test]
fn rule_35_a_number_in_quotes_is_a_name_and_refused() {
    let mut world = World::faulty(&[ports("[{port: '80'}]")]);
    world.assert_fault("spec.ingress[0].ports[0].port: `80` in quotes is a name");
    world.assert_fault("skipped");
    // The policy is not in force: neither in a cluster, which refuses it, nor here.
    assert_eq!(world.allows("y/a", "x/a"), Some(true));
    for name in ["UPPER", "a--b", "-a", "a-", "a_b", "sixteen-letters-"] {
        let world = World::faulty(&[ports(&format!("[{{port: {name}}}]"))]);
        world.assert_fault("is no name of a port");
    }
}
