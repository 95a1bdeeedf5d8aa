//! Rules 36 to 45: nodes, host networks, a pod itself, services and the life of pods.

use monitor_core::{
    cluster::Change,
    netpol::{Basis, PolicyChange},
};

use super::world::{World, deny_all, policy};

fn deny_both(namespace: &str) -> String {
    policy(
        namespace,
        "deny-both",
        "{podSelector: {}, policyTypes: [Ingress, Egress]}",
    )
}

#[test]
fn rule_36_the_own_node_is_always_allowed() {
    let mut world = World::new(&[deny_both("x")]);
    let verdict = world.verdict("192.168.0.1", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.allowed, verdict.ingress.basis),
        (Some(true), Basis::OwnNode)
    );
    assert_eq!(world.allows("x/a", "192.168.0.1"), Some(true));
    // Another node is an address like any other.
    assert_eq!(world.allows("192.168.0.2", "x/a"), Some(false));
    assert_eq!(world.allows("x/a", "192.168.0.2"), Some(false));
    assert_eq!(world.allows("192.168.0.2", "x/c"), Some(true));
    // Also without the node's object, by the pod's status; and by what is known on the spot.
    world.change(Change::NodeGone("n1".into()));
    assert_eq!(world.allows("192.168.0.1", "x/a"), Some(true));
    let mut flow = world.flow("10.1.0.254", "x/a", "TCP", 80);
    flow.is_own_node = true;
    let verdict = world.policies.judge(&world.cluster, &flow);
    assert_eq!(verdict.ingress.basis, Basis::OwnNode);
    assert_eq!(world.allows("10.1.0.254", "x/a"), Some(false));
}

#[test]
fn rule_37_host_network_pods_are_their_node() {
    let host = "
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: x, labels: {pod: host}}
spec: {hostNetwork: true, nodeName: n2}
status: {podIP: 192.168.0.2, podIPs: [{ip: 192.168.0.2}], hostIP: 192.168.0.2}
";
    let select = policy(
        "y",
        "select",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}",
    );
    let mut world = World::new(&[host.to_owned(), deny_both("x"), select]);
    // No policy selects it, neither as subject nor as peer.
    assert_eq!(world.allows("z/a", "x/host"), Some(true));
    assert_eq!(world.allows("x/host", "z/a"), Some(true));
    assert_eq!(world.allows("x/host", "y/a"), Some(false));
    // The address is the node's, not the pod's.
    assert!(
        world
            .cluster
            .end_of_ip("192.168.0.2".parse().expect("an address"))
            .pod
            .is_none()
    );
    // Blocks match it as the node.
    let block = policy(
        "z",
        "block",
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.168.0.2/32}}]}]}",
    );
    world.add(&block);
    let verdict = world.verdict("x/host", "z/a", "TCP", 80);
    assert_eq!(verdict.allowed, Some(true));
    assert!(!verdict.ingress.plugin_dependent);
    assert_eq!(world.allows("192.168.0.1", "z/c"), Some(false));
    // To a pod of its own node it is the own node.
    assert_eq!(
        world.verdict("x/host", "y/c", "TCP", 80).ingress.basis,
        Basis::OwnNode
    );
}

#[test]
fn rule_38_a_pod_reaches_itself() {
    let service = "
---
apiVersion: v1
kind: Service
metadata: {name: own, namespace: x}
spec: {clusterIP: 10.96.0.1, selector: {pod: a}, ports: [{port: 80}]}
";
    let mut world = World::new(&[deny_both("x"), service.to_owned()]);
    let verdict = world.verdict("x/a", "x/a", "TCP", 80);
    assert_eq!(
        (verdict.egress.basis, verdict.ingress.basis),
        (Basis::Itself, Basis::Itself)
    );
    assert_eq!(world.allows("10.1.0.1", "fd00:1::1"), Some(true));
    assert_eq!(world.allows("x/a", "127.0.0.1"), Some(true));
    assert_eq!(world.allows("x/a", "x/b"), Some(false));
    // Through a service it is not defined for NetworkPolicy ...
    let verdict = world.verdict("x/a", "10.96.0.1", "TCP", 80);
    assert_eq!(verdict.allowed, None);
    assert!(
        verdict
            .reason()
            .expect("a reason")
            .contains("reaches itself through a Service")
    );
    // ... and subject to ClusterNetworkPolicy.
    world.add(&super::world::cnp(
        "deny",
        "Admin",
        1,
        "subject: {namespaces: {}}, egress: [{action: Deny, to: [{namespaces: {}}]}]",
    ));
    assert_eq!(world.allows("x/a", "10.96.0.1"), Some(false));
    assert_eq!(world.allows("x/a", "x/a"), Some(true));
}

