//! The objects of a Kubernetes cluster that name addresses and decide verdicts.
//!
//! [`Cluster`] takes changes one by one, as a watch or a reader of manifests finds them, in any
//! order between kinds. Each version of a pod has an identity of its own ([`PodId`]), so that what
//! was derived from one version is never taken for another's.

mod addresses;
mod endpoints;
mod host_pods;
mod namespaces;
mod object;
mod services;
mod shared;
mod whole;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use crate::{entity::normalise, event::Protocol, time::Timestamp};
use addresses::Addresses;
use endpoints::Slices;
use host_pods::HostPods;
use namespaces::NamespaceState;
use services::Services;

pub use shared::{SharedAddress, SharedAddresses};

pub(crate) use whole::Missing;

pub use object::{
    ContainerPort, Endpoint, EndpointPort, EndpointSlice, NAME_LABEL, Namespace, Node, Phase, Pod,
    Service, ServicePort, TargetPort, Workload,
};

/// Identity of a version of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodId(pub(crate) u64);

/// A version of a pod.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownPod {
    /// Identity of this version.
    pub id: PodId,
    /// What it looks like.
    pub pod: Pod,
    /// When this version of it was learned.
    pub(crate) since: Timestamp,
    /// Class of its address in metrics: `pod:<namespace>`.
    pub(crate) class: Arc<str>,
}

/// A change of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A namespace is new or different.
    Namespace(Namespace),
    /// A namespace is gone, with all that was in it.
    NamespaceGone(Arc<str>),
    /// A pod is new or different.
    Pod(Box<Pod>),
    /// The pod of this namespace and name is gone.
    PodGone(Arc<str>, Arc<str>),
    /// The pod of this namespace and name is gone, since some time that was not seen: while the
    /// cluster could not be watched.
    PodLost(Arc<str>, Arc<str>),
    /// A node is new or different.
    Node(Node),
    /// The node of this name is gone.
    NodeGone(Arc<str>),
    /// A service is new or different.
    Service(Service),
    /// The service of this namespace and name is gone.
    ServiceGone(Arc<str>, Arc<str>),
    /// Endpoints of a service are new or different.
    EndpointSlice(EndpointSlice),
    /// The endpoint slice of this namespace and name is gone.
    EndpointSliceGone(Arc<str>, Arc<str>),
}

/// One end of a flow, as policies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The pod; `None` for nodes, host-network pods and what is outside the cluster.
    pub pod: Option<Arc<KnownPod>>,
    /// The address; `None` for a pod that has none.
    pub ip: Option<IpAddr>,
}

