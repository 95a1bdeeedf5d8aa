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

use super::{model::Model, pending::Lead, proof::is_host_keys};

/// Payloads: USERAUTH_SUCCESS is one byte, an empty IGNORE five, SERVICE_ACCEPT names
/// `ssh-userauth`.
pub(super) const SUCCESS: u32 = 1;
pub(super) const IGNORE: u32 = 5;
pub(super) const ACCEPT: u32 = 17;
/// Payload of a refusal: a list of methods of at least `password`, and of at most all that there are.
pub(super) const MIN_REFUSAL: u32 = 6 + 8;
pub(super) const MAX_REFUSAL: u32 = 6 + 90;
/// Payload of an EXT_INFO with the least `server-sig-algs` (RFC 8308 section 3.1).
const MIN_EXT_INFO: u32 = 1 + 4 + 4 + 15 + 4 + 11;
/// More bytes than a burst of failure, prompt, or echo of a 4096-bit key can have.
pub(super) const MAX_ANSWER: u32 = 640;
/// What comes sooner after what the server sent before was not cut by a probe of the window: 200 ms, less
/// a tick of the kernel and what the way adds.
pub(super) const PROMPT_NS: u64 = 180_000_000;
/// Bytes that a client may call for before a login by 10 that it sends: any number of UNIMPLEMENTED, 36 for
/// 28, and where it is not known how long a refusal is, six of 100, which name all methods.
pub(super) const CALLED_FOR: u64 = 13;
pub(super) const CALLED_FOR_AT_MOST: u64 = 16;
/// Bytes that what repeats a request has more by itself: MACs of both directions differ by 56 at most, and a
/// prompt has a text beside a name.
const ADDED: u64 = 64;
/// The shortest request, for which there may be a refusal.
pub(super) const ATTEMPT: u32 = 1 + 4 + 4 + 14 + 4 + 4;

/// Sizes of what the server sent at once, encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Burst {
    pub(super) sizes: Vec<u32>,
    /// Bytes that the client sent since the burst before.
    pub(super) asked: u64,
    /// Bytes of the longest packet of all that the client had sent; None where boundaries do not show.
    pub(super) longest_request: Option<u32>,
    /// Since the client's last segment, nanoseconds.
    pub(super) delay_ns: u64,
    /// Whether the client sent anything before.
    pub(super) is_answer: bool,
    /// Of each: since what the server sent before it, nanoseconds.
    pub(super) gaps_ns: Vec<u64>,
    /// The most of all of them, and of what was [dropped](Self::drop_first).
    pub(super) most_gap_ns: u64,
    /// Whether all is known that the client sent until the last of them.
    pub(super) is_known: bool,
}

/// How answers are told.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) model: Model,
    /// An IGNORE precedes each.
    pub(super) has_ignore: bool,
    /// The sizes are those of packets, not of segments.
    pub(super) is_exact: bool,
    /// Bytes of the longest segment of the server in clear text.
    pub(super) longest: u32,
    /// What came up to SERVICE_ACCEPT.
    pub(super) lead: Lead,
}

// === impl Burst ===

impl Burst {
    pub(super) fn drop_first(&mut self, count: usize) {
        self.sizes.drain(..count.min(self.sizes.len()));
        self.gaps_ns.drain(..count.min(self.gaps_ns.len()));
    }

    /// Sizes, and nanoseconds since what the server sent before.
    pub(super) fn units(&self) -> impl Iterator<Item = (u32, u64)> {
        self.sizes.iter().copied().zip(self.gaps_ns.iter().copied())
    }
}

// === impl Reader ===

