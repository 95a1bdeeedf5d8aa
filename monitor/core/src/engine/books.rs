//! What connections leave behind: series, accounts, records, recent connections.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use monitor_common::abi::{RX, TX, flag};

use super::{
    record::{self, Context},
    translate::{Kept, Translations},
};
use crate::{
    account::{Interface, Ledger},
    cluster::Change,
    entity::{Names, Sight},
    event::{FlowRecord, Outcome, Point, Record, State},
    flow::{Anomaly, Delta, Effects, FlowKey, Mark, Recall, Tracked, is_over},
    metric::{FlowTexts, SeriesId, Store},
    netpol::PolicyChange,
    time::Timestamp,
};

/// Everything but the flow table.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) names: Names,
    pub(super) ssh: super::ssh::Connections,
    pub(super) policy: super::policy::Judge,
    pub(super) nsg: super::nsg::Declared,
    pub(super) cgroups: super::cgroup::CgroupQuestions,
    pub(super) translations: Translations,
    pub(super) store: Store,
    pub(super) ledger: Ledger,
    /// Flows that may go on after they were forgotten.
    pub(super) recall: Recall,
    /// Closed connections, the latest last.
    pub(super) recent: VecDeque<Closed>,
    pub(super) recent_max: usize,
    /// Last packet of the latest of them that is no longer remembered.
    pub(super) forgotten: Option<Timestamp>,
    pub(super) settle_ns: u64,
    /// By [`Anomaly`].
    pub(super) anomalies: [u64; Anomaly::ALL.len()],
    /// Connections so far.
    pub(super) connections: u64,
    /// Records since they were last taken, if wanted.
    pub(super) records: Option<Vec<Record>>,
    /// Time of the present step.
    pub(super) now: Timestamp,
    /// When the source last read its clock, in monotonic nanoseconds.
    pub(super) clock_ns: u64,
    /// Whether observation ends: what closes now is cut off, unless it was over before.
    pub(super) is_ending: bool,
    /// The empty label.
    pub(super) blank: Arc<str>,
    /// Whether the label `pod` is left empty.
    pub(super) by_workload: bool,
}

/// A closed connection.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) key: FlowKey,
    pub(super) flow: Tracked,
    pub(super) interface: Arc<Interface>,
    pub(super) translation: Kept,
}

/// Whether an outcome can be counted now: no packet that may still come makes it another, or only
/// one that says how an established connection ended.
pub(super) const fn is_decided(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Established | Outcome::Refused | Outcome::Reset | Outcome::Midstream => true,
        Outcome::Unanswered | Outcome::OneWay => false,
    }
}

/// Whether either end was told of a refusal, which a late answer makes another outcome.
const fn is_refused(flow: &Tracked) -> bool {
    (flow.flags[TX] | flow.flags[RX]) & (flag::UNREACHABLE | flag::RST) != 0
}

// === impl Books ===

impl Books {
    /// Objects of the cluster change.
    pub(super) fn apply_cluster(&mut self, changes: Vec<Change>, now: Timestamp) {
        for change in changes {
            self.policy.note_change(&change, now);
            self.names.cluster_mut().apply(change, now);
        }
    }

    /// Policies change.
    pub(super) fn apply_policies(&mut self, changes: Vec<PolicyChange>, now: Timestamp) {
        for change in changes {
            self.policy.apply(change, now);
        }
    }

    /// An interface is about to be watched, or what is known of it changed.
    pub(super) fn announce(&mut self, interface: Interface) {
        self.recall.announced(&interface, self.now);
        self.ledger.announce(interface);
    }

    /// An interface is gone.
    pub(super) fn interface_gone(&mut self, id: u32) {
        self.recall.gone(id);
        self.ledger.gone(id);
    }

    /// The kernel's counters were read.
    pub(super) fn accounts_read(&mut self, now_ns: u64) {
        self.recall.refused(self.ledger.refused(), now_ns);
    }

