//! Kernels from the Debian archive, by an apt whose configuration, lists and downloads are all in the
//! cache directory: the machine's own package state is neither used nor changed. A kernel is fetched once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{printed, quiet, step};
use crate::workspace::Workspace;

/// The package that depends on a release's newest kernel for virtual machines.
const META: &str = "linux-image-cloud-amd64";
/// Mirrors to try when the machine's own sources name none that has the release.
const DEFAULT_MIRRORS: [&str; 2] = [
    "http://deb.debian.org/debian",
    "http://archive.debian.org/debian",
];

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
            let mut causes = Vec::new();
            for mirror in mirrors() {
                match download(source, &mirror, &apt, &folder) {
                    Ok(kernel) => return Ok(kernel),
                    Err(error) => causes.push(format!("{mirror}: {error:#}")),
                }
            }
            bail!(
                "cannot fetch it (no network?); tried\n  {}",
                causes.join("\n  ")
            )
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
    let apt = Apt::new(apt, source, mirror)?;
    quiet(apt.command("apt-get").args(["update", "-qq"]))?;
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
    let downloads = apt.directory.join("downloads");
    for directory in [&unpacked, &downloads] {
        empty(directory)?;
    }
    quiet(
        apt.command("apt-get")
            .args(["download", "-qq"])
            .args(&packages)
            .current_dir(&downloads),
    )?;
    for entry in fs::read_dir(&downloads)? {
        quiet(
            Command::new("dpkg")
                .arg("-x")
                .arg(entry?.path())
                .arg(&unpacked),
        )?;
    }
    fs::remove_dir_all(&downloads)?;

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

/// The machine's own Debian mirrors first, then Debian's.
fn mirrors() -> Vec<String> {
    let mut found = Vec::new();
    let listed = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten();
    let files = listed
        .map(|entry| entry.path())
        .chain([PathBuf::from("/etc/apt/sources.list")]);
    for text in files
        .filter(|file| is_source(file))
        .filter_map(|file| fs::read_to_string(file).ok())
    {
        found.extend(debian_mirrors(&text));
    }
    found.extend(DEFAULT_MIRRORS.map(str::to_owned));
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|mirror| seen.insert(mirror.clone()));
    found
}

fn is_source(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "list" || extension == "sources")
}

/// Addresses in a list of package sources that end as Debian mirrors do.
fn debian_mirrors(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_end_matches('/'))
        .filter(|word| word.contains("://") && word.ends_with("/debian"))
        .map(str::to_owned)
        .collect()
}

fn only_entry(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory)
        .ok()?
        .next()?
        .ok()
        .map(|entry| entry.path())
}

fn empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

/// An apt of our own.
#[derive(Debug)]
struct Apt {
    directory: PathBuf,
}

// === impl Apt ===

impl Apt {
    fn new(directory: &Path, source: &Source, mirror: &str) -> Result<Self> {
        empty(directory)?;
        for name in ["state/lists/partial", "cache/archives/partial", "sources"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let stanza = |uri: &str, suite: &str| {
            format!(
                "Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\nArchitectures: amd64\n\
                 Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n"
            )
        };
        let mut sources = stanza(mirror, source.suite);
        if source.security {
            let suite = format!("{}-security", source.suite);
            sources.push_str(&stanza(&format!("{mirror}-security"), &suite));
        }
        fs::write(directory.join("sources/kernel.sources"), sources)?;
        fs::write(directory.join("status"), "")?;
        let path = directory.display();
        let configuration = format!(
            "Dir::State \"{path}/state\";\nDir::State::status \"{path}/status\";\n\
             Dir::Cache \"{path}/cache\";\nDir::Etc::sourcelist \"/dev/null\";\n\
             Dir::Etc::sourceparts \"{path}/sources\";\nDir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nAPT::Architecture \"amd64\";\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled \"false\";\n\
             Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled \"false\";\n\
             Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled \"false\";\n\
             APT::Update::Error-Mode \"any\";\nAcquire::Retries \"2\";\nAcquire::http::Timeout \"20\";\n"
        );
        fs::write(directory.join("apt.conf"), configuration)?;
        Ok(Self {
            directory: directory.to_path_buf(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.directory.join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }

    /// Names of the packages that the newest version of a package depends on.
    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = printed(
            self.command("apt-cache")
                .args(["show", "--no-all-versions", package]),
        )?;
        Ok(depends(&text))
    }
}

/// Package names of the `Depends` field, without versions.
fn depends(stanza: &str) -> Vec<String> {
    let field = stanza
        .lines()
        .find_map(|line| line.strip_prefix("Depends:"))
        .unwrap_or_default();
    field
        .split([',', '|'])
        .filter_map(|dependency| dependency.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_taken_from_both_formats() {
        let text = "# http://old.example/debian\nURIs: https://mirror.example/debian/\n\
                    deb [signed-by=/k] http://other.example/debian bookworm main\n\
                    deb http://other.example/ubuntu noble main\n";
        assert_eq!(
            debian_mirrors(text),
            [
                "https://mirror.example/debian",
                "http://other.example/debian"
            ]
        );
    }

    #[test]
    fn depends_gives_names_only() {
        let text =
            "Package: x\nDepends: linux-base (>= 4), a | b (= 1.2), linux-image-6.1.0-1 (= 6.1)\n";
        assert_eq!(
            depends(text),
            ["linux-base", "a", "b", "linux-image-6.1.0-1"]
        );
    }
}
