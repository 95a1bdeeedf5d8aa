//! Which processes hold a socket.
//!
//! The kernel does not tell; every descriptor of every process has to be looked at. Programs that
//! speak SSH are looked at first, and what was found is remembered: later only those processes and
//! their children are looked at again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, openat};

use super::names::place;
use super::process::{ProcessDir, each_process, search};

/// Names of programs that are looked at first.
const FIRST: [&[u8]; 7] = [
    b"sshd",
    b"sshd-session",
    b"sshd-auth",
    b"dropbear",
    b"dropbearmulti",
    b"ssh",
    b"dbclient",
];
/// How long looking for sockets may take.
pub(super) const BUDGET: Duration = Duration::from_millis(40);
/// Sockets that are remembered.
const MOST_SOCKETS: usize = 4096;
/// How long it is remembered that nobody holds a socket.
const NOBODY_FOR: Duration = Duration::from_millis(300);
/// Processes that are remembered per socket.
const MOST_HOLDERS: usize = 64;
/// Children that are looked at.
const MOST_CHILDREN: usize = 1024;
/// Other processes that are looked at first.
const MOST_REGULARS: usize = 8;
/// Listeners that are looked at first, with their children.
const MOST_LISTENERS: usize = 32;

/// How often what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// All processes were looked at.
    pub scans: u64,
    /// There was not enough time to look at all of them.
    pub scans_given_up: u64,
    /// Known processes and their children were enough.
    pub scans_avoided: u64,
}

/// A process, by its number and the time of its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) pid: u32,
    pub(super) start_time_ticks: u64,
}

/// A process that holds a socket, and as which descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) process: Identity,
    pub(super) descriptor: u32,
}

/// Finds and remembers.
pub(super) struct Scanner {
    pub(super) proc: OwnedFd,
    pub(super) counters: Counters,
    sockets: HashMap<u32, Known>,
    /// Sockets in the order in which they were first asked for.
    order: VecDeque<u32>,
    listeners: VecDeque<Identity>,
    regulars: VecDeque<Identity>,
    /// Where the last look at all processes ended for lack of time.
    left: Option<Left>,
    /// Processes named otherwise when they were last looked at. Only the order depends on it.
    others: HashSet<u32>,
    /// [`BUDGET`]; tests of what is found, not of how long it takes, have more.
    pub(super) budget: Duration,
    /// [`NOBODY_FOR`], likewise.
    pub(super) nobody_for: Duration,
}

/// Sockets that are looked for.
pub(super) type Wanted = HashSet<u32>;
/// Holders by socket; none has no holder.
pub(super) type Found = HashMap<u32, Vec<Holder>>;

/// Where a look at all processes ended.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// The first that was not looked at.
    pid: u32,
    /// The highest number then.
    newest: u32,
}

#[derive(Debug)]
struct Known {
    holders: Vec<Holder>,
    at: Instant,
}

// === impl Known ===

impl Known {
    /// Whether nobody held it a short time ago.
    fn is_nobodys(&self, nobody_for: Duration) -> bool {
        self.holders.is_empty() && Instant::now() < self.at + nobody_for
    }
}

// === impl Scanner ===

impl Scanner {
    /// For a `/proc`.
    pub(super) fn new(proc: &Path) -> io::Result<Self> {
        Ok(Self {
            proc: place(proc)?,
            counters: Counters::default(),
            sockets: HashMap::new(),
            order: VecDeque::new(),
            listeners: VecDeque::new(),
            regulars: VecDeque::new(),
            left: None,
            others: HashSet::new(),
            budget: BUDGET,
            nobody_for: NOBODY_FOR,
        })
    }

