//! Who talks.

use super::*;

#[test]
fn both_ends() {
    let session = Talk::handshake(OPENSSH, CHACHA, "m").session();
    assert_eq!(session.class(), Some(Class::Ssh));
    assert!(session.is_identified());
    assert_eq!(
        session.banner(Side::Client),
        Some("SSH-2.0-OpenSSH_10.0p2 client")
    );
    assert_eq!(session.banner(Side::Server), Some(OPENSSH));
    assert_eq!(session.cookies(), Some(([1; 16], [2; 16])));
    assert_eq!(hints(&session), []);
}

#[test]
fn hassh_reads_the_lists_of_its_direction() {
    // printf 'k;c1;m1;z1' | md5sum, printf 'k;c2;m2;z2' | md5sum
    let lists = ["k", "h", "c1", "c2", "m1", "m2", "z1", "z2", "l", "l"];
    let packet = packet(&kexinit_payload(3, lists));
    let ident = b"SSH-2.0-x\r\n".to_vec();
    let session = Talk::default()
        .client([ident.clone(), packet.clone()].concat())
        .server([ident, packet].concat())
        .session();
    let hassh = |side| session.hassh(side).unwrap().to_owned();
    assert_eq!(hassh(Side::Client), "dd40933168f18f8a21ff43d3399175d8");
    assert_eq!(hassh(Side::Server), "ef2009dcd463afbe99c5888867b06e53");
}

