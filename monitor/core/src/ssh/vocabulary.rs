//! The closed sets of words about SSH.

use serde::{Deserialize, Serialize};

use crate::words::words;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The end that opened it.
    Client = 0,
    /// The end that accepted it.
    Server = 1,
}

/// Which ends speak SSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Both ends.
    Ssh,
    /// The server only: a probe, or a client of another protocol.
    ServerOnly,
    /// The client only: it talks to a server of another protocol, or to one that refuses it.
    ClientOnly,
}

/// What came of the attempts to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthOutcome {
    /// The client is logged in.
    Success,
    /// The client tried and was refused until the end.
    Failure,
    /// It cannot be told, or not yet.
    Unknown,
    /// The client ended without an attempt.
    None,
}

/// What an outcome of authentication rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The state of the server's process.
    Process,
    /// Sizes of encrypted packets.
    Sizes,
    /// Nothing.
    None,
}

/// Something out of the ordinary in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// The banner names another program than the algorithms do: typical of scanners.
    BannerMismatch,
    /// An identification line holds a NUL byte.
    NulInBanner,
    /// The server sent other lines first, which RFC 4253 section 4.2 allows.
    LinesBeforeBanner,
    /// An end speaks SSH 1 only.
    Version1,
    /// `Not allowed at this time`, or `Exceeded MaxStartups`, in place of a banner: OpenSSH penalizes
    /// the client (`PerSourcePenalties`), or has too many that have not logged in yet (`MaxStartups`,
    /// `PerSourceMaxStartups`).
    Refused,
    /// A header of the PROXY protocol precedes the client's identification line.
    ProxyHeader,
    /// An identification line exceeds the 255 bytes of RFC 4253 section 4.2.
    LongBanner,
    /// The server sends back what the client sent.
    Echo,
    /// What should be a KEXINIT is none.
    KexinitInvalid,
    /// A KEXINIT that exceeds what is captured.
    KexinitTruncated,
    /// The connection was there before it was watched: its first packets were not seen.
    Midstream,
}

// === impl of every set of words ===

words!(Side, Client = "client", Server = "server");
words!(
    Class,
    Ssh = "ssh",
    ServerOnly = "server_only",
    ClientOnly = "client_only"
);
words!(
    AuthOutcome,
    Success = "success",
    Failure = "failure",
    Unknown = "unknown",
    None = "none"
);
words!(Basis, Process = "process", Sizes = "sizes", None = "none");
words!(
    Hint,
    BannerMismatch = "banner_mismatch",
    NulInBanner = "nul_in_banner",
    LinesBeforeBanner = "lines_before_banner",
    Version1 = "version1",
    Refused = "refused",
    ProxyHeader = "proxy_header",
    LongBanner = "long_banner",
    Echo = "echo",
    KexinitInvalid = "kexinit_invalid",
    KexinitTruncated = "kexinit_truncated",
    Midstream = "midstream"
);

// === Hints ===

/// A set of [`Hint`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints(u16);

impl Hints {
    pub(super) fn set(&mut self, hint: Hint) {
        self.0 |= 1 << hint as u16;
    }

    pub(super) const fn has(self, hint: Hint) -> bool {
        self.0 & (1 << hint as u16) != 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_json() {
        fn check<T: Copy + Serialize + std::fmt::Display>(all: &[T]) {
            for word in all {
                assert_eq!(serde_json::to_string(word).unwrap(), format!("\"{word}\""));
            }
        }
        check(Side::ALL);
        check(Class::ALL);
        check(AuthOutcome::ALL);
        check(Basis::ALL);
        check(Hint::ALL);
    }

    #[test]
    fn a_set_holds_each_hint() {
        for hint in Hint::ALL {
            let mut hints = Hints::default();
            hints.set(*hint);
            for other in Hint::ALL {
                assert_eq!(hints.has(*other), hint == other);
            }
        }
    }
}