    /// The processes that hold a socket; all that were found in time.
    pub(super) fn holders(&mut self, inode: u32) -> Vec<Holder> {
        let deadline = Instant::now() + self.budget;
        if let Some(known) = self.known(inode, deadline) {
            return known;
        }
        let wanted = [inode].into();
        let mut found = self.below_listeners(&wanted, deadline);
        // A server may have accepted the connection since nobody held it.
        let nobody_for = self.nobody_for;
        let is_nobodys = |known: &Known| known.is_nobodys(nobody_for);
        let is_nobodys = self.sockets.get(&inode).is_some_and(is_nobodys);
        if found.is_empty() && is_nobodys {
            let (named, _) = self.processes(Some(deadline));
            self.look(&named, &wanted, deadline, &mut found);
        }
        if !found.is_empty() || is_nobodys {
            self.counters.scans_avoided += 1;
        } else {
            found = self.scan(&wanted, deadline);
        }
        let holders = found.remove(&inode).unwrap_or_default();
        // Where there was not enough time, nobody is not yet the answer.
        let is_known = !holders.is_empty() || !is_nobodys && self.left.is_none();
        if is_known {
            self.remember(inode, holders.clone());
        }
        holders
    }

    /// Looks for the processes of several sockets at once, so that [`Self::holders`] knows them.
    pub(super) fn prepare(&mut self, inodes: impl IntoIterator<Item = u32>) {
        let deadline = Instant::now() + self.budget;
        let mut wanted: Wanted = inodes.into_iter().take(MOST_SOCKETS / 2).collect();
        wanted.retain(|inode| {
            let known = self.sockets.get(inode);
            known.is_none_or(|known| known.holders.is_empty() && !known.is_nobodys(self.nobody_for))
        });
        // One alone is looked for when it is asked for.
        if wanted.len() < 2 {
            return;
        }
        let mut found = self.below_listeners(&wanted, deadline);
        wanted.retain(|inode| !found.contains_key(inode));
        if wanted.is_empty() {
            self.counters.scans_avoided += 1;
        } else {
            found.extend(self.scan(&wanted, deadline));
        }
        // Also where there was not enough time: not each by itself at once.
        for inode in wanted {
            found.entry(inode).or_default();
        }
        for (inode, holders) in found {
            self.remember(inode, holders);
        }
    }

    /// What is known of a socket, if that is enough.
    fn known(&mut self, inode: u32, deadline: Instant) -> Option<Vec<Holder>> {
        let known = self.sockets.get(&inode)?;
        let holders = self.follow(&known.holders, inode, deadline)?;
        if holders.is_empty() {
            return None;
        }
        self.counters.scans_avoided += 1;
        self.remember(inode, holders.clone());
        Some(holders)
    }

    /// Looks again at the processes that held a socket and at their children; nobody holds it any
    /// more if none of these does.
    pub(super) fn again(&mut self, inode: u32) -> Vec<Holder> {
        let deadline = Instant::now() + self.budget;
        let known = self.sockets.get(&inode);
        let Some(holders) = known.and_then(|known| self.follow(&known.holders, inode, deadline))
        else {
            return self.holders(inode);
        };
        self.counters.scans_avoided += 1;
        if holders.is_empty() {
            self.forget(inode);
        } else {
            self.remember(inode, holders.clone());
        }
        holders
    }

    /// Which of these sockets programs hold that are named as if they spoke SSH.
    pub(super) fn named(&mut self, wanted: &Wanted) -> Found {
        let deadline = Instant::now() + self.budget;
        let (named, _) = self.processes(Some(deadline));
        let mut found = Found::new();
        if self.look(&named, wanted, deadline, &mut found).is_some() {
            self.counters.scans_given_up += 1;
        }
        found
    }

    /// Remembers a process whose children hold connections.
    pub(super) fn add_listener(&mut self, listener: Identity) {
        push(&mut self.listeners, listener, MOST_LISTENERS);
    }

    /// Remembers a process that holds connections itself.
    pub(super) fn add_other(&mut self, other: Identity) {
        push(&mut self.regulars, other, MOST_REGULARS);
    }

