//! TCP connections: handshake, retransmissions, entries taken over.

use crate::{
    abi::{FlowValue, RX, TX, flag},
    classify::App,
    fixture::{ACK, Addresses, FAMILIES, FIN, IN, OUT, PORTS, PSH, RST, SYN, World, back, ip, tcp},
};

/// One connection over IPv4, opened by whoever sends first.
struct Peers {
    world: World,
    out: Addresses,
    back: Addresses,
}

// === impl Peers ===

impl Peers {
    fn new() -> Self {
        Self {
            world: World::new(),
            out: OUT,
            back: IN,
        }
    }

    /// The local end sends.
    fn send(&self, sequence: u32, flags: u8, data: &[u8]) {
        let segment = ip(self.out, 6, tcp(PORTS, sequence, flags, data));
        self.world.send(&segment).expect("counted");
    }

    /// The remote end sends.
    fn receive(&self, sequence: u32, flags: u8, data: &[u8]) {
        let segment = ip(self.back, 6, tcp(back(PORTS), sequence, flags, data));
        self.world.receive(&segment).expect("counted");
    }

    /// The local end opens, the remote end accepts; next sequence numbers 101 and 501.
    fn connect(&self) {
        self.send(100, SYN, &[]);
        self.receive(500, SYN | ACK, &[]);
        self.send(101, ACK, &[]);
    }

    #[track_caller]
    fn value(&self) -> FlowValue {
        self.world.only().1
    }
}

const OPENER: u16 = flag::SYN | flag::OPENS | flag::FIRST;
const ACCEPTOR: u16 = flag::SYN | flag::ACK | flag::ACCEPTS;

#[test]
fn a_handshake_shows_opener_acceptor_and_round_trip() {
    for (out, back) in FAMILIES {
        let peers = Peers {
            world: World::new(),
            out,
            back,
        };
        peers.send(100, SYN, &[]);
        assert_eq!(peers.value().flags, [OPENER, 0]);
        peers.world.wait(700);
        peers.receive(500, SYN | ACK, &[]);
        peers.world.wait(300);
        assert_eq!(peers.value().handshake_rtt_ns, 0);
        peers.send(101, ACK, &[]);
        let value = peers.value();
        assert_eq!(value.flags, [OPENER | flag::ACK | flag::TIMED, ACCEPTOR]);
        assert_eq!(value.handshake_rtt_ns, 1_000);
        assert_eq!(value.next_sequence, [101, 501]);
        assert_eq!((value.packets, value.retransmits), ([2, 1], [0, 0]));
        // Measured once.
        peers.world.wait(5_000);
        peers.send(101, ACK, b"data");
        assert_eq!(peers.value().handshake_rtt_ns, 1_000);
    }
}

#[test]
fn the_remote_end_may_open() {
    let peers = Peers::new();
    peers.receive(500, SYN, &[]);
    peers.send(100, SYN | ACK, &[]);
    peers.world.wait(9);
    peers.receive(501, ACK, &[]);
    let value = peers.value();
    assert_eq!(value.flags, [ACCEPTOR, OPENER | flag::ACK | flag::TIMED]);
    assert_eq!(value.handshake_rtt_ns, 9);
}

#[test]
fn round_trips_are_never_zero_and_have_a_bound() {
    for (elapsed, expected) in [(0, 1), (1 << 40, u32::MAX)] {
        let peers = Peers::new();
        peers.send(100, SYN, &[]);
        peers.receive(500, SYN | ACK, &[]);
        peers.world.wait(elapsed);
        peers.send(101, ACK, &[]);
        assert_eq!(peers.value().handshake_rtt_ns, expected);
    }
}

#[test]
fn an_acknowledgement_without_acceptance_completes_nothing() {
    let peers = Peers::new();
    peers.send(100, SYN, &[]);
    peers.send(101, ACK, &[]);
    peers.receive(500, RST | ACK, &[]);
    assert_eq!(peers.value().handshake_rtt_ns, 0);
    let midstream = Peers::new();
    midstream.send(100, ACK, b"data");
    midstream.receive(500, ACK, b"data");
    assert_eq!(midstream.value().handshake_rtt_ns, 0);
    assert_eq!(
        midstream.value().flags[TX] & (flag::OPENS | flag::FIRST),
        flag::FIRST
    );
}

