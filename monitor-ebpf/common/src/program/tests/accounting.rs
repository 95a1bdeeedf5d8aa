//! Every packet is in a flow or has a reason; keys, bytes, segments, clocks.

use std::vec;

use crate::{
    abi::{FlowKey4, FlowKey6, FlowValue, Hook, RX, Reason, TX, flag, link, point, scope},
    fixture::{
        Addresses, FAMILIES, Fragment, Gso, IFINDEX, IN, Ip, Key, LOCAL, LOCAL6, OUT, OUT6, PORTS,
        REMOTE, REMOTE6, World, back, captured, ethernet, frame, ip, sctp, tcp, udp,
    },
    packet::Frame,
};

fn datagram(addresses: Addresses, ports: (u16, u16)) -> std::vec::Vec<u8> {
    ip(addresses, 17, udp(ports, b"data"))
}

#[test]
fn keys_have_the_local_end_first_in_both_directions() {
    let world = World::new();
    world.send(&datagram(OUT, PORTS)).expect("counted");
    world.receive(&datagram(IN, back(PORTS))).expect("counted");
    let (key, value) = world.only();
    let expected = FlowKey4 {
        local: u32::from_be_bytes(LOCAL),
        remote: u32::from_be_bytes(REMOTE),
        local_port: 40_000,
        remote_port: 443,
        scope: scope(5, 17),
    };
    assert_eq!(key, Key::V4(expected));
    assert_eq!((value.packets, value.bytes), ([1, 1], [32, 32]));
    assert_eq!(value.flags, [flag::FIRST | flag::DATA, flag::DATA]);
}

#[test]
fn ipv6_keys_have_the_bytes_of_the_wire() {
    let world = World::new();
    world.send(&datagram(OUT6, PORTS)).expect("counted");
    let words = |bytes: [u8; 16]| {
        let (high, low) = bytes.split_at(8);
        [high, low].map(|half| u64::from_ne_bytes(half.try_into().expect("eight bytes")))
    };
    let expected = FlowKey6 {
        local: words(LOCAL6),
        remote: words(REMOTE6),
        local_port: 40_000,
        remote_port: 443,
        scope: scope(5, 17),
    };
    assert_eq!(world.only().0, Key::V6(expected));
}

#[test]
fn the_local_end_is_the_node_at_the_uplink_and_the_pod_at_its_veth() {
    for (point, hook, direction) in [
        (point::UPLINK, Hook::Egress, TX),
        (point::UPLINK, Hook::Ingress, RX),
        (point::WORKLOAD, Hook::Ingress, TX),
        (point::WORKLOAD, Hook::Egress, RX),
    ] {
        let world = World::with(point, link::ETHERNET);
        let (addresses, ports) = if direction == TX {
            (OUT, PORTS)
        } else {
            (IN, back(PORTS))
        };
        let frame = ethernet(&[0x8100], &datagram(addresses, ports));
        world.frame(hook, &frame).expect("counted");
        let (key, value) = world.only();
        assert_eq!(key.ports(), PORTS);
        assert_eq!(value.packets[direction], 1);
        let counters = world.counters.borrow()[0];
        assert_eq!(counters.seen[hook as usize], 1);
        assert_eq!(counters.bytes[hook as usize], 32);
    }
}

#[test]
fn protocols_and_interfaces_are_apart() {
    let world = World::new();
    world.send(&datagram(OUT, PORTS)).expect("counted");
    world
        .send(&ip(OUT, 6, tcp(PORTS, 1, 0x10, &[])))
        .expect("counted");
    world.send(&ip(OUT, 132, sctp(PORTS))).expect("counted");
    world.send(&ip(OUT, 47, vec![0; 8])).expect("counted");
    world.send(&ip(OUT, 253, vec![])).expect("counted");
    assert_eq!(world.flows().len(), 5);
    assert_eq!(world.flow(132, PORTS).bytes, [32, 0]);
    assert_eq!(world.flow(47, (0, 0)).bytes, [28, 0]);
    assert_eq!(world.flow(253, (0, 0)).bytes, [20, 0]);
}