    /// Opens a process, if it is still the same.
    pub(super) fn open(&self, process: Identity) -> Option<ProcessDir> {
        let directory = ProcessDir::open(&self.proc, process.pid).ok()?;
        (directory.start_time_ticks()? == process.start_time_ticks).then_some(directory)
    }

    /// Those of the processes that still hold the socket, and of their children; `None` if this
    /// kernel does not tell children.
    fn follow(&self, known: &[Holder], inode: u32, deadline: Instant) -> Option<Vec<Holder>> {
        let mut holders = Vec::new();
        let mut children = Vec::new();
        let mut seen = HashSet::new();
        for holder in known {
            let Some(directory) = self.open(holder.process) else {
                continue;
            };
            seen.insert(holder.process.pid);
            children.extend(directory.children()?);
            if directory.holds(holder.descriptor, inode) {
                holders.push(*holder);
                continue;
            }
            let mut sockets = Vec::new();
            directory.sockets(&[inode].into(), deadline, &mut sockets);
            if let Some((_, descriptor)) = sockets.first() {
                holders.push(Holder {
                    descriptor: *descriptor,
                    ..*holder
                });
            }
        }
        let mut found = Found::from([(inode, holders)]);
        self.descend(children, &mut seen, &[inode].into(), deadline, &mut found);
        found.remove(&inode)
    }

    /// Holders among processes, and among the children of holders.
    fn descend(
        &self,
        mut pids: Vec<u32>,
        seen: &mut HashSet<u32>,
        wanted: &Wanted,
        deadline: Instant,
        found: &mut Found,
    ) {
        let mut looked = 0;
        while let Some(pid) = pids.pop() {
            if looked >= MOST_CHILDREN || Instant::now() >= deadline {
                return;
            }
            if !seen.insert(pid) {
                continue;
            }
            looked += 1;
            let Ok(directory) = ProcessDir::open(&self.proc, pid) else {
                continue;
            };
            let mut sockets = Vec::new();
            directory.sockets(wanted, deadline, &mut sockets);
            if add(&directory, &sockets, found) {
                pids.extend(directory.children().unwrap_or_default());
            }
        }
    }

    /// Holders among known listeners and their children, the latest first.
    fn below_listeners(&mut self, wanted: &Wanted, deadline: Instant) -> Found {
        let mut listeners = std::mem::take(&mut self.listeners);
        listeners.retain(|listener| self.open(*listener).is_some());
        self.listeners = listeners;
        let mut found = Found::new();
        let mut seen = HashSet::new();
        for listener in self.listeners.iter().chain(&self.regulars) {
            let children = self
                .open(*listener)
                .and_then(|listener| listener.children());
            let children = children.unwrap_or_default().into_iter().rev();
            for child in children.chain([listener.pid]) {
                self.descend(vec![child], &mut seen, wanted, deadline, &mut found);
                if found.len() == wanted.len() || Instant::now() >= deadline {
                    return found;
                }
            }
        }
        found
    }

    /// Looks at all processes, as far as there is time; the next time at those that were left.
    pub(super) fn scan(&mut self, wanted: &Wanted, deadline: Instant) -> Found {
        self.counters.scans += 1;
        let (first, mut rest) = self.processes(deadline.checked_sub(self.budget / 2));
        let newest = rest.first().copied();
        self.resume(&mut rest);
        let mut found = Found::new();
        for (pids, are_all) in [(first, false), (rest, true)] {
            if let Some(pid) = self.look(&pids, wanted, deadline, &mut found) {
                self.counters.scans_given_up += 1;
                let newest = newest.unwrap_or(pid);
                self.left = Some(Left { pid, newest });
                break;
            }
            if are_all {
                self.left = None;
            } else if found.len() == wanted.len() {
                break;
            }
        }
        found
    }

