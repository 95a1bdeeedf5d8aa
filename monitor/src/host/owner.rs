//! Whose a TCP connection is: the process that holds it, its container, and the user who logged in.
//!
//! sock_diag tells the socket of a connection, `/proc` the processes that hold the socket, and
//! [the rules](super::login) which of them counts. Everything is synchronous and bounded: a call
//! takes some milliseconds where all processes have to be looked at, and ends after some 40
//! whatever the host is like; what there was no time for is looked at the next time. A thread of its own should make the calls.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};

use super::clock::started_ns;
use super::login::{Evidence, SERVER_USER, Verdict};
use super::names::{self, Users};
use super::namespaces::Namespaces;
use super::process::{Facts, ProcessDir, Program};
use super::scan::{Holder, Identity, Scanner};
use super::sock_diag::{Asker, EnterError, Found};
use super::{CAP_SYS_ADMIN, has_capability, missing_for_processes};

pub use super::scan::Counters;
pub use super::sock_diag::QueryError;

/// Established connections of the node that are looked through for existing ones.
const MOST_ESTABLISHED: usize = 65_536;
/// Existing SSH connections that are told.
const MOST_EXISTING: usize = 4_096;
/// The number of the kernel's first namespace for processes (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// Both ends of a TCP connection, as the host sees them that has the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
}

/// Whose a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Inode of the socket. Zero as long as no process has accepted the connection, and after it
    /// was closed: ask again or give up.
    pub inode: u64,
    /// User of the socket, which is the one who made it: root for a server that starts as root.
    pub uid: u32,
    /// There is no such connection in this namespace, but a listener on its port. That does not
    /// mean that the connection ends here: a listener on all addresses matches those of pods too.
    pub listener: bool,
    /// The process that stands for the connection; `None` if none holds it or it was not found in
    /// time.
    pub process: Option<Process>,
    /// The user: of an SSH server who logged in, and of anything else who runs it.
    pub user: Option<User>,
    /// Whether someone has logged in. `Some(true)` only by the login session of a process or by
    /// its change of user; `None` if unknown, as always where no SSH server holds the connection.
    pub authenticated: Option<bool>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name, escaped; whoever runs it may choose any.
    pub name: String,
    /// The path of its executable in its own root directory, escaped.
    pub executable: Option<String>,
    /// Id of its container.
    pub container: Option<String>,
    /// Path of its control group, escaped.
    pub cgroup: Option<String>,
    /// When it started, in clock ticks since the boot; with the number this identifies it.
    pub start_time_ticks: u64,
}

// === impl Process ===

impl Process {
    /// `CLOCK_MONOTONIC` in nanoseconds when it started, to a hundredth of a second.
    pub fn started_ns(&self) -> u64 {
        started_ns(self.start_time_ticks)
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The number, as the process's own user namespace has it.
    pub uid: u32,
    /// The name in the `/etc/passwd` of the process, escaped.
    pub name: Option<String>,
    /// The login session that the audit system numbers, which all descendants carry.
    pub session: Option<u32>,
}

/// Owners cannot be found here.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// Privileges are missing.
    #[error(
        "processes and users of SSH connections are not told: run as root, or grant {}",
        .0.join(" and ")
    )]
    Capabilities(Vec<&'static str>),
    /// No `/proc`.
    #[error("processes and users of SSH connections are not told: cannot open /proc: {0}")]
    Proc(#[source] io::Error),
    /// The kernel does not answer.
    #[error(
        "processes and users of SSH connections are not told: {0}; is the kernel's module tcp_diag \
         there?"
    )]
    SockDiag(#[source] QueryError),
}

/// An owner cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The kernel cannot be asked.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The other namespace cannot be entered.
    #[error("cannot enter the network namespace (this needs CAP_SYS_ADMIN): {0}")]
    Namespace(#[source] io::Error),
    /// No thread to enter it.
    #[error("cannot start a thread for a network namespace: {0}")]
    Thread(#[source] io::Error),
}

/// An SSH connection that was there before it was watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Both ends.
    pub tuple: Tuple,
    /// Whether a server holds it, rather than a client.
    pub is_server: bool,
    /// Whose it is.
    pub owner: Owner,
}

/// Finds owners.
pub struct Finder {
    /// Whether it may look into the network namespaces of pods.
    enters: bool,
    asker: Asker,
    scanner: Scanner,
    names: names::Reader,
    namespaces: Namespaces,
}

/// Opens a network namespace, such as `/proc/<pid>/ns/net` or `/run/netns/<name>`.
pub fn open_namespace(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(open(path, flags, Mode::empty())?)
}

/// Whether this is the kernel's first namespace for processes, so that `/proc` shows all of the host. A pod
/// is in it with `hostPID: true`, unless its node is a container itself: nothing tells such a node's own
/// namespace from another container's.
pub fn sees_all_processes() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link == *FIRST_PID_NAMESPACE)
}

/// Whether connections of pods can be looked up, which are in network namespaces of their own.
pub fn sees_pods() -> bool {
    has_capability(CAP_SYS_ADMIN)
}

