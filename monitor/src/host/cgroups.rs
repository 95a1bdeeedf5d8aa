//! Which control group has a number: the number of its directory in the unified hierarchy, which the
//! kernel program notes of the node's own sockets (`bpf_skb_cgroup_id`).
//!
//! Directories are read from the root down, with the numbers of what is in them: looking for one
//! group costs as much as looking for all. Everything is bounded: a walk ends after a fifth of a
//! second, and begins not before a second after the last one. Numbers are not given twice while the
//! kernel runs, so that what was found holds.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use monitor_core::{entity::Cgroup, event::ProcessRecord};
use rustix::fs::{FileType, Mode, OFlags, RawDir, fstat, open, openat};

use super::cgroup::{self, MOST_BYTES};
use super::process::{ProcessDir, escape};

/// Groups that are read in one walk.
const MOST_GROUPS: usize = 65_536;
/// How deep the hierarchy may be; the group of a container in a container is some ten levels down.
const MOST_LEVELS: usize = 32;
/// How long a walk may take.
const BUDGET: Duration = Duration::from_millis(200);
/// How long what a walk found is good for what it did not find.
const FRESH: Duration = Duration::from_secs(1);
/// Bytes of a directory that are read at once.
const DIRECTORY_BYTES: usize = 32 * 1024;
/// Bytes of a group's list of processes: enough to tell one from several.
const PROCESSES_BYTES: usize = 64;
/// The number of the root of the hierarchy (kernfs).
const ROOT: u64 = 1;

