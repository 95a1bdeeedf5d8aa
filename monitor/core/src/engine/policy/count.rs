//! Connections counted by what policies say of them, and pods that no policy selects.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::Judge;
use crate::{
    cluster::{Cluster, Phase, Pod},
    engine::books::Books,
    event::{FindingKind, Outcome},
    flow::{FlowKey, Judged, Tracked},
    metric::{Fixed, Metric, OTHER, Text, Value},
    netpol::{Basis, Direction, Part, Verdict},
    time::Timestamp,
};

/// Rows of a metric of connections.
const MAX_ROWS: usize = 4_096;
/// Namespaces that coverage is told of by name.
const MAX_NAMESPACES: usize = 1_024;
/// Label of what no policy has a say on.
const POLICY_NONE: &str = "policy-none";
/// Label of pods that some policy selects.
const SELECTED: &str = "selected";

/// What network policies are about, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Policies in force.
    pub policies: u64,
    /// Policies that are proposed.
    pub proposed: u64,
    /// Pods of this node with an address of their own.
    pub pods: u64,
    /// Those of them that no policy selects for ingress.
    pub no_ingress: u64,
    /// Those of them that no policy selects for egress.
    pub no_egress: u64,
}

/// Labels of connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    namespace: Arc<str>,
    workload: Arc<str>,
    direction: &'static str,
    /// What the policies say, or would say otherwise.
    says: &'static str,
    policy: Arc<str>,
    outcome: Outcome,
}

/// Counters by labels, as many as there may be.
#[derive(Debug, Default)]
struct Counters {
    rows: BTreeMap<Labels, Row>,
    folded: u64,
}

/// One counter.
#[derive(Debug)]
struct Row {
    count: u64,
    /// When it was counted last, or its workload was there.
    used: Timestamp,
}

/// Pods of this node by namespace: how many there are, and how many no policy selects, by
/// [`Direction`].
type Coverage = BTreeMap<Arc<str>, (u64, [u64; 2])>;

/// Everything that is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    connections: Counters,
    proposed: Counters,
    coverage: Coverage,
}

// === impl Counters ===

impl Counters {
    fn count(&mut self, labels: Labels, now: Timestamp) {
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&labels) {
            self.folded += 1;
            return;
        }
        let row = self.rows.entry(labels).or_insert(Row {
            count: 0,
            used: now,
        });
        row.count += 1;
        row.used = now;
    }

    /// Ends the rows of workloads that are gone, a while after.
    fn sweep(&mut self, now: Timestamp, ttl: Duration, is_present: impl Fn(&str, &str) -> bool) {
        self.rows.retain(|labels, row| {
            // A clock that was set back tells nothing of how long it is.
            if row.used > now || is_present(&labels.namespace, &labels.workload) {
                row.used = now;
            }
            now.saturating_since(row.used) < ttl
        });
    }

    fn samples(&self, metric: Metric, fixed: &mut Vec<Fixed>) {
        fixed.extend(self.rows.iter().map(|(labels, row)| Fixed {
            metric,
            labels: vec![
                Text::Shared(Arc::clone(&labels.namespace)),
                Text::Shared(Arc::clone(&labels.workload)),
                Text::Static(labels.direction),
                Text::Static(labels.says),
                Text::Shared(Arc::clone(&labels.policy)),
                Text::Static(labels.outcome.name()),
            ],
            value: Value::Counter(row.count),
        }));
        if self.folded > 0 {
            fixed.push(Fixed {
                metric,
                labels: vec![Text::Static(OTHER); 6],
                value: Value::Counter(self.folded),
            });
        }
    }
}

// === impl Judge ===

impl Judge {
    /// Connections counted beyond the rows there may be.
    pub(in crate::engine) fn folded(&self) -> [(Metric, u64); 2] {
        let Counts {
            connections,
            proposed,
            ..
        } = &self.counts;
        [
            (Metric::PolicyConnections, connections.folded),
            (Metric::PolicyProposedConnections, proposed.folded),
        ]
    }

    /// Samples of the metrics.
    pub(in crate::engine) fn samples(&self, fixed: &mut Vec<Fixed>) {
        let Counts {
            connections,
            proposed,
            coverage,
        } = &self.counts;
        connections.samples(Metric::PolicyConnections, fixed);
        proposed.samples(Metric::PolicyProposedConnections, fixed);
        let mut push = |namespace: Text, direction: Direction, word, count: u64| {
            if count > 0 {
                fixed.push(Fixed {
                    metric: Metric::PolicyPods,
                    labels: vec![
                        namespace,
                        Text::Static(direction.name()),
                        Text::Static(word),
                    ],
                    value: Value::Gauge(i64::try_from(count).unwrap_or(i64::MAX)),
                });
            }
        };
        let mut others = (0, [0; 2]);
        let mut tell = |namespace: &Text, pods: u64, none: [u64; 2]| {
            for direction in [Direction::Ingress, Direction::Egress] {
                let none = none[direction as usize];
                push(namespace.clone(), direction, POLICY_NONE, none);
                push(namespace.clone(), direction, SELECTED, pods - none);
            }
        };
        for (number, (namespace, (pods, none))) in coverage.iter().enumerate() {
            if number < MAX_NAMESPACES {
                tell(&Text::Shared(Arc::clone(namespace)), *pods, *none);
            } else {
                others.0 += pods;
                others.1[0] += none[0];
                others.1[1] += none[1];
            }
        }
        tell(&Text::Static(OTHER), others.0, others.1);
    }

