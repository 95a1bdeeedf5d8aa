//! The conntrack thread: asks the kernel's connection tracking how connections are translated.
//!
//! It answers the engine's questions in batches and rests as long as it worked, so that it never
//! takes more than half of a processor. What does not fit into its queue is not asked, and counted.
//! Where connection tracking cannot be asked it says so, and looks again from time to time: it may
//! be loaded later.

use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use monitor_core::engine::{Input, Lookup, TranslationAnswer, TranslationQuestion};
use tokio::sync::mpsc;

use crate::host::conntrack::{Conntrack, ConntrackError};

/// Questions that may wait.
pub(super) const QUESTIONS: usize = 8192;
/// Questions that are answered together.
const BATCH: usize = 256;
/// How long a batch may take.
const BUDGET: Duration = Duration::from_millis(50);
/// When to look again whether connection tracking can be asked.
const AGAIN: Duration = Duration::from_secs(30);

/// Starts the thread; it ends when the engine's end of a channel is gone.
pub(super) fn start(
    questions: Receiver<TranslationQuestion>,
    answers: mpsc::Sender<Input>,
) -> io::Result<()> {
    let task = Task {
        answers,
        conntrack: None,
        last: None,
    };
    thread::Builder::new()
        .name("conntrack".to_owned())
        .spawn(move || task.run(&questions))
        .map(drop)
}

struct Task {
    answers: mpsc::Sender<Input>,
    conntrack: Option<Conntrack>,
    /// What was said last of whether it can be asked.
    last: Option<Result<(), String>>,
}

/// The engine is gone.
struct Ended;

// === impl Task ===

impl Task {
    fn run(mut self, questions: &Receiver<TranslationQuestion>) {
        if self.open().is_err() {
            return;
        }
        loop {
            let first = match questions.recv_timeout(AGAIN) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.conntrack.is_none() && self.open().is_err() {
                return;
            }
            let batch: Vec<_> = first
                .into_iter()
                .chain(questions.try_iter())
                .take(BATCH)
                .collect();
            if batch.is_empty() {
                continue;
            }
            let start = Instant::now();
            let answers = self.answer(batch, start);
            if self.send(Input::Translations(answers)).is_err() {
                return;
            }
            // A thread of its own, none of the runtime's: it may rest. Nobody wakes it.
            thread::park_timeout(start.elapsed().min(BUDGET));
        }
    }

    /// Tries to open connection tracking, and tells where that is news.
    fn open(&mut self) -> Result<(), Ended> {
        match Conntrack::new() {
            Ok(conntrack) => {
                self.conntrack = Some(conntrack);
                self.tell(Ok(()))
            }
            Err(error) => self.tell(Err(error.to_string())),
        }
    }

    fn tell(&mut self, available: Result<(), String>) -> Result<(), Ended> {
        if self.last.as_ref() == Some(&available) {
            return Ok(());
        }
        match &available {
            Ok(()) => tracing::info!("connection tracking tells how addresses are translated"),
            Err(error) => tracing::warn!("how addresses are translated is not known: {error}"),
        }
        self.last = Some(available.clone());
        self.send(Input::Conntrack(available))
    }

    fn answer(
        &mut self,
        questions: Vec<TranslationQuestion>,
        start: Instant,
    ) -> Vec<TranslationAnswer> {
        let answer = |question: TranslationQuestion| TranslationAnswer {
            found: self.look_up(&question, start),
            question,
        };
        questions.into_iter().map(answer).collect()
    }

    fn look_up(&mut self, question: &TranslationQuestion, start: Instant) -> Lookup {
        let Some(conntrack) = self.conntrack.as_mut().filter(|_| start.elapsed() < BUDGET) else {
            return Lookup::Failed;
        };
        let TranslationQuestion {
            protocol,
            source,
            destination,
            ..
        } = *question;
        match conntrack.find(protocol, source, destination) {
            Ok(Some(translation)) => Lookup::Found(translation),
            Ok(None) if conntrack.is_idle() => Lookup::Idle,
            Ok(None) => Lookup::Missing,
            Err(error) => {
                tracing::debug!(%error, "connection tracking");
                // An answer that came too late would be taken for that of the next question, were
                // it not for its number; a socket that fails is made anew.
                if !matches!(error, ConntrackError::Refused(_)) {
                    self.conntrack = None;
                }
                Lookup::Failed
            }
        }
    }

    fn send(&self, input: Input) -> Result<(), Ended> {
        self.answers.blocking_send(input).map_err(|_| Ended)
    }
}
