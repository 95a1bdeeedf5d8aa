//! What is kept of one connection.

use std::sync::Arc;

use monitor_common::{
    abi::{FlowValue, RX, TX, flag},
    classify::App,
};

use super::{FlowKey, Orientation, outcome, side::only};
use crate::{
    event::Outcome,
    metric::SeriesId,
    netpol::Verdict,
    time::{ClockMap, Timestamp},
};

/// What is kept of one connection: the counters last read, and what was derived from them once.
///
/// Small on purpose: a daemon may track 100,000 of them.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    /// Packets, by direction.
    pub(crate) packets: [u64; 2],
    /// Layer-3 bytes, by direction.
    pub(crate) bytes: [u64; 2],
    /// Monotonic time of the first packet; with `generation` the connection's identity.
    pub(crate) first_seen_ns: u64,
    /// Monotonic time of the last packet.
    pub(crate) last_seen_ns: u64,
    /// Wall-clock time of the first packet.
    pub(crate) start: Timestamp,
    /// Cgroup of the local socket, 0 where unknown.
    pub(crate) cgroup_id: u64,
    /// TCP segments sent again, by direction.
    pub(crate) retransmits: [u32; 2],
    /// `monitor_common::abi::flag`s, by direction.
    pub(crate) flags: [u16; 2],
    /// Duration of the TCP handshake, 0 where unknown.
    pub(crate) handshake_rtt_ns: u32,
    /// How many connections before this one used the kernel's entry.
    pub(crate) generation: u32,
    /// What the network policies say of it, once it was judged.
    pub(crate) policy: Option<Arc<Judged>>,
    /// Where its traffic is counted.
    pub(crate) series: SeriesId,
    /// Monotonic second in which the source was last asked to delete the entry, plus one.
    pub(crate) asked_s: u32,
    /// Code of the application protocol.
    pub(crate) app: u8,
    /// [`Mark`]s.
    marks: u8,
    /// Under which network security groups it opened; 0 for none.
    pub(crate) nsg_epoch: u16,
}

/// What the network policies say of a connection.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Those in force.
    pub(crate) verdict: Arc<Verdict>,
    /// With those that are proposed, where that is another verdict.
    pub(crate) proposed: Option<Arc<Verdict>>,
}

const _: () = assert!(size_of::<Tracked>() <= 104);
const _: () = assert!(size_of::<(FlowKey, Tracked)>() <= 152);

/// Something that is true of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mark {
    /// Counted in the connections metric.
    Counted = 1,
    /// Ended; kept to recognise stale readings of its entry.
    Ended = 2,
    /// The last reading did not fit and may have been torn by a concurrent update.
    Suspect = 4,
    /// Its first packet may not be the connection's first: it came soon after the interface was
    /// attached, or may answer an earlier one ([`super::Recall`]).
    Unsettled = 8,
    /// Its interface is gone.
    Gone = 16,
    /// Its packets go to many: multicast or broadcast.
    Multicast = 32,
    /// What it was judged by changed shortly before it began.
    Fresh = 64,
    /// That it is not as network security groups declare was told.
    NsgTold = 128,
}

/// What a reading added, by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) packets: [u64; 2],
    pub(crate) bytes: [u64; 2],
    /// Monotonic time of the last packet before, which none of these came before.
    pub(crate) after_ns: u64,
}

// === impl Tracked ===

impl Tracked {
    /// A connection of which nothing is counted yet.
    pub(crate) fn open(value: &FlowValue, clock: &ClockMap) -> Self {
        Self {
            packets: [0; 2],
            bytes: [0; 2],
            first_seen_ns: value.first_seen_ns,
            last_seen_ns: value.first_seen_ns,
            start: clock.wall(value.first_seen_ns),
            cgroup_id: value.cgroup_id,
            retransmits: [0; 2],
            flags: [0; 2],
            handshake_rtt_ns: 0,
            generation: value.generation,
            policy: None,
            series: SeriesId::OTHER,
            asked_s: 0,
            app: 0,
            marks: 0,
            nsg_epoch: 0,
        }
    }

