//! The container image, without a container engine and without a registry: a static binary that is compiled
//! here, put into an empty image by buildah.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::setup::{self, Group};
use crate::shell::{printed, quiet, step};
use crate::workspace::Workspace;

/// The largest image that may come out: each node fetches it.
const MOST_BYTES: u64 = 25 * 1024 * 1024;
/// Name of the image.
const NAME: &str = "nodewatch";
/// What `nodewatch` in a manifest means to a container runtime: an image that is imported under this name is
/// found without a registry.
const QUALIFIED: &str = "docker.io/library/nodewatch";
/// Compiles and links for aarch64 elsewhere.
const CROSS: &str = "aarch64-linux-gnu-gcc";
/// How it is made.
const RECIPE: &str = "deploy/image/Dockerfile";

/// What may be chosen of an image.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Architecture of the nodes [default: this machine's]
    #[arg(long, value_enum, default_value_t = Arch::HERE, hide_default_value = true)]
    arch: Arch,
}

/// An architecture that there is an image for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// amd64
    #[value(name = "x86_64", alias = "amd64")]
    X86,
    /// arm64
    #[value(name = "aarch64", alias = "arm64")]
    Arm,
}

// === impl Arch ===

impl Arch {
    /// This machine's.
    pub(crate) const HERE: Self = if cfg!(target_arch = "aarch64") {
        Self::Arm
    } else {
        Self::X86
    };

    /// As Rust and the kernel call it.
    fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
        }
    }

    /// As container runtimes call it.
    fn platform(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
        }
    }
}

/// Builds `nodewatch-VERSION-ARCH.oci.tar`, which containerd, podman and skopeo import.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let archive = build(workspace, options.arch)?;
    println!("{}", archive.display());
    println!(
        "{NAME}:{}, {:.1} MiB; import it with `ctr -n k8s.io images import`, `podman load -i` or `skopeo copy \
         oci-archive:…`",
        env!("CARGO_PKG_VERSION"),
        mebibytes(fs::metadata(&archive)?.len())
    );
    Ok(())
}

/// As [`run`]; tells where the archive is.
pub(crate) fn build(workspace: &Workspace, arch: Arch) -> Result<PathBuf> {
    let mut groups = vec![Group::Build, Group::Image];
    if arch != Arch::HERE {
        if arch == Arch::X86 {
            bail!("on this machine images are made for aarch64 only");
        }
        groups.push(Group::Cross);
    }
    setup::ensure(workspace, &groups)?;
    let binary = binary(workspace, arch)?;
    let version = env!("CARGO_PKG_VERSION");
    let dist = workspace.target().join("dist");
    fs::create_dir_all(&dist).with_context(|| format!("cannot create {}", dist.display()))?;
    let archive = dist.join(format!("{NAME}-{version}-{}.oci.tar", arch.name()));
    step("image", || {
        assemble(workspace, &binary, version, arch, &archive)
    })?;
    let size = fs::metadata(&archive)
        .with_context(|| format!("there is no {}", archive.display()))?
        .len();
    check_size(size)?;
    Ok(archive)
}

/// The static binary.
fn binary(workspace: &Workspace, arch: Arch) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-musl", arch.name());
    // Known only where rustup manages the toolchain; others bring their targets otherwise.
    if let Ok(installed) = printed(Command::new("rustup").args(["target", "list", "--installed"]))
        && !installed.lines().any(|line| line == target)
    {
        step(&format!("rustup target add {target}"), || {
            quiet(Command::new("rustup").args(["target", "add", &target]))
                .context("cannot fetch the standard library for a static binary")
        })?;
    }
    let mut cargo = workspace.cargo("build");
    cargo
        .args(["--release", "--package", "monitor", "--bin", "nodewatch"])
        .args(["--target", &target])
        // Names of functions stay, for backtraces; lines would be half of the image.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        // 3 MiB less are resident, and 1.3 MiB less fetched by each node.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    if arch != Arch::HERE {
        // What is C in it, and the linker; Rust brings the C library of the target.
        cargo
            .env("CC_aarch64_unknown_linux_musl", CROSS)
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", CROSS);
    }
    step("build nodewatch as a static binary", || quiet(&mut cargo))?;
    let binary = workspace
        .target()
        .join(target)
        .join("release")
        .join("nodewatch");
    if let Some(library) = interpreter(&fs::read(&binary).context("cannot read the binary")?) {
        bail!("the binary is not static: it asks for {library}, which an empty image has not");
    }
    Ok(binary)
}

