//! An end of a flow as it stands on a command line.

use std::{net::IpAddr, str::FromStr, sync::Arc};

use monitor_core::cluster::Cluster;

use super::{
    ExplainError,
    ends::{Wanted, find},
    quoted,
};

/// An end, in any of the forms that `explain` and `policy explain` take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An address.
    Ip(IpAddr),
    /// `NAMESPACE/POD`; the pod may be `KIND/NAME` of its workload.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// `node/NAME`; where there is no such node, a pod of a namespace of that name.
    Node(String),
}

/// What stands before the name of a node.
const NODE: &str = "node";

/// The text of an end, if it is one: for arguments of commands.
pub(crate) fn checked(text: &str) -> Result<String, ExplainError> {
    text.parse::<Place>().map(|_| text.to_owned())
}

// === impl Place ===

impl FromStr for Place {
    type Err = ExplainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let parts = text.split_once('/');
        match parts.filter(|(a, b)| !a.is_empty() && !b.is_empty()) {
            // No name has a slash: KIND/NAME is a workload of a namespace that is called so.
            Some((NODE, name)) if !name.contains('/') => Ok(Self::Node(name.to_owned())),
            Some((namespace, name)) => Ok(Self::Pod {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            None => Err(ExplainError::Place(quoted(text))),
        }
    }
}

impl Place {
    /// The end that is meant, in a cluster.
    pub(crate) fn wanted(&self, cluster: &Cluster) -> Result<Wanted, ExplainError> {
        let mut wanted = Wanted::default();
        match self {
            Self::Ip(ip) => wanted.ip = Some(*ip),
            Self::Pod { namespace, name } => wanted.pod = Some((namespace.clone(), name.clone())),
            Self::Node(name) => {
                let node = cluster.nodes().find(|node| *node.name == **name);
                match node.map(|node| Arc::<[IpAddr]>::from(&*node.ips)) {
                    Some(ips) if ips.is_empty() => {
                        return Err(ExplainError::NoAddress(quoted(name)));
                    }
                    Some(ips) => wanted.node = Some(ips),
                    None if find(cluster, NODE, name).is_some() => {
                        wanted.pod = Some((NODE.to_owned(), name.clone()));
                    }
                    None => return Err(ExplainError::Node(quoted(name))),
                }
            }
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use monitor_core::netpol::Options;

    use super::*;
    use crate::{explain::ends::flow, kube::manifests::Manifests};

    #[test]
    fn ends_are_addresses_pods_workloads_and_nodes() {
        let pod = |namespace: &str, name: &str| Place::Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        for (text, place) in [
            ("10.0.0.1", Place::Ip([10, 0, 0, 1].into())),
            ("::1", Place::Ip(std::net::Ipv6Addr::LOCALHOST.into())),
            ("shop/cart-0", pod("shop", "cart-0")),
            ("shop/StatefulSet/cart", pod("shop", "StatefulSet/cart")),
            ("node/aks-1", Place::Node("aks-1".to_owned())),
            ("node/StatefulSet/cart", pod("node", "StatefulSet/cart")),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        for text in ["", "x", "/x", "x/", "10.0.0.1:80", "node/"] {
            let error = text.parse::<Place>().unwrap_err();
            assert_eq!(error, ExplainError::Place(text.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_node_is_meant_by_its_address_of_the_other_ends_family() {
        let text = "
{apiVersion: v1, kind: Node, metadata: {name: one}, status: {addresses: [{type: InternalIP, address: 10.224.0.4}, {type: InternalIP, address: 'fd00::4'}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: new}}
---
{apiVersion: v1, kind: Pod, metadata: {name: two, namespace: node}, status: {podIPs: [{ip: 'fd00::7'}]}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: cart, namespace: node}, spec: {template: {metadata: {labels: {app: cart}}}}}
";
        let (cluster, _) = Manifests::parse("m", text).build(Options::default());
        let wanted = |text: &str| text.parse::<Place>().unwrap().wanted(&cluster);
        let ends = |from: &str, to: &str| {
            let (from, to) = (wanted(from).unwrap(), wanted(to).unwrap());
            let protocol = monitor_core::event::Protocol::TCP;
            let flow = flow(&cluster, &from, &to, protocol, 80).unwrap();
            [flow.source.ip, flow.destination.ip].map(|ip| ip.unwrap().to_string())
        };
        assert_eq!(ends("node/one", "192.0.2.1"), ["10.224.0.4", "192.0.2.1"]);
        assert_eq!(ends("node/one", "2001:db8::1"), ["fd00::4", "2001:db8::1"]);
        assert_eq!(ends("2001:db8::1", "node/one"), ["2001:db8::1", "fd00::4"]);
        // A pod of a namespace of that name, where no node has the name.
        assert_eq!(ends("node/two", "node/one"), ["fd00::7", "fd00::4"]);
        let stand_in = Wanted {
            pod: Some(("node".to_owned(), "cart-0".to_owned())),
            ..Wanted::default()
        };
        assert_eq!(wanted("node/cart-0"), Ok(stand_in));
        let no_address = ExplainError::NoAddress("new".to_owned());
        assert_eq!(wanted("node/new"), Err(no_address));
        let unknown = ExplainError::Node("three".to_owned());
        assert_eq!(wanted("node/three"), Err(unknown));
    }
}
