//! Flows of the node's own sockets: by the control group that the kernel program noted, whose they
//! are.

use std::{collections::HashMap, time::Duration};

use super::books::Books;
use crate::{
    entity::Cgroup,
    flow::{Mark, Table, Tracked},
    time::Timestamp,
};

/// How long flows wait for who they belong to.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a control group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupAnswer {
    /// Its number.
    pub id: u64,
    /// What it is; `None` if there is none with this number, or it was not found in time.
    pub found: Option<Cgroup>,
}

/// Questions about control groups.
#[derive(Debug, Default)]
pub(super) struct CgroupQuestions {
    /// Whether anyone answers.
    pub(super) asks: bool,
    questions: Vec<u64>,
    /// When the last question was asked that nobody has answered.
    since: Option<Timestamp>,
}

// === impl CgroupQuestions ===

impl CgroupQuestions {
    pub(super) fn new(asks: bool) -> Self {
        Self {
            asks,
            ..Self::default()
        }
    }

    pub(super) fn take(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.questions)
    }
}

impl Books {
    /// A flow begins: asks about the control group of its socket, if that is new, or who is in it now.
    pub(super) fn cgroup_opened(&mut self, flow: &Tracked) {
        let id = flow.cgroup_id;
        if self.cgroups.asks && id != 0 && self.names.ask_cgroup(id, self.now) {
            self.cgroups.questions.push(id);
            self.cgroups.since = Some(self.now);
        }
    }

    /// Whether it is about to be known whose socket a flow has.
    pub(super) fn awaits_cgroup(&self, flow: &Tracked) -> bool {
        flow.cgroup_id != 0 && self.names.is_cgroup_asked(flow.cgroup_id)
    }

    /// Takes in answers: connections that wait for them go on, and are counted for whom they belong
    /// to, as are all packets from now on. Those before stay where they are: no counter goes back.
    pub(super) fn cgroups_found(&mut self, answers: Vec<CgroupAnswer>, table: &mut Table) {
        let mut awaited = HashMap::new();
        for CgroupAnswer { id, found } in answers {
            if self.names.is_cgroup_asked(id) {
                let is_new = !self.names.knows_cgroup(id);
                awaited.insert(id, is_new);
            }
            self.names.set_cgroup(id, found, self.now);
        }
        if awaited.is_empty() {
            return;
        }
        for (key, flow) in table.iter_mut() {
            let Some(is_new) = awaited.get(&flow.cgroup_id) else {
                continue;
            };
            // A second look tells who is in the group, not whose it is.
            if *is_new && let Some(interface) = self.ledger.interface(key.interface_id()).cloned() {
                self.move_series(key, flow, &interface);
            }
            if !flow.has(Mark::Counted) && !self.awaits_translation(key, flow, false) {
                self.settle(key, flow, false);
            }
        }
    }

    /// Time passes: who waits for too long goes on as if there were no such group.
    pub(super) fn cgroup_tick(&mut self, table: &mut Table) {
        let is_late = self
            .cgroups
            .since
            // A clock that was set back tells nothing of how long it is.
            .is_some_and(|since| self.now < since || self.now >= since.saturating_add(PATIENCE));
        if is_late {
            self.cgroups.since = None;
            let none = |id| CgroupAnswer { id, found: None };
            let late = self.names.cgroups_unanswered().into_iter().map(none);
            let late: Vec<_> = late.collect();
            self.cgroups_found(late, table);
        }
    }
}
