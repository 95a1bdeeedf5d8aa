//! TCP, UDP, SCTP, ICMP, ICMPv6, and what is none of them.

use crate::{
    abi::Reason,
    fixture::{ACK, SYN, captured, icmp, sctp, tcp, udp},
    packet::Frame,
    parse::{Transport, transport},
};

/// With all of `bytes` belonging to the packet.
fn parse(protocol: u8, bytes: &[u8]) -> Result<Transport, Reason> {
    let frame = captured(bytes);
    transport(&frame, protocol, 0, frame.length)
}

#[test]
fn tcp_headers_are_read() {
    let expected = Transport {
        source_port: 0x1234,
        destination_port: 0xabcd,
        sequence: 0xfedc_ba98,
        flags: SYN | ACK,
        payload: 20,
    };
    let segment = tcp((0x1234, 0xabcd), 0xfedc_ba98, SYN | ACK, b"data");
    assert_eq!(parse(6, &segment), Ok(expected));
}

#[test]
fn all_eight_tcp_flags_are_read() {
    for flags in 0..=u8::MAX {
        let segment = tcp((1, 2), 0, flags, &[]);
        assert_eq!(parse(6, &segment).map(|header| header.flags), Ok(flags));
    }
}

#[test]
fn tcp_options_move_the_payload() {
    let mut segment = tcp((1, 2), 0, ACK, &[1; 60]);
    for words in 0..16_u8 {
        segment[12] = words << 4;
        let expected = if words < 5 {
            Err(Reason::Malformed)
        } else {
            Ok(4 * u32::from(words))
        };
        assert_eq!(parse(6, &segment).map(|header| header.payload), expected);
    }
}

#[test]
fn a_tcp_header_beyond_the_packet_is_malformed() {
    let mut segment = tcp((1, 2), 0, ACK, &[0; 8]);
    segment[12] = 0x80;
    assert_eq!(parse(6, &segment), Err(Reason::Malformed));
}

#[test]
fn ports_are_read() {
    for (protocol, bytes, payload) in [
        (17, udp((53, 40_000), b"data"), 8),
        (132, sctp((53, 40_000)), 12),
    ] {
        let expected = Transport {
            source_port: 53,
            destination_port: 40_000,
            payload,
            ..Transport::default()
        };
        assert_eq!(parse(protocol, &bytes), Ok(expected));
    }
}

#[test]
fn headers_beyond_the_packet_are_malformed() {
    for (protocol, header) in [(6, 20), (17, 8), (132, 12), (1, 8), (58, 8)] {
        let bytes = [0x50; 64];
        for end in 0..header {
            let result = transport(&captured(&bytes), protocol, 0, end);
            assert_eq!(result, Err(Reason::Malformed), "{protocol} {end}");
        }
        assert!(
            transport(&captured(&bytes), protocol, 0, 64).is_ok(),
            "{protocol}"
        );
    }
}

#[test]
fn headers_that_were_not_captured_are_truncated() {
    // As much of each header as is needed.
    for (protocol, needed) in [(6, 16), (17, 4), (132, 4), (1, 8), (58, 8)] {
        let bytes = [0x50; 64];
        for length in 0..needed {
            let cut = Frame {
                bytes: &bytes[..length],
                ..captured(&bytes)
            };
            let result = transport(&cut, protocol, 0, 64);
            assert_eq!(result, Err(Reason::Truncated), "{protocol} {length}");
        }
        let cut = Frame {
            bytes: &bytes[..needed],
            ..captured(&bytes)
        };
        assert!(transport(&cut, protocol, 0, 64).is_ok(), "{protocol}");
    }
}

#[test]
fn both_directions_of_an_echo_read_alike() {
    let of = |protocol, kind| {
        let header = parse(protocol, &icmp(kind, 0, 0x1234, b"ping")).expect("valid");
        (header.source_port, header.destination_port)
    };
    assert_eq!(of(1, 8), (0x1234, 0x0800));
    assert_eq!(of(1, 0), (0x1234, 0x0800));
    assert_eq!(of(58, 128), (0x1234, 0x8000));
    assert_eq!(of(58, 129), (0x1234, 0x8000));
    // The numbers of the other family are other messages.
    assert_eq!(of(58, 8), (0, 0x0800));
    assert_eq!(of(1, 128), (0, 0x8000));
}

#[test]
fn other_control_messages_have_type_and_code() {
    for (protocol, kind, code) in [(1, 3, 1), (1, 11, 0), (1, 13, 0), (58, 1, 4), (58, 135, 0)] {
        let header = parse(protocol, &icmp(kind, code, 0x1234, &[])).expect("valid");
        assert_eq!(header.source_port, 0);
        assert_eq!(
            header.destination_port,
            u16::from(kind) << 8 | u16::from(code)
        );
        assert_eq!(header.flags, kind);
    }
}

#[test]
fn other_protocols_have_no_ports() {
    for protocol in [2, 4, 41, 47, 50, 51, 89, 253] {
        assert_eq!(parse(protocol, &[0xff; 8]), Ok(Transport::default()));
        assert_eq!(parse(protocol, &[]), Ok(Transport::default()));
    }
}
