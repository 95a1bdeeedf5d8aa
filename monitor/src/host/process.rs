//! What `/proc` says about one process.
//!
//! Everything is read through one open directory of the process, so that a number which is given
//! to another process meanwhile never mixes two of them. Names, paths and titles are chosen by
//! whoever runs the process: they are bounded and escaped, and titles are not read at all.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::fs::{Mode, OFlags, RawDir, openat, readlinkat_raw};

use super::cgroup::{self, Cgroup};
use super::names::IdMap;

/// Number that stands for "not set" in `loginuid` and `sessionid`.
const UNSET: u32 = u32::MAX;
/// Bytes that are read of a file at most.
const FILE_BYTES: u64 = 16 * 1024;
/// Bytes of the list of children; the processes of a busy listener fit.
const CHILDREN_BYTES: u64 = 64 * 1024;
/// The longest path of an executable that is read.
const PATH_BYTES: usize = 4096;
/// A path is shown up to this length.
const SHOWN_BYTES: usize = 256;
/// A name is shown up to this length; the kernel's have 15 bytes.
const NAME_BYTES: usize = 64;
/// Bytes of a directory that are read at once.
const DIRECTORY_BYTES: usize = 4096;
/// Entries of descriptors, of at most 32 bytes each, that may fill them.
const FULL_ENTRIES: usize = DIRECTORY_BYTES / 32 - 4;
/// Descriptors that are looked at between two looks at the clock.
const LINKS_PER_LOOK: usize = 128;

/// What a program is, by its executable file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// OpenSSH's server, or the part of it that runs a session.
    Sshd,
    /// The part of OpenSSH's server that talks to whoever has not logged in.
    SshdAuth,
    /// Dropbear.
    Dropbear,
    /// Anything else.
    Other,
}

/// What decides about a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) start_time_ticks: u64,
    pub(super) program: Program,
    /// Real and effective user, as the process's own user namespace numbers them.
    pub(super) uid: u32,
    pub(super) effective_uid: u32,
    /// User and number of the login session, if any.
    pub(super) login: Option<u32>,
    pub(super) session: Option<u32>,
    pub(super) no_new_privileges: bool,
    pub(super) seccomp_filters: u32,
}

/// A directory such as `/proc/<pid>`.
#[derive(Debug)]
pub(super) struct ProcessDir {
    pub(super) pid: u32,
    directory: OwnedFd,
}

// === impl Program ===

impl Program {
    /// By the path that the kernel gives, which says so when the file was replaced.
    fn of_executable(path: &[u8]) -> Self {
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        match path.rsplit(|byte| *byte == b'/').next() {
            Some(b"sshd" | b"sshd-session") => Self::Sshd,
            Some(b"sshd-auth") => Self::SshdAuth,
            Some(b"dropbear" | b"dropbearmulti") => Self::Dropbear,
            _ => Self::Other,
        }
    }

    /// Whether it is part of an SSH server.
    pub(super) fn is_server(self) -> bool {
        self != Self::Other
    }
}

// === impl ProcessDir ===

impl ProcessDir {
    /// Opens a process of a `/proc`.
    pub(super) fn open(proc: &OwnedFd, pid: u32) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(proc, pid.to_string(), flags, Mode::empty())?;
        Ok(Self { pid, directory })
    }

    /// Everything that decides about a login; `None` if the process is gone.
    pub(super) fn facts(&self) -> Option<Facts> {
        let stat = Stat::read(&self.read("stat", FILE_BYTES)?)?;
        let status = Status::read(&self.text("status")?)?;
        let map = IdMap::read(&self.text("uid_map").unwrap_or_default());
        let number = |name| self.text(name)?.trim().parse::<u32>().ok();
        let set = |number: Option<u32>| number.filter(|number| *number != UNSET);
        let path = self.link("exe").unwrap_or_default();
        Some(Facts {
            pid: self.pid,
            parent: stat.parent,
            start_time_ticks: stat.start_time_ticks,
            program: Program::of_executable(&path),
            uid: map.inside(status.uid),
            effective_uid: map.inside(status.effective_uid),
            login: set(number("loginuid")).map(|uid| map.inside(uid)),
            session: set(number("sessionid")),
            no_new_privileges: status.no_new_privileges,
            seccomp_filters: status.seccomp_filters,
        })
    }

    /// When the process started, which with its number identifies it.
    pub(super) fn start_time_ticks(&self) -> Option<u64> {
        Some(Stat::read(&self.read("stat", FILE_BYTES)?)?.start_time_ticks)
    }

    /// The name, escaped.
    pub(super) fn name(&self) -> Option<String> {
        let name = self.read("comm", FILE_BYTES)?;
        let name = name.strip_suffix(b"\n").unwrap_or(&name);
        Some(escape(name, NAME_BYTES))
    }

    /// The path of the executable as the process sees it, escaped.
    pub(super) fn executable(&self) -> Option<String> {
        Some(escape(&self.link("exe")?, SHOWN_BYTES))
    }

    /// The control group.
    pub(super) fn cgroup(&self) -> Cgroup {
        cgroup::read(&self.read("cgroup", FILE_BYTES).unwrap_or_default())
    }

    /// The root directory.
    pub(super) fn root(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.directory, "root", flags, Mode::empty()).ok()
    }

    /// Children of the main thread; `None` if this kernel does not tell.
    pub(super) fn children(&self) -> Option<Vec<u32>> {
        let text = self.read(&format!("task/{}/children", self.pid), CHILDREN_BYTES)?;
        let text = String::from_utf8_lossy(&text);
        // What does not end with a space was cut.
        let (whole, _) = text.rsplit_once(' ').unwrap_or_default();
        Some(
            whole
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect(),
        )
    }

    /// Whether a descriptor is the socket with this inode.
    pub(super) fn holds(&self, descriptor: u32, inode: u32) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 64];
        socket(&self.directory, format!("fd/{descriptor}"), &mut buffer) == Some(inode)
    }

    /// Looks for the wanted sockets among the descriptors, see [`search`].
    pub(super) fn sockets(
        &self,
        wanted: &HashSet<u32>,
        deadline: Instant,
        found: &mut Vec<(u32, u32)>,
    ) -> bool {
        search(&self.directory, "fd", wanted, deadline, found)
    }

    fn text(&self, name: &str) -> Option<String> {
        let bytes = self.read(name, FILE_BYTES)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn read(&self, name: &str, most: u64) -> Option<Vec<u8>> {
        read_at(&self.directory, name, most)
    }

    fn link(&self, name: &str) -> Option<Vec<u8>> {
        let mut buffer = [MaybeUninit::uninit(); PATH_BYTES];
        let (path, _) = readlinkat_raw(&self.directory, name, &mut buffer[..]).ok()?;
        Some(path.to_vec())
    }
}

