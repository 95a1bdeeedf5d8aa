//! When a connection is over, and how long an idle one is kept.

use std::time::Duration;

use monitor_common::abi::{
    RX, TX,
    flag::{ACCEPTS, ACK, FIN, OPENS, RST},
};

use super::{FlowKey, Mark, Tracked};
use crate::{event::Protocol, time::ClockMap};

/// How long connections are kept without packets.
///
/// From three quarters of a kernel map's capacity on, every timeout of that family shrinks: with
/// the occupancy `o` it is multiplied by `(1 - o) / 0.25`, down to a floor (or to the timeout, if
/// that is shorter): 2 s for what is closed, unanswered, one-way or ICMP, 10 s for what is half
/// closed or goes both ways without being TCP, 30 s for established TCP. The longest idle go
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP after RST, or FIN both ways: room for retransmissions.
    pub tcp_closed: Duration,
    /// TCP after FIN one way.
    pub tcp_half_closed: Duration,
    /// TCP with packets both ways.
    pub tcp_established: Duration,
    /// TCP whose handshake did not complete, or with packets one way only.
    pub tcp_unanswered: Duration,
    /// UDP with packets one way only.
    pub udp_one_way: Duration,
    /// UDP with packets both ways.
    pub udp_two_way: Duration,
    /// ICMP and ICMPv6.
    pub icmp: Duration,
    /// All other protocols.
    pub other: Duration,
}

/// Which timeout a connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    TcpClosed = 0,
    TcpHalfClosed = 1,
    TcpEstablished = 2,
    TcpUnanswered = 3,
    UdpOneWay = 4,
    UdpTwoWay = 5,
    Icmp = 6,
    Other = 7,
}

const CLASSES: usize = 8;

/// How far pressure may shrink the timeout of each class, in seconds.
const FLOORS_S: [u64; CLASSES] = [2, 10, 30, 2, 2, 10, 2, 10];

/// The source is asked again after this long.
const ASK_AGAIN_S: u64 = 5;

/// How long an ended connection is kept for stale readings of its entry.
pub(super) const GRACE_NS: u64 = 30_000_000_000;

/// A timeout for each class, by family, in nanoseconds.
type Limits = [[u64; CLASSES]; 2];

/// The timeouts at one moment: for the occupancy of each family's map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    limits_ns: Limits,
    now_ns: u64,
    now_s: u32,
}

/// When the next connection may be over, so that nobody looks through all of them before: with ten thousand
/// that takes 8 ms where they are in no cache.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// Those it was worked out with.
    limits_ns: Limits,
    at_ns: u64,
}

// === impl Due ===

impl Due {
    /// A connection is new or had a packet.
    pub(crate) fn note(&mut self, key: &FlowKey, flow: &Tracked) {
        self.at_ns = self.at_ns.min(due_ns(&self.limits_ns, key, flow));
    }

    /// Any connection may be over.
    pub(crate) fn reset(&mut self) {
        self.at_ns = 0;
    }

    /// Whether none is over.
    pub(crate) fn is_later(&self, expiry: &Expiry) -> bool {
        self.limits_ns == expiry.limits_ns && expiry.now_ns < self.at_ns
    }

    /// All of them are about to be looked at; those that stay are to be noted.
    pub(crate) fn begin(&mut self, expiry: &Expiry) {
        self.limits_ns = expiry.limits_ns;
        self.at_ns = u64::MAX;
    }
}

// === impl Timeouts ===

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            tcp_closed: seconds(2),
            tcp_half_closed: seconds(300),
            tcp_established: seconds(4 * 3600),
            tcp_unanswered: seconds(75),
            udp_one_way: seconds(60),
            udp_two_way: seconds(180),
            icmp: seconds(30),
            other: seconds(180),
        }
    }
}

impl Timeouts {
    /// Timeouts by class in nanoseconds, when `used` of `capacity` entries are in use.
    fn limits_ns(&self, used: u64, capacity: u64) -> [u64; CLASSES] {
        let timeouts = [
            self.tcp_closed,
            self.tcp_half_closed,
            self.tcp_established,
            self.tcp_unanswered,
            self.udp_one_way,
            self.udp_two_way,
            self.icmp,
            self.other,
        ];
        let occupancy = (used.saturating_mul(1000))
            .checked_div(capacity)
            .unwrap_or(0)
            .min(1000);
        let factor = ((1000 - occupancy) * 4).min(1000);
        let mut limits = [0; CLASSES];
        for ((limit, timeout), floor) in limits.iter_mut().zip(timeouts).zip(FLOORS_S) {
            let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
            let shrunk = if factor < 1000 {
                timeout / 1000 * factor
            } else {
                timeout
            };
            *limit = shrunk.max(timeout.min(floor * 1_000_000_000));
        }
        limits
    }
}

// === impl Expiry ===

impl Expiry {
    /// The timeouts now, for the entries in use and the capacity of each family's map (0 if
    /// unknown).
    pub(crate) fn new(
        timeouts: &Timeouts,
        clock: &ClockMap,
        used: [u64; 2],
        capacity: [u64; 2],
    ) -> Self {
        Self {
            limits_ns: [0, 1].map(|family| timeouts.limits_ns(used[family], capacity[family])),
            now_ns: clock.monotonic_now_ns,
            now_s: seconds(clock.monotonic_now_ns),
        }
    }

    /// Whether the source should be asked to delete the entry now, or may be forgotten if it has ended.
    pub(crate) fn is_due(&self, key: &FlowKey, flow: &Tracked) -> bool {
        self.now_ns >= due_ns(&self.limits_ns, key, flow)
    }

    /// Notes that the source was asked.
    pub(crate) fn ask(&self, flow: &mut Tracked) {
        flow.asked_s = self.now_s.saturating_add(1);
    }
}

