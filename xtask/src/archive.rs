//! Debian's archive by an apt whose configuration, lists and downloads are all in one directory: the
//! machine's own package state is neither used nor changed. apt checks the signatures.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{printed, quiet};
use crate::toolchain::which;

/// What verifies the archive's signatures; package debian-archive-keyring.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Mirrors to try when the machine's own sources name none that has the release.
const DEFAULT_MIRRORS: [&str; 2] = [
    "http://deb.debian.org/debian",
    "http://archive.debian.org/debian",
];

/// A release of Debian, for one architecture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release {
    /// Its code name.
    pub(crate) suite: &'static str,
    /// Whether there is a suite of security updates, which has the newest packages.
    pub(crate) security: bool,
    /// Whether source packages are asked for, too.
    pub(crate) sources: bool,
    /// Debian's name of the architecture.
    pub(crate) architecture: &'static str,
}

/// An apt of our own.
#[derive(Debug)]
pub(crate) struct Apt {
    /// Where all of it is.
    pub(crate) directory: PathBuf,
}

// === impl Apt ===

impl Apt {
    /// Prepares one in an empty directory.
    pub(crate) fn new(directory: &Path, release: Release, mirror: &str) -> Result<Self> {
        empty(directory)?;
        for name in ["state/lists/partial", "cache/archives/partial", "sources"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let types = if release.sources {
            "deb deb-src"
        } else {
            "deb"
        };
        let architecture = release.architecture;
        let stanza = |uri: &str, suite: &str| {
            format!(
                "Types: {types}\nURIs: {uri}\nSuites: {suite}\nComponents: main\n\
                 Architectures: {architecture}\nSigned-By: {KEYRING}\n\n"
            )
        };
        let mut sources = stanza(mirror, release.suite);
        if release.security {
            let suite = format!("{}-security", release.suite);
            sources.push_str(&stanza(&format!("{mirror}-security"), &suite));
        }
        fs::write(directory.join("sources/archive.sources"), sources)?;
        fs::write(directory.join("status"), "")?;
        let path = directory.display();
        let configuration = format!(
            "Dir::State \"{path}/state\";\nDir::State::status \"{path}/status\";\n\
             Dir::Cache \"{path}/cache\";\nDir::Etc::sourcelist \"/dev/null\";\n\
             Dir::Etc::sourceparts \"{path}/sources\";\nDir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nAPT::Architecture \"{architecture}\";\n\
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

    /// A program of apt, with this configuration.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.directory.join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }

    /// Fetches the package lists.
    pub(crate) fn update(&self) -> Result<()> {
        quiet(self.command("apt-get").args(["update", "-qq"])).map(drop)
    }

    /// Fetches packages and unpacks them into one tree, without running their scripts.
    pub(crate) fn unpack(&self, packages: &[impl AsRef<str>], tree: &Path) -> Result<()> {
        let downloads = self.directory.join("downloads");
        empty(&downloads)?;
        let mut fetch = self.command("apt-get");
        fetch.args(["download", "-qq"]);
        fetch.args(packages.iter().map(AsRef::as_ref));
        quiet(fetch.current_dir(&downloads))?;
        for entry in fs::read_dir(&downloads)? {
            quiet(Command::new("dpkg").arg("-x").arg(entry?.path()).arg(tree))?;
        }
        fs::remove_dir_all(&downloads).context("cannot remove what was downloaded")
    }

    /// Fetches a source package, as it is, into an empty directory.
    pub(crate) fn source(&self, package: &str, directory: &Path) -> Result<()> {
        empty(directory)?;
        let mut fetch = self.command("apt-get");
        fetch.args(["source", "-qq", "--download-only", package]);
        quiet(fetch.current_dir(directory)).map(drop)
    }

    /// Names of the packages that the newest version of a package depends on.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = printed(
            self.command("apt-cache")
                .args(["show", "--no-all-versions", package]),
        )?;
        Ok(depends(&text))
    }
}

/// Tries the mirrors one after another until one does; the error tells what each answered.
pub(crate) fn from_any_mirror<T>(mut fetch: impl FnMut(&str) -> Result<T>) -> Result<T> {
    if let Some(program) = ["apt-get", "dpkg"]
        .iter()
        .find(|name| which(name).is_none())
    {
        bail!("there is no {program} here: Debian's archive can be read on Debian and Ubuntu only");
    }
    if !Path::new(KEYRING).is_file() {
        bail!(
            "{KEYRING} is missing, which verifies Debian's archive: install debian-archive-keyring"
        );
    }
    let mut causes = Vec::new();
    for mirror in mirrors() {
        match fetch(&mirror) {
            Ok(fetched) => return Ok(fetched),
            Err(error) => causes.push(format!("{mirror}: {error:#}")),
        }
    }
    bail!(
        "cannot fetch it (no network?); tried\n  {}",
        causes.join("\n  ")
    )
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
    let mut seen = BTreeSet::new();
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

/// Makes a directory that is empty.
pub(crate) fn empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
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
