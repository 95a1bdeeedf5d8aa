//! Connections whose addresses are translated on this node: which ones to ask about, and what an
//! answer means.
//!
//! A pod's interface shows a Service as its own address, the uplink shows a pod behind the node's.
//! Connection tracking has both sides of each. It is asked about connections of which a name or a
//! verdict depends on that, once, and their records, verdicts and findings wait for the answer.

mod ask;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::record::Context;
use crate::{
    account::Interface,
    entity::{Names, Sight, normalise},
    event::{Endpoint, Point, Protocol, Translated, TranslatedEnds},
    flow::{FlowKey, Tracked},
    metric::{Fixed, Metric, Text, Value},
    time::Timestamp,
};

/// How long a connection waits for its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what is known of a connection is kept that the flow table does not show.
const UNSEEN: Duration = Duration::from_mins(1);
/// Connections that wait at a time: what more there is goes on without an answer.
const MOST_WAITING: usize = 8_192;

/// Asks connection tracking about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TranslationQuestion {
    key: FlowKey,
    generation: u32,
    /// Which question: the ports may be another connection's by the time of an answer.
    number: u32,
    /// IP protocol: TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Source of the packets that enter the node by the interface: as they are before anything is
    /// translated, which is how connection tracking finds a connection.
    pub source: SocketAddr,
    /// Destination of these packets.
    pub destination: SocketAddr,
}

/// A source and a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Source.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
}

/// A connection as both of its ends have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// As the end that opened it has it: the tuple of the original direction.
    pub original: Pair,
    /// As the end that answers has it: the tuple of the reply direction, turned round.
    pub reached: Pair,
}

/// What connection tracking says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Both sides of it.
    Found(Translation),
    /// It has no such connection.
    Missing,
    /// It has no connections at all: nothing on this node asks for them to be tracked.
    Idle,
    /// It could not be asked.
    Failed,
}

/// The answer to a [`TranslationQuestion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationAnswer {
    /// What was asked.
    pub question: TranslationQuestion,
    /// What was found.
    pub found: Lookup,
}

/// Whether connection tracking can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslationStatus {
    /// Why it cannot; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
    /// Connections that it was asked about.
    pub asked: u64,
    /// Connections that are translated.
    pub translated: u64,
    /// Connections of which it is not known whether they are.
    pub unknown: u64,
}

/// What is known of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Asked,
    Same,
    Unknown,
    Translated(Arc<Translation>),
}

#[derive(Clone, Debug)]
struct Slot {
    state: State,
    /// Of the question; zero where none was asked.
    number: u32,
    /// Seconds since 1970.
    since_s: u32,
}

const _: () = assert!(size_of::<(At, Slot)>() <= 80);

/// How it went, in the order of [`RESULTS`].
#[derive(Clone, Copy)]
enum Outcome {
    Translated,
    Same,
    Missing,
    Failed,
    Late,
}

const RESULTS: [&str; 5] = ["translated", "direct", "missing", "failed", "late"];

/// Which connection: an entry, and which of the entry's connections.
type At = (FlowKey, u32);

/// What is known of translations.
#[derive(Debug, Default)]
pub(super) struct Translations {
    /// Whether anyone answers at all: nobody does in a replay.
    asks: bool,
    unavailable: Option<String>,
    slots: HashMap<At, Slot>,
    /// Those that were asked about, in order.
    waiting: VecDeque<(At, Timestamp)>,
    questions: Vec<TranslationQuestion>,
    asked: u64,
    results: [u64; RESULTS.len()],
    swept: Option<Timestamp>,
}

/// What was known of a connection when it closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Not translated, or nothing depends on it.
    Direct,
    Unknown,
    Translated(Arc<Translation>),
}

/// Numbers of questions begin anew after four thousand million of them.
fn number_of(asked: u64) -> u32 {
    u32::try_from(asked & u64::from(u32::MAX)).unwrap_or(0)
}

fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.nanoseconds() / 1_000_000_000).unwrap_or(0)
}

// === impl Translation ===

impl Translation {
    /// Whether both sides are the same.
    pub fn is_same(&self) -> bool {
        self.original == self.reached
    }

