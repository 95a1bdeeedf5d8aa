//! Frames of any content, through the program that the kernel runs.

use monitor_common::abi::{Hook, Interface, link, point};

use super::input::Input;
use crate::frames::{Generator, Sample, host::Host};

/// The interface that is known.
const IFINDEX: u32 = 3;

pub(super) const WORDS: &[&[u8]] = &[
    b"SSH-2.0-",
    b"\x08\x00\x45\x00",
    b"\x86\xdd\x60\x00",
    b"\x81\x00\x00\x01",
    b"\x88\xa8\x00\x01",
    b"\x2c\x00\x00\x01",
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
];

/// Frames, each with a byte for hook and interface and two for its length.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = input.byte();
    let host = Host::new(Interface {
        ifindex: IFINDEX,
        id: 7,
        point: if kind & 1 == 0 {
            point::UPLINK
        } else {
            point::WORKLOAD
        },
        link: if kind & 2 == 0 {
            link::ETHERNET
        } else {
            link::RAW_IP
        },
        ..Interface::default()
    });
    while !input.is_empty() {
        let how = input.byte();
        let length = usize::from(input.half() & 0x0fff);
        let sample = Sample {
            hook: if how & 1 == 0 {
                Hook::Ingress
            } else {
                Hook::Egress
            },
            bytes: input.take(length).to_vec(),
        };
        host.feed(
            &sample,
            if how & 0xf0 == 0xf0 {
                IFINDEX + 1
            } else {
                IFINDEX
            },
        );
    }
    let books = host.books();
    for (counters, uncounted) in books.counters.iter().zip(&books.uncounted) {
        for hook in [Hook::Ingress as usize, Hook::Egress as usize] {
            let uncounted: u64 = uncounted.packets[hook].iter().sum();
            assert_eq!(
                counters.seen[hook],
                counters.counted[hook] + uncounted,
                "hook {hook}"
            );
        }
    }
    // What was counted is in the flows that are, and in those that ended.
    let flows = books
        .flows
        .values()
        .chain(books.ended.iter().map(|(_, facts)| facts));
    let (mut packets, mut sizes) = (0, 0);
    for facts in flows {
        packets += facts.packets.iter().sum::<u64>();
        sizes += facts.bytes.iter().sum::<u64>();
    }
    let counted: u64 = books.counters.iter().flat_map(|one| one.counted).sum();
    let bytes: u64 = books.counters.iter().flat_map(|one| one.bytes).sum();
    assert_eq!((packets, sizes), (counted, bytes));
    for told in &books.told {
        assert!(told.bytes.len() <= usize::from(told.length), "{told:?}");
        assert!(
            usize::from(told.prefix.1) <= told.prefix.0.len(),
            "{told:?}"
        );
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    (0..24)
        .map(|seed| {
            let mut bytes = vec![u8::from(seed % 2 == 1)];
            for sample in Generator::new(seed).take(12) {
                let length = u16::try_from(sample.bytes.len()).unwrap_or(u16::MAX) & 0x0fff;
                bytes.push(u8::from(sample.hook == Hook::Egress));
                bytes.extend(length.to_be_bytes());
                bytes.extend(&sample.bytes[..usize::from(length)]);
            }
            bytes
        })
        .collect()
}