/// What an address belongs to in the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Owner<'a> {
    Pod(&'a Arc<KnownPod>),
    Node(&'a Node),
    Service(&'a Service),
}

/// The objects of a cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    namespaces: HashMap<Arc<str>, NamespaceState>,
    /// Namespaces that were deleted, or that nothing is told of and whose last pod is gone, the
    /// latest last.
    gone: VecDeque<Arc<str>>,
    pods: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<KnownPod>>>,
    nodes: HashMap<Arc<str>, Node>,
    node_ips: HashMap<IpAddr, Arc<str>>,
    services: Services,
    slices: Slices,
    addresses: Addresses,
    host_pods: HostPods,
    last_id: u64,
    /// Grows with every change that is not about a pod.
    epoch: u64,
    missing: Missing,
}

// === impl Change ===

impl From<Pod> for Change {
    fn from(pod: Pod) -> Self {
        Self::Pod(Box::new(pod))
    }
}

// === impl End ===

impl End {
    /// An address outside the cluster, or a node's.
    pub fn outside(ip: IpAddr) -> Self {
        Self {
            pod: None,
            ip: Some(normalise(ip)),
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// A cluster without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a change in. `now` is when it was learned: a pod that is gone held its addresses
    /// until then, unless it says itself when it ended.
    pub fn apply(&mut self, change: Change, now: Timestamp) {
        match change {
            Change::Namespace(namespace) => self.set_namespace(namespace),
            Change::NamespaceGone(name) => self.end_namespace(name),
            Change::Pod(pod) => self.set_pod(*pod, now),
            Change::PodGone(namespace, name) => self.remove_pod(&namespace, &name, now, true),
            Change::PodLost(namespace, name) => self.remove_pod(&namespace, &name, now, false),
            Change::Node(node) => self.set_node(node),
            Change::NodeGone(name) => {
                self.forget_node(&name);
                self.epoch += 1;
            }
            Change::Service(service) => self.epoch += u64::from(self.services.set(service)),
            Change::ServiceGone(namespace, name) => {
                self.services.remove(&(namespace, name));
                self.epoch += 1;
            }
            // Verdicts by way of a service are not kept: the epoch stays.
            Change::EndpointSlice(slice) => self.slices.set(slice),
            Change::EndpointSliceGone(namespace, name) => self.slices.remove(&namespace, &name),
        }
    }

    fn set_pod(&mut self, pod: Pod, now: Timestamp) {
        self.meet_namespace(&pod.namespace);
        let pods = self.pods.entry(Arc::clone(&pod.namespace)).or_default();
        let before = pods.get(&pod.name).cloned();
        if before.as_ref().is_some_and(|before| before.pod == pod) {
            return;
        }
        // Another pod of the same name: a member of a StatefulSet that was made anew.
        let (before, replaced) = match before {
            Some(before) if before.pod.uid != pod.uid => (None, Some(before)),
            before => (before, None),
        };
        if let Some(replaced) = replaced {
            // When it ended was not seen.
            self.addresses.release(&replaced, now, false);
            self.host_pods.release(&replaced.pod);
        }
        self.last_id += 1;
        let known = Arc::new(KnownPod {
            id: PodId(self.last_id),
            since: now,
            class: format!("pod:{}", pod.namespace).into(),
            pod,
        });
        self.addresses.hold(&known, before.as_deref(), now);
        self.host_pods.set(&known);
        pods.insert(Arc::clone(&known.pod.name), known);
    }

    fn remove_pod(&mut self, namespace: &str, name: &str, now: Timestamp, is_seen: bool) {
        let Some(pods) = self.pods.get_mut(namespace) else {
            return;
        };
        if let Some(pod) = pods.remove(name) {
            self.addresses.release(&pod, now, is_seen);
            self.host_pods.release(&pod.pod);
        }
        if pods.is_empty() {
            self.pods.remove(namespace);
            self.leave_namespace(namespace);
        }
    }

    fn set_node(&mut self, node: Node) {
        if self.nodes.get(&node.name) == Some(&node) {
            return;
        }
        self.forget_node(&node.name);
        for ip in &node.ips {
            self.node_ips.insert(*ip, Arc::clone(&node.name));
        }
        self.nodes.insert(Arc::clone(&node.name), node);
        self.epoch += 1;
    }

    fn forget_node(&mut self, name: &Arc<str>) {
        for ip in self.nodes.remove(name).iter().flat_map(|node| &node.ips) {
            if self.node_ips.get(ip) == Some(name) {
                self.node_ips.remove(ip);
            }
        }
    }

    /// Grows with every change but those of pods.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The pod of this namespace and name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<KnownPod>> {
        self.pods.get(namespace)?.get(name)
    }

    /// The pod that uses its node's network and has this uid there, also just after it is gone.
    pub(crate) fn host_pod(&self, uid: &str) -> Option<&Arc<KnownPod>> {
        self.host_pods.get(uid)
    }

    /// All pods of a namespace, by name.
    pub fn pods_of(&self, namespace: &str) -> impl Iterator<Item = &Arc<KnownPod>> {
        self.pods
            .get(namespace)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<KnownPod>> {
        self.pods.values().flat_map(BTreeMap::values)
    }

    /// Whether there are any.
    pub(crate) fn has_pods(&self) -> bool {
        !self.pods.is_empty()
    }

    /// How many pods there are.
    pub fn pod_count(&self) -> usize {
        self.pods.values().map(BTreeMap::len).sum()
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node of this name.
    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The node with an address.
    pub(crate) fn node_of(&self, ip: IpAddr) -> Option<&Node> {
        self.nodes.get(self.node_ips.get(&ip)?)
    }

    /// The service with an address; of several the one that has this port, where it is known.
    pub(crate) fn service_of(
        &self,
        ip: IpAddr,
        port: Option<(Protocol, u16)>,
    ) -> Option<&Arc<Service>> {
        self.services.of(ip, port)
    }

    /// Whether there are services.
    pub(crate) fn has_services(&self) -> bool {
        !self.services.is_empty()
    }

    /// Whether an address is one of the node that a pod runs on.
    pub(crate) fn is_own_node(&self, pod: &Pod, ip: IpAddr) -> bool {
        pod.host_ips.contains(&ip)
            || pod
                .node
                .as_ref()
                .and_then(|name| self.nodes.get(name))
                .is_some_and(|node| node.ips.contains(&ip))
    }

    /// The end of a flow with this address, now.
    pub fn end_of_ip(&self, ip: IpAddr) -> End {
        let ip = normalise(ip);
        End {
            pod: self.addresses.current(ip).cloned(),
            ip: Some(ip),
        }
    }

    /// The end of a flow with this address, at a time.
    pub fn end_at(&self, ip: IpAddr, at: Timestamp) -> End {
        let ip = normalise(ip);
        End {
            pod: self.addresses.at(ip, at).cloned(),
            ip: Some(ip),
        }
    }

    /// Whether a pod held an address at a time, as far as pods are told of: not one that had it
    /// shortly before.
    pub(crate) fn is_held(&self, ip: IpAddr, at: Timestamp) -> bool {
        self.addresses.is_held(normalise(ip), at)
    }

    /// How many addresses several pods have which have not ended.
    pub(crate) fn shared_count(&self) -> u64 {
        self.addresses.shared().len() as u64
    }

    /// Addresses that a pod has: a host-network pod those of its node.
    pub fn ips_of_pod<'a>(&'a self, pod: &'a Pod) -> &'a [IpAddr] {
        let node = || self.nodes.get(pod.node.as_ref()?).map(|node| &node.ips);
        if !pod.host_network || !pod.ips.is_empty() {
            &pod.ips
        } else if !pod.host_ips.is_empty() {
            &pod.host_ips
        } else {
            node().unwrap_or(&pod.ips)
        }
    }

    /// A pod as the end of a flow. A host-network pod is its node. `family` is an address of the
    /// other end, where that is known: of a dual-stack pod the address of the same family is meant.
    pub fn end_of_pod(&self, pod: &Arc<KnownPod>, family: Option<IpAddr>) -> End {
        let ips = self.ips_of_pod(&pod.pod);
        let of_family = |ip: &&IpAddr| family.is_none_or(|other| other.is_ipv4() == ip.is_ipv4());
        End {
            pod: (!pod.pod.host_network).then(|| Arc::clone(pod)),
            ip: ips.iter().find(of_family).or(ips.first()).copied(),
        }
    }

    /// Whom an address belonged to at a time. A host-network pod has no address of its own. The
    /// port tells services of one address apart.
    pub(crate) fn owner(
        &self,
        ip: IpAddr,
        port: Option<(Protocol, u16)>,
        at: Timestamp,
    ) -> Option<Owner<'_>> {
        let pod = || self.addresses.at(ip, at).map(Owner::Pod);
        let node = || self.node_of(ip).map(Owner::Node);
        let service = || {
            self.service_of(ip, port)
                .map(|service| Owner::Service(service))
        };
        pod().or_else(node).or_else(service)
    }

    /// Names of nodes that pods run on and that are not known as objects.
    pub fn missing_nodes(&self) -> HashSet<Arc<str>> {
        self.pods()
            .filter_map(|pod| pod.pod.node.clone())
            .filter(|node| !self.nodes.contains_key(node))
            .collect()
    }

    /// Addresses of which a holder is kept.
    #[cfg(test)]
    pub(crate) fn addresses_len(&self) -> usize {
        self.addresses.len()
    }
}

#[cfg(test)]
mod tests;