    /// The other side than the one with these ends.
    fn other(&self, shown: Pair) -> Pair {
        if self.original == shown {
            self.reached
        } else {
            self.original
        }
    }

    /// The ends that speak with each other, whatever lies between: who opened it and who answers.
    pub(super) fn ends(&self) -> Pair {
        Pair {
            source: self.original.source,
            destination: self.reached.destination,
        }
    }

    /// What the ends were called in between.
    pub(super) fn between(&self) -> Pair {
        Pair {
            source: self.reached.source,
            destination: self.original.destination,
        }
    }
}

// === impl Pair ===

impl Pair {
    /// Both ends of a flow, by who opened it.
    pub(super) fn of(key: &FlowKey, source_is_local: bool) -> Self {
        let end = |ip, port| SocketAddr::new(normalise(ip), port);
        let local = end(key.local(), key.local_port());
        let remote = end(key.remote(), key.remote_port());
        let (source, destination) = if source_is_local {
            (local, remote)
        } else {
            (remote, local)
        };
        Self {
            source,
            destination,
        }
    }
}

// === impl Translations ===

impl Translations {
    pub(super) fn new(asks: bool) -> Self {
        Self {
            asks,
            ..Self::default()
        }
    }

    /// Connection tracking can be asked from now on, or cannot.
    pub(super) fn set_available(&mut self, available: Result<(), String>) {
        self.unavailable = available.err();
    }

    pub(super) fn take_questions(&mut self) -> Vec<TranslationQuestion> {
        std::mem::take(&mut self.questions)
    }

    pub(super) fn status(&self) -> Option<TranslationStatus> {
        let count = |outcome: Outcome| self.results[outcome as usize];
        self.asks.then(|| TranslationStatus {
            unavailable: self.unavailable.clone(),
            asked: self.asked,
            translated: count(Outcome::Translated),
            unknown: count(Outcome::Missing) + count(Outcome::Failed) + count(Outcome::Late),
        })
    }

    pub(super) fn samples(&self, fixed: &mut Vec<Fixed>) {
        fixed.extend(
            RESULTS
                .iter()
                .zip(self.results)
                .map(|(result, count)| Fixed {
                    metric: Metric::Translations,
                    labels: vec![Text::Static(result)],
                    value: Value::Counter(count),
                }),
        );
    }

    /// Asks, unless too many wait already; whether it did.
    fn ask(&mut self, key: &FlowKey, generation: u32, point: Point, now: Timestamp) -> bool {
        let at = (*key, generation);
        while let Some((first, _)) = self.waiting.front()
            && !self.is_asked(&first.0, first.1)
        {
            self.waiting.pop_front();
        }
        if self.waiting.len() >= MOST_WAITING {
            self.set_unknown(at, now);
            return false;
        }
        // What leaves the node's side of a pod's interface comes from the pod, and what enters by
        // an uplink comes from its remote end.
        let Pair {
            source,
            destination,
        } = Pair::of(key, point == Point::Workload);
        self.asked += 1;
        let slot = Slot {
            state: State::Asked,
            number: number_of(self.asked),
            since_s: seconds(now),
        };
        self.slots.insert(at, slot);
        self.waiting.push_back((at, now));
        self.questions.push(TranslationQuestion {
            key: *key,
            generation,
            number: number_of(self.asked),
            protocol: key.protocol(),
            source,
            destination,
        });
        true
    }

    /// It will not be known of a connection.
    fn set_unknown(&mut self, at: At, now: Timestamp) {
        let slot = Slot {
            state: State::Unknown,
            number: 0,
            since_s: seconds(now),
        };
        self.slots.insert(at, slot);
        self.results[Outcome::Late as usize] += 1;
    }

    /// Of what is counted and direct nothing has to be known any more.
    fn forget_direct(&mut self, at: &At) {
        if self
            .slots
            .get(at)
            .is_some_and(|slot| slot.state == State::Same)
        {
            self.slots.remove(at);
        }
    }

