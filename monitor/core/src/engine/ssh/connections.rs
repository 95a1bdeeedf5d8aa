//! The SSH connections that are open, and what is remembered of the others.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    engine::{Forgotten, translate::Pair},
    event::{FindingKind, FindingRecord, Severity, SshRecord, State, Target},
    flow::FlowKey,
    judge::{Attempt, Expectations, Thresholds, Told, Watch},
    metric::{Fixed, Metric, Text, Value},
    ssh::{AuthOutcome, Class, Session},
};

use super::{
    connection::{Connection, Cookies},
    existing::Existing,
    findings::{self, Statement},
    owner::OwnerQuestion,
    resumed::Ended,
};

/// Connections at a time; more are counted when they close, but not identified.
pub(in crate::engine) const CONNECTIONS: usize = 16_384;
/// Bytes that all sessions may hold: one holds up to 24 KiB while its ends exchange keys and log in.
/// Beyond, the oldest ones keep only what is known of them.
pub(in crate::engine) const BYTES: usize = 32 << 20;
/// How long the packets of a session that is logged in are kept: some may still be on their way.
const KEPT_NS: u64 = 10_000_000_000;
/// Connections among them that began with text and may become SSH.
const PENDING: usize = 1_024;
/// How long after its first line a server's banner may follow; what only said other things until then
/// is another protocol.
const LINES_NS: u64 = 10_000_000_000;
/// Closed connections, and findings, that are remembered.
const RECENT: usize = 4_096;

/// How far apart the first segments of one connection may pass two interfaces.
const SAME_START_NS: u64 = 1_000_000_000;

/// A connection: its entry, and which of the entry's connections it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    pub(super) key: FlowKey,
    pub(super) generation: u32,
}

/// Labels of the counter of connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    target: Target,
    is_inbound: bool,
    expected: Option<bool>,
    range: Arc<str>,
    authentication: AuthOutcome,
    is_standard_port: bool,
}

/// Both ends, the lower one first.
pub(super) type Ends = [SocketAddr; 2];

// === impl Id ===

impl Id {
    pub(super) fn ends(&self) -> Ends {
        let local = SocketAddr::new(self.key.local(), self.key.local_port());
        let remote = SocketAddr::new(self.key.remote(), self.key.remote_port());
        [local.min(remote), local.max(remote)]
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(in crate::engine) live: HashMap<Id, Box<Connection>>,
    /// Not marked yet, the oldest first; may name some that are no longer there.
    pending: VecDeque<Id>,
    /// Marked, not told yet.
    waiting: Vec<Id>,
    /// Whose cookies these are.
    pub(in crate::engine) cookies: HashMap<Cookies, Id>,
    /// Whose ends these are.
    ends: HashMap<Ends, Id>,
    /// Connections that were there before, until a packet of them passes.
    pub(super) existing: HashMap<Ends, Existing>,
    /// Connections that closed, and may go on.
    pub(super) ended: Ended,
    pub(in super::super) expectations: Expectations,
    pub(super) is_all_local: bool,
    pub(in crate::engine) watch: Watch,
    counts: BTreeMap<Labels, u64>,
    findings: BTreeMap<(FindingKind, Severity), u64>,
    recent: VecDeque<Arc<SshRecord>>,
    recent_findings: VecDeque<Arc<FindingRecord>>,
    /// Those of proposed policies: however many, they push no other out.
    recent_proposed: VecDeque<Arc<FindingRecord>>,
    /// What is no longer remembered for later questions.
    given_up: Forgotten,
    /// What was said of sources and destinations a while ago.
    pub(super) told: Told<Statement>,
    /// Connections that closed.
    pub(super) closed: u64,
    /// Connections for which there was no room, or too little.
    pub(super) untracked: u64,
    /// Connections that began with text, of which it was not waited any longer whether a banner follows.
    forgotten: u64,
    /// Those for which there was no room at all, so that each counts once.
    refused: HashSet<Id>,
    /// Bytes that all sessions hold.
    pub(in crate::engine) held: usize,
    /// Connections in the order in which they came; may name some that are no longer there.
    order: VecDeque<Id>,
    /// Whether someone answers questions about who holds a connection.
    pub(super) asks_owners: bool,
    /// Such questions, since they were last taken.
    pub(super) questions: Vec<OwnerQuestion>,
}

// === impl Connections ===

impl Connections {
    pub(crate) fn new(
        expectations: Expectations,
        thresholds: Thresholds,
        is_all_local: bool,
        asks_owners: bool,
    ) -> Self {
        Self {
            live: HashMap::new(),
            pending: VecDeque::new(),
            waiting: Vec::new(),
            cookies: HashMap::new(),
            ends: HashMap::new(),
            existing: HashMap::new(),
            ended: Ended::default(),
            expectations,
            is_all_local,
            watch: Watch::new(thresholds),
            counts: BTreeMap::new(),
            findings: BTreeMap::new(),
            recent: VecDeque::new(),
            recent_findings: VecDeque::new(),
            recent_proposed: VecDeque::new(),
            given_up: Forgotten::default(),
            told: Told::default(),
            closed: 0,
            untracked: 0,
            forgotten: 0,
            refused: HashSet::new(),
            held: 0,
            order: VecDeque::new(),
            asks_owners,
            questions: Vec::new(),
        }
    }

