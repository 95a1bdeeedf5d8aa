//! Brute force, spraying and scanning of SSH servers, from what came of single connections.
//!
//! Attempts are counted, not connections: OpenSSH slows down who fails, so that guesses come in few
//! connections. State is bounded: at most [`HISTORIES`] with [`EVENTS`](history::EVENTS) connections each;
//! the one that came first makes room, of what anyone may have as many of as they like first: HASSHes, then
//! servers. What is forgotten although it still counts is [counted](Watch::forgotten).
//!
//! What is certain and what is not are kept apart. A failed connection counts as it is. One whose
//! outcome is not known counts towards a threshold of its own, and what it makes is less grave. One
//! that the server refused in place of a banner counts as failed beside failures of the same source
//! only: OpenSSH sends the same words to a source that it penalizes and, where too many connections
//! are about to log in, to anyone.

mod history;
mod rules;

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::{
    entity::normalise,
    event::{FindingKind, Severity},
    judge::Told,
    ssh::AuthOutcome,
};

use history::{EVENTS, History, Seen};
use rules::{brute_force, scan, spray_at, spray_from};

/// Sources, servers and HASSHes that are remembered.
const HISTORIES: usize = 4_096;
/// Servers, and HASSHes, among them that no source makes room for.
const SHARE: usize = HISTORIES / 4;

/// When something is reported. Defaults: 10 failed attempts or 5 failed connections to one server, or
/// 30 connections of which it is not known what came of them, 5 failed connections to 3 servers, 3
/// sources, 5 scanned servers, within 10 minutes; 5 failures in the 30 minutes before a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failed attempts of one source at one server: brute force.
    pub attempts: u32,
    /// Failed connections of one source to one server: brute force.
    pub connections: u32,
    /// Connections of one source to one server that failed or of which the outcome is not known:
    /// maybe brute force.
    pub unknown: u32,
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
    /// What the source is counted as: [`group`] of it, or itself.
    pub(crate) group: IpAddr,
    pub(crate) target: (IpAddr, u16),
    pub(crate) hassh: Option<&'a str>,
    pub(crate) event: Event,
    /// Failed attempts, of a login those before it; 1 for a failure whose attempts were not counted.
    pub(crate) failures: u32,
    pub(crate) at_ns: u64,
}

/// What came of a connection, as far as guessing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// No attempt to log in.
    Look,
    /// The server refused it in place of a banner.
    Refused,
    /// It is not known; it was too short to be anyone's work.
    Unknown,
    /// A login.
    Login,
    /// Attempts, none of which succeeded.
    Failure,
    /// It is not known, and tells nothing.
    Nothing,
}

/// Something to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suspicion {
    pub(crate) kind: FindingKind,
    pub(crate) severity: Severity,
    /// What the source is counted as, or the server.
    pub(crate) about: IpAddr,
    pub(crate) reason: String,
    pub(crate) rule: String,
}

/// A statement that is made once in a while: what, how grave, of whom, about which server.
type Statement = (FindingKind, Severity, IpAddr, Option<(IpAddr, u16)>);

/// Who a history is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Source(IpAddr),
    Server(IpAddr, u16),
    Hassh(Hassh),
}

// === impl Who ===

impl Who {
    /// Which of [`Watch::orders`].
    const fn kind(&self) -> usize {
        match self {
            Self::Source(_) => 0,
            Self::Server(..) => 1,
            Self::Hassh(_) => 2,
        }
    }
}

/// The MD5 itself.
type Hassh = [u8; 16];

/// All histories.
#[derive(Debug)]
pub(crate) struct Watch {
    thresholds: Thresholds,
    histories: HashMap<Who, History>,
    /// Their keys, in the order in which they came: of sources, servers, HASSHes.
    orders: [VecDeque<Who>; 3],
    told: Told<Statement>,
    forgotten: u64,
}

// === impl Thresholds ===

impl Thresholds {
    /// The most connections, servers or sources that a threshold can ask for: as many are remembered.
    #[expect(clippy::cast_possible_truncation, reason = "64")]
    pub const MOST: u32 = EVENTS as u32;
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            attempts: 10,
            connections: 5,
            unknown: 30,
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

/// What addresses of strangers are counted by. Of a global IPv6 address that is its /64: a host has
/// all of it (RFC 6177, RFC 8981). Other IPv6 addresses, as of pods and of links, are hosts.
pub(crate) fn group(ip: IpAddr) -> IpAddr {
    match normalise(ip) {
        IpAddr::V6(ip) if ip.segments()[0] >> 13 == 0b001 => {
            let network = u128::from(ip) >> 64 << 64;
            Ipv6Addr::from(network).into()
        }
        ip => ip,
    }
}

// === impl Event ===

impl Event {
    /// From the outcome of a connection that is neither refused nor only seen in part.
    pub(crate) const fn of(outcome: AuthOutcome, is_short: bool) -> Self {
        match outcome {
            AuthOutcome::Success => Self::Login,
            AuthOutcome::Failure => Self::Failure,
            AuthOutcome::None => Self::Look,
            AuthOutcome::Unknown if is_short => Self::Unknown,
            AuthOutcome::Unknown => Self::Nothing,
        }
    }
}

// === impl Attempt ===

impl Attempt<'_> {
    fn seen(&self) -> Seen {
        Seen {
            at_ns: self.at_ns,
            source: self.group,
            target: self.target,
            hassh: self.hassh.and_then(digits),
            event: self.event,
            failures: self.failures,
        }
    }

