//! IPv6 headers and extension headers.

use std::{vec, vec::Vec};

use crate::{
    abi::Reason,
    fixture::{Extension, Fragment, Ip, LOCAL6, OUT6, REMOTE6, captured},
    parse::{Network, Part, ipv6},
};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// An extension header with this length field, as long as that says.
fn extension(kind: u8, units: u8) -> Extension {
    let length = match kind {
        AUTHENTICATION => 4 * (usize::from(units) + 2),
        _ => 8 * (usize::from(units) + 1),
    };
    let mut rest = vec![0; length - 1];
    rest[0] = units;
    Extension { kind, rest }
}

fn udp() -> Ip {
    Ip::new(OUT6, 17, [0; 40].into())
}

fn with(extensions: Vec<Extension>) -> Ip {
    Ip {
        extensions,
        ..udp()
    }
}

fn parse(bytes: &[u8]) -> Result<Network<[u64; 2]>, Reason> {
    ipv6(&captured(bytes), 0)
}

#[track_caller]
fn check(packet: &Ip, header: u32) {
    let network = parse(&packet.bytes()).expect("valid");
    assert_eq!(
        (network.protocol, network.transport),
        (packet.protocol, header)
    );
    assert_eq!(network.end, header + 40);
    assert_eq!(network.part, Part::Whole);
}

#[test]
fn header_is_read() {
    let words = |bytes: [u8; 16]| {
        let (high, low) = bytes.split_at(8);
        [high, low].map(|half| u64::from_ne_bytes(half.try_into().expect("eight bytes")))
    };
    let expected = Network {
        source: words(LOCAL6),
        destination: words(REMOTE6),
        protocol: 17,
        offset: 0,
        transport: 40,
        end: 80,
        part: Part::Whole,
        identification: 0,
    };
    assert_eq!(parse(&udp().bytes()), Ok(expected));
}

#[test]
fn every_kind_of_extension_header_is_followed() {
    for kind in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, MOBILITY] {
        for units in [0, 1, 2, 31, 255] {
            check(
                &with(vec![extension(kind, units)]),
                48 + 8 * u32::from(units),
            );
        }
    }
    // In words of four bytes, minus two (RFC 4302 section 2.2).
    for units in [0, 1, 4, 255] {
        check(
            &with(vec![extension(AUTHENTICATION, units)]),
            48 + 4 * u32::from(units),
        );
    }
}

#[test]
fn other_protocols_end_the_chain() {
    // Encapsulating security payload, no next header, IPv6 in IPv6, unassigned.
    for protocol in [50, 59, 41, 253] {
        check(
            &Ip {
                protocol,
                ..with(vec![extension(DESTINATION_OPTIONS, 0)])
            },
            48,
        );
    }
}

#[test]
fn up_to_six_extension_headers_are_followed() {
    let chain = |count| {
        let kinds = [
            HOP_BY_HOP,
            DESTINATION_OPTIONS,
            ROUTING,
            AUTHENTICATION,
            MOBILITY,
        ];
        let kinds = kinds.iter().cycle().take(count);
        with(kinds.map(|kind| extension(*kind, 1)).collect())
    };
    // Sixteen bytes each, but for the authentication header with twelve.
    for (count, header) in [(1, 56), (3, 88), (4, 100), (5, 116), (6, 132)] {
        check(&chain(count), header);
    }
    for count in 7..9 {
        assert_eq!(parse(&chain(count).bytes()), Err(Reason::ExtensionHeaders));
    }
}

#[test]
fn an_atomic_fragment_is_a_whole_datagram() {
    let fragment = Some(Fragment {
        identification: 7,
        offset: 0,
        more: false,
    });
    let packet = Ip { fragment, ..udp() };
    check(&packet, 48);
    assert_eq!(
        parse(&packet.bytes()).map(|network| network.identification),
        Ok(0)
    );
    // The two reserved bits do not matter.
    let mut bytes = packet.bytes();
    bytes[43] = 0x06;
    assert_eq!(parse(&bytes).map(|network| network.part), Ok(Part::Whole));
}