    /// The connection, made anew if there is room for it at `now_ns`.
    pub(super) fn enter(
        &mut self,
        id: Id,
        now_ns: u64,
        new: impl FnOnce() -> Connection,
    ) -> Option<&mut Connection> {
        if !self.live.contains_key(&id) {
            if self.live.len() >= CONNECTIONS {
                if self.refused.len() >= CONNECTIONS {
                    self.refused.clear();
                }
                self.untracked += u64::from(self.refused.insert(id));
                return None;
            }
            self.pending.push_back(id);
            while self.pending.len() > PENDING {
                if let Some(oldest) = self.pending.pop_front()
                    && let Some(live) = self.live.get(&oldest).filter(|live| !live.is_marked)
                {
                    let is_young = now_ns.saturating_sub(live.first_ns) < LINES_NS;
                    self.forgotten += u64::from(is_young);
                    self.remove(oldest);
                }
            }
            if self.order.len() > 2 * CONNECTIONS {
                let live = &self.live;
                self.order.retain(|id| live.contains_key(id));
            }
            self.order.push_back(id);
            self.live.insert(id, Box::new(new()));
        }
        self.live.get_mut(&id).map(Box::as_mut)
    }

    /// Counts the bytes of a session that took in something, and makes the oldest ones small where
    /// there are too many.
    pub(super) fn weigh(&mut self, id: Id) {
        self.reweigh(id);
        while self.held > BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            // What is not in yet cannot be told any more.
            if self.settle(oldest) && self.live.get(&oldest).is_some_and(|live| !live.is_in) {
                self.untracked += 1;
            }
        }
    }

