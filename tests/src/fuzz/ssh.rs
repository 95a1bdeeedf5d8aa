//! SSH as anybody may send it.

use monitor_core::ssh::{AuthOutcome, Basis, Segment, Session, Side};

use super::input::Input;
use crate::deploy;

const SIDES: [Side; 2] = [Side::Client, Side::Server];
/// What a session may hold, as its documentation says.
const MOST_HELD: usize = 24 << 10;
const BANNERS: [&[u8]; 2] = [
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
];
const CAPTURES: &str = "monitor/core/src/ssh/testdata";

pub(super) const WORDS: &[&[u8]] = &[
    b"SSH-2.0-",
    b"SSH-1.99-",
    b"\r\n",
    b"\x14",
    b"\x15",
    b"chacha20-poly1305@openssh.com",
    b"aes128-gcm@openssh.com",
    b"hmac-sha2-256-etm@openssh.com",
    b"curve25519-sha256",
    b",",
    b"none",
    b"\0\0\0\x0c\x0a\x15\0\0\0\0\0\0\0\0\0\0",
];

/// A session with the next sequence number of each side.
struct Talk {
    session: Session,
    next: [u32; 2],
    now_ns: u64,
}

// === impl Talk ===

impl Talk {
    fn new(start: u32) -> Self {
        Self {
            session: Session::default(),
            next: [start, start.wrapping_neg()],
            now_ns: 1,
        }
    }

    fn send(&mut self, side: Side, sequence: u32, length: u32, bytes: &[u8]) {
        self.now_ns += 1_000_000;
        self.session.segment(&Segment {
            side,
            sequence,
            length,
            is_pushed: sequence & 3 != 3,
            time_ns: self.now_ns,
            bytes,
        });
    }

    /// In order.
    fn say(&mut self, side: Side, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a short text");
        let sequence = self.next[side as usize];
        self.next[side as usize] = sequence.wrapping_add(length);
        self.send(side, sequence, length, bytes);
    }

    fn check(&mut self) {
        self.look();
        self.session.settle();
        self.look();
    }

    fn look(&self) {
        let session = &self.session;
        for side in SIDES {
            if let Some(banner) = session.banner(side) {
                assert!(banner.len() <= 4 * 255, "{banner}");
                assert!(
                    banner.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                    "{banner:?}"
                );
            }
            if let Some(hassh) = session.hassh(side) {
                let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                assert!(
                    hassh.len() == 32 && hassh.bytes().all(is_digit),
                    "{hassh:?}"
                );
            }
        }
        assert!(
            session.bytes_held() <= MOST_HELD,
            "{}",
            session.bytes_held()
        );
        assert!(session.hints().count() <= 32);
        for has_ended in [false, true] {
            let told = session.authentication(has_ended);
            if told.outcome == AuthOutcome::Success {
                assert_eq!(told.basis, Basis::Sizes, "{told:?}");
                assert!(session.may_be_in(), "{told:?}");
            }
            assert!(
                told.attempts.is_none_or(|attempts| attempts <= 64),
                "{told:?}"
            );
        }
        let _ = (session.class(), session.cookies(), session.is_identified());
    }
}

/// The first bytes of either side, in pieces.
pub(super) fn banner(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.byte();
    let side = SIDES[usize::from(how & 1)];
    let piece = 1 + usize::from(how >> 1);
    let mut talk = Talk::new(u32::from(how) << 24);
    while !input.is_empty() {
        talk.say(side, input.take(piece));
    }
    talk.check();
}

pub(super) fn banner_seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 6] = [
        BANNERS[0],
        BANNERS[1],
        b"SSH-1.99-Cisco-1.25\n",
        b"welcome\r\nto this\r\nSSH-2.0-dropbear_2022.83\r\n",
        b"Exceeded MaxStartups\r\n",
        b"SSH-2.0-libssh_0.10.6\0\xff \\ \r\n\0\0\0\x0c\x0a\x14",
    ];
    let seeds = texts
        .iter()
        .flat_map(|text| [0_u8, 1, 14, 15, 255].map(|how| [&[how], *text].concat()));
    seeds.collect()
}

