use monitor_common::abi::flag::{ACCEPTS, ACK, FIN, FIRST, OPENS, SYN};

use super::*;
use crate::{
    event::Protocol,
    fixture::{SECOND, clock, key4, value},
    flow::Timeouts,
};

/// What the table told.
#[derive(Debug, Default)]
struct Told {
    opened: u64,
    closed: u64,
    packets: u64,
    bytes: u64,
    /// Packets of each closed connection, in order.
    closes: Vec<[u64; 2]>,
    anomalies: Vec<Anomaly>,
}

impl Effects for Told {
    fn opened(&mut self, _: &FlowKey, _: &mut Tracked) {
        self.opened += 1;
    }

    fn advanced(&mut self, _: &FlowKey, _: &mut Tracked, delta: &Delta, _: bool) {
        self.packets += delta.packets.iter().sum::<u64>();
        self.bytes += delta.bytes.iter().sum::<u64>();
    }

    fn closed(&mut self, _: &FlowKey, flow: &Tracked) {
        self.closed += 1;
        self.closes.push(flow.packets);
    }

    fn anomaly(&mut self, anomaly: Anomaly) {
        self.anomalies.push(anomaly);
    }
}

/// A value of a connection that began in this second.
fn reading(generation: u32, first_seen: u64, packets: [u64; 2]) -> FlowValue {
    FlowValue {
        generation,
        first_seen_ns: first_seen * SECOND,
        ..value(packets)
    }
}

fn key() -> FlowKey {
    key4(1, Protocol::TCP, 40_000, 443)
}

struct Run {
    table: Table,
    told: Told,
    now: u64,
}

impl Run {
    fn new() -> Self {
        Self {
            table: Table::default(),
            told: Told::default(),
            now: 100,
        }
    }

    fn sighted(&mut self, value: FlowValue) -> &mut Self {
        self.table
            .sighted(&key(), &value, &clock(self.now), &mut self.told);
        self
    }

    fn ended(&mut self, value: FlowValue) -> &mut Self {
        self.table
            .ended(&key(), &value, &clock(self.now), &mut self.told);
        self
    }

    fn removed(&mut self, value: FlowValue) -> &mut Self {
        self.table
            .removed(&key(), &value, &clock(self.now), &mut self.told);
        self
    }

    fn expire(&mut self, now: u64) -> Vec<FlowKey> {
        self.expire_with(now, [0, 0], usize::MAX)
    }

    fn expire_with(&mut self, now: u64, capacity: [u64; 2], limit: usize) -> Vec<FlowKey> {
        self.now = now;
        let used = self.table.live().map(|live| live as u64);
        let expiry = Expiry::new(&Timeouts::default(), &clock(now), used, capacity);
        self.table
            .expire(&expiry, &clock(now), limit, &mut self.told)
    }

    /// Connections opened and closed, packets in all, packets of each closed connection.
    fn check(&self, opened: u64, closes: &[[u64; 2]], packets: u64) {
        let told = &self.told;
        assert_eq!(
            (told.opened, told.closed),
            (opened, closes.len() as u64),
            "{told:?}"
        );
        assert_eq!(told.closes, closes);
        assert_eq!(told.packets, packets);
        assert_eq!(told.bytes, 100 * packets);
        assert_eq!(
            self.table.live()[0] as u64 + self.table.displaced.len() as u64,
            opened - told.closed
        );
    }
}

#[test]
fn readings_become_deltas() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [1, 0]))
        .sighted(reading(0, 10, [3, 2]));
    run.sighted(reading(0, 10, [3, 2]));
    run.check(1, &[], 5);
    run.removed(reading(0, 10, [4, 4]));
    run.check(1, &[[4, 4]], 8);
    // Another connection in a new entry.
    run.sighted(reading(0, 50, [1, 1]));
    run.check(2, &[[4, 4]], 10);
}

#[test]
fn an_entry_is_believed_once_its_first_packet_is_counted() {
    let mut run = Run::new();
    // As inserted: zeros; then opened, and not yet counted.
    run.sighted(reading(0, 0, [0, 0]))
        .sighted(reading(0, 10, [0, 0]));
    run.check(0, &[], 0);
    run.sighted(reading(0, 10, [1, 0]));
    run.check(1, &[], 1);
    assert_eq!(run.told.anomalies, []);
}