    /// Drops the packets of sessions that have been logged in for a while.
    pub(super) fn settle_old(&mut self, now_ns: u64) {
        let is_old = |live: &Connection| {
            live.is_in && !live.is_settled && now_ns.saturating_sub(live.first_ns) > KEPT_NS
        };
        let live = self.live.iter();
        let old: Vec<Id> = live
            .filter(|(_, live)| is_old(live))
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            self.settle(id);
        }
    }

    /// True if there was something to drop.
    fn settle(&mut self, id: Id) -> bool {
        let Some(connection) = self.live.get_mut(&id).filter(|live| !live.is_settled) else {
            return false;
        };
        connection.session.settle();
        connection.is_settled = true;
        self.reweigh(id);
        true
    }

    fn reweigh(&mut self, id: Id) {
        if let Some(connection) = self.live.get_mut(&id) {
            let held = connection.session.bytes_held();
            self.held = self.held + held - std::mem::replace(&mut connection.held, held);
        }
    }

    /// An end said that it speaks SSH.
    pub(super) fn marked(&mut self, id: Id) {
        self.waiting.push(id);
    }

    /// Connections that were marked for `patience` and not told of.
    pub(super) fn take_waiting(&mut self, now_ns: u64, patience: u64) -> Vec<Id> {
        let live = &self.live;
        let mut due = Vec::new();
        self.waiting.retain(|id| match live.get(id) {
            Some(connection) if !connection.is_told => {
                let is_due = now_ns.saturating_sub(connection.first_ns) >= patience;
                if is_due {
                    due.push(*id);
                }
                !is_due
            }
            _ => false,
        });
        due
    }

    /// A connection as brute force and the like are judged by; None where it is not known who is the
    /// source.
    pub(super) fn attempt<'a>(&self, id: Id, record: &'a SshRecord) -> Option<Attempt<'a>> {
        let connection = self.live.get(&id).filter(|live| live.is_placed())?;
        let is_over = record.state == State::Closed;
        let failures = connection.outcome(is_over).failures;
        Some(findings::attempt(record, failures))
    }

    /// Whether the connection is one that another interface shows: the cookies and first sequence
    /// numbers of both ends are the same, whatever addresses were translated, or both ends where there are no cookies yet.
    /// Ends that conspire can repeat cookies, so both must have begun at about the same time.
    pub(super) fn is_shadow(&mut self, id: Id) -> bool {
        let Some(connection) = self.live.get(&id) else {
            return false;
        };
        let began = connection.first_ns;
        let own = cookies(&connection.session);
        let by_cookies = own.map(|cookies| *self.cookies.entry(cookies).or_insert(id));
        let began_so = |first: &Id| {
            let first = self.live.get(first);
            first.is_some_and(|first| first.first_ns.abs_diff(began) < SAME_START_NS)
        };
        let ends = connection.ends.as_deref().copied();
        let ends = ends.unwrap_or_else(|| id.ends());
        let by_ends = self.ends.get(&ends).copied().filter(began_so);
        let is_other = |first: &Id| first.key.interface_id() != id.key.interface_id();
        let mut firsts = by_cookies.filter(began_so).into_iter().chain(by_ends);
        let is_shadow = firsts.any(|first| is_other(&first));
        if by_ends.is_none() {
            self.ends.insert(ends, id);
        }
        if by_cookies == Some(id)
            && let Some(connection) = self.live.get_mut(&id)
        {
            connection.cookies = own.map(Box::new);
        }
        is_shadow
    }

    /// A connection that was not told of yet has these ends, whatever its interface shows.
    pub(super) fn tie(&mut self, id: Id, ends: &Pair) {
        if let Some(connection) = self.live.get_mut(&id).filter(|live| !live.is_told) {
            let (source, destination) = (ends.source, ends.destination);
            connection.ends = Some([source.min(destination), source.max(destination)].into());
        }
    }

    /// Whether the local end of a connection opened it.
    pub(super) fn is_client(&self, id: Id) -> bool {
        self.live.get(&id).is_some_and(|live| live.local_is_client)
    }

    pub(super) fn opened(&mut self, id: Id, record: &SshRecord) {
        if let Some(connection) = self.live.get_mut(&id)
            && (record.class == Some(Class::Ssh) || connection.owner.is_served)
        {
            connection.active = Some((record.target, record.expected));
        }
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<Box<Connection>> {
        self.refused.remove(&id);
        let mut connection = self.live.remove(&id)?;
        self.held -= connection.held;
        let ends = connection.ends.as_deref().copied();
        let ends = ends.unwrap_or_else(|| id.ends());
        if self.ends.get(&ends) == Some(&id) {
            self.ends.remove(&ends);
        }
        // Those that were noted: the session may know others by now, or none.
        if let Some(cookies) = connection.cookies.take() {
            self.cookies.remove(&*cookies);
        }
        Some(connection)
    }

    /// Remembers the record of a closed connection for later questions.
    pub(super) fn keep(&mut self, record: Arc<SshRecord>) {
        if self.recent.len() >= RECENT {
            let oldest = self.recent.pop_front().map(|record| record.end);
            self.given_up.ssh = self.given_up.ssh.max(oldest);
        }
        self.recent.push_back(record);
    }

    pub(super) fn keep_finding(&mut self, record: FindingRecord) {
        *self
            .findings
            .entry((record.finding, record.severity))
            .or_default() += 1;
        let (recent, given_up) = match record.finding {
            FindingKind::PolicyWouldAllow | FindingKind::PolicyWouldDeny => {
                (&mut self.recent_proposed, &mut self.given_up.proposed)
            }
            _ => (&mut self.recent_findings, &mut self.given_up.findings),
        };
        if recent.len() >= RECENT {
            let oldest = recent.pop_front().map(|record| record.time);
            *given_up = (*given_up).max(oldest);
        }
        recent.push_back(Arc::new(record));
    }

    /// Counts a connection that closed.
    pub(super) fn count(&mut self, record: &SshRecord) {
        self.closed += 1;
        let labels = Labels {
            target: record.target,
            is_inbound: record.local == crate::event::LocalEnd::Destination,
            expected: record.expected,
            range: record.range.clone().unwrap_or_else(|| "".into()),
            authentication: record.authentication,
            is_standard_port: record.standard_port,
        };
        *self.counts.entry(labels).or_default() += 1;
    }

    /// Connections that closed recently, the oldest first.
    pub(crate) fn recent(&self) -> impl Iterator<Item = &Arc<SshRecord>> {
        self.recent.iter()
    }

    /// Recent findings, those of proposed policies behind the others, the oldest first.
    pub(crate) fn recent_findings(&self) -> impl Iterator<Item = &Arc<FindingRecord>> {
        self.recent_findings.iter().chain(&self.recent_proposed)
    }

    /// Up to when records may have been given up for newer ones.
    pub(crate) fn given_up(&self) -> Forgotten {
        self.given_up
    }

    /// Findings so far.
    pub(crate) fn findings(&self) -> u64 {
        self.findings.values().sum()
    }

    /// Connections so far, those still open included.
    pub(crate) fn connections(&self) -> u64 {
        let open = self.live.values().filter(|live| live.is_shown());
        self.closed + open.count() as u64
    }

    /// Questions about who holds a connection, since the last call.
    pub(crate) fn take_questions(&mut self) -> Vec<OwnerQuestion> {
        std::mem::take(&mut self.questions)
    }

    /// Connections for which there was no room.
    pub(crate) fn untracked(&self) -> u64 {
        self.untracked
    }

    /// Connections that began with text and made room for others before it was known what they are.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Samples of all metrics about SSH and findings.
    pub(crate) fn samples(&self, samples: &mut Vec<Fixed>) {
        for (labels, count) in &self.counts {
            samples.push(Fixed {
                metric: Metric::SshConnections,
                labels: vec![
                    Text::Static(labels.target.name()),
                    Text::Static(if labels.is_inbound {
                        "inbound"
                    } else {
                        "outbound"
                    }),
                    Text::Static(word(labels.expected)),
                    Text::Shared(Arc::clone(&labels.range)),
                    Text::Static(labels.authentication.name()),
                    Text::Static(word(Some(labels.is_standard_port))),
                ],
                value: Value::Counter(*count),
            });
        }
        let mut active: BTreeMap<(Target, Option<bool>), i64> = BTreeMap::new();
        for labels in self.live.values().filter_map(|live| live.active) {
            *active.entry(labels).or_default() += 1;
        }
        for ((target, expected), count) in active {
            samples.push(Fixed {
                metric: Metric::SshSessionsActive,
                labels: vec![Text::Static(target.name()), Text::Static(word(expected))],
                value: Value::Gauge(count),
            });
        }
        for ((finding, severity), count) in &self.findings {
            samples.push(Fixed {
                metric: Metric::Findings,
                labels: vec![Text::Static(finding.name()), Text::Static(severity.name())],
                value: Value::Counter(*count),
            });
        }
    }
}

fn cookies(session: &Session) -> Option<Cookies> {
    let (client, server) = session.cookies()?;
    Some((client, server, session.first_sequences()))
}

/// A label value; `unknown` where nothing is declared.
const fn word(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "true",
        Some(false) => "false",
        None => "unknown",
    }
}
