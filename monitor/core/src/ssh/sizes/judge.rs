//! The rule.

use super::{
    super::{AuthOutcome, Authentication, Basis, stream::Stream},
    model::{Model, Quirk, Records},
    pending::Lead,
    reader::{ACCEPT, Burst, IGNORE, MAX_ANSWER, Reader, SUCCESS},
};

/// SERVICE_ACCEPT is among that many first packets of the server, EXT_INFO before it.
const MAX_BEFORE_ACCEPT: usize = 8;
/// A single answer after that long is a real attempt that failed: the `none` probe is answered at
/// once, while OpenSSH and PAM delay other failures.
const SLOW_NS: u64 = 250_000_000;
/// More answers than failed attempts can have (MaxAuthTries is 6, some answers are prompts).
const MAX_ANSWERS: usize = 20;

/// What the sizes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ssh) struct Judgement {
    pub(in crate::ssh) authentication: Authentication,
    /// What it took to log in, if the answer of the size of a success is one.
    pub(in crate::ssh) login: Option<Login>,
}

/// What it took to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ssh) struct Login {
    /// Answers, the success included.
    pub(in crate::ssh) attempts: u32,
    /// Those that were refusals for certain.
    pub(in crate::ssh) failures: u32,
}

/// What the client sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::ssh) struct Client<'a> {
    pub(in crate::ssh) stream: &'a Stream,
    /// Its packets, where boundaries show.
    pub(in crate::ssh) records: Option<&'a Records>,
    /// Until when all of its segments are known, nanoseconds.
    pub(in crate::ssh) limit_ns: u64,
}

// === impl Client ===

impl Client<'_> {
    /// Bytes of the longest packet that begins before `end`; None where that is not known.
    fn longest_before(&self, end: u32) -> Option<u32> {
        let records = self.records.filter(|_| !self.stream.is_ambiguous())?;
        let is_known = !records.is_broken && records.end >= end;
        let begun = records.known.iter().filter(|record| record.start < end);
        is_known.then(|| begun.map(|record| record.size).max().unwrap_or(0))
    }
}

/// Whether someone logged in; offsets in both streams count from NEWKEYS.
pub(in crate::ssh) fn judge(
    model: &Model,
    records: &Records,
    client: &Client<'_>,
    server: &Stream,
    ended: bool,
) -> Judgement {
    let mut login = None;
    let authentication = outcome(model, records, client, server, ended, &mut login);
    Judgement {
        authentication,
        login,
    }
}

fn outcome(
    model: &Model,
    records: &Records,
    client: &Client<'_>,
    server: &Stream,
    ended: bool,
    login: &mut Option<Login>,
) -> Authentication {
    let (bursts, is_complete) = bursts(model, records, client, server);
    let Some((reader, answers)) = answers(model, &bursts, server.longest()) else {
        let is_silent = bursts.iter().all(|burst| !burst.is_answer);
        return if ended && is_complete && is_silent {
            by_sizes(AuthOutcome::None, 0)
        } else {
            Authentication::UNKNOWN
        };
    };
    let success = answers
        .iter()
        .enumerate()
        .position(|(index, answer)| reader.is_success(answer, index == 0));
    if let Some(before) = success {
        let first = usize::from(model.is_first_real);
        let failures = reader.refusals(answers.get(..before).unwrap_or_default());
        let took = Login {
            attempts: u32::try_from((before + first).max(1)).unwrap_or(u32::MAX),
            failures: u32::try_from(failures).unwrap_or(u32::MAX),
        };
        *login = Some(took);
        // Segments in place of packets: a client cuts them where it likes, and has the bytes used up
        // that are captured (it acknowledges none, and they are sent again).
        let has_boundaries = !model.shows_lengths() || has_lengths(records, server);
        if !has_boundaries || !reader.is_certain(&answers, before) {
            return Authentication::UNKNOWN;
        }
        return Authentication {
            outcome: AuthOutcome::Success,
            attempts: Some(took.attempts),
            failures: took.failures,
            basis: Basis::Sizes,
        };
    }
    let count = answers.len();
    let is_plausible = count <= MAX_ANSWERS
        && answers
            .iter()
            .skip(1)
            .all(|answer| answer.sizes.iter().sum::<u32>() <= MAX_ANSWER);
    match (is_complete && is_plausible, ended, count) {
        (false, _, _) => Authentication::UNKNOWN,
        (true, false, _) => Authentication {
            attempts: u32::try_from(count.saturating_sub(1)).ok(),
            ..Authentication::UNKNOWN
        },
        (true, true, 0) => by_sizes(AuthOutcome::None, 0),
        (true, true, _) if model.is_first_real => by_sizes(AuthOutcome::Failure, count),
        (true, true, 1) if answers.iter().all(|answer| answer.delay_ns < SLOW_NS) => {
            by_sizes(AuthOutcome::None, 0)
        }
        (true, true, _) => by_sizes(AuthOutcome::Failure, (count - 1).max(1)),
    }
}

/// What came of it without a login.
fn by_sizes(outcome: AuthOutcome, attempts: usize) -> Authentication {
    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
    Authentication {
        outcome,
        attempts: Some(attempts),
        failures: attempts,
        basis: Basis::Sizes,
    }
}

