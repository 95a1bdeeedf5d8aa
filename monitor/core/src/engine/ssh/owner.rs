//! Who holds a connection on this node: when to ask, and what an answer means.

use std::net::{IpAddr, SocketAddr};

use monitor_common::abi::{RX, TX, flag};

use super::{Connection, Id};
use crate::{
    engine::books::Books,
    event::{LocalEnd, ProcessRecord, State},
    flow::{Table, Tracked},
    time::ClockMap,
};

/// When to look after a connection said that it is SSH, and after what may be a login, in
/// nanoseconds: who has not logged in after two minutes is disconnected (OpenSSH's
/// `LoginGraceTime`).
const LOOKS_NS: [u64; 5] = [
    0,
    1_000_000_000,
    5_000_000_000,
    30_000_000_000,
    120_000_000_000,
];
/// How often what looks like a login has it asked anew: a client can have its server say what looks like one.
const SUSPICIONS: u8 = 5;
/// How long apart.
const AGAIN_NS: u64 = 5_000_000_000;
/// Flags of a connection that ends.
const ENDS: u16 = flag::FIN | flag::RST;
/// How long after what looks like a login the server's process has to be that of the user: the
/// server starts it a moment after it told the client.
const SETTLED_NS: u64 = 900_000_000;
/// How long after that a success by sizes is held for what the server's process says, where it does not.
const HELD_NS: u64 = 3_000_000_000;

/// Asks who holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerQuestion {
    /// Which connection.
    pub(super) id: Id,
    /// The end on this node.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// `CLOCK_MONOTONIC` in nanoseconds when the connection was first seen.
    pub began_ns: u64,
    /// The end is not the node's own, but that of one of its pods, if of anyone here.
    pub is_pod: bool,
    /// What may be there only in a moment, so that it is worth to look again.
    pub wanted: Wanted,
    /// Whoever has not logged in by then did not when it looked so.
    is_decisive: bool,
}

/// What an [`OwnerQuestion`] is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// What there is now.
    Present,
    /// A process: a server that has not accepted the connection yet has none.
    Process,
    /// A login: the process of the user is started a moment after the server has said yes.
    Login,
}

/// What this node knows of who holds a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user: of an SSH server who logged in, of a client who runs it.
    pub user: Option<String>,
    /// The process.
    pub process: Option<ProcessRecord>,
    /// Whether someone has logged in, by the state of the server's processes.
    pub authenticated: Option<bool>,
}

/// The answer to an [`OwnerQuestion`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerAnswer {
    /// What was asked.
    pub question: OwnerQuestion,
    /// What was found; `None` if nobody holds the connection, or nobody was found in time.
    pub owner: Option<Owner>,
}

/// What is known of a connection's owner so far, and when to look next.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others"
)]
pub(super) struct Attribution {
    pub(super) user: Option<String>,
    pub(super) process: Option<ProcessRecord>,
    /// A process of the server shows that someone has logged in.
    pub(super) is_authenticated: bool,
    /// The server's process on this node holds it.
    pub(super) is_served: bool,
    /// The server's processes show that nobody has, although it looked so.
    pub(super) is_refuted: bool,
    /// Which end is on this node.
    pub(super) end: Option<LocalEnd>,
    /// That end is not the node's own.
    is_pod: bool,
    /// That end and the other as its own namespace has them, where the interface shows others.
    elsewhere: Option<Box<[SocketAddr; 2]>>,
    /// Since when the looks are counted.
    since_ns: u64,
    /// Looks so far since then.
    looks: usize,
    /// When something that may be a login was last seen, of those that are asked about.
    suspected_ns: Option<u64>,
    /// How often it was.
    suspicions: u8,
    /// What its process says of what looks like a login is not known yet, and sizes are not told.
    pub(super) is_awaited: bool,
    /// It was looked at after a FIN or RST.
    is_ending: bool,
}

// === impl Attribution ===

impl Attribution {
    /// When to look next.
    fn due_ns(&self) -> Option<u64> {
        let wait = LOOKS_NS.get(self.looks)?;
        self.end.map(|_| self.since_ns.saturating_add(*wait))
    }

    fn restart(&mut self, now_ns: u64) {
        self.since_ns = now_ns;
        self.looks = 0;
    }

    /// It was there before it was watched: who holds it is known, and will not be asked.
    pub(super) fn existed(&mut self, is_server: bool, owner: Owner) {
        self.end = Some(if is_server {
            LocalEnd::Destination
        } else {
            LocalEnd::Source
        });
        self.learn(owner, false);
        self.is_served = is_server;
        self.looks = LOOKS_NS.len();
    }

