//! The fast way: who goes it, and that it leads where the general one does.

use std::vec::Vec;

use proptest::prelude::*;

use super::property::{any_frame, any_hook};
use crate::{
    abi::{Hook, RX, TX, link, point},
    fixture::{
        ACK, FAMILIES, FIN, Gso, IN, IN6, OUT, OUT6, PORTS, PSH, RST, SYN, World, back, captured,
        ethernet, ip, tcp, udp,
    },
    packet::Frame,
};

/// A frame at a hook, how much of it is captured, and for how many packets it stands.
type Step = (Vec<u8>, Hook, usize, u32);

/// A segment or datagram of one of a few conversations, most of them unremarkable.
fn any_of_a_conversation() -> impl Strategy<Value = (Vec<u8>, Hook)> {
    let flags = prop_oneof![
        12 => prop::sample::select(&[ACK, ACK | PSH][..]),
        1 => prop::sample::select(&[SYN, SYN | ACK, FIN | ACK, RST, 0][..]),
        1 => any::<u8>(),
    ];
    (
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.7),
        0..400_u32,
        flags,
        prop::collection::vec(any::<u8>(), 0..12),
        // One byte of the headers is another, often one of the length, or that of fragments.
        prop::option::weighted(
            0.2,
            prop_oneof![
                (12..74_usize, any::<u8>()),
                (prop::sample::select(&[17_usize, 19][..]), 0..70_u8),
                (Just(20), prop::sample::select(&[0x20_u8, 0x40, 0x80][..])),
            ],
        ),
    )
        .prop_map(|(v6, is_out, is_tcp, sequence, flags, data, change)| {
            let addresses = match (v6, is_out) {
                (false, true) => OUT,
                (false, false) => IN,
                (true, true) => OUT6,
                (true, false) => IN6,
            };
            let ports = if is_out { PORTS } else { back(PORTS) };
            let packet = if is_tcp {
                ip(addresses, 6, tcp(ports, sequence, flags, &data))
            } else {
                ip(addresses, 17, udp(ports, &data))
            };
            let hook = if is_out { Hook::Egress } else { Hook::Ingress };
            let mut bytes = ethernet(&[], &packet);
            if let Some((index, other)) = change
                && let Some(byte) = bytes.get_mut(index)
            {
                *byte = other;
            }
            (bytes, hook)
        })
}

fn any_step() -> impl Strategy<Value = Step> {
    let frame = prop_oneof![
        10 => any_of_a_conversation(),
        1 => (any_frame(), any_hook()),
    ];
    let cut = prop::option::weighted(0.05, any::<prop::sample::Index>());
    (frame, cut, prop_oneof![8 => Just(1_u32), 1 => 2..50_u32]).prop_map(
        |((bytes, hook), cut, segments)| {
            let kept = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
            (bytes, hook, kept, segments)
        },
    )
}

