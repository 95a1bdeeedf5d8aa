//! Echo, and destinations that are unreachable.

use std::vec::Vec;

use crate::{
    abi::{RX, TX, flag, link, point},
    fixture::{
        ACK, Addresses, FAMILIES, IN, IN6, Ip, LOCAL, LOCAL6, OUT, OUT6, PORTS, REMOTE6, SYN,
        World, back, icmp, ip, tcp, udp,
    },
};

const ROUTER: [u8; 4] = [198, 51, 100, 1];
const ROUTER6: [u8; 16] = *b"\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";

/// Types of an echo request, its answer, and of "destination unreachable".
fn kinds(addresses: Addresses) -> (u8, u8, u8) {
    if addresses.is_v6() {
        (128, 129, 1)
    } else {
        (8, 0, 3)
    }
}

/// Code of "port unreachable".
fn port_unreachable(addresses: Addresses) -> u8 {
    if addresses.is_v6() { 4 } else { 3 }
}

fn error(addresses: Addresses, code: u8, quoted: &[u8]) -> Vec<u8> {
    ip(
        addresses,
        addresses.icmp(),
        icmp(kinds(addresses).2, code, 0, quoted),
    )
}

fn is_unreachable(world: &World, protocol: u8) -> [bool; 2] {
    world
        .flow(protocol, PORTS)
        .flags
        .map(|flags| flags & flag::UNREACHABLE != 0)
}

#[test]
fn both_directions_of_an_echo_share_a_flow() {
    for (out, back) in FAMILIES {
        let (request, reply, _) = kinds(out);
        // Whoever asks.
        for local_asks in [true, false] {
            let world = World::new();
            let (ours, theirs) = if local_asks {
                (request, reply)
            } else {
                (reply, request)
            };
            let send = || world.send(&ip(out, out.icmp(), icmp(ours, 0, 77, b"ping")));
            let receive = || world.receive(&ip(back, out.icmp(), icmp(theirs, 0, 77, b"ping")));
            if local_asks {
                send().and_then(|()| receive()).expect("counted");
            } else {
                receive().and_then(|()| send()).expect("counted");
            }
            let (key, value) = world.only();
            assert_eq!(key.ports(), (77, u16::from(request) << 8));
            assert_eq!(value.packets, [1, 1]);
            let first = if local_asks { TX } else { RX };
            assert_eq!(value.flags[first], flag::FIRST);
            assert_eq!(value.flags[first ^ 1], 0);
        }
    }
}

#[test]
fn echoes_of_other_identifiers_are_other_flows() {
    let world = World::new();
    for identity in [1, 2, 1] {
        world
            .send(&ip(OUT, 1, icmp(8, 0, identity, b"ping")))
            .expect("counted");
    }
    assert_eq!(world.flow(1, (1, 0x0800)).packets, [2, 0]);
    assert_eq!(world.flow(1, (2, 0x0800)).packets, [1, 0]);
}

#[test]
fn an_answer_without_its_request_does_not_open_the_flow() {
    for (_, back) in FAMILIES {
        let world = World::new();
        let reply = kinds(back).1;
        world
            .receive(&ip(back, back.icmp(), icmp(reply, 0, 77, b"ping")))
            .expect("counted");
        assert_eq!(world.only().1.flags, [0, 0]);
    }
}

#[test]
fn an_error_marks_the_direction_of_the_packet_that_it_quotes() {
    for (out, back) in FAMILIES {
        let world = World::new();
        let datagram = ip(out, 17, udp(PORTS, b"hello"));
        world.send(&datagram).expect("counted");
        world
            .receive(&error(back, port_unreachable(out), &datagram))
            .expect("counted");
        assert_eq!(is_unreachable(&world, 17), [true, false]);
        // The message is a flow of its own.
        assert_eq!(world.flows().len(), 2);
        assert_eq!(world.flow(17, PORTS).packets, [1, 0]);
    }
}

#[test]
fn an_error_may_come_from_a_router() {
    let pairs = [
        (OUT, Addresses::V4(ROUTER, LOCAL)),
        (OUT6, Addresses::V6(ROUTER6, LOCAL6)),
    ];
    for (out, from_router) in pairs {
        let world = World::new();
        let syn = ip(out, 6, tcp(PORTS, 100, SYN, &[]));
        world.send(&syn).expect("counted");
        world
            .receive(&error(from_router, 0, &syn))
            .expect("counted");
        assert_eq!(is_unreachable(&world, 6), [true, false]);
    }
}

#[test]
fn the_local_end_may_send_the_error() {
    for (out, back_addresses) in FAMILIES {
        for point in [point::UPLINK, point::WORKLOAD] {
            let world = World::with(point, link::ETHERNET);
            let datagram = ip(back_addresses, 17, udp(back(PORTS), b"hello"));
            let answer = error(out, port_unreachable(out), &datagram);
            let (first, second) = if point == point::UPLINK {
                (world.receive(&datagram), world.send(&answer))
            } else {
                // What the pod receives, its veth sends.
                (world.send(&datagram), world.receive(&answer))
            };
            first.and(second).expect("counted");
            assert_eq!(is_unreachable(&world, 17), [false, true]);
        }
    }
}

