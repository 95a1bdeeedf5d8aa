//! What a stranger may send.

use super::*;

/// A client that sends these bytes, in segments of 1400 bytes.
fn client(bytes: &[u8]) -> Session {
    bytes
        .chunks(1_400)
        .fold(Talk::default(), Talk::client)
        .session()
}

#[test]
fn escapes_of_terminals_are_escaped() {
    let session = client(b"SSH-2.0-\x1b[2J\x07\\x\xc3\xa4\r\r\n");
    assert_eq!(
        session.banner(Side::Client),
        Some("SSH-2.0-\\x1b[2J\\x07\\x5cx\\xc3\\xa4\\x0d")
    );
}

#[test]
fn long_banners() {
    let long = |length: usize, end: &str| {
        let session = client(format!("SSH-2.0-{}{end}", "a".repeat(length - 8)).as_bytes());
        (
            session.banner(Side::Client).map(str::len),
            hints(&session),
            session.is_identified(),
        )
    };
    assert_eq!(long(253, "\r\n"), (Some(253), vec![], false));
    assert_eq!(
        long(254, "\r\n"),
        (Some(254), vec![Hint::LongBanner], false)
    );
    assert_eq!(
        long(8_000, "\r\n"),
        (Some(255), vec![Hint::LongBanner], false)
    );
    assert_eq!(
        long(100_000, "\r\n"),
        (Some(255), vec![Hint::LongBanner], false)
    );
    let session = client(&[&b"SSH-2.0-"[..], &vec![0x1B; 100_000]].concat());
    assert_eq!(
        session.banner(Side::Client).map(str::len),
        Some(8 + 247 * 4)
    );
    // A KEXINIT follows a long line that is captured.
    let ident = format!("SSH-2.0-{}\r\n", "a".repeat(1_000));
    let session = client(&[ident.as_bytes(), &kexinit(1, CHACHA, "m")].concat());
    assert!(session.hassh(Side::Client).is_some());
}

#[test]
fn a_settled_session_keeps_as_much_of_a_banner_as_one_has_without_escapes() {
    let banner = |line: &[u8]| {
        let mut session = client(line);
        session.settle();
        session.banner(Side::Client).map(str::to_owned)
    };
    assert_eq!(
        banner(b"SSH-2.0-\x1b\r\n").as_deref(),
        Some("SSH-2.0-\\x1b")
    );
    for junk in 230..260 {
        let line = [
            &b"SSH-2.0-"[..],
            &vec![b'a'; junk % 7],
            &vec![0x1B; junk],
            b"\r\n",
        ]
        .concat();
        let kept = banner(&line).expect("a banner");
        assert!((252..=255).contains(&kept.len()), "{kept}");
        assert!(kept.ends_with("\\x1b"), "{kept}");
    }
}

#[test]
fn kexinit_of_26_kilobytes() {
    let algorithms = "diffie-hellman-group1-sha1,".repeat(1_000);
    let lists = [
        &*algorithms,
        "h",
        "c",
        "c",
        "m",
        "m",
        "none",
        "none",
        "",
        "",
    ];
    let hostile = packet(&kexinit_payload(1, lists));
    assert!(hostile.len() > 26_000);
    let session = client(&[b"SSH-2.0-x\r\n", &hostile[..]].concat());
    assert_eq!(hints(&session), [Hint::KexinitTruncated]);
    assert_eq!(session.hassh(Side::Client), None);
    assert_eq!(session.class(), Some(Class::ClientOnly));
}

#[test]
fn thousands_of_algorithms() {
    let names = "a,".repeat(3_900);
    let lists = ["k", "h", &*names, &*names, "m", "m", "none", "none", "", ""];
    let cut = "b,".repeat(3_900);
    let talk = Talk::default()
        .client("SSH-2.0-x\r\n")
        .server("SSH-2.0-y\r\n")
        .client(packet(&kexinit_payload(
            1,
            ["k", "h", &*names, "", "m", "m", "z", "z", "", ""],
        )))
        .server(packet(&kexinit_payload(
            2,
            ["k", "h", "", &*cut, "m", "m", "z", "z", "", ""],
        )));
    let session = talk.session();
    assert!(session.is_identified() && session.hassh(Side::Client).is_some());
    assert!(packet(&kexinit_payload(1, lists)).len() > 8_192);
}

