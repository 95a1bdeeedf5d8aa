//! `cargo xtask kube`: a real Kubernetes, from Debian's packages, in the cache directory.
//!
//! Debian bookworm is the last release whose `kubernetes` source package has all components; Debian builds
//! kubectl only. What belongs to a node beside them is there as binary packages. Nothing is installed on
//! the machine, nothing is started. apt verifies all of it by Debian's signatures.
//!
//! | module | does |
//! |---|---|
//! | [`source`] | repairs the source tree and compiles it |

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::archive::{self, Apt, Release, empty};
use crate::kube::source::Tree;
use crate::shell::{printed, step};
use crate::workspace::Workspace;

mod source;

/// Environment variable that tells the tests where the programs are.
pub(crate) const PROGRAMS: &str = "NODEWATCH_KUBE";
/// What the source package's programs say they are.
const VERSION: &str = "1.20.2";
/// Counts changes of the recipe: what an earlier one made is not used.
const RECIPE: u32 = 1;
/// Where it all comes from.
const SUITE: &str = "bookworm";
/// The compiler that the sources are built with.
const COMPILER: [&str; 2] = ["golang-1.19-go", "golang-1.19-src"];

/// Options of `cargo xtask kube`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these parts; all of them when none is named
    #[arg(value_enum)]
    parts: Vec<Part>,
}

/// What a use needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// kube-apiserver and etcd: a cluster without nodes
    Server,
    /// kubelet, controller-manager, scheduler, kube-proxy, containerd, runc, CNI plugins
    Node,
}

/// A program that the source package is compiled to.
const fn compiled(part: Part) -> &'static [&'static str] {
    match part {
        Part::Server => &["kube-apiserver"],
        Part::Node => &[
            "kubelet",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
        ],
    }
}

/// Binary packages, and which of their files are kept.
const fn packaged(part: Part) -> &'static [(&'static str, &'static [&'static str])] {
    match part {
        Part::Server => &[
            ("etcd-server", &["usr/bin/etcd"]),
            ("etcd-client", &["usr/bin/etcdctl"]),
        ],
        Part::Node => &[
            (
                "containerd",
                &[
                    "usr/bin/containerd",
                    "usr/bin/containerd-shim-runc-v2",
                    "usr/bin/ctr",
                ],
            ),
            ("runc", &["usr/sbin/runc"]),
            (
                "containernetworking-plugins",
                &[
                    "usr/lib/cni/bridge",
                    "usr/lib/cni/host-local",
                    "usr/lib/cni/loopback",
                    "usr/lib/cni/portmap",
                    "usr/lib/cni/ptp",
                ],
            ),
            ("busybox-static", &["bin/busybox"]),
        ],
    }
}

/// Makes sure of the parts and tells where they are.
pub(crate) fn run(options: &Options) -> Result<()> {
    let parts = match options.parts.as_slice() {
        [] => &[Part::Server, Part::Node],
        some => some,
    };
    let folder = ensure(parts)?;
    println!("{}", folder.display());
    for file in files(parts) {
        let size = fs::metadata(folder.join(file))?.len();
        println!("  {file:<24} {:>4} MiB", size / (1024 * 1024));
    }
    Ok(())
}

/// Where the programs are, or will be.
pub(crate) fn folder() -> PathBuf {
    Workspace::cache()
        .join("kube")
        .join(format!("{VERSION}-{RECIPE}"))
}

/// Fetches and builds what of the parts is not cached; quick when all is.
pub(crate) fn ensure(parts: &[Part]) -> Result<PathBuf> {
    let folder = folder();
    if missing(&folder, parts).is_empty() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let base = Workspace::cache().join("kube");
    let lock = File::create(base.join("lock")).context("cannot create the lock file")?;
    lock.lock().context("cannot wait for another build")?;
    // Another process may just have made them.
    let missing = missing(&folder, parts);
    if missing.is_empty() {
        return Ok(folder);
    }
    let work = Work::new(base.join("work"))?;
    make(&missing, &folder, &work.0).with_context(|| {
        format!(
            "cannot make {} from Debian {SUITE}. Tests that need a real API server cannot run; \
             `cargo xtask kube` tries again",
            missing.join(", ")
        )
    })?;
    Ok(folder)
}

