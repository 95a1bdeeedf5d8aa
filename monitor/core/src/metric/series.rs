//! The series that grow with traffic, and their cap.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use monitor_common::abi::{RX, TX};

use super::{
    Metric,
    symbol::{Symbol, Symbols},
};
use crate::{
    event::{Outcome, Point, Protocol},
    flow::Delta,
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

/// Rows of one kind.
#[derive(Clone, Debug)]
pub(super) struct Table<L, C> {
    index: HashMap<L, u32>,
    pub(super) rows: Vec<(L, C)>,
    /// The row for label sets beyond the cap.
    pub(super) other: C,
    /// How many flows or connections were counted there.
    pub(super) folded: u64,
}

/// All series that grow with traffic.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    symbols: Symbols,
    flows: Table<FlowLabels, FlowCounts>,
    connections: Table<ConnectionLabels, u64>,
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

// === impl Table ===

impl<L: Copy + Eq + Hash, C: Default> Table<L, C> {
    fn new() -> Self {
        Self {
            index: HashMap::new(),
            rows: Vec::new(),
            other: C::default(),
            folded: 0,
        }
    }

    fn find(&self, labels: &L) -> Option<SeriesId> {
        self.index.get(labels).copied().map(SeriesId)
    }

    fn insert(&mut self, labels: L) -> SeriesId {
        let number = u32::try_from(self.rows.len()).expect("the series cap bounds the rows");
        self.rows.push((labels, C::default()));
        self.index.insert(labels, number);
        SeriesId(number)
    }

    fn count_mut(&mut self, series: SeriesId) -> &mut C {
        match self.rows.get_mut(series.0 as usize) {
            Some((_, count)) => count,
            None => &mut self.other,
        }
    }
}

// === impl Store ===

impl Store {
    /// No series yet, at most `max` of them.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            symbols: Symbols::default(),
            flows: Table::new(),
            connections: Table::new(),
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

    /// Where to count the traffic of a flow with these labels.
    pub(crate) fn flow(&mut self, texts: &FlowTexts<'_>) -> SeriesId {
        if let Some(series) = self.find(texts) {
            return series;
        }
        if self.used + FLOW_SERIES > self.max {
            self.flows.folded += 1;
            return SeriesId::OTHER;
        }
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

    /// Counts traffic.
    pub(crate) fn add(&mut self, series: SeriesId, delta: &Delta) {
        let counts = self.flows.count_mut(series);
        for direction in [TX, RX] {
            let (packets, bytes) = (&mut counts.packets[direction], &mut counts.bytes[direction]);
            *packets = packets.saturating_add(delta.packets[direction]);
            *bytes = bytes.saturating_add(delta.bytes[direction]);
        }
    }

    /// Counts a connection whose traffic is counted at `series`.
    pub(crate) fn add_connection(&mut self, series: SeriesId, is_inbound: bool, outcome: Outcome) {
        let series = match self.flows.rows.get(series.0 as usize) {
            Some((flow, _)) => {
                let labels = ConnectionLabels {
                    flow: *flow,
                    is_inbound,
                    outcome,
                };
                match self.connections.find(&labels) {
                    Some(series) => series,
                    None if self.used < self.max => {
                        self.used += 1;
                        self.connections.insert(labels)
                    }
                    None => SeriesId::OTHER,
                }
            }
            None => SeriesId::OTHER,
        };
        if series == SeriesId::OTHER {
            self.connections.folded += 1;
        }
        *self.connections.count_mut(series) += 1;
    }

    /// Whether a series has a port label, and it is not this one.
    pub(crate) fn is_at_other_port(&self, series: SeriesId, port: Option<u16>) -> bool {
        self.flows
            .rows
            .get(series.0 as usize)
            .is_some_and(|(labels, _)| labels.port != port)
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

    fn find(&self, texts: &FlowTexts<'_>) -> Option<SeriesId> {
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
