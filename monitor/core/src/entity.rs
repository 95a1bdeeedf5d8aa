//! Whose an address is.
//!
//! [`Names`] is the one place that answers it. It is asked with a [`Sight`]: the address, the
//! vantage point it was seen from and when, because an address may pass from one pod to another
//! and may mean something else before and after translation.

mod cgroup;
mod range;
mod reach;

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    cluster::{Cluster, Owner},
    event::{Endpoint, EntityKind, Labels, Point, Protocol},
    time::Timestamp,
};

pub use cgroup::Cgroup;
pub use range::{NamedRange, RangeError, parse_net};
pub use reach::{is_public, normalise};

use cgroup::Cgroups;
use range::Ranges;
use reach::Reach;

/// An address as it was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The address.
    pub ip: IpAddr,
    /// The protocol and the port of this end, where they are known: they tell services of one
    /// address apart.
    pub port: Option<(Protocol, u16)>,
    /// Where it was seen.
    pub point: Point,
    /// When it was seen.
    pub at: Timestamp,
}

/// What an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// Kind of thing.
    pub kind: EntityKind,
    /// Bounded class for metrics: `pod:<namespace>`, `node`, `service`, `range:<name>`,
    /// `internet`, `private` (no name, not public) or `multicast` (broadcast included).
    pub class: Arc<str>,
    /// Name of the range, node or service.
    pub name: Option<Arc<str>>,
    /// Kubernetes namespace of the pod or service.
    pub namespace: Option<Arc<str>>,
    /// Name of the pod.
    pub pod: Option<Arc<str>>,
    /// Kind and name of the pod's owner.
    pub workload: Option<Arc<str>>,
    /// Labels of the pod.
    pub labels: Option<Labels>,
    /// The pod uses its node's network.
    pub host_network: bool,
    /// The control group of its socket.
    pub cgroup: Option<Arc<Cgroup>>,
}

/// Everything that names addresses.
///
/// In this order: addresses of the node itself, the cluster's pods, nodes and services, configured
/// ranges (the longest prefix wins), then what the address says of itself.
#[derive(Debug)]
pub struct Names {
    node: HashSet<IpAddr>,
    broadcast: HashSet<IpAddr>,
    cluster: Cluster,
    cgroups: Cgroups,
    ranges: Ranges,
    classes: Classes,
}

/// Classes without a name in them, made once.
#[derive(Debug)]
struct Classes {
    node: Arc<str>,
    service: Arc<str>,
    internet: Arc<str>,
    private: Arc<str>,
    multicast: Arc<str>,
}

/// Whether an address is neither one of the Internet nor that of many hosts.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    Reach::of(normalise(ip)) == Reach::Private
}

// === impl Entity ===

impl Entity {
    /// An entity of which only kind and class are known.
    pub fn new(kind: EntityKind, class: Arc<str>) -> Self {
        Self {
            kind,
            class,
            name: None,
            namespace: None,
            pod: None,
            workload: None,
            labels: None,
            host_network: false,
            cgroup: None,
        }
    }

    /// This entity as an end of a record.
    pub fn endpoint(self, ip: IpAddr, port: Option<u16>) -> Endpoint {
        let cgroup = self.cgroup.as_ref();
        Endpoint {
            host_network: self.host_network,
            cgroup: cgroup.map(|cgroup| Arc::clone(&cgroup.path)),
            container: cgroup.and_then(|cgroup| cgroup.container.clone()),
            process: cgroup.and_then(|cgroup| cgroup.process.clone().map(Box::new)),
            ip: normalise(ip),
            port,
            kind: self.kind,
            name: self.name,
            namespace: self.namespace,
            pod: self.pod,
            workload: self.workload,
            labels: self.labels,
        }
    }
}

// === impl Names ===

impl Names {
    /// Names from configured ranges.
    pub fn new(ranges: Vec<NamedRange>) -> Result<Self, RangeError> {
        Ok(Self {
            node: HashSet::new(),
            broadcast: HashSet::new(),
            cluster: Cluster::new(),
            cgroups: Cgroups::default(),
            ranges: Ranges::new(ranges)?,
            classes: Classes {
                node: "node".into(),
                service: "service".into(),
                internet: "internet".into(),
                private: "private".into(),
                multicast: "multicast".into(),
            },
        })
    }

