//! What the rules say about a flow.

use serde::{Deserialize, Serialize};

use super::{
    level::{Hit, Level, LevelKind},
    matching::{FieldMatch, Why},
    model::{Rule, RuleAccess},
    platform::Service,
    tuple::Tuple,
};
use crate::words;

/// Whether a flow may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Access {
    /// It may.
    Allow,
    /// It may not.
    Deny,
    /// It depends on what nobody has said.
    Indeterminate,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DecidedBy {
    /// The subnet's group.
    Subnet,
    /// The network card's group.
    Nic,
    /// Admin rules.
    Admin,
    /// Azure itself: a platform service that rules do not apply to.
    Platform,
    /// Nothing: no rules apply.
    None,
}

/// What the rules say about a flow.
#[derive(Clone, Debug)]
pub struct Verdict<'a> {
    /// Whether it may pass.
    pub access: Access,
    /// What decided.
    pub decided_by: DecidedBy,
    /// The deciding rule. Where all allow, the last one's: flow logs, too, name that.
    pub rule: Option<&'a Rule>,
    pub(super) service: Option<Service>,
    pub(super) steps: [Option<Step<'a>>; 3],
    pub(super) doubt: Option<Step<'a>>,
    pub(super) tuple: Tuple,
}

/// What one place's rules say.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The place.
    pub level: &'a Level,
    pub(super) hit: Hit<'a>,
}

// === impl Access ===

words::words!(
    Access,
    Allow = "Allow",
    Deny = "Deny",
    Indeterminate = "Indeterminate"
);

// === impl DecidedBy ===

words::words!(
    DecidedBy,
    Subnet = "subnet",
    Nic = "nic",
    Admin = "admin",
    Platform = "platform",
    None = "none"
);

impl From<LevelKind> for DecidedBy {
    fn from(kind: LevelKind) -> Self {
        match kind {
            LevelKind::Admin => Self::Admin,
            LevelKind::Subnet => Self::Subnet,
            LevelKind::Nic => Self::Nic,
        }
    }
}

// === impl Step ===

impl<'a> Step<'a> {
    /// The rule that decides here, or may; where several may and all do the same, one of them.
    pub fn rule(&self) -> &'a Rule {
        &self.hit.rule.rule
    }

    /// What the place does; `None` where that depends on what nobody knows.
    pub fn access(&self) -> Option<RuleAccess> {
        self.hit.access
    }

    /// Whether the rule certainly decides here.
    pub fn is_certain(&self) -> bool {
        self.hit.is_certain
    }
}

// === impl Verdict ===

impl<'a> Verdict<'a> {
    /// What each place's rules say, in the order in which they were asked.
    pub fn steps(&self) -> impl Iterator<Item = Step<'a>> + '_ {
        self.steps.iter().flatten().copied()
    }

    /// The packet that was judged, normalised.
    pub const fn tuple(&self) -> &Tuple {
        &self.tuple
    }

    /// The place whose group decided.
    pub fn level(&self) -> Option<&'a Level> {
        self.steps()
            .map(|step| step.level)
            .find(|level| DecidedBy::from(level.kind) == self.decided_by)
    }

    /// Why nobody knows, or which rule that is for, or why no rule decides.
    pub fn reason(&self) -> Option<String> {
        let service = self.service.map(|service| service.to_string());
        let doubt = self.doubt.and_then(|Step { level, .. }| {
            let (rule, why) = self.doubtful(level)?;
            let kind = level.kind;
            Some(match self.access {
                Access::Indeterminate => format!("rule {rule} ({kind}) may match: {why}"),
                access => format!(
                    "rule {rule} ({kind}) may match, {access} whether it does or not: {why}"
                ),
            })
        });
        match (self.decided_by, service) {
            (DecidedBy::Platform, Some(service)) => Some(service),
            (DecidedBy::None, _) => Some("no rules apply here".to_owned()),
            _ => doubt,
        }
    }

    /// The first rule of a place that may match, and why nobody knows whether it does.
    fn doubtful(&self, level: &'a Level) -> Option<(&'a str, Why)> {
        level.rules(self.tuple.direction).iter().find_map(|rule| {
            let matches = match self.service {
                Some(service) => service.matches(rule, &self.tuple),
                None => rule.matches(&self.tuple),
            };
            match matches {
                FieldMatch::Unknown(why) => Some((&*rule.rule.name, why)),
                FieldMatch::Yes | FieldMatch::No => None,
            }
        })
    }

    /// Why nobody knows.
    pub fn why(&self) -> Option<Why> {
        let (_, why) = self.doubtful(self.doubt?.level)?;
        Some(why)
    }

    /// Whether it rests on a computed `Internet`, which is an approximation of Azure's own list.
    pub fn is_approximate(&self) -> bool {
        self.steps()
            .any(|step| step.hit.is_certain && step.hit.rule.is_approximate(&self.tuple))
    }
}
