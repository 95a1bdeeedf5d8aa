//! Ends of flows as a user names them.

use std::{net::IpAddr, sync::Arc};

use monitor_core::{
    cluster::{Cluster, End, KnownPod},
    event::Protocol,
    netpol::Flow,
};

/// An end by name, address, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) pod: Option<(String, String)>,
    pub(crate) ip: Option<IpAddr>,
    /// The addresses of a node, where that is meant.
    pub(crate) node: Option<Arc<[IpAddr]>>,
}

/// A pod that is not in the manifests.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("pod {namespace}/{name} is not in the manifests")]
pub(crate) struct UnknownPod {
    namespace: String,
    name: String,
}

// === impl Wanted ===

impl Wanted {
    fn pod<'a>(&self, cluster: &'a Cluster) -> Result<Option<&'a Arc<KnownPod>>, UnknownPod> {
        let Some((namespace, name)) = &self.pod else {
            return Ok(None);
        };
        match find(cluster, namespace, name) {
            Some(pod) => Ok(Some(pod)),
            None => Err(UnknownPod {
                namespace: namespace.chars().flat_map(char::escape_debug).collect(),
                name: name.chars().flat_map(char::escape_debug).collect(),
            }),
        }
    }

    /// Its addresses: what was asked for, else those of the pod, else those of the node.
    fn ips<'a>(&'a self, cluster: &'a Cluster, pod: Option<&'a Arc<KnownPod>>) -> &'a [IpAddr] {
        match (&self.ip, pod) {
            (Some(ip), _) => std::slice::from_ref(ip),
            (None, Some(pod)) => cluster.ips_of_pod(&pod.pod),
            (None, None) => self.node.as_deref().unwrap_or_default(),
        }
    }

    /// The node's address of the same family as another.
    fn of_node(&self, family: Option<IpAddr>) -> Option<IpAddr> {
        let ips = self.node.as_deref()?;
        let of_family = |ip: &&IpAddr| family.is_none_or(|other| other.is_ipv4() == ip.is_ipv4());
        ips.iter().find(of_family).or(ips.first()).copied()
    }

    fn end(
        &self,
        cluster: &Cluster,
        pod: Option<&Arc<KnownPod>>,
        family: Option<IpAddr>,
    ) -> Option<End> {
        match (pod, self.ip) {
            (Some(pod), Some(ip)) => Some(End {
                ip: End::outside(ip).ip,
                ..cluster.end_of_pod(pod, family)
            }),
            (Some(pod), None) => Some(cluster.end_of_pod(pod, family)),
            (None, Some(ip)) => Some(cluster.end_of_ip(ip)),
            (None, None) => self.of_node(family).map(|ip| cluster.end_of_ip(ip)),
        }
    }
}

/// Which end something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// A flow between two ends. Of ends with addresses of both families, those of one family are meant:
/// of the first of the source's that the destination has, too.
pub(crate) fn flow(
    cluster: &Cluster,
    source: &Wanted,
    destination: &Wanted,
    protocol: Protocol,
    port: u16,
) -> Result<Flow, (Side, UnknownPod)> {
    let source_pod = source.pod(cluster).map_err(|error| (Side::Source, error))?;
    let destination_pod = destination
        .pod(cluster)
        .map_err(|error| (Side::Destination, error))?;
    let none = || End {
        pod: None,
        ip: None,
    };
    let source_ips = source.ips(cluster, source_pod);
    let destination_ips = destination.ips(cluster, destination_pod);
    let is_shared = |ip: &&IpAddr| {
        let mut others = destination_ips.iter();
        others.any(|other| other.is_ipv4() == ip.is_ipv4())
    };
    let source_family = source_ips.iter().find(is_shared).copied();
    let from = source
        .end(cluster, source_pod, source_family)
        .unwrap_or_else(none);
    let to = destination
        .end(cluster, destination_pod, from.ip.or(destination.ip))
        .unwrap_or_else(none);
    // A pod of the node's network is its node, also where nothing tells the node's addresses.
    let pods = [
        source_pod.or(from.pod.as_ref()),
        destination_pod.or(to.pod.as_ref()),
    ];
    let is_own_node = match (pods[0], pods[1]) {
        (Some(one), Some(other)) => {
            one.pod.host_network != other.pod.host_network
                && one.pod.node.is_some()
                && one.pod.node == other.pod.node
        }
        _ => false,
    };
    Ok(Flow {
        is_own_node,
        ..Flow::new(from, to, protocol, port)
    })
}

