//! Installs what a command needs: system packages, components of the Rust toolchain, the BPF toolchain.
//!
//! Quick when all is there: a few look-ups of files. Without root,
//! without a package mirror or on another system it stops with one message that says what to do.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::setup::packages::{NEEDS, Need};
use crate::shell::{quiet, step};
use crate::workspace::Workspace;

mod apt;
mod bpf;
mod manifests;
mod packages;

/// What a part of the work needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Compilers for the daemon and the kernel program
    Build,
    /// rustfmt and clippy
    Lint,
    /// Programs that tests and the lab use: ip, tshark, iperf3, sshd, nginx and others
    Test,
    /// What renders and checks manifests: kubectl, Helm, kubernetes-validate
    Deploy,
    /// What builds the container image
    Image,
    /// What compiles for aarch64 on another machine (`cargo xtask image --arch aarch64`)
    Cross,
    /// What builds the targets for libFuzzer
    Fuzz,
    /// QEMU and what unpacks kernels
    Vm,
}

// === impl Group ===

impl Group {
    /// All of them but what only a foreign image needs.
    pub(crate) const ALL: &[Self] = &[
        Self::Build,
        Self::Lint,
        Self::Test,
        Self::Deploy,
        Self::Image,
        Self::Fuzz,
        Self::Vm,
    ];
}

/// Makes sure that the groups' needs are met.
pub(crate) fn ensure(workspace: &Workspace, groups: &[Group]) -> Result<()> {
    let missing: Vec<&Need> = NEEDS
        .iter()
        .filter(|need| groups.contains(&need.group) && !need.is_met())
        .collect();
    let compiler = groups.contains(&Group::Build) && bpf::lacks_compiler();
    if !missing.is_empty() || compiler {
        let mut apt = apt::Apt::new(&missing, compiler)?;
        step("package lists", || apt.update())?;
        let wanted = apt::Apt::choose(&missing, if compiler { &bpf::PREBUILT } else { &[] })?;
        if !wanted.is_empty() {
            step(&format!("install {}", wanted.join(" ")), || {
                apt.install(&wanted)
            })?;
            apt.keep_disabled(&missing)?;
        }
        let left: Vec<&str> = missing
            .iter()
            .filter(|need| !need.is_met())
            .map(|need| need.packages[0])
            .collect();
        if !left.is_empty() {
            bail!(
                "installed, but not found afterwards: {}; install them by hand",
                left.join(" ")
            );
        }
    }
    if groups.contains(&Group::Build) {
        bpf::ensure()?;
    }
    if groups.contains(&Group::Deploy) {
        manifests::ensure()?;
    }
    if groups.contains(&Group::Lint) {
        rust_components(workspace)?;
    }
    Ok(())
}

/// rustfmt and clippy, which a minimal rustup profile leaves out.
fn rust_components(workspace: &Workspace) -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if quiet(workspace.cargo(subcommand).arg("--version")).is_ok() {
            continue;
        }
        step(&format!("rustup component add {component}"), || {
            let mut rustup = std::process::Command::new("rustup");
            quiet(
                rustup
                    .args(["component", "add", component])
                    .current_dir(workspace.root()),
            )
        })?;
    }
    Ok(())
}
