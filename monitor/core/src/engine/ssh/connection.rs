//! One SSH connection, and what came of it.

use monitor_common::abi::{CAPTURE_EVENTS, RX, TX, flag};

use super::owner::Attribution;
use crate::{
    event::{FindingKind, Target},
    flow::{FlowKey, SegmentEvent},
    ssh::{AuthOutcome, Authentication, Basis, Class, Session, Side},
    time::Timestamp,
};

/// Port of SSH (RFC 4253 section 4).
pub(super) const PORT: u16 = 22;

/// Cookies of both ends, and their first sequence numbers: a relay repeats the former only.
pub(in crate::engine) type Cookies = ([u8; 16], [u8; 16], [Option<u32>; 2]);

/// A connection of which a segment was seen.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others"
)]
pub(in crate::engine) struct Connection {
    pub(in crate::engine) session: Session,
    pub(super) local_is_client: bool,
    /// Neither end's SYN was seen: which one is the client is a guess.
    pub(super) is_midstream: bool,
    /// Who opened it and who answers, the lower address first, where the interface shows others.
    pub(super) ends: Option<Box<[std::net::SocketAddr; 2]>>,
    /// By which it is found, where it was the first with them.
    pub(super) cookies: Option<Box<Cookies>>,
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
    /// The server sent something before the client did.
    is_server_first: bool,
    /// Bytes that its session holds.
    pub(super) held: usize,
    pub(in crate::engine) is_settled: bool,
    /// Labels of the gauge of active sessions.
    pub(super) active: Option<(Target, Option<bool>)>,
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(flags: [u16; 2], key: &FlowKey, first_ns: u64, first: Timestamp) -> Self {
        Self {
            session: Session::default(),
            local_is_client: local_is_client(key, flags),
            is_midstream: (flags[TX] | flags[RX]) & (flag::OPENS | flag::ACCEPTS) == 0,
            ends: None,
            cookies: None,
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
            is_server_first: {
                let local_is_client = local_is_client(key, flags);
                flags[if local_is_client { TX } else { RX }] & flag::DATA == 0
            },
            held: 0,
            is_settled: false,
            active: None,
        }
    }

    /// The kernel program handed on a segment.
    pub(super) fn saw(&mut self, side: Side, segment: &SegmentEvent) {
        let count = &mut self.segments[side as usize];
        *count = count.saturating_add(1);
        if side == Side::Client && *count >= CAPTURE_EVENTS {
            self.session.client_ends_at(segment.time_ns);
        }
    }

    /// Whether its server says that it speaks SSH after other lines, and not in what it answers to
    /// another protocol.
    pub(super) fn is_banner_late(&self, key: &FlowKey) -> bool {
        let is_served = matches!(self.session.class(), Some(Class::Ssh | Class::ServerOnly));
        let port = if self.local_is_client {
            key.remote_port()
        } else {
            key.local_port()
        };
        is_served
            && (self.is_server_first || port == PORT || self.session.hassh(Side::Server).is_some())
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

    /// Whether it is known which end is the client: by a SYN, or since this node's SSH server holds
    /// the connection.
    pub(super) const fn is_placed(&self) -> bool {
        !self.is_midstream || self.owner.is_served
    }

    /// What came of the attempts to log in: by the state of the server's process, if that is known,
    /// else by the sizes of packets.
    pub(super) fn outcome(&self, ended: bool) -> Authentication {
        if self.owner.is_authenticated {
            let (attempts, failures) = if self.is_midstream {
                (None, 0)
            } else {
                self.session.login()
            };
            return Authentication {
                outcome: AuthOutcome::Success,
                attempts,
                failures,
                basis: Basis::Process,
            };
        }
        // What came before is not known, nor for certain who is who.
        if self.is_midstream {
            return Authentication::UNKNOWN;
        }
        let sizes = self.session.authentication(ended);
        if self.owner.is_awaited && sizes.outcome == AuthOutcome::Success {
            return Authentication::UNKNOWN;
        }
        if self.owner.is_refuted && sizes.outcome == AuthOutcome::Success {
            return Authentication::UNKNOWN;
        }
        // What came later is not known.
        if self.is_cut() && sizes.outcome != AuthOutcome::Success {
            return Authentication::UNKNOWN;
        }
        sizes
    }
}

/// Whether the local end opened the connection, by the flags of both directions; by the lower port
/// where they do not tell.
fn local_is_client(key: &FlowKey, flags: [u16; 2]) -> bool {
    let [tx, rx] = [flags[TX], flags[RX]];
    // A SYN tells more than a SYN-ACK, which whoever sent the SYN may add.
    for (by_local, by_remote) in [
        (tx & flag::OPENS, rx & flag::OPENS),
        (rx & flag::ACCEPTS, tx & flag::ACCEPTS),
    ] {
        if (by_local != 0) != (by_remote != 0) {
            return by_local != 0;
        }
    }
    key.local_port() > key.remote_port()
}

#[cfg(test)]
mod tests {
    use super::*;
    use monitor_common::abi::{FlowKey4, scope};

    #[test]
    fn who_is_the_client() {
        let key = FlowKey::from(FlowKey4 {
            local: 1,
            remote: 2,
            local_port: 22,
            remote_port: 50_000,
            scope: scope(1, 6),
        });
        let (opens, accepts) = (flag::OPENS, flag::ACCEPTS);
        for (tx, rx, expected) in [
            (opens, accepts, true),
            (accepts, opens, false),
            (0, opens, false),
            (0, accepts, true),
            (0, 0, false),
            // A client that sends a SYN-ACK, too, is no server.
            (accepts, opens | accepts, false),
            (opens | accepts, accepts, true),
        ] {
            assert_eq!(local_is_client(&key, [tx, rx]), expected, "{tx:x} {rx:x}");
        }
    }
}