    /// Whether it is the server that is on this node.
    fn is_of_server(&self) -> bool {
        self.end == Some(LocalEnd::Destination)
    }

    /// Takes over what was found; true if the user was not known before.
    fn learn(&mut self, found: Owner, is_decisive: bool) -> bool {
        // Who runs a server is not who logged in there.
        let is_user = !self.is_of_server() || found.authenticated == Some(true);
        let user = found.user.filter(|_| is_user);
        let is_news = user.is_some() && self.user.is_none();
        self.user = user.or(self.user.take());
        self.process = found.process.or(self.process.take());
        // What a server's process connects to itself, as for a forwarded port, is no login there.
        if self.is_of_server() {
            self.is_served |= found.authenticated.is_some();
            match found.authenticated {
                Some(true) => (self.is_authenticated, self.is_refuted) = (true, false),
                Some(false) if is_decisive && !self.is_authenticated => self.is_refuted = true,
                _ => {}
            }
        }
        is_news
    }
}

impl Connection {
    /// Both ends, the one on this node first.
    fn tuple(&self, id: Id) -> Option<(SocketAddr, SocketAddr)> {
        if let (Some(_), Some([local, remote])) = (self.owner.end, self.owner.elsewhere.as_deref())
        {
            return Some((*local, *remote));
        }
        let key = &id.key;
        let local = SocketAddr::new(key.local(), key.local_port());
        let remote = SocketAddr::new(key.remote(), key.remote_port());
        let is_local = (self.owner.end? == LocalEnd::Source) == self.local_is_client;
        Some(if is_local {
            (local, remote)
        } else {
            (remote, local)
        })
    }

    /// The next question, if it is time.
    fn question(&mut self, id: Id, now_ns: u64) -> Option<OwnerQuestion> {
        let due_ns = self.owner.due_ns()?;
        if now_ns < due_ns {
            return None;
        }
        let wanted = match (self.owner.looks, self.owner.suspected_ns) {
            (0, None) => Wanted::Process,
            (0, Some(_)) => Wanted::Login,
            _ => Wanted::Present,
        };
        while self.owner.due_ns().is_some_and(|due_ns| due_ns <= now_ns) {
            self.owner.looks += 1;
        }
        self.ask(id, now_ns, wanted)
    }

    fn ask(&self, id: Id, now_ns: u64, wanted: Wanted) -> Option<OwnerQuestion> {
        let (local, remote) = self.tuple(id)?;
        let since = self.owner.suspected_ns.map(|at| now_ns.saturating_sub(at));
        Some(OwnerQuestion {
            id,
            local,
            remote,
            began_ns: self.first_ns,
            is_pod: self.owner.is_pod,
            wanted,
            is_decisive: since.is_some_and(|since| since >= SETTLED_NS),
        })
    }
}

impl Books {
    /// A connection said that it is SSH: asks who on this node holds it.
    pub(super) fn owner_marked(&mut self, id: Id, now_ns: u64) {
        if !self.ssh.asks_owners || !self.names.knows_node() {
            return;
        }
        let is_here = |ip: IpAddr| self.names.is_node(ip);
        let is_pod = !is_here(id.key.local()) && !is_here(id.key.remote());
        // The local end of a pod's interface is the pod's, of an uplink one of the node's.
        let is_local = is_pod || is_here(id.key.local());
        if let Some(connection) = self.ssh.live.get_mut(&id) {
            connection.owner.end = Some(if is_local == connection.local_is_client {
                LocalEnd::Source
            } else {
                LocalEnd::Destination
            });
            connection.owner.is_pod = is_pod;
            connection.owner.restart(now_ns);
            self.ssh.questions.extend(connection.question(id, now_ns));
        }
    }

    /// The end on this node is that of a pod with these ends: asks anew.
    pub(super) fn owner_elsewhere(&mut self, id: Id, ends: [SocketAddr; 2]) {
        if let Some(connection) = self.ssh.live.get_mut(&id)
            && connection.owner.end.is_some()
        {
            connection.owner.is_pod = true;
            connection.owner.elsewhere = Some(ends.into());
            let since_ns = connection.owner.since_ns;
            connection.owner.restart(since_ns);
            self.ssh.questions.extend(connection.question(id, since_ns));
        }
    }

