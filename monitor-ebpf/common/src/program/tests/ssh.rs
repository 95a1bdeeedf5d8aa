//! SSH connections: found by either end's first bytes, their segments handed to userspace.

use std::{collections::BTreeMap, vec, vec::Vec};

use crate::{
    abi::{CAPTURE_BYTES, CAPTURE_EVENTS, CHUNK_BYTES, RX, TX, flag},
    classify::App,
    fixture::{ACK, FAMILIES, IN, OUT, PORTS, PSH, SYN, World, back, ip, tcp},
};

const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.6\r\n";

/// The local end opens, both ends start at sequence number 0.
fn connected() -> World {
    let world = World::new();
    world
        .send(&ip(OUT, 6, tcp(PORTS, 0, SYN, &[])))
        .expect("counted");
    world
        .receive(&ip(IN, 6, tcp(back(PORTS), 0, SYN | ACK, &[])))
        .expect("counted");
    world
}

fn send(world: &World, sequence: u32, data: &[u8]) {
    let segment = ip(OUT, 6, tcp(PORTS, sequence, ACK, data));
    world.send(&segment).expect("counted");
}

fn receive(world: &World, sequence: u32, data: &[u8]) {
    let segment = ip(IN, 6, tcp(back(PORTS), sequence, ACK, data));
    world.receive(&segment).expect("counted");
}

/// The bytes of a direction that were handed on, by sequence number.
fn stream(world: &World, direction: usize) -> BTreeMap<u32, u8> {
    let mut stream = BTreeMap::new();
    let number = |length: usize| u32::try_from(length).expect("short");
    for told in world.told.borrow().iter() {
        if told.direction != direction {
            continue;
        }
        let mut put = |start: u32, bytes: &[u8]| {
            for (sequence, byte) in (start..).zip(bytes) {
                let before = stream.insert(sequence, *byte);
                assert!(before.is_none_or(|before| before == *byte), "{told:?}");
            }
        };
        put(told.prefix_end - number(told.prefix.len()), &told.prefix);
        put(told.sequence, &told.bytes);
    }
    stream
}

fn whole(data: &[u8]) -> BTreeMap<u32, u8> {
    (1..).zip(data.iter().copied()).collect()
}

#[test]
fn every_split_of_a_banner_comes_whole() {
    for (out, _) in FAMILIES {
        for first in 1..BANNER.len() {
            for step in 1..9 {
                let world = World::new();
                world
                    .send(&ip(out, 6, tcp(PORTS, 0, SYN, &[])))
                    .expect("counted");
                let (head, rest) = BANNER.split_at(first);
                let mut sequence = 1;
                for piece in [head].into_iter().chain(rest.chunks(step)) {
                    world
                        .send(&ip(out, 6, tcp(PORTS, sequence, ACK, piece)))
                        .expect("counted");
                    sequence += u32::try_from(piece.len()).expect("short");
                }
                assert_eq!(stream(&world, TX), whole(BANNER), "{first} {step}");
            }
        }
    }
}

#[test]
fn either_end_marks_both() {
    // What the other end says is no SSH.
    let world = connected();
    send(&world, 1, b"GET / HTTP/1.1\r\n");
    assert!(world.told.borrow().is_empty());
    receive(&world, 1, BANNER);
    send(&world, 17, b"Host: node\r\n");
    assert_eq!(world.only().1.app, App::Ssh as u8);
    assert_eq!(stream(&world, RX), whole(BANNER));
    let client = stream(&world, TX);
    let text: Vec<u8> = client.into_values().collect();
    assert_eq!(text, b"GET / HTHost: node\r\n");
}

#[test]
fn lines_before_a_banner_are_kept_for_the_case() {
    let world = connected();
    let mut text = b"Welcome to this host\r\n".to_vec();
    receive(&world, 1, &text);
    assert_eq!(world.only().1.app, App::Unknown as u8);
    assert_ne!(world.only().1.flags[RX] & flag::TEXT, 0);
    send(&world, 1, BANNER);
    receive(&world, 23, BANNER);
    text.extend_from_slice(BANNER);
    assert_eq!(stream(&world, RX), whole(&text));
    // A client speaks no text first, and bytes that are no text are none.
    for (first, data) in [(true, &text[..]), (false, &b"\0\x01\x02\x03 text"[..])] {
        let world = connected();
        if first {
            send(&world, 1, data);
        } else {
            receive(&world, 1, data);
        }
        assert!(world.told.borrow().is_empty());
    }
}

