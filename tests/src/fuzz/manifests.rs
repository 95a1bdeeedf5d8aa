//! Manifests.

use monitor::kube::manifests::Manifests;
use monitor_core::{
    cluster::End,
    event::Protocol,
    netpol::{Flow, Options},
};

use super::check_message;
use crate::deploy;

pub(super) const WORDS: &[&[u8]] = &[
    b"---\n",
    b"...\n",
    b": ",
    b"- ",
    b"{",
    b"[",
    b"&a ",
    b"*a ",
    b"<<: *a",
    b"!!binary ",
    b"|\n",
    b"null",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"kind: List\nitems:\n",
    b"podSelector: {}",
    b"ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}",
    "\u{feff}".as_bytes(),
    "\u{202e}".as_bytes(),
];

const OBJECTS: [&str; 4] = [
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\nspec:\n  podSelector: {matchLabels: {a: b}, \
     matchExpressions: [{key: k, operator: In, values: [v]}]}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/8, \
     except: [10.1.0.0/16]}\n    - namespaceSelector: {}\n    ports: [{port: 80, endPort: 90}, {port: web, protocol: UDP}]\n",
    "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\nspec: {tier: Admin, priority: 1, subject: \
     {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}]}]}\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: x, labels: {a: b}}\nspec: {containers: [{name: c, ports: [{name: web, \
     containerPort: 80}]}]}\nstatus: {podIP: 10.244.1.7}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.0.0.1, \
     selector: {a: b}, ports: [{port: 80, targetPort: web}]}\n",
    "{\"apiVersion\": \"v1\", \"kind\": \"PodList\", \"items\": [{\"metadata\": {\"name\": \"a\"}, \"spec\": {\"containers\": []}, \"status\": \
     {\"podIPs\": [{\"ip\": \"::1\"}]}}]}",
];

pub(super) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut manifests = Manifests::parse("file.yaml", &text);
    for diagnostic in &manifests.diagnostics {
        check_message(&diagnostic.message);
        check_message(diagnostic.object.as_deref().unwrap_or_default());
        assert!(diagnostic.line != Some(0), "{diagnostic:?}");
    }
    let (cluster, mut policies) = manifests.build(Options::default());
    let pods = cluster.pods().take(4);
    let mut ends: Vec<_> = pods.map(|pod| cluster.end_of_pod(pod, None)).collect();
    ends.push(End::outside("203.0.113.9".parse().expect("an address")));
    for source in &ends {
        for destination in &ends {
            let flow = Flow {
                source: source.clone(),
                destination: destination.clone(),
                protocol: Protocol::TCP,
                port: 80,
                is_own_node: false,
                via_service: false,
            };
            let verdict = policies.judge(&cluster, &flow);
            let explained = policies.explain(&cluster, &flow);
            assert_eq!(*verdict, explained.verdict, "{flow:?}");
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = OBJECTS
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect();
    for file in ["daemonset.yaml", "rbac.yaml"] {
        let text = deploy::read(&format!("deploy/base/{file}")).expect("a manifest");
        seeds.push(text.into_bytes());
    }
    seeds.push(OBJECTS.join("---\n").into_bytes());
    seeds
}