    /// What policies are about; nothing where no pod is known.
    pub(in crate::engine) fn status(&self, cluster: &Cluster) -> Option<PolicyStatus> {
        if !cluster.has_pods() {
            return None;
        }
        let proposed = self.proposal.as_ref();
        let mut status = PolicyStatus {
            policies: self.policies.len() as u64,
            proposed: proposed.map_or(0, |proposal| proposal.names.len() as u64),
            ..PolicyStatus::default()
        };
        for (pods, [ingress, egress]) in self.counts.coverage.values() {
            status.pods += pods;
            status.no_ingress += ingress;
            status.no_egress += egress;
        }
        Some(status)
    }
}

impl Books {
    /// Ends rows of workloads none of whose pods is left.
    pub(in crate::engine) fn sweep_policy(&mut self, ttl: Duration) {
        let Self {
            names, policy, now, ..
        } = self;
        let Counts {
            connections,
            proposed,
            ..
        } = &mut policy.counts;
        let counters = [connections, proposed];
        if counters.iter().all(|counters| counters.rows.is_empty()) {
            return;
        }
        let pods = names.cluster().pods();
        let present: HashSet<(&str, &str)> = pods
            .map(|known| {
                let workload = known.pod.workload.as_deref();
                (&*known.pod.namespace, workload.unwrap_or_default())
            })
            .collect();
        for counters in counters {
            counters.sweep(*now, ttl, |namespace, workload| {
                present.contains(&(namespace, workload))
            });
        }
    }

    /// Looks which pods of this node no policy selects.
    pub(in crate::engine) fn cover_pods(&mut self) {
        let Self { names, policy, .. } = self;
        let cluster = names.cluster();
        // A pod of files that say nothing of nodes is taken for one of this node.
        let is_here = |pod: &Pod| match (&pod.host_ips[..], &pod.node) {
            ([], None) => true,
            ([], Some(name)) => cluster
                .node(name)
                .is_some_and(|node| node.ips.iter().any(|ip| names.is_own(*ip))),
            (ips, _) => ips.iter().any(|ip| names.is_own(*ip)),
        };
        let mut coverage = Coverage::new();
        for known in cluster.pods() {
            let pod = &known.pod;
            let is_subject = pod.phase == Phase::Active && !pod.host_network && !pod.ips.is_empty();
            if !is_subject || !is_here(pod) {
                continue;
            }
            let selected = policy.policies.selects(cluster, known);
            let (pods, none) = coverage.entry(Arc::clone(&pod.namespace)).or_default();
            *pods += 1;
            for direction in [Direction::Ingress, Direction::Egress] {
                none[direction as usize] += u64::from(!selected[direction as usize]);
            }
        }
        policy.counts.coverage = coverage;
    }

    /// Counts a connection at its local end; at the other one where only that is a pod.
    pub(super) fn count_policy(
        &mut self,
        key: &FlowKey,
        flow: &Tracked,
        outcome: Outcome,
        verdict: &Verdict,
    ) {
        let says = match verdict.allowed {
            Some(true) => "true",
            Some(false) => "false",
            None => "unknown",
        };
        if let Some(labels) = self.policy_labels(key, flow, outcome, verdict, None, says) {
            let now = self.now;
            self.policy.counts.connections.count(labels, now);
        }
    }

    /// Counts a connection that would be denied, or allowed, by what is proposed: as
    /// [`Self::count_policy`] does, so that one between two pods counts at each of them.
    pub(super) fn count_proposed(
        &mut self,
        key: &FlowKey,
        flow: &Tracked,
        outcome: Outcome,
        judged: &Judged,
        kind: FindingKind,
    ) {
        let Judged { verdict, proposed } = judged;
        let Some(proposed) = proposed else {
            return;
        };
        let (before, says) = (Some(&**verdict), kind.name());
        if let Some(labels) = self.policy_labels(key, flow, outcome, proposed, before, says) {
            let now = self.now;
            self.policy.counts.proposed.count(labels, now);
        }
    }

    fn policy_labels<'v>(
        &self,
        key: &FlowKey,
        flow: &Tracked,
        outcome: Outcome,
        verdict: &'v Verdict,
        before: Option<&'v Verdict>,
        says: &'static str,
    ) -> Option<Labels> {
        let cluster = self.names.cluster();
        let local = cluster.end_at(key.local(), flow.start).pod;
        let source_is_local = flow.orientation(key).source_is_local;
        let is_source = source_is_local == local.is_some();
        let known = local.or_else(|| cluster.end_at(key.remote(), flow.start).pod)?;
        let parts = |verdict: &'v Verdict| {
            if is_source {
                [&verdict.egress, &verdict.ingress]
            } else {
                [&verdict.ingress, &verdict.egress]
            }
        };
        let direction = if is_source {
            Direction::Egress
        } else {
            Direction::Ingress
        };
        let [own, other] = parts(verdict);
        // What denies is named, whichever end it is of, or what no longer would.
        let denied = match verdict.allowed {
            Some(false) => Some(verdict),
            _ => before.filter(|before| before.allowed == Some(false)),
        };
        let is_own = denied.is_none_or(|denied| parts(denied)[0].allowed == Some(false));
        let decides = if is_own { own } else { other };
        let workload = known.pod.workload.as_ref().unwrap_or(&self.blank);
        Some(Labels {
            namespace: Arc::clone(&known.pod.namespace),
            workload: Arc::clone(workload),
            direction: direction.name(),
            says,
            policy: responsible(decides, &self.blank),
            outcome,
        })
    }
}

/// The first policy that is responsible, or that no policy is.
fn responsible(part: &Part, blank: &Arc<str>) -> Arc<str> {
    match part.by.first() {
        Some(policy) => Arc::clone(policy),
        None if part.basis == Basis::Default => POLICY_NONE.into(),
        // A pod itself, its node, an end that is no pod: policies have nothing to say.
        None => Arc::clone(blank),
    }
}