    /// Whether a reading is of this connection.
    pub(crate) fn is_same(&self, value: &FlowValue) -> bool {
        self.generation == value.generation && self.first_seen_ns == value.first_seen_ns
    }

    /// Whether a reading is of an earlier connection between the same ports.
    pub(crate) fn is_after(&self, value: &FlowValue) -> bool {
        (self.first_seen_ns, self.generation) > (value.first_seen_ns, value.generation)
    }

    /// Whether a reading is of a later connection between the same ports.
    pub(crate) fn is_before(&self, value: &FlowValue) -> bool {
        (self.first_seen_ns, self.generation) < (value.first_seen_ns, value.generation)
    }

    /// What a reading of this connection adds; `None` if a counter went backwards.
    pub(crate) fn delta(&self, value: &FlowValue) -> Option<Delta> {
        let difference = |new: [u64; 2], old: [u64; 2]| {
            Some([new[TX].checked_sub(old[TX])?, new[RX].checked_sub(old[RX])?])
        };
        Some(Delta {
            packets: difference(value.packets, self.packets)?,
            bytes: difference(value.bytes, self.bytes)?,
            after_ns: self.last_seen_ns,
        })
    }

    /// Whether a reading tells nothing new.
    pub(crate) fn is_current(&self, value: &FlowValue) -> bool {
        self.packets == value.packets
            && self.bytes == value.bytes
            && value.flags[TX] & !self.flags[TX] == 0
            && value.flags[RX] & !self.flags[RX] == 0
    }

    /// Takes over a reading. Flags accumulate: the kernel may lose an update of one.
    pub(crate) fn update(&mut self, value: &FlowValue, clock: &ClockMap) {
        self.packets = value.packets;
        self.bytes = value.bytes;
        self.flags[TX] |= value.flags[TX];
        self.flags[RX] |= value.flags[RX];
        self.retransmits = value.retransmits;
        let last_seen_ns = clock.monotonic_ns(value.last_seen_ticks);
        self.last_seen_ns = self.last_seen_ns.max(last_seen_ns);
        if value.handshake_rtt_ns != 0 {
            self.handshake_rtt_ns = value.handshake_rtt_ns;
        }
        if value.app != 0 {
            self.app = value.app;
        }
        if value.cgroup_id != 0 {
            self.cgroup_id = value.cgroup_id;
        }
    }

    pub(crate) fn set(&mut self, mark: Mark, value: bool) {
        if value {
            self.marks |= mark as u8;
        } else {
            self.marks &= !(mark as u8);
        }
    }

    pub(crate) fn has(&self, mark: Mark) -> bool {
        self.marks & mark as u8 != 0
    }

    /// Wall-clock time of the last packet; never before the first, whatever the wall clock did.
    pub(crate) fn end(&self) -> Timestamp {
        self.wall(self.last_seen_ns)
    }

    /// Wall-clock time of this monotonic time, by that of the first packet; never before that.
    pub(crate) fn wall(&self, monotonic_ns: u64) -> Timestamp {
        let elapsed = monotonic_ns.saturating_sub(self.first_seen_ns);
        self.start
            .saturating_add(std::time::Duration::from_nanos(elapsed))
    }

    /// Application protocol.
    pub(crate) fn app(&self) -> App {
        App::from_code(self.app)
    }

    /// Who opened the connection.
    pub(crate) fn orientation(&self, key: &FlowKey) -> Orientation {
        Orientation::of(key, self)
    }

    /// The direction of the first packet, where it is known.
    pub(super) fn first(&self) -> Option<usize> {
        only(self.flags, flag::FIRST)
    }

    /// What became of the connection.
    pub(crate) fn outcome(&self, key: &FlowKey) -> Outcome {
        outcome::of(key, self, self.orientation(key).forward())
    }
}