    /// Records since the last call.
    pub(super) fn take_records(&mut self) -> Vec<Record> {
        self.records
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Where to count a connection's traffic.
    pub(super) fn series(
        &mut self,
        key: &FlowKey,
        flow: &Tracked,
        interface: &Interface,
    ) -> SeriesId {
        let sight = |ip, port| Sight {
            ip,
            port: Some((key.protocol(), port)),
            point: interface.point,
            at: flow.start,
        };
        let resolve = |ip, port| self.names.resolve_socket(&sight(ip, port), flow.cgroup_id);
        let local = resolve(key.local(), key.local_port());
        let remote = resolve(key.remote(), key.remote_port());
        self.store.flow(&FlowTexts {
            point: interface.point,
            namespace: local.namespace.as_ref().unwrap_or(&self.blank),
            workload: local.workload.as_ref().unwrap_or(&self.blank),
            pod: match &local.pod {
                Some(pod) if !self.by_workload => pod,
                _ => &self.blank,
            },
            port: flow.orientation(key).service_port(key),
            protocol: key.protocol(),
            peer: &remote.class,
        })
    }

    /// Counts a connection's traffic from now on where it belongs by what is known now. It holds
    /// one row at a time: one that stays held never ends.
    pub(super) fn move_series(&mut self, key: &FlowKey, flow: &mut Tracked, interface: &Interface) {
        let series = self.series(key, flow, interface);
        self.store.release(flow.series);
        flow.series = series;
    }

    /// Ends series of pods, or of workloads, that are gone.
    pub(super) fn sweep_series(&mut self, now: Timestamp, ttl: Duration) {
        let cluster = self.names.cluster();
        let mut workloads = HashSet::new();
        if self.by_workload {
            for known in cluster.pods() {
                if let Some(workload) = &known.pod.workload {
                    workloads.insert((&*known.pod.namespace, &**workload));
                }
            }
        }
        self.store.sweep(now, ttl, |subject| {
            if !subject.pod.is_empty() {
                return cluster.pod(subject.namespace, subject.pod).is_some();
            }
            subject.workload.is_empty()
                || workloads.contains(&(subject.namespace, subject.workload))
        });
    }

    fn count(&mut self, key: &FlowKey, flow: &Tracked, outcome: Outcome) {
        let is_inbound = !flow.orientation(key).source_is_local;
        self.store.add_connection(flow.series, is_inbound, outcome);
        self.nsg_counted(key, flow, outcome);
    }

    /// Judges a connection, and tells of it once its outcome is decided.
    pub(super) fn settle(&mut self, key: &FlowKey, flow: &mut Tracked, is_final: bool) {
        let was_judged = flow.policy.is_some();
        self.judge_policy(key, flow, is_final);
        let outcome = flow.outcome(key);
        let was_counted = flow.has(Mark::Counted);
        if was_counted && !was_judged {
            self.policy_decided(key, flow, outcome);
        }
        if is_decided(outcome) && !flow.has(Mark::Counted) {
            // What it is counted for may be known only by now.
            if flow.cgroup_id != 0
                && let Some(interface) = self.ledger.interface(key.interface_id()).map(Arc::clone)
            {
                self.move_series(key, flow, &interface);
            }
            flow.set(Mark::Counted, true);
            self.count(key, flow, outcome);
            self.policy_decided(key, flow, outcome);
            self.judge_public(key, flow, State::Open);
            if !is_final {
                self.push_record(key, flow, State::Open);
            }
        }
        // Before there is an outcome, too: an inbound packet that is denied has passed already. Once
        // there is one, what groups make of it changes no more before it closes, unless a late answer
        // follows a refusal.
        let may_change = !was_counted || is_refused(flow);
        if !is_final && may_change && self.judge_nsg(key, flow, State::Open) {
            flow.set(Mark::NsgTold, true);
        }
    }

    /// What records are made with.
    pub(super) fn context(&self) -> Context<'_> {
        Context {
            names: &self.names,
            nsg: &self.nsg,
            translations: &self.translations,
            kept: None,
        }
    }

    /// The record of a connection now.
    pub(super) fn record(
        &self,
        key: &FlowKey,
        flow: &Tracked,
        interface: &Interface,
        state: State,
    ) -> FlowRecord {
        record::of(&self.context(), key, flow, interface, state, self.now)
    }

