//! A machine to run a node on: a network namespace, with mounts and process numbers of its own.
//!
//! Its first process ends all others with it, whatever they are: daemons, shims, containers in network
//! namespaces of their own. What they mount goes with the mount namespace. kubelet sets sysctls that are the
//! whole machine's; in here files lie over them that have the values it wants, so that it writes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::process::{self, Guard};
use crate::lab::{Namespace, hierarchy, wait};

/// How long the first process may take to prepare the mounts.
const START: Duration = Duration::from_secs(10);

/// Prepares the mounts, then is the init: it buries orphans.
const INIT: &str = r#"
set -e
base=$1; shift
mount -t tmpfs nodewatch "$base"
mkdir "$base/sys"
for directory in /run /var/log /var/lib/kubelet; do
    [ -d "$directory" ] || continue
    mount -t tmpfs nodewatch "$directory"
done
mkdir -p /run/netns /run/lock /var/log/pods /var/log/containers
for pair in "$@"; do
    file=$base/sys/$(echo "${pair%%=*}" | tr / _)
    echo "${pair#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${pair%%=*}"
done
mount --make-rshared /
echo prepared
while :; do sleep 3600 & wait $!; done
"#;

/// What kubelet wants these to be, and would set on the whole machine.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory=1",
    "vm/panic_on_oom=0",
    "kernel/panic=10",
    "kernel/panic_on_oops=1",
    "kernel/keys/root_maxkeys=1000000",
    "kernel/keys/root_maxbytes=25000000",
];

/// A machine; everything on it ends with this value.
#[derive(Debug)]
pub struct Machine {
    name: String,
    base: PathBuf,
    logs: PathBuf,
    network: PathBuf,
    init: Guard,
    /// The first process, as the whole machine numbers it.
    pid: u32,
}

// === impl Machine ===

impl Machine {
    /// Starts the first process in a network namespace.
    pub(super) fn start(namespace: &Namespace) -> Result<Self> {
        let name = namespace.name().to_owned();
        let base = namespace.directory().join(format!("{name}-machine"));
        fs::create_dir(&base).context("cannot make the machine's directory")?;
        hierarchy::create(&name)?;
        let mut unshare = namespace.command("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        unshare.args(["--propagation", "private", "sh", "-c", INIT, "init"]);
        unshare.arg(&base).args(SYSCTLS);
        let log = namespace.directory().join(format!("{name}-init.log"));
        let mut init = process::spawn("init", &mut unshare, &log)?;
        if let Err(error) = init.wait_log("prepared", START) {
            hierarchy::remove(&name);
            return Err(error.context("cannot prepare the machine's mounts"));
        }
        let children = format!("/proc/{0}/task/{0}/children", init.pid());
        let child = fs::read_to_string(&children).unwrap_or_default();
        let Ok(pid) = child.trim().parse() else {
            bail!("unshare has no child: {child:?}");
        };
        Ok(Self {
            base,
            logs: namespace.directory().to_path_buf(),
            network: namespace.path(),
            name,
            init,
            pid,
        })
    }

    /// The namespace's name, which is also that of the control group of all its pods.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory in memory that only processes of this machine see.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// A command that runs on this machine.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid.to_string(), "--mount", "--pid"])
            .arg(format!("--net={}", self.network.display()))
            .arg("--")
            .arg(program);
        command
    }

    /// The containers' processes with this name, as the whole machine numbers them.
    pub fn pids_of(&self, program: &str) -> Result<Vec<u32>> {
        let group = format!("/{}/", self.name);
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc")
            .context("cannot read /proc")?
            .flatten()
        {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // A process may end while it is looked at.
            let read = |file| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            if read("comm").trim() == program && read("cgroup").contains(&group) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// Starts a command of [`Self::command`]; its output goes to a log in the lab's directory.
    pub(super) fn spawn(&self, label: &str, command: &mut Command) -> Result<Guard> {
        let log = self.logs.join(format!("{}-{label}.log", self.name));
        process::spawn(label, command, &log)
    }

    /// Writes a file below [`Self::base`] and tells where it is.
    pub(super) fn write(&self, path: &str, text: &str) -> Result<PathBuf> {
        let file = self.base.join(path);
        // The way in for what only the machine's own processes see.
        let outside = Path::new("/proc")
            .join(self.pid.to_string())
            .join("root")
            .join(file.strip_prefix("/").context("the path is absolute")?);
        if let Some(parent) = outside.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {path}'s folder"))?;
        }
        fs::write(&outside, text).with_context(|| format!("cannot write {path}"))?;
        Ok(file)
    }

    /// Ends every process and removes the control groups.
    fn end(&mut self) {
        self.init.kill();
        let gone = || (!Path::new(&format!("/proc/{}", self.pid)).exists()).then_some(());
        let _ = wait::until("the machine to be off", Duration::from_secs(5), gone);
        hierarchy::remove(&self.name);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}
