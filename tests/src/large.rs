//! A large cluster as its objects stand in files and in an API server: 10,000 pods in 500
//! namespaces, on 200 nodes, with 2,000 policies; a fifth of that in builds without optimisation,
//! which take minutes for all.

use std::{fs, io::Write as _, net::Ipv4Addr, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

const PART: u32 = if cfg!(debug_assertions) { 5 } else { 1 };

/// Namespaces.
pub const NAMESPACES: u32 = 500 / PART;
/// Pods.
pub const PODS: u32 = 10_000 / PART;
/// NetworkPolicies.
pub const POLICIES: u32 = 2_000 / PART;
/// Nodes.
pub const NODES: u32 = 200 / PART;

fn namespace_name(number: u32) -> String {
    format!("namespace-{}", number % NAMESPACES)
}

/// Namespace number `number`.
pub fn namespace(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": namespace_name(number), "labels": {"team": format!("team-{}", number % 20)},
        },
    })
}

/// Node number `number`.
pub fn node(number: u32) -> Value {
    let ip = Ipv4Addr::from_bits(0x0ae0_0100 + number % NODES);
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": format!("node-{}", number % NODES),
            "labels": {"kubernetes.io/os": "linux"},
        },
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    })
}

/// Address of pod number `number`.
pub fn pod_ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0ac8_0000 + number)
}

/// Pod number `number`, with what charts and kubelets write into one.
pub fn pod(number: u32) -> Value {
    let app = format!("app-{}", number / NAMESPACES % 5);
    let ip = pod_ip(number);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{number}"), "namespace": namespace_name(number),
            "labels": {
                "app.kubernetes.io/name": app, "app.kubernetes.io/instance": namespace_name(number),
                "app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": format!("{app}-1.2.3"),
                "tier": format!("tier-{}", number % 3),
            },
            "annotations": {"checksum/config": format!("{number:064}")},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": app, "controller": true,
                "uid": format!("1d6a6f2e-0000-4000-8000-{number:012}"),
            }],
        },
        "spec": {
            "nodeName": format!("node-{}", number % NODES),
            "containers": [{
                "name": "main", "image": "registry.example/app:1.2.3",
                "ports": [{"name": "http", "containerPort": 8_080}],
                "env": [{"name": "MODE", "value": "production"}],
            }],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "hostIP": Ipv4Addr::from_bits(0x0ae0_0100 + number % NODES),
        },
    })
}

/// Policy number `number`: one of four of its namespace.
pub fn policy(number: u32) -> Value {
    let of = |app: &str| json!({"matchLabels": {"app.kubernetes.io/name": app}});
    let spec = match number / NAMESPACES {
        0 => json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        1 => json!({
            "podSelector": of("app-0"),
            "ingress": [{
                "from": [{"podSelector": of("app-1")}, {"podSelector": of("app-2")}],
                "ports": [{"port": "http"}],
            }],
        }),
        2 => json!({
            "podSelector": {"matchLabels": {"tier": "tier-0"}},
            "ingress": [{
                "from": [
                    {
                        "namespaceSelector": {"matchLabels": {"team": format!("team-{}", number % 20)}},
                        "podSelector": {"matchLabels": {"tier": "tier-1"}},
                    },
                    {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.0/28"]}},
                ],
                "ports": [{"port": 8_000, "endPort": 9_000}],
            }],
        }),
        _ => json!({
            "podSelector": of("app-1"), "policyTypes": ["Egress"],
            "egress": [
                {"ports": [{"protocol": "UDP", "port": 53}]},
                {"to": [{"podSelector": of("app-0")}]},
            ],
        }),
    };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("policy-{number}"), "namespace": namespace_name(number)},
        "spec": spec,
    })
}

/// Writes all into files of a directory, a document each; how many bytes.
pub fn write(directory: &Path) -> Result<u64> {
    type Make = fn(u32) -> Value;
    let kinds: [(&str, u32, Make); 4] = [
        ("namespaces.yaml", NAMESPACES, namespace),
        ("nodes.yaml", NODES, node),
        ("pods.yaml", PODS, pod),
        ("policies.yaml", POLICIES, policy),
    ];
    let mut bytes = 0;
    for (name, count, make) in kinds {
        let path = directory.join(name);
        let file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        let mut file = std::io::BufWriter::new(file);
        for number in 0..count {
            writeln!(file, "---\n{}", make(number))?;
        }
        file.flush()?;
        bytes += fs::metadata(&path)?.len();
    }
    Ok(bytes)
}
