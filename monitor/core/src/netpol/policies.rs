//! The policies in force, and verdicts by them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Direction, Flow, NetworkPolicy, Part, Step, TierKind, TierPolicy, Verdict,
    evaluate::{Case, Named, Selected, Subject, namespace_labels},
    flow::Key,
    trace::{Silent, Stage, Trace},
    verdict::Basis,
};
use crate::cluster::{Cluster, End, KnownPod, PodId, Service};

/// Verdicts that are kept.
const MAX_VERDICTS: usize = 1 << 16;
/// Pods beyond those that exist for which it is kept what selects them.
const SPARE_PODS: usize = 1 << 12;

/// What networks differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether an `ipBlock` matches addresses of pods. The API leaves that open: the end-to-end
    /// tests of Kubernetes expect it, Cilium does not do it.
    pub blocks_match_pods: bool,
}

/// A change of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyChange {
    /// A NetworkPolicy is new or different.
    Namespaced(NetworkPolicy),
    /// The NetworkPolicy of this namespace and name is gone.
    NamespacedGone(Arc<str>, Arc<str>),
    /// A cluster-scoped policy is new or different.
    Tier(TierPolicy),
    /// The cluster-scoped policy of this kind and name is gone.
    TierGone(TierKind, Arc<str>),
}

/// NetworkPolicies of a namespace, by name.
type OfNamespace = BTreeMap<Arc<str>, Arc<Named<NetworkPolicy>>>;

/// The policies in force.
#[derive(Debug)]
pub struct Policies {
    options: Options,
    namespaced: HashMap<Arc<str>, OfNamespace>,
    /// By [`Tier`], in the order of priorities.
    tiers: [Vec<Arc<Named<TierPolicy>>>; 2],
    /// By namespace: what selects each pod that was asked about.
    selected: HashMap<Arc<str>, HashMap<PodId, Arc<Selected>>>,
    selected_pods: usize,
    /// With the generation that they are of: those of earlier ones do not count. To forget one by
    /// one is cheaper than to forget all at once, where a change must not take long.
    verdicts: HashMap<Key, (u64, Arc<Verdict>)>,
    /// Grows when verdicts are no longer what they were.
    generation: u64,
    /// State of the cluster that what is kept was derived from.
    epoch: u64,
}

/// A verdict and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The verdict.
    pub verdict: Verdict,
    /// Egress first. Where the destination is a service, of the first pod behind it.
    pub steps: Vec<Step>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            blocks_match_pods: true,
        }
    }
}

// === impl Policies ===

impl Policies {
    /// No policies: everything is allowed.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            namespaced: HashMap::new(),
            tiers: [Vec::new(), Vec::new()],
            selected: HashMap::new(),
            selected_pods: 0,
            verdicts: HashMap::new(),
            generation: 0,
            epoch: 0,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.namespaced.is_empty() && self.tiers.iter().all(Vec::is_empty)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let namespaced: usize = self.namespaced.values().map(BTreeMap::len).sum();
        namespaced + self.tiers.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether any policy selects a pod and has a say on a direction, by [`Direction`].
    pub(crate) fn selects(&mut self, cluster: &Cluster, pod: &KnownPod) -> [bool; 2] {
        self.follow(cluster);
        let selected = self.selected(cluster, pod);
        [Direction::Ingress, Direction::Egress].map(|direction| {
            let tiers = selected.tiers.iter().flatten();
            // One that may not select it is no cover.
            let mut certain = tiers.filter(|subject| subject.is_certain);
            !selected.isolating[direction as usize].is_empty()
                || certain.any(|subject| !subject.named.policy.rules(direction).is_empty())
        })
    }

    /// The policies in force, each as a change that brings it about.
    pub(crate) fn in_force(&self) -> impl Iterator<Item = PolicyChange> {
        let namespaced = self.namespaced.values().flat_map(BTreeMap::values);
        let tiers = self.tiers.iter().flatten();
        namespaced
            .map(|named| PolicyChange::Namespaced(named.policy.clone()))
            .chain(tiers.map(|named| PolicyChange::Tier(named.policy.clone())))
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: PolicyChange) {
        match change {
            PolicyChange::Namespaced(policy) => {
                let (namespace, name) = (Arc::clone(&policy.namespace), Arc::clone(&policy.name));
                let named = Named {
                    label: policy.to_string().into(),
                    policy,
                };
                self.forget_namespace(&namespace);
                let policies = self.namespaced.entry(namespace).or_default();
                policies.insert(name, Arc::new(named));
            }
            PolicyChange::NamespacedGone(namespace, name) => {
                self.forget_namespace(&namespace);
                if let Some(policies) = self.namespaced.get_mut(&namespace) {
                    policies.remove(&name);
                    if policies.is_empty() {
                        self.namespaced.remove(&namespace);
                    }
                }
            }
            PolicyChange::Tier(policy) => {
                self.remove_tier(policy.kind, &policy.name);
                let named = Arc::new(Named {
                    label: policy.to_string().into(),
                    policy,
                });
                let order = |named: &Named<TierPolicy>| {
                    let policy = &named.policy;
                    (policy.priority, policy.kind, Arc::clone(&policy.name))
                };
                let tier = &mut self.tiers[named.policy.tier as usize];
                let place = tier.partition_point(|known| order(known) < order(&named));
                tier.insert(place, named);
            }
            PolicyChange::TierGone(kind, name) => self.remove_tier(kind, &name),
        }
    }

