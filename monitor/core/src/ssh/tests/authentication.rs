//! Whether a login succeeded.

use super::*;

const ASYNCSSH: &str = "SSH-2.0-AsyncSSH_2.21.0";

pub(super) fn outcome(talk: &Talk) -> (AuthOutcome, Option<u32>) {
    let Authentication {
        outcome,
        attempts,
        basis,
        ..
    } = talk.session().authentication(true);
    assert_eq!(
        basis == Basis::Sizes,
        outcome != AuthOutcome::Unknown,
        "{outcome}"
    );
    (outcome, attempts)
}

pub(super) const UNKNOWN: (AuthOutcome, Option<u32>) = (AuthOutcome::Unknown, None);

pub(super) fn success(attempts: u32) -> (AuthOutcome, Option<u32>) {
    (AuthOutcome::Success, Some(attempts))
}

pub(super) fn failure(attempts: u32) -> (AuthOutcome, Option<u32>) {
    (AuthOutcome::Failure, Some(attempts))
}

const NO_ATTEMPT: (AuthOutcome, Option<u32>) = (AuthOutcome::None, Some(0));

/// The client asks once more under AES-GCM and is answered.
pub(super) fn goes_on(talk: Talk) -> Talk {
    talk.records(&[52])
}

/// OpenSSH under chacha20 after SERVICE_ACCEPT.
pub(super) fn accepted() -> Talk {
    Talk::handshake(OPENSSH, CHACHA, "m").answers(&[44])
}

#[test]
fn a_password() {
    let probed = accepted().answers(&[76]);
    assert_eq!(outcome(&probed), NO_ATTEMPT);
    assert_eq!(outcome(&probed.clone().answers(&[28])), success(1));
    assert_eq!(outcome(&probed.clone().answers(&[76])), failure(1));
    assert_eq!(
        outcome(&probed.clone().answers(&[76]).answers(&[76])),
        failure(2)
    );
    let third = probed.answers(&[76]).answers(&[76]).answers(&[28]);
    assert_eq!(outcome(&third), success(3));
    assert_eq!(
        outcome(&third.answers(&[600, 44]).answers(&[5_000])),
        success(3)
    );
    assert_eq!(outcome(&accepted()), NO_ATTEMPT);
}

#[test]
fn nothing_is_final_before_the_end() {
    let talk = accepted().answers(&[76]).answers(&[76]).answers(&[76]);
    let open = talk.session().authentication(false);
    assert_eq!(
        (open.outcome, open.attempts, open.basis),
        (AuthOutcome::Unknown, Some(2), Basis::None)
    );
    assert_eq!(
        talk.answers(&[28]).session().authentication(false).outcome,
        AuthOutcome::Success
    );
}

#[test]
fn ext_info_in_the_segment_of_the_first_answer() {
    let probed = accepted().answers(&[212 + 76]);
    assert_eq!(outcome(&probed), NO_ATTEMPT);
    assert_eq!(outcome(&probed.clone().answers(&[76])), failure(1));
    assert_eq!(outcome(&probed.answers(&[28])), success(1));
}

#[test]
fn ext_info_ahead_of_service_accept() {
    let talk = Talk::handshake(OPENSSH, CHACHA, "m");
    // With NEWKEYS, before the client asks, or with the answer.
    let after_newkeys = talk.clone().server([0xA5; 188]).answers(&[44]);
    assert_eq!(
        outcome(&after_newkeys.answers(&[76]).answers(&[28])),
        success(1)
    );
    let with_answer = talk.clone().answers(&[188, 44]);
    assert_eq!(
        outcome(&with_answer.answers(&[76]).answers(&[28])),
        success(1)
    );
    let mut with_newkeys = talk;
    let last = with_newkeys
        .segments
        .iter_mut()
        .rfind(|segment| segment.side == Side::Server);
    let last = last.unwrap();
    last.bytes.extend([0xA5; 188]);
    last.length += 188;
    with_newkeys.next[1] = with_newkeys.next[1].wrapping_add(188);
    let talk = with_newkeys.answers(&[44]).answers(&[76]).answers(&[76]);
    assert_eq!(outcome(&talk), failure(1));
}

