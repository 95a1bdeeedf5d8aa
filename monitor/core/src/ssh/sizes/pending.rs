//! What a client may have called for and not taken in, where packets show no boundaries.
//!
//! Whatever waits for the client's window may be cut into pieces of any length, a success and host keys
//! among them. How much may wait is known: what the client called for, less what it took in. That is a
//! proof where nothing else waits, which a server sends unasked:
//!
//! * EXT_INFO and a banner, which come with the first answer to an attempt. So that has to be known for one.
//! * A KEXINIT, with which it answers one that may be far shorter. Until something comes that was the last
//!   that waited, whatever is as long together may be one.

use super::{
    proof::is_host_keys,
    reader::{
        ACCEPT, ATTEMPT, Burst, CALLED_FOR, CALLED_FOR_AT_MOST, IGNORE, MAX_ANSWER, MAX_REFUSAL,
        MIN_REFUSAL, PROMPT_NS, Reader, SUCCESS, is_new,
    },
};

/// What came from NEWKEYS to SERVICE_ACCEPT.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lead {
    /// The most nanoseconds before any of it, and what came at once with SERVICE_ACCEPT.
    pub(super) most_gap_ns: u64,
    /// Bytes that the client sent until then, those aside that are counted with the answer after it.
    asked: u64,
    /// What [may be part of a KEXINIT](Reader::may_hide_kexinit).
    waiting: u32,
}

// === impl Lead ===

impl Lead {
    /// SERVICE_ACCEPT is this unit of this burst.
    pub(super) fn new(reader: &Reader, bursts: &[Burst], (at, unit): (usize, usize)) -> Self {
        let until = bursts.get(..=at).unwrap_or_default();
        let (last, earlier) = until
            .split_last()
            .map_or((None, until), |(last, earlier)| (Some(last), earlier));
        let is_alone = last.is_some_and(|last| last.sizes.len() == unit + 1);
        let own = last.filter(|_| is_alone).map_or(0, |last| last.asked);
        let with_accept = last.into_iter().flat_map(Burst::units).take(unit + 1);
        let units = earlier.iter().flat_map(Burst::units).chain(with_accept);
        let mut waiting = 0;
        for unit in units {
            waiting = reader.waits(waiting, unit);
        }
        Self {
            most_gap_ns: until
                .iter()
                .map(|burst| burst.most_gap_ns)
                .max()
                .unwrap_or(0),
            asked: own + earlier.iter().map(|burst| burst.asked).sum::<u64>(),
            waiting,
        }
    }
}

// === impl Reader ===

impl Reader {
    /// Whether a segment that was pushed holds a piece of that size: what exceeds a segment may end in the
    /// midst of a packet and be pushed all the same, since what was written before into the same segment
    /// was. Segments of later on are half as long at least: they have as many of the shortest ones as half the
    /// client's window (`tcp_xmit_size_goal`), and only how long those are changes, by what routers tell.
    pub(super) const fn is_within_segment(&self, size: u32) -> bool {
        size.saturating_mul(2) <= self.longest
    }

    /// Whether nothing waits for the client's window after it, which was not cut by a probe of that.
    const fn is_last(&self, (size, gap_ns): (u32, u64)) -> bool {
        self.longest > MAX_ANSWER && gap_ns < PROMPT_NS && self.is_within_segment(size)
    }

    /// Bytes that may be part of a KEXINIT with another piece, which does not complete one; the most there
    /// is, where it does.
    fn waits(&self, waiting: u32, unit: (u32, u64)) -> u32 {
        let together = waiting.saturating_add(unit.0);
        if self.model.may_be_kexinit(together) {
            u32::MAX
        } else if self.is_last(unit) {
            0
        } else {
            together
        }
    }

    /// Whether a KEXINIT may be in what came, in pieces.
    pub(super) fn may_hide_kexinit(&self, answers: &[Burst]) -> bool {
        let units = answers.iter().flat_map(Burst::units);
        units.fold(self.lead.waiting, |waiting, unit| self.waits(waiting, unit)) == u32::MAX
    }

