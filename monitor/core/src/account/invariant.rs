//! seen = counted + uncounted, and counted = the sum of all flows: checked all the time.

use serde::{Deserialize, Serialize};

use super::{HOOKS, Totals};

/// What is missing on one interface; all zero when the accounting is right.
///
/// The kernel's maps are not read at one moment: while packets pass, the flows that were read are
/// behind the counters that were read after them. So an interface is judged only when it is quiet:
/// when two consecutive readings of its counters saw the same packets, so that the pass over the
/// flow maps between them saw all flows at rest, and when no flow waits for an event or another
/// reading. Until then the last judgement stands.
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

// === impl Difference ===

impl Difference {
    /// Compares an interface's counters with themselves and with the sums of its flows' deltas.
    pub(super) fn of(totals: &Totals, flow_packets: u64, flow_bytes: u64) -> Self {
        let [ingress, egress] = HOOKS.map(|(hook, _)| {
            let index = hook as usize;
            let explained = totals.counters.counted[index].saturating_add(totals.uncounted(hook));
            signed_difference(totals.counters.seen[index], explained)
        });
        let sum = |[ingress, egress]: [u64; 2]| ingress.saturating_add(egress);
        Self {
            ingress,
            egress,
            flow_packets: signed_difference(sum(totals.counters.counted), flow_packets),
            flow_bytes: signed_difference(sum(totals.counters.bytes), flow_bytes),
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
