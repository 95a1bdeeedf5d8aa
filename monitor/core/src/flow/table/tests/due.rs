//! That entries are not looked through before one may be due changes nothing.

use monitor_common::abi::flag::RST;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A packet with these flags.
    Packet {
        port: u16,
        is_udp: bool,
        direction: usize,
        flags: u16,
    },
    End {
        port: u16,
    },
    Gone,
    /// So many seconds later everything is looked at, with room for so many connections.
    Tick {
        seconds: u64,
        capacity: u64,
        limit: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop::sample::select(vec![0, ACK, OPENS | SYN, ACCEPTS | SYN | ACK, FIN, RST]);
    let step = prop_oneof![
        6 => (0..6_u16, any::<bool>(), 0..2_usize, flags).prop_map(
            |(port, is_udp, direction, flags)| Step::Packet { port, is_udp, direction, flags },
        ),
        1 => (0..6_u16).prop_map(|port| Step::End { port }),
        1 => Just(Step::Gone),
        6 => (1..100_u64, 0..30_u64, 0..4_usize).prop_map(|(seconds, capacity, limit)| Step::Tick {
            seconds: if seconds < 80 { seconds % 4 } else { seconds },
            // Mostly plenty.
            capacity: if capacity < 8 { capacity } else { 0 },
            limit: if limit == 3 { usize::MAX } else { limit },
        }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn whatever_is_due_is_found(steps in steps()) {
        let mut run = Run::new();
        let mut values = HashMap::<FlowKey, FlowValue>::new();
        let of = |port, is_udp| {
            let protocol = if is_udp { Protocol::UDP } else { Protocol::TCP };
            key4(1 + u32::from(port % 2), protocol, 40_000 + port, 443)
        };
        for step in steps {
            match step {
                Step::Packet { port, is_udp, direction, flags } => {
                    let key = of(port, is_udp);
                    let new = reading(0, run.now, [0, 0]);
                    let value = values.entry(key).or_insert(new);
                    value.packets[direction] += 1;
                    value.bytes[direction] += 40;
                    value.flags[direction] |= flags;
                    value.last_seen_ticks = u32::try_from(run.now).unwrap();
                    run.table.sighted(&key, value, &clock(run.now), &mut run.told);
                }
                Step::End { port } => {
                    let key = of(port, false);
                    if let Some(value) = values.remove(&key) {
                        run.table.ended(&key, &value, &clock(run.now), &mut run.told);
                    }
                }
                Step::Gone => run.table.interface_gone(2),
                Step::Tick { seconds, capacity, limit } => {
                    let now = run.now + seconds;
                    let used = run.table.live().map(|live| live as u64);
                    let expiry = Expiry::new(&Timeouts::default(), &clock(now), used, [capacity, 0]);
                    let (mut expected, mut forgotten) = (Vec::new(), Vec::new());
                    for (key, flow) in &run.table.flows {
                        match (expiry.is_due(key, flow), flow.has(Mark::Ended)) {
                            (true, true) => forgotten.push(*key),
                            (true, false) => expected.push((flow.last_seen_ns, *key)),
                            _ => {}
                        }
                    }
                    expected.sort_unstable();
                    expected.truncate(limit);
                    let expected: Vec<_> = expected.into_iter().map(|(_, key)| key).collect();
                    prop_assert_eq!(run.expire_with(now, [capacity, 0], limit), expected);
                    prop_assert!(forgotten.iter().all(|key| !run.table.flows.contains_key(key)));
                }
            }
        }
    }
}