    /// Replaces the node's own addresses: those of its interfaces, with their prefix lengths,
    /// which tell the broadcast addresses.
    pub fn set_addresses(&mut self, addresses: &[IpNet]) {
        self.node = addresses
            .iter()
            .map(|address| normalise(address.addr()))
            .collect();
        self.broadcast = addresses
            .iter()
            .filter_map(|address| match address {
                IpNet::V4(address) if address.prefix_len() < 31 => {
                    Some(IpAddr::V4(address.broadcast()))
                }
                _ => None,
            })
            .collect();
    }

    /// The cluster's objects.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The cluster's objects, to change them.
    pub fn cluster_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Whether an address is one of the node's own.
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.node.contains(&normalise(ip))
    }

    /// The node's own addresses.
    pub(crate) fn own(&self) -> &HashSet<IpAddr> {
        &self.node
    }

    /// The node's name, where the cluster has a node with one of its addresses.
    pub(crate) fn node_name(&self) -> Option<Arc<str>> {
        let mut nodes = self.node.iter().filter_map(|ip| self.cluster.node_of(*ip));
        nodes.next().map(|node| Arc::clone(&node.name))
    }

    /// Whether the node's own addresses are known.
    pub(crate) fn knows_node(&self) -> bool {
        !self.node.is_empty()
    }

    /// Whether an address is the node's own.
    pub(crate) fn is_node(&self, ip: IpAddr) -> bool {
        self.node.contains(&normalise(ip))
    }

    /// What an address belonged to when it was seen.
    pub fn resolve(&self, sight: &Sight) -> Entity {
        let ip = normalise(sight.ip);
        if self.node.contains(&ip) {
            return Entity {
                name: self.cluster.node_of(ip).map(|node| Arc::clone(&node.name)),
                ..Entity::new(EntityKind::Node, Arc::clone(&self.classes.node))
            };
        }
        if let Some(owner) = self.cluster.owner(ip, sight.port, sight.at) {
            return self.owned(&owner);
        }
        if let Some(range) = self.ranges.find(ip) {
            return Entity {
                name: Some(Arc::clone(&range.name)),
                ..Entity::new(EntityKind::Range, Arc::clone(&range.class))
            };
        }
        let (kind, class) = match Reach::of(ip) {
            _ if self.broadcast.contains(&ip) => (EntityKind::Unknown, &self.classes.multicast),
            Reach::Multicast => (EntityKind::Unknown, &self.classes.multicast),
            Reach::Private => (EntityKind::Unknown, &self.classes.private),
            Reach::Internet => (EntityKind::Internet, &self.classes.internet),
        };
        Entity::new(kind, Arc::clone(class))
    }

    /// What an end belonged to when it was seen; `cgroup_id` is the control group of the node's own
    /// socket, 0 where there is none. Where the address is the node's, that group tells whose
    /// socket it is: a pod's that uses the node's network.
    pub(crate) fn resolve_socket(&self, sight: &Sight, cgroup_id: u64) -> Entity {
        let cgroup = self.cgroups.get(cgroup_id, sight.at);
        let Some(cgroup) = cgroup.filter(|_| cgroup_id != 0 && self.is_own(sight.ip)) else {
            return self.resolve(sight);
        };
        let pod = cgroup.pod.as_deref();
        let entity = match pod.and_then(|uid| self.cluster.host_pod(uid)) {
            Some(known) => Entity {
                host_network: true,
                ..self.owned(&Owner::Pod(known))
            },
            None => self.resolve(sight),
        };
        Entity {
            cgroup: Some(Arc::clone(cgroup)),
            ..entity
        }
    }

    /// Whether a control group has to be asked about, or again.
    pub(crate) fn ask_cgroup(&mut self, id: u64, now: Timestamp) -> bool {
        self.cgroups.ask(id, now)
    }

    /// Whether a control group was asked about, and nobody has answered.
    pub(crate) fn is_cgroup_asked(&self, id: u64) -> bool {
        self.cgroups.is_asked(id)
    }

    /// Whether it is known of a control group what it is, or that there is none.
    pub(crate) fn knows_cgroup(&self, id: u64) -> bool {
        self.cgroups.is_known(id)
    }

    /// Control groups that were asked about, and nobody has answered.
    pub(crate) fn cgroups_unanswered(&self) -> Vec<u64> {
        self.cgroups.unanswered().collect()
    }

    /// What a control group is, as it was looked at now.
    pub(crate) fn set_cgroup(&mut self, id: u64, cgroup: Option<Cgroup>, now: Timestamp) {
        self.cgroups.found(id, cgroup, now);
    }

    /// What the cluster says of an address.
    fn owned(&self, owner: &Owner<'_>) -> Entity {
        match owner {
            Owner::Pod(known) => Entity {
                namespace: Some(Arc::clone(&known.pod.namespace)),
                pod: Some(Arc::clone(&known.pod.name)),
                workload: known.pod.workload.clone(),
                labels: (!known.pod.labels.is_empty()).then(|| Arc::clone(&known.pod.labels)),
                ..Entity::new(EntityKind::Pod, Arc::clone(&known.class))
            },
            Owner::Node(node) => Entity {
                name: Some(Arc::clone(&node.name)),
                ..Entity::new(EntityKind::Node, Arc::clone(&self.classes.node))
            },
            Owner::Service(service) => Entity {
                name: Some(Arc::clone(&service.name)),
                namespace: Some(Arc::clone(&service.namespace)),
                ..Entity::new(EntityKind::Service, Arc::clone(&self.classes.service))
            },
        }
    }

    /// Whether packets to this address go to many: multicast, limited broadcast, and the
    /// broadcast addresses of the node's networks.
    pub fn is_multicast(&self, ip: IpAddr) -> bool {
        let ip = normalise(ip);
        Reach::of(ip) == Reach::Multicast || self.broadcast.contains(&ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let ranges = [
            "office=198.51.100.0/24",
            "vpn=198.51.100.128/25",
            "lab=fd00:1::/32",
        ];
        let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
        let mut names = Names::new(ranges).unwrap();
        names.set_addresses(&[
            "10.224.0.5/16".parse().unwrap(),
            "fd00:1::5/64".parse().unwrap(),
            "127.0.0.1/8".parse().unwrap(),
        ]);
        names
    }

    #[test]
    fn every_address_has_a_kind_and_a_class() {
        let names = names();
        let check = |ip: &str, kind: EntityKind, class: &str| {
            let sight = Sight {
                ip: ip.parse().unwrap(),
                port: None,
                point: Point::Uplink,
                at: Timestamp::UNIX_EPOCH,
            };
            let entity = names.resolve(&sight);
            assert_eq!((entity.kind, &*entity.class), (kind, class), "{ip}");
        };
        check("10.224.0.5", EntityKind::Node, "node");
        check("::ffff:10.224.0.5", EntityKind::Node, "node");
        check("fd00:1::5", EntityKind::Node, "node");
        check("127.0.0.1", EntityKind::Node, "node");
        check("198.51.100.7", EntityKind::Range, "range:office");
        check("198.51.100.200", EntityKind::Range, "range:vpn");
        check("::ffff:198.51.100.7", EntityKind::Range, "range:office");
        check("fd00:1:2::", EntityKind::Range, "range:lab");
        check("10.224.0.6", EntityKind::Unknown, "private");
        check("100.64.0.1", EntityKind::Unknown, "private");
        check("10.224.255.255", EntityKind::Unknown, "multicast");
        check("255.255.255.255", EntityKind::Unknown, "multicast");
        check("224.0.0.251", EntityKind::Unknown, "multicast");
        check("ff02::1", EntityKind::Unknown, "multicast");
        check("fe80::1", EntityKind::Unknown, "private");
        check("203.0.113.9", EntityKind::Internet, "internet");
        check("2001:db8::1", EntityKind::Internet, "internet");
    }

    #[test]
    fn addresses_are_replaced() {
        let mut names = names();
        names.set_addresses(&[]);
        assert!(!names.is_multicast("10.224.255.255".parse().unwrap()));
        assert!(names.is_multicast("ff02::1".parse().unwrap()));
    }
}
