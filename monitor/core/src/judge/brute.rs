//! Brute force, spraying and scanning of SSH servers, from what came of single connections.
//!
//! Attempts are counted, not connections: OpenSSH slows down who fails, so that guesses come in few
//! connections. State is bounded: at most [`SOURCES`] sources with [`EVENTS`] connections each;
//! the one that came first makes room.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use crate::{event::FindingKind, ssh::AuthOutcome};

/// Sources (and servers, and HASSHes) that are remembered.
const SOURCES: usize = 4_096;
/// Connections that are remembered of each.
const EVENTS: usize = 64;

/// When something is reported. Defaults: 10 failed attempts or 5 failed connections to one server,
/// 5 failed connections to 3 servers, 3 sources, 5 scanned servers, within 10 minutes; 5 failures
/// in the 30 minutes before a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failed attempts of one source at one server: brute force.
    pub attempts: u32,
    /// Failed connections of one source to one server: brute force.
    pub connections: u32,
    /// Failed connections of one source with at most two attempts each: spray.
    pub spray_connections: u32,
    /// Servers among them.
    pub spray_targets: u32,
    /// Sources with one HASSH that fail at one server: spray.
    pub spray_sources: u32,
    /// Servers that one source looked at without an attempt to log in: scan.
    pub scan_targets: u32,
    /// Failures before a login.
    pub failures: u32,
    /// Time in which all but the last are counted.
    pub window: Duration,
    /// Time in which failures before a login are counted.
    pub memory: Duration,
}

/// What came of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) source: IpAddr,
    pub(crate) target: (IpAddr, u16),
    pub(crate) hassh: Option<&'a str>,
    pub(crate) outcome: AuthOutcome,
    /// Failed attempts; 1 for a failure whose attempts were not counted.
    pub(crate) failures: u32,
    pub(crate) at_ns: u64,
}

/// Something to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suspicion {
    pub(crate) kind: FindingKind,
    pub(crate) reason: String,
    pub(crate) rule: String,
}

#[derive(Clone, Debug)]
struct Seen {
    at_ns: u64,
    source: IpAddr,
    target: (IpAddr, u16),
    hassh: Option<Box<str>>,
    outcome: AuthOutcome,
    failures: u32,
}

#[derive(Debug, Default)]
struct History {
    seen: VecDeque<Seen>,
    /// When each kind was last reported, brute force for each target.
    reported: HashMap<(FindingKind, Option<(IpAddr, u16)>), u64>,
}

/// Who a history is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Source(IpAddr),
    Server(IpAddr, u16),
    Hassh(Box<str>),
}

/// All histories.
#[derive(Debug)]
pub(crate) struct Watch {
    thresholds: Thresholds,
    histories: HashMap<Who, History>,
    /// Their keys, in the order in which they came.
    order: VecDeque<Who>,
}

// === impl Thresholds ===

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            attempts: 10,
            connections: 5,
            spray_connections: 5,
            spray_targets: 3,
            spray_sources: 3,
            scan_targets: 5,
            failures: 5,
            window: Duration::from_mins(10),
            memory: Duration::from_mins(30),
        }
    }
}

// === impl History ===

impl History {
    fn add(&mut self, seen: Seen) {
        if self.seen.len() >= EVENTS {
            // Looks cost nothing and must not push failures out.
            let is_look = |seen: &Seen| seen.outcome != AuthOutcome::Failure;
            match self.seen.iter().position(is_look) {
                Some(look) => drop(self.seen.remove(look)),
                None if is_look(&seen) => return,
                None => drop(self.seen.pop_front()),
            }
        }
        self.seen.push_back(seen);
    }

    fn since(&self, now_ns: u64, window: Duration) -> impl Iterator<Item = &Seen> {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let from = now_ns.saturating_sub(window);
        self.seen.iter().filter(move |seen| seen.at_ns >= from)
    }

