//! How far the objects of a live cluster are known: what the daemon's watches say of themselves.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::ManifestsStatus;
use crate::{
    cluster::Missing,
    metric::{Fixed, Metric, Text, Value},
    time::Timestamp,
};

/// The watches on a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesStatus {
    /// Address of the API server.
    pub server: String,
    /// Each kind of object that is watched.
    pub resources: Vec<ResourceStatus>,
}

/// The watch on one kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Name of the kind in the API, such as `pods`.
    pub resource: Cow<'static, str>,
    /// How far its objects are known.
    pub state: WatchState,
    /// Objects that are known.
    pub objects: u64,
    /// Objects that are there and cannot be used: what the API server should have refused.
    pub skipped: u64,
    /// Addresses of objects that are no IP addresses: the objects are used as if those were not
    /// there.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub invalid_addresses: u64,
    /// The last object or address that cannot be used, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
    /// Events so far: objects that came, changed or went.
    pub events: u64,
    /// When the last event or complete list came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<Timestamp>,
    /// Complete lists so far: one, and one more whenever the server no longer knew what changed
    /// since the last.
    pub lists: u64,
    /// Requests that failed so far, by why; those that did not occur are absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<WatchError, u64>,
    /// Why it is not in sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How far the objects of a kind are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchState {
    /// Not yet: the server has not answered.
    Pending,
    /// All are known, and their changes as they happen.
    Synced,
    /// The server has no such kind.
    Absent,
    /// This daemon may not list or watch them. Those that were known before stay as they were.
    Refused,
    /// They are known as they were when the server answered last.
    Stale,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchError {
    /// No answer: no connection, no trust in the server's certificate, or no answer in time.
    Unreachable,
    /// The server does not accept the credentials (401).
    Unauthorized,
    /// No right to list or watch (403).
    Refused,
    /// The server no longer knows what changed since the last event (410): all are listed again.
    Expired,
    /// The server has too much to do (429).
    Throttled,
    /// The server failed (5xx).
    Server,
    /// An answer that is not understood.
    Protocol,
}

// === impl KubernetesStatus ===

impl KubernetesStatus {
    /// Whether the server has answered for each kind: what can be known is known.
    pub fn is_settled(&self) -> bool {
        let is_pending = |resource: &ResourceStatus| resource.state == WatchState::Pending;
        !self.resources.iter().any(is_pending)
    }

    /// Kinds whose objects are not known as the server has them, as far as verdicts depend on all
    /// of them.
    pub(super) fn missing(&self) -> Missing {
        let is_missing = |name: &str| {
            let mut resources = self.resources.iter();
            resources.any(|one| one.resource == name && !one.state.is_in_sync())
        };
        Missing {
            namespaces: is_missing("namespaces"),
            nodes: is_missing("nodes"),
        }
    }

    /// Samples of the metrics.
    pub(super) fn samples(&self, fixed: &mut Vec<Fixed>) {
        let mut push = |metric, resource: &ResourceStatus, value| {
            let labels = vec![label(resource.resource.clone())];
            fixed.push(Fixed {
                metric,
                labels,
                value,
            });
        };
        let gauge = |count: u64| Value::Gauge(i64::try_from(count).unwrap_or(i64::MAX));
        for resource in &self.resources {
            push(
                Metric::KubernetesSynced,
                resource,
                gauge(resource.state.is_in_sync().into()),
            );
            push(Metric::KubernetesObjects, resource, gauge(resource.objects));
            push(
                Metric::KubernetesEvents,
                resource,
                Value::Counter(resource.events),
            );
            push(
                Metric::KubernetesLists,
                resource,
                Value::Counter(resource.lists),
            );
            if let Some(time) = resource.last_event {
                push(
                    Metric::KubernetesLastEvent,
                    resource,
                    Value::Gauge(time.nanoseconds() / 1_000_000_000),
                );
            }
        }
        for resource in &self.resources {
            fixed.extend(resource.errors.iter().map(|(error, count)| Fixed {
                metric: Metric::KubernetesErrors,
                labels: vec![label(resource.resource.clone()), Text::Static(error.name())],
                value: Value::Counter(*count),
            }));
        }
    }
}

/// Samples of what is left out, of a live cluster and of files: a policy may be in both, in force in
/// the one and proposed in the other.
pub(super) fn skipped(
    kubernetes: Option<&KubernetesStatus>,
    manifests: Option<&ManifestsStatus>,
    fixed: &mut Vec<Fixed>,
) {
    let mut counts: BTreeMap<Cow<'static, str>, u64> = BTreeMap::new();
    for resource in kubernetes.iter().flat_map(|status| &status.resources) {
        *counts.entry(resource.resource.clone()).or_default() += resource.skipped;
    }
    if let Some(manifests) = manifests {
        counts.entry(ManifestsStatus::DOCUMENTS.into()).or_default();
        for (resource, count) in &manifests.skipped {
            *counts.entry(resource.clone()).or_default() += count;
        }
    }
    fixed.extend(counts.into_iter().map(|(resource, count)| Fixed {
        metric: Metric::KubernetesObjectsSkipped,
        labels: vec![label(resource)],
        value: Value::Gauge(i64::try_from(count).unwrap_or(i64::MAX)),
    }));
}

/// Samples of addresses that are not used as they stand, where a cluster is known.
pub(super) fn doubtful_addresses(
    kubernetes: Option<&KubernetesStatus>,
    manifests: Option<&ManifestsStatus>,
    shared: u64,
    fixed: &mut Vec<Fixed>,
) {
    if kubernetes.is_none() && manifests.is_none() {
        return;
    }
    let mut push = |resource: &'static str, reason: &'static str, count: u64| {
        fixed.push(Fixed {
            metric: Metric::KubernetesAddressesDoubtful,
            labels: vec![Text::Static(resource), Text::Static(reason)],
            value: Value::Gauge(i64::try_from(count).unwrap_or(i64::MAX)),
        });
    };
    for name in ["nodes", "pods"] {
        let resources = kubernetes.iter().flat_map(|status| &status.resources);
        let live = resources
            .filter(|resource| resource.resource == name)
            .map(|resource| resource.invalid_addresses);
        let files = manifests
            .iter()
            .filter_map(|status| status.invalid_addresses.get(name).copied());
        push(name, "invalid", live.chain(files).sum());
    }
    push("pods", "shared", shared);
}

fn label(name: Cow<'static, str>) -> Text {
    match name {
        Cow::Borrowed(name) => Text::Static(name),
        Cow::Owned(name) => Text::Shared(name.as_str().into()),
    }
}

// === impl ResourceStatus ===

impl ResourceStatus {
    /// A watch that has not begun.
    pub fn new(resource: &'static str) -> Self {
        Self {
            resource: resource.into(),
            state: WatchState::Pending,
            objects: 0,
            skipped: 0,
            invalid_addresses: 0,
            unusable: None,
            events: 0,
            last_event: None,
            lists: 0,
            errors: BTreeMap::new(),
            message: None,
        }
    }
}

// === impl WatchState ===

impl WatchState {
    /// Name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Synced => "synced",
            Self::Absent => "absent",
            Self::Refused => "refused",
            Self::Stale => "stale",
        }
    }

    /// Whether what the server has is what is known.
    pub const fn is_in_sync(self) -> bool {
        matches!(self, Self::Synced | Self::Absent)
    }
}

// === impl WatchError ===

impl WatchError {
    /// Name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Unauthorized => "unauthorized",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Throttled => "throttled",
            Self::Server => "server",
            Self::Protocol => "protocol",
        }
    }
}
