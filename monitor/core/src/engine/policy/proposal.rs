//! What is proposed: policies as they would be, from files and from objects of a live cluster.

use std::{collections::HashSet, sync::Arc};

use super::Judge;
use crate::netpol::{Policies, PolicyChange, TierKind};

/// The policies as they would be.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) policies: Policies,
    /// Policies that are proposed: what is in force under their names does not count.
    pub(super) names: HashSet<Name>,
}

/// What identifies a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Namespaced(Arc<str>, Arc<str>),
    Tier(TierKind, Arc<str>),
}

// === impl Name ===

impl Name {
    pub(super) fn of(change: &PolicyChange) -> Self {
        let shared = |text: &Arc<str>| Arc::clone(text);
        match change {
            PolicyChange::Namespaced(policy) => {
                Self::Namespaced(shared(&policy.namespace), shared(&policy.name))
            }
            PolicyChange::NamespacedGone(namespace, name) => {
                Self::Namespaced(shared(namespace), shared(name))
            }
            PolicyChange::Tier(policy) => Self::Tier(policy.kind, shared(&policy.name)),
            PolicyChange::TierGone(kind, name) => Self::Tier(*kind, shared(name)),
        }
    }

    /// That there is none of this name.
    fn gone(&self) -> PolicyChange {
        match self {
            Self::Namespaced(namespace, name) => {
                PolicyChange::NamespacedGone(Arc::clone(namespace), Arc::clone(name))
            }
            Self::Tier(kind, name) => PolicyChange::TierGone(*kind, Arc::clone(name)),
        }
    }
}

// === impl Judge ===

impl Judge {
    /// Files propose these policies from now on, in place of those that they did.
    pub(in crate::engine) fn propose(&mut self, changes: Vec<PolicyChange>) {
        let names: HashSet<Name> = changes.iter().map(Name::of).collect();
        let gone = self.by_files.difference(&names).map(Name::gone);
        let changes = gone.chain(changes).collect();
        self.propose_changes(changes);
        self.by_files = names;
    }

    /// Policies that are proposed change, while others are in force.
    pub(in crate::engine) fn propose_changes(&mut self, changes: Vec<PolicyChange>) {
        let Self {
            policies, options, ..
        } = self;
        let proposal = self.proposal.get_or_insert_with(|| {
            let mut same = Policies::new(*options);
            for change in policies.in_force() {
                same.apply(change);
            }
            Proposal {
                policies: same,
                names: HashSet::new(),
            }
        });
        for change in changes {
            let name = Name::of(&change);
            let is_gone = matches!(
                change,
                PolicyChange::NamespacedGone(..) | PolicyChange::TierGone(..)
            );
            if !is_gone {
                proposal.names.insert(name);
                proposal.policies.apply(change);
            } else if proposal.names.remove(&name) {
                // What is in force under its name counts again.
                let in_force = policies.in_force().find(|other| Name::of(other) == name);
                proposal.policies.apply(in_force.unwrap_or(change));
            }
        }
        if proposal.names.is_empty() {
            self.proposal = None;
        }
    }
}