#[test]
fn text_that_is_no_ssh_is_told_of_eight_segments() {
    let world = connected();
    for index in 0..20 {
        receive(&world, 1 + index * 20, b"220 mail.example ok\n");
    }
    assert_eq!(world.told.borrow().len(), 8);
    assert_ne!(world.only().1.flags[RX] & flag::INSPECTED, 0);
}

#[test]
fn bytes_and_events_are_limited_by_direction() {
    let world = connected();
    send(&world, 1, BANNER);
    let chunk = vec![7; 1_000];
    let start = 1 + u32::try_from(BANNER.len()).expect("short");
    for index in 0..100 {
        send(&world, start + index * 1_000, &chunk);
        receive(&world, 1 + index, b"x");
    }
    let told = world.told.borrow();
    for direction in [TX, RX] {
        let of: Vec<_> = told
            .iter()
            .filter(|told| told.direction == direction)
            .collect();
        assert_eq!(of.len(), usize::from(CAPTURE_EVENTS));
        // The lengths are told on.
        assert!(of.iter().all(|told| told.length > 0));
    }
    assert_eq!(stream(&world, TX).len(), CAPTURE_BYTES as usize);
    let value = world.only().1;
    assert_eq!(value.captured[TX], CAPTURE_BYTES as u16);
    assert_eq!(value.told, [CAPTURE_EVENTS; 2]);
    for direction in [TX, RX] {
        assert_ne!(value.flags[direction] & flag::INSPECTED, 0);
    }
}

#[test]
fn a_long_segment_is_told_in_parts() {
    let world = connected();
    let mut data = BANNER.to_vec();
    data.resize(9_000, b'k');
    send(&world, 1, &data);
    let told = world.told.borrow();
    let lengths: Vec<_> = told.iter().map(|told| told.bytes.len()).collect();
    assert_eq!(lengths, [CHUNK_BYTES as usize; 4]);
    let length: u32 = told.iter().map(|told| u32::from(told.length)).sum();
    assert_eq!(length, 9_000);
    assert_eq!(stream(&world, TX), whole(&data[..CAPTURE_BYTES as usize]));
}

#[test]
fn what_was_pushed_is_told_with_its_last_byte() {
    let world = connected();
    send(&world, 1, BANNER);
    let push = |sequence, data: &[u8]| {
        let segment = tcp(back(PORTS), sequence, ACK | PSH, data);
        world.receive(&ip(IN, 6, segment)).expect("counted");
    };
    push(1, b"short");
    push(6, &[7; CHUNK_BYTES as usize + 1]);
    push(2_055, &[7; CAPTURE_BYTES as usize]);
    let told = world.told.borrow();
    let pushed: Vec<_> = told
        .iter()
        .map(|told| (told.direction, told.is_pushed))
        .collect();
    let [no, yes] = [false, true];
    let of_remote = [yes, no, yes, no, no, yes];
    let expected: Vec<_> = [(TX, no)]
        .into_iter()
        .chain(of_remote.map(|pushed| (RX, pushed)))
        .collect();
    assert_eq!(pushed, expected);
}

#[test]
fn repeated_and_early_segments_are_told_too() {
    let world = connected();
    receive(&world, 1, BANNER);
    send(&world, 22, b"kexinit");
    send(&world, 22, b"kexinit");
    send(&world, 1, BANNER);
    let mut data = BANNER.to_vec();
    data.extend_from_slice(b"kexinit");
    assert_eq!(stream(&world, TX), whole(&data));
}

#[test]
fn another_connection_between_the_same_ports_starts_anew() {
    let world = connected();
    send(&world, 1, BANNER);
    world
        .send(&ip(OUT, 6, tcp(PORTS, 90_000, SYN, &[])))
        .expect("counted");
    send(&world, 90_001, b"\x16\x03\x01\x02\0\x01\0\x01\xfc");
    let value = world.only().1;
    assert_eq!((value.app, value.told), (App::Tls as u8, [0; 2]));
    assert_eq!(world.told.borrow().len(), 1);
}

#[test]
fn ssh_within_other_data_is_none() {
    for data in [
        &b"POST / HTTP/1.1\r\n\r\nSSH-2.0-x\r\n"[..],
        b" SSH-2.0-OpenSSH\r\n",
        b"ssh-2.0-OpenSSH\r\n",
        b"SSH-3.0-OpenSSH\r\n",
        b"SSH-2.1-OpenSSH\r\n",
    ] {
        let world = connected();
        send(&world, 1, data);
        send(
            &world,
            1 + u32::try_from(data.len()).expect("short"),
            BANNER,
        );
        assert_ne!(world.only().1.app, App::Ssh as u8, "{data:?}");
    }
}
