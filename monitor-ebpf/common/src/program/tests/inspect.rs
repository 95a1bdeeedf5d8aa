//! Application protocol from the first payload bytes, however they are split.

use std::vec::Vec;

use crate::{
    abi::{FlowValue, RX, TX, flag},
    classify::App,
    fixture::{ACK, IN, OUT, PORTS, SYN, World, back, ip, tcp, udp},
};

const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.6\r\n";

/// The value after these segments of the local end, which opened the connection with sequence
/// number 0.
fn after<'a>(segments: impl IntoIterator<Item = (u32, &'a [u8])>) -> FlowValue {
    let world = World::new();
    world
        .send(&ip(OUT, 6, tcp(PORTS, 0, SYN, &[])))
        .expect("counted");
    for (sequence, data) in segments {
        world
            .send(&ip(OUT, 6, tcp(PORTS, sequence, ACK, data)))
            .expect("counted");
    }
    world.only().1
}

/// Cuts into pieces of these lengths; the rest is the last.
fn pieces<'a>(mut data: &'a [u8], lengths: &[usize]) -> Vec<(u32, &'a [u8])> {
    let mut sequence = 1;
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, rest) = data.split_at(*length);
        pieces.push((sequence, piece));
        sequence += u32::try_from(*length).expect("short");
        data = rest;
    }
    pieces.push((sequence, data));
    pieces
}

#[test]
fn a_banner_is_found_however_it_is_split() {
    let splits: [&[usize]; 9] = [
        &[],
        &[8],
        &[7],
        &[1],
        &[4, 4],
        &[3, 3],
        &[1, 2, 3],
        &[1, 1, 1, 1, 1, 1, 1],
        &[1, 1, 1, 1, 1, 1, 1, 1],
    ];
    for split in splits {
        let value = after(pieces(BANNER, split));
        assert_eq!(value.app, App::Ssh as u8, "{split:?}");
        assert_eq!(value.flags[TX] & flag::INSPECTED, 0, "{split:?}");
        assert_eq!(value.retransmits, [0, 0]);
    }
}

#[test]
fn the_server_may_speak_first() {
    let world = World::new();
    world
        .send(&ip(OUT, 6, tcp(PORTS, 0, SYN, &[])))
        .expect("counted");
    for (sequence, data) in pieces(BANNER, &[2, 2]) {
        world
            .receive(&ip(IN, 6, tcp(back(PORTS), sequence, ACK, data)))
            .expect("counted");
    }
    assert_eq!(world.only().1.app, App::Ssh as u8);
}

#[test]
fn repeated_segments_are_not_appended() {
    let whole = pieces(BANNER, &[3, 3]);
    let repeated = [whole[0], whole[0], whole[1], whole[0], whole[1], whole[2]];
    let value = after(repeated);
    assert_eq!((value.app, value.retransmits), (App::Ssh as u8, [3, 0]));
}

#[test]
fn segments_out_of_order_are_never_joined_wrongly() {
    // "SSH-" comes last; what came first would have read "2.0-SSH-".
    let whole = pieces(b"SSH-2.0-", &[4]);
    let value = after([whole[1], whole[0]]);
    assert_eq!(value.app, App::Unknown as u8);
    // A gap, and then what looks like the rest of a banner.
    let value = after([(1, &b"SSH-"[..]), (100, &b"2.0-"[..])]);
    assert_eq!(value.app, App::Unknown as u8);
    // The gap is filled before it was too late.
    let whole = pieces(BANNER, &[4, 2, 9]);
    let value = after([whole[0], whole[1], whole[3], whole[2]]);
    assert_eq!((value.app, value.prefix_length[TX]), (App::Ssh as u8, 8));
}

#[test]
fn after_eight_segments_nothing_is_looked_at() {
    // Eight pieces of payload, none of which makes a prefix whole: seven come before their turn.
    let whole = pieces(BANNER, &[1]);
    let mut segments = Vec::from([whole[0]]);
    segments.extend([(100, &b"x"[..]); 7]);
    segments.push(whole[1]);
    let value = after(segments);
    assert_eq!(value.app, App::Unknown as u8);
    assert_ne!(value.flags[TX] & flag::INSPECTED, 0);
}

