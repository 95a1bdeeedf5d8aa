//! SSH connections: segments become sessions, sessions become records, metrics and findings.

pub(super) mod connection;
pub(super) mod connections;
mod existing;
mod findings;
mod owner;
mod report;
mod resumed;
mod translated;

pub(super) use connections::{Connections, Id};
pub use existing::Existing;
pub(super) use findings::severity;
pub use owner::{Owner, OwnerAnswer, OwnerQuestion, Wanted};

use std::sync::Arc;

use monitor_common::{
    abi::{RX, TX, flag},
    classify::App,
};

use super::books::Books;
use crate::{
    event::{FindingKind, Severity, SshRecord, State},
    flow::{FlowKey, SegmentEvent, Table, Tracked},
    judge::Suspicion,
    ssh::{AuthOutcome, Class, Segment, Side},
    time::ClockMap,
};

use connection::Connection;

/// How long a connection may stay unidentified before it is told of anyway.
const PATIENCE_NS: u64 = 1_000_000_000;

impl Books {
    /// Takes in a segment; `tracked` is its connection so far, if the flow table has it.
    pub(super) fn ssh_segment(
        &mut self,
        event: &SegmentEvent,
        clock: &ClockMap,
        tracked: Option<&Tracked>,
    ) {
        let id = Id {
            key: event.key,
            generation: event.generation,
        };
        let seen = clock.wall(event.time_ns);
        let Some(connection) = self.ssh.enter(id, event.time_ns, || {
            Connection::new(event.flags, &event.key, event.time_ns, seen)
        }) else {
            return;
        };
        connection.last = seen;
        let side = if event.sent == connection.local_is_client {
            Side::Client
        } else {
            Side::Server
        };
        connection.saw(side, event);
        let session = &mut connection.session;
        let prefix = u32::try_from(event.prefix.len()).unwrap_or(0);
        let flags = event.flags[if event.sent { TX } else { RX }];
        // Only of who opened it the start is certain: a second SYN of its own would be another
        // connection, while of SYN-ACKs the last one counts, whether or not it was taken.
        if flags & (flag::OPENS | flag::ACCEPTS) == flag::OPENS {
            session.begins_at(side, event.prefix_end.wrapping_sub(prefix));
        }
        if !event.prefix.is_empty() {
            session.segment(&Segment {
                side,
                sequence: event.prefix_end.wrapping_sub(prefix),
                length: prefix,
                is_pushed: false,
                time_ns: event.time_ns,
                bytes: &event.prefix,
            });
        }
        session.segment(&Segment {
            side,
            sequence: event.sequence,
            length: event.length,
            is_pushed: event.is_pushed,
            time_ns: event.time_ns,
            bytes: &event.bytes,
        });
        self.ssh.weigh(id);
        let Some(connection) = self.ssh.live.get_mut(&id) else {
            return;
        };
        // The kernel program looks at the first bytes only: a banner may follow other lines.
        let is_marked = event.app == App::Ssh || connection.is_banner_late(&event.key);
        let is_new = is_marked && !connection.is_marked;
        connection.is_marked |= is_marked;
        if is_new {
            self.ssh.marked(id);
            self.owner_marked(id, event.time_ns);
            self.ssh_ask_translation(id, tracked);
        }
        if is_marked {
            self.owner_suspected(id, event.time_ns);
        }
        self.ssh_progress(id, tracked);
    }

    /// Tells what is known now and was not before.
    fn ssh_progress(&mut self, id: Id, tracked: Option<&Tracked>) {
        let Some(connection) = self.ssh.live.get(&id) else {
            return;
        };
        if !connection.is_marked {
            return;
        }
        if !connection.is_told
            && connection.session.is_identified()
            && !self.translations.is_asked(&id.key, id.generation)
        {
            self.ssh_tell(id, tracked);
        }
        if self.ssh.live.get(&id).is_some_and(|connection| {
            let class = connection.session.class();
            connection.is_shown() && class == Some(Class::Ssh) && connection.judged != class
        }) {
            self.ssh_known_late(id, tracked);
        }
        let Some(connection) = self.ssh.live.get_mut(&id) else {
            return;
        };
        if connection.is_told
            && !connection.is_in
            && connection.outcome(false).outcome == AuthOutcome::Success
        {
            connection.is_in = true;
            self.ssh_logged_in(id, tracked);
        }
    }

    /// Tells of a connection for the first time, unless it is one that another interface showed.
    fn ssh_tell(&mut self, id: Id, tracked: Option<&Tracked>) {
        let is_shadow = self.ssh.is_shadow(id);
        let Some(connection) = self.ssh.live.get_mut(&id) else {
            return;
        };
        connection.is_told = true;
        connection.is_shadow = is_shadow;
        if is_shadow {
            return;
        }
        let Some(record) = self.ssh_record(id, tracked, State::Open) else {
            return;
        };
        self.ssh_judge(id, &record);
        self.push_ssh(id, record);
    }

    /// One end took longer than was waited for to say that it speaks SSH.
    fn ssh_known_late(&mut self, id: Id, tracked: Option<&Tracked>) {
        if let Some(record) = self.ssh_record(id, tracked, State::Open) {
            self.ssh_judge(id, &record);
            self.push_ssh(id, record);
        }
    }

