//! Names of users, from the `/etc/passwd` that a process sees.
//!
//! That file may belong to a hostile container: it is opened without leaving the container's root,
//! only if it is a regular file, read up to a limit, and on a thread of its own, because a file
//! system of the container's making may never answer.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

use super::process::escape;

/// Bytes of the file that are read.
const MOST_BYTES: u64 = 256 * 1024;
/// How long reading may take.
const PATIENCE: Duration = Duration::from_millis(50);
/// Threads that may hang at a time.
const MOST_HANGING: usize = 4;
/// A name is shown up to this length.
const NAME_BYTES: usize = 64;
/// Extents of a user namespace's map; the kernel's own limit.
const MOST_EXTENTS: usize = 340;

/// The users of one root directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Users(Vec<u8>);

/// Reads the users of root directories.
#[derive(Debug)]
pub(super) struct Reader {
    hanging: Arc<AtomicUsize>,
    /// [`PATIENCE`]; tests of what is read, not of how long it takes, have more.
    patience: Duration,
}

/// How the numbers of a user namespace differ from the reader's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IdMap(Vec<[u32; 3]>);

// === impl Reader ===

impl Default for Reader {
    fn default() -> Self {
        Self {
            hanging: Arc::default(),
            patience: PATIENCE,
        }
    }
}

impl Reader {
    /// The users below a root directory; `None` if they cannot be read in time.
    pub(super) fn read(&self, root: OwnedFd) -> Option<Users> {
        if self.hanging.load(Ordering::Relaxed) >= MOST_HANGING {
            return None;
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        self.hanging.fetch_add(1, Ordering::Relaxed);
        let hanging = Arc::clone(&self.hanging);
        let thread = std::thread::Builder::new()
            .name("passwd".to_owned())
            .spawn(move || {
                let users = read(&root);
                hanging.fetch_sub(1, Ordering::Relaxed);
                // The reader may have given up.
                let _ = sender.send(users);
            });
        if thread.is_err() {
            self.hanging.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        receiver.recv_timeout(self.patience).ok().flatten()
    }
}

// === impl Users ===

impl Users {
    /// The name of the first entry with this number, escaped.
    pub(super) fn name(&self, uid: u32) -> Option<String> {
        let (name, _) = self.entries().find(|(_, number)| *number == uid)?;
        Some(escape(name, NAME_BYTES))
    }

    /// The number of a user.
    pub(super) fn uid(&self, wanted: &str) -> Option<u32> {
        let mut entries = self.entries();
        entries
            .find(|(name, _)| *name == wanted.as_bytes())
            .map(|(_, uid)| uid)
    }

    fn entries(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.0.split(|byte| *byte == b'\n').filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let (name, _, uid) = (fields.next()?, fields.next()?, fields.next()?);
            let uid = std::str::from_utf8(uid).ok()?.parse().ok()?;
            (!name.is_empty()).then_some((name, uid))
        })
    }
}

// === impl IdMap ===

impl IdMap {
    /// Reads `/proc/<pid>/uid_map`: `<inside> <outside> <count>` a line.
    pub(super) fn read(text: &str) -> Self {
        let extents = text.lines().take(MOST_EXTENTS).filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            Some([
                numbers.next()?.ok()?,
                numbers.next()?.ok()?,
                numbers.next()?.ok()?,
            ])
        });
        Self(extents.collect())
    }

    /// The number inside; the same one where the map says nothing.
    pub(super) fn inside(&self, uid: u32) -> u32 {
        let inside = self.0.iter().find_map(|[inside, outside, count]| {
            let offset = uid.checked_sub(*outside)?;
            (offset < *count).then(|| inside.checked_add(offset))?
        });
        inside.unwrap_or(uid)
    }
}

fn read(root: &OwnedFd) -> Option<Users> {
    // Opened as a mere place first: opening a device or a pipe may do something or block.
    let place = openat2(
        root,
        "etc/passwd",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .ok()?;
    let stat = fstat(&place).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let file = open(
        format!("/proc/self/fd/{}", place.as_raw_fd()),
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
    )
    .ok()?;
    let mut bytes = Vec::new();
    let mut file = File::from(file).take(MOST_BYTES);
    file.read_to_end(&mut bytes).ok()?;
    Some(Users(bytes))
}

/// Opens a directory as a mere place.
pub(super) fn place(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn users(text: &str) -> Users {
        Users(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_are_found() {
        let users = users(
            "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:\nalice:x:1000:1000::\n",
        );
        assert_eq!(users.name(1000).as_deref(), Some("alice"));
        assert_eq!(users.name(0).as_deref(), Some("root"));
        assert_eq!(users.name(1), None);
        assert_eq!(users.uid("sshd"), Some(100));
        assert_eq!(users.uid("bob"), None);
    }

    #[test]
    fn hostile_entries_do_no_harm() {
        let text = format!(
            ":x:5:5\nno\n::\na:b\nx:x:-1:0\ny:x:99999999999:0\nz:x:6\u{661}:0\n\x1b[31m\u{202e}:x:7:7\n{}:x:8:8",
            "n".repeat(1000)
        );
        let users = users(&text);
        assert_eq!(users.name(5), None);
        assert_eq!(users.name(7).as_deref(), Some("\\x1b[31m\\xe2\\x80\\xae"));
        let long = users.name(8).expect("a name");
        assert!(long.len() <= NAME_BYTES + 3, "{long}");
    }

    #[test]
    fn only_a_regular_file_of_that_root_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("root");
        let passwd = root.join("etc/passwd");
        fs::create_dir_all(root.join("etc")).expect("etc");
        fs::write(directory.path().join("outside"), "out:x:1:1\n").expect("a file");
        let reader = Reader {
            patience: Duration::from_secs(100),
            ..Reader::default()
        };
        let read = |root: &Path| reader.read(place(root).expect("a root"));

        assert_eq!(read(&root), None);
        // Out of the root: neither by a relative nor by an absolute link.
        for target in ["../../outside".into(), directory.path().join("outside")] {
            symlink(target, &passwd).expect("a link");
            assert_eq!(read(&root), None);
            fs::remove_file(&passwd).expect("removed");
        }
        symlink("/etc/real", &passwd).expect("a link");
        fs::write(root.join("etc/real"), "in:x:1:1\n").expect("a file");
        assert_eq!(read(&root).expect("users").name(1).as_deref(), Some("in"));
        fs::remove_file(&passwd).expect("removed");
        let made = Command::new("mkfifo").arg(&passwd).status();
        if made.is_ok_and(|status| status.success()) {
            assert_eq!(read(&root), None, "a pipe must not block");
            fs::remove_file(&passwd).expect("removed");
        }
        fs::write(&passwd, vec![b'\n'; 1 << 20]).expect("a file");
        assert_eq!(read(&root).expect("users").0.len() as u64, MOST_BYTES);
        assert_eq!(reader.hanging.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn numbers_of_user_namespaces() {
        let whole = IdMap::read("         0          0 4294967295\n");
        assert_eq!(whole.inside(1000), 1000);
        let pod = IdMap::read("0 131072 65536\n");
        assert_eq!(pod.inside(131_072), 0);
        assert_eq!(pod.inside(132_072), 1000);
        assert_eq!(pod.inside(5), 5);
        let hostile = IdMap::read("4294967295 0 4294967295\nx y z\n\n1 2\n");
        assert_eq!(hostile.inside(0), u32::MAX);
        assert_eq!(hostile.inside(7), 7);
    }
}