    /// Whether to report this kind now: once in a window.
    fn may_report(&mut self, kind: FindingKind, now_ns: u64, window: Duration) -> bool {
        self.may_report_of(kind, None, now_ns, window)
    }

    /// As [`History::may_report`], for one target.
    fn may_report_of(
        &mut self,
        kind: FindingKind,
        target: Option<(IpAddr, u16)>,
        now_ns: u64,
        window: Duration,
    ) -> bool {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let is_due = self
            .reported
            .get(&(kind, target))
            .is_none_or(|last| now_ns.saturating_sub(*last) >= window);
        if is_due {
            self.reported
                .retain(|_, last| now_ns.saturating_sub(*last) < window);
            self.reported.insert((kind, target), now_ns);
        }
        is_due
    }
}

// === impl Watch ===

impl Watch {
    pub(crate) fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            histories: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// A connection ended; what to report.
    pub(crate) fn ended(&mut self, attempt: &Attempt<'_>) -> Vec<Suspicion> {
        let is_failure = attempt.outcome == AuthOutcome::Failure;
        let is_look = attempt.outcome == AuthOutcome::None;
        if !is_failure && !is_look {
            return Vec::new();
        }
        let seen = Seen {
            at_ns: attempt.at_ns,
            source: attempt.source,
            target: attempt.target,
            hassh: attempt.hassh.map(Into::into),
            outcome: attempt.outcome,
            failures: attempt.failures,
        };
        let mut found = Vec::new();
        let thresholds = self.thresholds;
        let history = self.history(Who::Source(attempt.source));
        history.add(seen.clone());
        for suspicion in [
            is_failure.then(|| brute_force(&thresholds, history, attempt)),
            is_failure.then(|| spray_from(&thresholds, history, attempt)),
            is_look.then(|| scan(&thresholds, history, attempt)),
        ] {
            found.extend(suspicion.flatten());
        }
        if is_failure {
            let (ip, port) = attempt.target;
            let history = self.history(Who::Server(ip, port));
            history.add(seen.clone());
            found.extend(spray_at(&thresholds, history, attempt));
            if let Some(hassh) = attempt.hassh {
                let history = self.history(Who::Hassh(hassh.into()));
                history.add(seen);
            }
        }
        found
    }

    /// Someone logged in; what to report.
    pub(crate) fn succeeded(&mut self, attempt: &Attempt<'_>) -> Option<Suspicion> {
        let Thresholds {
            failures, memory, ..
        } = self.thresholds;
        let whose = [Some(Who::Source(attempt.source))]
            .into_iter()
            .chain([attempt.hassh.map(|hassh| Who::Hassh(hassh.into()))])
            .flatten();
        for who in whose {
            let is_source = matches!(who, Who::Source(_));
            let Some(history) = self.histories.get(&who) else {
                continue;
            };
            let failed: u32 = history
                .since(attempt.at_ns, memory)
                .filter(|seen| seen.outcome == AuthOutcome::Failure)
                .map(|seen| seen.failures)
                .fold(0, u32::saturating_add);
            if failed >= failures {
                let by = if is_source { "source" } else { "HASSH" };
                return Some(Suspicion {
                    kind: FindingKind::SshSuccessAfterFailures,
                    reason: format!(
                        "{} logged in after {failed} failed attempts from the same {by}",
                        attempt.source
                    ),
                    rule: format!(
                        "at least {failures} failures within {} minutes before a login",
                        memory.as_secs() / 60
                    ),
                });
            }
        }
        None
    }

    fn history(&mut self, who: Who) -> &mut History {
        if !self.histories.contains_key(&who) {
            if self.histories.len() >= SOURCES
                && let Some(oldest) = self.order.pop_front()
            {
                self.histories.remove(&oldest);
            }
            self.order.push_back(who.clone());
        }
        self.histories.entry(who).or_default()
    }
}

