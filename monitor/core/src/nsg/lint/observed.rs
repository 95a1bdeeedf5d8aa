//! What was observed, against what is allowed.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{Check, Issue, list};
use crate::{
    event::{Outcome, Protocol},
    nsg::{
        chain::Chain,
        interval::{Family, IntervalSet},
        level::{Level, LevelKind},
        model::{Direction, Origin, Rule, RuleAccess},
        names::Space,
        tuple::Tuple,
        verdict::Step,
    },
};

/// Distinct addresses and ports that are kept for a rule; with more it counts as used in its
/// whole width.
const MOST: usize = 16;
/// A rule for so many addresses, or more, could be narrower.
const WIDE: u128 = 256;

/// Flows by the rule that decides them.
#[derive(Debug, Default)]
pub struct Observed {
    flows: u64,
    rules: HashMap<(LevelKind, Direction, Arc<str>), Used>,
    pub(super) ssh: Ssh,
}

/// SSH to this network that was tried.
#[derive(Debug, Default)]
pub(super) struct Ssh {
    /// Sources, by the rule that denied them.
    pub(super) denied: HashMap<(LevelKind, Arc<str>), BTreeSet<IpAddr>>,
    /// Connections that a rule allowed, and how many of them were answered by a server.
    pub(super) allowed: HashMap<(LevelKind, Arc<str>), (u64, u64)>,
    /// Whether the flows say what became of them.
    pub(super) has_outcomes: bool,
}

/// How a rule was used.
#[derive(Debug, Default)]
struct Used {
    remote: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

// === impl Observed ===

impl Observed {
    /// How many flows there were.
    pub const fn flows(&self) -> u64 {
        self.flows
    }

    /// Counts a flow for the rules that decide it; `outcome` where it is known.
    pub fn add(&mut self, chain: &Chain, tuple: &Tuple, outcome: Option<Outcome>) {
        self.flows += 1;
        let verdict = chain.judge(tuple);
        let tuple = tuple.normalised();
        let remote = match tuple.direction {
            Direction::Inbound => tuple.source,
            Direction::Outbound => tuple.destination,
        };
        self.ssh.has_outcomes |= outcome.is_some();
        let is_ssh = tuple.direction == Direction::Inbound
            && tuple.protocol == Protocol::TCP
            && tuple.destination_port == Some(22);
        for step in verdict.steps() {
            let rule = step.rule();
            if is_ssh {
                self.ssh.add(&step, tuple.source, outcome);
            }
            let key = (step.level.kind, rule.direction, Arc::clone(&rule.name));
            let used = self.rules.entry(key).or_default();
            if used.remote.len() <= MOST {
                used.remote.insert(remote);
            }
            if used.ports.len() <= MOST {
                used.ports.extend(tuple.destination_port);
            }
        }
    }

    /// Reports rules of the user that allow more than was observed.
    pub(super) fn report(&self, level: &Level, direction: Direction, issues: &mut Vec<Issue>) {
        for resolved in level.rules(direction) {
            let rule = &resolved.rule;
            if rule.origin == Origin::Default || rule.access == RuleAccess::Deny {
                continue;
            }
            let key = (level.kind, direction, Arc::clone(&rule.name));
            let Some(used) = self.rules.get(&key) else {
                // That is told of rules for SSH in its own words.
                if direction == Direction::Inbound && super::ssh::is_for_ssh(rule) {
                    continue;
                }
                let why = format!("decided none of {} observed flows", self.flows);
                let suggestion = "remove it if nothing rare needs it".to_owned();
                issues.push(Issue::new(Check::Unused, level, rule, why, suggestion));
                continue;
            };
            let terms = match direction {
                Direction::Inbound => &resolved.source,
                Direction::Outbound => &resolved.destination,
            };
            let width = Family::ALL
                .iter()
                .map(|family| Space::of(terms, *family).maybe.count())
                .fold(0, u128::saturating_add);
            let (mut whys, mut hows) = (Vec::new(), Vec::new());
            if used.remote.len() <= MOST && width >= WIDE {
                let ips: Vec<_> = used.remote.iter().collect();
                whys.push(format!(
                    "{} of the addresses that it allows",
                    used.remote.len()
                ));
                let end = match direction {
                    Direction::Inbound => "source",
                    Direction::Outbound => "destination",
                };
                hows.push(format!("{end} {}", list(&ips)));
            }
            let allowed = ports(rule);
            if used.ports.len() <= MOST && allowed > used.ports.len() as u128 {
                whys.push(format!(
                    "{} of the {allowed} ports that it allows",
                    used.ports.len()
                ));
                let ports: Vec<_> = used.ports.iter().map(ToString::to_string).collect();
                hows.push(format!("ports {}", ports.join(",")));
            }
            if !whys.is_empty() {
                let why = format!("observed flows use {}", whys.join(" and "));
                let suggestion = format!("narrow it to {}", hows.join(", "));
                issues.push(Issue::new(
                    Check::WiderThanObserved,
                    level,
                    rule,
                    why,
                    suggestion,
                ));
            }
        }
    }
}

// === impl Ssh ===

impl Ssh {
    fn add(&mut self, step: &Step<'_>, source: IpAddr, outcome: Option<Outcome>) {
        let key = (step.level.kind, Arc::clone(&step.rule().name));
        match step.access() {
            Some(RuleAccess::Deny) => {
                let sources = self.denied.entry(key).or_default();
                if sources.len() <= MOST {
                    sources.insert(source);
                }
            }
            Some(RuleAccess::Allow | RuleAccess::AlwaysAllow) => {
                let (tried, answered) = self.allowed.entry(key).or_default();
                *tried += 1;
                let is_answered = matches!(
                    outcome,
                    Some(Outcome::Established | Outcome::Reset | Outcome::Midstream)
                );
                *answered += u64::from(is_answered);
            }
            None => {}
        }
    }
}

fn ports(rule: &Rule) -> u128 {
    let ranges = rule.destination_ports.ranges().iter();
    let set: IntervalSet = ranges
        .map(|range| (u128::from(*range.start()), u128::from(*range.end())))
        .collect();
    set.count()
}