    /// Asks once more where the sizes look like a login.
    pub(super) fn owner_suspected(&mut self, id: Id, now_ns: u64) {
        let Some(connection) = self.ssh.live.get_mut(&id) else {
            return;
        };
        let owner = &connection.owner;
        let is_recent = |at: u64| now_ns.saturating_sub(at) < AGAIN_NS;
        if owner.suspicions >= SUSPICIONS
            || owner.suspected_ns.is_some_and(is_recent)
            || connection.is_in
            || owner.is_authenticated
            || !owner.is_of_server()
            || !connection.session.may_be_in()
        {
            return;
        }
        connection.owner.suspicions += 1;
        connection.owner.suspected_ns = Some(now_ns);
        connection.owner.is_awaited = true;
        connection.owner.restart(now_ns);
        self.ssh.questions.extend(connection.question(id, now_ns));
    }

    /// Time passes: asks what is due, and once for each connection that ends.
    pub(super) fn owner_tick(&mut self, clock: &ClockMap, table: &Table) {
        if !self.ssh.asks_owners {
            return;
        }
        let now_ns = clock.monotonic_now_ns;
        let mut unheard = Vec::new();
        for (id, connection) in &mut self.ssh.live {
            let suspected_ns = connection.owner.suspected_ns.unwrap_or(now_ns);
            if connection.owner.is_awaited && now_ns.saturating_sub(suspected_ns) >= HELD_NS {
                connection.owner.is_awaited = false;
                unheard.push(*id);
            }
            if connection.owner.end.is_none() || connection.is_shadow {
                continue;
            }
            let flow = table.get(&id.key, id.generation);
            let is_ending = !connection.owner.is_ending
                && flow.is_some_and(|flow| (flow.flags[TX] | flow.flags[RX]) & ENDS != 0);
            connection.owner.is_ending |= is_ending;
            let question = if is_ending {
                connection.ask(*id, now_ns, Wanted::Present)
            } else {
                connection.question(*id, now_ns)
            };
            self.ssh.questions.extend(question);
        }
        for id in unheard {
            self.ssh_progress(id, table.get(&id.key, id.generation));
        }
    }

    /// Takes in an answer.
    pub(in crate::engine) fn owner_found(&mut self, answer: OwnerAnswer, table: &Table) {
        let OwnerAnswer { question, owner } = answer;
        let id = question.id;
        let Some(connection) = self.ssh.live.get_mut(&id) else {
            return;
        };
        connection.owner.is_awaited &= !question.is_decisive;
        let owner = owner.unwrap_or_default();
        let was_placed = connection.is_placed();
        let is_news = connection.owner.learn(owner, question.is_decisive);
        let is_placed = connection.is_placed() && !was_placed && connection.is_shown();
        let was_in = connection.is_in;
        let tracked = table.get(&id.key, id.generation);
        // It was not judged as long as it was not known who is the client.
        if is_placed && let Some(record) = self.ssh_record(id, tracked, State::Open) {
            self.ssh_judge(id, &record);
        }
        self.ssh_progress(id, tracked);
        // The login was told before its user was known.
        if is_news && was_in {
            self.owner_tell(id, tracked);
        }
    }

    fn owner_tell(&mut self, id: Id, tracked: Option<&Tracked>) {
        if self.ssh.live.get(&id).is_some_and(|live| live.is_shown())
            && let Some(record) = self.ssh_record(id, tracked, State::Open)
        {
            self.push_ssh(id, record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(authenticated: Option<bool>) -> Owner {
        Owner {
            authenticated,
            ..Owner::default()
        }
    }

    #[test]
    fn a_login_is_refuted_only_after_it_had_time_to_show() {
        let mut server = Attribution {
            end: Some(LocalEnd::Destination),
            ..Attribution::default()
        };
        server.learn(found(Some(false)), false);
        assert!(!server.is_refuted);
        server.learn(found(None), true);
        assert!(!server.is_refuted);
        server.learn(found(Some(false)), true);
        assert!(server.is_refuted);
        // A login after all, which stays one.
        server.learn(found(Some(true)), false);
        assert!(server.is_authenticated && !server.is_refuted);
        server.learn(found(Some(false)), true);
        assert!(server.is_authenticated && !server.is_refuted);
    }

    #[test]
    fn the_user_is_news_once() {
        let mut client = Attribution::default();
        let alice = Owner {
            user: Some("alice".to_owned()),
            ..found(Some(true))
        };
        assert!(client.learn(alice.clone(), false));
        assert!(!client.learn(alice, false));
        assert!(!client.learn(found(None), false));
        assert_eq!(client.user.as_deref(), Some("alice"));
        assert!(!client.is_authenticated, "it is not known whose end it is");
    }
}
