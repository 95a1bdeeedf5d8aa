//! Control groups named as a kubelet names those of its pods, in the machine's unified hierarchy.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Guard, Lab, Namespace, wait};

/// How long the processes of a group may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A group of a lab; it and the lab's groups above it are removed when this is dropped.
#[derive(Debug)]
pub struct Cgroup {
    root: PathBuf,
    path: PathBuf,
}

/// Where the unified hierarchy is mounted, if it is.
pub fn unified() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

// === impl Cgroup ===

impl Cgroup {
    /// Makes a group at a path below one of the lab's own.
    pub fn new(lab: &Lab, path: &str) -> Result<Self> {
        let mount = unified().context("no unified hierarchy is mounted")?;
        let root = mount.join(lab.prefix());
        let path = root.join(path);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { root, path })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a line of bash in a namespace, as a process of this group.
    pub fn bash(&self, namespace: &Namespace, line: &str) -> Result<Guard> {
        let mut command: Command = namespace.command("bash");
        let enter = format!("echo $$ > {}/cgroup.procs || exit 9", self.path.display());
        command.arg("-c").arg(format!("{enter}; {line}"));
        namespace.spawn("bash", &mut command)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A group is removed once its last process is gone.
        let removed = wait::until("the group to be empty", PATIENCE, || {
            fs::remove_dir(&self.path).is_ok().then_some(())
        });
        if removed.is_err() {
            eprintln!("left: {}", self.path.display());
        }
        let above = self.path.ancestors().skip(1);
        for path in above.take_while(|path| path.starts_with(&self.root)) {
            // Another group of the lab may be in it.
            if fs::remove_dir(path).is_err() {
                return;
            }
        }
    }
}