#[test]
fn one_end() {
    let probe = Talk::default()
        .server("SSH-2.0-x\r\n")
        .client("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(probe.session().class(), Some(Class::ServerOnly));
    let silent = Talk::default().server("SSH-2.0-x\r\n");
    assert_eq!(silent.session().class(), Some(Class::ServerOnly));
    assert_eq!(
        silent.session().authentication(true).outcome,
        AuthOutcome::None
    );
    let answer = "Invalid SSH identification string.\r\n";
    let session = probe.server(answer).session();
    assert_eq!(session.authentication(true).outcome, AuthOutcome::None);
    let web = Talk::default()
        .client("SSH-2.0-x\r\n")
        .server("HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(web.session().class(), Some(Class::ClientOnly));
    assert_eq!(
        web.session().authentication(true).outcome,
        AuthOutcome::None
    );
    let neither = Talk::default()
        .client("GET /SSH-2.0-x\r\nSSH-2.0-x\r\n")
        .server("SSH\r\n");
    assert_eq!(neither.session().class(), None);
    assert_eq!(Session::default().class(), None);
    assert_eq!(
        Session::default().authentication(true),
        Authentication::UNKNOWN
    );
}

#[test]
fn lines_ahead_of_the_server_banner() {
    let lines = "Welcome\r\nnot SSH-2.0-y\nSSH-\n".repeat(100);
    let talk = Talk::default()
        .client("SSH-2.0-x\r\n")
        .server(format!("{lines}{OPENSSH}\n"))
        .server(kexinit(1, CHACHA, "m"));
    let session = talk.session();
    assert_eq!(session.banner(Side::Server), Some(OPENSSH));
    assert_eq!(hints(&session), [Hint::LinesBeforeBanner]);
    assert!(session.hassh(Side::Server).is_some());
    // OpenSSH takes 1024.
    for (count, class) in [(1024, Class::Ssh), (1025, Class::ClientOnly)] {
        let lines = "\n".repeat(count);
        let talk = Talk::default()
            .client("SSH-2.0-x\r\n")
            .server(format!("{lines}{OPENSSH}\n"));
        assert_eq!(talk.session().class(), Some(class));
    }
}

#[test]
fn versions() {
    let of = |client: &str, server: &str| Talk::default().client(client).server(server).session();
    let session = of("SSH-2.0-x\r\n", "SSH-1.5-y\n");
    assert!(session.is_identified());
    assert_eq!(hints(&session), [Hint::Version1]);
    assert_eq!(session.authentication(true), Authentication::UNKNOWN);
    let session = of("SSH-2.0-x\r\n", "SSH-1.99-y\r\n");
    assert!(!session.is_identified());
    assert_eq!(hints(&session), []);
    assert_eq!(session.banner(Side::Server), Some("SSH-1.99-y"));
}

#[test]
fn a_penalized_client_is_refused() {
    let refused = Talk::default()
        .client("SSH-2.0-x\r\n")
        .server("Not allowed at this time\r\n");
    let session = refused.session();
    assert_eq!(session.class(), Some(Class::ClientOnly));
    assert!(session.is_identified());
    assert_eq!(hints(&session), [Hint::Refused]);
    assert_eq!(session.authentication(true).outcome, AuthOutcome::None);
}

#[test]
fn proxy_headers_are_skipped() {
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C".to_vec();
    binary.extend([10; 12]);
    for header in [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 22\r\n".to_vec(), binary] {
        let bytes = [&header[..], b"SSH-2.0-x\r\n", &kexinit(1, CHACHA, "m")].concat();
        let bytewise = bytes
            .iter()
            .fold(Talk::default(), |talk, byte| talk.client([*byte]));
        for talk in [bytewise, Talk::default().client(&bytes)] {
            let session = talk.server("SSH-2.0-y\r\n").session();
            assert_eq!(session.class(), Some(Class::Ssh));
            assert_eq!(session.banner(Side::Client), Some("SSH-2.0-x"));
            assert!(session.hassh(Side::Client).is_some());
            assert_eq!(hints(&session), [Hint::ProxyHeader]);
        }
    }
}

#[test]
fn an_echo_is_no_server() {
    let ident = format!("{OPENSSH}\r\n");
    let kexinit = kexinit(1, CHACHA, "m");
    let talk = Talk::default()
        .client(&ident)
        .server(&ident)
        .client(&kexinit)
        .server(&kexinit);
    let session = talk.session();
    assert_eq!(session.class(), Some(Class::ClientOnly));
    assert_eq!(hints(&session), [Hint::Echo]);
    assert!(session.is_identified());
    // The same program at both ends is none.
    let talk = Talk::default().client(&ident).server(&ident);
    assert_eq!(talk.session().class(), Some(Class::Ssh));
}

#[test]
fn bytewise_banner() {
    let whole = Talk::handshake(OPENSSH, CHACHA, "m");
    let mut talk = Talk::default();
    for segment in &whole.segments {
        for byte in &segment.bytes {
            talk = talk.say(segment.side, [*byte]);
        }
    }
    assert_eq!(told(&talk.session()), told(&whole.session()));
}

#[test]
fn nul_padded_banner() {
    for padding in ["\0\r\n", "\0\0\0\0\n", "\0\0\0\0", "\0evil\r\n", ""] {
        let bytes = [b"SSH-2.0-x", padding.as_bytes(), &kexinit(1, CHACHA, "m")].concat();
        let bytewise = bytes
            .iter()
            .fold(Talk::default(), |talk, byte| talk.client([*byte]));
        for talk in [bytewise, Talk::default().client(&bytes)] {
            let session = talk.session();
            assert_eq!(
                session.banner(Side::Client),
                Some("SSH-2.0-x"),
                "{padding:?}"
            );
            assert!(session.hassh(Side::Client).is_some(), "{padding:?}");
            assert_eq!(hints(&session), [Hint::NulInBanner]);
        }
    }
}

#[test]
fn the_beginning_of_a_direction_is_missing() {
    let whole = Talk::handshake(OPENSSH, CHACHA, "m")
        .answers(&[44])
        .answers(&[76])
        .answers(&[28]);
    for side in [Side::Client, Side::Server] {
        let first = whole
            .segments
            .iter()
            .position(|segment| segment.side == side)
            .unwrap();
        // The identification is missing: the KEXINIT says as much.
        let mut segments = whole.segments.clone();
        segments.remove(first);
        let without_ident = session(&segments);
        assert_eq!(without_ident.class(), Some(Class::Ssh));
        assert_eq!(without_ident.banner(side), None);
        assert_eq!(without_ident.hassh(side), whole.session().hassh(side));
        // It arrives late.
        segments.push(whole.segments[first].clone());
        assert_eq!(session(&segments).class(), Some(Class::Ssh));
        // All of the beginning is missing.
        let mut segments = whole.segments.clone();
        let mut left = 3;
        segments.retain(|segment| {
            let is_lost = segment.side == side && left > 0;
            left -= i32::from(is_lost);
            !is_lost
        });
        let session = session(&segments);
        let others = [Class::ServerOnly, Class::ClientOnly];
        assert_eq!(session.class(), Some(others[side as usize]));
        assert_eq!(session.authentication(true), Authentication::UNKNOWN);
    }
}

#[test]
fn a_banner_of_another_program() {
    // What hydra's libssh offers, under another name.
    let hassh = "742b4fd5532ca4f243aae081017fe8c5";
    let is_mismatch = |banner| fingerprint::is_mismatch(Side::Client, banner, hassh);
    assert!(is_mismatch("SSH-2.0-OpenSSH_7.1"));
    assert!(is_mismatch("SSH-2.0-libssh2_1.10.0"));
    assert!(!is_mismatch("SSH-2.0-libssh_0.10.6"));
    assert!(!is_mismatch("SSH-2.0-Golden"));
    assert!(is_mismatch("SSH-2.0-Go"));
    assert!(!is_mismatch("nonsense"));
    assert!(!fingerprint::is_mismatch(Side::Server, "SSH-2.0-Go", hassh));
    assert!(!fingerprint::is_mismatch(Side::Client, "SSH-2.0-Go", "0"));
}