/// A key exchange of both sides, after banners that are right.
pub(super) fn kexinit(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.byte();
    let split = usize::from(input.half());
    let mut talk = Talk::new(u32::from(how) << 24);
    for (side, banner) in SIDES.into_iter().zip(BANNERS) {
        talk.say(side, banner);
    }
    let client = input.take(split);
    for (side, payload) in SIDES.into_iter().zip([client, input.0]) {
        // As the content of a packet that is right, or as the whole.
        let packet = if how & 1 == 0 {
            packet(payload)
        } else {
            payload.to_vec()
        };
        let piece = 1 + usize::from(how >> 1) * 16;
        for bytes in packet.chunks(piece) {
            talk.say(side, bytes);
        }
    }
    talk.check();
}

pub(super) fn kexinit_seeds() -> Vec<Vec<u8>> {
    let payload = |cipher: &str| {
        let lists = [
            "curve25519-sha256",
            "ssh-ed25519",
            cipher,
            cipher,
            "hmac-sha1",
            "hmac-sha1",
        ];
        let mut payload = vec![20];
        payload.extend([7; 16]);
        for list in lists.into_iter().chain(["none", "none", "", ""]) {
            payload.extend(
                u32::try_from(list.len())
                    .expect("a short list")
                    .to_be_bytes(),
            );
            payload.extend(list.as_bytes());
        }
        payload.extend([0; 5]);
        payload
    };
    let mut seeds = Vec::new();
    for cipher in [
        "chacha20-poly1305@openssh.com",
        "aes128-gcm@openssh.com",
        "aes128-ctr,aes256-cbc",
    ] {
        let payload = payload(cipher);
        let length = u16::try_from(payload.len())
            .expect("a short payload")
            .to_be_bytes();
        for how in [0, 254] {
            seeds.push([&[how][..], &length, &payload, &payload].concat());
        }
        let whole = packet(&payload);
        let length = u16::try_from(whole.len())
            .expect("a short packet")
            .to_be_bytes();
        seeds.push([&[255][..], &length, &whole, &whole].concat());
    }
    seeds
}

/// Segments in any order: bytes, sizes alone, again, at any place.
pub(super) fn session(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut talk = Talk::new(input.word());
    while !input.is_empty() {
        let how = input.byte();
        let side = SIDES[usize::from(how & 1)];
        let next = talk.next[side as usize];
        let length = usize::from(input.half());
        match how >> 1 & 3 {
            // In order, of which the first bytes were captured.
            0 => {
                let bytes = input.take(length);
                talk.say(side, bytes);
            }
            1 => {
                let length = u32::try_from(length).expect("16 bits");
                talk.next[side as usize] = next.wrapping_add(length);
                talk.send(side, next, length, &[]);
            }
            // At a place of its own: a retransmission, an overlap, a gap.
            2 => {
                let offset = u32::from(input.half()).wrapping_sub(0x4000);
                let bytes = input.take(length & 0x3ff);
                let length = u32::try_from(bytes.len()).expect("10 bits");
                talk.send(side, next.wrapping_add(offset), length, bytes);
            }
            _ => {
                talk.now_ns += u64::from(input.half()) * 1_000_000;
                if how & 0xf0 == 0xf0 {
                    talk.session.settle();
                }
            }
        }
    }
    talk.check();
}

pub(super) fn session_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for file in deploy::files(CAPTURES, ".txt").expect("captures of sessions") {
        let mut seed = vec![0, 0, 0, 1];
        for line in deploy::read(&file).expect("a capture").lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [side, _, length, _, rest @ ..] = &words[..] else {
                panic!("{file}: {line}");
            };
            let side = u8::from(*side == "S");
            let bytes = rest.first().map_or(Vec::new(), |hex| unhex(hex));
            let length: u16 = length.parse().expect("a length");
            if bytes.len() == usize::from(length) {
                seed.push(side);
                seed.extend(length.to_be_bytes());
                seed.extend(bytes);
            } else {
                seed.push(side | 2);
                seed.extend(length.to_be_bytes());
            }
        }
        seeds.push(seed);
    }
    seeds
}

/// A packet in clear text (RFC 4253, 6).
fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 5 + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap_or(u32::MAX);
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).expect("less than 12"));
    packet.extend(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    let digits = pairs.filter_map(|pair| std::str::from_utf8(pair).ok());
    digits
        .map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal digits"))
        .collect()
}
