//! Capture files, replayed.

use std::convert::Infallible;

use monitor::source::replay::{ReplayOptions, replay};
use monitor_core::{
    engine::{Config, Engine},
    event::Record,
};

use super::check_message;
use crate::frames::Generator;

pub(super) const WORDS: &[&[u8]] = &[
    b"\xd4\xc3\xb2\xa1",
    b"\x4d\x3c\xb2\xa1",
    b"\xa1\xb2\xc3\xd4",
    b"\x0a\x0d\x0d\x0a",
    b"\x4d\x3c\x2b\x1a",
    b"\x06\0\0\0",
    b"\x03\0\0\0",
    b"\x01\0\0\0",
    b"SSH-2.0-",
];

/// Packets of a capture, at most: more show nothing new.
const PACKETS: u64 = 1 << 16;

pub(super) fn run(bytes: &[u8]) {
    let mut engine = Engine::new(Config::default()).expect("no ranges");
    let options = ReplayOptions {
        local: vec!["10.0.0.0/8".parse().expect("a range")],
        max_flows: 64,
    };
    let mut flows = 0;
    let replayed = replay(bytes, &options, &mut engine, |record| {
        flows += u64::from(matches!(record, Record::Flow(_)));
        Ok::<_, Infallible>(())
    });
    if let Ok(Err(error)) = replayed {
        check_message(&error.to_string());
    }
    let summary = engine.summary();
    assert_eq!(
        summary.packets_seen,
        summary.packets_counted + summary.packets_uncounted
    );
    assert!(
        summary.packets_seen <= PACKETS.max(bytes.len() as u64),
        "{}",
        summary.packets_seen
    );
    assert!(
        flows >= summary.flows,
        "{flows} records of {} flows",
        summary.flows
    );
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let frames: Vec<Vec<u8>> = Generator::new(1)
        .take(40)
        .map(|sample| sample.bytes)
        .collect();
    let mut seeds = Vec::new();
    for (magic, is_big) in [
        (0xa1b2_c3d4_u32, false),
        (0xa1b2_3c4d, false),
        (0xa1b2_c3d4, true),
    ] {
        seeds.push(pcap(&frames, magic, is_big));
    }
    seeds.push(pcapng(&frames));
    seeds
}

/// The classic format (draft-ietf-opsawg-pcap).
fn pcap(frames: &[Vec<u8>], magic: u32, is_big: bool) -> Vec<u8> {
    let word = |number: u32| {
        if is_big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    };
    // Version 2.4.
    let version = if is_big { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
    let mut bytes = [
        word(magic),
        version,
        word(0),
        word(0),
        word(65_535),
        word(1),
    ]
    .concat();
    for (second, frame) in (1_000..).zip(frames) {
        let length = word(u32::try_from(frame.len()).expect("a short frame"));
        bytes.extend([word(second), word(7), length, length].concat());
        bytes.extend(frame);
    }
    bytes
}

/// The next generation (draft-ietf-opsawg-pcapng): a section, an interface, enhanced packet blocks.
fn pcapng(frames: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = u32::try_from(body.len() + 12)
            .expect("a short block")
            .to_le_bytes();
        [&kind.to_le_bytes()[..], &length, &body, &length].concat()
    };
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0]);
    section.extend([0xff; 8]);
    let mut bytes = block(0x0a0d_0d0a, &section);
    bytes.extend(block(1, &[1, 0, 0, 0, 0xff, 0xff, 0, 0]));
    for (number, frame) in (1_000_u32..).zip(frames) {
        let length = u32::try_from(frame.len())
            .expect("a short frame")
            .to_le_bytes();
        let head = [0, 0x0005_0000, number].map(u32::to_le_bytes).concat();
        bytes.extend(block(6, &[&head[..], &length, &length, frame].concat()));
    }
    bytes
}
