//! Rules that do nothing, or more than they should.
//!
//! A rule is a box: sets of protocols, addresses and ports. What rules before it take is cut off;
//! what is left is what the rule is really asked about. Tags and groups that nobody has defined
//! are sets of their own, equal to themselves and held by `*` only.

mod exposed;
mod idle;
mod needs;
mod observed;
mod region;
mod ssh;
mod unchecked;

use std::borrow::Cow;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    chain::Chain,
    level::Level,
    model::{Direction, Maker},
    names::Names,
    profile::{Needs, Profile},
};
use crate::words;

use region::Regions;

pub use observed::Observed;
pub use unchecked::{Unchecked, is_approximate, unchecked};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Rules before it take everything that it would match.
    Shadowed,
    /// Nothing can match it.
    NeverMatches,
    /// Two rules allow the same.
    OverlappingAllows,
    /// SSH from the Internet.
    OpenSsh,
    /// RDP from the Internet.
    OpenRdp,
    /// No flow that was observed is decided by it.
    Unused,
    /// It allows much that was not observed.
    WiderThanObserved,
    /// Load balancer probes do not reach nodes.
    ProbesBlocked,
    /// Nodes and pods do not reach each other.
    NodesBlocked,
    /// Something else that the profile says is needed.
    NeedBlocked,
    /// SSH to nodes was tried and no rule allows it.
    SshRuleMissing,
    /// SSH to nodes is allowed, and no server there answers.
    SshNotServed,
    /// SSH to nodes is allowed from a range that nobody used.
    SshRangeUnused,
}

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// What was looked for.
    pub check: Check,
    /// Where the rule is: `admin`, `subnet` or `nic`.
    pub nsg: Cow<'static, str>,
    /// The group's name.
    pub name: String,
    /// The rule.
    pub rule: String,
    /// Its priority.
    pub priority: u16,
    /// Its direction.
    pub direction: Direction,
    /// The program that wrote it, where its name tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<Maker>,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub suggestion: String,
}

/// What to look at besides the rules.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Flows that were observed.
    pub observed: Option<&'a Observed>,
    /// Addresses of pods, where they are not of the virtual network.
    pub pods: Vec<IpNet>,
    /// What is needed, and what the names in it stand for; absent where only what every network
    /// with nodes needs is looked at.
    pub profile: Option<(&'a Profile, &'a Names)>,
}

// === impl Check ===

words::words!(
    Check,
    Shadowed = "shadowed",
    NeverMatches = "never-matches",
    OverlappingAllows = "overlapping-allows",
    OpenSsh = "open-ssh",
    OpenRdp = "open-rdp",
    Unused = "unused",
    WiderThanObserved = "wider-than-observed",
    ProbesBlocked = "probes-blocked",
    NodesBlocked = "nodes-blocked",
    NeedBlocked = "need-blocked",
    SshRuleMissing = "ssh-rule-missing",
    SshNotServed = "ssh-not-served",
    SshRangeUnused = "ssh-range-unused"
);

/// What rules take away of what is needed.
pub fn blocked(chain: &Chain, needs: &Needs) -> Vec<Issue> {
    let mut issues = Vec::new();
    for direction in Direction::ALL {
        for level in chain.levels(*direction) {
            needs::blocked(&Regions::new(level, *direction), needs, &mut issues);
        }
    }
    issues
}

// === impl Options ===

impl Options<'_> {
    /// What is needed of these rules.
    pub fn needs(&self, chain: &Chain) -> Needs {
        let resolve =
            |profile: &Profile, names: &Names| profile.resolve(names, chain.network(), &self.pods);
        match self.profile {
            Some((profile, names)) => resolve(profile, names),
            None if !chain.needs().is_empty() => chain.needs().clone().with_pods(&self.pods),
            None => resolve(&Profile::basic(), &Names::default()),
        }
    }
}

/// Looks at every group of a chain.
pub fn lint(chain: &Chain, options: &Options<'_>) -> Vec<Issue> {
    let mut issues = Vec::new();
    let needs = options.needs(chain);
    for direction in Direction::ALL {
        for level in chain.levels(*direction) {
            let regions = Regions::new(level, *direction);
            idle::shadowed(&regions, &mut issues);
            idle::never_matching(&regions, chain.network(), &mut issues);
            idle::overlapping(&regions, &mut issues);
            exposed::open(&regions, &mut issues);
            needs::blocked(&regions, &needs, &mut issues);
            if let Some(observed) = options.observed {
                observed.report(level, *direction, &mut issues);
                if *direction == Direction::Inbound {
                    ssh::report(level, observed, &mut issues);
                }
            }
        }
    }
    issues
}

// === impl Issue ===

impl Issue {
    fn new(
        check: Check,
        level: &Level,
        rule: &super::Rule,
        why: String,
        suggestion: String,
    ) -> Self {
        let made_by = rule.made_by();
        // Whoever edits such a rule finds it as it was soon after.
        let suggestion = match made_by {
            Some(maker) => format!("{}; {suggestion}", maker.advice()),
            None => suggestion,
        };
        Self {
            made_by,
            check,
            nsg: level.kind.name().into(),
            name: level.nsg.name.to_string(),
            rule: rule.name.to_string(),
            priority: rule.priority,
            direction: rule.direction,
            why,
            suggestion,
        }
    }
}

/// How to let through what a rule denies. A rule that is asked before it needs a number below its
/// own, of which there are none below the lowest.
fn allow_before(rule: &super::Rule) -> String {
    /// Of groups' rules (Azure, "Network security groups": 100 to 4096).
    const LOWEST: u16 = 100;
    let priority = rule.priority;
    if priority > LOWEST {
        format!("allow it by a rule before this one: one whose priority number is below {priority}")
    } else {
        format!(
            "allow it by a rule before this one, whose priority number {priority} is the lowest \
             there is: give it a higher one first"
        )
    }
}

/// Some names in words: `a`, `a and b`, `a, b and 3 more`.
fn list<T: std::fmt::Display>(names: &[T]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => one.to_string(),
        [one, other] => format!("{one} and {other}"),
        [one, other, rest @ ..] => format!("{one}, {other} and {} more", rest.len()),
    }
}
