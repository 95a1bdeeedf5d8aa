//! The table against a model of the kernel: packets, take-overs, passes over the map, deletions,
//! torn readings, with readings and events on the way for any time.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A map entry of the model.
#[derive(Clone, Copy, Debug)]
struct Cell {
    value: FlowValue,
    /// Whether the present connection was read: only then may a reading be torn. The first one of
    /// a connection is taken at its word.
    is_read: bool,
}

/// What a step of the model does, to the entry of one of a few keys.
#[derive(Clone, Copy, Debug)]
enum Step {
    Packets {
        port: u16,
        direction: usize,
        count: u64,
    },
    TakeOver {
        port: u16,
        torn: Option<Tear>,
    },
    Pass,
    Remove {
        port: u16,
    },
    DeliverReadings {
        count: usize,
    },
    DeliverEvent,
    Tick,
}

/// Which fields of a torn reading are the new connection's.
#[derive(Clone, Copy, Debug)]
struct Tear {
    packets: [bool; 2],
    bytes: [bool; 2],
    first_seen: bool,
    generation: bool,
}

/// A reading on its way, with the second in which its pass began.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Sighted(FlowKey, FlowValue, u64),
    Removed(FlowKey, FlowValue, u64),
}

#[derive(Default)]
struct Model {
    cells: HashMap<FlowKey, Cell>,
    readings: VecDeque<Reading>,
    events: VecDeque<(FlowKey, FlowValue)>,
    now: u64,
    connections: u64,
    packets: u64,
    table: Table,
    told: Told,
}

/// How many connections are open.
#[derive(Debug, Default)]
struct Living(u64);

impl Model {
    fn key(port: u16) -> FlowKey {
        key4(1, Protocol::TCP, 40_000 + port, 443)
    }

    fn step(&mut self, step: Step) {
        self.now += 1;
        match step {
            Step::Packets {
                port,
                direction,
                count,
            } => {
                let now = self.now;
                let connections = &mut self.connections;
                let cell = self.cells.entry(Self::key(port)).or_insert_with(|| {
                    *connections += 1;
                    Cell {
                        value: reading(0, now, [0, 0]),
                        is_read: false,
                    }
                });
                cell.value.packets[direction] += count;
                cell.value.bytes[direction] += 100 * count;
                self.packets += count;
            }
            Step::TakeOver { port, torn } => self.take_over(Self::key(port), torn),
            Step::Pass => {
                for (key, cell) in &mut self.cells {
                    cell.is_read = true;
                    self.readings
                        .push_back(Reading::Sighted(*key, cell.value, self.now));
                }
            }
            Step::Remove { port } => {
                let key = Self::key(port);
                if let Some(cell) = self.cells.remove(&key) {
                    self.readings
                        .push_back(Reading::Removed(key, cell.value, self.now));
                }
            }
            Step::DeliverReadings { count } => {
                for _ in 0..count {
                    self.deliver_reading();
                }
            }
            Step::DeliverEvent => self.deliver_event(),
            Step::Tick => {
                let expiry = Expiry::new(&Timeouts::default(), &clock(0), [0; 2], [0; 2]);
                self.table.expire(&expiry, &clock(0), 0, &mut self.told);
            }
        }
    }

    fn take_over(&mut self, key: FlowKey, torn: Option<Tear>) {
        let Some(cell) = self.cells.get_mut(&key) else {
            return;
        };
        let old = cell.value;
        self.events.push_back((key, old));
        let new = reading(old.generation + 1, self.now, [0, 0]);
        // A pass that began before reads while the fields are replaced.
        if let Some(tear) = torn.filter(|_| cell.is_read) {
            let mut value = old;
            for direction in [0, 1] {
                if tear.packets[direction] {
                    value.packets[direction] = 0;
                }
                if tear.bytes[direction] {
                    value.bytes[direction] = 0;
                }
            }
            if tear.first_seen {
                value.first_seen_ns = new.first_seen_ns;
            }
            if tear.generation {
                value.generation = new.generation;
            }
            self.readings
                .push_back(Reading::Sighted(key, value, self.now - 1));
        }
        cell.is_read = false;
        cell.value = FlowValue {
            packets: [1, 0],
            bytes: [100, 0],
            ..new
        };
        self.connections += 1;
        self.packets += 1;
    }

