//! Which processes hold a socket.
//!
//! The kernel does not tell; every descriptor of every process has to be looked at. Programs that
//! speak SSH are looked at first, and what was found is remembered: later only those processes and
//! their children are looked at again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RawDir, openat};

use super::names::place;
use super::process::{ProcessDir, Search, search};

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
/// How long looking for one socket may take.
pub(super) const BUDGET: Duration = Duration::from_millis(100);
/// Sockets that are remembered.
const MOST_SOCKETS: usize = 4096;
/// How long it is remembered that nobody holds a socket.
const NOBODY_FOR: Duration = Duration::from_secs(1);
/// Processes that are remembered per socket.
const MOST_HOLDERS: usize = 64;
/// Children that are looked at.
const MOST_CHILDREN: usize = 1024;
/// Listeners whose children are looked at first.
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
    /// Processes named otherwise when they were last looked at. Only the order depends on it.
    others: HashSet<u32>,
}

#[derive(Debug)]
struct Known {
    holders: Vec<Holder>,
    at: Instant,
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
            others: HashSet::new(),
        })
    }

    /// The processes that hold a socket; all that were found in time.
    pub(super) fn holders(&mut self, inode: u32) -> Vec<Holder> {
        let now = Instant::now();
        let deadline = now + BUDGET;
        if let Some(known) = self.sockets.get(&inode) {
            if known.holders.is_empty() && now < known.at + NOBODY_FOR {
                self.counters.scans_avoided += 1;
                return Vec::new();
            }
            let holders = self.follow(&known.holders, inode, deadline);
            if let Some(holders) = holders.filter(|holders| !holders.is_empty()) {
                self.counters.scans_avoided += 1;
                self.remember(inode, holders.clone());
                return holders;
            }
        }
        let found = self.below_listeners(inode, deadline);
        let holders = if found.is_empty() {
            self.scan(inode, deadline)
        } else {
            self.counters.scans_avoided += 1;
            found
        };
        self.remember(inode, holders.clone());
        holders
    }

    /// Looks again at the processes that held a socket and at their children; nobody holds it any
    /// more if none of these does.
    pub(super) fn again(&mut self, inode: u32) -> Vec<Holder> {
        let deadline = Instant::now() + BUDGET;
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

    /// Remembers a process whose children hold connections.
    pub(super) fn add_listener(&mut self, listener: Identity) {
        if self.listeners.contains(&listener) {
            return;
        }
        if self.listeners.len() >= MOST_LISTENERS {
            self.listeners.pop_front();
        }
        self.listeners.push_back(listener);
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
            } else if let Search::Descriptor(descriptor) = directory.search(inode, deadline) {
                holders.push(Holder {
                    descriptor,
                    ..*holder
                });
            }
        }
        self.descend(children, &mut seen, inode, deadline, &mut holders);
        Some(holders)
    }

    /// Holders among processes, and among the children of holders.
    fn descend(
        &self,
        mut pids: Vec<u32>,
        seen: &mut HashSet<u32>,
        inode: u32,
        deadline: Instant,
        holders: &mut Vec<Holder>,
    ) {
        let mut looked = 0;
        while let Some(pid) = pids.pop() {
            if looked >= MOST_CHILDREN
                || holders.len() >= MOST_HOLDERS
                || Instant::now() >= deadline
            {
                return;
            }
            if !seen.insert(pid) {
                continue;
            }
            looked += 1;
            let Ok(directory) = ProcessDir::open(&self.proc, pid) else {
                continue;
            };
            if let Some(holder) = holder(&directory, inode, deadline) {
                holders.push(holder);
                pids.extend(directory.children().unwrap_or_default());
            }
        }
    }

    /// Holders among the children of known listeners, the latest first.
    fn below_listeners(&mut self, inode: u32, deadline: Instant) -> Vec<Holder> {
        let mut listeners = std::mem::take(&mut self.listeners);
        listeners.retain(|listener| self.open(*listener).is_some());
        self.listeners = listeners;
        let mut holders = Vec::new();
        for listener in &self.listeners {
            let children = self
                .open(*listener)
                .and_then(|listener| listener.children());
            for child in children.unwrap_or_default().into_iter().rev() {
                let mut seen = HashSet::new();
                self.descend(vec![child], &mut seen, inode, deadline, &mut holders);
                if !holders.is_empty() || Instant::now() >= deadline {
                    return holders;
                }
            }
        }
        holders
    }

    /// Looks at all processes.
    pub(super) fn scan(&mut self, inode: u32, deadline: Instant) -> Vec<Holder> {
        self.counters.scans += 1;
        let (first, rest) = self.processes(deadline.checked_sub(BUDGET / 2));
        let mut holders = Vec::new();
        for pids in [first, rest] {
            for pid in pids {
                if Instant::now() >= deadline {
                    self.counters.scans_given_up += 1;
                    return holders;
                }
                // The directory of a process is not opened for each: one call less.
                match search(&self.proc, &format!("{pid}/fd"), inode, deadline) {
                    Search::Absent => {}
                    Search::Descriptor(_) => {
                        let directory = ProcessDir::open(&self.proc, pid).ok();
                        let found =
                            directory.and_then(|directory| holder(&directory, inode, deadline));
                        holders.extend(found);
                    }
                    Search::TimedOut => {
                        self.counters.scans_given_up += 1;
                        return holders;
                    }
                }
                if holders.len() >= MOST_HOLDERS {
                    return holders;
                }
            }
            if !holders.is_empty() {
                break;
            }
        }
        holders
    }

    /// All processes: those named as if they spoke SSH, and the others; the latest first. Names are
    /// read until some time, what is left counts as others.
    fn processes(&mut self, until: Option<Instant>) -> (Vec<u32>, Vec<u32>) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (mut first, mut rest, mut others) = (Vec::new(), Vec::new(), HashSet::new());
        let Ok(directory) = openat(&self.proc, c".", flags, Mode::empty()) else {
            return (first, rest);
        };
        let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
        let mut entries = RawDir::new(&directory, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_str();
            let Some(pid) = name.ok().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            let is_other = self.others.contains(&pid);
            if !is_other && !is_late && FIRST.contains(&self.name(pid, &mut [0; 32])) {
                first.push(pid);
                continue;
            }
            rest.push(pid);
            if is_other || !is_late {
                others.insert(pid);
            }
        }
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

