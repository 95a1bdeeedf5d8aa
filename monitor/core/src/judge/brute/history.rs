//! What was seen of one source, one server or one HASSH.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use super::{Event, Hassh};

/// Connections that are remembered of each.
pub(super) const EVENTS: usize = 64;

/// What came of one connection.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) at_ns: u64,
    /// What its source is counted as.
    pub(super) source: IpAddr,
    pub(super) target: (IpAddr, u16),
    pub(super) hassh: Option<Hassh>,
    pub(super) event: Event,
    pub(super) failures: u32,
}

/// Connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) seen: VecDeque<Seen>,
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Seen ===

impl Seen {
    /// Whether its failures were attempts that failed.
    pub(super) const fn has_failures(&self) -> bool {
        matches!(self.event, Event::Failure | Event::Login)
    }

    /// What makes room first: looks cost nothing and must not push failures out.
    const fn weight(&self) -> u8 {
        match self.event {
            Event::Look | Event::Nothing => 0,
            Event::Refused | Event::Unknown => 1,
            Event::Login => 2,
            Event::Failure => 3,
        }
    }
}

// === impl History ===

impl History {
    /// Takes in a connection; those older than `memory` no longer count, nor take room.
    pub(super) fn add(&mut self, seen: Seen, memory: Duration) {
        let from = seen.at_ns.saturating_sub(nanoseconds(memory));
        self.seen.retain(|other| other.at_ns >= from);
        if self.seen.len() >= EVENTS {
            let lightest = self.seen.iter().enumerate();
            let lightest = lightest.min_by_key(|(_, seen)| seen.weight());
            let Some((at, other)) = lightest else {
                return;
            };
            if other.weight() > seen.weight() {
                return;
            }
            self.seen.remove(at);
        }
        self.seen.push_back(seen);
    }

    pub(super) fn since(&self, now_ns: u64, window: Duration) -> impl Iterator<Item = &Seen> {
        let from = now_ns.saturating_sub(nanoseconds(window));
        self.seen.iter().filter(move |seen| seen.at_ns >= from)
    }
}