    fn deliver_reading(&mut self) {
        match self.readings.pop_front() {
            Some(Reading::Sighted(key, value, at)) => {
                self.table.sighted(&key, &value, &clock(at), &mut self.told);
            }
            Some(Reading::Removed(key, value, at)) => {
                self.table.removed(&key, &value, &clock(at), &mut self.told);
            }
            None => {}
        }
    }

    fn deliver_event(&mut self) {
        if let Some((key, value)) = self.events.pop_front() {
            self.table
                .ended(&key, &value, &clock(self.now), &mut self.told);
        }
    }

    fn deliver_events(&mut self) {
        while !self.events.is_empty() {
            self.deliver_event();
        }
    }
}

impl Effects for Living {
    fn opened(&mut self, _: &FlowKey, _: &mut Tracked) {
        self.0 += 1;
    }

    fn advanced(&mut self, _: &FlowKey, _: &mut Tracked, _: &Delta, _: bool) {}

    fn closed(&mut self, _: &FlowKey, _: &Tracked) {
        self.0 -= 1;
    }

    fn anomaly(&mut self, _: Anomaly) {}
}

fn any_step() -> impl Strategy<Value = Step> {
    let tear = any::<([bool; 2], [bool; 2], bool, bool)>().prop_map(
        |(packets, bytes, first_seen, generation)| Tear {
            packets,
            bytes,
            first_seen,
            generation,
        },
    );
    let port = 0..3_u16;
    prop_oneof![
        4 => (port.clone(), 0..2_usize, 1..5_u64)
            .prop_map(|(port, direction, count)| Step::Packets { port, direction, count }),
        2 => (port.clone(), prop::option::weighted(0.3, tear))
            .prop_map(|(port, torn)| Step::TakeOver { port, torn }),
        3 => Just(Step::Pass),
        1 => port.prop_map(|port| Step::Remove { port }),
        3 => (1..6_usize).prop_map(|count| Step::DeliverReadings { count }),
        2 => Just(Step::DeliverEvent),
        1 => Just(Step::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_and_connection_is_counted_once(
        steps in prop::collection::vec(any_step(), 1..80),
        events_first in any::<bool>(),
        ends_by_closing in any::<bool>(),
    ) {
        let mut model = Model::default();
        for step in steps {
            model.step(step);
        }
        model.step(Step::Pass);
        if !ends_by_closing {
            for port in 0..3 {
                model.step(Step::Remove { port });
            }
        }
        if events_first {
            model.deliver_events();
        }
        while !model.readings.is_empty() {
            model.deliver_reading();
        }
        model.deliver_events();
        if ends_by_closing {
            model.table.close_all(&mut model.told);
        }

        let told = &model.told;
        prop_assert_eq!(told.packets, model.packets);
        prop_assert_eq!(told.bytes, 100 * model.packets);
        prop_assert_eq!((told.opened, told.closed), (model.connections, model.connections));
        prop_assert_eq!(told.closes.iter().flatten().sum::<u64>(), model.packets);
        prop_assert!(told.anomalies.is_empty(), "{:?}", told.anomalies);
        prop_assert_eq!(model.table.live(), [0, 0]);
        prop_assert!(model.table.displaced.is_empty());
    }

    #[test]
    fn any_sequence_of_values_keeps_count_of_the_living(
        inputs in prop::collection::vec(
            (0..3_u8, 0..2_u16, 0..3_u32, 0..3_u64, any::<[u64; 2]>(), any::<u32>()),
            0..60,
        ),
    ) {
        let mut table = Table::default();
        let mut living = Living::default();
        for (kind, port, generation, first_seen_ns, packets, last_seen_ticks) in inputs {
            let value = FlowValue {
                generation,
                first_seen_ns,
                packets,
                last_seen_ticks,
                ..FlowValue::default()
            };
            let key = Model::key(port);
            match kind {
                0 => table.sighted(&key, &value, &clock(1), &mut living),
                1 => table.ended(&key, &value, &clock(1), &mut living),
                _ => table.removed(&key, &value, &clock(1), &mut living),
            }
            let live = table.live()[0] + table.displaced.len();
            prop_assert_eq!(table.iter().count(), live);
            prop_assert_eq!(living.0, live as u64);
        }
    }
}
