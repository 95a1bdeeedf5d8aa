//! Connections against the network policies: what was declared, and what the packets say.
//!
//! A connection is judged once, as soon as it is known who opened it, by the policies of that time.
//!
//! | declared | outcome | finding |
//! |---|---|---|
//! | denied | established, reset after it was accepted | policy-violation |
//! | denied | refused, unanswered, one-way | none: blocked as declared, or not known to have arrived |
//! | allowed by a policy | unanswered | policy-over-blocked |
//! | anything else | | none |

mod await_pod;
mod count;
mod proposal;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{books::Books, translate::Pair};
use crate::{
    cluster::{Change, Cluster, End},
    event::{
        Endpoint, EntityKind, FindingKind, FindingRecord, LocalEnd, Outcome, Point, Protocol,
        State, Translated, VERSION,
    },
    flow::{FlowKey, Judged, Mark, Tracked},
    netpol::{Flow, Options, Part, Policies, PolicyChange, Verdict, behind_service},
    time::Timestamp,
};
use await_pod::{Awaited, Naming};
use count::Counts;
use proposal::{Name, Proposal};

pub use count::PolicyStatus;

/// Networks need a while to put a change into force: what begins so soon after one is judged, and
/// makes no finding.
const GRACE: Duration = Duration::from_secs(10);
/// Time in which a finding about the same ends and port is told of once.
const TOLD: Duration = Duration::from_mins(10);
/// Findings of which that is remembered.
const MAX_TOLD: usize = 4_096;
/// Namespaces of which the last change is remembered.
const MAX_CHANGED: usize = 65_536;

/// What connections are judged by.
#[derive(Debug)]
pub(super) struct Judge {
    policies: Policies,
    options: Options,
    proposal: Option<Proposal>,
    /// Those of it that files propose.
    by_files: HashSet<Name>,
    /// Not only at workload points: in a capture, which has no points.
    everywhere: bool,
    /// When policies or labels of a namespace changed last.
    changed: HashMap<Arc<str>, Timestamp>,
    /// When a cluster-scoped policy changed last.
    all_changed: Timestamp,
    told: HashMap<Told, Timestamp>,
    awaited: Awaited,
    counts: Counts,
}

/// What a finding is about: its ends by name, where they have one.
type Told = (FindingKind, String, String, Protocol, Option<u16>);

// === impl Judge ===

impl Judge {
    /// Nothing is declared.
    pub(super) fn new(options: Options, everywhere: bool) -> Self {
        Self {
            policies: Policies::new(options),
            options,
            proposal: None,
            by_files: HashSet::new(),
            everywhere,
            changed: HashMap::new(),
            all_changed: START,
            told: HashMap::new(),
            awaited: Awaited::default(),
            counts: Counts::default(),
        }
    }

    /// The policies in force, to explain what they say.
    pub(super) fn policies(&mut self) -> &mut Policies {
        &mut self.policies
    }

    /// A policy changes. What is declared at [`START`] always was.
    pub(super) fn apply(&mut self, change: PolicyChange, now: Timestamp) {
        match &change {
            PolicyChange::Namespaced(policy) => {
                let namespace = Arc::clone(&policy.namespace);
                self.note(namespace, now);
            }
            PolicyChange::NamespacedGone(namespace, _) => self.note(Arc::clone(namespace), now),
            PolicyChange::Tier(_) | PolicyChange::TierGone(..) => {
                if now != START {
                    self.all_changed = now;
                }
            }
        }
        if let Some(proposal) = &mut self.proposal
            && !proposal.names.contains(&Name::of(&change))
        {
            proposal.policies.apply(change.clone());
        }
        self.policies.apply(change);
    }

    /// What the policies say of a connection, those in force and those proposed.
    fn judge(&mut self, cluster: &Cluster, flow: &Flow) -> Judged {
        let verdict = self.policies.judge(cluster, flow);
        let proposed = self
            .proposal
            .as_mut()
            .map(|proposal| proposal.policies.judge(cluster, flow))
            .filter(|proposed| proposed.allowed != verdict.allowed);
        Judged { verdict, proposed }
    }

    /// Something about the cluster changes that policies may depend on.
    pub(super) fn note_change(&mut self, change: &Change, now: Timestamp) {
        match change {
            Change::Namespace(namespace) => self.note(Arc::clone(&namespace.name), now),
            Change::NamespaceGone(name) => self.note(Arc::clone(name), now),
            // Pods say it themselves; nodes and services change no pod's policies.
            _ => {}
        }
    }

