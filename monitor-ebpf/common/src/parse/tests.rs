use super::{Layer3, Part, icmp_type, ipv4, ipv6, layer3, protocol, transport};
use crate::{
    abi::{Hook, Reason, link},
    fixture::{self, LOCAL, REMOTE, ethernet, frame},
    packet::Frame,
};

mod extensions;

const ENDS: (u8, u8) = (LOCAL, REMOTE);
const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;

#[test]
fn a_network_header_is_behind_up_to_two_tags() {
    for (tags, offset) in [
        (&[][..], 14),
        (&[VLAN], 18),
        (&[QINQ], 18),
        (&[QINQ, VLAN], 22),
        (&[VLAN, VLAN], 22),
        (&[VLAN, QINQ], 22),
    ] {
        let bytes = ethernet(tags, 0x0800, &[]);
        assert_eq!(layer3(&frame(&bytes), link::ETHERNET), Ok(Layer3::V4(offset)), "{tags:x?}");
        let bytes = ethernet(tags, 0x86dd, &[]);
        assert_eq!(layer3(&frame(&bytes), link::ETHERNET), Ok(Layer3::V6(offset)), "{tags:x?}");
        let bytes = ethernet(tags, 0x0806, &[]);
        assert_eq!(layer3(&frame(&bytes), link::ETHERNET), Err(Reason::NotIp), "{tags:x?}");
        for end in 0..bytes.len() {
            let cut = layer3(&frame(&bytes[..end]), link::ETHERNET);
            assert_eq!(cut, Err(Reason::Truncated), "{tags:x?} cut to {end}");
        }
    }
}

#[test]
fn three_tags_are_too_many() {
    for inner in [VLAN, QINQ] {
        let bytes = ethernet(&[QINQ, VLAN, inner], 0x0800, &[0; 40]);
        assert_eq!(layer3(&frame(&bytes), link::ETHERNET), Err(Reason::VlanDepth));
    }
}

#[test]
fn without_link_layer_the_version_tells() {
    let parse = |bytes: &[u8]| layer3(&frame(bytes), link::RAW_IP);
    assert_eq!(parse(&fixture::ipv4(ENDS, 6, &[])), Ok(Layer3::V4(0)));
    assert_eq!(parse(&fixture::ipv6(ENDS, 6, &[])), Ok(Layer3::V6(0)));
    assert_eq!(parse(&[0; 40]), Err(Reason::NotIp));
    assert_eq!(parse(&[0x45, 0, 0]), Err(Reason::Truncated));
    assert_eq!(parse(&[]), Err(Reason::Truncated));
}

#[test]
fn ipv4_options_are_passed_over() {
    for options in 0..=10 {
        let bytes = fixture::ipv4_with(ENDS, protocol::UDP, options, (0, 0), &[0xaa; 9]);
        let network = ipv4(&frame(&bytes), 0).expect("valid");
        assert_eq!(network.transport, 20 + 4 * u32::from(options));
        assert_eq!(network.end, network.transport + 9);
        assert_eq!(network.protocol, protocol::UDP);
        assert_eq!(network.source, fixture::address4(LOCAL));
        assert_eq!(network.destination, fixture::address4(REMOTE));
        assert_eq!(network.part, Part::Whole);
    }
}

#[test]
fn ipv4_headers_that_lie_are_malformed() {
    let good = fixture::ipv4(ENDS, protocol::UDP, &[0; 12]);
    for (at, value) in [
        // Version, header length below 20, header beyond the total length.
        (0, 0x55),
        (0, 0x44),
        (0, 0x4f),
        // Total length below the header, beyond the frame, zero.
        (3, 19),
        (3, 33),
        (2, 0xff),
        (3, 0),
    ] {
        let mut bytes = good.clone();
        bytes[at] = value;
        let result = ipv4(&frame(&bytes), 0);
        assert_eq!(result, Err(Reason::Malformed), "byte {at} is {value:#x}");
    }
    for end in 0..20 {
        assert_eq!(ipv4(&frame(&good[..end]), 0), Err(Reason::Truncated), "cut to {end}");
    }
}

#[test]
fn the_total_length_decides_not_the_padding() {
    let mut bytes = fixture::ipv4(ENDS, protocol::UDP, &[0; 8]);
    bytes.resize(60, 0);
    assert_eq!(ipv4(&frame(&bytes), 0).map(|network| network.end), Ok(28));
    let mut bytes = fixture::ipv6(ENDS, protocol::UDP, &[0; 8]);
    bytes.resize(80, 0);
    assert_eq!(ipv6(&frame(&bytes), 0).map(|network| network.end), Ok(48));
}

#[test]
fn a_zero_total_length_of_tcp_is_the_length_of_the_buffer() {
    let mut bytes = fixture::ipv4(ENDS, protocol::TCP, &[0; 100]);
    bytes[2..4].fill(0);
    assert_eq!(ipv4(&frame(&bytes), 0).map(|network| network.end), Ok(120));
    let mut bytes = fixture::ipv6(ENDS, protocol::TCP, &[0; 100]);
    bytes[4..6].fill(0);
    assert_eq!(ipv6(&frame(&bytes), 0).map(|network| network.end), Ok(140));
    // Of UDP it is a packet without payload.
    let mut bytes = fixture::ipv6(ENDS, protocol::UDP, &[0; 100]);
    bytes[4..6].fill(0);
    assert_eq!(ipv6(&frame(&bytes), 0).map(|network| network.end), Ok(40));
}

