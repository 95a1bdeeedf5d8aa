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
/// Flows that are remembered, 16 bytes each. With more, nothing is known for a while.
const MOST: usize = 65_536;

/// Flows that were forgotten a while ago.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    /// By hash of the key.
    forgotten: HashMap<u64, Forgotten>,
    hasher: RandomState,
    /// Until when, in monotonic nanoseconds, any flow may be an older one.
    blind_until_ns: u64,
    /// Packets that could not be counted in a flow of their own.
    refused: u64,
    /// When the first interface was announced.
    began: Option<Timestamp>,
    /// Interfaces of workloads that came into being while others were watched: no flow on them is
    /// older than the observation.
    new: HashSet<u32>,
}

/// A flow that may go on.
#[derive(Clone, Copy, Debug)]
struct Forgotten {
    /// Monotonic second from which on others have forgotten it, too.
    until_s: u32,
    /// Whether a packet of this direction may answer one of it.
    answers: [bool; 2],
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
        let until = flow.last_seen_ns / SECOND_NS + 1 + RECALL_S;
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
        let may_answer = || {
            let forgotten = self.forgotten.get(&self.hasher.hash_one(key));
            forgotten.is_some_and(|forgotten| {
                let until_ns = u64::from(forgotten.until_s).saturating_mul(SECOND_NS);
                let answers = forgotten.answers;
                flow.first_seen_ns < until_ns
                    && flow
                        .first()
                        .map_or(answers.contains(&true), |first| answers[first])
            })
        };
        let may_have_been = || flow.first_seen_ns < self.blind_until_ns || may_answer();
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

    /// A flow is forgotten.
    pub(crate) fn closed(&mut self, key: &FlowKey, flow: &Tracked) {
        let protocol = key.protocol();
        if protocol == Protocol::TCP || protocol.is_icmp() {
            return;
        }
        let sent = |direction: usize| flow.packets[direction] > 0;
        // A query and its answer: nothing comes minutes later.
        if flow.app() == App::Dns && sent(TX) && sent(RX) {
            return;
        }
        let Some(forgotten) = Forgotten::of(key, flow) else {
            return;
        };
        if self.forgotten.len() >= MOST {
            self.make_room(flow.last_seen_ns);
        }
        self.forgotten.insert(self.hasher.hash_one(key), forgotten);
    }

    fn make_room(&mut self, now_ns: u64) {
        let now_s = now_ns / SECOND_NS;
        self.forgotten
            .retain(|_, forgotten| u64::from(forgotten.until_s) > now_s);
        if self.forgotten.len() > MOST / 2 {
            self.forgotten.clear();
            self.blind(now_ns);
        }
    }

    /// So many packets found no room in the kernel's tables until now: what they opened is not
    /// known.
    pub(crate) fn refused(&mut self, packets: u64, now_ns: u64) {
        if packets > self.refused {
            self.refused = packets;
            self.blind(now_ns);
        }
    }

