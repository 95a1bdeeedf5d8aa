//! Names, labels and rows of every metric.
//!
//! The number of series that grow with traffic is capped ([`crate::engine::Config::max_series`]).
//! Beyond the cap, a new set of labels is counted in one row of its metric whose labels all read
//! `other`, so that sums stay right.

mod rows;
mod series;
mod symbol;
mod table;

pub use rows::{Rows, Value};

pub(crate) use rows::{Fixed, Text};
pub(crate) use series::{FlowTexts, SeriesId, Store};

/// Value of every label of the row that counts what is beyond the cap.
pub const OTHER: &str = "other";

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// `nodewatch_flow_bytes_total`.
    FlowBytes,
    /// `nodewatch_flow_packets_total`.
    FlowPackets,
    /// `nodewatch_connections_total`.
    Connections,
    /// `nodewatch_nsg_connections_total`.
    NsgConnections,
    /// `nodewatch_nsg_rule_matches_total`.
    NsgRuleMatches,
    /// `nodewatch_nsg_rule_last_match_timestamp_seconds`.
    NsgRuleLastMatch,
    /// `nodewatch_nsg_loads_total`.
    NsgLoads,
    /// `nodewatch_ssh_connections_total`.
    SshConnections,
    /// `nodewatch_ssh_sessions_active`.
    SshSessionsActive,
    /// `nodewatch_policy_connections_total`.
    PolicyConnections,
    /// `nodewatch_policy_proposed_connections_total`.
    PolicyProposedConnections,
    /// `nodewatch_policy_pods`.
    PolicyPods,
    /// `nodewatch_findings_total`.
    Findings,
    /// `nodewatch_kubernetes_synced`.
    KubernetesSynced,
    /// `nodewatch_kubernetes_objects`.
    KubernetesObjects,
    /// `nodewatch_kubernetes_objects_skipped`.
    KubernetesObjectsSkipped,
    /// `nodewatch_kubernetes_addresses_doubtful`.
    KubernetesAddressesDoubtful,
    /// `nodewatch_kubernetes_events_total`.
    KubernetesEvents,
    /// `nodewatch_kubernetes_last_event_timestamp_seconds`.
    KubernetesLastEvent,
    /// `nodewatch_kubernetes_lists_total`.
    KubernetesLists,
    /// `nodewatch_kubernetes_errors_total`.
    KubernetesErrors,
    /// `nodewatch_packets_seen_total`.
    PacketsSeen,
    /// `nodewatch_packets_counted_total`.
    PacketsCounted,
    /// `nodewatch_packets_uncounted_total`.
    PacketsUncounted,
    /// `nodewatch_socket_buffers_total`.
    SocketBuffers,
    /// `nodewatch_accounting_difference_packets`.
    AccountingDifference,
    /// `nodewatch_events_lost_total`.
    EventsLost,
    /// `nodewatch_translations_total`.
    Translations,
    /// `nodewatch_connections_merged_total`.
    ConnectionsMerged,
    /// `nodewatch_openers_unknown`.
    OpenersUnknown,
    /// `nodewatch_anomalies_total`.
    Anomalies,
    /// `nodewatch_series_folded_total`.
    SeriesFolded,
    /// `nodewatch_series_ended_total`.
    SeriesEnded,
    /// `nodewatch_flows_active`.
    FlowsActive,
    /// `nodewatch_flows_capacity`.
    FlowsCapacity,
    /// `nodewatch_interface_covered`.
    InterfaceCovered,
}

/// Type of a metric in the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// May go either way.
    Gauge,
}

/// What the exposition and the documentation say of a metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricDef {
    /// The metric.
    pub metric: Metric,
    /// Full name.
    pub name: &'static str,
    /// Type.
    pub kind: MetricKind,
    /// One sentence without a full stop.
    pub help: &'static str,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// Whether its series count towards the cap.
    pub is_capped: bool,
}

