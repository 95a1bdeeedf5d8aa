//! How answers to attempts are told apart, and whether one is a login for certain.
//!
//! Where packets show no boundaries, what the server writes at once is taken for one packet, or for
//! several. A client has means against that: it calls for answers and closes its window, so that they
//! are sent together, and opens it so far that they are cut where it likes. What it cannot do:
//!
//! * Have them cut at once. Linux cuts what exceeds the window only when it probes the window, 200 ms
//!   after the last segment at the earliest (`tcp_write_wakeup`, `TCP_RTO_MIN`); earlier only what is
//!   longer than the client's largest segment, and then it does not push (PSH) what precedes the cut.
//!   Writes share a segment of the least size only where the client never took in longer ones.
//! * Have sent, without asking for it, what only a client receives that is logged in: the server's
//!   [host keys](super::proof).

use super::{model::Model, proof::is_host_keys};

/// Payloads: USERAUTH_SUCCESS is one byte, an empty IGNORE five, SERVICE_ACCEPT names
/// `ssh-userauth`.
pub(super) const SUCCESS: u32 = 1;
pub(super) const IGNORE: u32 = 5;
pub(super) const ACCEPT: u32 = 17;
/// Payload of a refusal: a list of methods of at least `password`, and of at most all that there are.
const MIN_REFUSAL: u32 = 6 + 8;
const MAX_REFUSAL: u32 = 6 + 90;
/// Payload of an EXT_INFO with the least `server-sig-algs` (RFC 8308 section 3.1).
const MIN_EXT_INFO: u32 = 1 + 4 + 4 + 15 + 4 + 11;
/// More bytes than a burst of failure, prompt, or echo of a 4096-bit key can have.
pub(super) const MAX_ANSWER: u32 = 640;
/// What comes sooner after what the server sent before was not cut by a probe of the window: 200 ms, less
/// a tick of the kernel and what the way adds.
const PROMPT_NS: u64 = 180_000_000;
/// Bytes that a client may call for before a login by 10 that it sends: any number of UNIMPLEMENTED, 36 for
/// 28, and where it is not known how long a refusal is, six of 100, which name all methods.
const CALLED_FOR: u64 = 13;
const CALLED_FOR_AT_MOST: u64 = 16;
/// The shortest request, for which there may be a refusal.
const ATTEMPT: u32 = 1 + 4 + 4 + 14 + 4 + 4;

/// Sizes of what the server sent at once, encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Burst {
    pub(super) sizes: Vec<u32>,
    /// Bytes that the client sent since the burst before.
    pub(super) asked: u64,
    /// Since the client's last segment, nanoseconds.
    pub(super) delay_ns: u64,
    /// Whether the client sent anything before.
    pub(super) is_answer: bool,
    /// Since what the server sent before its first, nanoseconds.
    pub(super) gap_ns: u64,
    /// The most of all of them.
    pub(super) most_gap_ns: u64,
}

/// How answers are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    pub(super) model: Model,
    /// An IGNORE precedes each.
    pub(super) has_ignore: bool,
    /// The sizes are those of packets, not of segments.
    pub(super) is_exact: bool,
    /// Bytes of the longest segment of the server in clear text.
    pub(super) longest: u32,
    /// The most nanoseconds before what came with SERVICE_ACCEPT.
    pub(super) accept_gap_ns: u64,
}

// === impl Reader ===

impl Reader {
    fn size(&self, payload: u32) -> u32 {
        self.model.size(payload)
    }

    pub(super) fn is_success(&self, answer: &Burst, is_first: bool) -> bool {
        let [first, second @ ..] = answer.sizes.as_slice() else {
            return false;
        };
        let success = self.size(SUCCESS);
        if *first == success {
            return true;
        }
        // EXT_INFO or a banner precedes the success of a login without password: certain where
        // sizes are those of packets.
        is_first
            && self.is_exact
            && !self.has_ignore
            && *first > self.size(ACCEPT)
            && second.first() == Some(&success)
    }

    /// Answers before a login that were refusals for certain: those of one size, which came more
    /// than once or is that of the refusal of `none`. A key that is accepted is answered once.
    pub(super) fn refusals(&self, before: &[Burst]) -> usize {
        let last = |answer: &Burst| answer.sizes.last().copied();
        let (none, rest) = match before {
            [first, rest @ ..] if !self.model.is_first_real => (last(first), rest),
            all => (None, all),
        };
        let count = |size| {
            rest.iter()
                .filter(|answer| last(answer) == Some(size))
                .count()
        };
        rest.iter()
            .filter_map(last)
            .map(|size| (size, count(size)))
            .filter(|(size, count)| *count > 1 || none == Some(*size))
            .map(|(_, count)| count)
            .max()
            .unwrap_or(0)
    }

