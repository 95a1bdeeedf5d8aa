//! Connections whose ends may be pods that are not told of yet.
//!
//! A pod sends before its address is known: its kubelet publishes that some seconds later. A
//! connection to or from an address that nobody has as far as is known, or that a pod had before,
//! is judged when its holder is told of, and by what is known after [`GRACE`] at the latest. Its
//! traffic and its outcome are counted all the same meanwhile.
//!
//! One that closes sooner is judged as it closes, without a finding; that is made up for if no pod
//! was told of by then.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use super::{GRACE, finding};
use crate::{
    engine::books::Books,
    entity::{Sight, is_private},
    event::{EntityKind, Point},
    flow::{FlowKey, Mark, Table, Tracked},
    time::Timestamp,
};

/// Connections that wait at a time. What more there is makes no finding, and is counted as lost.
const MOST_WAITING: usize = 8_192;
/// Closed ones whose findings do.
const MOST_CLOSED: usize = 4_096;

/// Connections that wait.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// Whether pods are told of as they come: by a live cluster.
    is_live: bool,
    /// By entry and which of its connections: since when.
    waiting: BTreeMap<(FlowKey, u32), Timestamp>,
    closed: VecDeque<Closed>,
    /// How many more there were than have room.
    lost: u64,
}

/// A connection that closed before it was known who its ends were.
#[derive(Debug)]
struct Closed {
    key: FlowKey,
    flow: Tracked,
    ips: [IpAddr; 2],
    since: Timestamp,
}

/// Whether it is known who the ends of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    Known,
    /// Not yet.
    Awaited,
    /// It may turn out otherwise, but the connection cannot wait.
    Unsure,
}

/// Whether there is no more to wait for.
fn is_due(start: Timestamp, since: Timestamp, now: Timestamp) -> bool {
    // A clock that was set back tells nothing of how long it is.
    now < since || now >= since.min(start).saturating_add(GRACE)
}

// === impl Awaited ===

impl Awaited {
    /// A connection closes unsure; its verdict is without a finding.
    pub(super) fn closed(
        &mut self,
        key: &FlowKey,
        flow: &Tracked,
        ips: [IpAddr; 2],
        now: Timestamp,
    ) {
        let judged = flow.policy.as_ref();
        if judged.is_none_or(|judged| judged.verdict.allowed.is_none()) {
            return;
        }
        if self.closed.len() < MOST_CLOSED {
            self.closed.push_back(Closed {
                key: *key,
                flow: flow.clone(),
                ips,
                since: now,
            });
        } else {
            self.lost += 1;
        }
    }
}

impl Books {
    /// A live cluster tells of its pods.
    pub(in crate::engine) fn await_pods(&mut self) {
        self.policy.awaited.is_live = true;
    }

    /// Connections that make no finding, as too many wait.
    pub(in crate::engine) fn unnamed(&self) -> u64 {
        self.policy.awaited.lost
    }

    /// Whether it is known who the ends of a connection are.
    pub(super) fn naming(
        &mut self,
        key: &FlowKey,
        flow: &Tracked,
        ips: [IpAddr; 2],
        is_final: bool,
    ) -> Naming {
        let at = (*key, flow.generation);
        let is_open = ips.iter().any(|ip| self.may_be_new_pod(*ip, flow.start));
        let now = self.now;
        let waiting = &mut self.policy.awaited.waiting;
        let since = waiting.get(&at).copied();
        if !is_open || is_due(flow.start, since.unwrap_or(now), now) {
            waiting.remove(&at);
            return Naming::Known;
        }
        if is_final {
            waiting.remove(&at);
            return Naming::Unsure;
        }
        if since.is_none() && waiting.len() >= MOST_WAITING {
            self.policy.awaited.lost += 1;
            return Naming::Unsure;
        }
        waiting.insert(at, since.unwrap_or(now));
        Naming::Awaited
    }

    /// Whether an address that was seen at a time may be that of a pod that is not told of yet.
    fn may_be_new_pod(&self, ip: IpAddr, at: Timestamp) -> bool {
        let is_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if !self.policy.awaited.is_live || is_local || ip.is_loopback() || !is_private(ip) {
            return false;
        }
        let sight = Sight {
            ip,
            port: None,
            point: Point::Workload,
            at,
        };
        match self.names.resolve(&sight).kind {
            EntityKind::Pod => !self.names.cluster().is_held(ip, at),
            EntityKind::Range | EntityKind::Unknown => true,
            EntityKind::Node | EntityKind::Service | EntityKind::Internet => false,
        }
    }

    /// Whether a connection waits to be judged.
    pub(in crate::engine) fn awaits_pod(&self, key: &FlowKey, flow: &Tracked) -> bool {
        let waiting = &self.policy.awaited.waiting;
        flow.policy.is_none() && waiting.contains_key(&(*key, flow.generation))
    }

    /// Time passes: who is named by now, and who waits for too long, is judged.
    pub(in crate::engine) fn policy_tick(&mut self, table: &mut Table) {
        let waiting: Vec<_> = self.policy.awaited.waiting.keys().copied().collect();
        for at in waiting {
            let (key, generation) = &at;
            if let Some(flow) = table.get_mut(key, *generation) {
                let is_asked = self.translations.is_asked(key, *generation);
                if flow.has(Mark::Counted) || !is_asked && !self.awaits_cgroup(flow) {
                    self.settle(key, flow, false);
                }
            } else if !table.has(key, *generation) {
                self.policy.awaited.waiting.remove(&at);
            }
        }
        let now = self.now;
        while let Some(first) = self.policy.awaited.closed.front()
            && is_due(first.flow.start, first.since, now)
            && let Some(closed) = self.policy.awaited.closed.pop_front()
        {
            let Closed {
                key, mut flow, ips, ..
            } = closed;
            // Whoever was told of since was not who it was judged as.
            if !ips.iter().any(|ip| self.may_be_new_pod(*ip, flow.start)) {
                continue;
            }
            flow.set(Mark::Fresh, false);
            let outcome = flow.outcome(&key);
            if let Some(kind) = finding(&flow, outcome, true)
                && let Some(judged) = flow.policy.clone()
            {
                self.tell_policy(&key, &flow, outcome, kind, &judged.verdict);
            }
        }
    }
}
