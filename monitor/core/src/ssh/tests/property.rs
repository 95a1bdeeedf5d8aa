//! Whatever order, whatever bytes.

use proptest::prelude::*;

use super::*;

/// Cuts a segment in pieces of its own time, at most `cuts` of them.
fn split(segment: &Owned, cuts: &[usize]) -> Vec<Owned> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % segment.bytes.len()).collect();
    ends.push(segment.bytes.len());
    ends.sort_unstable();
    let mut from = 0;
    let mut pieces = Vec::new();
    for to in ends {
        if to > from {
            pieces.push(Owned {
                sequence: segment.sequence.wrapping_add(u32::try_from(from).unwrap()),
                length: u32::try_from(to - from).unwrap(),
                is_pushed: segment.is_pushed && to == segment.bytes.len(),
                bytes: segment.bytes[from..to].to_vec(),
                ..segment.clone()
            });
            from = to;
        }
    }
    pieces
}

/// A permutation by a hash of the place. Identifications and KEXINITs, the first four segments, pass
/// before all others: neither end sends NEWKEYS before it has those of the other (RFC 4253 section
/// 7), and this end's were acknowledged by then.
fn permuted(pieces: Vec<Owned>, talk: &Talk, order: u64) -> Vec<Owned> {
    let exchange = talk.segments.get(4).map(|segment| segment.time_ns);
    let mut keyed: Vec<_> = pieces.into_iter().enumerate().collect();
    keyed.sort_by_key(|(index, piece)| {
        let is_later = exchange.is_some_and(|time_ns| piece.time_ns >= time_ns);
        let place = (*index as u64 ^ order).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (is_later, place)
    });
    keyed.into_iter().map(|(_, piece)| piece).collect()
}

fn any_talk() -> impl Strategy<Value = Talk> {
    let banner = prop::sample::select(vec![
        "SSH-2.0-OpenSSH_9.2p1",
        "SSH-1.99-dropbear_2022.83",
        "SSH-2.0-AsyncSSH_2.21.0",
        "SSH-2.0-x\0\0",
    ]);
    (banner, 0..5_usize, any::<bool>(), any::<[u32; 2]>()).prop_map(
        |(banner, failures, ok, starts)| {
            let mut talk = Talk::handshake(banner, GCM, "m").records(&[196, 52]);
            for _ in 0..failures {
                talk = talk.records(&[84]);
            }
            if ok {
                talk = talk.records(&[36, 500]);
            }
            for segment in &mut talk.segments {
                let start = starts[segment.side as usize];
                segment.sequence = segment.sequence.wrapping_add(start);
            }
            talk
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn order_splits_and_duplicates_do_not_matter(
        talk in any_talk(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<usize>()), 0..8),
        order in any::<u64>(),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut pieces = Vec::new();
        for (index, segment) in talk.segments.iter().enumerate() {
            let cuts: Vec<usize> = cuts.iter()
                .filter(|(of, _)| of.index(talk.segments.len()) == index)
                .map(|(_, cut)| *cut)
                .collect();
            pieces.extend(split(segment, &cuts));
        }
        for index in again {
            pieces.push(pieces[index.index(pieces.len())].clone());
        }
        let pieces = permuted(pieces, &talk, order);
        prop_assert_eq!(told(&session(&pieces)), told(&talk.session()));
    }

    #[test]
    fn the_sizes_of_any_order_tell_the_same(
        answers in prop::collection::vec(20..120_usize, 0..8),
        order in any::<u64>(),
    ) {
        let talk = answers.iter().fold(
            Talk::handshake(OPENSSH, CHACHA, "m").answers(&[44]),
            |talk, size| talk.answers(&[*size]),
        );
        let pieces = permuted(talk.segments.clone(), &talk, order);
        prop_assert_eq!(told(&session(&pieces)), told(&talk.session()));
        let is_success = talk.session().authentication(true).outcome == AuthOutcome::Success;
        let before: Vec<usize> = answers.iter().copied().take_while(|size| *size != 28).collect();
        let may_be = |size: usize, n: usize| size >= n * 28 && (size - n * 20).is_multiple_of(8);
        let is_whole = before.iter().all(|size| (1..=size / 28).any(|n| may_be(*size, n)));
        // No packet's end, and no key exchange: each is one packet, the first may be two.
        let is_uncut = before.iter().enumerate().all(|(at, size)| {
            may_be(*size, 1) || at == 0 && *size >= 112 && may_be(*size, 2)
        });
        let has_one = answers.contains(&28);
        prop_assert!(is_success || !(has_one && is_uncut));
        prop_assert!(!is_success || has_one && is_whole);
    }
}

fn any_segment() -> impl Strategy<Value = Owned> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        Just(b"SSH-2.0-x\r\n".to_vec()),
        Just(kexinit(1, CHACHA, "m")),
        Just(kexinit(2, GCM, "m")),
        Just(packet(&[21])),
        Just(packet(&[31; 100])),
        Just(b"Not allowed at this time\r\nPROXY \r\n\r\n\0\r\nQUIT\n".to_vec()),
    ];
    let sequence = prop_oneof![Just(0_u32), 0..300_u32, any::<u32>()];
    let length = prop_oneof![0..100_u32, any::<u32>()];
    (any::<bool>(), sequence, length, any::<u64>(), bytes).prop_map(
        |(is_server, sequence, length, time_ns, bytes)| Owned {
            side: if is_server {
                Side::Server
            } else {
                Side::Client
            },
            sequence,
            length,
            is_pushed: time_ns % 3 != 0,
            time_ns,
            bytes,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_048))]

    #[test]
    fn anything_at_all_is_taken_in(segments in prop::collection::vec(any_segment(), 0..60)) {
        let mut session = Session::default();
        for segment in &segments {
            session.segment(&segment.as_segment());
            let _ = told(&session);
            prop_assert!(session.bytes_held() <= 24 * 1024);
        }
    }

    #[test]
    fn random_bytes_are_never_a_success(
        parts in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(any::<u8>(), 1..200)), 0..40),
        has_ident in any::<bool>(),
    ) {
        let ident = if has_ident { "SSH-2.0-x\r\n" } else { "x" };
        let mut talk = Talk::default().client(ident).server(ident);
        for (is_server, bytes) in parts {
            talk = talk.say(if is_server { Side::Server } else { Side::Client }, bytes);
        }
        prop_assert_ne!(talk.session().authentication(true).outcome, AuthOutcome::Success);
    }

    #[test]
    fn damage_to_a_session_is_taken_in(
        talk in any_talk(),
        damage in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut segments = talk.segments;
        for (segment, at, byte) in damage {
            let segment = segment.get(&segments).clone();
            let mut segment = segment;
            let index = at.index(segment.bytes.len());
            segment.bytes[index] = byte;
            let place = segments.iter().position(|other| other.sequence == segment.sequence
                && other.side == segment.side).unwrap();
            segments[place] = segment;
        }
        let _ = told(&session(&segments));
    }

    #[test]
    fn encrypted_packets_without_success_are_never_one(
        sizes in prop::collection::vec(prop::collection::vec(1..40_usize, 1..4), 0..12),
    ) {
        // No packet is as short as SUCCESS.
        let talk = sizes.iter().fold(
            Talk::handshake(OPENSSH, GCM, "m"),
            |talk, burst| {
                let burst: Vec<usize> = burst.iter().map(|size| 36 + 16 * size).collect();
                talk.records(&burst)
            },
        );
        prop_assert_ne!(talk.session().authentication(true).outcome, AuthOutcome::Success);
    }
}