    /// Whether neither the success nor what precedes it was cut by a probe of the client's window.
    fn is_prompt(&self, before: &[Burst], success: &Burst) -> bool {
        let gap = before
            .last()
            .map_or(self.accept_gap_ns, |last| last.most_gap_ns);
        self.longest > MAX_ANSWER && gap < PROMPT_NS && success.gap_ns < PROMPT_NS
    }

    /// Whether nothing before may be the beginning of a packet whose end is as short as a success.
    ///
    /// A refusal has a list of methods that is not as long as one likes, EXT_INFO and a refusal are two
    /// packets, and any other answer is one. Without its last bytes, as many as a success has, each of
    /// these is something else.
    fn is_uncut(&self, before: &[Burst]) -> bool {
        let [first, others @ ..] = before else {
            return true;
        };
        let all: u32 = first.sizes.iter().sum();
        let is_refusal = self.model.is_packets(all, 1) && all <= self.size(MAX_REFUSAL);
        let is_with_info = self.model.is_packets(all, 2)
            && all >= self.size(MIN_EXT_INFO) + self.size(MIN_REFUSAL);
        let is_one = |size: &u32| *size <= MAX_ANSWER && self.model.is_packets(*size, 1);
        (is_refusal || is_with_info) && others.iter().all(|answer| answer.sizes.iter().all(is_one))
    }

    /// Whether the answer of the size of a success is one, and nothing that the client may get
    /// without logging in.
    pub(super) fn is_certain(&self, answers: &[Burst], at: usize) -> bool {
        let (before, rest) = answers.split_at_checked(at).unwrap_or_default();
        let [success, next @ ..] = rest else {
            return false;
        };
        // A new key exchange, which a client may have at any time, makes nothing certain: NEWKEYS is as
        // short as a success.
        if before.iter().any(|answer| self.may_be_kexinit(answer)) {
            return false;
        }
        // Nothing else is so short but the beginning or end of a packet that was cut.
        let is_alone = self.size(SUCCESS) < self.size(IGNORE);
        if is_alone {
            if self.is_exact || self.is_prompt(before, success) && self.is_uncut(before) {
                return true;
            }
            let is_whole = |size: &u32| self.model.is_whole(*size);
            if !before
                .iter()
                .all(|answer| answer.sizes.iter().all(is_whole))
            {
                return false;
            }
        }
        // The first attempt brings EXT_INFO and a banner.
        if before.is_empty() || self.has_ignore {
            return false;
        }
        let is_new = |size: u32| before.iter().all(|answer| !answer.sizes.contains(&size));
        let follow = success.sizes.iter().skip(1).map(|size| (success, *size));
        let next = next.first().into_iter();
        let next = next.flat_map(|next| next.sizes.iter().map(move |size| (next, *size)));
        // Packets may come in between, as long as none begins another key exchange, whose reply is as
        // long as the algorithms make it. Where boundaries do not show, host keys come at once.
        let most = if self.is_exact { usize::MAX } else { 1 };
        follow
            .chain(next)
            .take(most)
            .take_while(|(_, size)| !self.model.may_be_kexinit(*size))
            .any(|(burst, size)| {
                let is_called_for = if self.is_exact {
                    self.model.is_pinged && burst.asked >= u64::from(size)
                } else {
                    let asked = asked(before.last(), success, burst, is_alone);
                    asked * self.called_for(before) >= u64::from(size + self.size(SUCCESS)) * 10
                };
                is_host_keys(&self.model, size) && is_new(size) && !is_called_for
            })
    }

    /// How many bytes a client may call for by 10 that it sends.
    fn called_for(&self, before: &[Burst]) -> u64 {
        let first = before.first().map(|first| first.sizes.as_slice());
        match first {
            // That of `none`, and no EXT_INFO with it.
            Some([refusal])
                if self.model.is_packets(*refusal, 1) && *refusal <= self.size(MAX_REFUSAL) =>
            {
                let by_refusals = (*refusal * 10).div_ceil(self.size(ATTEMPT));
                CALLED_FOR.max(by_refusals.into())
            }
            _ => CALLED_FOR_AT_MOST,
        }
    }

    fn may_be_kexinit(&self, answer: &Burst) -> bool {
        let may_be = |size: &u32| self.model.may_be_kexinit(*size);
        may_be(&answer.sizes.iter().sum()) || answer.sizes.iter().any(may_be)
    }
}

/// Bytes of the client that may have called for what is taken for host keys, in `burst`.
///
/// Where a success is alone of its size, all that was asked since the answer before the last counts.
/// Elsewhere only what was asked since the success: clients that agree on such ciphers have keys whose
/// signatures are as long as the host keys.
fn asked(last: Option<&Burst>, success: &Burst, burst: &Burst, is_alone: bool) -> u64 {
    let own = if std::ptr::eq(burst, success) {
        0
    } else {
        burst.asked
    };
    let earlier = success.asked + last.map_or(0, |last| last.asked);
    own + if is_alone { earlier } else { 0 }
}
