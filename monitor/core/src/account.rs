//! Packets seen, counted and uncounted, by interface; and the check that nothing is missing.

mod invariant;
mod ledger;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use monitor_common::abi::{Counters, Hook, Reason, Uncounted, point};
use serde::{Deserialize, Serialize};

use crate::event::Point;

pub use invariant::Difference;

use invariant::Bounds;

pub(crate) use ledger::Ledger;

/// A watched interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Identity in flow keys ([`monitor_common::abi::Interface::id`]). 0 stands for packets on
    /// interfaces that had no slot ([`monitor_common::abi::UNKNOWN_SLOT`]).
    pub id: u32,
    /// Kernel interface index.
    pub ifindex: u32,
    /// Name.
    pub name: Arc<str>,
    /// Vantage point.
    pub point: Point,
    /// How its hooks are attached to: `tcx`, `clsact`, `none`, `replay`.
    pub attach: Arc<str>,
    /// Whether its packets are seen.
    pub covered: bool,
    /// Why not, where they are not.
    pub reason: Option<Arc<str>>,
    /// Monotonic time at which its hooks were attached, in nanoseconds; `None` if connections
    /// cannot be older than that (a replay that takes its capture for complete).
    pub attached_ns: Option<u64>,
}

/// The kernel's counters of one interface, summed over processors, since it was registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceAccount {
    /// [`Interface::id`].
    pub id: u32,
    /// Packets seen and counted.
    pub counters: Counters,
    /// Packets not counted, by reason.
    pub uncounted: Uncounted,
}

/// State of an interface, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name.
    pub name: Arc<str>,
    /// Kernel interface index.
    pub ifindex: u32,
    /// Vantage point.
    pub point: Point,
    /// How its hooks are attached to.
    pub attach: Arc<str>,
    /// Whether its packets are seen.
    pub covered: bool,
    /// Why not, where they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// Connections tracked on it.
    pub flows: u64,
    /// Packets that it received.
    pub ingress: HookStatus,
    /// Packets that it sent.
    pub egress: HookStatus,
    /// What the last check found; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// Counters of one hook.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// Packets seen, segments of a GRO or GSO packet counted one each.
    pub seen: u64,
    /// Packets added to flows.
    pub counted: u64,
    /// Layer-3 bytes added to flows.
    pub bytes: u64,
    /// Socket buffers seen.
    pub buffers: u64,
    /// Packets not added to flows, by reason; reasons without packets are absent.
    pub uncounted: BTreeMap<Cow<'static, str>, u64>,
}

/// Sums of [`InterfaceAccount`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) counters: Counters,
    pub(crate) uncounted: Uncounted,
}

/// Both hooks with their names in metric labels.
pub(crate) const HOOKS: [(Hook, &str); 2] = [(Hook::Ingress, "ingress"), (Hook::Egress, "egress")];

// === impl Point ===

impl Point {
    /// The vantage point with this code ([`monitor_common::abi::point`]).
    pub const fn from_code(code: u8) -> Self {
        match code {
            point::UPLINK => Self::Uplink,
            _ => Self::Workload,
        }
    }

    /// Code of the vantage point ([`monitor_common::abi::point`]).
    pub const fn code(self) -> u8 {
        match self {
            Self::Uplink => point::UPLINK,
            Self::Workload => point::WORKLOAD,
        }
    }
}

// === impl Totals ===

impl Totals {
    /// Adds other totals.
    pub(crate) fn add(&mut self, other: &Self) {
        self.merge(other, u64::saturating_add);
    }

    /// Takes a later reading of the same counters; none goes backwards.
    pub(crate) fn raise(&mut self, reading: &Self) {
        self.merge(reading, u64::max);
    }

    /// Packets of a hook that were not counted, all reasons together.
    pub(crate) fn uncounted(&self, hook: Hook) -> u64 {
        self.uncounted.packets[hook as usize]
            .iter()
            .fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Packets that found no room in the kernel's flow tables.
    pub(crate) fn refused(&self) -> u64 {
        let reasons = [Reason::TableFull, Reason::InsertFailed];
        let packets = self.uncounted.packets.iter();
        packets
            .flat_map(|by_reason| reasons.map(|reason| by_reason[reason as usize]))
            .fold(0, u64::saturating_add)
    }

    /// Packets of a hook that were not counted, by reason.
    pub(crate) fn reasons(&self, hook: Hook) -> impl Iterator<Item = (Reason, u64)> {
        let packets = self.uncounted.packets[hook as usize];
        Reason::ALL
            .into_iter()
            .map(move |reason| (reason, packets[reason as usize]))
    }

    /// Counters of a hook, for people.
    pub(crate) fn status(&self, hook: Hook) -> HookStatus {
        let index = hook as usize;
        HookStatus {
            seen: self.counters.seen[index],
            counted: self.counters.counted[index],
            bytes: self.counters.bytes[index],
            buffers: self.counters.buffers[index],
            uncounted: self
                .reasons(hook)
                .filter(|(_, packets)| *packets > 0)
                .map(|(reason, packets)| (reason.name().into(), packets))
                .collect(),
        }
    }

    fn merge(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        let pairs = [
            (&mut self.counters.seen, &other.counters.seen),
            (&mut self.counters.counted, &other.counters.counted),
            (&mut self.counters.buffers, &other.counters.buffers),
            (&mut self.counters.bytes, &other.counters.bytes),
        ];
        for (own, other) in pairs {
            own.iter_mut()
                .zip(other)
                .for_each(|(own, other)| *own = with(*own, *other));
        }
        let own = self.uncounted.packets.iter_mut().flatten();
        let other = other.uncounted.packets.iter().flatten();
        own.zip(other)
            .for_each(|(own, other)| *own = with(*own, *other));
    }
}

impl From<&InterfaceAccount> for Totals {
    fn from(account: &InterfaceAccount) -> Self {
        Self {
            counters: account.counters,
            uncounted: account.uncounted,
        }
    }
}
