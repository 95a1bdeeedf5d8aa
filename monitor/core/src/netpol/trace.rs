//! How a verdict came about, step by step.

use serde::{Deserialize, Serialize};

use super::{Direction, Tier};
use crate::words::words;

/// A step on the way to a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `ingress` or `egress`.
    pub direction: std::borrow::Cow<'static, str>,
    /// Where in the order of evaluation.
    pub stage: Stage,
    /// What was looked at and what came of it.
    pub text: String,
}

/// Where in the order of evaluation a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// What no policy decides.
    Exemption,
    /// Admin tier.
    Admin,
    /// NetworkPolicies.
    NetworkPolicy,
    /// Baseline tier.
    Baseline,
    /// Nothing decided.
    Default,
}

words!(
    Stage,
    Exemption = "exemption",
    Admin = "admin",
    NetworkPolicy = "network-policy",
    Baseline = "baseline",
    Default = "default"
);

/// Who wants to know the steps.
pub(super) trait Trace {
    /// A step; its text is made only if someone wants it.
    fn note(&mut self, direction: Direction, stage: Stage, text: impl FnOnce() -> String);
}

/// Nobody wants to know.
pub(super) struct Silent;

// === impl Stage ===

impl Stage {
    pub(super) const fn of(tier: Tier) -> Self {
        match tier {
            Tier::Admin => Self::Admin,
            Tier::Baseline => Self::Baseline,
        }
    }
}

// === impl Trace ===

impl Trace for Silent {
    fn note(&mut self, _: Direction, _: Stage, _: impl FnOnce() -> String) {}
}

impl Trace for Vec<Step> {
    fn note(&mut self, direction: Direction, stage: Stage, text: impl FnOnce() -> String) {
        self.push(Step {
            direction: direction.name().into(),
            stage,
            text: text(),
        });
    }
}