#[test]
fn retransmissions_do_not_use_up_what_is_looked_at() {
    let whole = pieces(BANNER, &[1, 1, 1, 1, 1, 1]);
    let repeated = |times| {
        let mut segments = Vec::from([whole[0]]);
        segments.extend(core::iter::repeat_n(whole[0], times));
        segments.extend(&whole[1..]);
        after(segments)
    };
    for times in [8, 15] {
        assert_eq!(repeated(times).app, App::Ssh as u8, "{times}");
    }
    // Not for ever.
    let value = repeated(56);
    assert_eq!(value.app, App::Unknown as u8);
    assert_ne!(value.flags[TX] & flag::INSPECTED, 0);
}

#[test]
fn what_is_not_recognised_stays_unknown() {
    let value = after([(1, &b"\x01\x02\x03\x04\x05\x06\x07\x08"[..]), (9, BANNER)]);
    assert_eq!(value.app, App::Unknown as u8);
    assert_ne!(value.flags[TX] & flag::INSPECTED, 0);
}

#[test]
fn once_recognised_it_stays() {
    let world = World::new();
    world
        .send(&ip(OUT, 6, tcp(PORTS, 0, SYN, &[])))
        .expect("counted");
    world
        .send(&ip(OUT, 6, tcp(PORTS, 1, ACK, BANNER)))
        .expect("counted");
    let http = ip(IN, 6, tcp(back(PORTS), 1, ACK, b"HTTP/1.1 200 OK\r\n"));
    world.receive(&http).expect("counted");
    let value = world.only().1;
    assert_eq!(value.app, App::Ssh as u8);
    assert_eq!(value.flags[RX] & flag::INSPECTED, 0);
}

#[test]
fn midstream_payload_is_looked_at_from_its_first_segment() {
    let world = World::new();
    world
        .send(&ip(OUT, 6, tcp(PORTS, 7_000, ACK, b"GET / HTTP/1.1\r\n")))
        .expect("counted");
    assert_eq!(world.only().1.app, App::Http as u8);
}

#[test]
fn a_payload_that_was_not_captured_does_no_harm() {
    let world = World::new();
    let bytes = crate::fixture::ethernet(&[], &ip(OUT, 6, tcp(PORTS, 1, ACK, BANNER)));
    for length in [54, 55, 58, 61] {
        let whole = crate::fixture::captured(&bytes);
        let cut = crate::packet::Frame {
            bytes: &bytes[..length],
            ..whole
        };
        world.packet(&cut).expect("counted");
    }
    let value = world.only().1;
    assert_eq!((value.app, value.packets), (App::Unknown as u8, [4, 0]));
}

const QUERY: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01";

#[test]
fn datagrams_are_recognised_by_their_payload() {
    let world = World::new();
    world
        .send(&ip(OUT, 17, udp(PORTS, QUERY)))
        .expect("counted");
    let value = world.only().1;
    assert_eq!(value.app, App::Dns as u8);
    assert_eq!(value.flags[TX], flag::FIRST | flag::DATA | flag::INSPECTED);
}

#[test]
fn four_datagrams_of_a_direction_are_looked_at() {
    for junk in 0..6 {
        let world = World::new();
        // Empty ones do not count.
        world.send(&ip(OUT, 17, udp(PORTS, &[]))).expect("counted");
        for _ in 0..junk {
            world
                .send(&ip(OUT, 17, udp(PORTS, &[0xff; 20])))
                .expect("counted");
        }
        world
            .send(&ip(OUT, 17, udp(PORTS, QUERY)))
            .expect("counted");
        let expected = if junk < 4 { App::Dns } else { App::Unknown };
        assert_eq!(world.only().1.app, expected as u8, "{junk}");
        // The other direction has its own number.
        world
            .receive(&ip(IN, 17, udp(back(PORTS), QUERY)))
            .expect("counted");
        assert_eq!(world.only().1.app, App::Dns as u8, "{junk}");
    }
}

#[test]
fn short_datagrams_are_not_recognised() {
    let world = World::new();
    for length in 1..4 {
        world
            .send(&ip(OUT, 17, udp(PORTS, &QUERY[..length * 5])))
            .expect("counted");
    }
    assert_eq!(world.only().1.app, App::Unknown as u8);
}