    /// The source, or the network that it is counted as, for people.
    fn who(&self) -> String {
        if normalise(self.source) == self.group {
            self.source.to_string()
        } else {
            format!("{} (of {}/64)", self.source, self.group)
        }
    }
}

/// 32 hexadecimal digits.
fn digits(text: &str) -> Option<Hassh> {
    let number = u128::from_str_radix(text, 16).ok()?;
    (text.len() == 32).then(|| number.to_be_bytes())
}

// === impl Watch ===

impl Watch {
    pub(crate) fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            histories: HashMap::new(),
            orders: Default::default(),
            told: Told::default(),
            forgotten: 0,
        }
    }

    /// A connection ended; what to report. Whoever logged in was [asked about](Self::succeeded) before.
    pub(crate) fn ended(&mut self, attempt: &Attempt<'_>) -> Vec<Suspicion> {
        if attempt.event == Event::Nothing {
            return Vec::new();
        }
        let seen = attempt.seen();
        let is_failure = attempt.event == Event::Failure;
        let is_look = attempt.event == Event::Look;
        let thresholds = self.thresholds;
        let longest = thresholds.window.max(thresholds.memory);
        let history = self.history(Who::Source(attempt.group), attempt.at_ns);
        history.add(seen.clone(), longest);
        let mut found = Vec::new();
        found.extend((!is_look).then(|| brute_force(&thresholds, history, attempt)));
        found.extend(is_failure.then(|| spray_from(&thresholds, history, attempt)));
        found.extend(is_look.then(|| scan(&thresholds, history, attempt)));
        if is_failure {
            let (ip, port) = attempt.target;
            let history = self.history(Who::Server(ip, port), attempt.at_ns);
            history.add(seen.clone(), longest);
            found.push(spray_at(&thresholds, history, attempt));
            if let Some(hassh) = seen.hassh {
                self.history(Who::Hassh(hassh), attempt.at_ns)
                    .add(seen, longest);
            }
        }
        let found: Vec<_> = found.into_iter().flatten().collect();
        let is_due = |suspicion: &Suspicion| {
            let target = (suspicion.kind == FindingKind::SshBruteForce).then_some(attempt.target);
            let statement = (suspicion.kind, suspicion.severity, suspicion.about, target);
            self.told
                .is_due(statement, attempt.at_ns, thresholds.window)
        };
        found.into_iter().filter(is_due).collect()
    }

    /// Someone logged in; what to report.
    pub(crate) fn succeeded(&mut self, attempt: &Attempt<'_>) -> Option<Suspicion> {
        let Thresholds {
            failures, memory, ..
        } = self.thresholds;
        let failed = |who: Who, is_counted: &dyn Fn(&Seen) -> bool| -> u32 {
            let history = self.histories.get(&who).into_iter();
            history
                .flat_map(|history| history.since(attempt.at_ns, memory))
                .filter(|seen| is_counted(seen))
                .map(|seen| seen.failures)
                .fold(0, u32::saturating_add)
        };
        let of_source = failed(Who::Source(attempt.group), &Seen::has_failures);
        let with_own = of_source.saturating_add(attempt.failures);
        let hassh = attempt.hassh.and_then(digits);
        let of_others = hassh.map_or(0, |hassh| {
            failed(Who::Hassh(hassh), &|seen| seen.source != attempt.group)
        });
        let who = attempt.who();
        let (severity, reason) = if of_source > 0 && with_own >= failures {
            let reason = format!("{who} logged in after {with_own} failed attempts");
            (Severity::Critical, reason)
        } else if with_own >= failures {
            let reason = format!(
                "{who} logged in after {with_own} failed attempts in the same connection, as clients \
                 do that have many keys"
            );
            (Severity::Medium, reason)
        } else if of_others >= failures {
            let reason = format!(
                "{who} logged in with the HASSH of other sources that failed {of_others} attempts; \
                 all clients of one software and configuration have the same"
            );
            (Severity::Low, reason)
        } else {
            return None;
        };
        let kind = FindingKind::SshSuccessAfterFailures;
        let statement = (kind, severity, attempt.group, Some(attempt.target));
        let is_due = self.told.is_due(statement, attempt.at_ns, memory);
        is_due.then(|| Suspicion {
            kind,
            severity,
            about: attempt.group,
            reason,
            rule: format!(
                "at least {failures} failures within {} minutes before a login",
                memory.as_secs() / 60
            ),
        })
    }

    /// Sources, servers and HASSHes that made room although what was seen of them still counted.
    pub(crate) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn history(&mut self, who: Who, now_ns: u64) -> &mut History {
        if !self.histories.contains_key(&who) {
            if self.histories.len() >= HISTORIES {
                self.make_room(now_ns);
            }
            self.orders[who.kind()].push_back(who.clone());
        }
        self.histories.entry(who).or_default()
    }

    fn make_room(&mut self, now_ns: u64) {
        let [sources, servers, hasshes] = &mut self.orders;
        let order = if hasshes.len() > SHARE {
            hasshes
        } else if servers.len() > SHARE {
            servers
        } else {
            sources
        };
        let history = order
            .pop_front()
            .and_then(|oldest| self.histories.remove(&oldest));
        let longest = self.thresholds.window.max(self.thresholds.memory);
        let still_counts = |history: History| history.since(now_ns, longest).next().is_some();
        self.forgotten += u64::from(history.is_some_and(still_counts));
    }
}

#[cfg(test)]
mod tests;
