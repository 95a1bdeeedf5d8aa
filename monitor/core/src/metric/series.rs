//! The series that grow with traffic, and their cap.

use std::{collections::HashSet, sync::Arc, time::Duration};

use monitor_common::abi::{RX, TX};

use super::{
    Metric,
    symbol::{Symbol, Symbols},
    table::Table,
};
use crate::{
    event::{Outcome, Point, Protocol},
    flow::Delta,
    time::Timestamp,
};

/// Where a flow's traffic is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SeriesId(u32);

/// The labels of a flow, direction excluded, as texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowTexts<'a> {
    pub(crate) point: Point,
    pub(crate) namespace: &'a Arc<str>,
    pub(crate) workload: &'a Arc<str>,
    pub(crate) pod: &'a Arc<str>,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Protocol,
    pub(crate) peer: &'a Arc<str>,
}

/// The labels of a flow, direction excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowLabels {
    pub(super) point: Point,
    pub(super) namespace: Symbol,
    pub(super) workload: Symbol,
    pub(super) pod: Symbol,
    pub(super) port: Option<u16>,
    pub(super) protocol: Protocol,
    pub(super) peer: Symbol,
}

/// The labels of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionLabels {
    pub(super) flow: FlowLabels,
    pub(super) is_inbound: bool,
    pub(super) outcome: Outcome,
}

/// What was counted for a set of flow labels, by direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowCounts {
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
}

/// What keeps a row of traffic.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Open flows that are counted there.
    flows: u32,
    /// Since when it is known that its pod is gone, and no flow is open.
    gone: Option<Timestamp>,
}

/// The pod that a row is about, or the workload where pods are not told apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) workload: &'a str,
    /// Empty where pods are not told apart.
    pub(crate) pod: &'a str,
}

/// All series that grow with traffic.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    symbols: Symbols,
    flows: Table<FlowLabels, FlowCounts>,
    /// By place in `flows`.
    held: Vec<Held>,
    connections: Table<ConnectionLabels, u64>,
    /// Rows of traffic that ended.
    ended: u64,
    used: usize,
    max: usize,
}

/// Series that one set of flow labels stands for: packets and bytes in two directions.
const FLOW_SERIES: usize = 4;

// === impl SeriesId ===

impl SeriesId {
    /// The row for label sets beyond the cap.
    pub(crate) const OTHER: Self = Self(u32::MAX);
}

// === impl Store ===

