//! Names of what labs make, and removing what a dead lab left behind.
//!
//! Every namespace, directory and control group of a lab is called `nw<pid><letters>-<rest>`: the process id of
//! the maker, then which lab of that process it is. What carries the id of a process that is gone
//! belongs to nobody and may be removed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::{hierarchy, process};

/// Where `ip netns` keeps its namespaces.
pub const NAMESPACES: &str = "/run/netns";

static LABS: AtomicU32 = AtomicU32::new(0);

/// A prefix that no other lab on this machine has.
pub(super) fn new_prefix() -> String {
    let mut number = LABS.fetch_add(1, Ordering::Relaxed);
    let mut letters = String::new();
    loop {
        let letter = u8::try_from(number % 26).expect("a remainder of 26 is small");
        letters.insert(0, char::from(b'a' + letter));
        number /= 26;
        if number == 0 {
            break;
        }
    }
    format!("nw{}{letters}", std::process::id())
}

/// The maker's process id, if the name is one of ours.
pub fn maker(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("nw")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let (pid, rest) = rest.split_at(digits);
    let letters = rest.find(|c: char| !c.is_ascii_lowercase())?;
    (letters > 0 && rest[letters..].starts_with('-')).then(|| pid.parse().ok())?
}

/// Removes what labs of dead processes left behind.
pub fn stale() {
    remove_where(|pid| !Path::new(&format!("/proc/{pid}")).exists());
}

/// Removes whatever labs of this process still have. For a panic hook: where panics abort, no
/// destructor runs.
pub fn own() {
    let own = std::process::id();
    remove_where(|pid| pid == own);
}

/// What of this process's labs exists now: namespaces, their processes, directories, control groups.
pub fn leftovers() -> Vec<String> {
    let own = std::process::id();
    let mut found = Vec::new();
    for name in names_in(Path::new(NAMESPACES), |pid| pid == own) {
        found.push(format!("namespace {name}"));
        let pids = pids_in(&Path::new(NAMESPACES).join(&name));
        found.extend(
            pids.into_iter()
                .map(|pid| format!("process {pid} in {name}")),
        );
    }
    let directories = names_in(&std::env::temp_dir(), |pid| pid == own);
    found.extend(
        directories
            .into_iter()
            .map(|name| format!("directory {name}")),
    );
    for root in hierarchy::roots() {
        let groups = names_in(&root, |pid| pid == own);
        let shown = |name| format!("control group {}", root.join(name).display());
        found.extend(groups.into_iter().map(shown));
    }
    found
}

/// Ends every process whose network namespace is the one at `path`.
pub(super) fn end_processes(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let pids = pids_in(path);
        if pids.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in pids {
            process::send(pid, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes whose network namespace is the one at `path`, never this process itself.
pub fn pids_in(path: &Path) -> Vec<u32> {
    let Some(wanted) = identity(path) else {
        return Vec::new();
    };
    let own = std::process::id();
    entries(Path::new("/proc"))
        .filter_map(|entry| entry.file_name()?.to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| identity(Path::new(&format!("/proc/{pid}/ns/net"))) == Some(wanted))
        .collect()
}

pub(super) fn delete_namespace(name: &str) {
    let _ = Command::new("ip")
        .args(["netns", "delete", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn remove_where(condition: impl Fn(u32) -> bool) {
    for name in names_in(Path::new(NAMESPACES), &condition) {
        end_processes(&Path::new(NAMESPACES).join(&name));
        delete_namespace(&name);
    }
    for root in hierarchy::roots() {
        for name in names_in(&root, &condition) {
            hierarchy::remove(&name);
        }
    }
    for name in names_in(&std::env::temp_dir(), &condition) {
        let _ = fs::remove_dir_all(std::env::temp_dir().join(name));
    }
}

fn names_in(directory: &Path, condition: impl Fn(u32) -> bool) -> Vec<String> {
    entries(directory)
        .filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned()))
        .filter(|name| maker(name).is_some_and(&condition))
        .collect()
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_unique_and_recognised() {
        let prefixes: Vec<_> = (0..60).map(|_| new_prefix()).collect();
        for (index, prefix) in prefixes.iter().enumerate() {
            assert!(!prefixes[..index].contains(prefix), "{prefix} came twice");
            assert_eq!(
                maker(&format!("{prefix}-node")),
                Some(std::process::id()),
                "{prefix}"
            );
        }
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for name in [
            "node",
            "nw",
            "nw12",
            "nw12-node",
            "nwa-node",
            "cni-nw12a-x",
            "nw12a",
            "nw12A-x",
        ] {
            assert_eq!(maker(name), None, "{name}");
        }
    }
}
