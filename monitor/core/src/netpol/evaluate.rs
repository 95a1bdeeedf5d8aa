//! One direction of a connection against the policies that select its pod.
//!
//! Admin tier, then NetworkPolicies, then Baseline tier, then everything is allowed: the first that
//! decides is final for its direction.

mod namespaced;
mod tier;

use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use super::{
    Action, Direction, Flow, NetworkPolicy, Part, Tier, TierPolicy,
    trace::{Stage, Trace},
    verdict::Basis,
};
use crate::{
    cluster::{Cluster, End, KnownPod},
    event::Labels,
};

/// A policy and its name in verdicts.
#[derive(Debug)]
pub(super) struct Named<P> {
    pub(super) label: Arc<str>,
    pub(super) policy: P,
}

/// The policies that select a pod.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// NetworkPolicies that isolate it, by [`Direction`].
    pub(super) isolating: [Vec<Arc<Named<NetworkPolicy>>>; 2],
    /// Cluster-scoped policies, by [`Tier`], in the order of their priorities.
    pub(super) tiers: [Vec<Subject>; 2],
}

/// A cluster-scoped policy that selects a pod.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) named: Arc<Named<TierPolicy>>,
    /// Else it depends on labels of the pod's namespace that are not known.
    pub(super) is_certain: bool,
}

/// Why something cannot be told where a namespace is known by its name only.
const UNLABELLED: &str =
    "it depends on labels of a namespace that are not known (`nodewatch status` says why)";

/// One direction of a connection.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) flow: &'a Flow,
    pub(super) direction: Direction,
    /// Whether an `ipBlock` matches addresses of pods.
    pub(super) blocks_match_pods: bool,
}

/// What a tier says.
enum Outcome {
    /// This, finally.
    Final(Part),
    /// It is up to the next tier.
    Next,
}

// === impl Case ===

impl<'a> Case<'a> {
    /// The end that policies may select.
    pub(super) fn subject(&self) -> &'a End {
        match self.direction {
            Direction::Ingress => &self.flow.destination,
            Direction::Egress => &self.flow.source,
        }
    }

    /// The other end.
    fn peer(&self) -> &'a End {
        match self.direction {
            Direction::Ingress => &self.flow.source,
            Direction::Egress => &self.flow.destination,
        }
    }

    /// Whether networks hold an address of the other end that is not known; each comes with whether
    /// it holds all of its family. Both ends of a connection have addresses of one family.
    fn hold_unknown<'b>(
        &self,
        nets: &(impl Iterator<Item = (&'b IpNet, bool)> + Clone),
    ) -> Option<bool> {
        let family = self.subject().ip.map(|ip| ip.is_ipv4());
        let is_of = |net: &IpNet, is_ipv4: bool| net.addr().is_ipv4() == is_ipv4;
        let mut fitting = nets.clone();
        if !fitting.any(|(net, _)| family.is_none_or(|is_ipv4| is_of(net, is_ipv4))) {
            return Some(false);
        }
        let hold_all = |is_ipv4| {
            let mut nets = nets.clone();
            nets.any(|(net, is_everything)| is_everything && is_of(net, is_ipv4))
        };
        let is_held = match family {
            Some(is_ipv4) => hold_all(is_ipv4),
            None => hold_all(true) && hold_all(false),
        };
        is_held.then_some(true)
    }

    /// Labels of a pod's namespace, and whether these are all.
    fn namespace_labels(&self, pod: &KnownPod) -> (&'a Labels, bool) {
        namespace_labels(self.cluster, &pod.pod.namespace)
    }

    /// What the policies that select a pod say.
    pub(super) fn judge(
        &self,
        pod: &KnownPod,
        selected: &Selected,
        trace: &mut impl Trace,
    ) -> Part {
        if self.flow.is_to_itself() {
            trace.note(self.direction, Stage::Exemption, || {
                "a pod always reaches itself".to_owned()
            });
            return Part::allowed(Basis::Itself);
        }
        let mut open = None;
        let admin = &selected.tiers[Tier::Admin as usize];
        if let Outcome::Final(part) = self.tier(Tier::Admin, admin, &mut open, trace) {
            return unless_open(part, open);
        }
        let isolating = &selected.isolating[self.direction as usize];
        if !isolating.is_empty() {
            return unless_open(self.namespaced(pod, isolating, trace), open);
        }
        trace.note(self.direction, Stage::NetworkPolicy, || {
            format!(
                "no NetworkPolicy isolates {}/{} for {}",
                pod.pod.namespace, pod.pod.name, self.direction
            )
        });
        let baseline = &selected.tiers[Tier::Baseline as usize];
        if let Outcome::Final(part) = self.tier(Tier::Baseline, baseline, &mut open, trace) {
            return unless_open(part, open);
        }
        trace.note(self.direction, Stage::Default, || {
            "nothing decides: allowed".to_owned()
        });
        Part::allowed(Basis::Default)
    }
}

/// Labels of a namespace, and whether these are all.
pub(super) fn namespace_labels<'a>(cluster: &'a Cluster, name: &str) -> (&'a Labels, bool) {
    static NONE: LazyLock<Labels> = LazyLock::new(Labels::default);
    let labels = cluster.namespace_labels(name).unwrap_or(&NONE);
    (labels, cluster.knows_namespace(name))
}

/// A verdict, or none: where an earlier rule may have accepted and that cannot be told, only what
/// is allowed anyway is certain.
fn unless_open(part: Part, open: Option<Part>) -> Part {
    match open {
        Some(open) if part.allowed == Some(false) => open,
        _ => part,
    }
}

/// What a rule of this action says.
fn decided(tier: Tier, action: Action, by: Vec<Arc<str>>) -> Outcome {
    let basis = match tier {
        Tier::Admin => Basis::Admin,
        Tier::Baseline => Basis::Baseline,
    };
    match action {
        Action::Accept => Outcome::Final(Part::decided(true, basis, by)),
        Action::Deny => Outcome::Final(Part::decided(false, basis, by)),
        Action::Pass => Outcome::Next,
    }
}
