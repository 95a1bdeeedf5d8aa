//! Control groups that a lab made, in every hierarchy that this machine has mounted (v1 and v2).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Mount points of all hierarchies.
pub(super) fn roots() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
        })
        .collect()
}

/// Makes a group of this name at the top of each hierarchy.
pub fn create(name: &str) -> Result<()> {
    for root in roots() {
        let group = root.join(name);
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // A new cpuset has neither processors nor memory, and then no process can enter it.
        for key in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(root.join(key)) {
                fs::write(group.join(key), all).with_context(|| format!("cannot set {key}"))?;
            }
        }
    }
    Ok(())
}

/// Removes the group and all below it; processes in them have been ended before.
pub fn remove(name: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    for root in roots() {
        let group = root.join(name);
        // A group is busy until the kernel has buried the last of its processes.
        while group.is_dir() && !remove_tree(&group) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn remove_tree(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok()
}
