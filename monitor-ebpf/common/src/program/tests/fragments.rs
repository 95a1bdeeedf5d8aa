//! Fragmented datagrams: later fragments have no ports.

use std::{vec, vec::Vec};

use crate::{
    abi::{Hook, Reason},
    fixture::{
        Addresses, Extension, FAMILIES, Fragment, IN, Ip, OUT, OUT6, PORTS, World, back, icmp,
        sctp, tcp, udp,
    },
};

fn part(addresses: Addresses, protocol: u8, part: (u16, u16, bool), payload: Vec<u8>) -> Vec<u8> {
    let (identification, offset, more) = part;
    let fragment = Some(Fragment {
        identification,
        offset,
        more,
    });
    Ip {
        fragment,
        ..Ip::new(addresses, protocol, payload)
    }
    .bytes()
}

fn first(addresses: Addresses, identification: u16) -> Vec<u8> {
    part(
        addresses,
        17,
        (identification, 0, true),
        udp(PORTS, &[0; 40]),
    )
}

fn later(addresses: Addresses, identification: u16) -> Vec<u8> {
    part(addresses, 17, (identification, 6, false), vec![0xff; 24])
}

#[test]
fn later_fragments_belong_to_the_flow_of_the_first() {
    for (out, _) in FAMILIES {
        let world = World::new();
        world.send(&first(out, 7)).expect("counted");
        world.send(&later(out, 7)).expect("counted");
        world.send(&later(out, 7)).expect("counted");
        let (key, value) = world.only();
        assert_eq!(key.ports(), PORTS);
        let header = out.header() + if out.is_v6() { 8 } else { 0 };
        assert_eq!(value.packets, [3, 0]);
        assert_eq!(value.bytes, [48 + 2 * 24 + 3 * header, 0]);
    }
}

#[test]
fn later_fragments_without_the_first_are_unknown() {
    for (out, back_addresses) in FAMILIES {
        let world = World::new();
        assert_eq!(world.send(&later(out, 7)), Err(Reason::FragmentUnknown));
        world.send(&first(out, 7)).expect("counted");
        // Another datagram, another direction, another protocol.
        assert_eq!(world.send(&later(out, 8)), Err(Reason::FragmentUnknown));
        assert_eq!(
            world.receive(&later(back_addresses, 7)),
            Err(Reason::FragmentUnknown)
        );
        let other = part(out, 6, (7, 6, false), vec![0; 24]);
        assert_eq!(world.send(&other), Err(Reason::FragmentUnknown));
        assert_eq!(world.reasons(Hook::Egress), [(Reason::FragmentUnknown, 3)]);
        assert_eq!(world.only().1.packets, [1, 0]);
        world.send(&later(out, 7)).expect("counted");
    }
}

#[test]
fn both_directions_have_their_own_datagrams() {
    let world = World::new();
    world.send(&first(OUT, 7)).expect("counted");
    world
        .receive(&part(IN, 17, (7, 0, true), udp(back(PORTS), &[0; 40])))
        .expect("counted");
    world.receive(&later(IN, 7)).expect("counted");
    assert_eq!(world.only().1.packets, [1, 2]);
}

#[test]
fn a_reused_identification_goes_to_the_last_datagram() {
    let world = World::new();
    world.send(&first(OUT, 7)).expect("counted");
    world
        .send(&part(OUT, 17, (7, 0, true), udp((1, 2), &[0; 40])))
        .expect("counted");
    world.send(&later(OUT, 7)).expect("counted");
    assert_eq!(world.flow(17, (1, 2)).packets, [2, 0]);
}

#[test]
fn every_protocol_may_be_fragmented() {
    for (out, _) in FAMILIES {
        let echo = if out.is_v6() { 128 } else { 8 };
        for (protocol, payload, ports) in [
            (6, tcp(PORTS, 1, 0x10, &[0; 20]), PORTS),
            (132, sctp(PORTS), PORTS),
            (
                out.icmp(),
                icmp(echo, 0, 9, &[0; 32]),
                (9, u16::from(echo) << 8),
            ),
            (47, vec![0; 24], (0, 0)),
        ] {
            let world = World::new();
            world
                .send(&part(out, protocol, (7, 0, true), payload))
                .expect("counted");
            world
                .send(&part(out, protocol, (7, 5, false), vec![0; 8]))
                .expect("counted");
            assert_eq!(world.flow(protocol, ports).packets, [2, 0], "{protocol}");
        }
    }
}

#[test]
fn the_data_of_later_fragments_is_not_taken_for_a_header() {
    let world = World::new();
    let ack = tcp(PORTS, 100, 0x10, &[0; 4]);
    world
        .send(&part(OUT, 6, (7, 0, true), ack))
        .expect("counted");
    let before = world.only().1;
    // Looks like a SYN.
    world
        .send(&part(OUT, 6, (7, 3, false), tcp(PORTS, 9, 0x02, &[])))
        .expect("counted");
    let value = world.only().1;
    assert_eq!((value.flags, value.generation), (before.flags, 0));
    assert_eq!(value.next_sequence, before.next_sequence);
}

#[test]
fn short_first_fragments_are_malformed_and_not_remembered() {
    for (out, _) in FAMILIES {
        let world = World::new();
        let cut = part(out, 6, (7, 0, true), tcp(PORTS, 1, 0x02, &[])[..16].into());
        assert_eq!(world.send(&cut), Err(Reason::Malformed));
        let rest = part(out, 6, (7, 2, false), vec![0; 8]);
        assert_eq!(world.send(&rest), Err(Reason::FragmentUnknown));
    }
}

#[test]
fn headers_in_front_of_the_fragment_header_are_in_every_fragment() {
    let world = World::new();
    let extension = Extension {
        kind: 60,
        rest: vec![0; 7],
    };
    for (offset, more, payload) in [(0, true, udp(PORTS, &[0; 40])), (6, false, vec![0; 8])] {
        let fragment = Some(Fragment {
            identification: 7,
            offset,
            more,
        });
        let extensions = vec![extension.clone()];
        let packet = Ip {
            fragment,
            extensions,
            ..Ip::new(OUT6, 17, payload)
        };
        world.send(&packet.bytes()).expect("counted");
    }
    assert_eq!(world.only().1.packets, [2, 0]);
}

#[test]
fn atomic_fragments_need_no_memory() {
    let world = World::new();
    world
        .send(&part(OUT6, 17, (7, 0, false), udp(PORTS, &[])))
        .expect("counted");
    assert_eq!(world.send(&later(OUT6, 7)), Err(Reason::FragmentUnknown));
    assert_eq!(world.only().1.bytes, [56, 0]);
}
