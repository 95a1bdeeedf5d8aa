//! What the engine is told once.

use std::time::Duration;

use crate::{
    entity::NamedRange,
    flow::Timeouts,
    judge::{Expectations, Thresholds},
    netpol,
};

/// What the engine is told once.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, each named where it is set"
)]
#[derive(Clone, Debug)]
pub struct Config {
    /// How long idle connections are kept.
    pub timeouts: Timeouts,
    /// For this long after the hooks of an interface were attached, no first packet tells who
    /// opened a flow.
    pub settle: Duration,
    /// The most series that may grow with traffic; beyond, they are counted as `other`.
    pub max_series: usize,
    /// Of the flow maps: nearly full ones have shorter timeouts.
    pub capacity: Capacity,
    /// How many closed connections are remembered for queries.
    pub recent: usize,
    /// Whether series tell workloads apart only, not their pods.
    pub by_workload: bool,
    /// How long series of a pod that is gone are kept.
    pub series_ttl: Duration,
    /// The most entries that the source is asked to delete at one tick.
    pub max_expire: usize,
    /// Whether to make records of connections that open and close.
    pub records: bool,
    /// Names of address ranges.
    pub ranges: Vec<NamedRange>,
    /// From where SSH is expected.
    pub expectations: Expectations,
    /// When attempts to log in are reported as brute force and the like.
    pub thresholds: Thresholds,
    /// Whether someone answers [`Outputs::owners`].
    pub owners: bool,
    /// Whether someone answers [`Outputs::translations`], or says by [`Input::Conntrack`] that
    /// nobody can.
    pub translations: bool,
    /// Whether someone answers [`Outputs::cgroups`].
    pub cgroups: bool,
    /// Nothing tells which addresses are local: both ends are judged where declarations name them.
    pub is_all_local: bool,
    /// What networks differ in about network policies.
    pub policy_options: netpol::Options,
    /// Whether connections are judged by network policies wherever they are seen, not only at
    /// workload interfaces: in a capture.
    pub policy_everywhere: bool,
}

/// Capacity of the kernel's flow maps in entries; 0 if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Of the IPv4 map.
    pub ipv4: u64,
    /// Of the IPv6 map.
    pub ipv6: u64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            settle: Duration::from_secs(1),
            max_series: 20_000,
            capacity: Capacity::default(),
            recent: 4_096,
            by_workload: false,
            series_ttl: Duration::from_hours(1),
            max_expire: 32_768,
            records: true,
            ranges: Vec::new(),
            expectations: Expectations::default(),
            thresholds: Thresholds::default(),
            owners: false,
            translations: false,
            cgroups: false,
            is_all_local: false,
            policy_options: netpol::Options::default(),
            policy_everywhere: false,
        }
    }
}

// === impl Capacity ===

impl Capacity {
    /// The same for both maps.
    pub const fn each(flows: u64) -> Self {
        Self {
            ipv4: flows,
            ipv6: flows,
        }
    }

    pub(super) fn by_family(self) -> [u64; 2] {
        [self.ipv4, self.ipv6]
    }
}