/// Calls for each process of a `/proc`, until told to end.
pub(super) fn each_process(proc: &OwnedFd, mut each: impl FnMut(u32) -> bool) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(proc, c".", flags, Mode::empty()) else {
        return;
    };
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_str();
        if let Some(pid) = name.ok().and_then(|name| name.parse().ok())
            && !each(pid)
        {
            return;
        }
    }
}

/// Looks through a directory of descriptors for sockets, by inode; `found` gets inode and
/// descriptor of each, once. False if there was not enough time.
pub(super) fn search(
    within: impl AsFd,
    descriptors: &str,
    wanted: &HashSet<u32>,
    deadline: Instant,
    found: &mut Vec<(u32, u32)>,
) -> bool {
    found.clear();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(within, descriptors, flags, Mode::empty()) else {
        return true;
    };
    let mut entries = [MaybeUninit::uninit(); DIRECTORY_BYTES];
    let mut link = [MaybeUninit::uninit(); 64];
    let mut reader = RawDir::new(&directory, &mut entries);
    let (mut looked, mut read_before) = (0_usize, 0);
    loop {
        if reader.is_buffer_empty() {
            // The kernel reads as many as fit: where there was room left there are no more.
            if looked > 0 && looked - read_before < FULL_ENTRIES {
                return true;
            }
            read_before = looked;
        }
        let Some(Ok(entry)) = reader.next() else {
            return true;
        };
        looked += 1;
        let name = entry.file_name();
        let Some(descriptor) = name.to_str().ok().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(inode) = socket(&directory, name, &mut link)
            && wanted.contains(&inode)
            && found.iter().all(|(other, _)| *other != inode)
        {
            found.push((inode, descriptor));
            if found.len() == wanted.len() {
                return true;
            }
        }
        if looked.is_multiple_of(LINKS_PER_LOOK) && Instant::now() >= deadline {
            return false;
        }
    }
}

/// Reads a file below a directory, up to a limit.
pub(super) fn read_at(directory: impl AsFd, name: &str, most: u64) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(file).take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Printable ASCII with the rest as `\xNN`, not much longer than `most`.
pub(super) fn escape(bytes: &[u8], most: usize) -> String {
    let mut text = String::new();
    for byte in bytes {
        let escaped = byte.escape_ascii();
        if text.len() + escaped.len() > most {
            text.push_str("...");
            break;
        }
        text.extend(escaped.map(char::from));
    }
    text
}

/// Inode of the socket that a descriptor is, `socket:[<inode>]`.
fn socket(
    directory: &OwnedFd,
    name: impl rustix::path::Arg,
    buffer: &mut [MaybeUninit<u8>; 64],
) -> Option<u32> {
    let (link, _) = readlinkat_raw(directory, name, &mut buffer[..]).ok()?;
    let number = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(number).ok()?.parse().ok()
}

/// Fields of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    start_time_ticks: u64,
}