#[test]
fn rule_39_what_is_judged_is_the_address_that_is_seen() {
    // A connection from outside by way of a node has the node's address, unless the client's is
    // kept: the client is allowed, the node is not.
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}";
    let mut world = World::new(&[policy("x", "clients", spec)]);
    assert_eq!(world.allows("203.0.113.9", "x/a"), Some(true));
    assert_eq!(world.allows("192.168.0.2", "x/a"), Some(false));
}

#[test]
fn rule_40_addresses_of_services_are_not_those_of_pods() {
    let service = |rest: &str| {
        format!(
            "
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: y}}
spec: {{clusterIP: 10.96.0.5, ports: [{{port: 80}}]{rest}}}
"
        )
    };
    let spec = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.96.0.5/32}}]}]}";
    let mut world = World::new(&[policy("x", "vip", spec), service(", selector: {pod: a}")]);
    // The block holds the service's address, not the pod's that is reached.
    let verdict = world.verdict("x/a", "10.96.0.5", "TCP", 80);
    assert_eq!(verdict.egress.allowed, Some(false));
    assert_eq!(verdict.service.as_deref(), Some("y/web"));
    // Pods behind it that are treated differently leave it open; so do unknown ones.
    let spec = "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.2.0.1/32}}]}]}";
    world.add(&policy("x", "vip", spec));
    assert_eq!(world.allows("x/a", "10.96.0.5"), Some(true));
    world.add(&service(", selector: {}"));
    let verdict = world.verdict("x/a", "10.96.0.5", "TCP", 80);
    assert_eq!(verdict.allowed, None);
    assert!(verdict.reason().expect("a reason").contains("no selector"));
    for pod in ["a", "b"] {
        let labels = format!("{{pod: {pod}, app: web}}");
        let number = if pod == "a" { 1 } else { 2 };
        world.add(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: y, labels: {labels}}}, status: {{podIP: 10.2.0.{number}}}}}"));
    }
    world.add(&service(", selector: {app: web}"));
    let verdict = world.verdict("x/a", "10.96.0.5", "TCP", 80);
    assert_eq!(verdict.allowed, None);
    assert!(
        verdict
            .reason()
            .expect("a reason")
            .contains("which pod the service chooses")
    );
}

#[test]
fn rule_41_ended_pods_hold_no_address() {
    let ended = |phase: &str| {
        format!(
            "
---
apiVersion: v1
kind: Pod
metadata: {{name: job, namespace: z, labels: {{pod: job}}}}
status: {{phase: {phase}, podIP: 10.1.0.1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: lone, namespace: z}}
status: {{phase: {phase}, podIP: 10.9.0.9}}
"
        )
    };
    let from_z = policy(
        "y",
        "from-z",
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}}]}]}",
    );
    for phase in ["Succeeded", "Failed"] {
        let mut world = World::new(&[from_z.clone(), ended(phase)]);
        // The address belongs to x/a, which has it now; another address to nobody.
        let end = world
            .cluster
            .end_of_ip("10.1.0.1".parse().expect("an address"));
        assert_eq!(&*end.pod.expect("a pod").pod.namespace, "x", "{phase}");
        assert_eq!(world.allows("10.1.0.1", "y/a"), Some(false));
        assert_eq!(world.allows("10.9.0.9", "y/a"), Some(false));
    }
    // One that is being deleted goes on until its containers have ended.
    let terminating = "