/// When [`Expiry::is_due`] becomes true, if no packet comes.
fn due_ns(limits_ns: &Limits, key: &FlowKey, flow: &Tracked) -> u64 {
    if flow.has(Mark::Ended) {
        return flow.last_seen_ns.saturating_add(GRACE_NS);
    }
    let over_ns = if flow.has(Mark::Gone) {
        0
    } else {
        let limit_ns = limits_ns[key.family() as usize][class(key, flow) as usize];
        flow.last_seen_ns.saturating_add(limit_ns)
    };
    let again_ns = match flow.asked_s {
        0 => 0,
        asked_s => (u64::from(asked_s - 1) + ASK_AGAIN_S) * 1_000_000_000,
    };
    over_ns.max(again_ns)
}

fn seconds(nanoseconds: u64) -> u32 {
    u32::try_from(nanoseconds / 1_000_000_000).unwrap_or(u32::MAX)
}

/// Whether the ends of a connection have closed it themselves.
pub(crate) fn is_over(key: &FlowKey, flow: &Tracked) -> bool {
    class(key, flow) == Class::TcpClosed
}

fn class(key: &FlowKey, flow: &Tracked) -> Class {
    let is_two_way = flow.packets[TX] > 0 && flow.packets[RX] > 0;
    let (tx, rx) = (flow.flags[TX], flow.flags[RX]);
    match key.protocol() {
        Protocol::TCP if (tx | rx) & RST != 0 || tx & rx & FIN != 0 => Class::TcpClosed,
        Protocol::TCP if (tx | rx) & FIN != 0 => Class::TcpHalfClosed,
        Protocol::TCP if !is_two_way || is_half_open(tx, rx) => Class::TcpUnanswered,
        Protocol::TCP => Class::TcpEstablished,
        Protocol::UDP if is_two_way => Class::UdpTwoWay,
        Protocol::UDP => Class::UdpOneWay,
        Protocol::ICMP | Protocol::ICMPV6 => Class::Icmp,
        _ => Class::Other,
    }
}

/// Whether a SYN was seen, but not that both ends acknowledged.
fn is_half_open(tx: u16, rx: u16) -> bool {
    let is_complete = tx & rx & ACK != 0;
    (tx | rx) & (OPENS | ACCEPTS) != 0 && !is_complete
}

#[cfg(test)]
mod tests {
    use monitor_common::abi::flag::SYN;

    use super::*;
    use crate::fixture::{key4, tracked, value};

    #[test]
    fn classes_follow_protocol_and_state() {
        let check = |protocol: Protocol, packets: [u64; 2], flags: [u16; 2], expected: Class| {
            let mut value = value(packets);
            value.flags = flags;
            let class = class(&key4(1, protocol, 40_000, 443), &tracked(&value));
            assert_eq!(class, expected, "{protocol} {packets:?} {flags:?}");
        };
        let opened = OPENS | SYN | ACK;
        let accepted = ACCEPTS | SYN | ACK;
        check(
            Protocol::TCP,
            [3, 0],
            [OPENS | SYN, 0],
            Class::TcpUnanswered,
        );
        check(
            Protocol::TCP,
            [1, 1],
            [OPENS | SYN, accepted],
            Class::TcpUnanswered,
        );
        check(
            Protocol::TCP,
            [2, 1],
            [opened, accepted],
            Class::TcpEstablished,
        );
        check(
            Protocol::TCP,
            [2, 1],
            [opened | FIN, accepted],
            Class::TcpHalfClosed,
        );
        check(
            Protocol::TCP,
            [2, 1],
            [opened | FIN, accepted | FIN],
            Class::TcpClosed,
        );
        check(
            Protocol::TCP,
            [2, 1],
            [opened, accepted | RST],
            Class::TcpClosed,
        );
        check(
            Protocol::TCP,
            [1, 1],
            [OPENS | SYN, RST | ACK],
            Class::TcpClosed,
        );
        check(Protocol::TCP, [2, 2], [ACK, ACK], Class::TcpEstablished);
        check(Protocol::TCP, [2, 0], [ACK, 0], Class::TcpUnanswered);
        check(Protocol::UDP, [2, 0], [0, 0], Class::UdpOneWay);
        check(Protocol::UDP, [2, 2], [0, 0], Class::UdpTwoWay);
        check(Protocol::ICMPV6, [2, 2], [0, 0], Class::Icmp);
        check(Protocol::SCTP, [2, 2], [0, 0], Class::Other);
    }

    #[test]
    fn timeouts_shrink_under_pressure() {
        let check = |used: u64, expected_s: [u64; CLASSES]| {
            let limits = Timeouts::default().limits_ns(used, 1000);
            assert_eq!(
                limits.map(|limit| limit / 1_000_000_000),
                expected_s,
                "{used}"
            );
        };
        let full = [2, 300, 14_400, 75, 60, 180, 30, 180];
        check(0, full);
        check(750, full);
        check(875, [2, 150, 7_200, 37, 30, 90, 15, 90]);
        check(990, [2, 12, 576, 3, 2, 10, 2, 10]);
        check(1000, [2, 10, 30, 2, 2, 10, 2, 10]);
        check(2000, [2, 10, 30, 2, 2, 10, 2, 10]);
    }

    #[test]
    fn floors_do_not_lengthen_timeouts_and_capacity_may_be_unknown() {
        let timeouts = Timeouts {
            icmp: Duration::from_millis(500),
            ..Timeouts::default()
        };
        assert_eq!(
            timeouts.limits_ns(10, 10)[Class::Icmp as usize],
            500_000_000
        );
        let limits = Timeouts::default().limits_ns(10, 0);
        assert_eq!(limits[Class::Icmp as usize], 30_000_000_000);
    }
}
