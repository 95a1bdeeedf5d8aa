//! Clients that close their window, and have answers cut where they like.

use super::authentication::{UNKNOWN, accepted, failure, outcome, success};
use super::*;

/// A server that sends at once what is cut does not push the first part.
#[test]
fn what_was_not_pushed_goes_on() {
    let talk = accepted().answers(&[76]);
    let mut cut = talk.clone().answers(&[48]);
    cut.segments.last_mut().unwrap().is_pushed = false;
    assert_eq!(outcome(&cut), UNKNOWN, "more is to come");
    assert_eq!(outcome(&cut.client([0x5A]).server([0xA5; 28])), failure(1));
    // The beginning of a refusal, seen alone.
    let mut begun = talk.answers(&[28]);
    begun.segments.last_mut().unwrap().is_pushed = false;
    assert_eq!(outcome(&begun), UNKNOWN);
}

/// A client that closes its window until answers have piled up, and opens it just so far that they are
/// cut as it likes: the server probes the window for that, after 200 ms at the earliest.
#[test]
fn answers_that_pile_up_and_are_cut_are_no_success() {
    let probe = |talk: Talk, size| {
        talk.client([0x5A; 116])
            .wait_ms(203)
            .server(vec![0xA5; size])
    };
    let probed = || accepted().answers(&[76]);
    // SERVICE_ACCEPT and a prompt, of which the last bytes come later; or the beginning of a refusal.
    let piled = probe(probed(), 44 + 60 - 28);
    let ended = piled.clone().client([0x5A; 28]).server([0xA5; 28]);
    assert_eq!(outcome(&ended), UNKNOWN);
    assert!(ended.session().may_be_in());
    assert_eq!(outcome(&probe(probed(), 28)), UNKNOWN);
    // Hidden by a message right before the probe, and more of the same.
    let hidden = probed().client([0x5A; 116]).wait_ms(202).client([0x5A; 28]);
    assert_eq!(outcome(&hidden.server([0xA5; 28])), UNKNOWN);
    // What piled up comes in the length of host keys.
    let called_for = piled.client([0x5A; 420]).server([0xA5; 28]);
    assert_eq!(outcome(&called_for.server([0xA5; 628])), UNKNOWN);
    // A client that takes in no more than a few bytes at a time from the beginning.
    let mut narrow = Talk::handshake(OPENSSH, CHACHA, "m");
    let long = narrow
        .segments
        .iter()
        .position(|segment| segment.length > 640 && segment.side == Side::Server);
    let long = narrow.segments.remove(long.unwrap());
    for (index, bytes) in long.bytes.chunks(104).enumerate() {
        let mut piece = long.clone();
        piece.sequence = piece
            .sequence
            .wrapping_add(u32::try_from(index * 104).unwrap());
        (piece.length, piece.bytes) = (u32::try_from(bytes.len()).unwrap(), bytes.to_vec());
        narrow.segments.insert(3 + index, piece);
    }
    let narrow = narrow.answers(&[44]).answers(&[76]);
    assert_eq!(outcome(&narrow.clone().answers(&[28])), UNKNOWN);
    assert_eq!(outcome(&narrow.answers(&[76])), failure(1));
}

/// Whoever types a password takes that long, too: then what only a login is followed by proves one.
#[test]
fn a_slow_login_is_proved_by_what_follows() {
    let typed = |talk: Talk| talk.wait_ms(3_000).client([0x5A; 148]).server([0xA5; 28]);
    let once = typed(accepted().answers(&[212 + 76]));
    assert_eq!(outcome(&once), UNKNOWN);
    let goes_on = |talk: Talk| talk.client([0x5A; 60]).server([0xA5; 44]);
    let keys = |talk: Talk| goes_on(talk.client([0x5A; 112]).server([0xA5; 628]));
    assert_eq!(outcome(&keys(once.clone())), success(1));
    // Right after the login, as a server may send both.
    let both = once.clone().server([0xA5; 628]);
    assert_eq!(outcome(&both), UNKNOWN, "more may wait");
    assert_eq!(outcome(&goes_on(both)), success(1));
    // The session took a while to begin.
    let begun = once.clone().client([0x5A; 112]).wait_ms(400);
    assert_eq!(outcome(&goes_on(begun.server([0xA5; 628]))), success(1));
    // A key: the client asks about it, signs, and opens a channel.
    let signed = |refusal: &[usize]| {
        let asked = accepted().answers(refusal).client([0x5A; 140]);
        let signed = asked.server([0xA5; 100]).client([0x5A; 228]);
        keys(signed.wait_ms(400).server([0xA5; 28]))
    };
    assert_eq!(outcome(&signed(&[76])), success(2));
    // That much may be called for where refusals are long, or it is not known how long.
    for refusal in [100, 212 + 76] {
        assert_eq!(outcome(&signed(&[refusal])), UNKNOWN, "{refusal}");
    }
    // Not what comes later.
    let late = once
        .client([0x5A; 112])
        .server([0xA5; 44])
        .server([0xA5; 628]);
    assert_eq!(outcome(&goes_on(late)), UNKNOWN);
    // After a wrong one, which the server is slow to refuse.
    let wrong = accepted().answers(&[76]).wait_ms(3_000).client([0x5A; 148]);
    let second = typed(wrong.wait_ms(2_000).server([0xA5; 76]));
    assert_eq!(outcome(&keys(second)), success(2));
}

