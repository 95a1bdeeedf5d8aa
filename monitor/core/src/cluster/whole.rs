//! What is missing of the cluster's objects: a kind that could not be listed, whose objects may say
//! something else than that they are not there.

use super::{Cluster, namespaces::NamespaceState};

/// Kinds of which objects may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Namespaces: those whose objects were not told of have labels that are not known.
    pub(crate) namespaces: bool,
    /// Nodes: an address that belongs to nothing else may be a node's.
    pub(crate) nodes: bool,
}

impl Cluster {
    /// Takes in which kinds are not known whole.
    pub(crate) fn set_missing(&mut self, missing: Missing) {
        if self.missing != missing {
            self.missing = missing;
            self.epoch += 1;
        }
    }

    /// Whether the labels of a namespace are known, and not its name only: one that was deleted may
    /// have been made anew.
    pub(crate) fn knows_namespace(&self, name: &str) -> bool {
        let is_told = |state: &NamespaceState| state.is_told && !state.is_gone;
        !self.missing.namespaces || self.namespaces.get(name).is_some_and(is_told)
    }

    /// Whether all nodes are known.
    pub(crate) fn knows_nodes(&self) -> bool {
        !self.missing.nodes
    }
}