/// Control groups cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum CgroupsError {
    /// There is no unified hierarchy.
    #[error("no unified hierarchy (cgroup2) is mounted")]
    Absent,
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Open {
        /// What.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The unified hierarchy of control groups.
pub struct Cgroups {
    root: OwnedFd,
    proc: Option<OwnedFd>,
    path: PathBuf,
    is_whole: bool,
    /// Paths by number, as the last walk found them.
    known: HashMap<u64, Vec<u8>>,
    walked: Option<Instant>,
    is_cut: bool,
}

// === impl Cgroups ===

impl Cgroups {
    /// The hierarchy as it is mounted here; of several places, one that has all of it.
    pub fn new() -> Result<Self, CgroupsError> {
        let mounts =
            std::fs::read("/proc/self/mountinfo").map_err(|source| CgroupsError::Open {
                path: "/proc/self/mountinfo".into(),
                source,
            })?;
        // A container has only its own part. Where it may look at the node's processes, the first
        // of these has the rest.
        let first = std::fs::read("/proc/1/mountinfo").unwrap_or_default();
        let of_first = unified(&first).into_iter().map(|path| {
            let path = path.strip_prefix("/").unwrap_or(&path);
            Path::new("/proc/1/root").join(path)
        });
        let mut part = None;
        let mut failure = None;
        for path in unified(&mounts).into_iter().chain(of_first) {
            match Self::at(path) {
                Ok(found) if found.is_whole => return Ok(found),
                Ok(found) => part = part.or(Some(found)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        part.ok_or(failure.unwrap_or(CgroupsError::Absent))
    }

    /// The hierarchy, or a part of it, at a path.
    fn at(path: PathBuf) -> Result<Self, CgroupsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(&path, flags, Mode::empty()).and_then(|root| {
            let number = fstat(&root)?.st_ino;
            Ok((root, number))
        });
        let (root, number) = opened.map_err(|error| CgroupsError::Open {
            path: path.clone(),
            source: error.into(),
        })?;
        Ok(Self {
            root,
            proc: open("/proc", flags, Mode::empty()).ok(),
            path,
            is_whole: number == ROOT,
            known: HashMap::new(),
            walked: None,
            is_cut: false,
        })
    }

    /// Whether all groups of the node are there, and not only those of one's own container.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether the last walk had to end before it was done.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// When the next walk may begin, if not now.
    pub fn wait(&self) -> Option<Duration> {
        let left = FRESH.checked_sub(self.walked?.elapsed())?;
        (!left.is_zero()).then_some(left)
    }

    /// What the groups with these numbers are; `None` for those that are not there.
    pub fn find(&mut self, ids: &[u64]) -> Vec<Option<Cgroup>> {
        if ids.iter().any(|id| !self.known.contains_key(id)) && self.wait().is_none() {
            self.walk();
        }
        ids.iter()
            .map(|id| self.known.get(id).map(|path| self.describe(*id, path)))
            .collect()
    }

    /// All groups of pods, with their numbers.
    pub fn of_pods(&mut self) -> Vec<(u64, Cgroup)> {
        self.walk();
        self.known
            .iter()
            .filter(|(_, path)| cgroup::pod(path).is_some())
            .map(|(id, path)| (*id, self.describe(*id, path)))
            .collect()
    }

    fn describe(&self, id: u64, path: &[u8]) -> Cgroup {
        let (pod, container) = (cgroup::pod(path), cgroup::container(path));
        let is_contained = pod.is_some() || container.is_some();
        Cgroup {
            path: escape(path, MOST_BYTES).into(),
            pod: pod.map(Into::into),
            container: container.map(Into::into),
            process: (!is_contained && self.is_there(id, path))
                .then(|| self.only_process(path))
                .flatten(),
        }
    }

    /// Whether a path is still that of the group: one that is made anew has another number.
    fn is_there(&self, id: u64, path: &[u8]) -> bool {
        let name = path.strip_prefix(b"/").filter(|name| !name.is_empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        openat(&self.root, name.unwrap_or(b"."), flags, Mode::empty())
            .and_then(fstat)
            .is_ok_and(|found| found.st_ino == id)
    }

    /// The process of a group that has no other.
    fn only_process(&self, path: &[u8]) -> Option<ProcessRecord> {
        let pid = self.only_pid(path)?;
        let name = ProcessDir::open(self.proc.as_ref()?, pid).ok()?.name()?;
        // It may have gone meanwhile, and its number be another's.
        (self.only_pid(path) == Some(pid)).then_some(ProcessRecord {
            pid,
            name,
            executable: None,
            container: None,
        })
    }

    fn only_pid(&self, path: &[u8]) -> Option<u32> {
        let directory = path.strip_prefix(b"/").unwrap_or(path);
        let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        let file = [directory, separator, b"cgroup.procs"].concat();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.root, &file[..], flags, Mode::empty()).ok()?;
        let mut bytes = [0; PROCESSES_BYTES];
        let length = rustix::io::read(&file, &mut bytes).ok()?;
        let text = str::from_utf8(bytes.get(..length)?).ok()?;
        // Zero stands for one that is in no namespace that can be seen from here.
        let pid = text.strip_suffix('\n')?.parse().ok();
        pid.filter(|pid| *pid != 0)
    }

    /// Reads the hierarchy anew.
    fn walk(&mut self) {
        let start = Instant::now();
        self.known.clear();
        self.is_cut = false;
        self.known.insert(ROOT, b"/".to_vec());
        let mut buffer = vec![MaybeUninit::uninit(); DIRECTORY_BYTES];
        let mut ahead: Vec<(Vec<u8>, usize)> = vec![(Vec::new(), 0)];
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        while let Some((path, level)) = ahead.pop() {
            if start.elapsed() > BUDGET || self.known.len() >= MOST_GROUPS {
                self.is_cut = true;
                break;
            }
            let name = path.strip_prefix(b"/").unwrap_or(b".");
            // A group that has gone meanwhile.
            let Ok(directory) = openat(&self.root, name, flags, Mode::empty()) else {
                continue;
            };
            let mut entries = RawDir::new(&directory, &mut buffer);
            while let Some(Ok(entry)) = entries.next() {
                let name = entry.file_name().to_bytes();
                if entry.file_type() != FileType::Directory || name == b"." || name == b".." {
                    continue;
                }
                let path = [&path[..], b"/", name].concat();
                self.known.insert(entry.ino(), path.clone());
                if level < MOST_LEVELS {
                    ahead.push((path, level + 1));
                } else {
                    self.is_cut = true;
                }
            }
        }
        self.walked = Some(Instant::now());
    }
}

/// What can be told of control groups, for people.
pub fn words(cgroups: &Result<Cgroups, CgroupsError>) -> String {
    match cgroups {
        Ok(cgroups) if cgroups.is_whole => format!("at {}", cgroups.path.display()),
        Ok(cgroups) => format!(
            "only those of this container, at {}: pods that use the node's network are told as \
             the node",
            cgroups.path.display()
        ),
        Err(error) => error.to_string(),
    }
}

/// Where the unified hierarchy is mounted (proc_pid_mountinfo(5)).
fn unified(mounts: &[u8]) -> Vec<PathBuf> {
    let place = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        let is_unified = fields.get(dash + 1) == Some(&&b"cgroup2"[..]);
        let path = fields.get(4).filter(|_| is_unified)?;
        Some(OsString::from_vec(unescape(path)).into())
    };
    let lines = mounts.split(|byte| *byte == b'\n');
    lines.filter_map(place).collect()
}

/// A path of mountinfo, where blanks and the like are three octal digits.
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *byte == b'\\');
        let code = digits
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn mounts_of_the_unified_hierarchy() {
        let text = b"24 1 0:22 / /proc rw - proc proc rw\n\
            30 24 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw\n\
            31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            32 24 0:26 /x /a\\040b rw - cgroup2 none rw\nnonsense\n";
        let expected: [PathBuf; 2] = ["/sys/fs/cgroup/unified".into(), "/a b".into()];
        assert_eq!(unified(text), expected);
    }

    #[test]
    fn groups_are_found_by_the_number_of_their_directory() {
        let Ok(mut cgroups) = Cgroups::new() else {
            // A machine without the unified hierarchy.
            return;
        };
        // The kernel gives each process a group of it.
        let own = std::fs::read_to_string("/proc/self/cgroup").expect("own groups");
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .expect("the unified group");
        let path = cgroups.path.join(own.trim_start_matches('/'));
        let number = std::fs::metadata(&path).expect("a directory").ino();
        let found = cgroups.find(&[number, u64::MAX]);
        let group = found[0].as_ref().expect("one's own group");
        assert_eq!(&*group.path, own);
        assert_eq!(found[1], None);
        assert!(!cgroups.is_cut());
        // Not walked again at once for what is not there.
        assert!(cgroups.wait().is_some());
    }
}
