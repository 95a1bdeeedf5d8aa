//! One SSH connection, and what came of it.

use monitor_common::abi::CAPTURE_EVENTS;

use super::owner::Attribution;
use crate::{
    event::{FindingKind, Target},
    ssh::{AuthOutcome, Authentication, Basis, Class, Session, Side},
    time::Timestamp,
};

/// A connection of which a segment was seen.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others"
)]
pub(in crate::engine) struct Connection {
    pub(in crate::engine) session: Session,
    pub(super) local_is_client: bool,
    /// Who opened it and who answers, the lower address first, where the interface shows others.
    pub(super) ends: Option<Box<[std::net::SocketAddr; 2]>>,
    pub(super) first_ns: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// An end said that it speaks SSH.
    pub(super) is_marked: bool,
    /// A record was made.
    pub(super) is_told: bool,
    /// What it was taken for when it was last judged.
    pub(super) judged: Option<Class>,
    /// Another interface shows it, too, and tells of it.
    pub(super) is_shadow: bool,
    /// The client is logged in, and that was told.
    pub(super) is_in: bool,
    pub(super) finding: Option<FindingKind>,
    pub(super) owner: Attribution,
    /// Segments of each [`Side`] that the kernel program handed on.
    segments: [u8; 2],
    /// Bytes that its session holds.
    pub(super) held: usize,
    pub(in crate::engine) is_settled: bool,
    /// Labels of the gauge of active sessions.
    pub(super) active: Option<(Target, Option<bool>)>,
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(local_is_client: bool, first_ns: u64, first: Timestamp) -> Self {
        Self {
            session: Session::default(),
            local_is_client,
            ends: None,
            first_ns,
            first,
            last: first,
            is_marked: false,
            is_told: false,
            judged: None,
            is_shadow: false,
            is_in: false,
            finding: None,
            owner: Attribution::default(),
            segments: [0; 2],
            held: 0,
            is_settled: false,
            active: None,
        }
    }

    /// The kernel program handed on a segment.
    pub(super) fn saw(&mut self, side: Side) {
        let count = &mut self.segments[side as usize];
        *count = count.saturating_add(1);
    }

    /// Whether there may be segments that the kernel program no longer hands on: what is known is how
    /// the connection began.
    fn is_cut(&self) -> bool {
        self.segments.iter().any(|count| *count >= CAPTURE_EVENTS)
    }

    /// Whether it is told of and no other interface's.
    pub(super) fn is_shown(&self) -> bool {
        self.is_told && !self.is_shadow
    }

    /// What came of the attempts to log in: by the state of the server's process, if that is known,
    /// else by the sizes of packets.
    pub(super) fn outcome(&self, ended: bool) -> Authentication {
        let sizes = self.session.authentication(ended);
        if self.owner.is_authenticated {
            return Authentication {
                outcome: AuthOutcome::Success,
                basis: Basis::Process,
                ..sizes
            };
        }
        if self.owner.is_refuted && sizes.outcome == AuthOutcome::Success {
            return Authentication::UNKNOWN;
        }
        // What came later is not known.
        if self.is_cut() && sizes.outcome != AuthOutcome::Success {
            return Authentication::UNKNOWN;
        }
        // Who does not speak SSH makes no attempt.
        if ended && self.session.class() == Some(Class::ServerOnly) {
            return Authentication {
                outcome: AuthOutcome::None,
                attempts: None,
                basis: Basis::None,
            };
        }
        sizes
    }
}
