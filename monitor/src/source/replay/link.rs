//! Link layers of captures, presented as the two that the packet program knows.

use monitor_common::abi::link;

/// Link types of captures (<https://www.tcpdump.org/linktypes.html>).
const NULL: u32 = 0;
const ETHERNET: u32 = 1;
const RAW_BSD: u32 = 12;
const RAW_OPENBSD: u32 = 14;
const RAW: u32 = 101;
const LOOP: u32 = 108;
const LINUX_SLL: u32 = 113;
const IPV4: u32 = 228;
const IPV6: u32 = 229;
const LINUX_SLL2: u32 = 276;

/// Something that is no IP packet.
const NOT_IP: [u8; 4] = [0; 4];
/// An Ethernet frame with more VLAN tags than are followed.
const TOO_MANY_TAGS: [u8; 26] = *b"\0\0\0\0\0\0\0\0\0\0\0\0\x81\0\0\0\x81\0\0\0\x81\0\0\0\x08\0";

/// On which interface a packet was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CapturedOn {
    /// On the capture's own.
    This,
    /// On the one with this index.
    Index(u32),
    /// On one of several, and the packet does not tell.
    NotTold,
}

/// Where the network header of a packet starts.
enum Start {
    At(usize),
    /// It is not IP.
    NotIp,
    /// Behind too many VLAN tags.
    TooDeep,
}

/// Whether packets of this link type can be read.
pub(super) fn is_known(link_type: u32) -> bool {
    matches!(
        link_type,
        NULL | ETHERNET | RAW_BSD | RAW_OPENBSD | RAW | LOOP | LINUX_SLL | IPV4 | IPV6 | LINUX_SLL2
    )
}

/// On which interface a packet of this link type was captured.
pub(super) fn captured_on(link_type: u32, bytes: &[u8]) -> CapturedOn {
    match link_type {
        LINUX_SLL => CapturedOn::NotTold,
        // Behind protocol type and reserved bytes (<https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html>).
        LINUX_SLL2 => match bytes.get(4..8) {
            Some(&[a, b, c, d]) => CapturedOn::Index(u32::from_be_bytes([a, b, c, d])),
            _ => CapturedOn::NotTold,
        },
        _ => CapturedOn::This,
    }
}

/// The link layer to tell the packet program, the bytes from there on, and their length on the
/// wire.
pub(super) fn present(link_type: u32, bytes: &[u8], length: u32) -> (u8, &[u8], u32) {
    let start = match link_type {
        ETHERNET => return (link::ETHERNET, bytes, length),
        NULL | LOOP => Start::At(4),
        LINUX_SLL => cooked(bytes, 14, 16),
        LINUX_SLL2 => cooked(bytes, 0, 20),
        _ => Start::At(0),
    };
    match start {
        Start::At(header) => {
            let rest = bytes.get(header..).unwrap_or(&[]);
            let skipped = u32::try_from(header).unwrap_or(u32::MAX);
            (link::RAW_IP, rest, length.saturating_sub(skipped))
        }
        Start::NotIp => (link::RAW_IP, &NOT_IP, 4),
        Start::TooDeep => (link::ETHERNET, &TOO_MANY_TAGS, 26),
    }
}

/// Where the network header of a cooked packet starts: behind the header and up to two VLAN tags.
fn cooked(bytes: &[u8], protocol: usize, header: usize) -> Start {
    let half = |at: usize| {
        let bytes = bytes.get(at..at + 2)?;
        Some(u16::from_be_bytes([*bytes.first()?, *bytes.last()?]))
    };
    let mut start = header;
    // A header that was cut off is for the packet program to refuse.
    let Some(mut ethertype) = half(protocol) else {
        return Start::At(header);
    };
    for _ in 0..=2 {
        match ethertype {
            0x0800 | 0x86dd => return Start::At(start),
            0x8100 | 0x88a8 => {
                let Some(next) = half(start + 2) else {
                    return Start::At(start + 4);
                };
                ethertype = next;
                start += 4;
            }
            _ => return Start::NotIp,
        }
    }
    Start::TooDeep
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(link_type: u32, bytes: &[u8], layer: u8, rest: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("short");
        let (found, bytes, length) = present(link_type, bytes, length);
        assert_eq!((found, bytes), (layer, rest));
        assert_eq!(length as usize, rest.len());
    }

    #[test]
    fn ethernet_and_raw_are_as_they_are() {
        check(ETHERNET, &[1, 2, 3], link::ETHERNET, &[1, 2, 3]);
        check(RAW, &[0x45, 0], link::RAW_IP, &[0x45, 0]);
        check(NULL, &[2, 0, 0, 0, 0x45], link::RAW_IP, &[0x45]);
    }

    #[test]
    fn cooked_headers_are_taken_off() {
        let mut v1 = [0; 18];
        v1[14] = 0x08;
        v1[16] = 0x45;
        check(LINUX_SLL, &v1, link::RAW_IP, &[0x45, 0]);
        v1[15] = 0x06;
        check(LINUX_SLL, &v1, link::RAW_IP, &NOT_IP);
        let tags = [
            &v1[..14],
            b"\x81\0\0\x01\x81\0\0\x01\x81\0\0\x01\x08\0\x45\0",
        ]
        .concat();
        check(LINUX_SLL, &tags, link::ETHERNET, &TOO_MANY_TAGS);
        let mut v2 = [0; 26];
        v2[..2].copy_from_slice(&[0x81, 0x00]);
        v2[22..24].copy_from_slice(&[0x86, 0xdd]);
        v2[24] = 0x60;
        check(LINUX_SLL2, &v2, link::RAW_IP, &[0x60, 0]);
    }
}