    fn note(&mut self, namespace: Arc<str>, now: Timestamp) {
        if now == START {
            return;
        }
        if self.changed.len() >= MAX_CHANGED && !self.changed.contains_key(&namespace) {
            self.changed.clear();
            self.all_changed = now;
        }
        self.changed.insert(namespace, now);
    }

    /// Whether what a flow is judged by changed so shortly before it began, or after, that the
    /// network may have gone by something else.
    fn is_fresh(&self, cluster: &Cluster, flow: &Flow, start: Timestamp, now: Timestamp) -> bool {
        // What is said to change later than now was before a clock was set back: long since, or
        // not long since. Nothing is silenced for longer than it should be.
        let is_fresh = |changed: Timestamp| {
            changed != START
                && changed <= now.saturating_add(GRACE)
                && start < changed.saturating_add(GRACE)
        };
        let is_new = |namespace: &str| {
            let changed = self.changed.get(namespace);
            changed.is_some_and(|changed| is_fresh(*changed))
        };
        let of = |end: &End| {
            end.pod
                .as_ref()
                .is_some_and(|known| is_fresh(known.since) || is_new(&known.pod.namespace))
        };
        if is_fresh(self.all_changed) || of(&flow.source) || of(&flow.destination) {
            return true;
        }
        // Of a service, it is those behind it that are judged.
        behind_service(cluster, flow)
            .is_some_and(|(namespace, ends)| is_new(&namespace) || ends.iter().any(of))
    }
}

/// Before everything: when that was declared which was never declared otherwise.
pub(super) const START: Timestamp = Timestamp::from_nanoseconds(i64::MIN);

/// Where a verdict and an outcome disagree. Without a decided outcome, nothing is missing yet.
pub(super) fn finding(flow: &Tracked, outcome: Outcome, is_decided: bool) -> Option<FindingKind> {
    let judged = flow.policy.as_ref().filter(|_| !flow.has(Mark::Fresh))?;
    let verdict = &judged.verdict;
    let parts = [&verdict.egress, &verdict.ingress];
    match (verdict.allowed?, outcome) {
        (false, Outcome::Established | Outcome::Reset) => Some(FindingKind::PolicyViolation),
        // What no policy is about is not declared.
        (true, Outcome::Unanswered)
            if is_decided && parts.iter().any(|part| !part.by.is_empty()) =>
        {
            Some(FindingKind::PolicyOverBlocked)
        }
        _ => None,
    }
}

/// The policies that a finding rests on.
fn declared_by(verdict: &Verdict, kind: FindingKind) -> String {
    let is_denial = matches!(
        kind,
        FindingKind::PolicyViolation | FindingKind::PolicyWouldDeny
    );
    let rests_on = |part: &&Part| !is_denial || part.allowed == Some(false);
    let parts = [&verdict.egress, &verdict.ingress]
        .into_iter()
        .filter(rests_on);
    let mut names: Vec<&str> = parts
        .flat_map(|part| part.by.iter().map(|name| &**name))
        .collect();
    names.dedup();
    if names.is_empty() {
        return "no policy selects either end".to_owned();
    }
    names.join(", ")
}

impl Books {
    /// Judges a connection by the policies, once it is known who opened it, and between whom it is.
    pub(super) fn judge_policy(&mut self, key: &FlowKey, flow: &mut Tracked, is_final: bool) {
        if flow.policy.is_some() || flow.has(Mark::Multicast) || !self.names.cluster().has_pods() {
            return;
        }
        let orientation = flow.orientation(key);
        let point = self.ledger.interface(key.interface_id()).map(|at| at.point);
        if !orientation.is_known || !(self.policy.everywhere || point == Some(Point::Workload)) {
            return;
        }
        let shown = Pair::of(key, orientation.source_is_local);
        // Policies are about pods, whatever address the source used for them. Who the source is
        // behind an address that it was given is left as the pod sees it.
        let chosen = self
            .translations
            .get(key, flow.generation)
            .map(|translation| translation.reached.destination)
            .filter(|chosen| orientation.source_is_local && *chosen != shown.destination);
        let answers = chosen.unwrap_or(shown.destination);
        let ips = [shown.source.ip(), answers.ip()];
        let naming = self.naming(key, flow, ips, is_final);
        if naming == Naming::Awaited {
            return;
        }
        let cluster = self.names.cluster();
        let [source, destination] = ips.map(|ip| cluster.end_at(ip, flow.start));
        if source.pod.is_none() && destination.pod.is_none() {
            return;
        }
        let (other, is_pod) = if orientation.source_is_local {
            (answers.ip(), destination.pod.is_some())
        } else {
            (shown.source.ip(), source.pod.is_some())
        };
        let is_own_node = !is_pod && self.names.is_own(other);
        let port = if key.protocol().has_ports() {
            answers.port()
        } else {
            0
        };
        let question = Flow {
            is_own_node,
            via_service: chosen.is_some(),
            ..Flow::new(source, destination, key.protocol(), port)
        };
        let is_fresh = self
            .policy
            .is_fresh(cluster, &question, flow.start, self.now);
        flow.policy = Some(Arc::new(self.policy.judge(cluster, &question)));
        flow.set(Mark::Fresh, is_fresh || naming == Naming::Unsure);
        if is_final && !is_fresh && naming == Naming::Unsure {
            self.policy.awaited.closed(key, flow, ips, self.now);
        }
    }