#[test]
fn fragments_are_told_apart() {
    let parse_part = |offset, more| {
        let fragment = Some(Fragment {
            identification: 0xbeef,
            offset,
            more,
        });
        let packet = Ip {
            fragment,
            ..with(vec![extension(HOP_BY_HOP, 0)])
        };
        let network = parse(&packet.bytes()).expect("valid");
        assert_eq!((network.identification, network.transport), (0xbeef, 56));
        (network.part, network.protocol)
    };
    assert_eq!(parse_part(0, true), (Part::First, 17));
    assert_eq!(parse_part(1, true), (Part::Later, 17));
    assert_eq!(parse_part(0x1fff, false), (Part::Later, 17));
}

#[test]
fn headers_behind_a_first_fragment_are_followed() {
    let fragment = Some(Fragment {
        identification: 1,
        offset: 0,
        more: true,
    });
    let mut payload = vec![17, 0, 0, 0, 0, 0, 0, 0];
    payload.extend([0; 32]);
    let packet = Ip {
        protocol: DESTINATION_OPTIONS,
        payload,
        fragment,
        ..udp()
    };
    let network = parse(&packet.bytes()).expect("valid");
    assert_eq!(
        (network.part, network.protocol, network.transport),
        (Part::First, 17, 56)
    );
}

#[test]
fn what_follows_a_later_fragment_is_data() {
    let fragment = Some(Fragment {
        identification: 1,
        offset: 9,
        more: true,
    });
    // Would be a chain without end.
    let packet = Ip {
        protocol: DESTINATION_OPTIONS,
        fragment,
        ..udp()
    };
    let network = parse(&packet.bytes()).expect("valid");
    assert_eq!(network.part, Part::Later);
    assert_eq!(
        (network.protocol, network.transport),
        (DESTINATION_OPTIONS, 48)
    );
}

#[test]
fn only_the_version_six_is_valid() {
    for version in (0..16_u8).filter(|version| *version != 6) {
        let mut bytes = udp().bytes();
        bytes[0] = version << 4;
        assert_eq!(parse(&bytes), Err(Reason::Malformed));
    }
}

#[test]
fn lengths_beyond_the_frame_are_malformed() {
    let of = |length| {
        parse(
            &Ip {
                length: Some(length),
                ..udp()
            }
            .bytes(),
        )
    };
    assert_eq!(of(40).map(|network| network.end), Ok(80));
    assert_eq!(of(1).map(|network| network.end), Ok(41));
    assert_eq!(of(41), Err(Reason::Malformed));
    assert_eq!(of(0xffff), Err(Reason::Malformed));
}

#[test]
fn extension_headers_beyond_the_packet_are_malformed() {
    // One of sixteen bytes, and the packet ends within it.
    for length in 0..16 {
        let packet = Ip {
            length: Some(length),
            ..with(vec![extension(ROUTING, 1)])
        };
        assert_eq!(parse(&packet.bytes()), Err(Reason::Malformed), "{length}");
    }
    let packet = Ip {
        length: Some(16),
        ..with(vec![extension(ROUTING, 1)])
    };
    assert_eq!(
        parse(&packet.bytes()).map(|network| network.transport),
        Ok(56)
    );
    let mut bytes = with(vec![extension(DESTINATION_OPTIONS, 0)]).bytes();
    bytes[41] = 0xff;
    assert_eq!(parse(&bytes), Err(Reason::Malformed));
}

#[test]
fn short_headers_are_truncated() {
    let bytes = with(vec![extension(DESTINATION_OPTIONS, 0)]).bytes();
    let whole = captured(&bytes);
    for length in 0..48 {
        let cut = crate::packet::Frame {
            bytes: &bytes[..length],
            ..whole
        };
        assert_eq!(ipv6(&cut, 0), Err(Reason::Truncated), "{length}");
    }
}

#[test]
fn a_payload_length_of_zero_is_that_of_the_buffer_for_large_packets() {
    let of = |protocol| Ip {
        protocol,
        length: Some(0),
        ..udp()
    };
    // BIG TCP.
    assert_eq!(parse(&of(6).bytes()).map(|network| network.end), Ok(80));
    // A jumbogram has a hop-by-hop header.
    let jumbo = Ip {
        length: Some(0),
        ..with(vec![extension(HOP_BY_HOP, 0)])
    };
    assert_eq!(parse(&jumbo.bytes()).map(|network| network.end), Ok(88));
    // Without either, there is nothing behind the header.
    assert_eq!(parse(&of(17).bytes()).map(|network| network.end), Ok(40));
}