    /// Whether a success at this place is followed by host keys that cannot have been called for.
    ///
    /// What follows them has to show that all that the client sent before was seen, and that nothing waits.
    pub(super) fn is_beyond_what_was_called_for(&self, answers: &[Burst], at: usize) -> bool {
        let (Some(first), Some(success)) = (answers.first(), answers.get(at)) else {
            return false;
        };
        if !self.is_first_answer(first) {
            return false;
        }
        // Host keys come at once.
        let (place, keys) = match (success.sizes.get(1), answers.get(at + 1)) {
            (Some(keys), _) => (at, *keys),
            (None, Some(next)) if !next.sizes.is_empty() => (at + 1, next.sizes[0]),
            _ => return false,
        };
        let before = answers.get(..at).unwrap_or_default();
        if !is_host_keys(&self.model, keys) || !is_new(before, keys) {
            return false;
        }
        let asked = self.lead.asked
            + answers
                .iter()
                .take(place + 1)
                .map(|answer| answer.asked)
                .sum::<u64>();
        let others = before.iter().skip(1).flat_map(|answer| &answer.sizes);
        let taken = self.size(ACCEPT)
            + self.called_for_at_least(first)
            + others.sum::<u32>()
            + self.size(SUCCESS)
            + keys;
        if asked * self.rate(first) >= u64::from(taken) * 10 {
            return false;
        }
        let mut waiting = self.lead.waiting;
        for (index, answer) in answers.iter().enumerate() {
            for unit in answer.units() {
                waiting = self.waits(waiting, unit);
                if waiting == u32::MAX {
                    return false;
                }
                if waiting == 0 && index > place {
                    return answer.is_known;
                }
            }
        }
        false
    }

    /// Whether it is the first answer to an attempt for certain, and all of it.
    fn is_first_answer(&self, first: &Burst) -> bool {
        if self.lead.most_gap_ns >= PROMPT_NS || !first.units().all(|unit| self.is_last(unit)) {
            return false;
        }
        let all: u32 = first.sizes.iter().sum();
        let is_beyond = u64::from(all) * 10 > CALLED_FOR * first.asked;
        let may_be_pong =
            self.model.is_pinged && (!first.is_known || u64::from(all) <= first.asked);
        is_beyond || !may_be_pong && !self.may_be_without_attempt(all)
    }

    /// Whether that many bytes may be any number of UNIMPLEMENTED and SERVICE_ACCEPT.
    fn may_be_without_attempt(&self, bytes: u32) -> bool {
        let (short, long) = (self.size(IGNORE), self.size(ACCEPT));
        counts(bytes, long, short).any(|count| (bytes - count * long).is_multiple_of(short))
    }

    fn is_refusal(&self, size: u32) -> bool {
        self.model.is_packets(size, 1) && size <= self.size(MAX_REFUSAL)
    }

    /// How much of the first answer to an attempt was called for: EXT_INFO and a banner may be with it.
    fn called_for_at_least(&self, first: &Burst) -> u32 {
        match first.sizes.as_slice() {
            [refusal] if self.is_refusal(*refusal) => *refusal,
            sizes => sizes.iter().sum::<u32>().min(self.size(MIN_REFUSAL)),
        }
    }

    /// How many bytes a client may call for by 10 that it sends.
    fn rate(&self, first: &Burst) -> u64 {
        match first.sizes.as_slice() {
            // That of `none`, and no EXT_INFO with it.
            [refusal] if self.is_refusal(*refusal) => {
                let by_refusals = (*refusal * 10).div_ceil(self.size(ATTEMPT));
                CALLED_FOR.max(by_refusals.into())
            }
            _ => CALLED_FOR_AT_MOST,
        }
    }
}

/// How many of the long ones to try: what they leave, divided by the short, repeats after as many as that has
/// bytes, however much a peer has sent at once.
fn counts(bytes: u32, long: u32, short: u32) -> std::ops::Range<u32> {
    0..(bytes / long + 1).min(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_much_came_is_no_number_of_steps() {
        for (long, short) in [(44, 28), (52, 36), (64, 48), (40, 24)] {
            for bytes in [4 << 20, (4 << 20) + 1, u32::MAX] {
                assert!(counts(bytes, long, short).len() <= 48, "{bytes}");
            }
            // None is left out by that.
            for bytes in 0..1_500_u32 {
                let fits = |count: u32| (bytes - count * long).is_multiple_of(short);
                let any = (0..=bytes / long).any(fits);
                assert_eq!(counts(bytes, long, short).any(fits), any, "{bytes}");
            }
        }
    }
}
