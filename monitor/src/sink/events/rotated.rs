//! A file that makes room: its predecessors are kept, a few of them.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Files that are kept beside the one that is written.
const KEPT: u32 = 4;

/// A file with its predecessors: `name`, `name.1` and so on, the oldest last.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    file: fs::File,
    written: u64,
    most: u64,
}

// === impl Rotated ===

impl Rotated {
    pub(super) fn open(path: &Path, most: u64) -> io::Result<Self> {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            written,
            most,
        })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.written > 0 && self.written.saturating_add(length) > self.most {
            self.rotate()?;
        }
        let mut rest = line;
        while !rest.is_empty() {
            let error = match self.file.write(rest) {
                Ok(count @ 1..) => {
                    rest = rest.get(count..).unwrap_or_default();
                    continue;
                }
                Ok(_) => io::ErrorKind::WriteZero.into(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            return Err(self.take_back(line.len() - rest.len(), error));
        }
        self.written += length;
        Ok(())
    }

    /// Takes back the bytes of a line of which the rest cannot be written, lest the next line join
    /// them.
    fn take_back(&self, count: usize, error: io::Error) -> io::Error {
        if count > 0
            && let Ok(about) = self.file.metadata()
            && about.is_file()
            // Where that fails, too, the file has half a line: told by the same warning and counter.
            && let Err(second) = self.file.set_len(about.len().saturating_sub(count as u64))
        {
            return second;
        }
        error
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let is_there = |path: &Path| match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        // Someone else may have taken it away: then it is only to be made anew.
        if is_there(&self.path)? {
            // No further than to the first number that is free: trying again and again moves nothing.
            let mut free = 1;
            while free < KEPT && is_there(&numbered(free))? {
                free += 1;
            }
            for number in (1..free).rev() {
                fs::rename(numbered(number), numbered(number + 1))?;
            }
            match fs::rename(&self.path, numbered(1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        *self = Self::open(&self.path, self.most)?;
        Ok(())
    }
}