    fn remove_tier(&mut self, kind: TierKind, name: &str) {
        self.forget();
        for tier in &mut self.tiers {
            tier.retain(|named| named.policy.kind != kind || &*named.policy.name != name);
        }
    }

    /// Forgets what was derived from the policies of a namespace.
    fn forget_namespace(&mut self, namespace: &str) {
        self.generation += 1;
        if let Some(pods) = self.selected.remove(namespace) {
            self.selected_pods -= pods.len();
        }
    }

    /// Forgets all that was derived.
    fn forget(&mut self) {
        self.generation += 1;
        self.selected.clear();
        self.selected_pods = 0;
    }

    /// The policies that select a pod. A pod that is named in a flow and has ended since is
    /// selected as it was.
    fn selected(&mut self, cluster: &Cluster, pod: &KnownPod) -> Arc<Selected> {
        let namespace = &pod.pod.namespace;
        if let Some(selected) = self
            .selected
            .get(namespace)
            .and_then(|pods| pods.get(&pod.id))
        {
            return Arc::clone(selected);
        }
        let selected = Arc::new(self.select(cluster, pod));
        if self.selected_pods >= cluster.pod_count() + SPARE_PODS {
            self.selected.clear();
            self.selected_pods = 0;
        }
        self.selected
            .entry(Arc::clone(namespace))
            .or_default()
            .insert(pod.id, Arc::clone(&selected));
        self.selected_pods += 1;
        selected
    }

    fn select(&self, cluster: &Cluster, pod: &KnownPod) -> Selected {
        let mut selected = Selected::default();
        let namespace = &pod.pod.namespace;
        if !cluster.is_namespace_gone(namespace) {
            let policies = self.namespaced.get(namespace).into_iter().flatten();
            for (_, named) in policies.filter(|(_, named)| {
                let selector = &named.policy.selector;
                selector.matches(&pod.pod.labels)
            }) {
                for direction in [Direction::Ingress, Direction::Egress] {
                    if named.policy.rules(direction).is_some() {
                        selected.isolating[direction as usize].push(Arc::clone(named));
                    }
                }
            }
        }
        let labels = namespace_labels(cluster, namespace);
        for (tier, policies) in selected.tiers.iter_mut().zip(&self.tiers) {
            tier.extend(policies.iter().filter_map(|named| {
                let is_certain = match named.policy.subject.matches(labels, &pod.pod.labels) {
                    Some(false) => return None,
                    Some(true) => true,
                    None => false,
                };
                let named = Arc::clone(named);
                Some(Subject { named, is_certain })
            }));
        }
        selected
    }

    /// Makes sure that what is kept was derived from this state of the cluster.
    fn follow(&mut self, cluster: &Cluster) {
        if self.epoch != cluster.epoch() {
            self.forget();
            self.epoch = cluster.epoch();
        }
    }

    /// What the policies say of a connection. A destination that is the address of a service
    /// stands for the pods behind it.
    pub fn judge(&mut self, cluster: &Cluster, flow: &Flow) -> Arc<Verdict> {
        self.follow(cluster);
        let key = flow.key();
        if let Some((generation, verdict)) = self.verdicts.get(&key)
            && *generation == self.generation
        {
            return Arc::clone(verdict);
        }
        let Some(service) = service_of(cluster, flow) else {
            let verdict = Arc::new(self.evaluate(cluster, flow, &mut Silent));
            if self.verdicts.len() >= MAX_VERDICTS && !self.verdicts.contains_key(&key) {
                self.verdicts.clear();
            }
            let kept = (self.generation, Arc::clone(&verdict));
            self.verdicts.insert(key, kept);
            return verdict;
        };
        // Which pods are behind it changes without any of them changing: not kept.
        let verdicts = match backends(cluster, flow, &service) {
            Ok(flows) => flows.iter().map(|flow| self.judge(cluster, flow)).collect(),
            Err(reason) => vec![Arc::new(unknown_backends(flow, &reason))],
        };
        Arc::new(merge(&service, &verdicts))
    }