impl Reader {
    pub(super) fn size(&self, payload: u32) -> u32 {
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
            .map_or(self.lead.most_gap_ns, |last| last.most_gap_ns);
        let own = success.gaps_ns.first().copied().unwrap_or(u64::MAX);
        self.longest > MAX_ANSWER && gap < PROMPT_NS && own < PROMPT_NS
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
        let is_within = |size: &u32| self.is_within_segment(*size);
        first.sizes.iter().all(is_within)
            && others
                .iter()
                .all(|answer| answer.sizes.iter().all(is_within))
            && (is_refusal || is_with_info)
            && others.iter().all(|answer| answer.sizes.iter().all(is_one))
    }

    /// Whether the answer of the size of a success is one, and nothing that the client may get
    /// without logging in.
    pub(super) fn is_certain(&self, answers: &[Burst], at: usize) -> bool {
        let (before, rest) = answers.split_at_checked(at).unwrap_or_default();
        let Some(success) = rest.first() else {
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
            let is_uncut = || {
                self.is_prompt(before, success)
                    && self.is_uncut(before)
                    && !self.may_hide_kexinit(before)
            };
            if self.is_exact || is_uncut() {
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
        if !self.is_exact {
            return self.is_beyond_what_was_called_for(answers, at);
        }
        // What comes with the first answer to an attempt, EXT_INFO and a banner, may be as long as host keys.
        if !before.iter().any(|answer| self.is_to_attempt(answer)) {
            return false;
        }
        self.is_before_host_keys(before, rest)
    }

    /// Whether the success that these begin with is followed by host keys, and nothing that is as long.
    ///
    /// OpenSSH repeats what the client sent in a DISCONNECT, the names of two users (`Change of username or
    /// service not allowed`), in a PONG, and in prompts where PAM's modules name the user. After a
    /// DISCONNECT nothing follows. The others take a request that is about as long, sooner or later: when
    /// it was sent says nothing, as a client may send on while it waits, and have answers wait for its
    /// window.
    fn is_before_host_keys(&self, before: &[Burst], rest: &[Burst]) -> bool {
        // Host keys come in the answer itself or in the next one, which something else has to follow.
        rest.windows(2)
            .take(2)
            .enumerate()
            .flat_map(|(index, pair)| {
                let sizes = pair[0].sizes.iter().skip(usize::from(index == 0));
                sizes.map(move |size| (&pair[0], &pair[1], *size))
            })
            // Packets may come in between, as long as none begins another key exchange, whose reply is
            // as long as the algorithms make it.
            .take_while(|(.., size)| !self.model.may_be_kexinit(*size))
            .any(|(burst, later, size)| {
                later.is_known
                    && is_host_keys(&self.model, size)
                    && is_new(before, size)
                    && !may_be_called_for(burst, size)
            })
    }

    /// Whether a packet is in it that answers an attempt: neither SERVICE_ACCEPT once more, nor as short
    /// as UNIMPLEMENTED, nor what the client had sent back.
    fn is_to_attempt(&self, answer: &Burst) -> bool {
        let others = [self.size(SUCCESS), self.size(IGNORE), self.size(ACCEPT)];
        let is_other = |size: &u32| others.contains(size) || self.may_be_pong(answer, *size);
        !answer.sizes.iter().all(is_other)
    }

    fn may_be_pong(&self, burst: &Burst, size: u32) -> bool {
        self.model.is_pinged && (!burst.is_known || burst.asked >= u64::from(size))
    }

    fn may_be_kexinit(&self, answer: &Burst) -> bool {
        let may_be = |size: &u32| self.model.may_be_kexinit(*size);
        may_be(&answer.sizes.iter().sum()) || answer.sizes.iter().any(may_be)
    }
}

/// Whether any request may have called for a packet of that size, which repeats it and says more.
fn may_be_called_for(burst: &Burst, size: u32) -> bool {
    let most = |longest| u64::from(longest) * CALLED_FOR + ADDED * 10;
    burst
        .longest_request
        .is_none_or(|longest| most(longest) >= u64::from(size) * 10)
}

/// Whether none of these has that size.
pub(super) fn is_new(before: &[Burst], size: u32) -> bool {
    before.iter().all(|answer| !answer.sizes.contains(&size))
}
