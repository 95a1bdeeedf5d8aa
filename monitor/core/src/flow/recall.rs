//! Whether the first packet that was seen of a flow may answer one that was not.
//!
//! A TCP connection begins with a SYN. Of other flows the first packet tells who opened them only
//! if none came before. Where the ports do not say that a client sent it, it may belong to a flow
//! that is older than the observation, or that was forgotten while nothing was sent, as a server's
//! keepalive does. Network security groups and connection trackers forget a flow after some minutes
//! without packets (Azure: four), and then take such a packet for a new flow, too. So it is one if
//! its interface has been watched for longer than that, and no flow between these ends was
//! forgotten since.
//!
//! Ports say little where both are such that a client may have them: a kernel may give out any from
//! 1024 on (`ip_local_port_range`, masquerading), and a service may be at any (WireGuard's 51820).
//! There, what looks like a client's packet may be an older flow's, too. That is so at the uplink:
//! pods have services' and clients' ports in their own network namespaces.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use monitor_common::{
    abi::{RX, TX},
    classify::App,
};
use serde::{Deserialize, Serialize};

use super::{
    FlowKey, Mark, Tracked,
    side::{Sender, WELL_KNOWN, first_sender},
};
use crate::{
    account::Interface,
    event::{Point, Protocol},
    time::Timestamp,
};

/// For how long others may know a flow that no packet was seen of, in nanoseconds: Azure's four
/// minutes, and one for good measure.
const RECALL_NS: u64 = 300 * SECOND_NS;
/// A second in nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;
/// The same time in seconds.
const RECALL_S: u64 = RECALL_NS / SECOND_NS;
/// So long after the first interface, others may be announced that were there before.
const START: Duration = Duration::from_secs(30);
/// Flows that are remembered of uplinks, and as many of workloads, 16 bytes each. With more, nothing
/// is known there for a while.
const MOST: usize = 65_536;
/// For how many seconds an answer to a query of DNS may come: resolvers give up sooner.
const DNS_S: u64 = 30;

/// Flows that were forgotten a while ago.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    /// Of uplinks and of workloads: what one sees makes the other forget nothing.
    memories: [Memory; 2],
    hasher: RandomState,
    /// Packets that could not be counted in a flow of their own.
    refused: u64,
    /// Flows that were remembered, and made room for others while they may have gone on.
    given_up: u64,
    /// When the first interface was announced.
    began: Option<Timestamp>,
    /// Interfaces of workloads that came into being while others were watched: no flow on them is
    /// older than the observation.
    new: HashSet<u32>,
}

/// What is remembered of interfaces of one kind.
#[derive(Debug, Default)]
struct Memory {
    /// By hash of the key.
    forgotten: HashMap<u64, Forgotten>,
    /// Until when, in monotonic nanoseconds, any flow may be an older one.
    blind_until_ns: u64,
    /// Why.
    blinded_by: Option<Blinded>,
}

/// Why first packets do not tell who opened a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blinded {
    /// An interface has not been watched for long enough.
    Attached,
    /// Packets found no room in the kernel's tables.
    Refused,
    /// More flows were forgotten than are remembered.
    Forgotten,
}

/// A flow that may go on.
#[derive(Clone, Copy, Debug)]
struct Forgotten {
    /// Monotonic second from which on others have forgotten it, too.
    until_s: u32,
    /// Whether a packet of this direction may answer one of it.
    answers: [bool; 2],
}

// === impl Blinded ===

impl Blinded {
    /// In words.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Attached => "interfaces are watched for less than five minutes",
            Self::Refused => "packets found no room in the kernel's flow table",
            Self::Forgotten => "more flows were forgotten than are remembered",
        }
    }
}

// === impl Forgotten ===

impl Forgotten {
    /// What is remembered of a flow; `None` if no packet answers what was sent in it.
    fn of(key: &FlowKey, flow: &Tracked) -> Option<Self> {
        let opener = flow.orientation(key).forward();
        let is_unsettled = flow.has(Mark::Unsettled);
        let may_answer = |direction: usize| {
            let is_asked = flow.packets[direction ^ 1] > 0;
            match Sender::of(key, direction) {
                // Against what the ports say, the other end opened it, or may have.
                Sender::Client => {
                    opener != direction || is_unsettled && flow.first() == Some(direction)
                }
                // What no client sent anything in has no answers.
                Sender::Server => is_asked || is_unsettled,
                Sender::Either | Sender::Responder => true,
            }
        };
        let answers = [may_answer(TX), may_answer(RX)];
        // A second that has begun is not over.
        let seconds = if is_answered_dns(flow) {
            DNS_S
        } else {
            RECALL_S
        };
        let until = flow.last_seen_ns / SECOND_NS + 1 + seconds;
        answers.contains(&true).then(|| Self {
            until_s: u32::try_from(until).unwrap_or(u32::MAX),
            answers,
        })
    }
}

// === impl Recall ===

impl Recall {
    /// An interface is about to be attached to, or what is known of it changed.
    pub(crate) fn announced(&mut self, interface: &Interface, now: Timestamp) {
        let began = *self.began.get_or_insert(now);
        let is_late = now.saturating_since(began) >= START;
        let is_workload = interface.point == Point::Workload;
        if interface.reason.is_some() {
            // It was there and not watched.
            self.new.remove(&interface.id);
        } else if is_late && is_workload && interface.attached_ns.is_none() {
            self.new.insert(interface.id);
        }
    }

    /// An interface is gone.
    pub(crate) fn gone(&mut self, id: u32) {
        self.new.remove(&id);
    }

