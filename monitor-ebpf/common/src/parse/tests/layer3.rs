//! Ethernet, VLAN tags, raw IP.

use crate::{
    abi::{Reason, link},
    fixture::{IN6, OUT, captured, ethernet, frame, ip},
    packet::Frame,
    parse::{Layer3, layer3},
};

#[track_caller]
fn check(link_type: u8, bytes: &[u8], expected: Result<Layer3, Reason>) {
    assert_eq!(
        layer3(&captured(bytes), link_type),
        expected,
        "{bytes:02x?}"
    );
}

#[test]
fn network_header_is_found_behind_up_to_two_tags() {
    let (v4, v6) = (ip(OUT, 17, [0; 8].into()), ip(IN6, 17, [0; 8].into()));
    let tags: [&[u16]; 6] = [
        &[],
        &[0x8100],
        &[0x88a8],
        &[0x88a8, 0x8100],
        &[0x8100, 0x8100],
        &[0x8100, 0x88a8],
    ];
    for tags in tags {
        let offset = 14 + 4 * u32::try_from(tags.len()).expect("two at most");
        check(link::ETHERNET, &ethernet(tags, &v4), Ok(Layer3::V4(offset)));
        check(link::ETHERNET, &ethernet(tags, &v6), Ok(Layer3::V6(offset)));
        check(
            link::ETHERNET,
            &frame(tags, 0x0806, &v4),
            Err(Reason::NotIp),
        );
    }
    for tags in [[0x8100; 3], [0x88a8, 0x8100, 0x8100]] {
        check(
            link::ETHERNET,
            &ethernet(&tags, &v4),
            Err(Reason::VlanDepth),
        );
    }
}

#[test]
fn other_ethernet_types_are_not_ip() {
    // ARP, LLDP, MPLS, an 802.3 length, the old QinQ type.
    for ethertype in [0x0806, 0x88cc, 0x8847, 0x0040, 0x9100] {
        check(
            link::ETHERNET,
            &frame(&[], ethertype, &[0; 50]),
            Err(Reason::NotIp),
        );
    }
}

#[test]
fn frames_that_end_before_their_type_are_truncated() {
    let whole = ethernet(&[0x88a8, 0x8100], &ip(OUT, 17, [0; 8].into()));
    for length in 0..22 {
        check(link::ETHERNET, &whole[..length], Err(Reason::Truncated));
    }
    check(link::ETHERNET, &whole[..22], Ok(Layer3::V4(22)));
}

#[test]
fn raw_ip_goes_by_its_version() {
    check(link::RAW_IP, &ip(OUT, 17, [0; 8].into()), Ok(Layer3::V4(0)));
    check(link::RAW_IP, &ip(IN6, 17, [0; 8].into()), Ok(Layer3::V6(0)));
    for version in [0, 1, 5, 7, 15] {
        check(link::RAW_IP, &[version << 4, 0, 0, 0], Err(Reason::NotIp));
    }
    check(link::RAW_IP, &[0x45, 0, 0], Err(Reason::Truncated));
}

#[test]
fn length_on_the_wire_may_exceed_what_was_captured() {
    let packet = ip(OUT, 17, [0; 1000].into());
    let whole = ethernet(&[], &packet);
    let cut = Frame {
        bytes: &whole[..34],
        ..captured(&whole)
    };
    let network = crate::parse::ipv4(&cut, 14).expect("the header is there");
    assert_eq!((network.transport, network.end), (34, 1034));
    let cut = Frame {
        bytes: &whole[..33],
        ..captured(&whole)
    };
    assert_eq!(crate::parse::ipv4(&cut, 14), Err(Reason::Truncated));
}