/// What the server sent, parted by what the client sent, and whether nothing is missing.
fn bursts(
    model: &Model,
    records: &Records,
    client: &Client<'_>,
    server: &Stream,
) -> (Vec<Burst>, bool) {
    let asked = client.stream.pieces();
    let is_gapless = client.stream.known_until_ns() > 0;
    let known_until_ns = client.stream.known_until_ns().min(client.limit_ns);
    let mut is_complete = !client.stream.has_more() && !server.has_more() && is_gapless;
    let mut requests: Vec<(u64, u32, u32)> = asked
        .iter()
        .map(|piece| (piece.time_ns, piece.end - piece.start, piece.end))
        .collect();
    requests.sort_unstable();
    let mut bursts: Vec<Burst> = Vec::new();
    // What precedes the first is NEWKEYS; where that was not seen, it was long ago.
    let (mut asked_before, mut now) = (0, records.newkeys_ns);
    let mut push = |size: u32, time_ns: u64| {
        let gap_ns = time_ns.saturating_sub(now);
        now = time_ns.max(now);
        let asked = requests.partition_point(|(time, ..)| *time <= now);
        if asked > asked_before || bursts.is_empty() {
            let last = asked.checked_sub(1).and_then(|last| requests.get(last));
            let since = requests.get(asked_before..asked).unwrap_or_default();
            let until = requests.iter().take(asked).map(|(.., end)| *end).max();
            bursts.push(Burst {
                sizes: Vec::new(),
                asked: since.iter().map(|(_, size, _)| u64::from(*size)).sum(),
                longest_request: client.longest_before(until.unwrap_or(0)),
                delay_ns: last.map_or(0, |(last, ..)| now - last),
                is_answer: asked > 0,
                gaps_ns: Vec::new(),
                most_gap_ns: 0,
                is_known: true,
            });
            asked_before = asked;
        }
        if let Some(burst) = bursts.last_mut() {
            burst.sizes.push(size);
            burst.gaps_ns.push(gap_ns);
            burst.is_known &= now < known_until_ns;
            burst.most_gap_ns = burst.most_gap_ns.max(gap_ns);
        }
    };
    let pieces = server.pieces();
    for record in &records.known {
        let carrier = pieces
            .iter()
            .find(|piece| piece.start <= record.start && record.start < piece.end);
        let Some(carrier) = carrier else {
            return (bursts, false);
        };
        push(record.size, carrier.time_ns);
    }
    if records.is_broken {
        return (bursts, false);
    }
    if model.shows_lengths() && has_lengths(records, server) {
        is_complete &= !records.is_full();
        is_complete &= pieces.last().is_none_or(|last| last.end <= records.end);
        return (bursts, is_complete);
    }
    // What shows no boundaries is taken by what the server wrote at once, which ends where it pushed.
    let mut end = records.end;
    let mut written = 0;
    for piece in pieces.iter().filter(|piece| piece.end > records.end) {
        if piece.start > end {
            return (bursts, false);
        }
        written += piece.end - piece.start.max(end);
        end = piece.end;
        if piece.is_pushed {
            push(std::mem::take(&mut written), piece.time_ns);
        }
    }
    (bursts, is_complete && written == 0)
}

/// Whether the lengths of all packets were captured, of those that matter.
fn has_lengths(records: &Records, server: &Stream) -> bool {
    records.is_full() || !server.is_cut_at(records.end as usize + 3)
}

/// The bursts after SERVICE_ACCEPT, and how to read them. None: there is no SERVICE_ACCEPT.
fn answers(model: &Model, bursts: &[Burst], longest: u32) -> Option<(Reader, Vec<Burst>)> {
    for model in [*model, model.wide()] {
        let Some((burst, unit)) = find(bursts, model.size(ACCEPT)) else {
            continue;
        };
        let mut answers: Vec<Burst> = bursts.iter().skip(burst).cloned().collect();
        if let Some(first) = answers.first_mut() {
            first.drop_first(unit + 1);
        }
        answers.retain(|answer| !answer.sizes.is_empty());
        let ignore = model.size(IGNORE);
        let starts_so = |answer: &Burst| answer.sizes.len() > 1 && answer.sizes[0] == ignore;
        let has_ignore =
            model.quirk == Quirk::AsyncSsh || (answers.len() > 1 && answers.iter().all(starts_so));
        if has_ignore {
            for answer in &mut answers {
                match answer.sizes.first_mut() {
                    Some(first) if *first == ignore => answer.drop_first(1),
                    // Both in one segment, which tells only where their sizes differ.
                    Some(first) if *first > ignore && ignore != model.size(SUCCESS) => {
                        *first -= ignore;
                    }
                    _ => return None,
                }
            }
            answers.retain(|answer| !answer.sizes.is_empty());
        }
        let reader = Reader {
            model,
            has_ignore,
            is_exact: model.shows_lengths(),
            longest,
            lead: Lead::default(),
        };
        let lead = Lead::new(&reader, bursts, (burst, unit));
        let reader = Reader { lead, ..reader };
        return Some((reader, answers));
    }
    None
}

/// The first of the first packets that is of a size, in an answer: its burst and its place there.
fn find(bursts: &[Burst], wanted: u32) -> Option<(usize, usize)> {
    bursts
        .iter()
        .enumerate()
        .flat_map(|(index, burst)| {
            let units = burst.sizes.iter().enumerate();
            units.map(move |(unit, size)| (index, unit, burst.is_answer, *size))
        })
        .take(MAX_BEFORE_ACCEPT)
        .find(|(_, _, is_answer, size)| *is_answer && *size == wanted)
        .map(|(index, unit, _, _)| (index, unit))
}
