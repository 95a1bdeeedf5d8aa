//! Addresses that several pods have, told to the log: each once, and not for a moment of it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use monitor_core::cluster::SharedAddresses;

/// An address that passes from pod to pod may be of both for a moment.
const LASTING: Duration = Duration::from_secs(10);

/// What was told to the log.
#[derive(Default)]
pub(super) struct Shared {
    /// Since when they are shared, and whether that was told.
    known: BTreeMap<IpAddr, (Instant, bool)>,
}

// === impl Shared ===

impl Shared {
    /// Tells of addresses that have been shared for a while.
    pub(super) fn look(&mut self, shared: &SharedAddresses, now: Instant) {
        for line in self.lines(shared, now) {
            tracing::warn!("cluster: {line}");
        }
    }

    fn lines(&mut self, shared: &SharedAddresses, now: Instant) -> Vec<String> {
        self.known
            .retain(|ip, _| shared.first.iter().any(|address| address.ip == *ip));
        let mut lines = Vec::new();
        for address in &shared.first {
            let (since, is_told) = self.known.entry(address.ip).or_insert((now, false));
            if *is_told || now.saturating_duration_since(*since) < LASTING {
                continue;
            }
            *is_told = true;
            let others = address.others.join(", ");
            lines.push(format!(
                "{} is the address of several pods that have not ended: its flows are those of {}, \
                 which began last, not of {others}",
                address.ip, address.pod
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use monitor_core::cluster::SharedAddress;

    use super::*;

    #[test]
    fn an_address_is_told_of_once_it_stays_shared_and_once() {
        let mut shared = Shared::default();
        let of_two = |last: u8| SharedAddresses {
            count: 1,
            first: vec![SharedAddress {
                ip: [10, 0, 0, last].into(),
                pod: "shop/new".to_owned(),
                others: vec!["shop/old".to_owned()],
            }],
        };
        let start = Instant::now();
        let mut count = |shares: &SharedAddresses, seconds| {
            let lines = shared.lines(shares, start + Duration::from_secs(seconds));
            assert!(
                lines.iter().all(|line| line.contains("of shop/new,")
                    && line.contains("not of shop/old")
                    && line.contains("10.0.0.")),
                "{lines:?}"
            );
            lines.len()
        };
        assert_eq!(count(&of_two(1), 0), 0);
        assert_eq!(count(&SharedAddresses::default(), 9), 0);
        assert_eq!(count(&of_two(1), 10), 0);
        assert_eq!(count(&of_two(1), 19), 0);
        assert_eq!(count(&of_two(1), 20), 1);
        assert_eq!(count(&of_two(1), 99), 0);
        assert_eq!(count(&of_two(2), 100), 0);
        assert_eq!(count(&of_two(2), 110), 1);
    }
}