/// A pod by name; by `Kind/name` of its workload; or, where a workload stands in for its pods, by
/// the name that one of them would have.
pub(super) fn find<'a>(
    cluster: &'a Cluster,
    namespace: &str,
    name: &str,
) -> Option<&'a Arc<KnownPod>> {
    if let Some(pod) = cluster.pod(namespace, name) {
        return Some(pod);
    }
    let of_workload = |workload: &str| {
        cluster
            .pods_of(namespace)
            .find(|pod| pod.pod.workload.as_deref() == Some(workload))
    };
    if name.contains('/') {
        return of_workload(name);
    }
    let (owner, _) = name.rsplit_once('-')?;
    let stand_in = |kind: &str, owner: &str| {
        of_workload(&format!("{kind}/{owner}")).filter(|pod| pod.pod.uid.is_none())
    };
    [
        "StatefulSet",
        "DaemonSet",
        "Job",
        "ReplicaSet",
        "ReplicationController",
    ]
    .iter()
    .find_map(|kind| stand_in(kind, owner))
    .or_else(|| stand_in("Deployment", owner.rsplit_once('-')?.0))
}

#[cfg(test)]
mod tests {
    use monitor_core::netpol::Options;

    use super::*;
    use crate::kube::manifests::Manifests;

    #[test]
    fn pods_are_found_by_name_workload_and_likely_name() {
        let text = "
kind: StatefulSet
apiVersion: apps/v1
metadata: {name: cart, namespace: shop}
spec: {template: {metadata: {labels: {app: cart}}}}
---
kind: Deployment
apiVersion: apps/v1
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}}}
---
kind: Pod
apiVersion: v1
metadata: {name: lone, namespace: shop, uid: u}
";
        let (cluster, _) = Manifests::parse("m", text).build(Options::default());
        let found = |name: &str| find(&cluster, "shop", name).map(|pod| pod.pod.name.to_string());
        for (name, pod) in [
            ("cart", "cart"),
            ("cart-0", "cart"),
            ("StatefulSet/cart", "cart"),
            ("web-5d9f7c-x2x4z", "web"),
            ("Deployment/web", "web"),
            ("lone", "lone"),
        ] {
            assert_eq!(found(name).as_deref(), Some(pod), "{name}");
        }
        for name in ["web-0", "lone-0", "cart-a-b", "Deployment/cart", "none"] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn two_pods_of_a_workload_are_not_one() {
        let text = "
kind: StatefulSet
apiVersion: apps/v1
metadata: {name: cart, namespace: shop}
spec: {template: {metadata: {labels: {app: cart}}}}
---
kind: Pod
apiVersion: v1
metadata: {name: lone, namespace: shop}
---
kind: Pod
apiVersion: v1
metadata: {name: cart-db-0, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: cart-db, uid: u, controller: true}]}
";
        let (cluster, _) = Manifests::parse("m", text).build(Options::default());
        let stand_in = |name: &str| find(&cluster, "shop", name).unwrap().pod.is_stand_in();
        assert!(stand_in("cart-0"));
        assert!(!stand_in("lone"));
        assert!(!stand_in("cart-db-0"));
    }

    #[test]
    fn ends_are_of_one_family() {
        let text = "
kind: Pod
apiVersion: v1
metadata: {name: a, namespace: x}
status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: b, namespace: x}
status: {podIPs: [{ip: 'fd00::2'}, {ip: 10.0.0.2}]}
---
kind: Pod
apiVersion: v1
metadata: {name: six, namespace: x}
status: {podIPs: [{ip: 'fd00::6'}]}
";
        let (cluster, _) = Manifests::parse("m", text).build(Options::default());
        let pod = |name: &str| Wanted {
            pod: Some(("x".into(), name.into())),
            ..Wanted::default()
        };
        let ip = |ip: &str| Wanted {
            ip: Some(ip.parse().unwrap()),
            ..Wanted::default()
        };
        let node = |ips: &[&str]| Wanted {
            node: Some(ips.iter().map(|ip| ip.parse().unwrap()).collect()),
            ..Wanted::default()
        };
        let check = |source: &Wanted, destination: &Wanted, from: &str, to: &str| {
            let Flow {
                source,
                destination,
                ..
            } = flow(&cluster, source, destination, Protocol::TCP, 1).unwrap();
            let text = |end: &End| end.ip.unwrap().to_string();
            assert_eq!(
                (text(&source), text(&destination)),
                (from.into(), to.into())
            );
        };
        check(&pod("a"), &pod("b"), "10.0.0.1", "10.0.0.2");
        check(&pod("b"), &pod("a"), "fd00::2", "fd00::1");
        check(&pod("b"), &ip("192.0.2.1"), "10.0.0.2", "192.0.2.1");
        check(&ip("2001:db8::1"), &pod("a"), "2001:db8::1", "fd00::1");
        // The family that both have, whichever comes first.
        for six in [pod("six"), node(&["fd00::6"])] {
            check(&pod("a"), &six, "fd00::1", "fd00::6");
            check(&six, &pod("a"), "fd00::6", "fd00::1");
        }
        let dual = node(&["10.0.0.9", "fd00::9"]);
        check(&dual, &pod("six"), "fd00::9", "fd00::6");
        check(&pod("six"), &dual, "fd00::6", "fd00::9");
        check(&dual, &pod("b"), "10.0.0.9", "10.0.0.2");
        // Neither has one of the other's: it is for the caller to refuse.
        check(&node(&["10.0.0.9"]), &pod("six"), "10.0.0.9", "fd00::6");
        let error = flow(&cluster, &pod("a"), &pod("no"), Protocol::TCP, 1).unwrap_err();
        assert_eq!(error.0, Side::Destination);
        assert_eq!(error.1.to_string(), "pod x/no is not in the manifests");
    }

    #[test]
    fn a_pod_of_the_nodes_network_is_the_node_of_pods_that_say_the_same() {
        let text = "
kind: Pod
apiVersion: v1
metadata: {name: agent, namespace: x}
spec: {hostNetwork: true, nodeName: one}
---
kind: Pod
apiVersion: v1
metadata: {name: here, namespace: x}
spec: {nodeName: one}
status: {podIP: 10.0.0.1}
---
kind: Pod
apiVersion: v1
metadata: {name: there, namespace: x}
spec: {nodeName: two}
---
kind: Pod
apiVersion: v1
metadata: {name: nowhere, namespace: x}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: closed, namespace: x}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";
        let (cluster, mut policies) = Manifests::parse("m", text).build(Options::default());
        let wanted = |name: &str| Wanted {
            pod: Some(("x".into(), name.into())),
            ..Wanted::default()
        };
        let mut allowed = |from: &str, to: &str| {
            let flow = flow(&cluster, &wanted(from), &wanted(to), Protocol::TCP, 80);
            policies.judge(&cluster, &flow.unwrap()).allowed
        };
        assert_eq!(allowed("agent", "here"), Some(true));
        assert_eq!(allowed("here", "agent"), Some(true));
        assert_eq!(allowed("agent", "there"), Some(false));
        assert_eq!(allowed("agent", "nowhere"), Some(false));
        assert_eq!(allowed("here", "there"), Some(false));
        // So it is where the other is named by its address.
        let by_address = Wanted {
            ip: Some("10.0.0.1".parse().unwrap()),
            ..Wanted::default()
        };
        let flow = flow(&cluster, &wanted("agent"), &by_address, Protocol::TCP, 80).unwrap();
        assert_eq!(policies.judge(&cluster, &flow).allowed, Some(true));
    }
}
