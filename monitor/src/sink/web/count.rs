//! Counters of connections and requests that were turned away, and of configurations.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection or a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sink) enum Refused {
    /// No password or token, or a wrong one.
    Credentials,
    /// No certificate of the client.
    Certificate,
    /// TLS was not agreed upon in time, or the client's certificate is not accepted.
    Handshake,
    /// Plain HTTP where TLS is spoken.
    Plaintext,
    /// Closed for a newer connection, since its address has the most or too many.
    Crowd,
    /// The connection took too long.
    Timeout,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(in crate::sink) struct Counts {
    refused: [AtomicU64; Refused::ALL.len()],
    applied: AtomicU64,
    rejected: AtomicU64,
}

// === impl Refused ===

impl Refused {
    /// All reasons, in the order of their numbers.
    pub(in crate::sink) const ALL: [Self; 6] = [
        Self::Credentials,
        Self::Certificate,
        Self::Handshake,
        Self::Plaintext,
        Self::Crowd,
        Self::Timeout,
    ];

    /// Name in the metric's label.
    pub(in crate::sink) const fn name(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Certificate => "certificate",
            Self::Handshake => "handshake",
            Self::Plaintext => "plaintext",
            Self::Crowd => "crowd",
            Self::Timeout => "timeout",
        }
    }
}

// === impl Counts ===

impl Counts {
    /// Counts one that was turned away.
    pub(in crate::sink) fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were turned away.
    pub(in crate::sink) fn refused(&self, why: Refused) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }

    /// Counts a configuration that changed, and whether it came into force.
    pub(in crate::sink) fn load(&self, is_applied: bool) {
        let count = if is_applied {
            &self.applied
        } else {
            &self.rejected
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Configurations that came into force, and that were refused.
    pub(in crate::sink) fn loads(&self) -> [(&'static str, u64); 2] {
        [
            ("applied", self.applied.load(Ordering::Relaxed)),
            ("refused", self.rejected.load(Ordering::Relaxed)),
        ]
    }
}
