//! Where something may be lost between the kernel and those who read.

use serde::{Deserialize, Serialize};

/// Where events may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossStage {
    /// The kernel's event ring was full.
    KernelRing,
    /// The channel to the engine was full.
    Channel,
    /// There was no room for another SSH connection: counted, but not identified.
    SshConnections,
    /// Connections that began with text and made room for others before it was known whether an SSH
    /// banner follows.
    SshPending,
    /// Sources, servers and HASSHes of failed SSH connections that made room for others although they
    /// still counted.
    SshHistories,
    /// Flows that were forgotten for being idle and may go on, and are not remembered any more: whose
    /// first packets tell who opened them is not known for a while.
    FlowHistories,
    /// Too many questions at a time about who holds an SSH connection.
    Owner,
    /// Too many questions at a time about how connections are translated.
    Translation,
    /// Connections that make no finding: too many at a time had an end that may be a pod of which nobody
    /// has told yet.
    PodNames,
    /// Control groups that could not be looked up.
    Cgroup,
    /// Looks at all processes, for who holds SSH connections, that there was no time to finish.
    ProcessScan,
    /// A client that follows did not keep up.
    Follower,
    /// The event log could not be written.
    EventLog,
}

// === impl LossStage ===

impl LossStage {
    /// Every stage, from the kernel outwards.
    pub const ALL: [Self; 13] = [
        Self::KernelRing,
        Self::Channel,
        Self::SshConnections,
        Self::SshPending,
        Self::SshHistories,
        Self::FlowHistories,
        Self::Owner,
        Self::Translation,
        Self::PodNames,
        Self::Cgroup,
        Self::ProcessScan,
        Self::Follower,
        Self::EventLog,
    ];

    /// Name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KernelRing => "kernel_ring",
            Self::Channel => "channel",
            Self::SshConnections => "ssh_connections",
            Self::SshPending => "ssh_pending",
            Self::SshHistories => "ssh_histories",
            Self::FlowHistories => "flow_histories",
            Self::Owner => "owner",
            Self::Translation => "translation",
            Self::PodNames => "pod_names",
            Self::Cgroup => "cgroup",
            Self::ProcessScan => "process_scan",
            Self::Follower => "follower",
            Self::EventLog => "event_log",
        }
    }
}
