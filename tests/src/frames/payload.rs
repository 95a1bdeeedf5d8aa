//! First payload bytes of protocols, and of none.

use super::random::Random;

/// What a TCP direction may start with.
pub(super) fn tcp(random: &mut Random) -> Vec<u8> {
    let length = random.below(200);
    match random.below(18) {
        0 | 1 => b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(),
        2 => b"SSH-1.99-OpenSSH_3.4\r\n".to_vec(),
        3 => {
            let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
            hello.extend(random.bytes(506));
            hello
        }
        4 => b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec(),
        5 => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        6 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        7 => prefixed_by_length(&dns(random)),
        8 => {
            let mut startup = vec![0; 41];
            startup[3] = 41;
            startup[5] = 3;
            startup
        }
        9 => {
            let mut greeting = vec![0; 78];
            greeting[..6].copy_from_slice(&[74, 0, 0, 0, 10, b'8']);
            greeting
        }
        10 => b"*3\r\n$3\r\nSET\r\n".to_vec(),
        11 => b"AMQP\0\0\x09\x01".to_vec(),
        12 => b"\x10\x10\0\x04MQTT\x04\0\0\0".to_vec(),
        13 => b"\0\0\0\x54\xfeSMB\x40\0\0\0".to_vec(),
        14 => vec![3, 0, 0, 0x13, 0x0e, 0xe0, 0, 0, 0, 0, 0],
        15 => random
            .pick(&[&b"SSH-"[..], b"G", b"\x16\x03", b"SSH-2.0"])
            .to_vec(),
        _ => random.bytes(length),
    }
}

/// A datagram, and the port that it must go to or come from (0 for any).
pub(super) fn udp(random: &mut Random) -> (u16, Vec<u8>) {
    let length = random.below(200);
    match random.below(9) {
        0 | 1 => (0, dns(random)),
        2 => (0, vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]),
        3 => {
            let mut ntp = vec![0; 48];
            ntp[0] = 0x23;
            (123, ntp)
        }
        4 => {
            let mut dhcp = vec![0; 300];
            dhcp[..3].copy_from_slice(&[1, 1, 6]);
            (67, dhcp)
        }
        5 => {
            let mut handshake = vec![7; 148];
            handshake[..4].copy_from_slice(&[1, 0, 0, 0]);
            (51_820, handshake)
        }
        6 => (0, Vec::new()),
        _ => (0, random.bytes(length)),
    }
}

fn dns(random: &mut Random) -> Vec<u8> {
    let mut query = random.bytes(2);
    query.extend(b"\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01");
    query
}

fn prefixed_by_length(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a short message");
    let mut prefixed = length.to_be_bytes().to_vec();
    prefixed.extend(message);
    prefixed
}