#[test]
fn an_event_before_its_reading_closes_exactly() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]))
        .ended(reading(0, 10, [6, 6]));
    run.check(1, &[[6, 6]], 12);
    // Readings that were made before the event are stale.
    run.sighted(reading(0, 10, [5, 5]))
        .sighted(reading(0, 10, [6, 6]));
    run.check(1, &[[6, 6]], 12);
    run.sighted(reading(1, 20, [2, 0]));
    run.check(2, &[[6, 6]], 14);
    assert!(run.told.anomalies.is_empty());
}

#[test]
fn an_event_after_its_reading_closes_exactly() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]))
        .sighted(reading(1, 20, [2, 0]));
    run.check(2, &[], 12);
    assert!(!run.table.is_settled());
    run.ended(reading(0, 10, [6, 6]));
    run.check(2, &[[6, 6]], 14);
    assert!(run.table.is_settled() && run.told.anomalies.is_empty());
}

#[test]
fn an_event_that_does_not_come_closes_as_last_seen() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]))
        .sighted(reading(1, 20, [2, 0]));
    run.expire(129);
    run.check(2, &[], 12);
    run.expire(130);
    run.check(2, &[[5, 5]], 12);
    assert_eq!(run.told.anomalies, [Anomaly::EndMissing]);
}

#[test]
fn connections_between_two_readings_are_counted_by_their_events() {
    let mut run = Run::new();
    run.ended(reading(0, 10, [1, 1]))
        .ended(reading(1, 11, [2, 2]));
    run.sighted(reading(0, 10, [1, 1]))
        .sighted(reading(2, 12, [3, 3]));
    run.check(3, &[[1, 1], [2, 2]], 12);
    // Late: the reading of a later connection came first.
    run.sighted(reading(5, 15, [1, 0]));
    run.ended(reading(2, 12, [3, 4]))
        .ended(reading(3, 13, [1, 0]))
        .ended(reading(4, 14, [1, 0]));
    run.check(6, &[[1, 1], [2, 2], [3, 4], [1, 0], [1, 0]], 16);
    assert!(run.told.anomalies.is_empty());
}

#[test]
fn a_removed_entry_may_have_been_taken_over() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]))
        .removed(reading(1, 20, [1, 1]));
    run.check(2, &[[1, 1]], 12);
    run.ended(reading(0, 10, [5, 6]));
    run.check(2, &[[1, 1], [5, 6]], 13);
    // An entry that was never read.
    run.removed(reading(0, 30, [7, 0]));
    run.check(3, &[[1, 1], [5, 6], [7, 0]], 20);
    // An entry that was deleted while it was taken over.
    run.sighted(reading(0, 40, [1, 0]))
        .ended(reading(0, 40, [2, 0]));
    run.removed(reading(0, 40, [2, 0]));
    run.check(4, &[[1, 1], [5, 6], [7, 0], [2, 0]], 22);
    assert!(run.told.anomalies.is_empty() && run.table.flows.is_empty());
}

#[test]
fn torn_readings_are_not_believed() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]));
    // Old identity, new counters; new identity, old counters; half of each.
    run.sighted(reading(0, 10, [0, 5]))
        .sighted(reading(0, 10, [6, 6]));
    run.sighted(reading(1, 101, [6, 6]));
    run.sighted(reading(1, 10, [6, 6]))
        .sighted(reading(0, 10, [6, 6]));
    run.sighted(reading(0, 101, [6, 6]))
        .sighted(reading(0, 10, [6, 6]));
    run.check(1, &[], 12);
    run.now = 102;
    run.sighted(reading(1, 101, [1, 0]))
        .ended(reading(0, 10, [7, 6]));
    run.check(2, &[[7, 6]], 14);
    assert!(run.told.anomalies.is_empty());
}

#[test]
fn counters_that_go_backwards_twice_are_another_connection() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]))
        .sighted(reading(0, 10, [1, 1]));
    run.check(1, &[], 10);
    run.sighted(reading(0, 10, [2, 2]));
    run.check(2, &[[5, 5]], 14);
    assert_eq!(run.told.anomalies, [Anomaly::CounterBackwards]);
    // In final counts there is no other connection to count them for.
    run.removed(reading(0, 10, [1, 3]));
    run.check(2, &[[5, 5], [2, 3]], 15);
    assert_eq!(run.told.anomalies, [Anomaly::CounterBackwards; 2]);
}