#[test]
fn a_single_answer() {
    let slow = |ms: u64| outcome(&accepted().asks().wait_ms(ms - 1).server([0xA5; 76]));
    assert_eq!(slow(249), NO_ATTEMPT);
    assert_eq!(slow(250), failure(1));
    assert_eq!(outcome(&accepted().answers(&[28])), success(1));
}

#[test]
fn a_client_that_does_not_probe() {
    let mut talk = accepted().answers(&[76]);
    let banner = b"SSH-2.0-paramiko_2.2.0 client\r\n";
    assert_eq!(talk.segments[0].bytes.len(), banner.len());
    talk.segments[0].bytes = banner.to_vec();
    assert_eq!(outcome(&talk), failure(1));
    assert_eq!(outcome(&talk.clone().answers(&[76])), failure(2));
    assert_eq!(outcome(&talk.answers(&[28])), success(2));
}

#[test]
fn dropbear_pads_to_16_bytes() {
    let talk = Talk::handshake(DROPBEAR, CHACHA, "m")
        .answers(&[44])
        .answers(&[52]);
    // UNIMPLEMENTED has that size, too.
    assert_eq!(outcome(&talk.clone().answers(&[36])), UNKNOWN);
    assert!(talk.clone().answers(&[36]).session().may_be_in());
    assert_eq!(outcome(&talk.clone().answers(&[52])), failure(1));
    assert!(!talk.answers(&[52]).session().may_be_in());
    // No other server has its SUCCESS.
    let talk = Talk::handshake(OPENSSH, CHACHA, "m")
        .answers(&[44])
        .answers(&[52]);
    assert_eq!(outcome(&talk.answers(&[36])), failure(1));
}

#[test]
fn go_pads_to_16_bytes_under_any_cipher() {
    let talk = Talk::handshake("SSH-2.0-Go", CHACHA, "m")
        .answers(&[52])
        .answers(&[68]);
    assert_eq!(outcome(&talk.clone().answers(&[36])), UNKNOWN);
    assert_eq!(outcome(&talk.answers(&[68])), failure(1));
}

#[test]
fn asyncssh_ignore_is_no_success() {
    let mac = "hmac-sha2-256";
    let talk = Talk::handshake(ASYNCSSH, "aes128-ctr", mac).answers(&[64]);
    assert_eq!(outcome(&talk.clone().answers(&[48, 80])), NO_ATTEMPT);
    let failed = talk
        .answers(&[48, 80])
        .answers(&[48, 80])
        .answers(&[48, 80]);
    assert_eq!(outcome(&failed), failure(2));
    assert_eq!(outcome(&failed.clone().answers(&[48, 48])), UNKNOWN);
    // A failure of the size of both.
    assert_eq!(outcome(&failed.clone().answers(&[48, 96])), failure(3));
    assert_eq!(outcome(&failed.clone().answers(&[96])), UNKNOWN);
    // Between the two segments.
    assert_eq!(outcome(&failed.answers(&[48])), failure(2));
    // In one segment.
    let talk = Talk::handshake(ASYNCSSH, CHACHA, "m").answers(&[44]);
    let failed = talk.answers(&[36 + 76]).answers(&[36 + 76]);
    assert_eq!(outcome(&failed), failure(1));
    assert_eq!(outcome(&failed.answers(&[36 + 28])), success(2));
}

#[test]
fn asyncssh_under_another_name() {
    let mac = "hmac-sha2-256";
    let talk = Talk::handshake(OPENSSH, "aes128-ctr", mac).answers(&[64]);
    assert_eq!(outcome(&talk.clone().answers(&[48, 80])), UNKNOWN);
    let failed = talk.clone().answers(&[48, 80]).answers(&[48, 80]);
    assert_eq!(outcome(&failed), failure(1));
    assert_eq!(outcome(&failed.answers(&[48, 48])), UNKNOWN);
    // What OpenSSH sends after SUCCESS is no reason for doubt.
    let login = talk.answers(&[80]).answers(&[48, 784]);
    assert_eq!(outcome(&login.answers(&[64])), success(1));
}