    fn ssh_judge(&mut self, id: Id, record: &SshRecord) {
        self.ssh.opened(id, record);
        // Who is who is a guess: nothing is judged by that.
        if self.ssh.live.get(&id).is_some_and(|live| !live.is_placed()) {
            return;
        }
        let before = match self.ssh.live.get_mut(&id) {
            Some(connection) => {
                let class = connection.session.class();
                std::mem::replace(&mut connection.judged, class)
            }
            None => None,
        };
        let finding = self.judge_opened(record, before);
        self.ssh_note(id, finding);
    }

    /// Remembers the gravest finding on a connection.
    fn ssh_note(&mut self, id: Id, finding: Option<FindingKind>) {
        if let Some(connection) = self.ssh.live.get_mut(&id) {
            connection.finding = connection.finding.max(finding);
        }
    }

    fn ssh_logged_in(&mut self, id: Id, tracked: Option<&Tracked>) {
        let Some(record) = self.ssh_record(id, tracked, State::Open) else {
            return;
        };
        if self.ssh.live.get(&id).is_some_and(|live| live.is_shadow) {
            return;
        }
        let attempt = self.ssh.attempt(id, &record);
        let found = attempt.and_then(|attempt| self.ssh.watch.succeeded(&attempt));
        self.report_suspicions(found.into_iter().collect(), &record, id);
        if self.ssh.live.get(&id).is_some_and(|live| live.is_placed()) {
            self.judge_login(&record);
        }
        self.push_ssh(id, record);
    }

    /// Time passes: what waits for too long is told of.
    pub(super) fn ssh_tick(&mut self, clock: &ClockMap, table: &Table) {
        self.owner_tick(clock, table);
        self.ssh.ended.tick(clock.monotonic_now_ns);
        self.ssh.settle_old(clock.monotonic_now_ns);
        for id in self.ssh.take_waiting(clock.monotonic_now_ns, PATIENCE_NS) {
            self.ssh_tell(id, None);
            self.ssh_progress(id, None);
        }
    }

    /// The flow of a connection is over.
    pub(super) fn ssh_closed(&mut self, key: &FlowKey, flow: &Tracked) {
        let id = Id {
            key: *key,
            generation: flow.generation,
        };
        let is_ssh = flow.app() == App::Ssh;
        match self.ssh.live.get_mut(&id) {
            Some(connection) if connection.is_marked || is_ssh => {
                connection.is_marked = true;
                connection.last = flow.end();
            }
            // Text that was no SSH, or no SSH at all.
            Some(_) => {
                self.ssh.remove(id);
                return;
            }
            None if is_ssh => {
                // Its segments were lost, or there was no room: counted all the same.
                let mut connection =
                    Connection::new(flow.flags, key, flow.first_seen_ns, flow.start);
                connection.is_marked = true;
                connection.last = flow.end();
                self.ssh.live.insert(id, Box::new(connection));
            }
            None => return,
        }
        if self.ssh.live.get(&id).is_some_and(|live| !live.is_told) {
            self.ssh_tell(id, Some(flow));
        }
        if let Some(connection) = self.ssh.live.get_mut(&id) {
            connection.owner.is_awaited = false;
        }
        self.ssh_progress(id, Some(flow));
        if let Some(record) = self.ssh_record(id, Some(flow), State::Closed)
            && self.ssh.live.get(&id).is_some_and(|live| !live.is_shadow)
        {
            self.ssh.count(&record);
            let mut found = Vec::new();
            if let Some(attempt) = self.ssh.attempt(id, &record) {
                // Failures of others may have been told of only since the login.
                if record.authentication == AuthOutcome::Success
                    && record.finding != Some(FindingKind::SshSuccessAfterFailures)
                {
                    found.extend(self.ssh.watch.succeeded(&attempt));
                }
                found.extend(self.ssh.watch.ended(&attempt));
            }
            self.report_suspicions(found, &record, id);
            self.judge_refused(&record);
            self.push_ssh(id, record);
        }
        self.ssh_ended(id, flow);
    }

    /// Records of the connections that are open.
    pub(super) fn ssh_open(&self, table: &Table) -> Vec<SshRecord> {
        let shown = self.ssh.live.iter().filter(|(_, live)| live.is_shown());
        shown
            .filter_map(|(id, _)| {
                let tracked = table.get(&id.key, id.generation);
                self.ssh_record(*id, tracked, State::Open)
            })
            .collect()
    }

    fn report_suspicions(&mut self, found: Vec<Suspicion>, record: &SshRecord, id: Id) {
        for suspicion in found {
            // What is true of anyone is not what a connection is known for.
            if suspicion.severity > Severity::Low {
                self.ssh_note(id, Some(suspicion.kind));
            }
            self.report_suspicion(suspicion, record);
        }
    }

    /// Sends a record to whoever wants it, and keeps it for later questions.
    fn push_ssh(&mut self, id: Id, mut record: SshRecord) {
        record.finding = self.ssh.live.get(&id).and_then(|live| live.finding);
        if let Some(records) = &mut self.records {
            records.push(record.clone().into());
        }
        if record.state == State::Closed {
            self.ssh.keep(Arc::new(record));
        }
    }
}
