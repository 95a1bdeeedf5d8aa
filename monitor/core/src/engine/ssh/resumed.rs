//! Connections that go on although they seemed to be over.
//!
//! A receiver ignores an RST but with the sequence number that it expects, and answers a SYN in the midst
//! of a connection with a challenge (RFC 5961 sections 3.2 and 4.2). What it expects the packet program
//! does not know, so such a segment ends the record; what passes later says no more that it is SSH.
//! So connections that did not end with a FIN of each end are remembered for a while, and told of once
//! more, as midstream, where their server goes on to send, or to take in what is sent, without having accepted
//! another one.

use std::collections::{HashMap, VecDeque};

use monitor_common::abi::{RX, TX, flag};

use super::{Connection, Id};
use crate::{
    engine::books::Books,
    event::{FindingKind, Protocol},
    flow::{FlowKey, Tracked},
    ssh::Session,
};

/// Connections that are remembered, the latest ones.
const ENDED: usize = 1_024;
/// How long they are, in nanoseconds: far longer than an end is given to log in (OpenSSH's
/// `LoginGraceTime`, two minutes).
const REMEMBERED_NS: u64 = 3_600_000_000_000;

/// Connections that may not be over.
#[derive(Debug, Default)]
pub(super) struct Ended {
    by_key: HashMap<FlowKey, Box<One>>,
    /// In the order in which they ended; may name some that are no longer there.
    order: VecDeque<(FlowKey, u64)>,
    /// What time it was when time last passed, nanoseconds.
    now_ns: u64,
}

#[derive(Debug)]
struct One {
    session: Session,
    local_is_client: bool,
    /// Its login was told, and is not told again.
    is_in: bool,
    finding: Option<FindingKind>,
    /// When it was told of as closed, nanoseconds.
    ended_ns: u64,
}

// === impl Ended ===

impl Ended {
    fn remember(&mut self, key: FlowKey, mut connection: Connection, seen_ns: u64) {
        let ended_ns = self.now_ns.max(seen_ns);
        connection.session.settle();
        self.order.push_back((key, ended_ns));
        let one = One {
            session: connection.session,
            local_is_client: connection.local_is_client,
            is_in: connection.is_in,
            finding: connection.finding,
            ended_ns,
        };
        self.by_key.insert(key, Box::new(one));
        while self.order.len() > ENDED {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, ended_ns)) = self.order.pop_front()
            && self
                .by_key
                .get(&key)
                .is_some_and(|one| one.ended_ns == ended_ns)
        {
            self.by_key.remove(&key);
        }
    }

    /// Forgets what ended long ago.
    pub(super) fn tick(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        while let Some((_, ended_ns)) = self.order.front()
            && now_ns.saturating_sub(*ended_ns) > REMEMBERED_NS
        {
            self.forget_oldest();
        }
    }
}

impl Books {
    /// A connection was told of as closed: it may go on where its ends did not both say so.
    pub(super) fn ssh_ended(&mut self, id: Id, flow: &Tracked) {
        let is_over = flow.flags[TX] & flow.flags[RX] & flag::FIN != 0;
        if let Some(connection) = self.ssh.remove(id)
            && !is_over
            && connection.is_shown()
            && connection.session.class().is_some()
        {
            self.ssh
                .ended
                .remember(id.key, *connection, flow.last_seen_ns);
        }
    }

    /// Packets of a flow were counted.
    pub(in crate::engine) fn ssh_goes_on(&mut self, key: &FlowKey, flow: &Tracked) {
        let ended = &mut self.ssh.ended;
        if ended.by_key.is_empty() || key.protocol() != Protocol::TCP {
            return;
        }
        let Some(one) = ended.by_key.get(key) else {
            return;
        };
        let (server, client) = if one.local_is_client {
            (RX, TX)
        } else {
            (TX, RX)
        };
        // Another connection between the same ports, if its server accepts it: a client may say so, too.
        if flow.flags[server] & flag::ACCEPTS != 0 {
            ended.by_key.remove(key);
            return;
        }
        // A server that knows of no connection resets it.
        let is_taken = flow.flags[client] & flag::DATA != 0
            && flow.flags[server] & (flag::ACK | flag::RST) == flag::ACK;
        if flow.flags[server] & flag::DATA == 0 && !is_taken {
            return;
        }
        let Some(one) = ended.by_key.remove(key) else {
            return;
        };
        let id = Id {
            key: *key,
            generation: flow.generation,
        };
        let entered = self.ssh.enter(id, flow.first_seen_ns, || {
            Connection::new([0; 2], key, flow.first_seen_ns, flow.start)
        });
        // One whose packets have told already.
        let Some(connection) = entered.filter(|connection| !connection.is_marked) else {
            return;
        };
        connection.session = one.session;
        connection.local_is_client = one.local_is_client;
        connection.is_in = one.is_in;
        connection.finding = one.finding;
        connection.is_midstream = true;
        connection.is_settled = true;
        connection.is_marked = true;
        self.ssh.weigh(id);
        self.owner_marked(id, flow.last_seen_ns);
        self.ssh_tell(id, Some(flow));
        self.ssh_progress(id, Some(flow));
    }
}