/// A directory for what only building needs, some 2 GiB; it goes in any case.
struct Work(PathBuf);

// === impl Work ===

impl Work {
    fn new(directory: PathBuf) -> Result<Self> {
        empty(&directory)?;
        Ok(Self(directory))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// The files of the parts, by their names in the cache.
fn files(parts: &[Part]) -> Vec<&'static str> {
    parts
        .iter()
        .flat_map(|part| {
            let packaged = packaged(*part).iter().flat_map(|(_, files)| *files);
            compiled(*part)
                .iter()
                .copied()
                .chain(packaged.map(|file| base(file)))
        })
        .collect()
}

fn missing(folder: &Path, parts: &[Part]) -> Vec<&'static str> {
    let mut files = files(parts);
    files.retain(|file| !folder.join(file).is_file());
    files
}

fn make(missing: &[&str], folder: &Path, work: &Path) -> Result<()> {
    let wanted = |name: &str| missing.contains(&name);
    let both = [Part::Server, Part::Node];
    let programs: Vec<&str> = both
        .iter()
        .flat_map(|part| compiled(*part))
        .copied()
        .filter(|name| wanted(name))
        .collect();
    let packages: Vec<_> = both
        .iter()
        .flat_map(|part| packaged(*part))
        .filter(|(_, files)| files.iter().any(|file| wanted(base(file))))
        .collect();
    let tree = work.join("packages");
    let mut names: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
    if !programs.is_empty() {
        names.extend(COMPILER);
        names.push(source::REFLECT);
    }
    let release = Release {
        suite: SUITE,
        security: true,
        sources: !programs.is_empty(),
        architecture: architecture()?,
    };
    step(
        &format!("fetch {} from Debian {SUITE}", names.join(" ")),
        || {
            archive::from_any_mirror(|mirror| {
                let apt = Apt::new(&work.join("apt"), release, mirror)?;
                apt.update()?;
                apt.unpack(&names, &tree)?;
                if !programs.is_empty() {
                    apt.source(source::PACKAGE, &work.join("source"))?;
                }
                fs::remove_dir_all(&apt.directory).context("cannot remove the package lists")
            })
        },
    )?;
    for (_, files) in packages {
        for file in *files {
            keep(&tree.join(file), folder)?;
        }
    }
    if programs.is_empty() {
        return Ok(());
    }
    let sources = step("repair the source of Kubernetes", || {
        Tree::prepare(work, &tree)
    })?;
    step(
        &format!("build {} (some minutes, once)", programs.join(" ")),
        || sources.build(&programs, VERSION),
    )?;
    for program in programs {
        let file = sources.binaries().join(program);
        let says = printed(Command::new(&file).arg("--version"))?;
        if !says.contains(VERSION) {
            bail!("{program} says that it is {}", says.trim());
        }
        keep(&file, folder)?;
    }
    Ok(())
}

/// Puts a finished program into the cache, whole or not at all.
fn keep(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().context("a file has a name")?;
    let part = folder.join(format!("{}.part", name.to_string_lossy()));
    fs::copy(file, &part).with_context(|| format!("cannot copy {}", file.display()))?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755))?;
    fs::rename(&part, folder.join(name)).context("cannot rename a finished program")
}

fn base(path: &'static str) -> &'static str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Debian's name of this machine's architecture.
fn architecture() -> Result<&'static str> {
    match env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no recipe for {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_share_files() {
        let mut all = files(&[Part::Server, Part::Node]);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "{all:?}");
        assert!(all.contains(&"etcd") && all.contains(&"bridge"), "{all:?}");
    }
}