    /// What the policies say of a connection, and how that comes about.
    pub fn explain(&mut self, cluster: &Cluster, flow: &Flow) -> Explanation {
        self.follow(cluster);
        let mut steps = Vec::new();
        let Some(service) = service_of(cluster, flow) else {
            let verdict = self.evaluate(cluster, flow, &mut steps);
            return Explanation { verdict, steps };
        };
        match backends(cluster, flow, &service) {
            Ok(flows) => {
                if let Some(first) = flows.first() {
                    self.evaluate(cluster, first, &mut steps);
                }
            }
            Err(reason) => {
                steps.note(Direction::Egress, Stage::NetworkPolicy, || {
                    reason.to_string()
                });
            }
        }
        let verdict = Verdict::clone(&self.judge(cluster, flow));
        Explanation { verdict, steps }
    }

    fn evaluate(&mut self, cluster: &Cluster, flow: &Flow, trace: &mut impl Trace) -> Verdict {
        let mut part = |direction| {
            let case = Case {
                cluster,
                flow,
                direction,
                blocks_match_pods: self.options.blocks_match_pods,
            };
            let Some(pod) = &case.subject().pod else {
                trace.note(direction, Stage::Exemption, || {
                    "this end is no pod: no policy selects it".to_owned()
                });
                return Part::allowed(Basis::NoPod);
            };
            let selected = self.selected(cluster, pod);
            case.judge(pod, &selected, trace)
        };
        let egress = part(Direction::Egress);
        let ingress = part(Direction::Ingress);
        Verdict::new(egress, ingress)
    }
}

/// The service that a flow's destination is. What a service has led to is none, though its address
/// may be one's: a node that has an external address of the service whose pods use its network.
fn service_of(cluster: &Cluster, flow: &Flow) -> Option<Arc<Service>> {
    if flow.destination.pod.is_some() || flow.via_service {
        return None;
    }
    let ip = flow.destination.ip?;
    let service = cluster.service_of(ip, Some((flow.protocol, flow.port)))?;
    // A service takes its ports from a node's address; at all others the node itself answers.
    let is_node = flow.is_own_node || cluster.node_of(ip).is_some();
    let has_port = || {
        let mut ports = service.ports.iter();
        ports.any(|port| port.protocol == flow.protocol && port.port == flow.port)
    };
    (!is_node || has_port()).then(|| Arc::clone(service))
}

/// The namespace of the service that a flow's destination is, and the ends behind it, as far as
/// they are known.
pub(crate) fn behind_service(cluster: &Cluster, flow: &Flow) -> Option<(Arc<str>, Vec<End>)> {
    let service = service_of(cluster, flow)?;
    let flows = backends(cluster, flow, &service).unwrap_or_default();
    let ends = flows.into_iter().map(|flow| flow.destination).collect();
    Some((Arc::clone(&service.namespace), ends))
}

/// The flow to each of the pods behind a service.
fn backends(cluster: &Cluster, flow: &Flow, service: &Service) -> Result<Vec<Flow>, Arc<str>> {
    let (namespace, name) = (&service.namespace, &service.name);
    let backends = cluster
        .backends(service, flow.protocol, flow.destination.ip, flow.port)
        .map_err(|reason| format!("service {namespace}/{name}: {reason}"))?;
    Ok(backends
        .into_iter()
        .map(|(destination, port)| Flow {
            source: flow.source.clone(),
            destination,
            port,
            via_service: true,
            // What is said of the service's address does not hold for those behind it.
            is_own_node: flow.is_own_node && flow.source.pod.is_none(),
            ..*flow
        })
        .collect())
}

/// The verdict where it is not known which pods a connection may reach.
fn unknown_backends(flow: &Flow, reason: &Arc<str>) -> Verdict {
    let egress = match flow.source.pod {
        Some(_) => Part::undecided(Arc::clone(reason), Vec::new()),
        None => Part::allowed(Basis::NoPod),
    };
    Verdict::new(egress, Part::undecided(Arc::clone(reason), Vec::new()))
}

/// What holds for all pods behind a service.
fn merge(service: &Service, verdicts: &[Arc<Verdict>]) -> Verdict {
    let part = |side: fn(&Verdict) -> &Part| {
        let mut parts = verdicts.iter().map(|verdict| side(verdict));
        let Some(first) = parts.next() else {
            return Part::allowed(Basis::Default);
        };
        let mut merged = first.clone();
        let mut agree = true;
        for part in parts {
            agree &= part.allowed == first.allowed;
            merged.by.extend(part.by.iter().cloned());
            merged.plugin_dependent |= part.plugin_dependent;
        }
        merged.by.sort();
        merged.by.dedup();
        if agree {
            merged
        } else {
            Part::undecided("it depends on which pod the service chooses", merged.by)
        }
    };
    let (namespace, name) = (&service.namespace, &service.name);
    Verdict {
        service: Some(format!("{namespace}/{name}").into()),
        ..Verdict::new(
            part(|verdict| &verdict.egress),
            part(|verdict| &verdict.ingress),
        )
    }
}

#[cfg(test)]
mod tests;