const fn counter(
    metric: Metric,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricDef {
    MetricDef {
        metric,
        name,
        kind: MetricKind::Counter,
        help,
        labels,
        is_capped: false,
    }
}

const fn capped(
    metric: Metric,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricDef {
    MetricDef {
        is_capped: true,
        ..counter(metric, name, labels, help)
    }
}

const fn gauge(
    metric: Metric,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> MetricDef {
    MetricDef {
        kind: MetricKind::Gauge,
        ..counter(metric, name, labels, help)
    }
}

const FLOW_LABELS: &[&str] = &[
    "point",
    "namespace",
    "workload",
    "pod",
    "port",
    "protocol",
    "direction",
    "peer",
];

/// Every metric, in the order of the exposition.
pub const ALL: &[MetricDef] = &[
    capped(
        Metric::FlowBytes,
        "nodewatch_flow_bytes_total",
        FLOW_LABELS,
        "Layer-3 bytes by local workload, service port and peer class, as seen at one point",
    ),
    capped(
        Metric::FlowPackets,
        "nodewatch_flow_packets_total",
        FLOW_LABELS,
        "Packets by local workload, service port and peer class, as seen at one point",
    ),
    capped(
        Metric::Connections,
        "nodewatch_connections_total",
        &[
            "point",
            "namespace",
            "workload",
            "pod",
            "port",
            "protocol",
            "direction",
            "peer",
            "outcome",
        ],
        "Connections by outcome when it was decided, each counted once per point",
    ),
    counter(
        Metric::NsgConnections,
        "nodewatch_nsg_connections_total",
        &["nsg", "rule", "access", "direction", "outcome"],
        "Connections at the uplink by the network security group rule that should decide them",
    ),
    counter(
        Metric::NsgRuleMatches,
        "nodewatch_nsg_rule_matches_total",
        &["nsg", "rule"],
        "Connections at the uplink that a network security group rule matched in its group; 0 for rules in force that never did",
    ),
    gauge(
        Metric::NsgRuleLastMatch,
        "nodewatch_nsg_rule_last_match_timestamp_seconds",
        &["nsg", "rule"],
        "Start of the last connection that a network security group rule matched in its group",
    ),
    counter(
        Metric::NsgLoads,
        "nodewatch_nsg_loads_total",
        &["result"],
        "Network security group documents that came into force, or were refused",
    ),
    counter(
        Metric::SshConnections,
        "nodewatch_ssh_connections_total",
        &[
            "target",
            "direction",
            "expected",
            "range",
            "authentication",
            "standard_port",
        ],
        "SSH connections that closed, each counted once (once more if it goes on after that), whatever the number of interfaces",
    ),
    gauge(
        Metric::SshSessionsActive,
        "nodewatch_ssh_sessions_active",
        &["target", "expected"],
        "Open connections both ends of which speak SSH",
    ),
    counter(
        Metric::PolicyConnections,
        "nodewatch_policy_connections_total",
        &[
            "namespace",
            "workload",
            "direction",
            "allowed",
            "policy",
            "outcome",
        ],
        "Connections of pods by what network policies say of them, and the first policy that is \
         responsible, policy-none where no policy has a say; at most 4096 rows",
    ),
    counter(
        Metric::PolicyProposedConnections,
        "nodewatch_policy_proposed_connections_total",
        &[
            "namespace",
            "workload",
            "direction",
            "change",
            "policy",
            "outcome",
        ],
        "Connections of pods that would be denied (policy-would-deny) or allowed \
         (policy-would-allow) by the policies that are proposed, and are not by those in force; at \
         most 4096 rows",
    ),
    gauge(
        Metric::PolicyPods,
        "nodewatch_policy_pods",
        &["namespace", "direction", "coverage"],
        "Pods of this node that some network policy selects for a direction (selected), and that \
         none does (policy-none), as of the last ten seconds",
    ),
    counter(
        Metric::Findings,
        "nodewatch_findings_total",
        &["finding", "severity"],
        "Findings: what is not as declared, or points to an attack",
    ),
    gauge(
        Metric::KubernetesSynced,
        "nodewatch_kubernetes_synced",
        &["resource"],
        "Whether the objects of a kind are known as the API server has them (1), or not yet, no \
         longer, or not allowed to be (0)",
    ),
    gauge(
        Metric::KubernetesObjects,
        "nodewatch_kubernetes_objects",
        &["resource"],
        "Objects of the cluster that are known",
    ),
    gauge(
        Metric::KubernetesObjectsSkipped,
        "nodewatch_kubernetes_objects_skipped",
        &["resource"],
        "Objects of the cluster, and of the files that declare it, that are left out, as they are not \
         valid; documents of files that cannot be read are counted as documents",
    ),
    gauge(
        Metric::KubernetesAddressesDoubtful,
        "nodewatch_kubernetes_addresses_doubtful",
        &["resource", "reason"],
        "Addresses of pods and nodes that are no IP addresses and not used (invalid), and those \
         that several pods have which have not ended, of which the last that began has it (shared)",
    ),
    counter(
        Metric::KubernetesEvents,
        "nodewatch_kubernetes_events_total",
        &["resource"],
        "Events from the API server: objects that came, changed or went",
    ),
    gauge(
        Metric::KubernetesLastEvent,
        "nodewatch_kubernetes_last_event_timestamp_seconds",
        &["resource"],
        "When the last event or complete list came from the API server",
    ),
    counter(
        Metric::KubernetesLists,
        "nodewatch_kubernetes_lists_total",
        &["resource"],
        "Complete lists from the API server; beyond the first, watches that had to begin anew",
    ),
    counter(
        Metric::KubernetesErrors,
        "nodewatch_kubernetes_errors_total",
        &["resource", "reason"],
        "Requests to the API server that failed",
    ),
    counter(
        Metric::PacketsSeen,
        "nodewatch_packets_seen_total",
        &["interface", "direction"],
        "Packets that passed a watched hook, segments of a GRO or GSO packet counted one each",
    ),
    counter(
        Metric::PacketsCounted,
        "nodewatch_packets_counted_total",
        &["interface", "direction"],
        "Packets that were added to flows",
    ),
    counter(
        Metric::PacketsUncounted,
        "nodewatch_packets_uncounted_total",
        &["interface", "direction", "reason"],
        "Packets that were not added to a flow, and why",
    ),
    counter(
        Metric::SocketBuffers,
        "nodewatch_socket_buffers_total",
        &["interface", "direction"],
        "Socket buffers that passed a watched hook: what the interface's own statistics count",
    ),
    gauge(
        Metric::AccountingDifference,
        "nodewatch_accounting_difference_packets",
        &["interface", "direction", "check"],
        "Packets missing (negative: too many) when last checked: seen against counted and uncounted \
         (program), counted against flows (flows); on a busy interface to the precision of what \
         passes while the maps are read; 0 is right",
    ),
    counter(
        Metric::EventsLost,
        "nodewatch_events_lost_total",
        &["stage"],
        "Events that were lost, by where",
    ),
    counter(
        Metric::Translations,
        "nodewatch_translations_total",
        &["result"],
        "Connections that the kernel's connection tracking was asked about: translated on this node, \
         direct, missing there, failed or late",
    ),
    counter(
        Metric::ConnectionsMerged,
        "nodewatch_connections_merged_total",
        &[],
        "Connections that were counted within an earlier one of the same ports, as the event ring \
         was full",
    ),
    gauge(
        Metric::OpenersUnknown,
        "nodewatch_openers_unknown",
        &["point"],
        "Whether first packets do not tell who opened some flows other than TCP (1), as interfaces are \
         new to the daemon or flows could not be remembered: those are held against no rule",
    ),
    counter(
        Metric::Anomalies,
        "nodewatch_anomalies_total",
        &["kind"],
        "Readings of the kernel's maps that did not fit the ones before",
    ),
    counter(
        Metric::SeriesFolded,
        "nodewatch_series_folded_total",
        &["metric"],
        "Flows and connections counted in the row `other`, as the series cap was reached",
    ),
    counter(
        Metric::SeriesEnded,
        "nodewatch_series_ended_total",
        &[],
        "Sets of flow labels that are served no more, as their pod is gone since --series-ttl",
    ),
    gauge(
        Metric::FlowsActive,
        "nodewatch_flows_active",
        &["family"],
        "Connections that are tracked",
    ),
    gauge(
        Metric::FlowsCapacity,
        "nodewatch_flows_capacity",
        &["family"],
        "Connections that the kernel's flow map can hold",
    ),
    gauge(
        Metric::InterfaceCovered,
        "nodewatch_interface_covered",
        &["interface", "point", "attach"],
        "Whether the packets of an interface are seen (1) or not (0), and how it is attached to",
    ),
];

// === impl Metric ===

impl Metric {
    /// What the exposition and the documentation say of it.
    pub fn definition(self) -> &'static MetricDef {
        ALL.iter()
            .find(|definition| definition.metric == self)
            .expect("ALL holds every metric")
    }
}

// === impl MetricDef ===

impl MetricDef {
    /// Name without `_total`, as encoders that append it want it.
    pub fn base_name(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

// === impl MetricKind ===

impl MetricKind {
    /// Name in the exposition's `# TYPE` lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_contract() {
        for definition in ALL {
            let name = definition.name;
            assert!(name.starts_with("nodewatch_"), "{name}");
            let is_counter = definition.kind == MetricKind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            assert_eq!(definition.metric.definition().name, name);
            assert!(
                !definition.help.is_empty() && !definition.help.ends_with('.'),
                "{name}"
            );
        }
    }
}
