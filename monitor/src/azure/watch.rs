//! Whether files changed.
//!
//! Files are looked at, not listened to: a ConfigMap changes by a link that is swapped above the
//! file, network file systems tell nothing, and a file may come later than its folder.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{Sources, chosen};

/// The state in which files were last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    files: Vec<(PathBuf, Option<Seen>)>,
}

/// What tells that a file is the same; links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
    changed_ns: i64,
}

// === impl Watch ===

impl Watch {
    /// The state of the files of these sources now.
    pub fn new(sources: &Sources) -> Self {
        Self::of(sources.files().map(|file| chosen(file).0.into()))
    }

    /// The state of these files now.
    pub fn of(files: impl Iterator<Item = PathBuf>) -> Self {
        let files = files.map(|file| {
            let now = seen(&file);
            (file, now)
        });
        Self {
            files: files.collect(),
        }
    }

    /// Looks at these files from now on. Those that were looked at before count as last seen then, so
    /// that no change between is missed.
    pub fn rename(&mut self, files: impl Iterator<Item = PathBuf>) {
        let mut renamed = Self::of(files);
        for (file, last) in &mut renamed.files {
            if let Some((_, before)) = self.files.iter().find(|(before, _)| before == file) {
                last.clone_from(before);
            }
        }
        *self = renamed;
    }

    /// Whether any file is another one than last time, or other in content.
    pub fn is_changed(&mut self) -> bool {
        let mut is_changed = false;
        for (file, last) in &mut self.files {
            let now = seen(file);
            if now != *last {
                *last = now;
                is_changed = true;
            }
        }
        is_changed
    }
}

fn seen(file: &Path) -> Option<Seen> {
    let metadata = fs::metadata(file).ok()?;
    Some(Seen {
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: metadata.modified().ok(),
        changed_ns: metadata.ctime_nsec(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_change_is_seen_once_also_by_a_swapped_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).expect("a folder");
            fs::write(at(version).join("nsg.json"), version).expect("written");
        }
        symlink("v1", at("..data")).expect("a link");
        symlink("..data/nsg.json", at("nsg.json")).expect("a link");
        let sources = Sources {
            nsg: vec![format!("subnet={}#name", at("nsg.json").display())],
            ..Sources::default()
        };
        let mut watch = Watch::new(&sources);
        assert!(!watch.is_changed());
        symlink("v2", at("..new")).expect("a link");
        fs::rename(at("..new"), at("..data")).expect("swapped");
        assert!(watch.is_changed());
        assert!(!watch.is_changed());
        fs::write(at("v2/nsg.json"), "longer").expect("written");
        assert!(watch.is_changed());
        fs::remove_file(at("nsg.json")).expect("removed");
        assert!(watch.is_changed());
        assert!(!watch.is_changed());
    }
}
