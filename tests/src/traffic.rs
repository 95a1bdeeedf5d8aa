//! The lab's own traffic generator: bounded, and it reports exactly what it did.

pub mod dns;
pub mod icmp;
pub mod tagged;
pub mod tcp;
pub mod udp;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The most packets, datagrams or connections that one run may ask for.
pub const MOST: u64 = 5_000_000;

/// The longest that one run may last.
pub const LONGEST: Duration = Duration::from_secs(140);

/// How long a server lives if nobody ends it before.
pub const SERVER_LIFE: Duration = Duration::from_mins(15);

/// What one run of the generator did.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Report {
    /// Which kind of traffic.
    pub kind: String,
    /// Datagrams, frames, echo requests or connections that were sent or opened.
    pub sent: u64,
    /// Answers that came back.
    pub received: u64,
    /// Payload bytes sent.
    pub sent_bytes: u64,
    /// Payload bytes received.
    pub received_bytes: u64,
    /// Answers whose content was not what had to come.
    pub mismatches: u64,
    /// System calls that failed.
    pub errors: u64,
    /// The first failure in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// The longest time without progress, in milliseconds.
    #[serde(default)]
    pub longest_gap_ms: u64,
    /// Wall time in milliseconds.
    pub elapsed_ms: u64,
}

/// Keeps a loop at a rate and within [`LONGEST`].
#[derive(Debug)]
pub(crate) struct Pace {
    start: Instant,
    per_second: u64,
    done: u64,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn failed(&mut self, error: &std::io::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

// === impl Pace ===

impl Pace {
    /// `per_second` zero means as fast as it goes.
    pub(crate) fn new(per_second: u64) -> Self {
        Self {
            start: Instant::now(),
            per_second,
            done: 0,
        }
    }

    /// Waits for the turn of the next unit; false when the time is up.
    pub(crate) fn next(&mut self) -> bool {
        let due = (self.done * 1_000_000_000)
            .checked_div(self.per_second)
            .unwrap_or(0);
        let ahead = Duration::from_nanos(due).saturating_sub(self.start.elapsed());
        if ahead > Duration::from_micros(200) {
            std::thread::sleep(ahead);
        }
        self.done += 1;
        self.start.elapsed() < LONGEST
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Milliseconds as a number for reports.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A stream of bytes that depends on nothing but the seed (xorshift).
#[derive(Clone, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let word = self.0.to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
