//! Rules 1 to 9: what a policy isolates, and what is judged.

use monitor_core::netpol::Basis;

use super::world::{OUTSIDE, World, by, deny_all, policy};

#[test]
fn rule_01_isolation_is_per_pod_and_per_direction() {
    let mut world = World::new(&[policy(
        "x",
        "only-a",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}",
    )]);
    world.assert_reach("x/a", &[]);
    world.assert_reach("x/b", &ALL);
    // For egress it is not isolated.
    assert_eq!(world.allows("x/a", "y/a"), Some(true));
    // A policy of another namespace does not select it.
    assert_eq!(world.allows("x/b", "y/a"), Some(true));
    let mut world = World::new(&[policy(
        "x",
        "only-a",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}",
    )]);
    assert_eq!(world.allows("x/a", "y/a"), Some(false));
    world.assert_reach("x/a", &ALL);
}

/// All pods.
const ALL: [&str; 9] = [
    "x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c",
];

#[test]
fn rule_02_what_is_not_isolated_is_allowed() {
    let mut world = World::new(&[]);
    world.assert_reach("x/a", &ALL);
    let verdict = world.verdict("x/a", "y/b", "TCP", 4711);
    assert_eq!(verdict.egress.basis, Basis::Default);
    assert_eq!(verdict.ingress.basis, Basis::Default);
    assert!(verdict.is_uncovered() && verdict.egress.by.is_empty());
    for protocol in ["UDP", "SCTP", "ICMP", "47"] {
        let allowed = world.allows_port(("x/a", "y/b"), protocol, 0);
        assert_eq!(allowed, Some(true), "{protocol}");
    }
}

#[test]
fn rule_03_both_ends_must_allow() {
    let egress = policy(
        "x",
        "egress",
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}",
    );
    let ingress = policy(
        "y",
        "ingress",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}",
    );
    let mut world = World::new(&[egress.clone(), ingress]);
    let verdict = world.verdict("x/a", "y/a", "TCP", 80);
    assert_eq!(verdict.allowed, Some(true));
    assert_eq!(
        (by(&verdict.egress), by(&verdict.ingress)),
        (vec!["x/egress"], vec!["y/ingress"])
    );
    // Denied by the source alone, by the destination alone, and by both.
    assert_eq!(world.allows("x/a", "z/a"), Some(false));
    assert_eq!(world.allows("z/a", "y/a"), Some(false));
    let mut world = World::new(&[egress, deny_all("z")]);
    let verdict = world.verdict("x/a", "z/a", "TCP", 80);
    assert_eq!(
        (verdict.egress.allowed, verdict.ingress.allowed),
        (Some(false), Some(false))
    );
}

#[test]
fn rule_04_of_what_is_outside_only_the_pods_side_counts() {
    let both = policy(
        "x",
        "both",
        "{podSelector: {}, policyTypes: [Ingress, Egress]}",
    );
    let mut world = World::new(&[both]);
    let inbound = world.verdict(OUTSIDE, "x/a", "TCP", 80);
    assert_eq!(
        (inbound.egress.basis, inbound.allowed),
        (Basis::NoPod, Some(false))
    );
    let outbound = world.verdict("x/a", OUTSIDE, "TCP", 80);
    assert_eq!(
        (outbound.ingress.basis, outbound.allowed),
        (Basis::NoPod, Some(false))
    );
    let mut world = World::new(&[]);
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(true));
    assert_eq!(world.allows(OUTSIDE, "198.51.100.7"), Some(true));
}

