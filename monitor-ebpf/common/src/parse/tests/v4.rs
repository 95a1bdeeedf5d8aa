//! IPv4 headers.

use std::vec::Vec;

use crate::{
    abi::Reason,
    fixture::{Fragment, Ip, LOCAL, OUT, REMOTE, captured},
    parse::{Network, Part, ipv4},
};

fn udp() -> Ip {
    Ip::new(OUT, 17, [0; 40].into())
}

fn parse(bytes: &[u8]) -> Result<Network<u32>, Reason> {
    ipv4(&captured(bytes), 0)
}

#[test]
fn header_is_read() {
    let expected = Network {
        source: u32::from_be_bytes(LOCAL),
        destination: u32::from_be_bytes(REMOTE),
        protocol: 17,
        offset: 0,
        transport: 20,
        end: 60,
        part: Part::Whole,
        identification: 0,
    };
    assert_eq!(parse(&udp().bytes()), Ok(expected));
}

#[test]
fn options_move_the_transport_header() {
    for words in 0..=10_u8 {
        let options = [1].repeat(4 * usize::from(words));
        let network = parse(&Ip { options, ..udp() }.bytes()).expect("valid");
        let header = 20 + 4 * u32::from(words);
        assert_eq!((network.transport, network.end), (header, header + 40));
    }
}

#[test]
fn headers_that_contradict_themselves_are_malformed() {
    let change = |at: usize, byte: u8| {
        let mut bytes = udp().bytes();
        bytes[at] = byte;
        parse(&bytes)
    };
    for version in (0..16_u8).filter(|version| *version != 4) {
        assert_eq!(change(0, version << 4 | 5), Err(Reason::Malformed));
    }
    for words in 0..5 {
        assert_eq!(change(0, 0x40 | words), Err(Reason::Malformed));
    }
    // Longer than the packet says it is.
    assert_eq!(change(3, 19), Err(Reason::Malformed));
    // Longer than the frame is.
    assert_eq!(change(3, 61), Err(Reason::Malformed));
    assert_eq!(change(2, 0xff), Err(Reason::Malformed));
    assert_eq!(change(3, 60).map(|network| network.end), Ok(60));
    // A header, and nothing behind it.
    assert_eq!(change(3, 20).map(|network| network.end), Ok(20));
}

#[test]
fn options_beyond_the_total_length_are_malformed() {
    let packet = Ip {
        options: [1; 40].into(),
        length: Some(59),
        ..udp()
    };
    assert_eq!(parse(&packet.bytes()), Err(Reason::Malformed));
}

#[test]
fn short_headers_are_truncated() {
    let bytes = udp().bytes();
    for length in 0..20 {
        assert_eq!(parse(&bytes[..length]), Err(Reason::Truncated));
    }
}

#[test]
fn padding_does_not_count() {
    let mut bytes = udp().bytes();
    bytes.extend([0; 30]);
    assert_eq!(parse(&bytes).map(|network| network.end), Ok(60));
}

#[test]
fn a_total_length_of_zero_is_that_of_the_buffer_for_tcp_only() {
    let of = |protocol| {
        Ip {
            protocol,
            length: Some(0),
            ..udp()
        }
        .bytes()
    };
    assert_eq!(parse(&of(6)).map(|network| network.end), Ok(60));
    for protocol in [0, 1, 17, 47, 58, 132] {
        assert_eq!(parse(&of(protocol)), Err(Reason::Malformed));
    }
}

#[test]
fn fragments_are_told_apart() {
    let part = |offset, more| {
        let fragment = Some(Fragment {
            identification: 0xbeef,
            offset,
            more,
        });
        let network = parse(&Ip { fragment, ..udp() }.bytes()).expect("valid");
        assert_eq!(network.identification, 0xbeef);
        network.part
    };
    assert_eq!(part(0, false), Part::Whole);
    assert_eq!(part(0, true), Part::First);
    assert_eq!(part(1, true), Part::Later);
    assert_eq!(part(1, false), Part::Later);
    assert_eq!(part(0x1fff, false), Part::Later);
}

#[test]
fn reserved_and_do_not_fragment_bits_make_no_fragment() {
    for bits in [0x40, 0x80, 0xc0] {
        let mut bytes = udp().bytes();
        bytes[6] = bits;
        assert_eq!(parse(&bytes).map(|network| network.part), Ok(Part::Whole));
    }
}

#[test]
fn the_network_header_may_be_anywhere() {
    for offset in [0_u32, 1, 14, 18, 22] {
        let mut bytes: Vec<u8> = [0xff].repeat(offset as usize);
        bytes.extend(
            Ip {
                options: [1; 8].into(),
                ..udp()
            }
            .bytes(),
        );
        let network = ipv4(&captured(&bytes), offset).expect("valid");
        assert_eq!(network.offset, offset);
        assert_eq!((network.transport, network.end), (offset + 28, offset + 68));
    }
}
