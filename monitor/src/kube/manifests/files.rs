//! Files and directories of manifests.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::Reader;

/// Largest file in bytes: a list of 10,000 pods has about 100 MB.
pub(super) const MAX_FILE: usize = 512 << 20;
/// Deepest directory.
const MAX_DEPTH: usize = 32;
/// Most entries of all directories.
const MAX_ENTRIES: usize = 1_000_000;
/// Ends of names of files that are read in a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Why manifests cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file or directory that was asked for.
    #[error("{path}: {source}")]
    Path {
        /// The path.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// A directory has more in it than manifests can be.
    #[error("{path}: more than {MAX_ENTRIES} files: name the directory with the manifests")]
    TooMany {
        /// The directory that was asked for.
        path: String,
    },
}

/// What tells whether files changed: their names, times, sizes and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<FileStamp>)>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileStamp {
    modified: Option<std::time::SystemTime>,
    length: u64,
    number: (u64, u64),
}

// === impl Stamp ===

impl Stamp {
    /// Of the files that would be read now.
    pub fn of(paths: &[PathBuf]) -> Self {
        let mut files = Vec::new();
        for path in paths {
            if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
                let mut walk = Walk::default();
                // What cannot be read is told of by the reader.
                if walk.directory(path, 0).is_ok() {
                    files.extend(walk.files);
                }
            } else {
                files.push(path.clone());
            }
        }
        Self(
            files
                .into_iter()
                .map(|path| {
                    let stamp = fs::metadata(&path).ok().map(|metadata| FileStamp {
                        modified: metadata.modified().ok(),
                        length: metadata.len(),
                        number: (metadata.dev(), metadata.ino()),
                    });
                    (path, stamp)
                })
                .collect(),
        )
    }
}

/// Reads what is at a path.
pub(super) fn each(path: &Path, reader: &mut Reader) -> Result<(), ManifestError> {
    let failed = |source| ManifestError::Path {
        path: path.display().to_string(),
        source,
    };
    if path.as_os_str() == "-" {
        let bytes = crate::stdin::take().and_then(bounded).map_err(failed)?;
        bytes_of("standard input", bytes, reader);
        return Ok(());
    }
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        let bytes = File::open(path).and_then(bounded).map_err(failed)?;
        bytes_of(&path.display().to_string(), bytes, reader);
        return Ok(());
    }
    let mut walk = Walk::default();
    walk.directory(path, 0).map_err(failed)?;
    if walk.entries > MAX_ENTRIES {
        let path = path.display().to_string();
        return Err(ManifestError::TooMany { path });
    }
    if walk.files.is_empty() && walk.failed.is_empty() {
        reader.empty(&path.display().to_string());
    }
    for path in walk.files {
        let name = path.display().to_string();
        match File::open(&path).and_then(bounded) {
            Ok(bytes) => bytes_of(&name, bytes, reader),
            Err(error) => reader.broken(&name, None, error.to_string()),
        }
    }
    for (path, error) in walk.failed {
        reader.broken(&path.display().to_string(), None, error.to_string());
    }
    Ok(())
}

fn bytes_of(name: &str, bytes: Vec<u8>, reader: &mut Reader) {
    match String::from_utf8(bytes) {
        Ok(text) => reader.text(name, &text),
        Err(error) => {
            let bytes = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = bytes.split(|byte| *byte == b'\n').count();
            let line = u64::try_from(line).ok();
            reader.broken(name, line, "is no text in UTF-8".to_owned());
        }
    }
}

/// All bytes, unless they are too many.
fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    let read = reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if read > MAX_FILE {
        let megabytes = MAX_FILE >> 20;
        return Err(io::Error::other(format!(
            "is larger than {megabytes} MiB: split it"
        )));
    }
    Ok(bytes)
}

/// Files of a directory and all below, in the order of their names.
#[derive(Default)]
struct Walk {
    files: Vec<PathBuf>,
    failed: Vec<(PathBuf, io::Error)>,
    /// Directories by their true paths: links may lead back.
    seen: HashSet<PathBuf>,
    entries: usize,
}

// === impl Walk ===

impl Walk {
    fn directory(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        if !self.seen.insert(fs::canonicalize(path)?) {
            return Ok(());
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // Hidden files are not meant: version control, and the versions of a mounted ConfigMap.
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(entry.path());
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Ok(());
            }
        }
        paths.sort();
        for path in paths {
            let is_named = path
                .extension()
                .and_then(|extension| extension.to_str())
                .is_some_and(|extension| {
                    EXTENSIONS
                        .iter()
                        .any(|known| known.eq_ignore_ascii_case(extension))
                });
            // Links are followed.
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    if depth >= MAX_DEPTH {
                        let error = io::Error::other("is nested too deeply");
                        self.failed.push((path, error));
                    } else if let Err(error) = self.directory(&path, depth + 1) {
                        self.failed.push((path, error));
                    }
                }
                Ok(metadata) if metadata.is_file() && is_named => self.files.push(path),
                Err(error) if is_named => self.failed.push((path, error)),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}
