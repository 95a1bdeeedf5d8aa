use super::*;

/// One record of a pcap file: time, what was captured, length on the wire.
type Record<'a> = (u32, u32, &'a [u8], u32);

fn pcap_file(magic: u32, order: Order, link: u32, records: &[Record<'_>]) -> Vec<u8> {
    let word = |number: u32| match order {
        Order::Little => number.to_le_bytes(),
        Order::Big => number.to_be_bytes(),
    };
    let mut file = word(magic).to_vec();
    file.extend(word(0x0004_0002));
    for number in [0, 0, 64, link] {
        file.extend(word(number));
    }
    for (seconds, fraction, bytes, length) in records {
        let captured = u32::try_from(bytes.len()).expect("short");
        for number in [*seconds, *fraction, captured, *length] {
            file.extend(word(number));
        }
        file.extend(*bytes);
    }
    file
}

/// A packet that was read: time, bytes, length.
type Seen = (u64, Vec<u8>, u32);

/// Every packet, and how the reading ended.
fn read(file: &[u8]) -> (Vec<Seen>, Result<(), CaptureError>) {
    let mut packets = Vec::new();
    let mut capture = match Capture::open(file) {
        Ok(capture) => capture,
        Err(error) => return (packets, Err(error)),
    };
    loop {
        match capture.next_packet() {
            Ok(Some(packet)) => {
                packets.push((packet.time_ns, packet.bytes.to_vec(), packet.length));
            }
            Ok(None) => return (packets, Ok(())),
            Err(error) => return (packets, Err(error)),
        }
    }
}

#[test]
fn pcap_in_both_orders_and_units() {
    for order in [Order::Little, Order::Big] {
        for (magic, nanoseconds) in [(0xa1b2_c3d4, 5_000), (0xa1b2_3c4d, 5)] {
            let file = pcap_file(magic, order, 1, &[(7, 5, b"abc", 1500), (8, 0, b"", 60)]);
            let (packets, end) = read(&file);
            end.expect("a whole file");
            let first = (7_000_000_000 + nanoseconds, b"abc".to_vec(), 1500);
            assert_eq!(packets, [first, (8_000_000_000, Vec::new(), 60)]);
        }
    }
}

#[test]
fn a_truncated_file_gives_what_there_is() {
    let file = pcap_file(
        0xa1b2_c3d4,
        Order::Little,
        1,
        &[(1, 0, b"abc", 3), (2, 0, b"def", 3)],
    );
    for cut in 1..19 {
        let (packets, end) = read(&file[..file.len() - cut]);
        assert_eq!(packets.len(), 1, "cut by {cut}");
        let error = end.expect_err("cut");
        assert!(
            matches!(
                error,
                CaptureError::Truncated {
                    offset: 43,
                    packet: 2
                }
            ),
            "cut by {cut}: {error}"
        );
    }
}

#[test]
fn what_is_no_capture_is_refused() {
    assert!(matches!(read(b"").1, Err(CaptureError::Empty)));
    assert!(matches!(read(b"ab").1, Err(CaptureError::Magic(_))));
    assert!(matches!(
        read(b"GET / HTTP/1.1").1,
        Err(CaptureError::Magic(_))
    ));
    let file = pcap_file(0xa1b2_c3d4, Order::Little, 147, &[]);
    assert!(matches!(read(&file).1, Err(CaptureError::LinkType(147))));
}

#[test]
fn lying_lengths_take_no_memory() {
    let mut file = pcap_file(0xa1b2_c3d4, Order::Little, 1, &[(1, 0, b"abc", 3)]);
    file[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        read(&file).1,
        Err(CaptureError::Corrupt { packet: 1, .. })
    ));
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let word = |number: u32| match order {
        Order::Little => number.to_le_bytes(),
        Order::Big => number.to_be_bytes(),
    };
    let padded = body.len().div_ceil(4) * 4;
    let length = u32::try_from(padded + 12).expect("short");
    let mut block = word(kind).to_vec();
    block.extend(word(length));
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(word(length));
    block
}

#[test]
fn pcapng_interfaces_have_their_own_link_and_resolution() {
    for order in [Order::Little, Order::Big] {
        let word = |number: u32| match order {
            Order::Little => number.to_le_bytes(),
            Order::Big => number.to_be_bytes(),
        };
        let half = |number: u16| match order {
            Order::Little => number.to_le_bytes(),
            Order::Big => number.to_be_bytes(),
        };
        let header = [&word(0x1a2b_3c4d)[..], &half(1), &half(0), &[0xff; 8]].concat();
        let mut file = block(order, 0x0a0d_0d0a, &header);
        let ethernet = [&half(1)[..], &half(0), &word(0)].concat();
        file.extend(block(order, 1, &ethernet));
        let raw = [
            &half(101)[..],
            &half(0),
            &word(0),
            &half(2),
            &half(4),
            b"tun0",
            &half(9),
            &half(1),
            &[9, 0, 0, 0],
            &half(0),
            &half(0),
        ]
        .concat();
        file.extend(block(order, 1, &raw));
        file.extend(block(order, 5, &[0; 12]));
        for interface in [0, 1] {
            let packet = [
                &word(interface)[..],
                &word(0),
                &word(77),
                &word(3),
                &word(90),
                b"abc",
            ]
            .concat();
            file.extend(block(order, 6, &packet));
        }
        let (packets, end) = read(&file);
        end.expect("a whole file");
        assert_eq!(
            packets,
            [(77_000, b"abc".to_vec(), 90), (77, b"abc".to_vec(), 90)]
        );
        let mut capture = Capture::open(&file[..]).expect("a capture");
        capture.next_packet().expect("a packet");
        let second = capture
            .next_packet()
            .expect("a packet")
            .expect("two packets");
        let interface = &second.interfaces[second.interface];
        assert_eq!((&*interface.name, interface.link), ("tun0", 101));
    }
}

