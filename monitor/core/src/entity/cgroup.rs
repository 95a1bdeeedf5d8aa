//! Control groups: who a socket of this node belongs to, whatever its address.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::event::ProcessRecord;

/// Groups that are remembered; a node has some hundred.
const MOST: usize = 16_384;

/// A control group of the unified hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path from the root of the hierarchy, escaped.
    pub path: Arc<str>,
    /// `metadata.uid` of the pod that it belongs to, or the hash of a static pod's manifest.
    pub pod: Option<Arc<str>>,
    /// Identifier of its container.
    pub container: Option<Arc<str>>,
    /// The only process in it, where it belongs to no container.
    pub process: Option<ProcessRecord>,
}

/// What is known of groups, by the number that the kernel gives each for good.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    /// `None`: it was looked for, and there is none, or not any more.
    known: HashMap<u64, Option<Arc<Cgroup>>>,
    /// Those that were asked about.
    asked: HashSet<u64>,
}

// === impl Cgroups ===

impl Cgroups {
    pub(super) fn get(&self, id: u64) -> Option<&Arc<Cgroup>> {
        self.known.get(&id)?.as_ref()
    }

    /// Whether a group has to be asked about: it was not yet.
    pub(super) fn ask(&mut self, id: u64) -> bool {
        !self.known.contains_key(&id) && self.asked.insert(id)
    }

    pub(super) fn is_asked(&self, id: u64) -> bool {
        !self.asked.is_empty() && self.asked.contains(&id)
    }

    /// Groups that were asked about, and nobody has answered.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = u64> {
        self.asked.iter().copied()
    }

    pub(super) fn found(&mut self, id: u64, cgroup: Option<Cgroup>) {
        if self.known.len() >= MOST && !self.known.contains_key(&id) {
            self.known.clear();
        }
        self.asked.remove(&id);
        self.known.insert(id, cgroup.map(Arc::new));
    }
}