    fn push_record(&mut self, key: &FlowKey, flow: &Tracked, state: State) {
        if self.records.is_none() {
            return;
        }
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return;
        };
        let mut record = self.record(key, flow, interface, state);
        record.cut = self.is_ending && state == State::Closed && !is_over(key, flow);
        if let Some(records) = &mut self.records {
            records.push(record.into());
        }
    }
}

impl Effects for Books {
    fn opened(&mut self, key: &FlowKey, flow: &mut Tracked) {
        self.connections += 1;
        let (interface, is_gone, is_known) = self.ledger.opened(key.interface_id());
        if !is_known {
            self.anomaly(Anomaly::InterfaceUnknown);
        }
        let is_unsettled = interface.attached_ns.is_some_and(|attached_ns| {
            flow.first_seen_ns < attached_ns.saturating_add(self.settle_ns)
        }) || self.recall.may_be_older(key, flow, &interface);
        let is_multicast =
            self.names.is_multicast(key.remote()) || self.names.is_multicast(key.local());
        flow.set(Mark::Unsettled, is_unsettled);
        flow.set(Mark::Gone, is_gone);
        flow.set(Mark::Multicast, is_multicast);
        self.cgroup_opened(flow);
        flow.series = self.series(key, flow, &interface);
        // Rules are kept for the connections that opened under them, and hold at the uplink only.
        if interface.point == Point::Uplink {
            self.nsg_opened(flow);
        }
        self.ssh_flow(key, flow);
    }

    fn advanced(&mut self, key: &FlowKey, flow: &mut Tracked, delta: &Delta, is_final: bool) {
        // What is learned late of who opened the connection changes its service port.
        let port = flow.orientation(key).service_port(key);
        if self.store.is_at_other_port(flow.series, port)
            && let Some(interface) = self.ledger.interface(key.interface_id()).map(Arc::clone)
        {
            self.move_series(key, flow, &interface);
        }
        self.store.add(flow.series, delta);
        self.ssh_goes_on(key, flow);
        self.ledger.advanced(key.interface_id(), delta);
        if !flow.has(Mark::Counted) {
            self.cgroup_opened(flow);
        }
        self.nsg_advanced(key, flow, delta);
        let awaits = !flow.has(Mark::Counted)
            && (self.awaits_translation(key, flow, is_final)
                || !is_final && self.awaits_cgroup(flow));
        if !awaits {
            self.settle(key, flow, is_final);
        }
    }

    fn closed(&mut self, key: &FlowKey, flow: &Tracked) {
        let mut judged = None;
        if self.awaits_pod(key, flow) {
            // Without a last reading: it waits no longer.
            self.settle(key, judged.insert(flow.clone()), true);
        }
        let flow = judged.as_ref().unwrap_or(flow);
        if !flow.has(Mark::Counted) {
            let outcome = flow.outcome(key);
            self.count(key, flow, outcome);
            self.policy_decided(key, flow, outcome);
            self.judge_public(key, flow, State::Closed);
        }
        if let Some(interface) = self.ledger.interface(key.interface_id()) {
            // Of a replay the clock may be behind what it has seen.
            let now_ns = self.clock_ns.max(flow.last_seen_ns);
            self.recall.closed(key, flow, interface.point, now_ns);
        }
        self.store.release(flow.series);
        self.push_record(key, flow, State::Closed);
        self.ssh_closed(key, flow);
        self.judge_blocked(key, flow);
        self.judge_nsg(key, flow, State::Closed);
        let translation = self.close_translation(key, flow);
        if self.recent_max > 0
            && let Some(interface) = self.ledger.interface(key.interface_id())
        {
            if self.recent.len() >= self.recent_max
                && let Some(oldest) = self.recent.pop_front()
            {
                self.nsg.closed(&oldest.flow);
                self.forgotten = self.forgotten.max(Some(oldest.flow.end()));
            }
            let interface = Arc::clone(interface);
            self.recent.push_back(Closed {
                key: *key,
                flow: flow.clone(),
                interface,
                translation,
            });
        } else {
            self.nsg.closed(flow);
            self.forgotten = self.forgotten.max(Some(flow.end()));
        }
        self.ledger.closed(key.interface_id());
    }

    fn anomaly(&mut self, anomaly: Anomaly) {
        self.anomalies[anomaly as usize] += 1;
    }
}