impl Store {
    /// No series yet, at most `max` of them.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            symbols: Symbols::default(),
            flows: Table::new(),
            held: Vec::new(),
            connections: Table::new(),
            ended: 0,
            used: 0,
            max,
        }
    }

    /// Series in use, the rows for what is beyond the cap excluded.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// The most series there may be.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// How many flows or connections were counted beyond the cap, by metric.
    pub(crate) fn folded(&self) -> [(Metric, u64); 3] {
        [
            (Metric::FlowBytes, self.flows.folded),
            (Metric::FlowPackets, self.flows.folded),
            (Metric::Connections, self.connections.folded),
        ]
    }

    /// How many sets of flow labels ended, since their pods are gone.
    pub(crate) fn ended(&self) -> u64 {
        self.ended
    }

    /// Where to count the traffic of a flow with these labels, until it is [released](Store::release).
    pub(crate) fn flow(&mut self, texts: &FlowTexts<'_>) -> SeriesId {
        let found = self.find(texts);
        let place = match found {
            Some(place) => place,
            None if self.used + FLOW_SERIES > self.max => {
                self.flows.folded += 1;
                return SeriesId::OTHER;
            }
            None => {
                self.used += FLOW_SERIES;
                let labels = FlowLabels {
                    point: texts.point,
                    namespace: self.symbols.intern(texts.namespace),
                    workload: self.symbols.intern(texts.workload),
                    pod: self.symbols.intern(texts.pod),
                    port: texts.port,
                    protocol: texts.protocol,
                    peer: self.symbols.intern(texts.peer),
                };
                self.flows.insert(labels)
            }
        };
        let index = place as usize;
        if index >= self.held.len() {
            self.held.resize(index + 1, Held::default());
        }
        let held = &mut self.held[index];
        held.flows = held.flows.saturating_add(1);
        held.gone = None;
        SeriesId(place)
    }

    /// A flow is counted there no more.
    pub(crate) fn release(&mut self, series: SeriesId) {
        if let Some(held) = self.held.get_mut(series.0 as usize) {
            held.flows = held.flows.saturating_sub(1);
        }
    }

    /// Ends rows whose pod has been gone, without an open flow, for `ttl`. What they counted goes with
    /// them: in the row `other` it would look like traffic of now.
    pub(crate) fn sweep(
        &mut self,
        now: Timestamp,
        ttl: Duration,
        is_present: impl Fn(&Subject<'_>) -> bool,
    ) {
        let Self {
            flows,
            held,
            symbols,
            ..
        } = self;
        let texts = symbols.texts();
        let mut ended = HashSet::new();
        flows.retain(|place, labels| {
            let subject = Subject {
                namespace: labels.namespace.text(texts),
                workload: labels.workload.text(texts),
                pod: labels.pod.text(texts),
            };
            let Some(held) = held.get_mut(place as usize) else {
                return true;
            };
            if held.flows > 0 || is_present(&subject) {
                held.gone = None;
                return true;
            }
            let since = *held.gone.get_or_insert(now);
            let is_kept = now.saturating_since(since) < ttl;
            if !is_kept {
                ended.insert(*labels);
                *held = Held::default();
            }
            is_kept
        });
        if ended.is_empty() {
            return;
        }
        let connections = self
            .connections
            .retain(|_, labels| !ended.contains(&labels.flow));
        self.used -= FLOW_SERIES * ended.len() + connections;
        self.ended += ended.len() as u64;
        self.forget_texts();
    }

    /// Forgets texts that no row has, once they are most of all.
    fn forget_texts(&mut self) {
        let mut used = HashSet::new();
        for (labels, _) in self.flows.rows() {
            used.extend([labels.namespace, labels.workload, labels.pod, labels.peer]);
        }
        if self.symbols.texts().len() < 2 * used.len() + 64 {
            return;
        }
        let old = std::mem::take(&mut self.symbols);
        let mut renamed = |symbol: Symbol| match old.texts().get(symbol.number()) {
            Some(text) => self.symbols.intern(text),
            None => symbol,
        };
        let mut relabel = |labels: &FlowLabels| FlowLabels {
            namespace: renamed(labels.namespace),
            workload: renamed(labels.workload),
            pod: renamed(labels.pod),
            peer: renamed(labels.peer),
            ..*labels
        };
        self.flows.relabel(&mut relabel);
        self.connections.relabel(|labels| ConnectionLabels {
            flow: relabel(&labels.flow),
            ..*labels
        });
    }

    /// Counts traffic.
    pub(crate) fn add(&mut self, series: SeriesId, delta: &Delta) {
        let counts = self.flows.count_mut(series.0);
        for direction in [TX, RX] {
            let (packets, bytes) = (&mut counts.packets[direction], &mut counts.bytes[direction]);
            *packets = packets.saturating_add(delta.packets[direction]);
            *bytes = bytes.saturating_add(delta.bytes[direction]);
        }
    }

    /// Counts a connection whose traffic is counted at `series`.
    pub(crate) fn add_connection(&mut self, series: SeriesId, is_inbound: bool, outcome: Outcome) {
        let place = self.flows.labels(series.0).and_then(|flow| {
            let labels = ConnectionLabels {
                flow: *flow,
                is_inbound,
                outcome,
            };
            self.connections.find(&labels).or_else(|| {
                let has_room = self.used < self.max;
                has_room.then(|| {
                    self.used += 1;
                    self.connections.insert(labels)
                })
            })
        });
        match place {
            Some(place) => *self.connections.count_mut(place) += 1,
            None => {
                self.connections.folded += 1;
                self.connections.other += 1;
            }
        }
    }

    /// Whether a series has a port label, and it is not this one.
    pub(crate) fn is_at_other_port(&self, series: SeriesId, port: Option<u16>) -> bool {
        let labels = self.flows.labels(series.0);
        labels.is_some_and(|labels| labels.port != port)
    }

    /// Label texts, by symbol.
    pub(super) fn texts(&self) -> &[Arc<str>] {
        self.symbols.texts()
    }

    /// Traffic.
    pub(super) fn flows(&self) -> &Table<FlowLabels, FlowCounts> {
        &self.flows
    }

    /// Connections.
    pub(super) fn connections(&self) -> &Table<ConnectionLabels, u64> {
        &self.connections
    }

    fn find(&self, texts: &FlowTexts<'_>) -> Option<u32> {
        self.flows.find(&FlowLabels {
            point: texts.point,
            namespace: self.symbols.find(texts.namespace)?,
            workload: self.symbols.find(texts.workload)?,
            pod: self.symbols.find(texts.pod)?,
            port: texts.port,
            protocol: texts.protocol,
            peer: self.symbols.find(texts.peer)?,
        })
    }
}

#[cfg(test)]
mod tests;
