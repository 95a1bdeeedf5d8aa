//! SSH on the wire: finds it on any port, says which programs talk, and whether a login succeeded.
//!
//! [`Session`] takes in the TCP segments of one connection, in any order, and never sees a key: what
//! it tells comes from the identification lines (RFC 4253 section 4.2), from the KEXINITs, which are
//! in clear text (section 7.1), and from the sizes of the encrypted packets that follow.
//!
//! | from | is told |
//! |---|---|
//! | identification lines | [`Session::class`], [`Session::banner`] |
//! | KEXINIT | [`Session::hassh`], [`Session::cookies`], the negotiated cipher and MAC |
//! | sizes and times after NEWKEYS | [`Session::authentication`] |
//! | anything out of the ordinary | [`Session::hints`] |
//!
//! Every byte is the choice of a stranger. A session holds 24 KiB at most: 8 KiB of captured bytes
//! and 64 sizes and times for each direction, banners of at most 1020 characters, 64 boundaries of
//! packets. The bytes go as soon as both KEXINITs are parsed and both NEWKEYS have passed; those of
//! the server stay where they show the boundaries of encrypted packets.

mod banner;
mod direction;
mod fingerprint;
mod hassh;
mod kexinit;
mod packet;
mod session;
mod sizes;
mod stream;
mod vocabulary;

#[cfg(test)]
pub(crate) mod tests;

pub use session::Session;
pub use vocabulary::{AuthOutcome, Basis, Class, Hint, Side};

/// A captured TCP segment; receive offload may have merged several.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Who sent it.
    pub side: Side,
    /// Sequence number of its first byte.
    pub sequence: u32,
    /// Payload bytes.
    pub length: u32,
    /// Whether its sender pushed its last byte (PSH of RFC 9293): it ends what was written at once, or
    /// several such writes, while a segment that is cut for want of room is not pushed.
    pub is_pushed: bool,
    /// When it passed, in nanoseconds of any clock that both directions share.
    pub time_ns: u64,
    /// The first of its payload bytes; not all of them, or none, where only the length was told.
    pub bytes: &'a [u8],
}

/// Whether someone logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// What came of it.
    pub outcome: AuthOutcome,
    /// Answers of the server to attempts, a successful one included and that to the `none` probe,
    /// which most clients send first, left out. Each prompt of keyboard-interactive and each public
    /// key that the client asks about counts. None where the sizes do not tell.
    pub attempts: Option<u32>,
    /// How many of them were refused for certain: a key that is accepted and a prompt are answers, too,
    /// but no refusals.
    pub failures: u32,
    /// What the outcome rests on.
    pub basis: Basis,
}

// === impl Authentication ===

impl Authentication {
    /// Nothing is known about it.
    pub const UNKNOWN: Self = Self {
        outcome: AuthOutcome::Unknown,
        attempts: None,
        failures: 0,
        basis: Basis::None,
    };
}