/// What is told of processes and users of SSH connections, for people.
pub fn words(missing: Option<&Missing>) -> String {
    match missing {
        Some(missing) => missing.to_string(),
        None if !sees_all_processes() => {
            "told for processes of this PID namespace, which is not the kernel's first: a pod sees all of \
             the node with hostPID: true; where the node itself is a container, these are all"
                .to_owned()
        }
        None if sees_pods() => "told for SSH connections of this node and its pods".to_owned(),
        None => "told for SSH connections of this node; not of its pods, whose network namespaces \
                 only CAP_SYS_ADMIN may enter"
            .to_owned(),
    }
}

// === impl FindError ===

impl From<EnterError> for FindError {
    fn from(error: EnterError) -> Self {
        match error {
            EnterError::Thread(source) => Self::Thread(source),
            EnterError::Enter(source) => Self::Namespace(source),
            EnterError::Query(error) => Self::Query(error),
        }
    }
}

// === impl Finder ===

impl Finder {
    /// Asks about the network namespace of the calling thread.
    pub fn new() -> Result<Self, Missing> {
        let missing = missing_for_processes();
        if !missing.is_empty() {
            return Err(Missing::Capabilities(missing));
        }
        let mut asker = Asker::new().map_err(Missing::SockDiag)?;
        asker.check().map_err(Missing::SockDiag)?;
        Ok(Self {
            enters: sees_pods(),
            asker,
            scanner: Scanner::new(Path::new("/proc")).map_err(Missing::Proc)?,
            names: names::Reader::default(),
            namespaces: Namespaces::default(),
        })
    }

    /// The owner of a connection; `None` if there is no such socket, as for forwarded ones.
    pub fn find(&mut self, tuple: &Tuple) -> Result<Option<Owner>, FindError> {
        let found = self.asker.ask(tuple.local, tuple.remote)?;
        Ok(found.map(|found| self.owner(found)))
    }

    /// The owners of connections, at the price of one look at all processes.
    pub fn find_all(&mut self, tuples: &[Tuple]) -> Vec<Result<Option<Owner>, FindError>> {
        let ask = |tuple: &Tuple| self.asker.ask(tuple.local, tuple.remote);
        let answers: Vec<_> = tuples.iter().map(ask).collect();
        let inodes = answers.iter().flatten().flatten().map(|found| found.inode);
        self.scanner.prepare(inodes.filter(|inode| *inode != 0));
        let owner = |answer: Result<Option<Found>, _>| Ok(answer?.map(|found| self.owner(found)));
        answers.into_iter().map(owner).collect()
    }

    /// The owner of a connection in another network namespace. The calling thread stays where it
    /// is, and nothing is left that would keep the namespace alive.
    pub fn find_in(
        &mut self,
        namespace: BorrowedFd<'_>,
        tuple: &Tuple,
    ) -> Result<Option<Owner>, FindError> {
        let mut asker = Asker::in_namespace(namespace)?;
        let found = asker.ask(tuple.local, tuple.remote)?;
        Ok(found.map(|found| self.owner(found)))
    }

    /// The owner of a connection in whichever other network namespace: that of a pod. None without the
    /// privilege to look.
    pub fn find_in_pods(&mut self, tuple: &Tuple) -> Result<Option<Owner>, FindError> {
        if !self.enters {
            return Ok(None);
        }
        let deadline = Instant::now() + self.scanner.budget;
        let proc = &self.scanner.proc;
        let found = self
            .namespaces
            .find(proc, tuple.local, tuple.remote, deadline)?;
        Ok(found.map(|found| self.owner(found)))
    }

    /// SSH connections that are there now: those that programs hold that are named as if they spoke
    /// SSH. Such a program may hold others, too, as ports that it forwards: a connection is its own
    /// where more than one of the server's processes hold it, or it has no other.
    pub fn existing(&mut self) -> Result<Vec<Existing>, FindError> {
        let sockets = Asker::new()?.established(MOST_ESTABLISHED)?;
        let wanted = sockets.iter().map(|held| held.inode).collect();
        let found = self.scanner.named(&wanted);
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for holder in found.values().flatten() {
            *counts.entry(holder.process.pid).or_default() += 1;
        }
        let mut all = Vec::new();
        for held in &sockets {
            let Some(holders) = found.get(&held.inode) else {
                continue;
            };
            let is_only = |holder: &Holder| counts.get(&holder.process.pid) == Some(&1);
            if all.len() >= MOST_EXISTING || holders.len() < 2 && !holders.iter().all(is_only) {
                continue;
            }
            let is_server = holders.iter().any(|holder| {
                let process = self.scanner.open(holder.process);
                let facts = process.and_then(|process| process.facts());
                facts.is_some_and(|facts| facts.program.is_server())
            });
            let socket = Found {
                inode: held.inode,
                uid: held.uid,
                listener: false,
            };
            all.push(Existing {
                tuple: Tuple {
                    local: held.local,
                    remote: held.remote,
                },
                is_server,
                owner: self.describe(socket, holders),
            });
        }
        Ok(all)
    }

