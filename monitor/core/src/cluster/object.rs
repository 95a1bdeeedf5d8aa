//! Kubernetes objects, with the fields that names and verdicts need.
//!
//! Field names and meanings: Kubernetes API reference, `core/v1` and `apps/v1`.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::{
    event::{Labels, Protocol},
    time::Timestamp,
};

/// Label that the API server sets on every namespace (`kubernetes.io/metadata.name`, well-known
/// labels of the Kubernetes documentation).
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Name.
    pub name: Arc<str>,
    /// Labels as written; [`NAME_LABEL`] is added when they are looked at.
    pub labels: Labels,
}

/// A pod, or a workload that stands in for its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Option<Arc<str>>,
    /// Of a static pod, the hash by which its kubelet knows it (`kubernetes.io/config.mirror`):
    /// its object in the API has another uid.
    pub static_uid: Option<Arc<str>>,
    /// Labels.
    pub labels: Labels,
    /// `status.podIPs`, normalised, the primary one first.
    pub ips: Vec<IpAddr>,
    /// `status.hostIPs`, normalised.
    pub host_ips: Vec<IpAddr>,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// `spec.hostNetwork`: it has the node's addresses, and is node traffic to every policy.
    pub host_network: bool,
    /// Whether its containers may run.
    pub phase: Phase,
    /// Named ports of its containers and of its native sidecars, in the order of their containers.
    pub ports: Vec<ContainerPort>,
    /// Kind and name of what owns it: `StatefulSet/cart`.
    pub workload: Option<Arc<str>>,
    /// When the kubelet took it on (`status.startTime`), else when it was created.
    pub start: Option<Timestamp>,
    /// When the last of its containers ended, for a pod that will not run again.
    pub end: Option<Timestamp>,
}

impl Pod {
    /// Whether it stands in for all pods of its workload, see [`Workload::stand_ins`].
    pub fn is_stand_in(&self) -> bool {
        let is_named_like = |workload: &str| {
            workload == &*self.name
                || workload.split_once('/').map(|(_, name)| name) == Some(&*self.name)
        };
        self.uid.is_none() && self.workload.as_deref().is_some_and(is_named_like)
    }
}

/// Whether a pod's containers may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Pending, running or unknown: subject and peer of policies. A pod that is being deleted
    /// stays active until its containers have ended.
    Active,
    /// Succeeded or failed: its addresses are free for others, whatever its status says.
    Ended,
}

/// A named port of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// `status.addresses` that are IP addresses, normalised.
    pub ips: Vec<IpAddr>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Cluster, external and load balancer addresses, normalised.
    pub ips: Vec<IpAddr>,
    /// Labels of the pods behind it; `None` where its endpoints are managed by others.
    pub selector: Option<Labels>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty where the port is the only one.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the service's addresses.
    pub port: u16,
    /// Port of the pods.
    pub target: TargetPort,
}

/// Port of the pods behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This number.
    Number(u16),
    /// The port of this name, each pod's own.
    Name(Arc<str>),
}

/// Endpoints of a service: some of them, or all (`discovery/v1 EndpointSlice`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace, which is the service's, too.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Name of the service (label `kubernetes.io/service-name`).
    pub service: Option<Arc<str>>,
    /// Ports of all endpoints.
    pub ports: Vec<EndpointPort>,
    /// Those that new connections may go to.
    pub endpoints: Vec<Endpoint>,
}

/// A port of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Name of the service's port; empty where it has none.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// An address behind a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address, normalised.
    pub ip: IpAddr,
    /// Whether it takes connections only where no other endpoint does: it serves while it ends.
    pub is_terminating: bool,
}

/// A workload: what makes pods by a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Kind: `Deployment`, `StatefulSet` and so on.
    pub kind: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Whether another workload makes it: a ReplicaSet of a Deployment, a Job of a CronJob.
    pub is_owned: bool,
    /// What its pods look like; named like the workload, without an address.
    pub template: Pod,
}

// === impl Pod ===

impl Pod {
    /// A pod of which nothing else is known.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            uid: None,
            static_uid: None,
            labels: Labels::default(),
            ips: Vec::new(),
            host_ips: Vec::new(),
            node: None,
            host_network: false,
            phase: Phase::Active,
            ports: Vec::new(),
            workload: None,
            start: None,
            end: None,
        }
    }

    /// Whether the pod has ports of this name with different numbers for one protocol, which
    /// network plugins resolve in different ways.
    pub fn has_ambiguous_port(&self, name: &str, protocol: Protocol) -> bool {
        let mut numbers = self
            .ports
            .iter()
            .filter(|port| &*port.name == name && port.protocol == protocol)
            .map(|port| port.port);
        let first = numbers.next();
        numbers.any(|number| Some(number) != first)
    }

    /// Whether a port of this name, protocol and number is declared.
    pub fn has_port(&self, name: &str, protocol: Protocol, number: u16) -> bool {
        self.ports
            .iter()
            .any(|port| &*port.name == name && port.protocol == protocol && port.port == number)
    }
}

// === impl Workload ===

impl Workload {
    /// Pods that stand in for workloads: one for each that makes its own pods and of which no pod
    /// is among `pods`. A pod is of the workload that it says owns it; of one that says nothing, as
    /// where fields were left out, its name and its labels tell.
    ///
    /// It is named like the workload, or `Kind/name` where that name is taken.
    pub fn stand_ins(workloads: Vec<Self>, pods: &[Pod]) -> Vec<Pod> {
        let mut by_namespace: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in pods {
            by_namespace.entry(&pod.namespace).or_default().push(pod);
        }
        let mut taken: std::collections::BTreeSet<(Arc<str>, Arc<str>)> = pods
            .iter()
            .map(|pod| (Arc::clone(&pod.namespace), Arc::clone(&pod.name)))
            .collect();
        let mut stand_ins = Vec::new();
        for workload in workloads {
            let mut template = workload.template;
            let qualified: Arc<str> = format!("{}/{}", workload.kind, workload.name).into();
            let is_named_so = |pod: &Pod| {
                let rest = pod.name.strip_prefix(&*workload.name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            };
            let is_of = |pod: &&Pod| match &pod.workload {
                Some(owner) => *owner == qualified,
                None => is_named_so(pod) && has_all(&pod.labels, &template.labels),
            };
            let has_pods = by_namespace
                .get(&*workload.namespace)
                .is_some_and(|pods| pods.iter().any(is_of));
            if workload.is_owned || has_pods {
                continue;
            }
            template.workload = Some(Arc::clone(&qualified));
            template.namespace = Arc::clone(&workload.namespace);
            template.name = workload.name;
            let key = (Arc::clone(&template.namespace), Arc::clone(&template.name));
            if !taken.insert(key) {
                template.name = qualified;
            }
            stand_ins.push(template);
        }
        stand_ins
    }
}

/// Whether `labels` has all of `wanted`, which are some.
fn has_all(labels: &Labels, wanted: &Labels) -> bool {
    !wanted.is_empty()
        && wanted
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
}
