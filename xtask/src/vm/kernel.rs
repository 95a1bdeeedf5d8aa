//! Kernels from the Debian archive. A kernel is fetched once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::archive::{self, Apt, Release, empty};
use crate::shell::step;
use crate::workspace::Workspace;

/// The package that depends on a release's newest kernel for virtual machines.
const META: &str = "linux-image-cloud-amd64";
/// A kernel of the matrix and where Debian has it.
#[derive(Debug)]
pub(crate) struct Source {
    /// Name in results and on the command line.
    pub(crate) name: &'static str,
    suite: &'static str,
    /// Whether there is a suite of security updates, which has the newest kernel.
    security: bool,
}

/// The matrix: the oldest Debian still has, the two stable ones, the newest.
pub(crate) const KERNELS: [Source; 4] = [
    Source {
        name: "5.10",
        suite: "bullseye",
        security: true,
    },
    Source {
        name: "6.1",
        suite: "bookworm",
        security: true,
    },
    Source {
        name: "6.12",
        suite: "trixie",
        security: true,
    },
    Source {
        name: "unstable",
        suite: "sid",
        security: false,
    },
];

/// A kernel that is ready to boot.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The kernel image.
    pub(crate) image: PathBuf,
    /// Its modules.
    pub(crate) modules: PathBuf,
}

/// Fetches a kernel unless it is cached.
pub(crate) fn fetch(source: &Source, refresh: bool) -> Result<Kernel> {
    let base = Workspace::cache().join("vm");
    let folder = base.join(source.name);
    if let (false, Some(kernel)) = (refresh, cached(&folder)) {
        return Ok(kernel);
    }
    step(
        &format!("fetch kernel {} from Debian {}", source.name, source.suite),
        || {
            let apt = base.join("apt").join(source.name);
            archive::from_any_mirror(|mirror| download(source, mirror, &apt, &folder))
        },
    )
}

fn cached(folder: &Path) -> Option<Kernel> {
    let kernel = Kernel {
        image: folder.join("vmlinuz"),
        modules: folder.join("modules"),
    };
    (kernel.image.is_file() && kernel.modules.is_dir()).then_some(kernel)
}

fn download(source: &Source, mirror: &str, apt: &Path, folder: &Path) -> Result<Kernel> {
    let release = Release {
        suite: source.suite,
        security: source.security,
        sources: false,
        architecture: "amd64",
    };
    let apt = Apt::new(apt, release, mirror)?;
    apt.update()?;
    let image = apt
        .depends(META)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{META} names no kernel"))?;
    // one package up to 6.x; since 7.x an empty one that depends on the image and on the modules
    let parts: Vec<String> = apt
        .depends(&image)?
        .into_iter()
        .filter(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-"))
        .collect();
    let packages = if parts.is_empty() { vec![image] } else { parts };

    let unpacked = apt.directory.join("unpacked");
    empty(&unpacked)?;
    apt.unpack(&packages, &unpacked)?;

    let modules = ["usr/lib/modules", "lib/modules"]
        .iter()
        .find_map(|path| only_entry(&unpacked.join(path)))
        .context("the package holds no modules")?;
    let release = modules.file_name().unwrap_or_default().to_os_string();
    let mut in_boot = std::ffi::OsString::from("vmlinuz-");
    in_boot.push(&release);
    let image = [modules.join("vmlinuz"), unpacked.join("boot").join(in_boot)]
        .into_iter()
        .find(|file| file.is_file())
        .context("the package holds no kernel image")?;

    empty(folder)?;
    fs::rename(&modules, folder.join("modules.part"))?;
    let image = if image.starts_with(&modules) {
        folder.join("modules.part/vmlinuz")
    } else {
        image
    };
    fs::rename(&image, folder.join("vmlinuz"))?;
    // last: this is what marks the kernel as complete
    fs::rename(folder.join("modules.part"), folder.join("modules"))?;
    fs::remove_dir_all(&apt.directory)?;
    cached(folder).context("the kernel vanished from the cache")
}

fn only_entry(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .next()?
        .ok()
        .map(|entry| entry.path())
}
