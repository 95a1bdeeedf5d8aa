use super::*;

fn totals(traffic: &Traffic) -> (u64, u64) {
    (traffic.packets(), traffic.bytes())
}

fn count(traffic: &mut Traffic, packets: u64, bytes: u64) {
    // SAFETY: nobody else has it.
    unsafe {
        add(
            &raw mut traffic.word,
            &raw mut traffic.carried,
            packets,
            bytes,
        );
    };
}

/// Packets of all sizes, up to the largest buffers there can be.
#[test]
fn nothing_is_lost_by_carrying() {
    let mut traffic = Traffic::default();
    let mut expected = (0, 0);
    let mut random = 1_u64;
    for _ in 0..300_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let (packets, bytes) = match random >> 62 {
            0 => (1, random >> 40 & 0x5ff),
            1 => (random >> 40 & 0x3f, random >> 32 & 0xffff),
            2 => (1, 0),
            _ => (random >> 40 & 0xffff, random >> 30 & 0x3fff_ffff),
        };
        count(&mut traffic, packets, bytes);
        expected = (expected.0 + packets, expected.1 + bytes);
        assert_eq!(totals(&traffic), expected);
    }
    assert!(
        traffic.carried.packets > 10_000 && traffic.carried.bytes > 100_000,
        "{traffic:?}"
    );
}

/// A word stays far from what would be taken for a negative number.
#[test]
fn a_word_is_carried_before_it_is_full() {
    let mut traffic = Traffic::default();
    for _ in 0..1_000_000 {
        count(&mut traffic, 0xffff, 0x3fff_ffff);
        let (packets, bytes) = divided(traffic.word);
        assert!((0..1 << 18).contains(&packets) && (0..1 << 32).contains(&bytes));
    }
}

/// All that several processors carry was there, or is missing in the word.
#[test]
fn what_is_carried_twice_is_still_counted_once() {
    for processors in [2_u64, 16, 499] {
        let mut traffic = Traffic::default();
        let before = (0x1_2345, 0x7ff_ffff);
        count(&mut traffic, before.0, before.1);
        for _ in 0..processors {
            // As each does that has seen the same word.
            traffic.word = traffic
                .word
                .wrapping_sub(joined(1 << PACKET_UNIT, 1 << BYTE_UNIT));
            traffic.carried.packets += 1;
            traffic.carried.bytes += 1;
        }
        assert_eq!(totals(&traffic), before);
        count(&mut traffic, 3, 4_000);
        assert_eq!(totals(&traffic), (before.0 + 3, before.1 + 4_000));
        // And nothing more is carried for it.
        assert_eq!(u64::from(traffic.carried.packets), processors);
    }
}

/// However many processors have taken and not given yet, and be it the first time.
#[test]
fn a_reading_in_between_is_too_low() {
    for earlier in [0, 5] {
        let mut traffic = Traffic::new(earlier << PACKET_UNIT, earlier << BYTE_UNIT);
        count(&mut traffic, 1 << PACKET_UNIT, 1 << BYTE_UNIT);
        let before = totals(&traffic);
        for _ in 0..2 {
            let unit = joined(1 << PACKET_UNIT, 1 << BYTE_UNIT);
            traffic.word = traffic.word.wrapping_sub(unit);
            let now = totals(&traffic);
            assert!(now.0 < before.0 && now.1 < before.1, "{now:?} {before:?}");
        }
        for _ in 0..2 {
            traffic.carried.packets += 1;
            traffic.carried.bytes += 1;
        }
        assert_eq!(totals(&traffic), before);
    }
}

#[test]
fn totals_are_those_it_was_made_of() {
    for totals_ in [
        (0, 0),
        (1, 40),
        (65_535, 1 << 26),
        (65_536, (1 << 26) - 1),
        ((1 << 47) - 1, (1 << 57) - 1),
    ] {
        let traffic = Traffic::new(totals_.0, totals_.1);
        assert_eq!(totals(&traffic), totals_);
    }
}

/// Two processors that take the same connection's counts out of an entry at once.
#[test]
fn what_was_taken_out_twice_is_nothing() {
    let counted = Traffic::new(5 << PACKET_UNIT | 7, 5 << BYTE_UNIT | 7);
    let mut entry = counted;
    for _ in 0..2 {
        entry.word = entry.word.wrapping_sub(counted.word);
        entry.carried.packets = entry.carried.packets.wrapping_sub(counted.carried.packets);
        entry.carried.bytes = entry.carried.bytes.wrapping_sub(counted.carried.bytes);
    }
    assert_eq!(totals(&entry), (0, 0));
}