#[test]
fn boundaries_that_show() {
    let talk = Talk::handshake(OPENSSH, GCM, "ignored").records(&[196, 52]);
    // EXT_INFO and failure in one segment.
    let probed = talk.clone().records(&[228, 84]);
    assert_eq!(outcome(&probed), NO_ATTEMPT);
    assert_eq!(outcome(&probed.clone().records(&[84])), failure(1));
    // SUCCESS and more in one segment, which a size does not tell.
    assert_eq!(
        outcome(&goes_on(probed.clone().records(&[84]).records(&[36, 628]))),
        success(2)
    );
    // Login without password, which may be EXT_INFO and UNIMPLEMENTED.
    assert_eq!(outcome(&talk.records(&[228, 36])), UNKNOWN);
    // A segment of the size of SUCCESS that is the end of a packet.
    let mut split = probed.records(&[100]);
    let last = split.segments.last_mut().unwrap();
    last.length -= 36;
    let rest = last.bytes.split_off(64);
    split.next[1] = split.next[1].wrapping_sub(36);
    let split = split.asks().server(rest);
    assert_eq!(outcome(&split), failure(1));
}

#[test]
fn boundaries_that_were_not_captured() {
    let mut talk = Talk::handshake(OPENSSH, GCM, "ignored")
        .records(&[52])
        .records(&[84]);
    for segment in talk.segments.iter_mut().skip(9) {
        segment.bytes.clear();
    }
    let only_sizes = |mut talk: Talk| {
        for segment in talk.segments.iter_mut().skip(9) {
            segment.bytes.clear();
        }
        outcome(&talk)
    };
    let logged_in = goes_on(talk.clone().records(&[36]).records(&[628]));
    // Which a client may have called for, behind a window that it opens as it likes.
    assert_eq!(only_sizes(logged_in), UNKNOWN);
    assert_eq!(only_sizes(talk.records(&[84])), failure(1));
    // What should be a length is none.
    let broken = Talk::handshake(OPENSSH, GCM, "ignored")
        .answers(&[52])
        .answers(&[84]);
    assert_eq!(outcome(&broken.answers(&[36])), UNKNOWN);
}

#[test]
fn in_doubt_unknown() {
    // No SERVICE_ACCEPT, as behind a proxy that makes segments of its own.
    let talk = Talk::handshake(OPENSSH, CHACHA, "m");
    assert_eq!(
        outcome(&talk.clone().answers(&[120]).answers(&[28])),
        UNKNOWN
    );
    // Far more than failures.
    let talk = accepted().answers(&[76]);
    assert_eq!(
        outcome(&talk.clone().answers(&[28 + 712]).answers(&[44])),
        UNKNOWN
    );
    let long = (0..21).fold(talk.clone(), |talk, _| talk.answers(&[76]));
    assert_eq!(outcome(&long), UNKNOWN);
    // A segment of the server that was not seen.
    let mut gap = talk.answers(&[76]).answers(&[76]);
    let missing = gap.segments.len() - 3;
    gap.segments.remove(missing);
    assert_eq!(outcome(&gap), UNKNOWN);
    // Compression before the login, an unknown MAC.
    assert_eq!(
        outcome(&Talk::handshake(OPENSSH, "aes128-ctr", "m").answers(&[44])),
        UNKNOWN
    );
    // NEWKEYS passed and nothing else.
    assert_eq!(outcome(&Talk::handshake(OPENSSH, CHACHA, "m")), NO_ATTEMPT);
}