#[test]
fn the_length_on_the_wire_counts_where_a_capture_holds_less() {
    let bytes = fixture::ipv4(ENDS, protocol::TCP, &fixture::tcp((1, 2), 3, 0x10, &[0; 100]));
    let cut = |end: usize| Frame {
        bytes: &bytes[..end],
        length: fixture::length(&bytes),
        ifindex: 1,
        hook: Hook::Egress,
    };
    let network = ipv4(&cut(40), 0).expect("the whole header");
    assert_eq!(network.end, 140);
    assert!(transport(&cut(40), protocol::TCP, 20, 140).is_ok());
    let result = transport(&cut(35), protocol::TCP, 20, 140);
    assert_eq!(result, Err(Reason::Truncated));
}

#[test]
fn parts_of_ipv4_datagrams() {
    for (field, part) in [
        (0, Part::Whole),
        // Don't fragment, and the reserved bit.
        (0x4000, Part::Whole),
        (0x8000, Part::Whole),
        (0x2000, Part::First),
        (0x6000, Part::First),
        (0x2001, Part::Later),
        (0x0001, Part::Later),
        (0x1fff, Part::Later),
    ] {
        let bytes = fixture::ipv4_with(ENDS, protocol::UDP, 0, (0xbeef, field), &[0; 8]);
        let network = ipv4(&frame(&bytes), 0).expect("valid");
        assert_eq!((network.part, network.identification), (part, 0xbeef), "{field:#x}");
    }
}

#[test]
fn transport_headers() {
    let bytes = fixture::tcp((40_000, 22), 0x0102_0304, 0x1ff, b"data");
    let tcp = transport(&frame(&bytes), protocol::TCP, 0, 24).expect("valid");
    assert_eq!((tcp.source_port, tcp.destination_port), (40_000, 22));
    assert_eq!((tcp.sequence, tcp.flags, tcp.payload), (0x0102_0304, 0xff, 20));

    let bytes = fixture::udp((40_000, 53), b"data");
    let udp = transport(&frame(&bytes), protocol::UDP, 0, 12).expect("valid");
    assert_eq!((udp.source_port, udp.destination_port, udp.payload), (40_000, 53, 8));

    // SCTP starts with the same ports, and has a longer header.
    let sctp = transport(&frame(&bytes), protocol::SCTP, 0, 12).expect("valid");
    assert_eq!((sctp.source_port, sctp.destination_port, sctp.payload), (40_000, 53, 12));

    let other = transport(&frame(&bytes), 47, 3, 12).expect("anything");
    assert_eq!((other.source_port, other.destination_port, other.payload), (0, 0, 3));
}

#[test]
fn transport_headers_without_room_are_malformed() {
    let bytes = [0x50; 64];
    for (number, least) in [
        (protocol::TCP, 20),
        (protocol::UDP, 8),
        (protocol::SCTP, 12),
        (protocol::ICMP, 8),
        (protocol::ICMPV6, 8),
    ] {
        for room in 0..least {
            let result = transport(&frame(&bytes), number, 0, room);
            assert_eq!(result, Err(Reason::Malformed), "protocol {number}, {room} bytes");
        }
        assert!(transport(&frame(&bytes), number, 0, least).is_ok(), "protocol {number}");
        let cut = transport(&frame(&bytes[..2]), number, 0, least);
        assert_eq!(cut, Err(Reason::Truncated), "protocol {number}");
    }
}

#[test]
fn tcp_data_offset_is_between_the_header_and_the_packet() {
    let mut bytes = fixture::tcp((1, 2), 3, 0x10, &[0; 20]);
    for words in 0..16_u8 {
        bytes[12] = words << 4;
        let result = transport(&frame(&bytes), protocol::TCP, 0, 40).map(|tcp| tcp.payload);
        let expected = if (5..=10).contains(&words) {
            Ok(4 * u32::from(words))
        } else {
            Err(Reason::Malformed)
        };
        assert_eq!(result, expected, "{words} words");
    }
}

#[test]
fn both_directions_of_an_echo_read_the_same() {
    for (number, request, reply) in [
        (protocol::ICMP, icmp_type::ECHO_REQUEST, icmp_type::ECHO_REPLY),
        (protocol::ICMPV6, icmp_type::V6_ECHO_REQUEST, icmp_type::V6_ECHO_REPLY),
    ] {
        for kind in [request, reply] {
            let bytes = fixture::icmp(kind, 0, 0x1234_0001, b"ping");
            let echo = transport(&frame(&bytes), number, 0, 12).expect("valid");
            assert_eq!(echo.source_port, 0x1234);
            assert_eq!(echo.destination_port, u16::from(request) << 8);
            assert_eq!((echo.flags, echo.payload), (kind, 8));
        }
    }
    // Other messages have a type and a code, and no identifier.
    let bytes = fixture::icmp(3, 1, 0x1234_0001, b"quote");
    let message = transport(&frame(&bytes), protocol::ICMP, 0, 13).expect("valid");
    assert_eq!((message.source_port, message.destination_port), (0, 0x0301));
    // An echo of the other family is none.
    let bytes = fixture::icmp(8, 0, 0x1234_0001, b"");
    let message = transport(&frame(&bytes), protocol::ICMPV6, 0, 8).expect("valid");
    assert_eq!((message.source_port, message.destination_port), (0, 0x0800));
}