#[test]
fn all_header_flags_are_kept() {
    let peers = Peers::new();
    peers.connect();
    peers.send(101, PSH | ACK | 0x20, b"GET / HTTP/1.1\r\n");
    peers.receive(501, FIN | ACK | 0x40 | 0x80, &[]);
    peers.send(117, RST, &[]);
    let value = peers.value();
    let all = |direction: usize| value.flags[direction] & flag::TCP_MASK;
    assert_eq!(all(TX), u16::from(SYN | ACK | PSH | RST | 0x20));
    assert_eq!(all(RX), u16::from(SYN | ACK | FIN | 0x40 | 0x80));
    assert_eq!(value.app, App::Http as u8);
}

#[test]
fn a_repeated_syn_is_a_retransmission() {
    let peers = Peers::new();
    peers.send(100, SYN, &[]);
    peers.world.wait(1_000_000);
    peers.send(100, SYN, &[]);
    peers.world.wait(50);
    peers.receive(500, SYN | ACK, &[]);
    peers.send(101, ACK, &[]);
    let value = peers.value();
    assert_eq!((value.packets, value.retransmits), ([3, 1], [1, 0]));
    assert_eq!(value.generation, 0);
    assert_eq!(value.first_seen_ns, 1_000);
    // From the last SYN.
    assert_eq!(value.handshake_rtt_ns, 50);
    assert!(peers.world.ended.borrow().is_empty());
}

#[test]
fn a_syn_with_data_is_repeated_with_or_without_it() {
    for again in [&b"GET / HTTP/1.1\r\n"[..], &[]] {
        let peers = Peers::new();
        peers.send(100, SYN, b"GET / HTTP/1.1\r\n");
        peers.send(100, SYN, again);
        assert!(peers.world.ended.borrow().is_empty(), "{again:?}");
        let value = peers.value();
        assert_eq!((value.packets, value.generation), ([2, 0], 0));
        assert_eq!(value.retransmits, [1, 0]);
    }
}

#[test]
fn data_behind_a_syn_is_followed_by_the_next_segment() {
    // TCP Fast Open (RFC 7413): the SYN takes one sequence number, its data comes after it.
    let peers = Peers::new();
    peers.send(100, SYN, b"SSH-");
    peers.receive(500, SYN | ACK, &[]);
    peers.send(105, ACK, b"2.0-client\r\n");
    let value = peers.value();
    assert_eq!((value.app, value.retransmits), (App::Ssh as u8, [0, 0]));
    assert_eq!(value.next_sequence[TX], 117);
}

#[test]
fn a_later_syn_of_another_sequence_takes_the_entry_over() {
    let peers = Peers::new();
    peers.connect();
    peers.send(101, ACK, b"SSH-2.0-client\r\n");
    peers.send(117, FIN | ACK, &[]);
    peers.receive(501, FIN | ACK, &[]);
    let before = peers.value();
    peers.world.wait(1_000);
    peers.send(9_000, SYN, &[]);
    let (key, value) = peers.world.only();
    assert_eq!(*peers.world.ended.borrow(), [(key, before)]);
    let expected = FlowValue {
        packets: [1, 0],
        bytes: [40, 0],
        next_sequence: [9_001, 0],
        inspect_sequence: [9_001, 0],
        flags: [OPENER, 0],
        last_seen_ticks: 1,
        first_seen_ns: 2_000,
        syn_ns: 2_000,
        generation: 1,
        ..FlowValue::default()
    };
    assert_eq!(value, expected);
}

#[test]
fn the_same_sequence_after_data_takes_over_too() {
    let peers = Peers::new();
    peers.connect();
    peers.send(101, ACK, b"data");
    peers.send(100, SYN, &[]);
    assert_eq!(peers.value().generation, 1);
    assert_eq!(peers.world.ended.borrow().len(), 1);
}

#[test]
fn the_other_end_may_take_over() {
    let peers = Peers::new();
    peers.connect();
    peers.receive(7_000, SYN, &[]);
    let value = peers.value();
    assert_eq!((value.packets, value.flags), ([0, 1], [0, OPENER]));
    assert_eq!(value.generation, 1);
}

#[test]
fn a_syn_takes_over_what_was_found_midstream() {
    let peers = Peers::new();
    peers.receive(500, ACK, b"data");
    peers.send(100, SYN, &[]);
    assert_eq!(
        (peers.value().generation, peers.value().packets),
        (1, [1, 0])
    );
}

