//! The owner thread: finds out which processes and users of this node hold SSH connections.
//!
//! It answers the engine's questions one batch after the other and rests as long as it worked, so
//! that it never takes more than half of a processor. Where a connection is just being accepted, or
//! someone logs in, it looks again some times within half a second: all may be over by then. What does not fit
//! into its queue is not answered, and counted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use monitor_core::{
    engine::{Existing, Input, Owner, OwnerAnswer, OwnerQuestion, Wanted},
    event::ProcessRecord,
};
use tokio::sync::mpsc;

use crate::host::owner::{self, FindError, Finder, Tuple};

/// Questions that may wait.
pub(super) const QUESTIONS: usize = 1024;
/// Questions that one look at all processes answers at most.
const BATCH: usize = 64;
/// When to look again for what is not there yet.
const AGAIN: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(150),
    Duration::from_millis(400),
];
/// Such connections at a time.
const MOST_AGAIN: usize = 256;
/// How long one batch may look for connections of pods.
const PODS: Duration = Duration::from_millis(120);
/// By how much a server's process may be older than the first segment seen of its connection: a
/// banner that the server sends first comes after the process was made.
const SLACK_NS: u64 = 3_000_000_000;
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
    questions: Receiver<OwnerQuestion>,
    answers: mpsc::Sender<OwnerAnswer>,
    given: Given,
) -> io::Result<()> {
    let task = Task {
        finder,
        answers,
        given,
        again: Vec::new(),
        skipped: 0,
        has_failed: false,
    };
    thread::Builder::new()
        .name("owner".to_owned())
        .spawn(move || task.run(&questions))
        .map(drop)
}

/// A look that is still to come.
#[derive(Clone, Copy, Debug)]
struct Again {
    question: OwnerQuestion,
    since: Instant,
    looks: usize,
}

struct Task {
    finder: Finder,
    answers: mpsc::Sender<OwnerAnswer>,
    given: Given,
    again: Vec<Again>,
    /// Looks at connections of pods that there was no time for.
    skipped: u64,
    has_failed: bool,
}

/// The engine is gone.
struct Ended;

// === impl Again ===

impl Again {
    fn due(&self) -> Option<Instant> {
        AGAIN.get(self.looks).map(|wait| self.since + *wait)
    }
}

// === impl Task ===