---
apiVersion: v1
kind: Pod
metadata: {name: leaving, namespace: z, deletionTimestamp: '2026-11-24T10:00:00Z'}
status: {phase: Running, podIP: 10.9.0.8}
";
    let mut world = World::new(&[from_z, terminating.to_owned()]);
    assert_eq!(world.allows("10.9.0.8", "y/a"), Some(true));
}

#[test]
fn rule_42_a_pending_pod_is_under_its_policies_already() {
    let pending = "
---
apiVersion: v1
kind: Pod
metadata: {name: new, namespace: x, labels: {pod: new}}
status: {phase: Pending}
";
    let mut world = World::new(&[deny_both("x"), pending.to_owned()]);
    assert_eq!(world.allows("y/a", "x/new"), Some(false));
    assert_eq!(world.allows("x/new", "y/a"), Some(false));
    // Where it depends on the address that it will have, it cannot be told.
    let spec =
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}";
    let mut world = World::new(&[policy("y", "block", spec), pending.to_owned()]);
    let verdict = world.verdict("y/a", "x/new", "TCP", 80);
    assert_eq!(verdict.allowed, None);
    assert!(verdict.reason().expect("a reason").contains("address"));
    // It will be of the family of the other end's, and blocks are of one family.
    let to = |blocks: &str| {
        let rules = format!("egress: [{{to: [{blocks}]}}]");
        let spec = format!("{{podSelector: {{}}, policyTypes: [Egress], {rules}}}");
        let policies = ["x", "y"].map(|namespace| policy(namespace, "block", &spec));
        let [in_x, in_y] = policies;
        let mut world = World::new(&[
            in_x,
            in_y,
            pending.to_owned(),
            pending.replace("new", "more"),
        ]);
        ["y/a", "x/more"].map(|source| world.allows(source, "x/new"))
    };
    let (four, six) = ("{ipBlock: {cidr: 0.0.0.0/0}}", "{ipBlock: {cidr: '::/0'}}");
    assert_eq!(to(four), [Some(true), None]);
    assert_eq!(to(six), [Some(false), None]);
    assert_eq!(to("{ipBlock: {cidr: 'fd00::/8'}}"), [Some(false), None]);
    assert_eq!(to(&format!("{four}, {six}")), [Some(true), Some(true)]);
}

#[test]
fn rule_43_a_connection_is_judged_by_the_policies_at_its_start() {
    // A verdict, once given, stays what it is; asked anew, the policies of now count.
    let mut world = World::new(&[]);
    let flow = world.flow("y/a", "x/a", "TCP", 80);
    let before = world.policies.judge(&world.cluster, &flow);
    world.add(&deny_all("x"));
    let after = world.policies.judge(&world.cluster, &flow);
    assert_eq!((before.allowed, after.allowed), (Some(true), Some(false)));
    world.change_policy(PolicyChange::NamespacedGone("x".into(), "deny-all".into()));
    let later = world.policies.judge(&world.cluster, &flow);
    assert_eq!(later.allowed, Some(true));
}

#[test]
fn rule_45_a_deleted_namespace_takes_its_policies_along_in_any_order() {
    let mut world = World::new(&[deny_all("x")]);
    assert_eq!(world.allows("y/a", "x/a"), Some(false));
    // The policy's own deletion may be told later, or first.
    world.change(Change::NamespaceGone("x".into()));
    assert_eq!(world.allows("y/a", "x/a"), Some(true));
    world.change_policy(PolicyChange::NamespacedGone("x".into(), "deny-all".into()));
    world.change(Change::PodGone("x".into(), "a".into()));
    assert!(world.cluster.pod("x", "a").is_none());
    // A new namespace of the same name, whose parts come before it or after it.
    world.add("{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}}");
    world.add(&deny_all("x"));
    world.add("{apiVersion: v1, kind: Namespace, metadata: {name: x}}");
    assert_eq!(world.allows("y/a", "x/a"), Some(false));
}