#[test]
fn what_is_no_kexinit() {
    let after_ident = |bytes: &[u8]| {
        let session = client(&[b"SSH-2.0-x\r\n", bytes].concat());
        (session.hassh(Side::Client).is_some(), hints(&session))
    };
    let invalid = (false, vec![Hint::KexinitInvalid]);
    assert_eq!(after_ident(b"GET / HTTP/1.0\r\n\r\n"), invalid);
    assert_eq!(after_ident(&[0xFF; 40]), invalid);
    assert_eq!(after_ident(&packet(&[21])), invalid, "NEWKEYS at once");
    assert_eq!(after_ident(&packet(&[20; 30])), invalid, "lists that lie");
    assert_eq!(after_ident(&packet(&[20])), invalid, "no cookie");
    let mut lying = kexinit(1, CHACHA, "m");
    lying[22..26].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(after_ident(&lying), invalid);
    let mut long = kexinit(1, CHACHA, "m");
    long[..4].copy_from_slice(&35_000_u32.to_be_bytes());
    assert_eq!(after_ident(&long), (false, vec![Hint::KexinitTruncated]));
    // IGNORE and DEBUG may come first.
    let debug = [packet(&[2; 9]), packet(&[4; 9]), kexinit(1, CHACHA, "m")].concat();
    assert_eq!(after_ident(&debug), (true, vec![]));
}

#[test]
fn a_kexinit_of_which_bytes_were_not_captured() {
    let mut talk = Talk::handshake(OPENSSH, CHACHA, "m");
    talk.segments[3].bytes.truncate(60);
    let session = talk.session();
    assert_eq!(hints(&session), [Hint::KexinitTruncated]);
    assert!(session.is_identified());
    assert_eq!(session.cookies(), None);
    assert_eq!(session.authentication(true), Authentication::UNKNOWN);
}

#[test]
fn lengths_and_sequences_that_lie() {
    let mut session = Talk::handshake(OPENSSH, GCM, "m").session();
    let identity = told(&session);
    for sequence in [0, 1, 1_000, 5_000, u32::MAX, u32::MAX / 2] {
        for length in [0, 1, u32::MAX] {
            for side in [Side::Client, Side::Server] {
                let bytes = &[0xFF; 9];
                session.segment(&Segment {
                    side,
                    sequence,
                    length,
                    is_pushed: true,
                    time_ns: 0,
                    bytes,
                });
            }
        }
    }
    assert_ne!(session.authentication(true).outcome, AuthOutcome::Success);
    assert_eq!(session.cookies(), Some(([1; 16], [2; 16])));
    drop(identity);
}

#[test]
fn memory_is_bounded() {
    let mut session = Session::default();
    for index in 0..100_000_u32 {
        for side in [Side::Client, Side::Server] {
            let sequence = index.wrapping_mul(0x9E37_79B1) % 60_000;
            let bytes = &[b'S'; 100][..(index % 100) as usize];
            let length = 100;
            session.segment(&Segment {
                side,
                sequence,
                length,
                is_pushed: true,
                time_ns: u64::from(index),
                bytes,
            });
        }
        assert!(
            session.bytes_held() <= 24 * 1024,
            "{index}: {}",
            session.bytes_held()
        );
    }
}

/// A byte of the client at the sequence number of its SYN, which the server's TCP discards.
fn stray() -> Owned {
    Owned {
        side: Side::Client,
        sequence: Talk::default().next[Side::Client as usize] - 1,
        length: 1,
        is_pushed: true,
        time_ns: 5_000_000,
        bytes: b"x".to_vec(),
    }
}

#[test]
fn a_byte_ahead_of_the_identification_voids_nothing() {
    let talk = Talk::handshake(OPENSSH, CHACHA, "m").answers(&[44, 84, 28]);
    let expected = told(&talk.session());
    // From the identification on.
    for at in 1..=talk.segments.len() {
        let mut segments = talk.segments.clone();
        segments.insert(at, stray());
        assert_eq!(told(&session(&segments)), expected, "{at}");
    }
}

#[test]
fn a_byte_ahead_of_where_the_client_begins_is_not_taken_in() {
    let talk = Talk::handshake(OPENSSH, CHACHA, "m");
    let start = talk.segments[0].sequence;
    // The same bytes sent again, one ahead of them too.
    let straddling = Owned {
        length: 1 + talk.segments[0].length,
        bytes: [b"x", &talk.segments[0].bytes[..]].concat(),
        ..stray()
    };
    for first in [stray(), straddling] {
        let mut session = Session::default();
        session.begins_at(Side::Client, start);
        for segment in [first].iter().chain(&talk.segments) {
            session.segment(&segment.as_segment());
        }
        assert_eq!(told(&session), told(&talk.session()));
        assert_eq!(session.first_sequences()[0], Some(start));
    }
}