impl Stat {
    fn read(bytes: &[u8]) -> Option<Self> {
        // The name is in parentheses and may contain anything, parentheses too.
        let end = bytes.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(&bytes[end + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        // Fields 4 and 22, counted from 1; the first of these is field 3.
        Some(Self {
            parent: fields.nth(1)?.parse().ok()?,
            start_time_ticks: fields.nth(17)?.parse().ok()?,
        })
    }
}

/// Fields of `/proc/<pid>/status`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Status {
    uid: u32,
    effective_uid: u32,
    no_new_privileges: bool,
    seccomp_filters: u32,
}

impl Status {
    /// The kernel escapes line ends in the name, so that lines are the kernel's own.
    fn read(text: &str) -> Option<Self> {
        let mut status = Self::default();
        let mut has_uid = false;
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match key {
                "Uid" => {
                    let mut uids = value.split_ascii_whitespace().map(str::parse);
                    status.uid = uids.next()?.ok()?;
                    status.effective_uid = uids.next()?.ok()?;
                    has_uid = true;
                }
                "NoNewPrivs" => status.no_new_privileges = value == "1",
                "Seccomp_filters" => status.seccomp_filters = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        has_uid.then_some(status)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::names::place;
    use super::*;

    #[test]
    fn names_in_stat_cannot_forge_fields() {
        let tail = "S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        for name in ["sshd", "a) S 1 1 (b", ") R 9", "\n(", "\u{ff}"] {
            let text = format!("12 ({name}) {tail}");
            let expected = Stat {
                parent: 7,
                start_time_ticks: 4242,
            };
            assert_eq!(Stat::read(text.as_bytes()), Some(expected), "{name:?}");
        }
        for text in [
            "",
            "12 (x",
            "12 (x)",
            "12 (x) S",
            "12 (x) S 7 1",
            "12 (x) S -1",
        ] {
            assert_eq!(Stat::read(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn status_lines() {
        let text = "Name:\tx\\nUid:\\t0\nUid:\t1000\t1001\t1000\t1000\nNoNewPrivs:\t1\n\
                    Seccomp:\t2\nSeccomp_filters:\t3\n";
        let expected = Status {
            uid: 1000,
            effective_uid: 1001,
            no_new_privileges: true,
            seccomp_filters: 3,
        };
        assert_eq!(Status::read(text), Some(expected));
        for text in [
            "",
            "Uid:\n",
            "Uid:\t-1\t0\n",
            "Uid:\t99999999999\t0\n",
            "Uid\t0\t0",
        ] {
            assert_eq!(Status::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn programs_are_told_by_their_file() {
        for (path, program) in [
            ("/usr/sbin/sshd", Program::Sshd),
            ("/usr/sbin/sshd (deleted)", Program::Sshd),
            ("/usr/lib/openssh/sshd-session", Program::Sshd),
            ("/usr/lib/openssh/sshd-auth", Program::SshdAuth),
            ("/usr/sbin/dropbear", Program::Dropbear),
            ("/usr/bin/ssh", Program::Other),
            ("/tmp/sshd/x", Program::Other),
            ("/tmp/notsshd", Program::Other),
            ("", Program::Other),
        ] {
            assert_eq!(Program::of_executable(path.as_bytes()), program, "{path}");
        }
    }

    #[test]
    fn text_is_escaped_and_bounded() {
        assert_eq!(escape(b"sshd", 64), "sshd");
        assert_eq!(escape(b"a\n\x1b\xff\\", 64), "a\\n\\x1b\\xff\\\\");
        assert_eq!(escape(&[b'a'; 100], 4), "aaaa...");
        assert_eq!(escape(&[0xff; 100], 6), "\\xff...");
    }

    #[test]
    fn this_process_is_read() {
        let proc = place("/proc".as_ref()).expect("proc");
        let directory = ProcessDir::open(&proc, std::process::id()).expect("this process");
        let facts = directory.facts().expect("facts");
        assert_eq!(facts.program, Program::Other);
        assert_eq!(Some(facts.start_time_ticks), directory.start_time_ticks());
        assert!(directory.name().is_some() && directory.executable().is_some());
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&socket);
        let link = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).expect("a link");
        let inode: u32 = link.to_str().expect("text")["socket:[".len()..]
            .trim_end_matches(']')
            .parse()
            .expect("an inode");
        let descriptor = u32::try_from(descriptor).expect("not negative");
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut found = Vec::new();
        let wanted = [inode, u32::MAX].into();
        assert!(directory.sockets(&wanted, deadline, &mut found));
        assert_eq!(found, [(inode, descriptor)]);
        assert!(directory.holds(descriptor, inode));
        assert!(!directory.holds(descriptor, inode.wrapping_add(1)));
        drop(socket);
        assert!(directory.sockets(&wanted, deadline, &mut found));
        assert_eq!(found, []);
        // More descriptors than are read at once.
        let sockets: Vec<_> = (0..300)
            .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket"))
            .collect();
        let last = sockets.last().expect("a socket");
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(last);
        let descriptor = u32::try_from(descriptor).expect("not negative");
        let mut link = [MaybeUninit::uninit(); 64];
        let name = format!("fd/{descriptor}");
        let inode = super::socket(&directory.directory, name, &mut link).expect("a socket");
        assert!(directory.sockets(&[inode].into(), deadline, &mut found));
        assert_eq!(found, [(inode, descriptor)]);
        assert!(!directory.sockets(&[u32::MAX].into(), Instant::now(), &mut found));
    }
}
