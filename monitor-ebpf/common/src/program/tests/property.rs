//! Whatever the bytes: no panic, and every packet is in a flow or has a reason ([`World::packet`]
//! checks that after each).

use std::vec::Vec;

use proptest::prelude::*;

use crate::{
    abi::{Hook, link, point},
    fixture::{
        Addresses, Extension, Fragment, Gso, IN, IN6, Ip, OUT, OUT6, World, captured, ethernet,
        icmp, ip, sctp, tcp, udp,
    },
    packet::Frame,
};

pub(super) fn any_hook() -> impl Strategy<Value = Hook> {
    prop_oneof![Just(Hook::Ingress), Just(Hook::Egress)]
}

fn any_addresses() -> impl Strategy<Value = Addresses> {
    prop_oneof![Just(OUT), Just(IN), Just(OUT6), Just(IN6)]
}

/// A transport header of each kind between a few ports.
fn any_payload() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let ports = (0..3_u16, 0..3_u16);
    let data = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (ports.clone(), any::<u32>(), any::<u8>(), data.clone())
            .prop_map(|(ports, sequence, flags, data)| (6, tcp(ports, sequence, flags, &data))),
        2 => (ports.clone(), data.clone()).prop_map(|(ports, data)| (17, udp(ports, &data))),
        1 => ports.prop_map(|ports| (132, sctp(ports))),
        2 => (prop::sample::select(&[1_u8, 58][..]), any::<u8>(), 0..5_u8, any_addresses(), data.clone())
            .prop_map(|(protocol, kind, code, quoted, data)| {
                let quote = ip(quoted, 17, udp((1, 2), &data));
                (protocol, icmp(kind, code, 1, &quote))
            }),
        1 => (any::<u8>(), data),
    ]
}

fn any_extension() -> impl Strategy<Value = Extension> {
    let kind = prop::sample::select(&[0_u8, 43, 44, 51, 60, 135][..]);
    (kind, prop::collection::vec(any::<u8>(), 7)).prop_map(|(kind, rest)| Extension { kind, rest })
}

fn any_fragment() -> impl Strategy<Value = Fragment> {
    (0..3_u16, 0..3_u16, any::<bool>()).prop_map(|(identification, offset, more)| Fragment {
        identification,
        offset,
        more,
    })
}

/// A packet that is valid but for what its parts say of each other.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let options = (0..11_usize).prop_map(|words| [1].repeat(4 * words));
    let length = prop::option::weighted(0.1, any::<u16>());
    let extensions = prop::collection::vec(any_extension(), 0..9);
    let fragment = prop::option::weighted(0.2, any_fragment());
    (
        any_addresses(),
        any_payload(),
        options,
        length,
        extensions,
        fragment,
    )
        .prop_map(
            |(addresses, (protocol, payload), options, length, extensions, fragment)| {
                Ip {
                    options,
                    length,
                    extensions,
                    fragment,
                    ..Ip::new(addresses, protocol, payload)
                }
                .bytes()
            },
        )
}

/// A frame around a packet, of which some bytes are others.
pub(super) fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop::collection::vec(prop::sample::select(&[0x8100_u16, 0x88a8][..]), 0..4);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (tags, any_packet(), changes).prop_map(|(tags, packet, changes)| {
        let mut bytes = ethernet(&tags, &packet);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_accounted_for(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        hook in any_hook(),
        link in 0..2_u8,
        more in 0..2_000_u32,
    ) {
        let world = World::with(point::UPLINK, link);
        let frame = captured(&bytes);
        let _ = world.packet(&Frame { hook, length: frame.length + more, ..frame });
    }

    #[test]
    fn arbitrary_packets_behind_any_version_are_accounted_for(
        mut bytes in prop::collection::vec(any::<u8>(), 1..400),
        version in prop::sample::select(&[0x45_u8, 0x4f, 0x46, 0x60][..]),
        zeros in any::<bool>(),
    ) {
        bytes[0] = version;
        if zeros {
            // Lengths that stand for those of the buffer.
            bytes.iter_mut().skip(2).take(4).for_each(|byte| *byte = 0);
        }
        let world = World::with(point::WORKLOAD, link::RAW_IP);
        let _ = world.frame(Hook::Ingress, &bytes);
    }

    #[test]
    fn sequences_of_odd_packets_are_accounted_for(
        frames in prop::collection::vec((any_frame(), any_hook(), 1..4_u32, any::<bool>()), 1..30),
        cut in any::<prop::sample::Index>(),
        point in 0..2_u8,
    ) {
        let world = World::with(point, link::ETHERNET);
        for (bytes, hook, segments, is_cut) in &frames {
            let whole = captured(bytes);
            let kept = if *is_cut { cut.index(bytes.len()) } else { bytes.len() };
            let frame = Frame { bytes: &bytes[..kept], hook: *hook, ..whole };
            world.ring_full.set(segments % 2 == 0);
            let _ = world.packet(&Gso { frame, segments: *segments, cgroup_id: 0 });
        }
        // The same again is the same again.
        let again = World::with(point, link::ETHERNET);
        for (bytes, hook, segments, is_cut) in &frames {
            let whole = captured(bytes);
            let kept = if *is_cut { cut.index(bytes.len()) } else { bytes.len() };
            let frame = Frame { bytes: &bytes[..kept], hook: *hook, ..whole };
            again.ring_full.set(segments % 2 == 0);
            let _ = again.packet(&Gso { frame, segments: *segments, cgroup_id: 0 });
        }
        prop_assert_eq!(world.flows(), again.flows());
    }
}