#[test]
fn retransmissions_are_no_answers() {
    let talk = accepted().answers(&[76]).answers(&[76]);
    let mut segments = talk.segments.clone();
    for segment in &talk.segments {
        let mut again = segment.clone();
        again.time_ns += 1_000_000_000;
        segments.push(again);
    }
    assert_eq!(told(&session(&segments)), told(&talk.session()));
}

/// A client that asks for failures, and for UNIMPLEMENTED by messages that no server knows.
#[test]
fn what_a_client_may_call_for_is_no_success() {
    let gcm = |banner| Talk::handshake(banner, GCM, "ignored").records(&[52]);
    let etm = |banner| {
        let mac = "hmac-sha2-256-etm@openssh.com";
        let talk = Talk::handshake(banner, "aes256-ctr", mac);
        talk.records_of(&[68], 32)
    };
    // Sizes of UNIMPLEMENTED, failure, SERVICE_ACCEPT once more, a prompt, KEXINIT, its reply, PONG.
    let (u, f) = (36, 84);
    let sequences: [&[&[usize]]; 12] = [
        &[&[u]],
        &[&[f], &[u]],
        &[&[f], &[u, u]],
        &[&[f], &[u], &[u], &[u]],
        &[&[f], &[u, f]],
        &[&[f], &[u], &[52]],
        &[&[f], &[u, 52]],
        &[&[f], &[u], &[f], &[f]],
        &[&[f], &[u], &[68]],
        &[&[f], &[u], &[1_076]],
        &[&[f], &[u, 1_076], &[212, u]],
        &[&[228, f], &[u], &[u; 40]],
    ];
    for sequence in sequences {
        let ask = |talk: Talk, sizes: &&[usize]| talk.records(sizes);
        let talk = sequence.iter().fold(gcm(OPENSSH), ask);
        assert_eq!(outcome(&talk), UNKNOWN, "{sequence:?}");
        assert!(talk.session().may_be_in());
        let wide = |talk: Talk, sizes: &&[usize]| {
            let sizes: Vec<usize> = sizes.iter().map(|size| size + 16).collect();
            talk.records_of(&sizes, 32)
        };
        let talk = sequence.iter().fold(etm(OPENSSH), wide);
        assert_eq!(outcome(&talk), UNKNOWN, "{sequence:?}");
    }
    // Bytes that a server sends back, of the size of its host keys.
    let pinged = "SSH-2.0-OpenSSH_9.6";
    let ping = |banner| {
        let talk = gcm(banner).records(&[f]).records(&[u]);
        talk.requests(&[628], 16).records_unasked(&[628])
    };
    assert_eq!(outcome(&goes_on(ping(pinged))), UNKNOWN);
    // A login to the same.
    let login = gcm(pinged).records(&[f]).records(&[u]).records(&[628]);
    assert_eq!(outcome(&goes_on(login)), success(1));
    // A failure of the size of host keys.
    let large = gcm(OPENSSH).records(&[116]).records(&[u]).records(&[116]);
    assert_eq!(outcome(&goes_on(large)), UNKNOWN);
    // Before the first attempt, which brings EXT_INFO and a banner.
    let first = gcm(OPENSSH).records(&[u]).records(&[628, f]);
    assert_eq!(outcome(&goes_on(first)), UNKNOWN);
    for before in [&[52][..], &[52, 52], &[52, u]] {
        let banner = gcm(OPENSSH).records(before).records(&[u]);
        let first = banner.records(&[228, 628, f]);
        assert_eq!(outcome(&goes_on(first)), UNKNOWN, "{before:?}");
    }
    // Another key exchange first, whose end is as short as a success.
    let exchange = gcm(OPENSSH).records(&[f]).records(&[1_076]).records(&[u]);
    assert_eq!(outcome(&goes_on(exchange.records(&[628]))), UNKNOWN);
}

/// A client that opens its window just so far that a failure is cut where a success would begin.
#[test]
fn the_end_of_a_packet_is_no_success() {
    let cut = |talk: Talk| talk.client([0x5A]).server([0xA5; 28]);
    let talk = accepted().answers(&[76]);
    assert_eq!(outcome(&cut(talk.clone().answers(&[48]))), UNKNOWN);
    let exchange = talk.answers(&[1_100]);
    assert_eq!(outcome(&cut(exchange)), UNKNOWN);
}

