//! What a process holds in the kernel: descriptors, BPF links, maps and their entries.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};

use crate::bpf::{self, Entry, MapInfo};

/// A count of what a process holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Open descriptors, as their link targets, sorted.
    pub files: Vec<String>,
    /// BPF links among them.
    pub links: usize,
    /// BPF programs among them.
    pub programs: BTreeSet<u32>,
    /// BPF maps among them.
    pub maps: BTreeSet<u32>,
}

// === impl Held ===

impl Held {
    /// Looks at a process.
    pub fn by(pid: u32) -> Result<Self> {
        let directory = format!("/proc/{pid}/fd");
        let entries = fs::read_dir(&directory).with_context(|| format!("no {directory}"))?;
        let mut held = Self {
            files: Vec::new(),
            links: 0,
            programs: BTreeSet::new(),
            maps: BTreeSet::new(),
        };
        for entry in entries.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else {
                continue;
            };
            held.files.push(target.to_string_lossy().into_owned());
            let number = entry.file_name().to_string_lossy().into_owned();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
            let info = info.unwrap_or_default();
            let field = |name: &str| {
                let line = info.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|value| value.trim().parse::<u32>().ok())
            };
            if info.lines().any(|line| line.starts_with("link_type:")) {
                held.links += 1;
            } else if let Some(id) = field("map_id:") {
                held.maps.insert(id);
            } else if let Some(id) = field("prog_id:") {
                held.programs.insert(id);
            }
        }
        held.files.sort();
        Ok(held)
    }

    /// The map of a name.
    pub fn map(&self, name: &str) -> Result<MapInfo> {
        self.maps
            .iter()
            .filter_map(|id| bpf::map_info(*id).ok())
            .find(|info| info.name == name)
            .with_context(|| format!("the process has no map {name}"))
    }

    /// The entries of the map of a name.
    pub fn entries(&self, name: &str) -> Result<Vec<Entry>> {
        bpf::map_entries(self.map(name)?.id)
    }

    /// In how many entries of an array the first word is not zero: its slots in use.
    pub fn slots_in_use(&self, name: &str) -> Result<usize> {
        let entries = self.entries(name)?;
        Ok(entries
            .iter()
            .filter(|(_, value)| value.iter().take(4).any(|byte| *byte != 0))
            .count())
    }
}