/// Lets buildah make the image in a store of its own, and writes it to one file.
fn assemble(
    workspace: &Workspace,
    binary: &Path,
    version: &str,
    arch: Arch,
    archive: &Path,
) -> Result<()> {
    let folder = workspace.target().join("image");
    let (context, store) = (folder.join("context"), folder.join("store"));
    fs::create_dir_all(&context).with_context(|| format!("cannot create {}", context.display()))?;
    fs::copy(binary, context.join("nodewatch")).context("cannot copy the binary")?;
    let buildah = || {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(store.join("images"));
        command.arg("--runroot").arg(store.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let image = format!("{NAME}:{version}");
    let mut build = buildah();
    build
        .args(["build", "--isolation", "chroot", "--pull-never"])
        // The same binary gives the same image.
        .args(["--timestamp", "0"])
        .args(["--platform", &format!("linux/{}", arch.platform())])
        .args(["--target", "prebuilt"])
        .args(["--build-arg", &format!("VERSION={version}")])
        .args(["--tag", &image, "--file"])
        .arg(workspace.root().join(RECIPE))
        .arg(&context);
    quiet(&mut build).context("buildah cannot make the image")?;
    if archive.exists() {
        fs::remove_file(archive).context("cannot remove an earlier archive")?;
    }
    let mut push = buildah();
    push.arg("push").arg(&image).arg(format!(
        "oci-archive:{}:{QUALIFIED}:{version}",
        archive.display()
    ));
    quiet(&mut push).context("buildah cannot write the archive")?;
    let mut remove = buildah();
    quiet(remove.args(["rmi", "--all", "--force"])).context("buildah cannot tidy up")?;
    Ok(())
}

/// The dynamic loader that a 64-bit little-endian ELF file asks for; none for a static one.
fn interpreter(elf: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        let fold = |number, byte: &u8| number << 8 | u64::from(*byte);
        Some(bytes.iter().rev().fold(0, fold))
    };
    let start = usize::try_from(number(0x20, 8)?).ok()?;
    let (size, count) = (number(0x36, 2)?, number(0x38, 2)?);
    (0..count).find_map(|index| {
        let header = start.checked_add(usize::try_from(index * size).ok()?)?;
        if number(header, 4)? != u64::from(PT_INTERP) {
            return None;
        }
        let from = usize::try_from(number(header + 8, 8)?).ok()?;
        let length = usize::try_from(number(header + 32, 8)?).ok()?;
        let bytes = elf.get(from..from.checked_add(length)?)?;
        let text = String::from_utf8_lossy(bytes);
        Some(text.trim_end_matches('\0').to_owned())
    })
}

fn check_size(bytes: u64) -> Result<()> {
    if bytes > MOST_BYTES {
        bail!(
            "the image has {:.1} MiB, {:.0} are allowed: look at what was linked in",
            mebibytes(bytes),
            mebibytes(MOST_BYTES)
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people, one digit")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_binaries_are_told() {
        let own = std::env::current_exe().expect("a path");
        let own = fs::read(own).expect("a file");
        if cfg!(target_env = "gnu") {
            let loader = interpreter(&own).expect("tests are linked dynamically");
            assert!(loader.contains("ld-linux"), "{loader}");
        }
        assert_eq!(interpreter(b"\x7fELF"), None);
        assert_eq!(interpreter(&[0xff; 80]), None);
    }

    #[test]
    fn large_images_are_refused() {
        assert!(check_size(MOST_BYTES).is_ok());
        let error = check_size(MOST_BYTES + 1024 * 1024).expect_err("it is too large");
        assert!(error.to_string().contains("26.0 MiB"), "{error}");
    }
}
