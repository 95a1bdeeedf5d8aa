//! Whatever is observed in whatever order: all packets and connections are in the series, in the
//! records and in the accounts.

use proptest::prelude::*;

use super::*;

/// What happens to the entry of one of a few keys.
#[derive(Clone, Copy, Debug)]
enum Step {
    Packets { port: u16, packets: [u64; 2] },
    TakeOver { port: u16 },
    Expire { seconds: u64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let port = 1..8_u16;
    prop_oneof![
        4 => (port.clone(), [0..9_u64, 0..9_u64])
            .prop_map(|(port, packets)| Step::Packets { port, packets }),
        1 => port.prop_map(|port| Step::TakeOver { port }),
        1 => (1..40_u64).prop_map(|seconds| Step::Expire { seconds }),
    ]
}

fn key(port: u16) -> FlowKey {
    let protocol = [Protocol::TCP, Protocol::UDP, Protocol::ICMP][usize::from(port % 3)];
    key4(1 + u32::from(port % 2), protocol, 40_000, port)
}

fn flags(packets: [u64; 2]) -> [u16; 2] {
    [
        FIRST | if packets[0] > 5 { A } else { OPENS },
        if packets[1] > 2 { B } else { 0 },
    ]
}

proptest! {
    #[test]
    fn everything_is_in_the_series_the_records_and_the_accounts(
        steps in prop::collection::vec(any_step(), 0..60),
        max_series in 0..40_usize,
    ) {
        let mut engine = engine_with(Config { max_series, capacity: Capacity::each(8), recent: 3, ..Config::default() });
        let mut cells: BTreeMap<u16, FlowValue> = BTreeMap::new();
        let (mut now, mut packets, mut connections) = (100, 0, 0);
        let mut records = Vec::new();
        for step in steps {
            let mut inputs = Vec::new();
            match step {
                Step::Packets { port, packets: more } => {
                    let cell = cells.entry(port).or_insert_with(|| {
                        connections += 1;
                        reading(now, [0, 0], [0, 0])
                    });
                    let sum = [cell.packets[0] + more[0], cell.packets[1] + more[1]];
                    let last_seen_ticks = u32::try_from(now).unwrap();
                    *cell = FlowValue {
                        packets: sum,
                        bytes: value(sum).bytes,
                        flags: flags(sum),
                        last_seen_ticks,
                        ..*cell
                    };
                    packets += more[0] + more[1];
                    inputs.push(Input::Flows(vec![(key(port), *cell)]));
                }
                Step::TakeOver { port } => {
                    if let Some(cell) = cells.get_mut(&port) {
                        inputs.push(Input::FlowEnded { key: key(port), value: *cell });
                        let generation = cell.generation + 1;
                        now += 1;
                        *cell = FlowValue { generation, ..reading(now, [1, 0], flags([1, 0])) };
                        packets += 1;
                        connections += 1;
                    }
                }
                Step::Expire { seconds } => {
                    now += seconds;
                    inputs.push(Input::Clock(clock(now)));
                    inputs.push(Input::Tick);
                }
            }
            for input in inputs {
                let outputs = engine.step(input, Timestamp::from_seconds(0));
                records.extend(outputs.records);
                let removed = outputs.expire.iter().filter_map(|wanted| {
                    let port = cells.keys().copied().find(|port| key(*port) == *wanted)?;
                    cells.remove(&port).map(|cell| (*wanted, cell))
                });
                let removed = Input::Removed(removed.collect());
                records.extend(engine.step(removed, Timestamp::from_seconds(0)).records);
            }
        }
        let rest = cells.iter().map(|(port, cell)| (key(*port), *cell)).collect();
        records.extend(engine.step(Input::Removed(rest), Timestamp::from_seconds(0)).records);
        records.extend(engine.finish(Timestamp::from_seconds(0)).records);

        let rows = engine.snapshot().rows;
        prop_assert_eq!(rows.sum(Metric::FlowPackets), packets);
        prop_assert_eq!(rows.sum(Metric::FlowBytes), 100 * packets);
        prop_assert_eq!(rows.sum(Metric::Connections), connections);
        let closed: Vec<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::Flow(flow) if flow.state == State::Closed => Some(flow),
                _ => None,
            })
            .collect();
        prop_assert_eq!(closed.len() as u64, connections);
        let recorded: u64 =
            closed.iter().map(|flow| flow.forward.packets + flow.reverse.packets).sum();
        prop_assert_eq!(recorded, packets);
        let status = engine.status();
        prop_assert!(status.anomalies.is_empty(), "{:?}", status.anomalies);
        prop_assert!(status.series <= max_series as u64);
        prop_assert!(status.recent <= 3);
        prop_assert_eq!(status.connections, connections);
        prop_assert!(status.interfaces.iter().all(|interface| interface.flows == 0));
    }
}
