//! Why a request failed, and how long to wait before the next.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use kube::{Error, core::Status};
use monitor_core::engine::WatchError;

/// The first wait after a failure; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait: a server that is back is found within that.
const LONGEST: Duration = Duration::from_secs(30);
/// Wait where somebody has to install a kind first: most clusters never do.
pub(super) const UNTIL_INSTALLED: Duration = Duration::from_mins(2);

/// A request that failed.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) error: WatchError,
    /// The server does not know the kind.
    pub(super) is_absent: bool,
    /// The server does not take the request: older ones know fewer parameters.
    pub(super) is_invalid: bool,
    pub(super) message: String,
}

/// Waits that grow, with some chance in them: all nodes lose a server at once, and are not to come
/// back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    random: RandomState,
    count: u64,
}

// === impl Fault ===

impl Fault {
    /// The server did not answer in time.
    pub(super) fn silent(what: &str, within: Duration) -> Self {
        Self::of_kind(
            WatchError::Unreachable,
            format!("no answer to {what} within {} s", within.as_secs()),
        )
    }

    pub(super) fn of_kind(error: WatchError, message: String) -> Self {
        Self {
            error,
            is_absent: false,
            is_invalid: false,
            message,
        }
    }

    /// A `Status` of the server, as an answer or as an event of a watch.
    pub(super) fn of_status(status: &Status) -> Self {
        let error = match status.code {
            401 => WatchError::Unauthorized,
            403 => WatchError::Refused,
            410 => WatchError::Expired,
            429 => WatchError::Throttled,
            500.. => WatchError::Server,
            _ => WatchError::Protocol,
        };
        // A 404 without a body that tells more has only a reason.
        let message = match (&*status.message, &*status.reason) {
            ("", "") => format!("status {}", status.code),
            ("", reason) => reason.to_owned(),
            (message, _) => message.trim_end().to_owned(),
        };
        Self {
            is_absent: status.code == 404,
            is_invalid: matches!(status.code, 400 | 422),
            ..Self::of_kind(error, message)
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Api(status) => return Self::of_status(status),
            Error::HyperError(_) | Error::Service(_) | Error::ReadEvents(_) => {
                WatchError::Unreachable
            }
            Error::Auth(_) => WatchError::Unauthorized,
            _ => WatchError::Protocol,
        };
        Self::of_kind(kind, chain(&error))
    }
}

/// An error with its causes on one line, each told once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

// === impl Backoff ===

impl Backoff {
    pub(super) fn new() -> Self {
        Self {
            next: FIRST,
            random: RandomState::new(),
            count: 0,
        }
    }

    /// Something worked.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// How long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        self.spread(wait)
    }

    /// Half to all of a time.
    pub(super) fn spread(&mut self, wait: Duration) -> Duration {
        self.count += 1;
        let part = self.random.hash_one(self.count) % 1024;
        let part = u32::try_from(part).unwrap_or(0);
        wait / 2 + wait / 2 * part / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_are_not_all_alike() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST, "{waits:?}");
        for wait in &waits[6..] {
            assert!(*wait >= LONGEST / 2 && *wait <= LONGEST, "{waits:?}");
        }
        assert!(waits[6..].iter().any(|wait| *wait != waits[6]), "{waits:?}");
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn a_status_tells_what_to_do() {
        let fault = |code: u16, message: &str| {
            Fault::of_status(&Status {
                code,
                message: message.to_owned(),
                reason: "Reason".to_owned(),
                ..Status::default()
            })
        };
        for (code, error) in [
            (401, WatchError::Unauthorized),
            (403, WatchError::Refused),
            (410, WatchError::Expired),
            (429, WatchError::Throttled),
            (500, WatchError::Server),
            (504, WatchError::Server),
            (404, WatchError::Protocol),
        ] {
            assert_eq!(fault(code, "x").error, error, "{code}");
        }
        assert!(fault(404, "").is_absent && !fault(403, "").is_absent);
        assert!(fault(422, "").is_invalid && fault(400, "").is_invalid);
        assert_eq!(fault(403, "pods is forbidden").message, "pods is forbidden");
        assert_eq!(fault(404, "").message, "Reason");
    }
}
