//! What policies say of a connection.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::words::words;

/// What policies say of a connection: it needs both its source's egress and its destination's
/// ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it is allowed; absent where that cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// The source's side.
    pub egress: Part,
    /// The destination's side.
    pub ingress: Part,
    /// The service whose address the destination is, `namespace/name`: the verdict is about the
    /// pods behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
}

/// What policies say of one direction of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Whether it is allowed; absent where that cannot be told ([`Part::reason`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// The policies responsible, as `NetworkPolicy namespace/name` or `Kind name`: those with a
    /// rule that allows, else those that isolate, or the one whose rule decides.
    pub by: Vec<Arc<str>>,
    /// What it rests on.
    pub basis: Basis,
    /// Why it cannot be told, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// Network plugins treat this case in different ways: an `ipBlock` that holds a pod's address,
    /// or one port name with several numbers in a pod.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub plugin_dependent: bool,
}

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// This end is no pod: policies do not select it.
    NoPod,
    /// A pod reaches itself.
    Itself,
    /// The other end is the node that the pod runs on.
    OwnNode,
    /// A rule of the Admin tier.
    Admin,
    /// NetworkPolicies that select the pod.
    NetworkPolicy,
    /// A rule of the Baseline tier.
    Baseline,
    /// No policy decides: everything is allowed.
    Default,
    /// It cannot be told.
    Undecided,
}

words!(
    Basis,
    NoPod = "no-pod",
    Itself = "itself",
    OwnNode = "own-node",
    Admin = "admin",
    NetworkPolicy = "network-policy",
    Baseline = "baseline",
    Default = "default",
    Undecided = "undecided"
);

// === impl Verdict ===

impl Verdict {
    /// The verdict on both directions.
    pub fn new(egress: Part, ingress: Part) -> Self {
        let allowed = match (egress.allowed, ingress.allowed) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, _) | (_, None) => None,
        };
        Self {
            allowed,
            egress,
            ingress,
            service: None,
        }
    }

    /// Whether no policy selects either end.
    pub fn is_uncovered(&self) -> bool {
        [&self.egress, &self.ingress]
            .iter()
            .all(|part| matches!(part.basis, Basis::NoPod | Basis::Default))
    }

    /// Why it cannot be told, if it cannot.
    pub fn reason(&self) -> Option<&Arc<str>> {
        if self.allowed.is_some() {
            return None;
        }
        self.egress.reason.as_ref().or(self.ingress.reason.as_ref())
    }
}

// === impl Part ===

impl Part {
    pub(super) fn allowed(basis: Basis) -> Self {
        Self::decided(true, basis, Vec::new())
    }

    pub(super) fn decided(allowed: bool, basis: Basis, by: Vec<Arc<str>>) -> Self {
        Self {
            allowed: Some(allowed),
            by,
            basis,
            reason: None,
            plugin_dependent: false,
        }
    }

    pub(super) fn undecided(reason: impl Into<Arc<str>>, by: Vec<Arc<str>>) -> Self {
        Self {
            allowed: None,
            by,
            basis: Basis::Undecided,
            reason: Some(reason.into()),
            plugin_dependent: false,
        }
    }

    pub(super) fn plugin_dependent(self, plugin_dependent: bool) -> Self {
        Self {
            plugin_dependent,
            ..self
        }
    }
}
