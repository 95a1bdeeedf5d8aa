//! The cgroup thread: finds out which control groups the sockets of this node are in.
//!
//! It reads all groups at the start, and tells of those of pods before anyone asks. A question about
//! another one is answered by reading them all again, once a second at most.

use std::{
    io, iter, mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::Receiver,
    },
    thread,
};

use monitor_core::engine::{CgroupAnswer, Input};
use tokio::sync::mpsc;

use crate::host::cgroups::Cgroups;

/// Questions that may wait.
pub(super) const QUESTIONS: usize = 1024;

/// Groups that were not found as there was no time to read all, in total.
#[derive(Clone, Debug, Default)]
pub(super) struct Missed {
    count: Arc<AtomicU64>,
}

// === impl Missed ===

impl Missed {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Starts the thread; it ends when the engine's end of a channel is gone.
pub(super) fn start(
    cgroups: Cgroups,
    questions: Receiver<u64>,
    answers: mpsc::Sender<Input>,
    missed: Missed,
) -> io::Result<()> {
    thread::Builder::new()
        .name("cgroups".to_owned())
        .spawn(move || run(cgroups, &questions, &answers, &missed))
        .map(drop)
}

fn run(
    mut cgroups: Cgroups,
    questions: &Receiver<u64>,
    answers: &mpsc::Sender<Input>,
    missed: &Missed,
) {
    let pods = cgroups.of_pods().into_iter();
    let mut known: Vec<_> = pods
        .map(|(id, found)| CgroupAnswer {
            id,
            found: Some(found),
        })
        .collect();
    loop {
        let told = Input::Cgroups(mem::take(&mut known));
        if answers.blocking_send(told).is_err() {
            return;
        }
        let Ok(first) = questions.recv() else {
            return;
        };
        // What comes meanwhile is answered by the same walk. Nobody wakes this thread.
        if let Some(wait) = cgroups.wait() {
            thread::park_timeout(wait);
        }
        let ids: Vec<u64> = iter::once(first).chain(questions.try_iter()).collect();
        let found = cgroups.find(&ids);
        if cgroups.is_cut() {
            let lost = found.iter().filter(|found| found.is_none()).count();
            let lost = u64::try_from(lost).unwrap_or(u64::MAX);
            missed.count.fetch_add(lost, Ordering::Relaxed);
            tracing::debug!(lost, "not all control groups could be read in time");
        }
        let answer = |(id, found)| CgroupAnswer { id, found };
        known.extend(ids.into_iter().zip(found).map(answer));
    }
}