#[test]
fn rule_05_policies_add_up() {
    let allow = |name: &str, pod: &str| {
        let spec = format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{pod: {pod}}}}}}}]}}]}}"
        );
        policy("x", name, &spec)
    };
    let mut world = World::new(&[deny_all("x"), allow("of-b", "b"), allow("of-c", "c")]);
    world.assert_reach("x/a", &["x/b", "x/c"]);
    let verdict = world.verdict("x/b", "x/a", "TCP", 80);
    assert_eq!(by(&verdict.ingress), ["x/of-b"]);
    let verdict = world.verdict("y/b", "x/a", "TCP", 80);
    assert_eq!(by(&verdict.ingress), ["x/deny-all", "x/of-b", "x/of-c"]);
    // One that allows everything takes precedence over one that denies everything.
    let everything = policy("x", "allow-all", "{podSelector: {}, ingress: [{}]}");
    let mut world = World::new(&[deny_all("x"), everything]);
    world.assert_reach("x/a", &ALL);
}

#[test]
fn rule_06_a_policy_selects_pods_of_its_namespace_an_absent_selector_all() {
    for selector in ["podSelector: {}, ", "podSelector: null, ", ""] {
        let spec = format!("{{{selector}policyTypes: [Ingress]}}");
        let mut world = World::new(&[policy("x", "all", &spec)]);
        for pod in ["x/a", "x/b", "x/c"] {
            world.assert_reach(pod, &[]);
        }
        world.assert_reach("y/a", &ALL);
    }
}

#[test]
fn rule_07_absent_policy_types_are_filled_in() {
    let allowed = |spec: &str| {
        let mut world = World::faulty(&[policy("x", "p", spec)]);
        (world.allows("y/a", "x/a"), world.allows("x/a", "y/a"))
    };
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(allowed("{podSelector: {}}"), (no, yes));
    assert_eq!(allowed("{podSelector: {}, policyTypes: []}"), (no, yes));
    assert_eq!(allowed("{podSelector: {}, egress: []}"), (no, yes));
    assert_eq!(allowed("{podSelector: {}, egress: null}"), (no, yes));
    // Ingress is isolated, too, if the policy is about egress only.
    assert_eq!(allowed("{podSelector: {}, egress: [{}]}"), (no, yes));
    let to_z = "egress: [{to: [{namespaceSelector: {matchLabels: {ns: z}}}]}]";
    assert_eq!(allowed(&format!("{{podSelector: {{}}, {to_z}}}")), (no, no));
    // A list that is there means what it says: the ingress section is ignored.
    let spec = "{podSelector: {}, policyTypes: [Egress], ingress: [{}]}";
    assert_eq!(allowed(spec), (yes, no));
    let world = World::faulty(&[policy("x", "p", spec)]);
    world.assert_fault("spec.ingress: ignored: policyTypes does not have this direction");
}

#[test]
fn rule_08_no_rules_allow_nothing_an_empty_rule_everything() {
    for rules in ["", ", ingress: []", ", ingress: null"] {
        let spec = format!("{{podSelector: {{}}, policyTypes: [Ingress]{rules}}}");
        let mut world = World::new(&[policy("x", "p", &spec)]);
        world.assert_reach("x/a", &[]);
        assert_eq!(world.allows(OUTSIDE, "x/a"), Some(false), "{rules}");
    }
    let spec = "{podSelector: {}, policyTypes: [Egress], egress: []}";
    let mut world = World::new(&[policy("x", "p", spec)]);
    assert_eq!(world.allows("x/a", OUTSIDE), Some(false));
    let spec = "{podSelector: {}, ingress: [{}]}";
    let mut world = World::new(&[policy("x", "p", spec)]);
    world.assert_reach("x/a", &ALL);
    assert_eq!(world.allows(OUTSIDE, "x/a"), Some(true));
}

#[test]
fn rule_09_answers_belong_to_their_connection() {
    // Nothing may reach x/a, and x/a may send: the connection is judged in the direction of the end
    // that opened it, so that its answers need no rule of their own.
    let mut world = World::new(&[deny_all("x")]);
    assert_eq!(world.allows("x/a", "y/a"), Some(true));
    assert_eq!(world.allows("y/a", "x/a"), Some(false));
    let dns = world.verdict("x/a", "y/a", "UDP", 53);
    assert_eq!(dns.allowed, Some(true));
    assert_eq!(dns.ingress.basis, Basis::Default);
}
