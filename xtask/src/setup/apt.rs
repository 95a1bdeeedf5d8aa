//! Debian's package manager: as root or through sudo, without starting a service.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::bpf;
use crate::setup::packages::Need;
use crate::shell::{printed, quiet};
use crate::toolchain::which;

/// Installs packages while `policy-rc.d` forbids starting services, and puts the machine's own policy back
/// whatever happens, an interrupt included. A run that was killed is cleaned up by the next.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
saved=$policy.before-nodewatch
mark='set by the set-up of nodewatch'
restore() {
    if grep -qs "$mark" "$policy"; then rm -f "$policy"; fi
    if [ -e "$saved" ]; then mv -f "$saved" "$policy"; fi
}
restore
trap restore EXIT
trap 'exit 130' INT TERM HUP
if [ -e "$policy" ]; then mv "$policy" "$saved"; fi
printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >"$policy"
chmod 755 "$policy"
apt-get install -y -qq --no-install-recommends "$@"
"#;

/// apt on this machine.
#[derive(Debug)]
pub(crate) struct Apt {
    sudo: bool,
    /// What a human types when it does not work from here.
    by_hand: String,
}

// === impl Apt ===

impl Apt {
    /// For what is missing; checks that packages can be installed at all, else says what to do.
    pub(crate) fn new(missing: &[&Need], compiler: bool) -> Result<Self> {
        let mut packages: Vec<&str> = missing.iter().map(|need| need.packages[0]).collect();
        if compiler {
            packages.extend(bpf::PREBUILT);
        }
        unique(&mut packages);
        Self::checked(
            &packages.join(" "),
            if compiler { bpf::WITHOUT_PACKAGES } else { "" },
        )
    }

    /// As [`Self::new`], for packages by name.
    pub(crate) fn for_packages(packages: &[String]) -> Result<Self> {
        Self::checked(&packages.join(" "), bpf::WITHOUT_PACKAGES)
    }

    fn checked(packages: &str, or_else: &str) -> Result<Self> {
        if which("apt-get").is_none() {
            bail!(
                "this is not Debian or Ubuntu, so it cannot be set up from here. Install with the \
                 system's own package manager what these Debian packages bring, then run the same \
                 command again:\n  {packages}{or_else}"
            );
        }
        let by_hand =
            format!("apt-get update && apt-get install -y --no-install-recommends {packages}");
        let sudo = !is_root();
        if sudo && quiet(Command::new("sudo").args(["-n", "true"])).is_err() {
            bail!(
                "packages are missing, and installing them needs root. Run this, then the same command \
                 again:\n  sudo sh -c '{by_hand}'{or_else}"
            );
        }
        Ok(Self { sudo, by_hand })
    }

    /// Fetches the package lists.
    pub(crate) fn update(&mut self) -> Result<()> {
        quiet(self.command("apt-get").args(["update", "-qq"]))
            .map(|_| ())
            .with_context(|| self.hint())
    }

    /// The packages to install: of each need the first alternative that the system offers, and of the
    /// optional set all or none.
    pub(crate) fn choose(missing: &[&Need], optional: &[&str]) -> Result<Vec<String>> {
        let mut chosen = Vec::new();
        let mut unknown = Vec::new();
        for need in missing {
            match need.packages.iter().find(|package| offers(package)) {
                Some(package) => chosen.push((*package).to_owned()),
                None => unknown.push(need.packages.join(" or ")),
            }
        }
        if !unknown.is_empty() {
            bail!(
                "this system's package sources do not offer {}; add a source that does, or install it \
                 another way",
                unknown.join(", ")
            );
        }
        if optional.iter().all(|package| offers(package)) {
            chosen.extend(optional.iter().map(|package| (*package).to_owned()));
        }
        unique(&mut chosen);
        Ok(chosen)
    }

    /// Installs packages; nothing that they bring is started.
    pub(crate) fn install(&self, packages: &[String]) -> Result<()> {
        let mut shell = self.command("sh");
        shell.args(["-c", INSTALL, "install"]).args(packages);
        quiet(&mut shell).map(|_| ()).with_context(|| self.hint())
    }

    /// Keeps the services of new packages from starting at the next boot.
    pub(crate) fn keep_disabled(&self, missing: &[&Need]) -> Result<()> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Ok(());
        }
        for service in missing.iter().filter_map(|need| need.service) {
            // absent when the package brings no unit
            if quiet(Command::new("systemctl").args(["cat", service])).is_ok() {
                quiet(
                    self.command("systemctl")
                        .args(["disable", "--quiet", service]),
                )?;
            }
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(if self.sudo { "sudo" } else { "env" });
        if self.sudo {
            command.args(["-n", "env"]);
        }
        command.args(["DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", program]);
        command
    }

    fn hint(&self) -> String {
        format!(
            "cannot install packages from here (no network, or no package mirror?). When the machine \
             can, run as root:\n  {}\nand the same command again",
            self.by_hand
        )
    }
}

/// Whether the package lists know an installable package of this name.
pub(crate) fn offers(package: &str) -> bool {
    let shown = printed(Command::new("apt-cache").args(["show", "--no-all-versions", package]));
    shown.is_ok_and(|text| !text.trim().is_empty())
}

/// Keeps the first of equal names; two needs may come from one package.
fn unique<T: Clone + Ord>(names: &mut Vec<T>) {
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