    fn blind(&mut self, now_ns: u64) {
        let until_ns = now_ns.saturating_add(RECALL_NS);
        self.blind_until_ns = self.blind_until_ns.max(until_ns);
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::abi::{FlowValue, flag::FIRST};

    use super::*;
    use crate::fixture::{SECOND, key4, tracked, value};

    const UDP: Protocol = Protocol::UDP;

    /// An interface that was attached to then.
    fn interface(point: Point, attached_ns: Option<u64>) -> Interface {
        Interface {
            id: 1,
            ifindex: 2,
            name: "eth0".into(),
            point,
            attach: "tcx".into(),
            covered: attached_ns.is_some(),
            reason: None,
            attached_ns,
        }
    }

    /// A flow whose first packet came then, in this direction.
    fn flow(seconds: u64, first: usize, packets: [u64; 2]) -> Tracked {
        let mut flags = [0; 2];
        flags[first] = FIRST;
        tracked(&FlowValue {
            first_seen_ns: seconds * SECOND,
            flags,
            ..value(packets)
        })
    }

    /// The protocol, the ports, and whether a first packet received then may be of an older flow.
    #[track_caller]
    fn check(recall: &Recall, protocol: Protocol, ports: [u16; 2], seconds: u64, expected: bool) {
        let key = key4(1, protocol, ports[0], ports[1]);
        let watched = interface(Point::Uplink, Some(SECOND));
        let found = recall.may_be_older(&key, &flow(seconds, RX, [0, 1]), &watched);
        assert_eq!(found, expected, "{protocol} {ports:?} at {seconds}");
    }

    #[test]
    fn what_a_client_sends_first_opens_a_flow_at_once() {
        let recall = Recall::default();
        for ports in [[53, 40_000], [1_023, 32_768], [53, 1_024]] {
            check(&recall, UDP, ports, 2, false);
        }
        // A TCP connection is told by its SYN, an echo by its type.
        check(&recall, Protocol::TCP, [40_000, 443], 2, false);
        check(&recall, Protocol::ICMP, [7, 0x800], 2, false);
    }

    #[test]
    fn what_may_be_an_answer_opens_a_flow_once_an_older_one_would_be_forgotten() {
        let recall = Recall::default();
        for ports in [
            [40_000, 53],
            [40_000, 8_801],
            [4_000, 53],
            [51_820, 51_820],
            [123, 123],
            [4_500, 4_501],
            // Of a kernel that gives out lower ports, to a service that has a higher one.
            [20_000, 51_820],
            [32_767, 32_768],
            [1_024, 40_000],
        ] {
            check(&recall, UDP, ports, 300, true);
            check(&recall, UDP, ports, 301, false);
        }
        check(&recall, Protocol(50), [0, 0], 300, true);
        check(&recall, Protocol(50), [0, 0], 301, false);
    }

    #[test]
    fn at_a_pods_interface_a_clients_port_tells_at_once() {
        let watched = interface(Point::Workload, Some(SECOND));
        for (ports, expected) in [([8_801, 40_000], false), ([40_000, 8_801], true)] {
            let key = key4(1, UDP, ports[0], ports[1]);
            let found = Recall::default().may_be_older(&key, &flow(2, RX, [0, 1]), &watched);
            assert_eq!(found, expected, "{ports:?}");
        }
    }

    #[test]
    fn an_error_and_a_reply_of_icmp_open_nothing() {
        let recall = Recall::default();
        for kind in [3_u16, 4, 5, 11, 12, 14, 16, 18] {
            check(&recall, Protocol::ICMP, [0, kind << 8], 9_999, true);
        }
        for kind in [1_u16, 2, 3, 4, 127] {
            check(&recall, Protocol::ICMPV6, [0, kind << 8], 9_999, true);
        }
        // A question, and a neighbour that solicits.
        check(&recall, Protocol::ICMP, [0, 13 << 8], 9_999, false);
        check(&recall, Protocol::ICMPV6, [0, 135 << 8], 9_999, false);
    }

    #[test]
    fn where_nobody_knows_since_when_answers_remain_guesses() {
        let recall = Recall::default();
        let at = |ports: [u16; 2]| {
            let key = key4(1, UDP, ports[0], ports[1]);
            let watched = interface(Point::Uplink, None);
            recall.may_be_older(&key, &flow(9_999, RX, [0, 1]), &watched)
        };
        assert!(at([40_000, 53]));
        assert!(!at([123, 123]));
        assert!(!at([53, 40_000]));
        assert!(!at([20_000, 51_820]));
    }

    #[test]
    fn on_a_new_pods_interface_no_flow_is_older() {
        for (point, announced, is_refused, expected) in [
            (Point::Workload, 130, false, false),
            // With the others at the start; not watched at first; a card that got the default route.
            (Point::Workload, 129, false, true),
            (Point::Workload, 130, true, true),
            (Point::Uplink, 130, false, true),
        ] {
            let mut recall = Recall::default();
            let other = interface(Point::Uplink, None);
            recall.announced(&Interface { id: 9, ..other }, Timestamp::from_seconds(100));
            let now = Timestamp::from_seconds(announced);
            recall.announced(&interface(point, None), now);
            if is_refused {
                let reason = Some("no room".into());
                let refused = interface(point, None);
                recall.announced(&Interface { reason, ..refused }, now);
            }
            let watched = interface(point, Some(131 * SECOND));
            recall.announced(&watched, now);
            let key = key4(1, UDP, 40_000, 8_801);
            let mut value = flow(140, RX, [0, 1]);
            let found = recall.may_be_older(&key, &value, &watched);
            assert_eq!(found, expected, "{point} {announced} {is_refused}");
            // What was forgotten is remembered there, too.
            value.packets = [1, 1];
            recall.closed(&key, &value);
            assert!(recall.may_be_older(&key, &flow(200, RX, [0, 1]), &watched));
        }
    }

    #[test]
    fn a_flow_that_was_forgotten_may_go_on_for_five_minutes() {
        let mut recall = Recall::default();
        let key = key4(1, UDP, 40_000, 8_801);
        let mut old = flow(1_000, TX, [3, 2]);
        old.last_seen_ns = 1_100 * SECOND + 5;
        recall.closed(&key, &old);
        check(&recall, UDP, [40_000, 8_801], 1_400, true);
        check(&recall, UDP, [40_000, 8_801], 1_401, false);
        // Another flow is not.
        check(&recall, UDP, [40_001, 8_801], 1_200, false);
    }

    #[test]
    fn who_opened_it_counts_more_than_ports() {
        // A kernel that gives out ports from 1024 on, and a service at a higher one.
        let key = key4(1, UDP, 20_000, 51_820);
        let mut recall = Recall::default();
        let mut old = flow(1_000, TX, [3, 2]);
        old.last_seen_ns = 1_100 * SECOND;
        recall.closed(&key, &old);
        check(&recall, UDP, [20_000, 51_820], 1_300, true);
        check(&recall, UDP, [20_000, 51_820], 1_401, false);
        // Also where nothing answered yet.
        let mut recall = Recall::default();
        recall.closed(&key, &flow(1_000, TX, [3, 0]));
        check(&recall, UDP, [20_000, 51_820], 1_200, true);
        // That keepalive belongs to the same flow, and so does the next one.
        let mut later = flow(1_200, RX, [0, 1]);
        later.set(Mark::Unsettled, true);
        recall.closed(&key, &later);
        check(&recall, UDP, [20_000, 51_820], 1_400, true);
        check(&recall, UDP, [20_000, 51_820], 1_502, false);
        // Where the other end did open it, it opens the next one, too.
        let mut recall = Recall::default();
        recall.closed(&key, &flow(1_000, RX, [2, 3]));
        check(&recall, UDP, [20_000, 51_820], 1_200, false);
        // A service below 1024 that was the first to send.
        let mut recall = Recall::default();
        let key = key4(1, UDP, 500, 40_000);
        recall.closed(&key, &flow(1_000, TX, [3, 2]));
        check(&recall, UDP, [500, 40_000], 1_200, true);
    }

    #[test]
    fn what_only_a_server_sent_has_no_client_to_answer() {
        let mut recall = Recall::default();
        let key = key4(1, UDP, 40_000, 8_801);
        recall.closed(&key, &flow(1_000, RX, [0, 5]));
        check(&recall, UDP, [40_000, 8_801], 1_100, false);
        // Unless it may have gone on from before.
        let mut unsettled = flow(1_000, RX, [0, 5]);
        unsettled.set(Mark::Unsettled, true);
        recall.closed(&key, &unsettled);
        check(&recall, UDP, [40_000, 8_801], 1_100, true);
    }

    #[test]
    fn while_packets_find_no_room_nothing_is_known() {
        let mut recall = Recall::default();
        recall.refused(0, 1_000 * SECOND);
        check(&recall, UDP, [40_000, 53], 1_001, false);
        recall.refused(7, 1_000 * SECOND);
        check(&recall, UDP, [40_000, 53], 1_299, true);
        check(&recall, UDP, [53, 40_000], 1_001, false);
        // The same count again is no new packet.
        recall.refused(7, 1_200 * SECOND);
        check(&recall, UDP, [40_000, 53], 1_300, false);
    }

    #[test]
    fn memory_is_bounded_and_what_does_not_fit_is_not_taken_for_known() {
        let mut recall = Recall::default();
        let close = |recall: &mut Recall, number: u32, at: u64| {
            let [high, low] = [number >> 14, number & 0x3fff];
            let port = |part: u32, base| u16::try_from(part).unwrap() + base;
            let key = key4(1, UDP, port(low, 40_000), port(high, 8_000));
            recall.closed(&key, &flow(at, TX, [1, 0]));
        };
        let most = u32::try_from(MOST).unwrap();
        for number in 0..most {
            close(&mut recall, number, 1_000);
        }
        assert_eq!(recall.forgotten.len(), MOST);
        // Old ones make room.
        close(&mut recall, most, 2_000);
        assert_eq!((recall.forgotten.len(), recall.blind_until_ns), (1, 0));
        for number in 0..=most {
            close(&mut recall, number, 2_000);
        }
        assert!(recall.forgotten.len() < MOST);
        check(&recall, UDP, [1_024, 53], 2_299, true);
        check(&recall, UDP, [1_024, 53], 2_300, false);
    }
}
