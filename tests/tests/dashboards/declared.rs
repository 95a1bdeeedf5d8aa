//! What the lab's daemon is told of: a cluster with the lab's pods, a policy and a security group. Nothing enforces
//! either, so that what they deny comes through.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::demo::scene::Scene;
use tests::lab::api_server::{AGENT, ApiServer};
use tests::lab::{NODE, POD_NETWORK, VIRTUAL_NETWORK};

/// Arguments of the daemon: it asks the API server, and has the document of a security group.
pub(crate) fn arguments(scene: &Scene, api: &ApiServer<'_>) -> Result<Vec<String>> {
    let document = scene.lab.directory().join("nsg.json");
    fs::write(&document, group().to_string()).context("cannot write the document")?;
    // What is not answered is told of soon.
    let config = scene.lab.directory().join("nodewatch.toml");
    fs::write(&config, "[timeouts]\ntcp_unanswered = \"2s\"\n").context("cannot write")?;
    let kubeconfig = api.kubeconfig(AGENT)?;
    let ranges = [VIRTUAL_NETWORK, POD_NETWORK];
    let ranges = ranges.map(|range| format!("--virtual-network={range}"));
    // SSH is expected from where nobody is: all of it is unexpected.
    let mut arguments = vec![
        "--expect-ssh=admin=192.0.2.0/24".to_owned(),
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--nsg=subnet={}", document.display()),
    ];
    arguments.extend(ranges);
    Ok(arguments)
}

/// Writes the objects into the cluster, and what the agent may do there.
pub(crate) fn objects(scene: &Scene, api: &ApiServer<'_>) -> Result<()> {
    let pods = scene.pods();
    api.write(async |cluster| {
        cluster.deploy("deploy/base/rbac.yaml").await?;
        cluster
            .create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
            .await?;
        cluster.create(node()).await?;
        cluster.create(policy()).await?;
        cluster.create(proposed()).await?;
        for (name, address) in pods {
            cluster.create(pod(name, address)).await?;
        }
        Ok(())
    })
}

fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
        "status": {"addresses": [{"type": "InternalIP", "address": NODE.v4}]},
    })
}

fn pod(name: &str, address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "none"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// Who serves the web may be asked by the worker only; the shop asks all the same.
fn policy() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "worker"}}}]}],
        },
    })
}

/// Nothing may leave the shop, were this in force.
fn proposed() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {
            "name": "later", "namespace": "shop", "annotations": {"nodewatch.io/mode": "propose"},
        },
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    })
}

/// HTTPS from outside is denied, and comes.
fn group() -> Value {
    let rule = |name: &str, priority: u16, access: &str, port: &str| {
        json!({
            "name": name, "priority": priority, "direction": "Inbound", "access": access,
            "protocol": "Tcp", "sourceAddressPrefix": "*", "sourcePortRange": "*",
            "destinationAddressPrefix": "*", "destinationPortRange": port,
        })
    };
    json!({
        "name": "aks-subnet",
        "securityRules": [
            rule("AllowSsh", 100, "Allow", "22"),
            rule("DenyHttps", 110, "Deny", "443"),
        ],
    })
}