    /// Takes in what was found; false if nobody waits for it any more.
    fn found(&mut self, answer: &TranslationAnswer) -> bool {
        let at = (answer.question.key, answer.question.generation);
        let (state, outcome) = match answer.found {
            Lookup::Found(translation) if translation.is_same() => (State::Same, Outcome::Same),
            Lookup::Found(translation) => (
                State::Translated(Arc::new(translation)),
                Outcome::Translated,
            ),
            Lookup::Missing | Lookup::Idle => (State::Unknown, Outcome::Missing),
            Lookup::Failed => (State::Unknown, Outcome::Failed),
        };
        let Some(slot) = self.slots.get_mut(&at) else {
            return false;
        };
        if slot.state != State::Asked || slot.number != answer.question.number {
            return false;
        }
        slot.state = state;
        self.results[outcome as usize] += 1;
        true
    }

    fn is_late(&mut self, at: &At) -> bool {
        match self.slots.get_mut(at) {
            Some(slot) if slot.state == State::Asked => {
                slot.state = State::Unknown;
                self.results[Outcome::Late as usize] += 1;
                true
            }
            _ => false,
        }
    }

    pub(super) fn is_asked(&self, key: &FlowKey, generation: u32) -> bool {
        let slot = self.slots.get(&(*key, generation));
        slot.is_some_and(|slot| slot.state == State::Asked)
    }

    /// Both sides of a connection that is translated.
    pub(super) fn get(&self, key: &FlowKey, generation: u32) -> Option<&Arc<Translation>> {
        match &self.slots.get(&(*key, generation))?.state {
            State::Translated(translation) => Some(translation),
            _ => None,
        }
    }

    pub(super) fn is_unknown(&self, key: &FlowKey, generation: u32) -> bool {
        let slot = self.slots.get(&(*key, generation));
        slot.is_some_and(|slot| matches!(slot.state, State::Unknown | State::Asked))
    }

    /// A connection is over: what was known of it.
    pub(super) fn close(&mut self, key: &FlowKey, generation: u32) -> Kept {
        let Some(Slot { state, .. }) = self.slots.remove(&(*key, generation)) else {
            return Kept::Direct;
        };
        if state == State::Asked {
            self.results[Outcome::Late as usize] += 1;
        }
        match state {
            State::Translated(translation) => Kept::Translated(translation),
            State::Unknown | State::Asked => Kept::Unknown,
            State::Same => Kept::Direct,
        }
    }
}

// === impl Context ===

impl Context<'_> {
    /// What the record of a flow tells of its translation.
    pub(super) fn translated(
        &self,
        key: &FlowKey,
        flow: &Tracked,
        interface: &Interface,
        is_final: bool,
    ) -> Option<Translated> {
        let names = self.names;
        let shown = Pair::of(key, flow.orientation(key).source_is_local);
        let translation = match self.kept {
            Some(Kept::Translated(translation)) => Some(translation),
            Some(Kept::Direct | Kept::Unknown) => None,
            None => self.translations.get(key, flow.generation),
        };
        if let Some(translation) = translation {
            let other = translation.other(shown);
            let end = |ip: SocketAddr, shown| {
                (ip != shown).then(|| endpoint(names, ip, interface.point, flow.start))
            };
            return Some(Translated::Ends(Box::new(TranslatedEnds {
                source: end(other.source, shown.source),
                destination: end(other.destination, shown.destination),
            })));
        }
        let is_unknown = match self.kept {
            Some(kept) => *kept == Kept::Unknown,
            // What waits for its answer is not unknown yet, unless that is the end of it.
            None if self.translations.is_asked(key, flow.generation) => is_final,
            None => {
                self.translations.is_unknown(key, flow.generation)
                    || self.translations.unavailable.is_some()
                        && ask::depends(names, key, flow, interface)
            }
        };
        is_unknown.then_some(Translated::UNKNOWN)
    }
}

/// An end by its address, as a record has it.
pub(super) fn endpoint(names: &Names, end: SocketAddr, point: Point, at: Timestamp) -> Endpoint {
    let ip = end.ip();
    names
        .resolve(&Sight {
            ip,
            port: None,
            point,
            at,
        })
        .endpoint(ip, Some(end.port()))
}