    /// Looks again at the processes that hold a connection: someone may have logged in. `None` if
    /// none holds it any more.
    pub fn refresh(&mut self, owner: &Owner) -> Option<Owner> {
        let inode = u32::try_from(owner.inode)
            .ok()
            .filter(|inode| *inode != 0)?;
        let holders = self.scanner.again(inode);
        let found = Found {
            inode,
            uid: owner.uid,
            listener: owner.listener,
        };
        let owner = self.describe(found, &holders);
        owner.process.is_some().then_some(owner)
    }

    /// How often all processes had to be looked at.
    pub fn counters(&self) -> Counters {
        self.scanner.counters
    }

    fn owner(&mut self, found: Found) -> Owner {
        let holders = if found.inode == 0 {
            Vec::new()
        } else {
            self.scanner.holders(found.inode)
        };
        self.describe(found, &holders)
    }

    fn describe(&mut self, found: Found, holders: &[Holder]) -> Owner {
        let mut owner = Owner {
            inode: found.inode.into(),
            uid: found.uid,
            listener: found.listener,
            process: None,
            user: None,
            authenticated: None,
        };
        let mut people: Vec<(Holder, ProcessDir, Facts)> = Vec::new();
        for holder in holders {
            let directory = self.scanner.open(holder.process);
            let Some((directory, facts)) =
                directory.and_then(|directory| directory.facts().map(|facts| (directory, facts)))
            else {
                continue;
            };
            people.push((*holder, directory, facts));
        }
        let relatives = self.relatives(&people);
        let is_server = people.iter().any(|(.., facts)| facts.program.is_server());
        let users = if is_server { self.users(&people) } else { None };
        // For a moment after accepting it, a listener holds a connection too.
        people.retain(|(holder, directory, _)| directory.holds(holder.descriptor, found.inode));
        let facts: Vec<Facts> = people.iter().map(|(.., facts)| facts.clone()).collect();
        let verdict = Evidence {
            holders: &facts,
            relatives: &relatives,
            server_user: users.as_ref().and_then(|users| users.uid(SERVER_USER)),
        }
        .judge();
        let Some(Verdict {
            pid,
            authenticated,
            user,
        }) = verdict
        else {
            return owner;
        };
        let Some((holder, directory, _)) =
            people.iter().find(|(_, directory, _)| directory.pid == pid)
        else {
            return owner;
        };
        owner.process = describe_process(directory, holder.process.start_time_ticks);
        // The server that listens may have been started by someone who had logged in.
        if found.listener && is_server {
            return owner;
        }
        self.learn(&facts, &relatives);
        owner.authenticated = authenticated;
        owner.user = user.map(|(uid, session)| {
            let users = users.or_else(|| self.names.read(directory.root()?));
            User {
                uid,
                name: users.and_then(|users| users.name(uid)),
                session,
            }
        });
        owner
    }

    /// Parents of holders, and for Dropbear their children.
    fn relatives(&self, people: &[(Holder, ProcessDir, Facts)]) -> Vec<Facts> {
        let mut pids: Vec<u32> = Vec::new();
        for (_, directory, facts) in people {
            if !facts.program.is_server() {
                continue;
            }
            pids.push(facts.parent);
            if facts.program == Program::Dropbear {
                pids.extend(directory.children().unwrap_or_default().iter().take(64));
            }
        }
        pids.sort_unstable();
        pids.dedup();
        pids.retain(|pid| people.iter().all(|(_, directory, _)| directory.pid != *pid));
        pids.iter()
            .filter_map(|pid| ProcessDir::open(&self.scanner.proc, *pid).ok()?.facts())
            .collect()
    }

    /// The users of the part of the server that runs as root: the others may see another root.
    fn users(&self, people: &[(Holder, ProcessDir, Facts)]) -> Option<Users> {
        let (_, directory, _) = people.iter().min_by_key(|(.., facts)| {
            let is_root = facts.uid == 0 && facts.program.is_server();
            (!is_root, facts.start_time_ticks)
        })?;
        self.names.read(directory.root()?)
    }

    /// Connections of a listener are looked for among its children from now on, those of another
    /// program at itself.
    fn learn(&mut self, holders: &[Facts], relatives: &[Facts]) {
        let identity = |facts: &Facts| Identity {
            pid: facts.pid,
            start_time_ticks: facts.start_time_ticks,
        };
        let mut others = holders.iter();
        if let Some(other) = others.find(|holder| !holder.program.is_server()) {
            self.scanner.add_other(identity(other));
        }
        for parent in relatives {
            let has_child = holders
                .iter()
                .any(|holder| holder.parent == parent.pid && holder.program.is_server());
            if has_child && parent.program.is_server() {
                self.scanner.add_listener(identity(parent));
            }
        }
    }
}

fn describe_process(directory: &ProcessDir, start_time_ticks: u64) -> Option<Process> {
    let cgroup = directory.cgroup();
    Some(Process {
        pid: directory.pid,
        name: directory.name()?,
        executable: directory.executable(),
        container: cgroup.container,
        cgroup: cgroup.path,
        start_time_ticks,
    })
}

#[cfg(test)]
mod tests;
