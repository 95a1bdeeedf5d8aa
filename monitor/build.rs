//! Builds the kernel program and leaves it in `$OUT_DIR/nodewatch.o`, from where the daemon embeds it.
//!
//! Every other binary target of `monitor-ebpf` (the programs that the benchmark compares with) is left
//! beside it as `$OUT_DIR/<name>.o`. `NODEWATCH_EBPF_OBJECT` names a ready object and skips the compiler.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[path = "build/toolchain.rs"]
mod toolchain;

use toolchain::{Missing, Nested, Toolchain};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let kernel = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../monitor-ebpf");
    for input in [
        "src",
        "common/src",
        "Cargo.toml",
        "Cargo.lock",
        "common/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", kernel.join(input).display());
    }
    println!("cargo::rerun-if-changed=build/toolchain.rs");
    println!("cargo::rerun-if-changed=build.rs");
    for name in [toolchain::OBJECT, toolchain::CACHE] {
        println!("cargo::rerun-if-env-changed={name}");
    }

    let object = out.join("nodewatch.o");
    if let Some(ready) = toolchain::ready_object() {
        println!("cargo::rerun-if-changed={}", ready.display());
        copy(&ready, &object)?;
        return if is_bpf_object(&object)? {
            Ok(())
        } else {
            Err(format!(
                "{}: {} is not an object for BPF",
                toolchain::OBJECT,
                ready.display()
            ))
        };
    }

    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let target = shared_target(&out);
    let tools = Toolchain::find().map_err(|missing: Missing| missing.to_string())?;
    let nested = Nested {
        manifest_dir: &kernel,
        target_dir: &target,
        arch: &arch.to_string_lossy(),
    };
    let mut cargo = tools.cargo("build", &nested, &[]);
    cargo.args(["--release", "--bins", "--quiet", "--color", "never"]);
    run(&mut cargo)?;

    let built = target.join(toolchain::TARGET).join("release");
    for program in programs(&built)? {
        copy(&built.join(&program), &out.join(format!("{program}.o")))?;
    }
    if object.is_file() {
        Ok(())
    } else {
        Err(format!(
            "{} has no binary target called nodewatch",
            kernel.join("Cargo.toml").display()
        ))
    }
}

/// One target directory for the kernel program whatever profile or tool the outer build is for:
/// `<target>/bpf` when `OUT_DIR` lies where cargo has always put it (`<target>/debug/build/monitor-1/out`).
fn shared_target(out: &Path) -> PathBuf {
    match (out.ancestors().nth(2), out.ancestors().nth(4)) {
        (Some(build), Some(target)) if build.ends_with("build") => target.join("bpf"),
        _ => out.join("bpf"),
    }
}

/// Whether a file is a little-endian 64-bit ELF file for the BPF machine.
fn is_bpf_object(file: &Path) -> Result<bool, String> {
    const MACHINE: u16 = 247;
    let bytes =
        fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(bytes.starts_with(b"\x7fELF\x02\x01") && bytes.get(18..20) == Some(&MACHINE.to_le_bytes()))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name} for the build script"))
}

/// Runs the nested build; shows what it printed only when it failed.
fn run(cargo: &mut Command) -> Result<(), String> {
    let output = cargo.output().map_err(|error| {
        format!(
            "cannot start {}: {error}",
            cargo.get_program().to_string_lossy()
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "the kernel program did not build ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Names of the executables in a target directory: its files without an extension that are not hidden.
fn programs(directory: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(directory)
        .map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.contains('.'))
        .collect())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to).map(|_| ()).map_err(|error| {
        format!(
            "cannot copy {} to {}: {error}",
            from.display(),
            to.display()
        )
    })
}
