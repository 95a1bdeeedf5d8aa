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
    /// The rule that decides here, or may.
    pub fn rule(&self) -> &'a Rule {
        &self.hit.rule.rule
    }

    /// What the rule does; `None` where it is not known whether it matches.
    pub fn access(&self) -> Option<RuleAccess> {
        self.hit.is_certain.then_some(self.hit.rule.rule.access)
    }
}

// === impl Verdict ===

impl<'a> Verdict<'a> {
    /// What each place's rules say, in the order in which they were asked.
    pub fn steps(&self) -> impl Iterator<Item = Step<'a>> + '_ {
        self.steps.iter().flatten().copied()
    }

    /// The place whose group decided.
    pub fn level(&self) -> Option<&'a Level> {
        self.steps()
            .map(|step| step.level)
            .find(|level| DecidedBy::from(level.kind) == self.decided_by)
    }

    /// Why nobody knows, or why no rule decides.
    pub fn reason(&self) -> Option<String> {
        if let Some(Step { level, hit }) = &self.doubt {
            let name = &hit.rule.rule.name;
            let FieldMatch::Unknown(why) = hit.rule.matches(&self.tuple) else {
                return None;
            };
            return Some(format!("rule {name} ({}) may match: {why}", level.kind));
        }
        match (self.decided_by, self.service) {
            (DecidedBy::Platform, Some(service)) => Some(service.to_string()),
            (DecidedBy::None, _) => Some("no rules apply here".to_owned()),
            _ => None,
        }
    }

    /// Why nobody knows.
    pub fn why(&self) -> Option<Why> {
        match self.doubt?.hit.rule.matches(&self.tuple) {
            FieldMatch::Unknown(why) => Some(why),
            FieldMatch::Yes | FieldMatch::No => None,
        }
    }

    /// Whether it rests on a computed `Internet`, which is an approximation of Azure's own list.
    pub fn is_approximate(&self) -> bool {
        self.steps()
            .any(|step| step.hit.is_certain && step.hit.rule.is_approximate(&self.tuple))
    }
}
