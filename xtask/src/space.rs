//! Whether there is room, asked before the work rather than found out in the middle of it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;

const MIB: u64 = 1 << 20;

/// What a run of everything leaves behind or holds at a time, measured and rounded up.
const TARGET: Need = Need {
    what: "to build and test",
    whole: 6144 * MIB,
    least: 1024 * MIB,
    elsewhere: "CARGO_TARGET_DIR",
};
const CACHE: Need = Need {
    what: "for tools and kernels",
    whole: 1024 * MIB,
    least: 64 * MIB,
    elsewhere: "NODEWATCH_CACHE",
};
const TEMPORARY: Need = Need {
    what: "for what tests write",
    whole: 1536 * MIB,
    least: 1536 * MIB,
    elsewhere: "TMPDIR",
};

/// How much room a directory needs.
#[derive(Debug, Clone, Copy)]
struct Need {
    what: &'static str,
    /// In bytes, where nothing is there yet.
    whole: u64,
    /// In bytes, however much is there already.
    least: u64,
    /// The variable that moves the directory.
    elsewhere: &'static str,
}

/// A directory, and what it still needs.
#[derive(Debug)]
struct Place {
    directory: PathBuf,
    need: Need,
    /// In bytes.
    missing: u64,
    /// Its file system, and the bytes that are free there.
    device: u64,
    free: u64,
}

/// Refuses to start where there is no room for a run of all tests; one message names each
/// directory, what is free and what is needed.
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    let places = [
        Place::of(workspace.target(), TARGET)?,
        Place::of(&Workspace::cache(), CACHE)?,
        Place::of(&std::env::temp_dir(), TEMPORARY)?,
    ];
    match lack(&places) {
        Some(message) => bail!(message),
        None => Ok(()),
    }
}

/// What is wrong, if there is too little room somewhere. Directories on one file system share it.
fn lack(places: &[Place]) -> Option<String> {
    let mut message = String::new();
    for place in places {
        let on_same = places.iter().filter(|other| other.device == place.device);
        let needed: u64 = on_same.map(|other| other.missing).sum();
        if place.free >= needed {
            continue;
        }
        let _ = write!(
            message,
            "\n  {}: {} needed {}, {} free on its file system",
            place.directory.display(),
            human(place.missing),
            place.need.what,
            human(place.free),
        );
        if needed > place.missing {
            let _ = write!(message, ", of which {} in all are needed", human(needed));
        }
        let _ = write!(message, " ({} moves it)", place.need.elsewhere);
    }
    (!message.is_empty()).then(|| format!("too little room on disk:{message}"))
}

// === impl Place ===

impl Place {
    fn of(directory: &Path, need: Need) -> Result<Self> {
        let present = if need.whole > need.least {
            size(directory)
        } else {
            0
        };
        // It may not exist yet: its nearest ancestor that does is on the same file system.
        let there = directory.ancestors().find(|ancestor| ancestor.is_dir());
        let there = there.unwrap_or(Path::new("/"));
        let asked = || format!("cannot ask how much is free on {}", there.display());
        let device = fs::metadata(there).with_context(asked)?.dev();
        let system = rustix::fs::statvfs(there).with_context(asked)?;
        Ok(Self {
            directory: directory.to_path_buf(),
            need,
            missing: need.whole.saturating_sub(present).max(need.least),
            device,
            free: system.f_bavail.saturating_mul(system.f_frsize),
        })
    }
}

/// Bytes that the files below a directory take; those that cannot be read take none.
fn size(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut left = vec![directory.to_path_buf()];
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => left.push(entry.path()),
                Ok(metadata) => bytes += metadata.blocks() * 512 / metadata.nlink().max(1),
                Err(_) => {}
            }
        }
    }
    bytes
}

fn human(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 30);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &str, need: Need, device: u64, free: u64) -> Place {
        Place {
            directory: directory.into(),
            need,
            missing: need.whole,
            device,
            free,
        }
    }

    #[test]
    fn what_lacks_room_is_named_with_what_is_free_and_needed() {
        let places = [
            place("/build", TARGET, 1, 2048 * MIB),
            place("/cache", CACHE, 2, 4096 * MIB),
            place("/scratch", TEMPORARY, 3, 1536 * MIB),
        ];
        assert_eq!(
            lack(&places).as_deref(),
            Some(
                "too little room on disk:\n  /build: 6.0 GiB needed to build and test, 2.0 GiB \
                 free on its file system (CARGO_TARGET_DIR moves it)"
            )
        );
    }

    #[test]
    fn directories_on_one_file_system_share_its_room() {
        let all = |free| {
            [
                place("/a", TARGET, 1, free),
                place("/b", CACHE, 1, free),
                place("/c", TEMPORARY, 1, free),
            ]
        };
        assert_eq!(lack(&all(8704 * MIB)), None);
        let message = lack(&all(8703 * MIB)).expect("a MiB too little");
        assert_eq!(message.matches("8.5 GiB in all").count(), 3, "{message}");
    }

    #[test]
    fn what_is_there_is_not_needed_again() {
        let directory =
            std::env::temp_dir().join(format!("nodewatch-space-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("file"), vec![1; 2 << 20]).expect("two MiB");
        let need = Need {
            whole: 5 * MIB,
            least: MIB,
            ..TARGET
        };
        let missing = |directory: &Path| Place::of(directory, need).expect("a place").missing;
        let found = missing(&directory);
        assert!((3 * MIB - 65_536..=3 * MIB).contains(&found), "{found}");
        assert_eq!(missing(&directory.join("not/yet")), 5 * MIB);
        fs::remove_dir_all(&directory).expect("removed");
    }
}