fn feed<const FAST: bool>(world: &World<FAST>, steps: &[Step]) {
    for (index, (bytes, hook, kept, segments)) in steps.iter().enumerate() {
        world.ticks.set(u32::try_from(index / 3).expect("few"));
        let frame = Frame {
            bytes: &bytes[..*kept],
            hook: *hook,
            ..captured(bytes)
        };
        let _ = world.packet(&Gso {
            frame,
            segments: *segments,
            cgroup_id: 0,
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn fast_and_general_ways_agree(
        steps in prop::collection::vec(any_step(), 1..120),
        point in 0..2_u8,
        link in prop_oneof![9 => Just(link::ETHERNET), 1 => Just(link::RAW_IP)],
    ) {
        let (fast, general) = (World::with(point, link), World::general(point, link));
        feed(&fast, &steps);
        feed(&general, &steps);
        prop_assert_eq!(fast.flows(), general.flows());
        prop_assert_eq!(&*fast.ended.borrow(), &*general.ended.borrow());
        prop_assert_eq!(&*fast.told.borrow(), &*general.told.borrow());
        prop_assert_eq!(&*fast.fragments.borrow(), &*general.fragments.borrow());
        prop_assert_eq!(*fast.counters.borrow(), *general.counters.borrow());
        prop_assert_eq!(*fast.uncounted.borrow(), *general.uncounted.borrow());
        prop_assert!(fast.searches.get() <= general.searches.get());
    }
}

/// Packets of a connection: nothing but the fast way is needed for any of them.
#[track_caller]
fn goes_fast(world: &World, send: impl FnOnce(&World)) {
    let (before, packets) = (world.searches.get(), counted(world));
    send(world);
    assert!(counted(world) > packets);
    assert_eq!(world.searches.get(), before);
}

/// One packet that is not for the fast way.
#[track_caller]
fn goes_the_general_way(world: &World, send: impl FnOnce(&World)) {
    let before = world.searches.get();
    send(world);
    assert!(world.searches.get() > before);
}

fn counted(world: &World) -> u64 {
    world.flows().values().flat_map(|value| value.packets).sum()
}

#[test]
fn what_is_usual_in_a_connection_goes_the_fast_way() {
    for (out, into) in FAMILIES {
        for (point, hooks) in [
            (point::UPLINK, [Hook::Egress, Hook::Ingress]),
            (point::WORKLOAD, [Hook::Ingress, Hook::Egress]),
        ] {
            let world = World::with(point, link::ETHERNET);
            let send = |world: &World, sequence, flags, data: &[u8]| {
                let packet = ethernet(&[], &ip(out, 6, tcp(PORTS, sequence, flags, data)));
                world.frame(hooks[TX], &packet).expect("counted");
            };
            let receive = |world: &World, sequence, flags, data: &[u8]| {
                let packet = ethernet(&[], &ip(into, 6, tcp(back(PORTS), sequence, flags, data)));
                world.frame(hooks[RX], &packet).expect("counted");
            };
            goes_the_general_way(&world, |world| send(world, 100, SYN, &[]));
            goes_the_general_way(&world, |world| receive(world, 500, SYN | ACK, &[]));
            // It completes the handshake.
            goes_the_general_way(&world, |world| send(world, 101, ACK, &[]));
            goes_fast(&world, |world| {
                send(world, 101, ACK, &[]);
                receive(world, 501, ACK, &[]);
            });
            // Payload is looked at until it is known what it is.
            goes_the_general_way(&world, |world| send(world, 101, ACK | PSH, &[1; 60]));
            goes_fast(&world, |world| {
                send(world, 161, ACK | PSH, &[2; 40]);
                send(world, 201, ACK, &[3; 40]);
            });
            // Sent again: a retransmission.
            goes_the_general_way(&world, |world| send(world, 161, ACK | PSH, &[2; 40]));
            goes_fast(&world, |world| {
                send(world, 241, FIN | ACK, &[]);
                receive(world, 501, RST, &[]);
            });
            goes_the_general_way(&world, |world| send(world, 9_000, SYN, &[]));
        }
    }
}

#[test]
fn datagrams_go_the_fast_way_when_they_were_looked_at() {
    for (out, _) in FAMILIES {
        let world = World::new();
        let send = |world: &World| {
            let packet = ip(out, 17, udp(PORTS, &[1; 40]));
            world.send(&packet).expect("counted");
        };
        for _ in 0..4 {
            goes_the_general_way(&world, send);
        }
        goes_fast(&world, send);
    }
}

#[test]
fn what_is_not_plain_goes_the_general_way() {
    let world = World::new();
    let plain = ip(OUT, 17, udp(PORTS, &[1; 40]));
    for _ in 0..5 {
        world.send(&plain).expect("counted");
    }
    let tagged = ethernet(&[0x8100], &plain);
    goes_the_general_way(&world, |world| {
        world.frame(Hook::Egress, &tagged).expect("counted");
    });
    goes_the_general_way(&world, |world| {
        let options = crate::fixture::Ip {
            options: std::vec![1; 4],
            ..crate::fixture::Ip::new(OUT, 17, udp(PORTS, &[1; 40]))
        };
        world.send(&options.bytes()).expect("counted");
    });
    goes_fast(&world, |world| world.send(&plain).expect("counted"));
}
