//! Control groups: who a socket of this node belongs to, whatever its address.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::{event::ProcessRecord, time::Timestamp};

/// Groups that are remembered; a node has some hundred.
const MOST: usize = 16_384;
/// How long, before and after it was looked at, a group is taken to have had the one process that it
/// had then. Its path is for good, but what runs in it is not: for a socket that is seen later, a
/// group that is no container's is looked at again.
const PROCESS_LASTS: Duration = Duration::from_secs(30);

/// A control group of the unified hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path from the root of the hierarchy, escaped.
    pub path: Arc<str>,
    /// `metadata.uid` of the pod that it belongs to, or the hash of a static pod's manifest.
    pub pod: Option<Arc<str>>,
    /// Identifier of its container.
    pub container: Option<Arc<str>>,
    /// The only process in it when it was looked at, where it belongs to no container.
    pub process: Option<ProcessRecord>,
}

/// What is known of groups, by the number that the kernel gives each for good.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    /// `None`: it was looked for, and there is none, or not any more.
    known: HashMap<u64, Option<Known>>,
    /// Those that were asked about.
    asked: HashSet<u64>,
}

/// A group that was looked at.
#[derive(Debug)]
struct Known {
    /// Without its process.
    cgroup: Arc<Cgroup>,
    /// With its process, if it had only one.
    alone: Option<Arc<Cgroup>>,
    /// When that was so.
    looked: Timestamp,
}

// === impl Known ===

impl Known {
    fn new(cgroup: Cgroup, looked: Timestamp) -> Self {
        if cgroup.process.is_none() {
            return Self {
                cgroup: Arc::new(cgroup),
                alone: None,
                looked,
            };
        }
        let lasting = Cgroup {
            process: None,
            ..cgroup.clone()
        };
        Self {
            cgroup: Arc::new(lasting),
            alone: Some(Arc::new(cgroup)),
            looked,
        }
    }

    /// Whether what it had at a time was about what it had when it was looked at.
    fn is_of(&self, at: Timestamp) -> bool {
        let before = self.looked.saturating_since(at);
        before.max(at.saturating_since(self.looked)) <= PROCESS_LASTS
    }

    /// Whether the process in it is told: of a container, the container is.
    fn has_processes(&self) -> bool {
        self.cgroup.pod.is_none() && self.cgroup.container.is_none()
    }
}

// === impl Cgroups ===

impl Cgroups {
    /// What is known of a group, for a socket that was seen at this time.
    pub(super) fn get(&self, id: u64, at: Timestamp) -> Option<&Arc<Cgroup>> {
        let known = self.known.get(&id)?.as_ref()?;
        let alone = known.alone.as_ref().filter(|_| known.is_of(at));
        Some(alone.unwrap_or(&known.cgroup))
    }

    /// Whether a group has to be asked about: it was not yet, or too long ago to tell who is in it
    /// now.
    pub(super) fn ask(&mut self, id: u64, now: Timestamp) -> bool {
        let is_known = match self.known.get(&id) {
            Some(Some(known)) => !known.has_processes() || known.is_of(now),
            Some(None) => true,
            None => false,
        };
        !is_known && self.asked.insert(id)
    }

    pub(super) fn is_asked(&self, id: u64) -> bool {
        !self.asked.is_empty() && self.asked.contains(&id)
    }

    pub(super) fn is_known(&self, id: u64) -> bool {
        self.known.contains_key(&id)
    }

    /// Groups that were asked about, and nobody has answered.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = u64> {
        self.asked.iter().copied()
    }

    pub(super) fn found(&mut self, id: u64, cgroup: Option<Cgroup>, now: Timestamp) {
        if self.known.len() >= MOST && !self.known.contains_key(&id) {
            self.known.clear();
        }
        self.asked.remove(&id);
        match (cgroup, self.known.get_mut(&id)) {
            // It is gone, or was not looked at in time: what it was, and no more who is in it.
            (None, Some(Some(known))) => {
                known.alone = None;
                known.looked = now;
            }
            (cgroup, _) => {
                let known = cgroup.map(|cgroup| Known::new(cgroup, now));
                self.known.insert(id, known);
            }
        }
    }
}
