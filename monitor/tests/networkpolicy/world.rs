//! A small cluster: namespaces x, y and z with pods a, b and c each, on two nodes.

use std::net::IpAddr;

use monitor::kube::manifests::{Diagnostic, Manifests};
use monitor_core::{
    cluster::{Change, Cluster, End},
    event::Protocol,
    netpol::{Flow, Options, Part, Policies, PolicyChange, Verdict},
    time::Timestamp,
};

/// Any address outside the cluster.
pub(super) const OUTSIDE: &str = "203.0.113.9";

/// A cluster, policies and what was wrong with their manifests.
pub(super) struct World {
    pub(super) cluster: Cluster,
    pub(super) policies: Policies,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// The manifests of the cluster: pod b of y is 10.2.0.2 and fd00:2::2, with ports 80 and 81 of TCP
/// and 80 of UDP and SCTP, each named. Nodes are 192.168.0.1 and 192.168.0.2; a and b are on the
/// first, c on the second.
pub(super) fn base() -> String {
    let mut documents = Vec::new();
    for (number, node) in [(1, "n1"), (2, "n2")] {
        documents.push(format!(
            "
---
apiVersion: v1
kind: Node
metadata: {{name: {node}, labels: {{node: {node}}}}}
status: {{addresses: [{{type: InternalIP, address: 192.168.0.{number}}}, {{type: Hostname, address: {node}}}]}}
"
        ));
    }
    for (i, namespace) in (1..).zip(["x", "y", "z"]) {
        documents.push(format!(
            "
---
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}, labels: {{ns: {namespace}}}}}
"
        ));
        for (j, name) in (1..).zip(["a", "b", "c"]) {
            let node = if name == "c" { 2 } else { 1 };
            documents.push(format!(
                "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{pod: {name}}}}}
spec:
  nodeName: n{node}
  containers:
  - name: main
    ports:
    - {{name: serve-80-tcp, containerPort: 80}}
    - {{name: serve-81-tcp, containerPort: 81, protocol: TCP}}
    - {{name: serve-80-udp, containerPort: 80, protocol: UDP}}
    - {{name: serve-80-sctp, containerPort: 80, protocol: SCTP}}
status:
  phase: Running
  hostIP: 192.168.0.{node}
  podIP: 10.{i}.0.{j}
  podIPs: [{{ip: 10.{i}.0.{j}}}, {{ip: 'fd00:{i}::{j}'}}]
"
            ));
        }
    }
    documents.concat()
}

/// A NetworkPolicy.
pub(super) fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
"
    )
}

/// A cluster-scoped policy.
pub(super) fn tier(kind: &str, name: &str, spec: &str) -> String {
    let version = match kind {
        "ClusterNetworkPolicy" => "v1alpha2",
        _ => "v1alpha1",
    };
    format!(
        "
---
apiVersion: policy.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: {name}}}
spec: {spec}
"
    )
}

/// An AdminNetworkPolicy.
pub(super) fn anp(name: &str, priority: u16, rest: &str) -> String {
    let spec = format!("{{priority: {priority}, {rest}}}");
    tier("AdminNetworkPolicy", name, &spec)
}

/// A ClusterNetworkPolicy.
pub(super) fn cnp(name: &str, tier_name: &str, priority: u16, rest: &str) -> String {
    let spec = format!("{{tier: {tier_name}, priority: {priority}, {rest}}}");
    tier("ClusterNetworkPolicy", name, &spec)
}

// === impl World ===

impl World {
    /// The cluster with these manifests added; they must be without fault.
    pub(super) fn new(manifests: &[String]) -> Self {
        let world = Self::with(manifests, Options::default());
        assert_eq!(world.diagnostics, [], "faults");
        world
    }

    /// The same, with options and maybe with faults.
    pub(super) fn with(manifests: &[String], options: Options) -> Self {
        let text = base() + &manifests.concat();
        let mut manifests = Manifests::parse("test.yaml", &text);
        let (cluster, policies) = manifests.build(options);
        Self {
            cluster,
            policies,
            diagnostics: manifests.diagnostics,
        }
    }

    /// The same, with default options and maybe with faults.
    pub(super) fn faulty(manifests: &[String]) -> Self {
        Self::with(manifests, Options::default())
    }