#[test]
fn generations_count_up_and_the_cgroup_stays() {
    let peers = Peers::new();
    let bytes = crate::fixture::ethernet(&[], &ip(OUT, 6, tcp(PORTS, 1, SYN, &[])));
    let frame = crate::fixture::captured(&bytes);
    let first = crate::fixture::Gso {
        frame,
        segments: 1,
        cgroup_id: 42,
    };
    peers.world.packet(&first).expect("counted");
    for generation in 1..5 {
        peers.send(1_000_000 * generation, SYN, &[]);
        assert_eq!(
            (peers.value().generation, peers.value().cgroup_id),
            (generation, 42)
        );
    }
    let ended = peers.world.ended.borrow();
    let generations = ended.iter().map(|(_, value)| value.generation);
    assert!(generations.eq(0..4));
}

#[test]
fn the_cgroup_is_that_of_the_socket_that_sent_the_last_syn() {
    let peers = Peers::new();
    let send = |bytes: &[u8], cgroup_id| {
        let frame = crate::fixture::captured(bytes);
        let packet = crate::fixture::Gso {
            frame,
            segments: 1,
            cgroup_id,
        };
        peers.world.packet(&packet).expect("counted");
        peers.value().cgroup_id
    };
    let accept = crate::fixture::ethernet(&[], &ip(OUT, 6, tcp(PORTS, 7, SYN | ACK, &[])));
    let data = crate::fixture::ethernet(&[], &ip(OUT, 6, tcp(PORTS, 8, ACK, b"x")));
    // The first packet came in; who answers is known by the answer, and stays.
    assert_eq!(send(&data, 0), 0);
    assert_eq!(send(&accept, 42), 42);
    assert_eq!(send(&data, 43), 42);
    assert_eq!(send(&accept, 0), 42);
    // Another connection of other sockets between the same ports.
    let later = crate::fixture::ethernet(&[], &ip(OUT, 6, tcp(PORTS, 9_000_000, SYN, &[])));
    assert_eq!(send(&later, 44), 44);
    assert_eq!(peers.value().generation, 1);
}

#[test]
fn where_the_end_cannot_be_told_connections_merge() {
    let peers = Peers::new();
    peers.connect();
    peers.world.ring_full.set(true);
    peers.send(9_000, SYN, &[]);
    let value = peers.value();
    assert_eq!((value.packets, value.generation), ([3, 1], 0));
    assert_eq!(value.next_sequence[TX], 9_001);
    // Once there is room again, the next one is told apart.
    peers.world.ring_full.set(false);
    peers.send(90_000, SYN, &[]);
    assert_eq!(
        (peers.value().packets, peers.value().generation),
        ([1, 0], 1)
    );
    assert_eq!(peers.world.ended.borrow().len(), 1);
}

#[test]
fn both_ends_may_open_at_once() {
    let peers = Peers::new();
    peers.send(100, SYN, &[]);
    peers.receive(500, SYN, &[]);
    peers.send(100, SYN | ACK, &[]);
    peers.receive(500, SYN | ACK, &[]);
    peers.send(101, ACK, &[]);
    let value = peers.value();
    assert_eq!((value.packets, value.generation), ([3, 2], 0));
    assert_eq!(
        value.flags[TX] & (flag::OPENS | flag::FIRST),
        flag::OPENS | flag::FIRST
    );
    assert_eq!(value.flags[RX] & (flag::OPENS | flag::FIRST), flag::OPENS);
    assert_eq!(value.retransmits, [0, 0]);
    assert!(peers.world.ended.borrow().is_empty());
}

#[test]
fn payload_that_was_sent_before_is_a_retransmission() {
    let peers = Peers::new();
    peers.connect();
    peers.send(101, ACK, &[0; 10]);
    peers.send(101, ACK, &[0; 10]);
    assert_eq!(peers.value().retransmits, [1, 0]);
    // Part of it is new.
    peers.send(105, ACK, &[0; 10]);
    assert_eq!(
        (
            peers.value().retransmits[TX],
            peers.value().next_sequence[TX]
        ),
        (1, 115)
    );
    // A gap, then what was missing.
    peers.send(125, ACK, &[0; 10]);
    peers.send(115, ACK, &[0; 10]);
    assert_eq!(
        (
            peers.value().retransmits[TX],
            peers.value().next_sequence[TX]
        ),
        (2, 135)
    );
    // Pure acknowledgements are none.
    peers.send(101, ACK, &[]);
    peers.receive(501, ACK, &[0; 3]);
    assert_eq!(peers.value().retransmits, [2, 0]);
}

