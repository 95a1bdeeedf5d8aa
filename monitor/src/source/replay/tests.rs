use std::{convert::Infallible, iter, time::Instant};

use monitor_core::{
    engine::Config,
    event::{FlowRecord, LocalEnd, State},
};

use super::*;

mod manifests;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;
const DAY: u64 = 24 * 3600 * SECOND;

/// A packet: time, and its bytes from the IP header.
type Sent = (u64, Vec<u8>);

/// A datagram between these ends of 192.0.2.0/24.
fn datagram(source: (u8, u16), destination: (u8, u16)) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 36, 0, 0, 0x40, 0, 64, 17, 0, 0];
    bytes.extend([192, 0, 2, source.0, 192, 0, 2, destination.0]);
    bytes.extend(source.1.to_be_bytes());
    bytes.extend(destination.1.to_be_bytes());
    bytes.extend([0, 16, 0, 0]);
    bytes.extend([0xff; 8]);
    bytes
}

/// A SYN from port 1000 to port 22.
fn syn(sequence: u32) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    bytes.extend([192, 0, 2, 1, 192, 0, 2, 2, 3, 232, 0, 22]);
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

/// A pcap file with nanoseconds.
fn pcap(packets: impl IntoIterator<Item = Sent>) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    for (time_ns, bytes) in packets {
        let length = bytes.len() as u64;
        for word in [time_ns / SECOND, time_ns % SECOND, length, length] {
            file.extend(u32::try_from(word).expect("32 bits").to_le_bytes());
        }
        file.extend(bytes);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len().next_multiple_of(4) + 12).expect("short");
    let mut block = [kind.to_le_bytes(), length.to_le_bytes()].concat();
    block.extend(body);
    block.resize(block.len().next_multiple_of(4), 0);
    block.extend(length.to_le_bytes());
    block
}

struct Replayed {
    flows: Vec<FlowRecord>,
    summary: monitor_core::event::SummaryRecord,
    outcome: Result<(), CaptureError>,
}

fn run(file: &[u8], options: &ReplayOptions) -> Replayed {
    let mut engine = Engine::new(Config::default()).expect("no ranges");
    let mut flows = Vec::new();
    let outcome = replay(file, options, &mut engine, |record| {
        if let Record::Flow(flow) = record
            && flow.state == State::Closed
        {
            flows.push(*flow);
        }
        Ok::<_, Infallible>(())
    });
    let Ok(outcome) = outcome;
    let summary = engine.summary();
    assert_eq!(
        summary.packets_seen,
        summary.packets_counted + summary.packets_uncounted
    );
    let packets: u64 = flows
        .iter()
        .map(|flow| flow.forward.packets + flow.reverse.packets)
        .sum();
    assert_eq!(packets, summary.packets_counted);
    assert_eq!(flows.len() as u64, summary.flows);
    Replayed {
        flows,
        summary,
        outcome,
    }
}

/// Cooked packets of the second version name their interfaces: one that crosses two of them is a
/// packet at each, not two of one connection.
#[test]
fn cooked_packets_are_counted_at_their_interfaces() {
    let cooked = |index: u8| {
        let mut bytes = vec![0x08, 0, 0, 0, 0, 0, 0, index, 0, 1, 0, 6];
        bytes.extend([0; 8]);
        bytes.extend(datagram((1, 1000), (2, 53)));
        (START, bytes)
    };
    let mut file = pcap([cooked(7), cooked(9), cooked(7)]);
    file[20..24].copy_from_slice(&276_u32.to_le_bytes());
    let Replayed { flows, summary, .. } = run(&file, &options());
    let mut found: Vec<_> = flows
        .iter()
        .map(|flow| (&*flow.interface, flow.forward.packets))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("if7", 2), ("if9", 1)]);
    assert_eq!(summary.interfaces, 2);
}

/// What the end of the capture cuts off is told apart from what its ends closed.
#[test]
fn connections_that_outlive_the_capture_are_cut() {
    let mut reset = syn(1);
    reset[33] = 0x14;
    let after = |seconds: u64, bytes| (START + seconds * SECOND, bytes);
    let cut = |packets: Vec<Sent>| -> Vec<bool> {
        let replayed = run(&pcap(packets), &options());
        replayed.flows.iter().map(|flow| flow.cut).collect()
    };
    assert_eq!(cut(vec![(START, syn(1))]), [true], "no answer so far");
    assert_eq!(cut(vec![(START, syn(1)), after(1, reset)]), [false]);
    let later = after(200, datagram((1, 1000), (2, 53)));
    assert_eq!(cut(vec![(START, syn(1)), later]), [false, true]);
}

fn options() -> ReplayOptions {
    ReplayOptions {
        local: Vec::new(),
        max_flows: 1_000_000,
    }
}

#[test]
fn both_directions_are_one_flow_with_or_without_local_addresses() {
    let file = pcap([
        (START, datagram((2, 40_000), (1, 53))),
        (START + 5, datagram((1, 53), (2, 40_000))),
        (START + 9, datagram((2, 40_000), (1, 53))),
    ]);
    let cidr = |text: &str| text.parse().expect("a prefix");
    for (local, expected) in [
        // In the order of addresses.
        (vec![], LocalEnd::Destination),
        (vec![cidr("192.0.2.0/24")], LocalEnd::Destination),
        (vec![cidr("192.0.2.1/32")], LocalEnd::Destination),
        (
            vec![cidr("2001:db8::/32"), cidr("192.0.2.2/31")],
            LocalEnd::Source,
        ),
    ] {
        let replayed = run(&file, &ReplayOptions { local, ..options() });
        let [flow] = &replayed.flows[..] else {
            panic!("{:#?}", replayed.flows)
        };
        assert_eq!(
            (flow.source.port, flow.destination.port),
            (Some(40_000), Some(53))
        );
        assert_eq!((flow.forward.packets, flow.reverse.packets), (2, 1));
        assert_eq!(flow.local, expected);
        assert!(replayed.outcome.is_ok());
    }
}