impl Task {
    fn run(mut self, questions: &Receiver<OwnerQuestion>) {
        loop {
            let due = self.again.iter().filter_map(Again::due).min();
            let first = match due {
                None => questions.recv().ok(),
                Some(due) => match questions.recv_timeout(due - Instant::now().min(due)) {
                    Ok(first) => Some(first),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            if first.is_none() && due.is_none() {
                return;
            }
            let batch: Vec<_> = first
                .into_iter()
                .chain(questions.try_iter())
                .take(BATCH)
                .collect();
            let start = Instant::now();
            if self
                .answer(&batch)
                .and_then(|()| self.look_again())
                .is_err()
            {
                return;
            }
            let given_up = self.finder.counters().scans_given_up + self.skipped;
            self.given.up.store(given_up, Ordering::Relaxed);
            // A thread of its own, none of the runtime's: it may rest. Nobody wakes it.
            thread::park_timeout(start.elapsed().min(REST));
        }
    }

    fn find(&mut self, questions: &[OwnerQuestion]) -> Vec<Option<Owner>> {
        let tuple = |question: &OwnerQuestion| Tuple {
            local: question.local,
            remote: question.remote,
        };
        let own = questions.iter().filter(|question| !question.is_pod);
        let tuples: Vec<Tuple> = own.map(tuple).collect();
        let mut own = self.finder.find_all(&tuples).into_iter();
        let start = Instant::now();
        let mut owners = Vec::with_capacity(questions.len());
        for question in questions {
            let found = if question.is_pod && start.elapsed() > PODS {
                self.skipped += 1;
                Ok(None)
            } else if question.is_pod {
                self.finder.find_in_pods(&tuple(question))
            } else {
                own.next().unwrap_or(Ok(None))
            };
            let owner = found.unwrap_or_else(|error: FindError| {
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::warn!(%error, "cannot tell whose an SSH connection is");
                }
                None
            });
            owners.push(owner.and_then(|owner| translate(owner, question.began_ns)));
        }
        owners
    }

    fn answer(&mut self, questions: &[OwnerQuestion]) -> Result<(), Ended> {
        let owners = self.find(questions);
        for (question, owner) in questions.iter().zip(owners) {
            if !is_enough(question.wanted, owner.as_ref()) && self.again.len() < MOST_AGAIN {
                self.again.push(Again {
                    question: *question,
                    since: Instant::now(),
                    looks: 0,
                });
            }
            self.send(*question, owner)?;
        }
        Ok(())
    }

    /// Looks again at what is due; tells only of what was looked for.
    fn look_again(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        let mut again = std::mem::take(&mut self.again);
        let is_due = |again: &mut Again| again.due().is_none_or(|due| due <= now);
        let due: Vec<Again> = again.extract_if(.., is_due).collect();
        self.again = again;
        let questions: Vec<_> = due.iter().map(|again| again.question).collect();
        for (mut due, owner) in due.into_iter().zip(self.find(&questions)) {
            due.looks += 1;
            if is_enough(due.question.wanted, owner.as_ref()) {
                self.send(due.question, owner)?;
            } else if due.due().is_some() {
                self.again.push(due);
            }
        }
        Ok(())
    }

    fn send(&self, question: OwnerQuestion, owner: Option<Owner>) -> Result<(), Ended> {
        let answer = OwnerAnswer { question, owner };
        self.answers.blocking_send(answer).map_err(|_| Ended)
    }
}

fn is_enough(wanted: Wanted, owner: Option<&Owner>) -> bool {
    match wanted {
        Wanted::Present => true,
        Wanted::Process => owner.is_some_and(|owner| owner.process.is_some()),
        Wanted::Login => owner.is_some_and(|owner| owner.authenticated == Some(true)),
    }
}

/// As the engine takes it; a listener that would match is no owner.
///
/// A server makes a process for each connection. One that was there before the connection `began_ns`
/// serves another one, and holds this one for that one's client: a port that it forwards (`ssh -R`,
/// RFC 4254 section 7.1). It tells nothing of who has logged in here.
fn translate(found: owner::Owner, began_ns: u64) -> Option<Owner> {
    let process = found.process.as_ref();
    let started_ns = process.map_or(u64::MAX, owner::Process::started_ns);
    let is_forwarded =
        found.authenticated.is_some() && started_ns.saturating_add(SLACK_NS) < began_ns;
    let mut owner = own(found)?;
    if is_forwarded {
        (owner.user, owner.authenticated) = (None, None);
    }
    Some(owner)
}

/// The same for one that holds a connection of its own.
fn own(found: owner::Owner) -> Option<Owner> {
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

/// SSH connections that were there before the daemon; on a thread of its own, since it reads `/proc`.
pub(super) fn existing(inputs: &mpsc::WeakSender<Input>) -> io::Result<()> {
    let inputs = inputs.clone();
    let look = move || -> Result<Vec<Existing>, Box<dyn std::error::Error>> {
        Ok(Finder::new()?.existing()?.into_iter().map(known).collect())
    };
    let tell = move || match look() {
        Ok(existing) => {
            if let Some(inputs) = inputs.upgrade() {
                // Gone when the daemon ends.
                let _ = inputs.blocking_send(Input::Existing(existing));
            }
        }
        Err(error) => tracing::warn!(%error, "cannot tell which SSH connections were there before"),
    };
    thread::Builder::new()
        .name("existing".to_owned())
        .spawn(tell)
        .map(drop)
}

/// As the engine takes it.
fn known(found: owner::Existing) -> Existing {
    let (tuple, is_server) = (found.tuple, found.is_server);
    Existing {
        local: tuple.local,
        remote: tuple.remote,
        is_server,
        // It was there before, as is its process: nothing says that it serves another one.
        owner: own(found.owner).unwrap_or_default(),
    }
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
    fn it_is_looked_again_until_there_is_what_is_wanted() {
        let mut owner = translate(found(false, None), 0).expect("an owner");
        assert!(is_enough(Wanted::Login, Some(&owner)));
        owner.authenticated = Some(false);
        assert!(!is_enough(Wanted::Login, Some(&owner)));
        assert!(is_enough(Wanted::Process, Some(&owner)));
        assert!(!is_enough(Wanted::Process, None));
        assert!(is_enough(Wanted::Present, None));
    }

    #[test]
    fn who_was_there_before_the_connection_serves_another_one() {
        let process = found(false, None).process.expect("a process");
        let started = process.started_ns();
        let told = |began_ns| {
            let owner = translate(found(false, Some("alice")), began_ns).expect("an owner");
            assert!(owner.process.is_some());
            (owner.user, owner.authenticated)
        };
        let logged_in = (Some("alice".to_owned()), Some(true));
        assert_eq!(told(started), logged_in);
        assert_eq!(told(started + SLACK_NS), logged_in);
        assert_eq!(told(started + 2 * SLACK_NS), (None, None));
    }

    #[test]
    fn owners_as_the_engine_takes_them() {
        let owner = translate(found(false, Some("alice")), 0).expect("an owner");
        assert_eq!(owner.user.as_deref(), Some("alice"));
        assert_eq!(owner.process.map(|process| process.pid), Some(12));
        assert_eq!(owner.authenticated, Some(true));
        // Without a name the number; a listener and nobody are none.
        let unnamed = translate(found(false, None), 0).expect("an owner");
        assert_eq!(unnamed.user.as_deref(), Some("1000"));
        assert_eq!(translate(found(true, None), 0), None);
        let nobody = owner::Owner {
            process: None,
            ..found(false, None)
        };
        assert_eq!(translate(nobody, 0), None);
    }
}