#[test]
fn other_messages_mark_nothing() {
    // "Fragmentation needed", time exceeded, redirect; packet too big, time exceeded.
    let messages = [
        (OUT, IN, 3, 4),
        (OUT, IN, 11, 0),
        (OUT, IN, 5, 1),
        (OUT6, IN6, 2, 0),
        (OUT6, IN6, 3, 0),
    ];
    for (out, back, kind, code) in messages {
        let world = World::new();
        let datagram = ip(out, 17, udp(PORTS, b"hello"));
        world.send(&datagram).expect("counted");
        let message = ip(back, out.icmp(), icmp(kind, code, 0, &datagram));
        world.receive(&message).expect("counted");
        assert_eq!(is_unreachable(&world, 17), [false, false], "{kind} {code}");
    }
}

#[test]
fn codes_four_of_icmpv6_marks() {
    let world = World::new();
    let datagram = ip(OUT6, 17, udp(PORTS, b"hello"));
    world.send(&datagram).expect("counted");
    world.receive(&error(IN6, 4, &datagram)).expect("counted");
    assert_eq!(is_unreachable(&world, 17), [true, false]);
}

#[test]
fn echoes_and_packets_without_ports_may_be_quoted() {
    const GRE: u8 = 47;
    for (out, back) in FAMILIES {
        let (request, ..) = kinds(out);
        let echo = (77, u16::from(request) << 8);
        let ping = icmp(request, 0, 77, b"ping");
        let cases = [
            (out.icmp(), echo, ip(out, out.icmp(), ping)),
            (GRE, (0, 0), ip(out, GRE, [0; 8].into())),
        ];
        for (protocol, ports, packet) in cases {
            let world = World::new();
            world.send(&packet).expect("counted");
            // An echo of another identifier is another's.
            let other = ip(out, out.icmp(), icmp(request, 0, 78, b"ping"));
            world.receive(&error(back, 1, &other)).expect("counted");
            let marked = |world: &World| {
                let flags = world.flow(protocol, ports).flags;
                flags.map(|flags| flags & flag::UNREACHABLE != 0)
            };
            assert_eq!(marked(&world), [false, false], "{protocol}");
            world.receive(&error(back, 1, &packet)).expect("counted");
            assert_eq!(marked(&world), [true, false], "{protocol}");
        }
    }
}

#[test]
fn eight_bytes_behind_the_quoted_header_suffice() {
    for (out, back) in FAMILIES {
        let world = World::new();
        let syn = ip(out, 6, tcp(PORTS, 100, SYN, &[]));
        world.send(&syn).expect("counted");
        let header = usize::try_from(out.header()).expect("small");
        for quoted in [header + 3, header + 4, header + 8] {
            world
                .receive(&error(back, 1, &syn[..quoted]))
                .expect("counted");
            let expected = quoted > header + 3;
            assert_eq!(is_unreachable(&world, 6), [expected, false], "{quoted}");
        }
    }
}

#[test]
fn options_of_the_quoted_packet_are_passed_over() {
    let world = World::new();
    let packet = Ip {
        options: [1; 40].into(),
        ..Ip::new(OUT, 17, udp(PORTS, b"hello"))
    }
    .bytes();
    world.send(&packet).expect("counted");
    world.receive(&error(IN, 3, &packet)).expect("counted");
    assert_eq!(is_unreachable(&world, 17), [true, false]);
}

#[test]
fn nonsense_in_the_quote_marks_nothing() {
    for (out, back) in FAMILIES {
        let world = World::new();
        let datagram = ip(out, 17, udp(PORTS, b"hello"));
        world.send(&datagram).expect("counted");
        for (at, byte) in [(0, 0x00), (0, 0x44), (0, 0x54)] {
            let mut quote = datagram.clone();
            quote[at] = byte;
            world.receive(&error(back, 1, &quote)).expect("counted");
        }
        // A connection that is not known, and one of another protocol.
        world
            .receive(&error(back, 1, &ip(out, 17, udp((5, 6), &[]))))
            .expect("counted");
        world
            .receive(&error(back, 1, &ip(out, 6, tcp(PORTS, 1, ACK, &[]))))
            .expect("counted");
        world.receive(&error(back, 1, &[])).expect("counted");
        assert_eq!(is_unreachable(&world, 17), [false, false]);
    }
}

#[test]
fn control_messages_of_the_other_family_mark_nothing() {
    // ICMPv6 in IPv4 and ICMP in IPv6 are protocols like any other.
    let world = World::new();
    let datagram = ip(OUT, 17, udp(PORTS, b"hello"));
    world.send(&datagram).expect("counted");
    world
        .receive(&ip(IN, 58, icmp(1, 4, 0, &datagram)))
        .expect("counted");
    assert_eq!(is_unreachable(&world, 17), [false, false]);
    let world = World::new();
    let datagram = ip(OUT6, 17, udp(PORTS, b"hello"));
    world.send(&datagram).expect("counted");
    let inner = Addresses::V6(REMOTE6, LOCAL6);
    world
        .receive(&ip(inner, 1, icmp(3, 3, 0, &datagram)))
        .expect("counted");
    assert_eq!(is_unreachable(&world, 17), [false, false]);
}
