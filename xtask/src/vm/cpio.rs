//! The "newc" archive that the kernel unpacks as its first file system.

use std::collections::BTreeSet;

/// Kind and permissions of an entry, as in `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive being written. Parent directories appear by themselves.
#[derive(Debug, Default, Clone)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
    inode: u32,
}

// === impl Archive ===

impl Archive {
    /// Adds a directory.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, &[]);
    }

    /// Adds an executable file; the first of a name stays.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, EXECUTABLE, content);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK, target.as_bytes());
    }

    /// Whether there is an entry of this name.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.names.contains(path.trim_start_matches('/'))
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.header("TRAILER!!!", 0, 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_start_matches('/').to_owned();
        if name.is_empty() || self.names.contains(&name) {
            return;
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent);
        }
        self.header(&name, mode, content.len());
        self.bytes.extend_from_slice(content);
        self.pad();
        self.names.insert(name);
    }

    fn header(&mut self, name: &str, mode: u32, size: usize) {
        use std::fmt::Write as _;
        self.inode += 1;
        let mut header = String::from("070701");
        // inode, mode, uid, gid, links, mtime, size, device (4 fields), length of the name, checksum
        let links = usize::from(mode != 0);
        let numbers = [
            self.inode as usize,
            mode as usize,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        for number in numbers {
            // writing to a String cannot fail
            let _ = write!(header, "{number:08x}");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_parents_come_first() {
        let mut archive = Archive::default();
        archive.file("/a/b/program", b"12345");
        archive.file("/a/b/program", b"again");
        archive.link("/sh", "/a/b/program");
        assert!(archive.contains("/a/b") && !archive.contains("/c"));
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).expect("only ASCII went in");
        let at = |needle: &str| text.find(needle).expect("entry is in the archive");
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/program\0"));
        assert!(!text.contains("again") && text.contains("TRAILER!!!"));
        assert_eq!(text.matches("070701").count(), 5);
    }
}
