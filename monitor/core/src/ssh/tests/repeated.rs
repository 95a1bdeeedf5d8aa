//! What a server says back to a client that has not logged in, in the length of its host keys.

use super::authentication::{UNKNOWN, goes_on, outcome, success};
use super::*;

const ETM: &str = "hmac-sha2-256-etm@openssh.com";
/// Bytes of a tag of AES-GCM.
const TAG: usize = 16;

/// After a refusal, and UNIMPLEMENTED, which is as long as a success.
fn strange() -> Talk {
    let talk = Talk::handshake(OPENSSH, GCM, "ignored").records(&[52]);
    talk.records(&[84]).records(&[36])
}

/// A DISCONNECT names the user of the first request and another one, who is as long as the client likes:
/// `Change of username or service not allowed`. It is the last that a server sends.
#[test]
fn a_disconnect_is_no_host_key() {
    for (first, second) in [(68, 564), (260, 372), (564, 68)] {
        let talk = Talk::handshake(OPENSSH, GCM, "ignored").records(&[52]);
        let refused = talk.requests(&[first], TAG).records_unasked(&[84]);
        let strange = refused.requests(&[36], TAG).records_unasked(&[36]);
        let ended = strange.requests(&[second], TAG).records_unasked(&[628]);
        assert_eq!(outcome(&ended), UNKNOWN, "{first}");
        // Whatever the client still sends.
        let sent = ended.clone().requests(&[36], TAG).requests(&[52], TAG);
        assert_eq!(outcome(&sent), UNKNOWN, "{first}");
        // At once with what seems to be a success.
        let talk = Talk::handshake(OPENSSH, GCM, "ignored").records(&[52]);
        let refused = talk.requests(&[first], TAG).records_unasked(&[84]);
        let both = refused.requests(&[36, second], TAG);
        assert_eq!(
            outcome(&both.records_unasked(&[36, 628])),
            UNKNOWN,
            "{first}"
        );
    }
}

/// The same where encrypt-then-MAC shows the boundaries.
#[test]
fn a_disconnect_is_no_host_key_under_encrypt_then_mac() {
    let talk = Talk::handshake(OPENSSH, "aes256-ctr", ETM).records_of(&[68], 32);
    let refused = talk.records_of(&[100], 32).records_of(&[52], 32);
    let ended = refused.records_of(&[644], 32);
    assert_eq!(outcome(&ended), UNKNOWN);
    assert_eq!(outcome(&ended.records_of(&[68], 32)), success(1));
}

/// Host keys come unasked: a client that sent something as long may have called for them.
#[test]
fn what_a_client_may_have_repeated_is_no_host_key() {
    // 13 by 10 of the request and 64 more: 628 by 434.
    for (request, expected) in [(420, success(1)), (436, UNKNOWN), (628, UNKNOWN)] {
        let asked = strange().requests(&[request], TAG).records_unasked(&[628]);
        assert_eq!(outcome(&goes_on(asked)), expected, "{request}");
    }
    // One host key: prompts that name the user are as long.
    let prompt = strange().requests(&[148], TAG).records_unasked(&[116]);
    assert_eq!(outcome(&goes_on(prompt)), UNKNOWN);
    // Sent long before, or in pieces, while answers wait for the client's window.
    let talk = || Talk::handshake(OPENSSH, GCM, "ignored").records(&[52]);
    let early = talk().requests(&[68, 36, 628], TAG).records_unasked(&[84]);
    let early = early
        .wait_ms(203)
        .records(&[36])
        .wait_ms(203)
        .records(&[628]);
    assert_eq!(outcome(&goes_on(early)), UNKNOWN);
    let mut pieces = strange();
    let request = Talk::default().requests(&[628], TAG).segments.remove(0);
    for piece in request.bytes.chunks(40) {
        pieces = pieces.client(piece);
    }
    assert_eq!(outcome(&goes_on(pieces.records_unasked(&[628]))), UNKNOWN);
    // What came after the host keys called for nothing before.
    let later = strange().records(&[628]).records(&[52]);
    assert_eq!(outcome(&later.requests(&[900], TAG)), success(1));
}

/// Without the boundaries of what the client sent it is not known how long its requests were.
#[test]
fn requests_that_are_not_known_prove_nothing() {
    let login = |talk: Talk| goes_on(talk.records(&[628]));
    assert_eq!(outcome(&login(strange())), success(1));
    // What should be a length is none.
    assert_eq!(outcome(&login(strange().client([0x5A; 36]))), UNKNOWN);
    // Bytes of it, and a segment of it, that were not captured.
    let whole = login(strange());
    let at = whole
        .segments
        .iter()
        .rposition(|segment| segment.side == Side::Client);
    let mut cut = whole.clone();
    cut.segments[at.unwrap() - 2].bytes.clear();
    assert_eq!(outcome(&cut), UNKNOWN);
    let mut gap = whole.clone();
    gap.segments.remove(at.unwrap() - 2);
    assert_eq!(outcome(&gap), UNKNOWN);
}

/// Of bytes that come twice and differ the server took in either, as where a checksum is wrong.
#[test]
fn bytes_that_came_twice_and_differ_prove_nothing() {
    let fake = strange().requests(&[36; 17], TAG);
    let first = fake.segments.last().unwrap().clone();
    let logged_in = |second: Owned| {
        let mut talk = fake.clone();
        talk.segments.push(second);
        outcome(&goes_on(talk.records_unasked(&[628])))
    };
    assert_eq!(logged_in(first.clone()), success(1), "the same again");
    let mut other = first;
    other.bytes = Talk::default()
        .requests(&[612], TAG)
        .segments
        .remove(0)
        .bytes;
    assert_eq!(other.bytes.len(), 612);
    assert_eq!(logged_in(other), UNKNOWN);
}
