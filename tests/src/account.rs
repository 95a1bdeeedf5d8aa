//! The daemon's accounts of packets, from a scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::lab::Counters;
use crate::openmetrics::Metrics;

/// Packets that passed a hook.
pub const SEEN: &str = "nodewatch_packets_seen_total";
/// Packets that were counted in flows.
pub const COUNTED: &str = "nodewatch_packets_counted_total";
/// Packets that were not, by reason.
pub const UNCOUNTED: &str = "nodewatch_packets_uncounted_total";
/// Socket buffers that passed a hook.
pub const BUFFERS: &str = "nodewatch_socket_buffers_total";
/// Whether an interface is covered.
pub const COVERED: &str = "nodewatch_interface_covered";

/// The accounts of one interface and direction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// The interface.
    pub interface: String,
    /// The direction, in the daemon's word.
    pub direction: String,
    /// Packets seen.
    pub seen: u64,
    /// Packets counted in flows.
    pub counted: u64,
    /// Packets not counted, by reason, without zeros.
    pub uncounted: BTreeMap<String, u64>,
    /// Socket buffers.
    pub buffers: u64,
}

/// An account next to what the interface itself says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Comparison {
    /// The daemon's account.
    pub account: Account,
    /// The interface's packets in that direction.
    pub interface_packets: u64,
    /// Packets that passed the hook and were then dropped by the device.
    pub dropped: u64,
}

/// Every interface's accounts in a scrape.
pub fn read(metrics: &Metrics) -> Vec<Account> {
    let samples = metrics.samples.iter().filter(|sample| sample.name == SEEN);
    let label = |sample: &crate::openmetrics::Sample, name| sample.labels.get(name).cloned();
    let pairs: BTreeSet<_> = samples
        .filter_map(|sample| Some((label(sample, "interface")?, label(sample, "direction")?)))
        .collect();
    pairs
        .into_iter()
        .map(|(interface, direction)| one(metrics, interface, direction))
        .collect()
}

/// The accounts of some interfaces next to those interfaces' counters.
pub fn compare(metrics: &Metrics, moved: &[(&str, Counters)]) -> Vec<Comparison> {
    let accounts = read(metrics).into_iter();
    accounts
        .filter_map(|account| {
            let (_, counters) = moved.iter().find(|(name, _)| *name == account.interface)?;
            let (interface_packets, dropped) = if account.is_received() {
                (counters.rx_packets, 0)
            } else {
                (counters.tx_packets, counters.tx_dropped)
            };
            Some(Comparison {
                account,
                interface_packets,
                dropped,
            })
        })
        .collect()
}

/// A table for people.
pub fn table(rows: &[Comparison]) -> String {
    let mut table = String::from(
        "  interface  direction         seen      counted  uncounted    buffers  interface  dropped\n",
    );
    for Comparison {
        account,
        interface_packets,
        dropped,
    } in rows
    {
        let Account {
            interface,
            direction,
            seen,
            counted,
            uncounted,
            buffers,
        } = account;
        let total: u64 = uncounted.values().sum();
        let row = format!(
            "  {interface:<10} {direction:<9} {seen:>12} {counted:>12} {total:>10} {buffers:>10} \
             {interface_packets:>10} {dropped:>8}"
        );
        let reasons = if uncounted.is_empty() {
            String::new()
        } else {
            format!("  {uncounted:?}")
        };
        writeln!(table, "{row}{reasons}").expect("a string takes everything");
    }
    table
}

// === impl Account ===

impl Account {
    /// All reasons together.
    pub fn uncounted_total(&self) -> u64 {
        self.uncounted.values().sum()
    }

    /// Whether seen is counted and uncounted together.
    pub fn balances(&self) -> bool {
        self.seen == self.counted + self.uncounted_total()
    }

    /// Whether these are packets that the interface received.
    pub fn is_received(&self) -> bool {
        matches!(self.direction.as_str(), "ingress" | "rx" | "in")
    }
}

fn one(metrics: &Metrics, interface: String, direction: String) -> Account {
    let labels = [
        ("interface", interface.as_str()),
        ("direction", direction.as_str()),
    ];
    let uncounted = metrics
        .label_values(UNCOUNTED, "reason")
        .into_iter()
        .map(|reason| {
            let [interface, direction] = labels;
            let packets = metrics.count(UNCOUNTED, &[interface, direction, ("reason", &reason)]);
            (reason, packets)
        })
        .filter(|(_, packets)| *packets > 0)
        .collect();
    Account {
        seen: metrics.count(SEEN, &labels),
        counted: metrics.count(COUNTED, &labels),
        buffers: metrics.count(BUFFERS, &labels),
        uncounted,
        interface,
        direction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_and_compared() {
        let text = "# TYPE nodewatch_packets_seen counter\n\
            nodewatch_packets_seen_total{interface=\"eth0\",direction=\"ingress\"} 10\n\
            # TYPE nodewatch_packets_counted counter\n\
            nodewatch_packets_counted_total{interface=\"eth0\",direction=\"ingress\"} 8\n\
            # TYPE nodewatch_packets_uncounted counter\n\
            nodewatch_packets_uncounted_total{interface=\"eth0\",direction=\"ingress\",reason=\"not_ip\"} 2\n\
            nodewatch_packets_uncounted_total{interface=\"eth0\",direction=\"ingress\",reason=\"truncated\"} 0\n\
            # EOF\n";
        let metrics = Metrics::parse(text).expect("it is right");
        let counters = Counters {
            rx_packets: 10,
            ..Counters::default()
        };
        let rows = compare(&metrics, &[("eth0", counters)]);
        assert_eq!(rows.len(), 1);
        assert!(rows[0].account.balances(), "{rows:?}");
        assert_eq!(rows[0].account.uncounted.len(), 1, "zeros are left out");
        assert_eq!(rows[0].interface_packets, 10);
        assert!(table(&rows).contains("not_ip"));
    }
}