#[test]
fn bytes_are_those_of_the_ip_header() {
    let world = World::new();
    let mut padded = ethernet(&[0x88a8, 0x8100], &datagram(OUT, PORTS));
    padded.extend([0; 100]);
    world.frame(Hook::Egress, &padded).expect("counted");
    let options = Ip {
        options: [1; 12].into(),
        ..Ip::new(OUT, 17, udp(PORTS, b"data"))
    };
    world.send(&options.bytes()).expect("counted");
    assert_eq!(world.only().1.bytes, [32 + 44, 0]);
}

#[test]
fn a_captured_part_counts_for_the_whole_packet() {
    let world = World::new();
    let whole = ethernet(&[], &ip(OUT, 17, udp(PORTS, &[0; 1400])));
    let part = Frame {
        bytes: &whole[..60],
        ..captured(&whole)
    };
    world.packet(&part).expect("counted");
    assert_eq!(world.only().1.bytes, [1428, 0]);
}

#[test]
fn segments_count_one_each_with_a_header_each() {
    for (addresses, _) in FAMILIES {
        for segments in [1, 2, 45] {
            let world = World::new();
            let bytes = ethernet(&[], &ip(addresses, 6, tcp(PORTS, 1, 0x10, &[0; 4500])));
            let frame = captured(&bytes);
            world
                .packet(&Gso {
                    frame,
                    segments,
                    cgroup_id: 0,
                })
                .expect("counted");
            let value = world.only().1;
            let header = addresses.header() + 20;
            assert_eq!(value.packets, [u64::from(segments), 0]);
            assert_eq!(value.bytes, [4500 + header * u64::from(segments), 0]);
            let counters = world.counters.borrow()[0];
            let egress = Hook::Egress as usize;
            assert_eq!(
                (counters.seen[egress], counters.buffers[egress]),
                (u64::from(segments), 1)
            );
            assert_eq!(counters.bytes[egress], value.bytes[TX]);
        }
    }
}

#[test]
fn uncounted_segments_count_one_each_too() {
    let world = World::new();
    let bytes = frame(&[], 0x0806, &[0; 46]);
    let frame = captured(&bytes);
    let result = world.packet(&Gso {
        frame,
        segments: 3,
        cgroup_id: 0,
    });
    assert_eq!(result, Err(Reason::NotIp));
    assert_eq!(world.reasons(Hook::Egress), [(Reason::NotIp, 3)]);
}

#[test]
fn large_tcp_packets_without_a_length_count_the_buffer() {
    for (addresses, _) in FAMILIES {
        let world = World::new();
        let packet = Ip {
            length: Some(0),
            ..Ip::new(addresses, 6, tcp(PORTS, 1, 0x10, &[0; 100]))
        };
        world.send(&packet.bytes()).expect("counted");
        assert_eq!(world.only().1.bytes, [addresses.header() + 120, 0]);
    }
}

#[test]
fn every_reason_of_a_packet_is_counted_on_its_hook() {
    let whole = datagram(OUT, PORTS);
    let mut malformed = whole.clone();
    malformed[3] = 0xff;
    let later = Ip {
        fragment: Some(Fragment {
            identification: 1,
            offset: 9,
            more: false,
        }),
        ..Ip::new(OUT, 17, vec![0; 8])
    };
    let extension = |_| crate::fixture::Extension {
        kind: 60,
        rest: [0; 7].into(),
    };
    let extensions = (0..7).map(extension).collect();
    let chain = Ip {
        extensions,
        ..Ip::new(OUT6, 17, udp(PORTS, &[]))
    };
    let frames = [
        (Reason::NotIp, frame(&[], 0x0806, &whole)),
        (Reason::Truncated, ethernet(&[], &whole)[..20].into()),
        (Reason::Malformed, ethernet(&[], &malformed)),
        (Reason::FragmentUnknown, ethernet(&[], &later.bytes())),
        (Reason::ExtensionHeaders, ethernet(&[], &chain.bytes())),
        (Reason::VlanDepth, ethernet(&[0x8100; 3], &whole)),
    ];
    for (reason, bytes) in frames {
        for (hook, other) in [(Hook::Ingress, Hook::Egress), (Hook::Egress, Hook::Ingress)] {
            let world = World::new();
            assert_eq!(world.frame(hook, &bytes), Err(reason));
            assert_eq!(world.reasons(hook), [(reason, 1)]);
            assert_eq!(world.reasons(other), []);
            assert!(world.flows().is_empty());
        }
    }
}

