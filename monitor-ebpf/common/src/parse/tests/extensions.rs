//! IPv6 extension headers.

use std::{vec, vec::Vec};

use super::ENDS;
use crate::{
    abi::Reason,
    fixture::{self, fragment_header, frame},
    parse::{Network, Part, ipv6, protocol},
};

/// An extension header whose length field is `units`.
fn extension(kind: u8, units: u8, length: usize) -> (u8, Vec<u8>) {
    let mut bytes = vec![0; length];
    bytes[1] = units;
    (kind, bytes)
}

fn parse(extensions: &[(u8, Vec<u8>)]) -> Result<Network<[u64; 2]>, Reason> {
    let bytes = fixture::ipv6_with(ENDS, extensions, protocol::UDP, &[0; 8]);
    ipv6(&frame(&bytes), 0)
}

#[test]
fn every_kind_is_followed() {
    for kind in [0, 43, 60, 135] {
        for units in [0, 1, 2, 31, 255_u8] {
            let length = 8 * (usize::from(units) + 1);
            let network = parse(&[extension(kind, units, length)]).expect("valid");
            assert_eq!(network.protocol, protocol::UDP, "kind {kind}");
            assert_eq!(network.transport, 40 + fixture::length(&vec![0; length]));
            assert_eq!(network.end, network.transport + 8);
            assert_eq!(network.part, Part::Whole);
        }
    }
}

#[test]
fn an_authentication_header_counts_words() {
    for units in [1, 4, 5, 10_u8] {
        let length = 4 * (usize::from(units) + 2);
        let network = parse(&[extension(51, units, length)]).expect("valid");
        assert_eq!(network.transport, 40 + 4 * (u32::from(units) + 2));
        assert_eq!(network.protocol, protocol::UDP);
    }
}

#[test]
fn six_are_followed_and_seven_are_too_many() {
    for length in 0..=8 {
        let chain = vec![extension(60, 0, 8); length];
        let result = parse(&chain).map(|network| (network.protocol, network.transport));
        let expected = if length <= 6 {
            let all = chain.iter().map(|(_, bytes)| fixture::length(bytes)).sum::<u32>();
            Ok((protocol::UDP, 40 + all))
        } else {
            Err(Reason::ExtensionHeaders)
        };
        assert_eq!(result, expected, "{length} headers");
    }
}

#[test]
fn what_is_no_extension_header_ends_the_chain() {
    // Encapsulating security payload, no next header, an experiment.
    for number in [50, 59, 253] {
        let bytes = fixture::ipv6_with(ENDS, &[extension(60, 0, 8)], number, &[0; 8]);
        let network = ipv6(&frame(&bytes), 0).expect("valid");
        assert_eq!((network.protocol, network.transport), (number, 48));
    }
}

#[test]
fn headers_beyond_the_packet_are_malformed() {
    // The length field says sixteen bytes more than there are.
    assert_eq!(parse(&[extension(60, 3, 8)]), Err(Reason::Malformed));
    // There is a next header, and no room for it.
    let bytes = fixture::ipv6(ENDS, 60, &[17, 0, 0, 0]);
    assert_eq!(ipv6(&frame(&bytes), 0), Err(Reason::Malformed));
    let mut bytes = fixture::ipv6(ENDS, protocol::UDP, &[0; 8]);
    bytes[5] = 9;
    assert_eq!(ipv6(&frame(&bytes), 0), Err(Reason::Malformed));
    bytes[5] = 8;
    bytes[0] = 0x40;
    assert_eq!(ipv6(&frame(&bytes), 0), Err(Reason::Malformed));
}

#[test]
fn a_cut_chain_is_truncated() {
    let bytes = fixture::ipv6_with(ENDS, &[extension(60, 0, 8)], protocol::UDP, &[0; 8]);
    let mut cut = frame(&bytes);
    for end in 0..40 {
        assert_eq!(ipv6(&frame(&bytes[..end]), 0), Err(Reason::Truncated), "cut to {end}");
    }
    cut.bytes = &bytes[..47];
    assert_eq!(ipv6(&cut, 0), Err(Reason::Truncated));
    cut.bytes = &bytes[..48];
    assert!(ipv6(&cut, 0).is_ok());
}

#[test]
fn a_jumbogram_has_the_length_of_the_buffer() {
    let mut bytes = fixture::ipv6_with(ENDS, &[extension(0, 0, 8)], protocol::UDP, &[0; 100]);
    bytes[4..6].fill(0);
    let network = ipv6(&frame(&bytes), 0).expect("valid");
    assert_eq!((network.transport, network.end), (48, 148));
}

#[test]
fn parts_of_datagrams() {
    for (place, part, identification) in [
        (0x0001, Part::First, 77),
        (0x0008, Part::Later, 77),
        (0x0009, Part::Later, 77),
        (0xfff8, Part::Later, 77),
        // Atomic (RFC 6946): whole, whatever the reserved bits.
        (0x0000, Part::Whole, 0),
        (0x0006, Part::Whole, 0),
    ] {
        let network = parse(&[fragment_header(77, place)]).expect("valid");
        assert_eq!(network.part, part, "{place:#x}");
        assert_eq!(network.identification, identification, "{place:#x}");
        assert_eq!((network.protocol, network.transport), (protocol::UDP, 48));
    }
}

#[test]
fn a_chain_goes_on_behind_a_first_fragment_only() {
    let behind = |place| [fragment_header(77, place), extension(60, 0, 8)];
    let first = parse(&behind(1)).expect("valid");
    assert_eq!((first.part, first.protocol), (Part::First, protocol::UDP));
    assert_eq!(first.transport, 56);
    // In a later one there is data.
    let later = parse(&behind(8)).expect("valid");
    assert_eq!((later.part, later.protocol, later.transport), (Part::Later, 60, 48));
    // In front of the fragment header all are followed.
    let ahead = parse(&[extension(0, 0, 8), extension(43, 1, 16), fragment_header(77, 8)]);
    let ahead = ahead.expect("valid");
    assert_eq!((ahead.part, ahead.protocol, ahead.transport), (Part::Later, protocol::UDP, 72));
}
