//! The engine's state at one moment, for scrapes and for people.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{
    Engine, KubernetesStatus, LossStage, ManifestsStatus, NsgStatus, PolicyStatus,
    TranslationStatus, kubernetes,
};
use crate::{
    account::InterfaceStatus,
    cluster::SharedAddresses,
    event::{Point, SummaryRecord, VERSION},
    flow::{Anomaly, Blinded, Family},
    metric::{Fixed, Metric, Rows, Text, Value},
    time::Timestamp,
};

/// The engine's state at one moment; a copy that can be read while the engine goes on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Every sample of every metric.
    pub rows: Rows,
    /// For people.
    pub status: Status,
}

/// The engine's state, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When this was so.
    pub time: Timestamp,
    /// Connections tracked, and room for them, by family.
    pub flows: BTreeMap<Family, FamilyStatus>,
    /// Closed connections that are remembered.
    pub recent: u64,
    /// Up to when what is over may be forgotten; absent where all of it is remembered.
    #[serde(default, skip_serializing_if = "Forgotten::is_nothing")]
    pub forgotten: Forgotten,
    /// Connections so far.
    pub connections: u64,
    /// Present interfaces, uplinks first.
    pub interfaces: Vec<InterfaceStatus>,
    /// Network security groups that are declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nsg: Option<NsgStatus>,
    /// How far the objects of a live cluster are known; absent where none is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesStatus>,
    /// Files that declare objects and policies; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<ManifestsStatus>,
    /// Addresses that several pods have which have not ended; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_addresses: Option<SharedAddresses>,
    /// What network policies are about; absent where no pod is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// How connections are tied that are translated on this node; absent in a replay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation: Option<TranslationStatus>,
    /// Events lost so far, by stage.
    pub events_lost: BTreeMap<LossStage, u64>,
    /// Where first packets do not tell who opened some flows that are not TCP: those are held
    /// against no rule.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub openers_unknown: BTreeMap<Point, OpenersUnknown>,
    /// Connections counted within an earlier one of the same ports.
    pub connections_merged: u64,
    /// Readings that did not fit; kinds that did not occur are absent.
    pub anomalies: BTreeMap<Anomaly, u64>,
    /// Series in use that grow with traffic.
    pub series: u64,
    /// The most there may be.
    pub max_series: u64,
    /// Flows and connections counted beyond that, by metric.
    pub series_folded: BTreeMap<Cow<'static, str>, u64>,
}

/// Of what is over, the newest records are remembered. These are the latest that were not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Last packet of a closed flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<Timestamp>,
    /// Last packet of a closed SSH connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<Timestamp>,
    /// Time of a finding that is not of a proposed policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Timestamp>,
    /// Time of a finding of a proposed policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed: Option<Timestamp>,
}

/// Until when first packets do not tell who opened a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenersUnknown {
    /// Until when, unless it happens again.
    pub until: Timestamp,
    /// Why.
    pub reason: Blinded,
}

/// Connections of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyStatus {
    /// Connections tracked.
    pub active: u64,
    /// Entries that the kernel's map can hold; 0 if unknown.
    pub capacity: u64,
}

// === impl Forgotten ===