#[test]
fn missing_entries_are_closed_as_last_seen() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]));
    run.table.missing(&key(), &mut run.told);
    run.table.missing(&key(), &mut run.told);
    run.check(1, &[[5, 5]], 10);
    assert_eq!(run.told.anomalies, [Anomaly::EntryVanished]);
}

#[test]
fn closing_all_closes_each_once_in_order() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]))
        .sighted(reading(1, 20, [2, 0]))
        .sighted(reading(2, 30, [3, 0]));
    run.ended(reading(2, 30, [4, 0]));
    run.table.close_all(&mut run.told);
    run.check(3, &[[4, 0], [5, 5], [2, 0]], 16);
}

#[test]
fn an_entry_that_was_just_cleared_tells_nothing() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]));
    for _ in 0..3 {
        run.sighted(reading(0, 0, [0, 0]))
            .sighted(reading(1, 0, [0, 0]));
    }
    run.sighted(reading(0, 10, [6, 5]));
    assert!(run.table.is_settled());
    run.table.close_all(&mut run.told);
    run.check(1, &[[6, 5]], 11);
}

#[test]
fn ended_connections_are_forgotten() {
    let mut run = Run::new();
    run.sighted(reading(0, 10, [5, 5]))
        .ended(reading(0, 10, [5, 5]));
    assert!(run.expire(129).is_empty());
    assert_eq!(run.table.flows.len(), 1);
    assert!(run.expire(130).is_empty());
    assert!(run.table.flows.is_empty());
}

#[test]
fn entries_are_asked_for_when_idle_and_again_after_a_while() {
    let mut run = Run::new();
    let mut value = reading(0, 10, [2, 2]);
    value.flags = [OPENS | SYN | ACK | FIRST | FIN, ACCEPTS | SYN | ACK | FIN];
    value.last_seen_ticks = 100;
    run.sighted(value);
    assert!(run.expire(101).is_empty());
    assert_eq!(run.expire(102), [key()]);
    assert!(run.expire(106).is_empty());
    assert_eq!(run.expire(107), [key()]);
    // A packet after the FINs: not idle any more.
    value.packets = [3, 2];
    value.last_seen_ticks = 112;
    run.sighted(value);
    assert!(run.expire(113).is_empty());
    assert_eq!(run.expire(114), [key()]);
}

#[test]
fn connections_of_gone_interfaces_are_over() {
    let mut run = Run::new();
    run.sighted(reading(0, 100, [5, 5]));
    run.table.interface_gone(2);
    assert!(run.expire(101).is_empty());
    run.table.interface_gone(1);
    assert_eq!(run.expire(101), [key()]);
}

#[test]
fn under_pressure_the_longest_idle_go_first() {
    let mut run = Run::new();
    for port in 0..100_u16 {
        let key = key4(1, Protocol::UDP, 40_000 + port, 53);
        let seen = 90 - u32::from(port % 50);
        let value = FlowValue {
            last_seen_ticks: seen,
            ..reading(0, 10, [1, 0])
        };
        run.table.sighted(&key, &value, &clock(100), &mut run.told);
    }
    let idle = |keys: &[FlowKey]| -> Vec<u16> {
        keys.iter()
            .map(|key| 10 + (key.local_port() - 40_000) % 50)
            .collect()
    };
    // Half full: 60 s as configured; nothing is idle for that long.
    assert!(run.expire_with(100, [200, 0], usize::MAX).is_empty());
    // Nine tenths: 24 s.
    let keys = run.expire_with(100, [111, 0], 10);
    assert_eq!(idle(&keys), [59, 59, 58, 58, 57, 57, 56, 56, 55, 55]);
    let keys = run.expire_with(100, [111, 0], usize::MAX);
    assert_eq!((keys.len(), idle(&keys)[0]), (62, 54));
    assert!(idle(&keys).iter().all(|idle| *idle >= 24));
    // Full: all that are idle for 2 s.
    assert_eq!(run.expire_with(100, [100, 0], usize::MAX).len(), 28);
}

mod due;
mod model;