    /// Whether a flow's first packet may not be the one that opened it.
    pub(crate) fn may_be_older(
        &self,
        key: &FlowKey,
        flow: &Tracked,
        interface: &Interface,
    ) -> bool {
        let is_recent = |then_ns: u64| flow.first_seen_ns < then_ns.saturating_add(RECALL_NS);
        let memory = &self.memories[interface.point as usize];
        let may_answer = || {
            let forgotten = memory.forgotten.get(&self.hasher.hash_one(key));
            forgotten.is_some_and(|forgotten| {
                let until_ns = u64::from(forgotten.until_s).saturating_mul(SECOND_NS);
                let answers = forgotten.answers;
                flow.first_seen_ns < until_ns
                    && flow
                        .first()
                        .map_or(answers.contains(&true), |first| answers[first])
            })
        };
        let may_have_been = || flow.first_seen_ns < memory.blind_until_ns || may_answer();
        match first_sender(key, flow) {
            // The SYN tells.
            _ if key.protocol() == Protocol::TCP => false,
            // A message of ICMP tells by its type.
            Sender::Client if !key.protocol().has_ports() => false,
            Sender::Client
                if interface.point == Point::Workload
                    || key.local_port().min(key.remote_port()) < WELL_KNOWN =>
            {
                may_answer()
            }
            Sender::Client | Sender::Either | Sender::Server
                if self.new.contains(&interface.id) =>
            {
                may_have_been()
            }
            Sender::Client | Sender::Either => {
                interface.attached_ns.is_some_and(is_recent) || may_have_been()
            }
            Sender::Server => interface.attached_ns.is_none_or(is_recent) || may_have_been(),
            Sender::Responder => true,
        }
    }

    /// A flow is forgotten, at this time.
    pub(crate) fn closed(&mut self, key: &FlowKey, flow: &Tracked, point: Point, now_ns: u64) {
        let protocol = key.protocol();
        if protocol == Protocol::TCP || protocol.is_icmp() {
            return;
        }
        // Anybody can send to an uplink: what nothing here took part in is not worth room.
        let is_foreign = point == Point::Uplink && flow.packets[TX] == 0;
        if is_foreign && !flow.has(Mark::Unsettled) {
            return;
        }
        let Some(forgotten) = Forgotten::of(key, flow) else {
            return;
        };
        let memory = &mut self.memories[point as usize];
        // Queries of DNS are many, and their answers late at most: they push nothing else out.
        if is_answered_dns(flow) && memory.forgotten.len() >= MOST / 2 {
            return;
        }
        if memory.forgotten.len() >= MOST {
            self.given_up += memory.make_room(now_ns);
        }
        memory
            .forgotten
            .insert(self.hasher.hash_one(key), forgotten);
    }

    /// So many packets found no room in the kernel's tables until now: what they opened is not
    /// known.
    pub(crate) fn refused(&mut self, packets: u64, now_ns: u64) {
        if packets > self.refused {
            self.refused = packets;
            for memory in &mut self.memories {
                memory.blind(now_ns.saturating_add(RECALL_NS), Blinded::Refused);
            }
        }
    }

    /// Flows that are no longer remembered although they may go on.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Until when, in monotonic nanoseconds, the first packet of some flows does not tell who
    /// opened them, at a vantage point with these interfaces, and why; `None` where it does.
    pub(crate) fn blind_until_ns<'a>(
        &self,
        point: Point,
        interfaces: impl Iterator<Item = &'a Interface>,
        now_ns: u64,
    ) -> Option<(u64, Blinded)> {
        let memory = &self.memories[point as usize];
        let attached = interfaces
            .filter(|interface| interface.point == point && interface.covered)
            .filter(|interface| !self.new.contains(&interface.id))
            .filter_map(|interface| interface.attached_ns)
            .map(|attached_ns| (attached_ns.saturating_add(RECALL_NS), Blinded::Attached));
        memory
            .blinded_by
            .map(|why| (memory.blind_until_ns, why))
            .into_iter()
            .chain(attached)
            .filter(|(until_ns, _)| *until_ns > now_ns)
            .max_by_key(|(until_ns, _)| *until_ns)
    }
}

// === impl Memory ===

impl Memory {
    /// Forgets what nobody else knows any more, or else all; how many flows may go on nevertheless.
    fn make_room(&mut self, now_ns: u64) -> u64 {
        let now_s = now_ns / SECOND_NS;
        self.forgotten
            .retain(|_, forgotten| u64::from(forgotten.until_s) > now_s);
        if self.forgotten.len() <= MOST / 2 {
            return 0;
        }
        let given_up = self.forgotten.len() as u64;
        let longest_s = self.forgotten.values().map(|forgotten| forgotten.until_s);
        let longest_ns = u64::from(longest_s.max().unwrap_or_default()).saturating_mul(SECOND_NS);
        self.forgotten.clear();
        self.blind(
            longest_ns.max(now_ns.saturating_add(RECALL_NS)),
            Blinded::Forgotten,
        );
        given_up
    }

    fn blind(&mut self, until_ns: u64, why: Blinded) {
        if until_ns > self.blind_until_ns {
            (self.blind_until_ns, self.blinded_by) = (until_ns, Some(why));
        }
    }
}

/// Whether it is a query of DNS that was answered: minutes later nothing comes.
fn is_answered_dns(flow: &Tracked) -> bool {
    flow.app() == App::Dns && flow.packets.iter().all(|packets| *packets > 0)
}

#[cfg(test)]
mod tests;
