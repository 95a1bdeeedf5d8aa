//! Packets and bytes that processors count in one word at once, and carry out of it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use monitor_common::{abi::Hook, parse::protocol};
use tests::{
    bpf,
    frames::build::{self, Packet, Pair},
    lab,
};

use crate::loaded::{Loaded, OPTIONS, UPLINK};

/// What each of them counts: some carries of packets, and of bytes.
const PACKETS: u32 = 300_000;
const PAYLOAD: [u8; 1_300] = [7; 1_300];

#[test]
fn what_processors_count_at_once_adds_up() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    for v6 in [false, true] {
        let mut packet = Packet::new(
            Pair {
                v6,
                local: 1,
                remote: 2,
                local_port: 1_000,
                remote_port: 443,
            },
            true,
            protocol::UDP,
        );
        packet.payload = build::udp(1_000, 443, &PAYLOAD);
        let frame = packet.frame();
        let mut loaded = Loaded::new(&OPTIONS, UPLINK);
        let program = loaded.kernel.program_id(Hook::Egress).expect("an id");
        let processors = thread::available_parallelism()
            .map_or(2, usize::from)
            .clamp(2, 8);
        let (readings, low) = thread::scope(|scope| {
            let runs: Vec<_> = (0..processors)
                .map(|_| scope.spawn(|| bpf::run_program(program, &frame, PACKETS)))
                .collect();
            let (mut readings, mut low, mut last) = (0_u32, 0_u32, 0);
            while !runs.iter().all(thread::ScopedJoinHandle::is_finished) {
                let packets = packets_and_bytes(&mut loaded).map_or(0, |(packets, _)| packets);
                readings += 1;
                low += u32::from(packets < last);
                last = last.max(packets);
            }
            for run in runs {
                let verdict = run.join().expect("a thread").expect("a run");
                assert_eq!(verdict, u32::MAX, "the next program must decide, always");
            }
            (readings, low)
        });
        assert!(readings > 0, "nothing was read meanwhile");
        // The moment of a carry is hardly ever met, and what is read then is only late.
        assert!(
            low * 20 <= readings,
            "{low} of {readings} readings went back"
        );

        let packets = u64::from(PACKETS) * processors as u64;
        let length = (frame.len() - 14) as u64;
        assert_eq!(
            packets_and_bytes(&mut loaded),
            Some((packets, packets * length))
        );
        let [counters, _] = loaded.books().counters;
        assert_eq!(
            (counters.counted[1], counters.bytes[1]),
            (packets, packets * length)
        );
    }
}

/// One processor opens connection after connection between the same ports, the others count answers in the
/// entry that these take over.
#[test]
fn a_take_over_loses_nothing_that_others_count() {
    /// Fewer than there is room for events.
    const CONNECTIONS: u32 = 10_000;
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    let pair = Pair {
        v6: false,
        local: 1,
        remote: 2,
        local_port: 1_000,
        remote_port: 443,
    };
    let syn = |number: u32| {
        let mut packet = Packet::new(pair, true, protocol::TCP);
        packet.payload = build::tcp(1_000, 443, number << 16, 2, b"");
        packet.frame()
    };
    let mut packet = Packet::new(pair, false, protocol::TCP);
    packet.payload = build::tcp(443, 1_000, 1, 0x10, b"");
    let answer = packet.frame();
    let mut loaded = Loaded::new(&OPTIONS, UPLINK);
    let [out, into] =
        [Hook::Egress, Hook::Ingress].map(|hook| loaded.kernel.program_id(hook).expect("an id"));
    // An answer before it would make a connection of its own.
    bpf::run_program(out, &syn(0), 1).expect("a run");
    let is_over = AtomicBool::new(false);
    let answers: u64 = thread::scope(|scope| {
        let run = scope.spawn(|| {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                bpf::run_program(into, &answer, 1_000).expect("a run");
                count += 1_000;
            }
            count
        });
        for number in 1..CONNECTIONS {
            bpf::run_program(out, &syn(number), 1).expect("a run");
        }
        is_over.store(true, Ordering::Relaxed);
        run.join().expect("a thread")
    });
    let books = loaded.books();
    assert_eq!(books.ended.len() as u64 + 1, u64::from(CONNECTIONS));
    let values = books.ended.iter().map(|(_, facts)| facts);
    let packets = values
        .chain(books.flows.values())
        .fold([0, 0], |[tx, rx], facts| {
            [tx + facts.packets[0], rx + facts.packets[1]]
        });
    assert_eq!(packets, [u64::from(CONNECTIONS), answers]);
}

/// Of the only flow.
fn packets_and_bytes(loaded: &mut Loaded) -> Option<(u64, u64)> {
    let mut found = None;
    let kernel = &mut loaded.kernel;
    let read4 = kernel.each_flow4(None, |_, value| {
        found = Some((value.packets[0], value.bytes[0]));
    });
    let read6 = kernel.each_flow6(None, |_, value| {
        found = Some((value.packets[0], value.bytes[0]));
    });
    read4.and(read6).expect("mapped");
    found
}