impl Forgotten {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Engine ===

impl Engine {
    /// The state now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            rows: Rows::new(&self.books.store, self.fixed()),
            status: self.status(),
        }
    }

    /// The state now, without the samples.
    pub fn status(&self) -> Status {
        let store = &self.books.store;
        Status {
            time: self.now,
            flows: self.families().into(),
            recent: self.books.recent.len() as u64,
            forgotten: Forgotten {
                flows: self.books.forgotten,
                ..self.books.ssh.given_up()
            },
            connections: self.books.connections,
            interfaces: self.books.ledger.status(),
            nsg: self.books.nsg.status(),
            kubernetes: self.kubernetes.clone(),
            manifests: self.manifests.clone(),
            shared_addresses: Some(self.shared_addresses()).filter(|shared| shared.count > 0),
            policy: self.books.policy.status(self.books.names.cluster()),
            translation: self.books.translations.status(),
            events_lost: self.events_lost.clone(),
            openers_unknown: self.openers_unknown().collect(),
            connections_merged: self.connections_merged,
            anomalies: self.anomalies().filter(|(_, count)| *count > 0).collect(),
            series: store.used() as u64,
            max_series: store.max() as u64,
            series_folded: store
                .folded()
                .into_iter()
                .chain(self.books.policy.folded())
                .map(|(metric, count)| (metric.definition().name.into(), count))
                .collect(),
        }
    }

    /// Totals of all that was seen. Who replays fills in the files and how long it took.
    pub fn summary(&self) -> SummaryRecord {
        let totals = self.books.ledger.totals();
        let sum = |counts: [u64; 2]| counts.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
        let mut uncounted = BTreeMap::new();
        for (hook, _) in crate::account::HOOKS {
            for (reason, packets) in totals.reasons(hook).filter(|(_, packets)| *packets > 0) {
                *uncounted.entry(reason.name().into()).or_default() += packets;
            }
        }
        SummaryRecord {
            version: VERSION,
            time: self.now,
            files: Vec::new(),
            interfaces: self.books.ledger.seen_interfaces(),
            packets_seen: sum(totals.counters.seen),
            packets_counted: sum(totals.counters.counted),
            packets_uncounted: uncounted.values().sum(),
            uncounted,
            bytes_counted: sum(totals.counters.bytes),
            flows: self.books.connections,
            ssh_connections: self.books.ssh.connections(),
            findings: self.books.ssh.findings(),
            wall_time_ms: 0,
        }
    }

    fn openers_unknown(&self) -> impl Iterator<Item = (Point, OpenersUnknown)> {
        [Point::Uplink, Point::Workload]
            .into_iter()
            .filter_map(|point| {
                let (recall, now_ns) = (&self.books.recall, self.clock.monotonic_now_ns);
                let interfaces = self.books.ledger.interfaces();
                let (until_ns, reason) = recall.blind_until_ns(point, interfaces, now_ns)?;
                let until = self.clock.wall(until_ns);
                Some((point, OpenersUnknown { until, reason }))
            })
    }

    fn anomalies(&self) -> impl Iterator<Item = (Anomaly, u64)> {
        Anomaly::ALL.into_iter().zip(self.books.anomalies)
    }

    /// Samples of all metrics that do not grow with traffic.
    fn fixed(&self) -> Vec<Fixed> {
        let mut fixed = Vec::new();
        self.books.ledger.samples(&mut fixed);
        self.books.ssh.samples(&mut fixed);
        self.books.policy.samples(&mut fixed);
        self.books.nsg.samples(&mut fixed);
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.samples(&mut fixed);
        }
        let (live, files) = (self.kubernetes.as_ref(), self.manifests.as_ref());
        kubernetes::skipped(live, files, &mut fixed);
        let shared = self.books.names.cluster().shared_count();
        kubernetes::doubtful_addresses(live, files, shared, &mut fixed);
        self.books.translations.samples(&mut fixed);
        let mut push = |metric: Metric, label: &'static str, value: Value| {
            let labels = vec![Text::Static(label)];
            fixed.push(Fixed {
                metric,
                labels,
                value,
            });
        };
        for (stage, total) in &self.events_lost {
            push(Metric::EventsLost, stage.name(), Value::Counter(*total));
        }
        push(
            Metric::ConnectionsMerged,
            "",
            Value::Counter(self.connections_merged),
        );
        let blind: BTreeMap<_, _> = self.openers_unknown().collect();
        for point in [Point::Uplink, Point::Workload] {
            let value = Value::Gauge(blind.contains_key(&point).into());
            push(Metric::OpenersUnknown, point.name(), value);
        }
        for (anomaly, count) in self.anomalies() {
            push(Metric::Anomalies, anomaly.name(), Value::Counter(count));
        }
        let folded = self.books.store.folded().into_iter();
        for (metric, count) in folded.chain(self.books.policy.folded()) {
            push(
                Metric::SeriesFolded,
                metric.definition().name,
                Value::Counter(count),
            );
        }
        push(
            Metric::SeriesEnded,
            "",
            Value::Counter(self.books.store.ended()),
        );
        for (family, status) in self.families() {
            let gauge = |count: u64| Value::Gauge(i64::try_from(count).unwrap_or(i64::MAX));
            push(Metric::FlowsActive, family.name(), gauge(status.active));
            push(Metric::FlowsCapacity, family.name(), gauge(status.capacity));
        }
        fixed
    }
}
