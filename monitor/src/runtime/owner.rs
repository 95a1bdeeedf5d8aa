//! The owner thread: finds out which processes and users of this node hold SSH connections.
//!
//! It answers the engine's questions one batch after the other and rests as long as it worked, so
//! that it never takes more than half of a processor. What does not fit into its queue is not
//! answered, and counted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use monitor_core::{
    engine::{Owner, OwnerAnswer, OwnerQuestion},
    event::ProcessRecord,
};
use tokio::sync::mpsc;

use crate::host::owner::{self, FindError, Finder, Tuple};

/// Questions that may wait.
pub(super) const QUESTIONS: usize = 1024;
/// Questions that one look at all processes answers at most.
const BATCH: usize = 64;
/// The longest rest.
const REST: Duration = Duration::from_millis(100);

/// What there was no time for, in total.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    up: Arc<AtomicU64>,
}

// === impl Given ===

impl Given {
    /// Looks at all processes that ended for lack of time.
    pub(super) fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }
}

/// Starts the thread; it ends when the engine's end of a channel is gone.
pub(super) fn start(
    finder: Finder,
    questions: mpsc::Receiver<OwnerQuestion>,
    answers: mpsc::Sender<OwnerAnswer>,
    given: Given,
) -> io::Result<()> {
    thread::Builder::new()
        .name("owner".to_owned())
        .spawn(move || run(finder, questions, &answers, &given))
        .map(drop)
}

fn run(
    mut finder: Finder,
    mut questions: mpsc::Receiver<OwnerQuestion>,
    answers: &mpsc::Sender<OwnerAnswer>,
    given: &Given,
) {
    let mut has_failed = false;
    while let Some(first) = questions.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = questions.try_recv()
        {
            batch.push(next);
        }
        let start = Instant::now();
        let tuple = |question: &OwnerQuestion| Tuple {
            local: question.local,
            remote: question.remote,
        };
        let tuples: Vec<Tuple> = batch.iter().map(tuple).collect();
        for (question, found) in batch.into_iter().zip(finder.find_all(&tuples)) {
            let owner = found.unwrap_or_else(|error: FindError| {
                if !std::mem::replace(&mut has_failed, true) {
                    tracing::warn!(%error, "cannot tell whose an SSH connection is");
                }
                None
            });
            let owner = owner.and_then(translate);
            let answer = OwnerAnswer { question, owner };
            if answers.blocking_send(answer).is_err() {
                return;
            }
        }
        given
            .up
            .store(finder.counters().scans_given_up, Ordering::Relaxed);
        // A thread of its own, none of the runtime's: it may rest. Nobody wakes it.
        thread::park_timeout(start.elapsed().min(REST));
    }
}

/// As the engine takes it; a listener that would match is no owner.
fn translate(found: owner::Owner) -> Option<Owner> {
    if found.listener {
        return None;
    }
    let process = found.process?;
    Some(Owner {
        user: found
            .user
            .map(|user| user.name.unwrap_or_else(|| user.uid.to_string())),
        process: Some(ProcessRecord {
            pid: process.pid,
            name: process.name,
            executable: process.executable,
            container: process.container,
        }),
        authenticated: found.authenticated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(listener: bool, name: Option<&str>) -> owner::Owner {
        owner::Owner {
            inode: 7,
            uid: 0,
            listener,
            process: Some(owner::Process {
                pid: 12,
                name: "sshd".to_owned(),
                executable: Some("/usr/sbin/sshd".to_owned()),
                container: None,
                cgroup: None,
                start_time_ticks: 1,
            }),
            user: Some(owner::User {
                uid: 1000,
                name: name.map(str::to_owned),
                session: None,
            }),
            authenticated: Some(true),
        }
    }

    #[test]
    fn owners_as_the_engine_takes_them() {
        let owner = translate(found(false, Some("alice"))).expect("an owner");
        assert_eq!(owner.user.as_deref(), Some("alice"));
        assert_eq!(owner.process.map(|process| process.pid), Some(12));
        assert_eq!(owner.authenticated, Some(true));
        // Without a name the number; a listener and nobody are none.
        let unnamed = translate(found(false, None)).expect("an owner");
        assert_eq!(unnamed.user.as_deref(), Some("1000"));
        assert_eq!(translate(found(true, None)), None);
        let nobody = owner::Owner {
            process: None,
            ..found(false, None)
        };
        assert_eq!(translate(nobody), None);
    }
}
