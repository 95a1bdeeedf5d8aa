//! What a history gives rise to.

use std::{collections::BTreeSet, time::Duration};

use super::{Attempt, Event, Suspicion, Thresholds, history::History};
use crate::event::{FindingKind, Severity};

/// Attempts of a connection that is one of many, each at another server.
const FEW: u32 = 2;

const fn minutes(time: Duration) -> u64 {
    time.as_secs() / 60
}

pub(super) fn brute_force(
    thresholds: &Thresholds,
    history: &History,
    attempt: &Attempt<'_>,
) -> Option<Suspicion> {
    let (mut attempts, mut before_logins, mut connections) = (0_u32, 0_u32, 0_u32);
    let (mut refused, mut unknown, mut logins) = (0_u32, 0_u32, 0_u32);
    let seen = history.since(attempt.at_ns, thresholds.window);
    for seen in seen.filter(|seen| seen.target == attempt.target) {
        match seen.event {
            Event::Failure => {
                attempts = attempts.saturating_add(seen.failures);
                connections += 1;
            }
            Event::Login => {
                before_logins = before_logins.saturating_add(seen.failures);
                logins += 1;
            }
            Event::Refused => refused += 1,
            Event::Unknown => unknown += 1,
            Event::Look | Event::Nothing => {}
        }
    }
    if connections > 0 {
        // Who only ever gets in tries keys, and is refused because of others.
        attempts = attempts.saturating_add(before_logins);
    }
    let failed = if connections > 0 {
        connections + refused
    } else {
        0
    };
    let minutes = minutes(thresholds.window);
    let (who, to) = (attempt.who(), attempt.target.0);
    if attempts >= thresholds.attempts || failed >= thresholds.connections {
        let refused = match refused {
            0 => String::new(),
            refused => format!(", and was refused {refused} times"),
        };
        return Some(Suspicion {
            kind: FindingKind::SshBruteForce,
            severity: Severity::High,
            about: attempt.group,
            reason: format!(
                "{who} failed {attempts} attempts in {connections} connections to {to}{refused}"
            ),
            rule: format!(
                "at least {} failed attempts or {} failed connections within {minutes} minutes",
                thresholds.attempts, thresholds.connections
            ),
        });
    }
    // Whoever gets in most likely did so the other times, too.
    let all = connections + refused + unknown;
    (logins == 0 && all >= thresholds.unknown).then(|| Suspicion {
        kind: FindingKind::SshBruteForce,
        severity: Severity::Medium,
        about: attempt.group,
        reason: format!(
            "{who} made {all} short connections to {to}; what came of {unknown} of them is not known"
        ),
        rule: format!(
            "at least {} short connections without a login that is known within {minutes} minutes",
            thresholds.unknown
        ),
    })
}

pub(super) fn spray_from(
    thresholds: &Thresholds,
    history: &History,
    attempt: &Attempt<'_>,
) -> Option<Suspicion> {
    let mut targets = BTreeSet::new();
    let mut connections = 0_u32;
    for seen in history.since(attempt.at_ns, thresholds.window) {
        if seen.event == Event::Failure && seen.failures <= FEW {
            targets.insert(seen.target);
            connections += 1;
        }
    }
    let is_many = connections >= thresholds.spray_connections
        && targets.len() >= thresholds.spray_targets as usize;
    is_many.then(|| Suspicion {
        kind: FindingKind::SshSpray,
        severity: Severity::High,
        about: attempt.group,
        reason: format!(
            "{} failed few attempts each at {} servers",
            attempt.who(),
            targets.len()
        ),
        rule: format!(
            "at least {} failed connections to {} servers within {} minutes",
            thresholds.spray_connections,
            thresholds.spray_targets,
            minutes(thresholds.window)
        ),
    })
}

pub(super) fn spray_at(
    thresholds: &Thresholds,
    history: &History,
    attempt: &Attempt<'_>,
) -> Option<Suspicion> {
    let hassh = attempt.seen().hassh?;
    let sources: BTreeSet<_> = history
        .since(attempt.at_ns, thresholds.window)
        .filter(|seen| seen.hassh == Some(hassh))
        .map(|seen| seen.source)
        .collect();
    let is_many = sources.len() >= thresholds.spray_sources as usize;
    is_many.then(|| Suspicion {
        kind: FindingKind::SshSpray,
        severity: Severity::High,
        about: attempt.target.0,
        reason: format!(
            "{} sources with one HASSH failed at {}",
            sources.len(),
            attempt.target.0
        ),
        rule: format!(
            "at least {} sources with one HASSH within {} minutes",
            thresholds.spray_sources,
            minutes(thresholds.window)
        ),
    })
}

pub(super) fn scan(
    thresholds: &Thresholds,
    history: &History,
    attempt: &Attempt<'_>,
) -> Option<Suspicion> {
    let targets: BTreeSet<_> = history
        .since(attempt.at_ns, thresholds.window)
        .filter(|seen| seen.event == Event::Look)
        .map(|seen| seen.target)
        .collect();
    let is_many = targets.len() >= thresholds.scan_targets as usize;
    is_many.then(|| Suspicion {
        kind: FindingKind::SshScan,
        severity: Severity::Medium,
        about: attempt.group,
        reason: format!(
            "{} looked at {} SSH servers without an attempt to log in",
            attempt.who(),
            targets.len()
        ),
        rule: format!(
            "at least {} servers within {} minutes",
            thresholds.scan_targets,
            minutes(thresholds.window)
        ),
    })
}