    /// Adds manifests later.
    pub(super) fn add(&mut self, manifests: &str) {
        let mut manifests = Manifests::parse("later.yaml", manifests);
        assert_eq!(manifests.diagnostics, [], "faults");
        for change in manifests.cluster.drain(..) {
            self.cluster.apply(change, Timestamp::UNIX_EPOCH);
        }
        for change in manifests.policies.drain(..) {
            self.policies.apply(change);
        }
    }

    /// Applies a change of the cluster.
    pub(super) fn change(&mut self, change: Change) {
        self.cluster.apply(change, Timestamp::UNIX_EPOCH);
    }

    /// Applies a change of the policies.
    pub(super) fn change_policy(&mut self, change: PolicyChange) {
        self.policies.apply(change);
    }

    fn end(&self, text: &str, family: Option<IpAddr>) -> End {
        if let Ok(ip) = text.parse() {
            return self.cluster.end_of_ip(ip);
        }
        let (namespace, name) = text.split_once('/').expect("namespace/name");
        let pod = self.cluster.pod(namespace, name).expect("a pod");
        self.cluster.end_of_pod(pod, family)
    }

    /// The connection between two ends, each `namespace/pod` or an address.
    pub(super) fn flow(&self, source: &str, destination: &str, protocol: &str, port: u16) -> Flow {
        let source = self.end(source, destination.parse().ok());
        let destination = self.end(destination, source.ip);
        let protocol: Protocol = protocol.parse().expect("a protocol");
        Flow::new(source, destination, protocol, port)
    }

    /// The verdict on a connection.
    pub(super) fn verdict(
        &mut self,
        source: &str,
        destination: &str,
        protocol: &str,
        port: u16,
    ) -> Verdict {
        let flow = self.flow(source, destination, protocol, port);
        let verdict = self.policies.judge(&self.cluster, &flow);
        // What is explained is what is judged, asked again or not.
        let explained = self.policies.explain(&self.cluster, &flow);
        assert_eq!(explained.verdict, *verdict, "{source} {destination}");
        assert!(!explained.steps.is_empty());
        let again = self.policies.judge(&self.cluster, &flow);
        assert_eq!(again, verdict, "{source} {destination}");
        Verdict::clone(&verdict)
    }

    /// Whether TCP to port 80 is allowed.
    pub(super) fn allows(&mut self, source: &str, destination: &str) -> Option<bool> {
        self.verdict(source, destination, "TCP", 80).allowed
    }

    /// Whether a connection is allowed.
    pub(super) fn allows_port(
        &mut self,
        ends: (&str, &str),
        protocol: &str,
        port: u16,
    ) -> Option<bool> {
        self.verdict(ends.0, ends.1, protocol, port).allowed
    }

    /// Asserts which sources reach a destination by TCP port 80, of all nine pods.
    pub(super) fn assert_reach(&mut self, destination: &str, allowed: &[&str]) {
        for namespace in ["x", "y", "z"] {
            for name in ["a", "b", "c"] {
                let source = format!("{namespace}/{name}");
                let expected = allowed.contains(&&*source) || source == destination;
                let found = self.allows(&source, destination);
                assert_eq!(found, Some(expected), "{source} to {destination}");
            }
        }
    }

    /// Asserts that a fault is told of, with file and line.
    pub(super) fn assert_fault(&self, text: &str) {
        let found = self.diagnostics.iter().any(|diagnostic| {
            diagnostic.to_string().contains(text)
                && diagnostic.file == "test.yaml"
                && diagnostic.line.is_some_and(|line| line > 1)
        });
        assert!(found, "`{text}` is not in {:#?}", self.diagnostics);
    }
}

/// Names of the policies of a part, without their kind.
pub(super) fn by(part: &Part) -> Vec<&str> {
    part.by
        .iter()
        .map(|label| label.split_once(' ').expect("a kind and a name").1)
        .collect()
}

/// All of ingress to all pods of a namespace is denied.
pub(super) fn deny_all(namespace: &str) -> String {
    policy(
        namespace,
        "deny-all",
        "{podSelector: {}, policyTypes: [Ingress]}",
    )
}

/// Anything may be sent to anything: the subject and peers of cluster-scoped policies.
pub(super) const EVERYONE: &str = "namespaces: {}";