/// A client that has more waiting cuts it in more steps, so that it called for nothing of late.
#[test]
fn what_was_called_for_long_ago_is_counted() {
    let probe = |talk: Talk, size: usize| {
        talk.client([0x5A; 36])
            .wait_ms(203)
            .server(vec![0xA5; size])
    };
    let goes_on = |talk: Talk| talk.client([0x5A; 36]).server([0xA5; 44]);
    let called = accepted().answers(&[76]).client([0x5A; 700]);
    let steps = |talk: Talk, steps: usize| {
        let talk = talk.wait_ms(203).server([0xA5; 76]);
        let talk = (0..steps).fold(talk, |talk, _| probe(talk, 76));
        goes_on(probe(probe(talk, 28), 628))
    };
    for count in 0..8 {
        assert_eq!(outcome(&steps(called.clone(), count)), UNKNOWN, "{count}");
    }
    // What it called for was not seen.
    let mut hidden = steps(called.clone(), 1);
    let long = hidden
        .segments
        .iter()
        .position(|segment| segment.length == 700);
    hidden.segments.remove(long.unwrap());
    assert_eq!(outcome(&hidden), UNKNOWN);
    // Nor what called for it, nor anything after that.
    let small = accepted().answers(&[76]).client([0x5A; 36]).wait_ms(203);
    let small = small.server([0xA5; 28]).server([0xA5; 628]);
    assert_eq!(outcome(&small.clone().server([0xA5; 44])), UNKNOWN);
    // All of it was seen.
    assert_eq!(outcome(&goes_on(small.clone())), success(1));
    // Segments that are no longer told of.
    let mut session = small.session();
    session.client_ends_at(small.now_ns);
    for segment in &goes_on(small.clone()).segments[small.segments.len()..] {
        session.segment(&segment.as_segment());
    }
    assert_eq!(session.authentication(true).outcome, AuthOutcome::Unknown);
}

/// What a server sends unasked waits, too: with its first answer, or for another key exchange.
#[test]
fn what_was_not_called_for_may_wait() {
    let cut = |talk: Talk, size: usize| {
        talk.client([0x5A; 36])
            .wait_ms(203)
            .server(vec![0xA5; size])
    };
    let goes_on = |talk: Talk| talk.client([0x5A; 36]).server([0xA5; 44]);
    let fake = |talk: Talk| cut(cut(talk, 28), 628);
    // SERVICE_ACCEPT once more, or UNIMPLEMENTED, before the first attempt.
    for first in [44, 36, 80] {
        assert_eq!(
            outcome(&goes_on(fake(accepted().answers(&[first])))),
            UNKNOWN,
            "{first}"
        );
    }
    // The first answer with a banner, in pieces.
    let banner = accepted().asks().wait_ms(203).server([0xA5; 76]);
    assert_eq!(outcome(&goes_on(fake(banner))), UNKNOWN);
    // The rest of a KEXINIT comes last, or never.
    let exchange = fake(accepted().answers(&[76]).client([0x5A; 164]));
    assert_eq!(outcome(&exchange), UNKNOWN);
    assert_eq!(
        outcome(&exchange.client([0x5A; 36]).server([0xA5; 500])),
        UNKNOWN
    );
    // Its pieces, and NEWKEYS, which some servers send by itself.
    let exchange = cut(cut(accepted().answers(&[76]), 540), 540);
    assert_eq!(outcome(&exchange.answers(&[100]).answers(&[28])), UNKNOWN);
}

/// SERVICE_ACCEPT is what came at once, too: two UNIMPLEMENTED of 36 bytes, cut at 44.
#[test]
fn the_beginning_of_what_piled_up_is_no_service_accept() {
    let talk = Talk::handshake(OPENSSH, CHACHA, "m").asks();
    let cut = |ms: u64| talk.clone().wait_ms(ms).server([0xA5; 44]);
    let rest = |talk: Talk| talk.client([0x5A; 36]).server([0xA5; 28]);
    assert_eq!(outcome(&rest(cut(203))), UNKNOWN);
    assert_eq!(
        outcome(&rest(cut(1))),
        success(1),
        "whose first attempt succeeds"
    );
}

/// What exceeds a segment is pushed where it is full, in the midst of a packet.
#[test]
fn what_is_as_long_as_a_segment_is_no_packet() {
    let probed = || accepted().answers(&[76]);
    assert_eq!(
        outcome(&probed().answers(&[452]).answers(&[28])),
        success(2)
    );
    assert_eq!(outcome(&probed().answers(&[580]).answers(&[28])), UNKNOWN);
}
