//! All samples of a scrape.

use std::{convert::Infallible, sync::Arc};

use monitor_common::abi::{RX, TX};

use super::{
    Metric, OTHER,
    series::{ConnectionLabels, FlowCounts, FlowLabels, Store},
};
use crate::event::Protocol;

/// Value of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(i64),
}

/// All samples at one moment; a copy, so that a scrape does not stop the engine.
#[derive(Clone, Debug)]
pub struct Rows {
    texts: Vec<Arc<str>>,
    flows: Vec<(FlowLabels, FlowCounts)>,
    flows_other: Option<FlowCounts>,
    connections: Vec<(ConnectionLabels, u64)>,
    connections_other: Option<u64>,
    fixed: Vec<Fixed>,
}

/// A sample of a metric that does not grow with traffic.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub(crate) metric: Metric,
    pub(crate) labels: Vec<Text>,
    pub(crate) value: Value,
}

/// A label value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

/// Digits of a port or protocol number.
struct Digits {
    bytes: [u8; 5],
    start: usize,
}

// === impl Rows ===

impl Rows {
    pub(crate) fn new(store: &Store, fixed: Vec<Fixed>) -> Self {
        let (flows, connections) = (store.flows(), store.connections());
        Self {
            texts: store.texts().to_vec(),
            flows: flows.rows(),
            flows_other: (flows.folded > 0).then_some(flows.other),
            connections: connections.rows(),
            connections_other: (connections.folded > 0).then_some(connections.other),
            fixed,
        }
    }

    /// Calls `sample` with the labels (name and value, in order) and the value of each sample of a
    /// metric, until one fails.
    pub fn samples<E>(
        &self,
        metric: Metric,
        mut sample: impl FnMut(&[(&'static str, &str)], Value) -> Result<(), E>,
    ) -> Result<(), E> {
        match metric {
            Metric::FlowBytes => self.flow_samples(metric, |counts| counts.bytes, sample),
            Metric::FlowPackets => self.flow_samples(metric, |counts| counts.packets, sample),
            Metric::Connections => self.connection_samples(sample),
            _ => {
                let names = metric.definition().labels;
                let mut labels = [("", ""); 6];
                self.fixed
                    .iter()
                    .filter(|fixed| fixed.metric == metric)
                    .try_for_each(|fixed| {
                        for ((label, name), text) in labels.iter_mut().zip(names).zip(&fixed.labels)
                        {
                            *label = (*name, text.as_str());
                        }
                        sample(labels.get(..names.len()).unwrap_or(&[]), fixed.value)
                    })
            }
        }
    }

    /// Sum of all samples of a counter.
    pub fn sum(&self, metric: Metric) -> u64 {
        let mut sum = 0_u64;
        let result = self.samples(metric, |_, value| {
            if let Value::Counter(value) = value {
                sum = sum.saturating_add(value);
            }
            Ok::<_, Infallible>(())
        });
        match result {
            Ok(()) => sum,
        }
    }

    fn flow_samples<E>(
        &self,
        metric: Metric,
        counts: impl Fn(&FlowCounts) -> [u64; 2],
        mut sample: impl FnMut(&[(&'static str, &str)], Value) -> Result<(), E>,
    ) -> Result<(), E> {
        for (flow, count) in &self.flows {
            let count = counts(count);
            for (direction, value) in [("tx", count[TX]), ("rx", count[RX])] {
                self.with_labels(flow, direction, |labels| {
                    sample(labels, Value::Counter(value))
                })?;
            }
        }
        if let Some(other) = &self.flows_other {
            let [tx, rx] = counts(other);
            sample(&others::<8>(metric), Value::Counter(tx.saturating_add(rx)))?;
        }
        Ok(())
    }

    fn connection_samples<E>(
        &self,
        mut sample: impl FnMut(&[(&'static str, &str)], Value) -> Result<(), E>,
    ) -> Result<(), E> {
        for (connection, count) in &self.connections {
            let direction = if connection.is_inbound {
                "inbound"
            } else {
                "outbound"
            };
            self.with_labels(&connection.flow, direction, |flow| {
                let mut labels = [("outcome", connection.outcome.name()); 9];
                for (label, flow) in labels.iter_mut().zip(flow) {
                    *label = *flow;
                }
                sample(&labels, Value::Counter(*count))
            })?;
        }
        if let Some(other) = self.connections_other {
            sample(&others::<9>(Metric::Connections), Value::Counter(other))?;
        }
        Ok(())
    }

    fn with_labels<T>(
        &self,
        flow: &FlowLabels,
        direction: &str,
        then: impl FnOnce(&[(&'static str, &str)]) -> T,
    ) -> T {
        let port = flow.port.map(Digits::new);
        let number = Digits::new(u16::from(flow.protocol.0));
        then(&[
            ("point", flow.point.name()),
            ("namespace", flow.namespace.text(&self.texts)),
            ("workload", flow.workload.text(&self.texts)),
            ("pod", flow.pod.text(&self.texts)),
            ("port", port.as_ref().map_or("", Digits::as_str)),
            (
                "protocol",
                Protocol::name(flow.protocol).unwrap_or(number.as_str()),
            ),
            ("direction", direction),
            ("peer", flow.peer.text(&self.texts)),
        ])
    }
}

/// The labels of the row for what is beyond the cap.
fn others<const N: usize>(metric: Metric) -> [(&'static str, &'static str); N] {
    let mut labels = [("", OTHER); N];
    for (label, name) in labels.iter_mut().zip(metric.definition().labels) {
        label.0 = name;
    }
    labels
}

// === impl Text ===

impl Text {
    fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

// === impl Digits ===

impl Digits {
    fn new(mut number: u16) -> Self {
        let mut bytes = [b'0'; 5];
        let mut start = bytes.len();
        loop {
            start -= 1;
            bytes[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { bytes, start };
            }
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.start..]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