#[test]
fn a_full_table_is_a_reason_for_new_flows_only() {
    for (addresses, _) in FAMILIES {
        let world = World::new();
        world.send(&datagram(addresses, PORTS)).expect("counted");
        for reason in [Reason::TableFull, Reason::InsertFailed] {
            world.refusal.set(Some(reason));
            world.send(&datagram(addresses, PORTS)).expect("counted");
            assert_eq!(world.send(&datagram(addresses, (1, 2))), Err(reason));
        }
        assert_eq!(world.only().1.packets, [3, 0]);
        let expected = [(Reason::TableFull, 1), (Reason::InsertFailed, 1)];
        assert_eq!(world.reasons(Hook::Egress), expected);
    }
}

#[test]
fn an_entry_that_vanishes_at_once_is_a_failed_insertion() {
    let world = World::new();
    world.forgetful.set(true);
    assert_eq!(world.send(&datagram(OUT, PORTS)), Err(Reason::InsertFailed));
    assert_eq!(world.reasons(Hook::Egress), [(Reason::InsertFailed, 1)]);
}

#[test]
fn an_entry_of_another_processor_keeps_what_it_noted() {
    let world = World::new();
    let theirs = FlowValue {
        first_seen_ns: 7,
        flags: [flag::FIRST | flag::OPENS, 0],
        ..FlowValue::default()
    };
    world.overtaken.set(Some(theirs));
    world.send(&datagram(OUT, PORTS)).expect("counted");
    let value = world.only().1;
    assert_eq!(value.first_seen_ns, 7);
    assert_eq!(value.flags[TX] & theirs.flags[TX], theirs.flags[TX]);
    assert_eq!(value.packets, [1, 0]);
}

#[test]
fn unknown_interfaces_have_an_account_of_their_own() {
    let world = World::new();
    let bytes = ethernet(&[], &datagram(OUT, PORTS));
    let stray = Frame {
        ifindex: IFINDEX + 1,
        hook: Hook::Ingress,
        ..captured(&bytes)
    };
    let result = world.packet(&Gso {
        frame: stray,
        segments: 4,
        cgroup_id: 0,
    });
    assert_eq!(result, Err(Reason::UnknownInterface));
    let [known, unknown] = *world.counters.borrow();
    assert_eq!(
        (known.seen, unknown.seen, unknown.buffers),
        ([0, 0], [4, 0], [1, 0])
    );
    let counted = world.uncounted.borrow()[1][Hook::Ingress as usize];
    assert_eq!(counted[Reason::UnknownInterface as usize], 4);
}

#[test]
fn raw_ip_interfaces_have_no_link_layer() {
    let world = World::with(point::UPLINK, link::RAW_IP);
    world
        .frame(Hook::Egress, &datagram(OUT, PORTS))
        .expect("counted");
    world
        .frame(Hook::Egress, &datagram(OUT6, PORTS))
        .expect("counted");
    assert_eq!(world.frame(Hook::Egress, &[0; 40]), Err(Reason::NotIp));
    assert_eq!(world.flows().len(), 2);
}

#[test]
fn clocks_and_cgroup_are_those_of_the_first_and_the_last_packet() {
    let world = World::new();
    let bytes = ethernet(&[], &datagram(OUT, PORTS));
    for cgroup_id in [77, 88] {
        world
            .packet(&Gso {
                frame: captured(&bytes),
                segments: 1,
                cgroup_id,
            })
            .expect("counted");
        world.wait(500);
        world.ticks.set(world.ticks.get() + 3);
    }
    let value = world.only().1;
    assert_eq!((value.first_seen_ns, value.last_seen_ticks), (1_000, 4));
    assert_eq!(value.cgroup_id, 77);
}