fn brute_force(
    thresholds: &Thresholds,
    history: &mut History,
    attempt: &Attempt<'_>,
) -> Option<Suspicion> {
    let (mut attempts, mut connections) = (0_u32, 0_u32);
    for seen in history.since(attempt.at_ns, thresholds.window) {
        if seen.outcome == AuthOutcome::Failure && seen.target == attempt.target {
            attempts = attempts.saturating_add(seen.failures);
            connections += 1;
        }
    }
    let is_many = attempts >= thresholds.attempts || connections >= thresholds.connections;
    let kind = FindingKind::SshBruteForce;
    let target = Some(attempt.target);
    let is_due = is_many && history.may_report_of(kind, target, attempt.at_ns, thresholds.window);
    is_due.then(|| Suspicion {
        kind,
        reason: format!(
            "{} failed {attempts} attempts in {connections} connections to {}",
            attempt.source, attempt.target.0
        ),
        rule: format!(
            "at least {} failed attempts or {} failed connections within {} minutes",
            thresholds.attempts,
            thresholds.connections,
            thresholds.window.as_secs() / 60
        ),
    })
}

fn spray_from(
    thresholds: &Thresholds,
    history: &mut History,
    attempt: &Attempt<'_>,
) -> Option<Suspicion> {
    let mut targets = BTreeSet::new();
    let mut connections = 0_u32;
    for seen in history.since(attempt.at_ns, thresholds.window) {
        if seen.outcome == AuthOutcome::Failure && seen.failures <= 2 {
            targets.insert(seen.target);
            connections += 1;
        }
    }
    let is_many = connections >= thresholds.spray_connections
        && targets.len() >= thresholds.spray_targets as usize;
    let kind = FindingKind::SshSpray;
    (is_many && history.may_report(kind, attempt.at_ns, thresholds.window)).then(|| Suspicion {
        kind,
        reason: format!(
            "{} failed few attempts each at {} servers",
            attempt.source,
            targets.len()
        ),
        rule: format!(
            "at least {} failed connections to {} servers within {} minutes",
            thresholds.spray_connections,
            thresholds.spray_targets,
            thresholds.window.as_secs() / 60
        ),
    })
}

fn spray_at(
    thresholds: &Thresholds,
    history: &mut History,
    attempt: &Attempt<'_>,
) -> Option<Suspicion> {
    let hassh = attempt.hassh?;
    let sources: BTreeSet<_> = history
        .since(attempt.at_ns, thresholds.window)
        .filter(|seen| seen.hassh.as_deref() == Some(hassh))
        .map(|seen| seen.source)
        .collect();
    let is_many = sources.len() >= thresholds.spray_sources as usize;
    let kind = FindingKind::SshSpray;
    (is_many && history.may_report(kind, attempt.at_ns, thresholds.window)).then(|| Suspicion {
        kind,
        reason: format!(
            "{} sources with one HASSH failed at {}",
            sources.len(),
            attempt.target.0
        ),
        rule: format!(
            "at least {} sources with one HASSH within {} minutes",
            thresholds.spray_sources,
            thresholds.window.as_secs() / 60
        ),
    })
}

fn scan(
    thresholds: &Thresholds,
    history: &mut History,
    attempt: &Attempt<'_>,
) -> Option<Suspicion> {
    let targets: BTreeSet<_> = history
        .since(attempt.at_ns, thresholds.window)
        .filter(|seen| seen.outcome == AuthOutcome::None)
        .map(|seen| seen.target)
        .collect();
    let is_many = targets.len() >= thresholds.scan_targets as usize;
    let kind = FindingKind::SshScan;
    (is_many && history.may_report(kind, attempt.at_ns, thresholds.window)).then(|| Suspicion {
        kind,
        reason: format!(
            "{} looked at {} SSH servers without an attempt to log in",
            attempt.source,
            targets.len()
        ),
        rule: format!(
            "at least {} servers within {} minutes",
            thresholds.scan_targets,
            thresholds.window.as_secs() / 60
        ),
    })
}

#[cfg(test)]
mod tests;
