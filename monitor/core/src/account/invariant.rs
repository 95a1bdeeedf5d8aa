//! seen = counted + uncounted, and counted = the sum of all flows: checked all the time.

use serde::{Deserialize, Serialize};

use super::{HOOKS, Totals};

/// What is missing on one interface; all zero when the accounting is right.
///
/// The kernel's maps are not read at one moment. Where packets pass meanwhile, what the flows should
/// add up to lies between the counters that were read before them and those that were read
/// after them (the program adds a packet to its flow first, then to the counters). So there is a
/// range in which the difference lies ([`Bounds`]), as wide as what passes while the maps are read,
/// some milliseconds. The judgement so far stands while it lies within, else it moves
/// to the nearest end: whatever is missing is found on a busy interface once it is more than passes in
/// that time. On a quiet interface, of which two consecutive readings saw the same packets, the
/// range is a single number. While a flow waits for an event or another reading, nothing is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Packets that the program saw on ingress, but neither counted nor gave a reason for.
    pub ingress: i64,
    /// The same for egress.
    pub egress: i64,
    /// Packets counted by the program that are in no flow.
    pub flow_packets: i64,
    /// Bytes counted by the program that are in no flow.
    pub flow_bytes: i64,
}

/// A range that each number of a [`Difference`] lies in: the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    low: Difference,
    high: Difference,
}

// === impl Bounds ===

impl Bounds {
    /// Compares what flows add up to with counters that were read before and after them, and these
    /// with themselves.
    pub(super) fn new(before: &Totals, after: &Totals, flow_packets: u64, flow_bytes: u64) -> Self {
        // Reasons are read after the counters: those of both readings enclose them.
        let program = |reasons: &Totals| {
            HOOKS.map(|(hook, _)| {
                let index = hook as usize;
                let counted = after.counters.counted[index];
                let explained = counted.saturating_add(reasons.uncounted(hook));
                signed_difference(after.counters.seen[index], explained)
            })
        };
        let sum = |[ingress, egress]: [u64; 2]| ingress.saturating_add(egress);
        let difference = |reasons: &Totals, counters: &Totals| {
            let [ingress, egress] = program(reasons);
            Difference {
                ingress,
                egress,
                flow_packets: signed_difference(sum(counters.counters.counted), flow_packets),
                flow_bytes: signed_difference(sum(counters.counters.bytes), flow_bytes),
            }
        };
        Self {
            low: difference(after, before),
            high: difference(before, after),
        }
    }

    /// The range that encloses both. A packet on its way through the program may be in one reading and
    /// not in the other: it makes a range wrong, hardly ever two in a row.
    pub(super) fn hull(self, other: Self) -> Self {
        Self {
            low: self.low.zip(other.low, i64::min),
            high: self.high.zip(other.high, i64::max),
        }
    }

    /// The difference within this range that is nearest to a judgement.
    pub(super) fn nearest(&self, judgement: Difference) -> Difference {
        judgement.zip(self.low, i64::max).zip(self.high, i64::min)
    }
}

// === impl Difference ===

impl Difference {
    /// Compares an interface's counters with themselves and with the sums of its flows' deltas.
    pub(super) fn of(totals: &Totals, flow_packets: u64, flow_bytes: u64) -> Self {
        Bounds::new(totals, totals, flow_packets, flow_bytes).low
    }

    fn zip(self, other: Self, with: fn(i64, i64) -> i64) -> Self {
        Self {
            ingress: with(self.ingress, other.ingress),
            egress: with(self.egress, other.egress),
            flow_packets: with(self.flow_packets, other.flow_packets),
            flow_bytes: with(self.flow_bytes, other.flow_bytes),
        }
    }

    /// Whether nothing is missing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

fn signed_difference(expected: u64, found: u64) -> i64 {
    let difference = i128::from(expected) - i128::from(found);
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use monitor_common::abi::{Counters, Hook, Reason, Uncounted};

    use super::*;

    #[test]
    fn differences_are_signed_and_by_hook() {
        let mut uncounted = Uncounted::default();
        uncounted.packets[Hook::Ingress as usize][Reason::NotIp as usize] = 3;
        uncounted.packets[Hook::Ingress as usize][Reason::TableFull as usize] = 2;
        let counters = Counters {
            seen: [10, 4],
            counted: [5, 6],
            bytes: [500, 600],
            ..Counters::default()
        };
        let totals = Totals {
            counters,
            uncounted,
        };
        let difference = Difference::of(&totals, 10, 1_200);
        let expected = Difference {
            ingress: 0,
            egress: -2,
            flow_packets: 1,
            flow_bytes: -100,
        };
        assert_eq!(difference, expected);
        assert!(!difference.is_none());
        assert!(Difference::of(&Totals::default(), 0, 0).is_none());
    }
}
