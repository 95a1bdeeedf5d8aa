//! A fixed number of arbitrary inputs, the same in every run: what a fuzzer would start with.

use super::super::{
    banner::{Found, Scan},
    kexinit::{Kexinit, agree},
};
use super::*;

const ROUNDS: u32 = 20_000;

/// Marsaglia's xorshift with 64 bits.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// Some of the parts and some bytes, damaged in places.
    fn mixture(&mut self, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..self.below(8) {
            match self.below(4) {
                0 => bytes.extend((0..self.below(40)).map(|_| 0).collect::<Vec<u8>>()),
                1 => {
                    for _ in 0..self.below(300) {
                        bytes.push(self.byte());
                    }
                }
                _ => bytes.extend(self.pick(parts)),
            }
        }
        for _ in 0..self.below(4) {
            if !bytes.is_empty() {
                let at = self.below(bytes.len());
                bytes[at] = self.byte();
            }
        }
        bytes
    }
}

#[test]
fn banners() {
    let mut random = Random(0x5353_482D_322E_302D);
    let exchange = kexinit(1, CHACHA, "m");
    let parts: [&[u8]; 12] = [
        b"SSH-2.0-x",
        b"SSH-1.99-y",
        b"SSH-1.5-z",
        b"SSH-",
        b"\r\n",
        b"\n",
        b"Not allowed at this time",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd",
        b"\x1b]0;title\x07\x1b[2J",
        b"a line\r\n",
        &exchange,
    ];
    let mut found = [0_u32; 2];
    for _ in 0..ROUNDS {
        let bytes = random.mixture(&parts);
        for side in [Side::Client, Side::Server] {
            let mut whole = Scan::default();
            let outcome = whole.advance(&bytes, side);
            // In pieces it is the same.
            let mut scan = Scan::default();
            let mut last = Found::More;
            let mut end = 0;
            while end < bytes.len() && last == Found::More {
                end += 1 + random.below(bytes.len() - end);
                last = scan.advance(&bytes[..end], side);
            }
            if end == bytes.len() {
                assert_eq!(last, outcome, "{bytes:?}");
            }
            if let Found::Packets(at) = outcome {
                assert!(at <= bytes.len(), "{bytes:?}");
            }
            if let Some(banner) = &whole.banner {
                assert!(banner.len() <= 4 * 255);
                assert!(
                    banner.bytes().all(|byte| matches!(byte, b' '..=b'~')),
                    "{banner}"
                );
            }
            found[side as usize] += u32::from(whole.banner.is_some());
        }
    }
    assert!(found.iter().all(|found| *found > ROUNDS / 20), "{found:?}");
}

#[test]
fn offers() {
    let mut random = Random(0x4B45_5849_4E49_5431);
    let lists = [
        "k1,k2",
        "h",
        "c,d",
        "d,c",
        "m",
        "m,n",
        "none",
        "none,zlib",
        "",
        "x",
    ];
    let mut parsed = 0;
    for _ in 0..ROUNDS {
        let mut payload = kexinit_payload(random.byte(), lists);
        for _ in 0..random.below(4) {
            let at = random.below(payload.len());
            payload[at] = random.byte();
        }
        payload.truncate(payload.len() - random.below(2) * random.below(payload.len()));
        let Some(kexinit) = Kexinit::parse(&payload) else {
            continue;
        };
        parsed += 1;
        let [c, s] = kexinit.ciphers;
        let sum = kexinit.kex.len() + c.len() + s.len();
        assert!(sum <= payload.len());
        if let Some(cipher) = agree(c, s) {
            let has = |list: &[u8]| list.split(|byte| *byte == b',').any(|name| name == cipher);
            assert!(has(c) && has(s));
        }
    }
    assert!(parsed > ROUNDS / 10, "{parsed}");
}

#[test]
fn sizes() {
    let mut random = Random(0x5A49_5A45_535A_4953);
    let banners = [
        "SSH-2.0-OpenSSH_9.6",
        DROPBEAR,
        "SSH-2.0-AsyncSSH_2.1",
        "SSH-2.0-Go",
    ];
    let etm = "hmac-sha2-256-etm@openssh.com";
    let ciphers = [
        (CHACHA, "m"),
        (GCM, "m"),
        ("aes128-ctr", "hmac-sha2-256"),
        ("aes256-ctr", etm),
        ("3des-cbc", "hmac-sha1"),
    ];
    // Sizes of the messages that there are, under one or another cipher.
    let known = [
        28, 36, 44, 48, 52, 64, 68, 76, 84, 108, 116, 628, 656, 784, 1_060,
    ];
    let (mut successes, mut failures) = (0, 0);
    for _ in 0..ROUNDS {
        let (cipher, mac) = ciphers[random.below(ciphers.len())];
        let mut talk = Talk::handshake(random.pick(&banners), cipher, mac);
        if random.below(4) > 0 {
            // SERVICE_ACCEPT, so that it gets somewhere.
            let size = [44, 52, 64, 68][random.below(4)];
            talk = if cipher == GCM {
                talk.records(&[52])
            } else {
                talk.answers(&[size])
            };
        }
        for _ in 0..random.below(10) {
            let sizes: Vec<usize> = (0..=random.below(3))
                .map(|_| match random.below(4) {
                    0 => 20 + 4 * random.below(60),
                    _ => known[random.below(known.len())],
                })
                .collect();
            talk = match (cipher, random.below(8)) {
                (_, 0) => talk.wait_ms(300),
                (GCM, 1) => talk.requests(&[36 + 16 * random.below(54)], 16),
                (_, 1) => talk.client(vec![0x5A; 1 + random.below(900)]),
                (GCM, _) => talk.records(
                    &sizes
                        .iter()
                        .map(|size| size.max(&36) & !15 | 4)
                        .collect::<Vec<_>>(),
                ),
                _ => talk.answers(&sizes),
            };
        }
        // What follows a login, too, so that it gets to the end.
        if cipher == GCM && random.below(2) == 0 {
            talk = talk.records(&[36]).records(&[628]).records(&[52]);
        }
        let mut session = talk.session();
        let told = session.authentication(true);
        let is_success = told.outcome == AuthOutcome::Success;
        assert!(!is_success || session.may_be_in(), "{talk:?}");
        assert!(told.attempts.is_none_or(|attempts| attempts <= 64));
        successes += u32::from(is_success);
        failures += u32::from(told.outcome == AuthOutcome::Failure);
        // What was dropped to save memory is a success or unknown.
        session.settle();
        let settled = session.authentication(true).outcome;
        let expected = if is_success {
            AuthOutcome::Success
        } else {
            AuthOutcome::Unknown
        };
        assert_eq!(settled, expected, "{talk:?}");
        assert!(session.bytes_held() < 4 * 1024);
    }
    assert!(successes > 200 && failures > 200, "{successes} {failures}");
}