#[test]
fn flows_end_in_the_capture_time() {
    // One-way UDP is kept for a minute.
    let packet = || datagram((1, 1), (2, 2));
    let file = pcap([
        (START, packet()),
        (START + 30 * SECOND, packet()),
        (START + 200 * SECOND, packet()),
    ]);
    let flows = run(&file, &options()).flows;
    let times = flows
        .iter()
        .map(|flow| (flow.start.nanoseconds(), flow.end.nanoseconds()));
    let at = |seconds: u64| i64::try_from(START + seconds * SECOND).expect("63 bits");
    assert_eq!(
        times.collect::<Vec<_>>(),
        [(at(0), at(30)), (at(200), at(200))]
    );
}

#[test]
fn a_gap_of_months_does_not_shift_times() {
    for days in [1, 40, 50, 60, 100, 700] {
        let packets = [
            (START, datagram((1, 1), (2, 2))),
            (START + days * DAY, datagram((1, 1), (2, 2))),
        ];
        let flows = run(&pcap(packets), &options()).flows;
        assert_eq!(flows.len(), 2, "{days}");
        for flow in flows {
            assert_eq!(flow.start, flow.end, "{days}");
        }
    }
}

#[test]
fn time_does_not_go_backwards() {
    let packet = || datagram((1, 1), (2, 2));
    let file = pcap([
        (START + 10, packet()),
        (START, packet()),
        (START + 5, packet()),
    ]);
    let replayed = run(&file, &options());
    let [flow] = &replayed.flows[..] else {
        panic!("{:#?}", replayed.flows)
    };
    assert_eq!(
        flow.start.nanoseconds(),
        i64::try_from(START + 10).expect("63 bits")
    );
    assert_eq!(flow.forward.packets, 3);
}

#[test]
fn records_come_in_the_same_order_every_time() {
    let packets = || (0..200).map(|port| (START + u64::from(port), datagram((1, port), (2, 9))));
    let ports = || {
        let flows = run(&pcap(packets()), &options()).flows;
        flows
            .iter()
            .map(|flow| flow.source.port)
            .collect::<Vec<_>>()
    };
    let expected = (0..200).map(Some).collect::<Vec<_>>();
    assert_eq!(ports(), expected);
}

#[test]
fn a_full_table_is_counted() {
    let packets = (0..50).map(|port| (START, datagram((1, port), (2, 9))));
    let replayed = run(
        &pcap(packets),
        &ReplayOptions {
            max_flows: 10,
            ..options()
        },
    );
    assert_eq!(replayed.flows.len(), 10);
    assert_eq!(replayed.summary.uncounted["table_full"], 40);
}

#[test]
fn connections_without_end_at_one_moment_take_no_memory() {
    let count = u32::try_from(3 * MAX_ENDED).expect("32 bits");
    let packets = (0..count).map(|index| (START, syn(index * 1_000)));
    let flows = run(&pcap(packets), &options()).flows;
    assert_eq!(flows.len(), 3 * MAX_ENDED);
}

#[test]
fn a_time_at_the_end_of_time_does_no_harm() {
    let header = [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];
    let mut file = block(0x0a0d_0d0a, &[&header[..], &[0xff; 8]].concat());
    file.extend(block(1, &[101, 0, 0, 0, 0, 0, 0, 0]));
    for port in 0..20_000_u16 {
        let time = if port == 0 { [0xff; 8] } else { [0; 8] };
        let packet = datagram((1, port), (2, 9));
        let body = [&[0; 4][..], &time, &[36, 0, 0, 0, 36, 0, 0, 0], &packet].concat();
        file.extend(block(6, &body));
    }
    let start = Instant::now();
    let replayed = run(&file, &options());
    assert_eq!(replayed.flows.len(), 20_000);
    // A pass for every packet would take many times as long.
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn interfaces_have_their_own_flows_and_names() {
    let mut file = block(
        0x0a0d_0d0a,
        &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..], &[0xff; 8]].concat(),
    );
    for name in [b"eth0", b"eth1"] {
        file.extend(block(
            1,
            &[&[101, 0, 0, 0, 0, 0, 0, 0, 2, 0, 4, 0][..], name, &[0; 4]].concat(),
        ));
    }
    // The second one first.
    for interface in [1, 0, 1] {
        let packet = datagram((1, 1), (2, 2));
        let head = [
            interface, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 36, 0, 0, 0, 36, 0, 0, 0,
        ];
        file.extend(block(6, &[&head[..], &packet].concat()));
    }
    let replayed = run(&file, &options());
    let mut found: Vec<_> = replayed
        .flows
        .iter()
        .map(|flow| (&*flow.interface, flow.forward.packets))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("eth0", 1), ("eth1", 2)]);
    assert_eq!(replayed.summary.interfaces, 2);
}

#[test]
fn a_capture_that_breaks_off_gives_what_there_is() {
    let packets = iter::repeat_n((START, datagram((1, 1), (2, 2))), 5);
    let file = pcap(packets);
    let replayed = run(&file[..file.len() - 1], &options());
    assert_eq!(replayed.flows[0].forward.packets, 4);
    let error = replayed.outcome.expect_err("cut");
    assert_eq!(
        error.to_string(),
        "truncated at byte 232: packet 5 is incomplete"
    );
}