/// Section header, and an interface with this link type and these options.
fn little(link: u16, options: &[u8]) -> Vec<u8> {
    let mut file = section();
    file.extend(description(link, options));
    file
}

fn section() -> Vec<u8> {
    let header = [&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..], &[0xff; 8]].concat();
    block(Order::Little, SECTION, &header)
}

fn description(link: u16, options: &[u8]) -> Vec<u8> {
    let body = [&link.to_le_bytes()[..], &[0; 6], options].concat();
    block(Order::Little, 1, &body)
}

/// A packet of three bytes at the time 7.
fn packet(interface: u8) -> Vec<u8> {
    let head = [
        interface, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0,
    ];
    block(Order::Little, 6, &[&head[..], b"abc"].concat())
}

const SECTION: u32 = 0x0a0d_0d0a;

#[test]
fn pcapng_times_may_have_an_offset() {
    for (offset, expected) in [(100_i64, 100_000_007_000), (-1, 0), (i64::MAX, u64::MAX)] {
        let options = [&[14, 0, 8, 0][..], &offset.to_le_bytes(), &[0; 4]].concat();
        let mut file = little(1, &options);
        file.extend(packet(0));
        let (packets, end) = read(&file);
        end.expect("a whole file");
        assert_eq!(packets[0].0, expected, "{offset}");
    }
}

#[test]
fn pcapng_interfaces_without_packets_may_have_any_link_type() {
    let mut file = little(187, &[]);
    file.extend(description(101, &[]));
    file.extend(packet(1));
    assert_eq!(read(&file).0.len(), 1);
    file.extend(packet(0));
    let (packets, end) = read(&file);
    assert_eq!(packets.len(), 1);
    assert!(matches!(end, Err(CaptureError::LinkType(187))));
}

#[test]
fn pcapng_blocks_that_are_not_needed_may_be_of_any_size() {
    let mut file = little(1, &[]);
    file.extend(block(Order::Little, 10, &vec![1; 3 * MAX_RECORD]));
    file.extend(packet(0));
    let (packets, end) = read(&file);
    end.expect("a whole file");
    assert_eq!(packets.len(), 1);
    let (_, end) = read(&file[..MAX_RECORD]);
    assert!(matches!(
        end,
        Err(CaptureError::Truncated {
            offset: 48,
            packet: 1
        })
    ));
}

#[test]
fn pcapng_blocks_that_contradict_themselves_are_corrupt() {
    let mut good = little(1, &[]);
    good.extend(packet(0));
    let start = good.len() - packet(0).len();
    let check = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        let (packets, end) = read(&file);
        assert!(packets.is_empty());
        assert!(
            matches!(end, Err(CaptureError::Corrupt { packet: 1, .. })),
            "{at}: {end:?}"
        );
    };
    // Length, length again, interface, captured length.
    check(start + 4, &[35]);
    check(start + 4, &[8]);
    check(start + 4, &u32::MAX.to_le_bytes());
    check(good.len() - 4, &[32]);
    check(start + 8, &[1]);
    check(start + 20, &[5]);
    // Byte order of the section.
    check(8, &[0]);
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_do_no_harm(
        mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
        kind in 0..6_usize,
        changes in proptest::collection::vec((proptest::num::usize::ANY, proptest::num::u8::ANY), 0..6),
    ) {
        let pcap = |order| pcap_file(0xa1b2_c3d4, order, 1, &[(1, 0, b"abc", 3), (2, 0, b"def", 3)]);
        let start = match kind {
            0 => pcap(Order::Little),
            1 => pcap(Order::Big),
            2 => section(),
            3 => [little(113, &[]), packet(0), packet(0)].concat(),
            4 => [little(1, &[9, 0, 1, 0, 0x86, 0, 0, 0]), packet(0)].concat(),
            _ => Vec::new(),
        };
        bytes.splice(0..0, start);
        for (at, byte) in changes {
            let at = at % bytes.len().max(1);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let (packets, _) = read(&bytes);
        let captured: usize = packets.iter().map(|(_, bytes, _)| bytes.len()).sum();
        assert!(captured <= bytes.len());
    }
}
