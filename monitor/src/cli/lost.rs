//! One line for standard error: what was lost or not counted, and what is no longer known.

use std::collections::BTreeMap;

use monitor_core::{engine::LossStage, time::Timestamp};

use super::human::time_of_day;
use crate::api::StatusAnswer;

/// Which records were asked for.
pub(super) struct Wanted {
    /// In the plural.
    pub(super) what: &'static str,
    /// Up to when some were forgotten as the answer came.
    pub(super) forgotten: Option<Timestamp>,
    /// From when on.
    pub(super) since: Option<Timestamp>,
    /// All that there are, or more than were found.
    pub(super) all: bool,
}

/// What whoever reads the records should know, if there is something; `skipped` of them were.
pub(super) fn summary(
    status: Option<&StatusAnswer>,
    wanted: &Wanted,
    skipped: u64,
) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(StatusAnswer { engine, .. }) = status {
        let mut reasons = BTreeMap::new();
        for interface in &engine.interfaces {
            for hook in [&interface.ingress, &interface.egress] {
                for (reason, packets) in &hook.uncounted {
                    // Not IP is not this tool's matter; it is in `status` and the metrics.
                    if reason != "not_ip" {
                        *reasons.entry(reason.to_string()).or_insert(0) += packets;
                    }
                }
            }
        }
        parts.extend(sum("packets uncounted", reasons));
        let stages = engine.events_lost.iter();
        let stages = stages
            // Of other readers and of the file: not of what is listed here.
            .filter(|(stage, _)| !matches!(stage, LossStage::Follower | LossStage::EventLog))
            .map(|(stage, events)| (stage.name().to_owned(), *events));
        parts.extend(sum("events lost since the start", stages.collect()));
    }
    if let Some(until) = wanted.forgotten
        && (wanted.all || wanted.since.is_some_and(|since| since <= until))
    {
        parts.push(format!(
            "some {} up to {} are forgotten, only the newest are kept",
            wanted.what,
            time_of_day(until)
        ));
    }
    if skipped > 0 {
        parts.push(format!(
            "{skipped} records skipped, this command was too slow"
        ));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// `5 packets uncounted (malformed 2, truncated 3)`, if there are any.
fn sum(what: &str, mut counts: BTreeMap<String, u64>) -> Option<String> {
    counts.retain(|_, count| *count > 0);
    let total: u64 = counts.values().sum();
    let each: Vec<_> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    (total > 0).then(|| format!("{total} {what} ({})", each.join(", ")))
}

#[cfg(test)]
mod tests {
    use monitor_core::engine::{Config, Engine};

    use super::*;
    use crate::api::DaemonInfo;

    fn wanted(since: Option<i64>, all: bool) -> Wanted {
        Wanted {
            what: "flows",
            forgotten: Some(Timestamp::from_nanoseconds(5_000_000_000)),
            since: since.map(Timestamp::from_nanoseconds),
            all,
        }
    }

    fn status() -> StatusAnswer {
        let info = DaemonInfo {
            version: String::new(),
            pid: 1,
            started: Timestamp::from_nanoseconds(0),
            details: serde_json::Map::new(),
        };
        let engine = Engine::new(Config::default()).expect("no ranges");
        StatusAnswer::new(info, engine.status())
    }

    #[test]
    fn nothing_is_said_where_nothing_is_missing() {
        let all = Wanted {
            forgotten: None,
            ..wanted(Some(0), true)
        };
        assert_eq!(summary(Some(&status()), &all, 0), None);
        assert_eq!(summary(None, &wanted(None, false), 0), None);
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut status = status();
        status.engine.events_lost.insert(LossStage::KernelRing, 3);
        status.engine.events_lost.insert(LossStage::Channel, 0);
        status.engine.events_lost.insert(LossStage::Follower, 9);
        let said = |wanted: &Wanted| summary(Some(&status), wanted, 2).unwrap();
        let lost = "3 events lost since the start (kernel_ring 3), ";
        let forgotten = "some flows up to 00:00:05.000Z are forgotten, only the newest are kept, ";
        let skipped = "2 records skipped, this command was too slow";
        assert_eq!(said(&wanted(None, false)), format!("{lost}{skipped}"));
        let all = format!("{lost}{forgotten}{skipped}");
        assert_eq!(said(&wanted(None, true)), all);
        assert_eq!(said(&wanted(Some(5_000_000_000), false)), all);
        assert_eq!(
            said(&wanted(Some(5_000_000_001), false)),
            format!("{lost}{skipped}")
        );
    }
}
