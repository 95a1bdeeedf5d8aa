//! Objects of the Kubernetes API, from JSON.
//!
//! What the API server would refuse is refused here, with the field that is wrong. What it would
//! accept and that hardly means what its author thinks gives a [`Fault`] beside the object.

mod field;
mod meta;
mod pod;
mod policy;
mod service;
mod tier;

use monitor_core::{
    cluster::{EndpointSlice, Namespace, Node, Pod, Service, Workload},
    netpol::{NetworkPolicy, TierKind, TierPolicy},
};
use serde_json::Value;

use field::Field;
pub use field::{Fault, Segment};

/// An object that the core works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// `v1 Namespace`.
    Namespace(Namespace),
    /// `v1 Pod`.
    Pod(Box<Pod>),
    /// Anything that makes pods by a template.
    Workload(Box<Workload>),
    /// `v1 Node`.
    Node(Node),
    /// `v1 Service`.
    Service(Service),
    /// `discovery.k8s.io EndpointSlice`.
    EndpointSlice(EndpointSlice),
    /// `networking.k8s.io/v1 NetworkPolicy`.
    NetworkPolicy(NetworkPolicy),
    /// `policy.networking.k8s.io` policies.
    TierPolicy(TierPolicy),
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// An object, with what is doubtful about it.
    Object(Object, Doubts),
    /// An object of another kind, with its `apiVersion` and `kind`.
    Other(String),
    /// Not an object of Kubernetes.
    Foreign,
}

/// What is doubtful about an object that is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubts {
    /// What hardly says what its author means.
    pub faults: Vec<Fault>,
    /// Addresses that are none.
    pub addresses: InvalidAddresses,
}

/// Addresses of an object that are no IP addresses: it is used as if they were not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvalidAddresses {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub faults: Vec<Fault>,
}

/// Kind, name and namespace of a value, as far as they are there: for messages.
pub fn title(value: &Value) -> String {
    let text = |value: &Value| value.as_str().map(field::shown);
    let kind = text(&value["kind"]).unwrap_or_else(|| "object".to_owned());
    let metadata = &value["metadata"];
    let name = text(&metadata["name"])
        .or_else(|| text(&metadata["generateName"]))
        .unwrap_or_else(|| "without a name".to_owned());
    match text(&metadata["namespace"]) {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// Name by which the API knows the kind of an object that can be read here.
pub(super) fn resource(value: &Value) -> &'static str {
    match value["kind"].as_str().unwrap_or_default() {
        "Namespace" => "namespaces",
        "Pod" => "pods",
        "Node" => "nodes",
        "Service" => "services",
        "EndpointSlice" => "endpointslices",
        "NetworkPolicy" => "networkpolicies",
        "AdminNetworkPolicy" => "adminnetworkpolicies",
        "BaselineAdminNetworkPolicy" => "baselineadminnetworkpolicies",
        "ClusterNetworkPolicy" => "clusternetworkpolicies",
        // Of many kinds, which are all read as one.
        _ => "workloads",
    }
}

/// Reads one object; lists are for the caller to take apart.
pub fn decode(value: &Value) -> Result<Decoded, Fault> {
    let root = Field::root(value);
    let (Some(kind), version) = (value["kind"].as_str(), value["apiVersion"].as_str()) else {
        return Ok(Decoded::Foreign);
    };
    // `v1` has no group.
    let group = version.map(|version| version.rsplit_once('/').map_or("", |(group, _)| group));
    let is_of = |groups: &[&str]| group.is_none_or(|group| groups.contains(&group));
    let mut doubts = Doubts::default();
    let Doubts { faults, addresses } = &mut doubts;
    let object = match kind {
        "Namespace" if is_of(&[""]) => Object::Namespace(meta::namespace(&root)?),
        "Pod" if is_of(&[""]) => Object::Pod(Box::new(pod::pod(&root, addresses)?)),
        "Node" if is_of(&[""]) => Object::Node(service::node(&root, addresses)?),
        "Service" if is_of(&[""]) => Object::Service(service::service(&root)?),
        "EndpointSlice" if is_of(&["discovery.k8s.io"]) => {
            Object::EndpointSlice(service::endpoint_slice(&root)?)
        }
        "ReplicationController" if is_of(&[""]) => workload(&root, kind)?,
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet"
            if is_of(&["apps", "extensions"]) =>
        {
            workload(&root, kind)?
        }
        "Job" | "CronJob" if is_of(&["batch"]) => workload(&root, kind)?,
        "NetworkPolicy" if is_of(&["networking.k8s.io", "extensions"]) => {
            Object::NetworkPolicy(policy::network_policy(&root, faults)?)
        }
        "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" | "ClusterNetworkPolicy"
            if is_of(&["policy.networking.k8s.io"]) =>
        {
            let kind = match kind {
                "AdminNetworkPolicy" => TierKind::Admin,
                "ClusterNetworkPolicy" => TierKind::Cluster,
                _ => TierKind::BaselineAdmin,
            };
            Object::TierPolicy(tier::tier_policy(&root, kind, faults)?)
        }
        _ => {
            let (version, kind) = (
                field::shown(version.unwrap_or_default()),
                field::shown(kind),
            );
            return Ok(Decoded::Other(
                format!("{version} {kind}").trim().to_owned(),
            ));
        }
    };
    Ok(Decoded::Object(object, doubts))
}

fn workload(root: &Field<'_>, kind: &str) -> Result<Object, Fault> {
    Ok(Object::Workload(Box::new(pod::workload(root, kind)?)))
}