/// The same for EXT_INFO with a failure, for a key that is accepted, and behind a banner.
#[test]
fn the_end_of_a_longer_packet_is_no_success() {
    let cut = |talk: Talk| talk.client([0x5A]).server([0xA5; 28]);
    // EXT_INFO of 212 bytes and a failure of 76, less the last 28.
    assert_eq!(outcome(&cut(accepted().answers(&[212 + 48]))), UNKNOWN);
    assert_eq!(outcome(&cut(accepted().answers(&[212, 48]))), UNKNOWN);
    // A key's PK_OK of 100 bytes.
    let probed = accepted().answers(&[212 + 76]);
    assert_eq!(outcome(&cut(probed.clone().answers(&[72]))), UNKNOWN);
    assert_eq!(outcome(&probed.answers(&[100]).answers(&[28])), success(2));
    // A banner of 92 bytes comes with the first answer: only what follows a login proves one.
    let banner = accepted().answers(&[92 + 212 + 76]).answers(&[28]);
    assert_eq!(outcome(&banner), UNKNOWN);
    assert_eq!(outcome(&banner.answers(&[628]).answers(&[44])), success(1));
}

/// A server answers another key exchange with a KEXINIT and a reply that may be as long as host keys.
#[test]
fn the_reply_of_another_key_exchange_is_no_host_key() {
    let talk = Talk::handshake(OPENSSH, GCM, "ignored").records(&[52]);
    // RSA of 2048 bits under curve25519: 628 bytes.
    let fake = talk.records(&[84]).records(&[36]);
    let asked = fake.clone().records(&[1_076, 628, 36]);
    assert_eq!(outcome(&goes_on(asked)), UNKNOWN);
    assert_eq!(outcome(&goes_on(fake.records(&[52, 628]))), success(1));
}

#[test]
fn refusals_before_a_login() {
    let failures = |talk: Talk| {
        let told = talk.session().authentication(true);
        assert_eq!(told.outcome, AuthOutcome::Success);
        (told.attempts.unwrap(), told.failures)
    };
    let (probed, f) = (accepted().answers(&[212 + 76]), &[76][..]);
    assert_eq!(failures(probed.clone().answers(&[28])), (1, 0));
    // A key that is accepted, prompts of different sizes.
    assert_eq!(
        failures(probed.clone().answers(&[100]).answers(&[28])),
        (2, 0)
    );
    let prompts = probed.clone().answers(&[84]).answers(&[52]);
    assert_eq!(failures(prompts.answers(&[28])), (3, 0));
    // Five keys or passwords, and one that is right.
    let five = (0..5).fold(probed, |talk, _| talk.answers(f));
    assert_eq!(failures(five.clone().answers(&[28])), (6, 5));
    assert_eq!(failures(five.answers(&[100]).answers(&[28])), (7, 5));
    // Where boundaries show, the refusal of `none` tells what one is like.
    let talk = Talk::handshake(OPENSSH, GCM, "ignored").records(&[52]);
    let once = talk.records(&[228, 84]).records(&[84]);
    assert_eq!(failures(goes_on(once.records(&[36, 628]))), (2, 1));
}

#[test]
fn what_a_login_took_is_told_where_something_else_proves_it() {
    let talk = Talk::handshake(OPENSSH, GCM, "ignored").records(&[52]);
    let three = (0..3).fold(talk.records(&[84]), |talk, _| talk.records(&[84]));
    assert_eq!(three.session().login(), (None, 0));
    let mut session = three.records(&[36]).session();
    assert_eq!(session.authentication(true), Authentication::UNKNOWN);
    assert_eq!(session.login(), (Some(4), 3));
    session.settle();
    assert_eq!(session.login(), (Some(4), 3));
}