#[test]
fn retransmissions_are_found_across_the_wrap_of_sequence_numbers() {
    let peers = Peers::new();
    peers.send(u32::MAX - 6, SYN, &[]);
    let first = u32::MAX - 5;
    peers.send(first, ACK, &[0; 4]);
    peers.send(first.wrapping_add(4), ACK, &[0; 4]);
    assert_eq!(peers.value().next_sequence[TX], 2);
    peers.send(2, ACK, &[0; 4]);
    assert_eq!(peers.value().retransmits, [0, 0]);
    peers.send(first, ACK, &[0; 4]);
    peers.send(first.wrapping_add(4), ACK, &[0; 4]);
    assert_eq!(peers.value().retransmits, [2, 0]);
    assert_eq!(peers.value().next_sequence[TX], 6);
}

#[test]
fn the_first_data_of_a_midstream_connection_is_new_at_any_sequence() {
    for sequence in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let peers = Peers::new();
        peers.send(sequence, ACK, &[0; 4]);
        let value = peers.value();
        assert_eq!(value.retransmits, [0, 0]);
        assert_eq!(value.next_sequence[TX], sequence.wrapping_add(4));
    }
}

/// An ACK of the local end.
fn acknowledge(peers: &Peers, sequence: u32, next: u32) {
    let mut segment = tcp(PORTS, sequence, ACK, &[]);
    segment[8..12].copy_from_slice(&next.to_be_bytes());
    peers.world.send(&ip(OUT, 6, segment)).expect("counted");
}

const BANNER: &[u8] = b"SSH-2.0-OpenSSH_9.6\r\n";

#[test]
fn of_several_syn_acks_the_one_that_is_acknowledged_counts() {
    // As told first, last, and neither: then by what the opening end acknowledged.
    for taken in [500, 700, 900] {
        let peers = Peers::new();
        peers.send(100, SYN, &[]);
        for sequence in [500, 900, 700] {
            peers.receive(sequence, SYN | ACK, &[]);
        }
        acknowledge(&peers, 101, taken + 1);
        let value = peers.value();
        assert_eq!(value.next_sequence, [101, taken + 1]);
        assert_eq!(value.inspect_sequence, [101, taken + 1]);
        peers.receive(taken + 1, ACK, BANNER);
        assert_eq!(peers.value().app, App::Ssh as u8, "{taken}");
    }
    // An ACK of what was never sent changes nothing where there was no doubt.
    let peers = Peers::new();
    peers.send(100, SYN, &[]);
    peers.receive(500, SYN | ACK, &[]);
    peers.receive(500, SYN | ACK, &[]);
    acknowledge(&peers, 101, 9_999);
    assert_eq!(peers.value().inspect_sequence, [101, 501]);
}

#[test]
fn a_later_syn_ack_hides_nothing() {
    for (out, back) in FAMILIES {
        let connected = || {
            let peers = Peers {
                world: World::new(),
                out,
                back,
            };
            peers.connect();
            peers
        };
        // Of the accepting end, before its data and among it.
        let peers = connected();
        peers.receive(90_000, SYN | ACK, &[]);
        let (first, rest) = BANNER.split_at(3);
        peers.receive(501, ACK, first);
        peers.receive(90_000, SYN | ACK, &[]);
        peers.receive(504, ACK, rest);
        let value = peers.value();
        assert_eq!(
            (value.app, &value.prefix[RX]),
            (App::Ssh as u8, b"SSH-2.0-")
        );
        assert_eq!(value.next_sequence[RX], 501 + 21);
        assert_eq!(value.retransmits, [0, 0]);
        // Of the end that opened the connection, which accepts nothing.
        let peers = connected();
        peers.send(90_000, SYN | ACK, &[]);
        peers.send(101, ACK, BANNER);
        let value = peers.value();
        assert_eq!(value.app, App::Ssh as u8);
        assert_eq!(value.flags[TX] & flag::ACCEPTS, 0);
        assert_eq!(value.generation, 0);
    }
}
