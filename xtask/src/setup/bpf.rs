//! The BPF toolchain: a compiler that knows the target, and bpf-linker built for the same LLVM.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::apt;
use crate::shell::{quiet, step};
use crate::toolchain::{self, Compiler, OBJECT, find_linker, which};
use crate::workspace::Workspace;

/// Debian's compiler with a ready `core` for BPF, and the LLVM that it is built with.
pub(crate) const PREBUILT: [&str; 4] = [
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
];

/// What to do where packages cannot be installed.
pub(crate) const WITHOUT_PACKAGES: &str = "\nor, for the kernel program alone, one of:\n  \
    rustup toolchain install nightly --component rust-src\n  \
    export NODEWATCH_EBPF_OBJECT=/path/to/nodewatch.o   (built on another machine)";

/// Release of bpf-linker that the kernel program is built with.
const LINKER_VERSION: &str = "0.13.0";
/// LLVM releases that it can be built for.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Whether a compiler for the BPF target has to be installed.
pub(crate) fn lacks_compiler() -> bool {
    toolchain::ready_object().is_none() && Compiler::find().is_none()
}

/// Makes sure of compiler and linker; the system packages have been tried before.
pub(crate) fn ensure() -> Result<()> {
    if toolchain::ready_object().is_some() {
        return Ok(());
    }
    let compiler = match Compiler::find() {
        Some(compiler) => compiler,
        None => nightly()?,
    };
    if find_linker().is_some() {
        return Ok(());
    }
    let major = compiler
        .llvm_major()
        .context("rustc -vV names no LLVM version")?;
    if !LINKER_LLVM.contains(&major) {
        bail!(
            "{} uses LLVM {major}, and bpf-linker {LINKER_VERSION} can be built for {} to {} only; \
             install another toolchain for the kernel program{WITHOUT_PACKAGES}",
            compiler.rustc.display(),
            LINKER_LLVM.start(),
            LINKER_LLVM.end()
        );
    }
    llvm(major)?;
    step(
        &format!("build bpf-linker {LINKER_VERSION} for LLVM {major} (a few minutes, once)"),
        || linker(major),
    )
}

/// Where Debian has no ready `core` for BPF: nightly compiles it.
fn nightly() -> Result<Compiler> {
    if which("rustup").is_none() {
        bail!("no compiler for the BPF target, and no rustup to fetch one{WITHOUT_PACKAGES}");
    }
    step("rustup toolchain install nightly (rust-src)", || {
        let mut rustup = Command::new("rustup");
        rustup.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
        quiet(rustup.args(["--component", "rust-src", "--no-self-update"]))
            .context("cannot fetch a compiler for the kernel program")
    })?;
    Compiler::find().context("nightly is installed, but has no rust-src; remove it and try again")
}

/// Libraries and headers of one LLVM release, and a C++ runtime to link with.
fn llvm(major: u32) -> Result<()> {
    let config = format!("/usr/lib/llvm-{major}/bin/llvm-config");
    let mut packages = Vec::new();
    if !fs::exists(&config).unwrap_or(false) {
        packages.push(format!("llvm-{major}-dev"));
    }
    if which("c++").is_none() {
        packages.push("g++".to_owned());
    }
    if packages.is_empty() {
        return Ok(());
    }
    let mut apt = apt::Apt::for_packages(&packages)?;
    step("package lists", || apt.update())?;
    if let Some(absent) = packages.iter().find(|package| !apt::offers(package)) {
        bail!(
            "this system's package sources do not offer {absent}, which bpf-linker is built with; add \
             a source for it (apt.llvm.org has them for Ubuntu) and run the same command again"
        );
    }
    step(&format!("install {}", packages.join(" ")), || {
        apt.install(&packages)
    })
}

/// Builds bpf-linker into the cache directory.
fn linker(major: u32) -> Result<()> {
    let cache = Workspace::cache();
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        // not in the repository, whose cargo configuration is not meant for this
        .current_dir(&cache)
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{major}"))
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args([
            "install",
            "bpf-linker",
            "--locked",
            "--version",
            LINKER_VERSION,
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{major}"),
        ])
        .arg("--root")
        .arg(cache.join("tools"));
    quiet(&mut cargo).map(|_| ()).with_context(|| {
        format!(
            "cannot build bpf-linker (no access to the crate registry?); install bpf-linker \
             {LINKER_VERSION} for LLVM {major} on PATH, or set {OBJECT}"
        )
    })
}