fn holder(directory: &ProcessDir, inode: u32, deadline: Instant) -> Option<Holder> {
    let Search::Descriptor(descriptor) = directory.search(inode, deadline) else {
        return None;
    };
    Some(Holder {
        process: Identity {
            pid: directory.pid,
            start_time_ticks: directory.start_time_ticks()?,
        },
        descriptor,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        fn scanner(&self) -> Scanner {
            Scanner::new(self.0.path()).expect("a scanner")
        }

        fn add(&self, pid: u32, name: &str, children: &str, links: &[&str]) {
            let directory = self.0.path().join(pid.to_string());
            fs::create_dir_all(directory.join("fd")).expect("a process");
            let task = directory.join(format!("task/{pid}"));
            fs::create_dir_all(&task).expect("a task");
            fs::write(task.join("children"), children).expect("children");
            fs::write(directory.join("comm"), format!("{name}\n")).expect("a name");
            let stat = format!("{pid} ({name}) S 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 {pid} 0");
            fs::write(directory.join("stat"), stat).expect("stat");
            for (number, link) in links.iter().enumerate() {
                symlink(link, directory.join(format!("fd/{number}"))).expect("a link");
            }
        }

        fn remove(&self, pid: u32) {
            fs::remove_dir_all(self.0.path().join(pid.to_string())).expect("removed");
        }
    }

    fn pids(holders: &[Holder]) -> Vec<u32> {
        let mut pids: Vec<_> = holders.iter().map(|holder| holder.process.pid).collect();
        pids.sort_unstable();
        pids
    }

    #[test]
    fn programs_that_speak_ssh_come_first() {
        let fake = Fake::new();
        fake.add(10, "sshd", "", &["/dev/null", "socket:[7]"]);
        fake.add(11, "sshd-session", "", &["socket:[7]"]);
        fake.add(12, "bash", "", &["socket:[7]", "socket:[8]"]);
        fake.add(
            13,
            "x",
            "",
            &["socket:[71]", "socket:[17]", "anon:[7]", "socket:[7] "],
        );
        let mut scanner = fake.scanner();
        assert_eq!(pids(&scanner.holders(7)), [10, 11]);
        assert_eq!(pids(&scanner.holders(8)), [12]);
        assert_eq!(pids(&scanner.holders(9)), [0; 0]);
        assert_eq!(scanner.counters.scans, 3);
        assert_eq!(pids(&scanner.holders(7)), [10, 11]);
        assert_eq!(pids(&scanner.holders(9)), [0; 0]);
        assert_eq!(
            (scanner.counters.scans, scanner.counters.scans_avoided),
            (3, 2)
        );
    }

    #[test]
    fn children_take_over() {
        let fake = Fake::new();
        fake.add(10, "sshd", "11 ", &["socket:[7]"]);
        let mut scanner = fake.scanner();
        assert_eq!(pids(&scanner.holders(7)), [10]);
        fake.add(11, "sshd", "12 ", &["socket:[7]"]);
        fake.add(12, "bash", "13 ", &[]);
        fake.add(13, "x", "", &["socket:[7]"]);
        assert_eq!(
            pids(&scanner.again(7)),
            [10, 11],
            "not below one that does not hold it"
        );
        fake.remove(10);
        assert_eq!(pids(&scanner.again(7)), [11]);
        fake.remove(11);
        assert_eq!(pids(&scanner.again(7)), [0; 0]);
        assert_eq!(scanner.counters.scans, 1);
    }

    #[test]
    fn children_of_listeners_are_known_places() {
        let fake = Fake::new();
        fake.add(10, "sshd", "11 12 ", &["socket:[1]"]);
        fake.add(11, "sshd", "", &["socket:[7]"]);
        fake.add(12, "sshd", "13 ", &["socket:[8]"]);
        fake.add(13, "sshd", "", &["socket:[8]"]);
        let mut scanner = fake.scanner();
        scanner.add_listener(Identity {
            pid: 10,
            start_time_ticks: 10,
        });
        assert_eq!(pids(&scanner.holders(7)), [11]);
        assert_eq!(pids(&scanner.holders(8)), [12, 13]);
        assert_eq!(scanner.counters.scans, 0);
        fake.remove(10);
        assert_eq!(pids(&scanner.holders(9)), [0; 0]);
        assert!(scanner.listeners.is_empty());
    }

    #[test]
    fn another_process_with_the_same_number_is_not_taken() {
        let fake = Fake::new();
        fake.add(10, "sshd", "", &["socket:[7]"]);
        let scanner = fake.scanner();
        let of = |start_time_ticks| Identity {
            pid: 10,
            start_time_ticks,
        };
        assert!(scanner.open(of(10)).is_some());
        assert!(scanner.open(of(9)).is_none());
    }

    #[test]
    fn time_and_memory_are_bounded() {
        let fake = Fake::new();
        for pid in 10..20 {
            fake.add(pid, "x", "", &[]);
        }
        fake.add(20, "sshd", "20 21 20 x -1 99999999999 21 ", &["socket:[7]"]);
        fake.add(21, "sshd", "20 21 ", &["socket:[7]"]);
        let mut scanner = fake.scanner();
        assert_eq!(pids(&scanner.scan(7, Instant::now())), [0; 0]);
        assert_eq!(scanner.counters.scans_given_up, 1);
        assert_eq!(pids(&scanner.holders(7)), [20, 21]);
        assert_eq!(pids(&scanner.again(7)), [20, 21], "a circle ends");
        for inode in 0..10_000 {
            scanner.remember(inode, Vec::new());
        }
        assert_eq!(scanner.sockets.len(), MOST_SOCKETS);
        assert_eq!(scanner.order.len(), MOST_SOCKETS);
        for pid in 0..100 {
            scanner.add_listener(Identity {
                pid,
                start_time_ticks: 0,
            });
        }
        assert_eq!(scanner.listeners.len(), MOST_LISTENERS);
    }
}