    /// Looks at these processes; the first that there was no time for.
    fn look(
        &self,
        pids: &[u32],
        wanted: &Wanted,
        deadline: Instant,
        found: &mut Found,
    ) -> Option<u32> {
        let mut sockets = Vec::new();
        for pid in pids {
            // The directory of a process is not opened for each: one call less.
            let path = format!("{pid}/fd");
            let is_in_time = Instant::now() < deadline
                && search(&self.proc, &path, wanted, deadline, &mut sockets);
            if !is_in_time {
                return Some(*pid);
            }
            if !sockets.is_empty()
                && let Ok(directory) = ProcessDir::open(&self.proc, *pid)
            {
                // Once more: the number may have been given to another process.
                directory.sockets(wanted, deadline, &mut sockets);
                add(&directory, &sockets, found);
            }
        }
        None
    }

    /// Puts new processes first, then those that there was no time for the last time.
    fn resume(&self, pids: &mut [u32]) {
        if let Some(left) = self.left {
            let new = pids.partition_point(|pid| *pid > left.newest);
            let at = pids.partition_point(|pid| *pid > left.pid).max(new);
            if let Some(old) = pids.get_mut(new..) {
                old.rotate_left(at - new);
            }
        }
    }

    /// All processes: those named as if they spoke SSH, and the others; the latest first. Names are
    /// read until some time, what is left counts as others.
    fn processes(&mut self, until: Option<Instant>) -> (Vec<u32>, Vec<u32>) {
        let (mut first, mut rest, mut others) = (Vec::new(), Vec::new(), HashSet::new());
        each_process(&self.proc, |pid| {
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            let is_other = self.others.contains(&pid);
            if !is_other && !is_late && FIRST.contains(&self.name(pid, &mut [0; 32])) {
                first.push(pid);
                return true;
            }
            rest.push(pid);
            if is_other || !is_late {
                others.insert(pid);
            }
            true
        });
        first.sort_unstable_by_key(|pid| std::cmp::Reverse(*pid));
        rest.sort_unstable_by_key(|pid| std::cmp::Reverse(*pid));
        self.others = others;
        (first, rest)
    }

    fn name<'a>(&self, pid: u32, buffer: &'a mut [u8; 32]) -> &'a [u8] {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(file) = openat(&self.proc, format!("{pid}/comm"), flags, Mode::empty()) else {
            return &[];
        };
        let length = rustix::io::read(&file, &mut buffer[..]).unwrap_or_default();
        let name = &buffer[..length];
        name.strip_suffix(b"\n").unwrap_or(name)
    }

    fn remember(&mut self, inode: u32, holders: Vec<Holder>) {
        let at = Instant::now();
        if self.sockets.insert(inode, Known { holders, at }).is_some() {
            return;
        }
        self.order.push_back(inode);
        if self.sockets.len() > MOST_SOCKETS
            && let Some(oldest) = self.order.pop_front()
        {
            self.sockets.remove(&oldest);
        }
    }

    fn forget(&mut self, inode: u32) {
        self.sockets.remove(&inode);
        self.order.retain(|known| *known != inode);
    }
}

/// Remembers a process, the latest last, and forgets the first where there are too many.
fn push(processes: &mut VecDeque<Identity>, process: Identity, most: usize) {
    if processes.contains(&process) {
        return;
    }
    if processes.len() >= most {
        processes.pop_front();
    }
    processes.push_back(process);
}

/// Notes a process as holder of sockets; false if it is gone, or holds none.
fn add(directory: &ProcessDir, sockets: &[(u32, u32)], found: &mut Found) -> bool {
    if sockets.is_empty() {
        return false;
    }
    let Some(start_time_ticks) = directory.start_time_ticks() else {
        return false;
    };
    for (inode, descriptor) in sockets {
        let holders = found.entry(*inode).or_default();
        if holders.len() < MOST_HOLDERS {
            holders.push(Holder {
                process: Identity {
                    pid: directory.pid,
                    start_time_ticks,
                },
                descriptor: *descriptor,
            });
        }
    }
    true
}

#[cfg(test)]
mod tests;