    /// Counts a connection whose outcome is decided, and tells where it is not as declared.
    pub(super) fn policy_decided(&mut self, key: &FlowKey, flow: &Tracked, outcome: Outcome) {
        let Some(judged) = flow.policy.as_ref().map(Arc::clone) else {
            return;
        };
        self.count_policy(key, flow, outcome, &judged.verdict);
        if let Some(kind) = finding(flow, outcome, true) {
            self.tell_policy(key, flow, outcome, kind, &judged.verdict);
        }
        if let Some(proposed) = &judged.proposed {
            let kind = match (judged.verdict.allowed, proposed.allowed) {
                (Some(false), Some(true)) => FindingKind::PolicyWouldAllow,
                // Where it cannot be told what is so now, nobody knows of a change.
                (Some(true), Some(false)) => FindingKind::PolicyWouldDeny,
                _ => return,
            };
            self.count_proposed(key, flow, outcome, &judged, kind);
            self.tell_policy(key, flow, outcome, kind, proposed);
        }
    }

    /// Tells of a connection that is not as declared, or would not be, once in a while.
    fn tell_policy(
        &mut self,
        key: &FlowKey,
        flow: &Tracked,
        outcome: Outcome,
        kind: FindingKind,
        verdict: &Verdict,
    ) {
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return;
        };
        let record = self.record(key, flow, interface, State::Closed);
        let name = |end: &Endpoint| match (&end.namespace, &end.pod) {
            (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
            _ => end.ip.to_string(),
        };
        // Of a Service, the pod that was chosen: what is judged, and what that pod's interface shows.
        let ends = record.translated.as_ref().and_then(Translated::ends);
        let chosen = ends.and_then(|ends| ends.destination.as_ref());
        let answers = match (record.local, chosen) {
            (LocalEnd::Source, Some(chosen)) => chosen,
            _ => &record.destination,
        };
        let (from, to) = (name(&record.source), name(answers));
        let (protocol, port) = (record.protocol, answers.port);
        let by = match (&record.destination.kind, record.local, chosen) {
            (EntityKind::Service, LocalEnd::Source, Some(_)) => {
                let name = record.destination.name.as_deref().unwrap_or_default();
                format!(" by service {name}")
            }
            _ => String::new(),
        };
        let about = (kind, from.clone(), to.clone(), protocol, port);
        let last = self.policy.told.get(&about);
        // One that is told of as later was so before a clock was set back.
        let is_lately = |last: &Timestamp| {
            flow.end() < last.saturating_add(TOLD) && *last < flow.end().saturating_add(TOLD)
        };
        if last.is_some_and(is_lately) {
            return;
        }
        if self.policy.told.len() >= MAX_TOLD {
            self.policy.told.clear();
        }
        self.policy.told.insert(about, flow.end());
        let port = port.map(|port| format!(" {port}")).unwrap_or_default();
        let what = match kind {
            FindingKind::PolicyViolation => "is denied by policy",
            FindingKind::PolicyWouldDeny => "would be denied by what is proposed",
            FindingKind::PolicyWouldAllow => "would be allowed by what is proposed",
            _ => "is allowed by policy",
        };
        let parts = [&verdict.egress, &verdict.ingress];
        let depends = parts.iter().any(|part| part.plugin_dependent);
        let note = if depends {
            " (network plugins differ in what the policy means)"
        } else {
            ""
        };
        self.push_finding(FindingRecord {
            version: VERSION,
            time: self.now,
            finding: kind,
            severity: super::ssh::severity(kind),
            reason: format!("{protocol}{port} from {from} to {to}{by} {what}, and {outcome}{note}"),
            declared_by: declared_by(verdict, kind),
            technique: None,
            basis: vec!["flow".to_owned()],
            source: record.source.ip,
            ssh: None,
            flow: Some(Box::new(record)),
        });
    }
}
