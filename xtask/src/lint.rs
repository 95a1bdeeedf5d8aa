//! Format, clippy for the host, warnings of the kernel program for its own target, tidy.

use std::env;

use anyhow::{Context, Result, bail};

use crate::shell::{quiet, step};
use crate::tidy;
use crate::toolchain::{self, Nested, OBJECT, Toolchain};
use crate::workspace::Workspace;

/// Every lint, also after one has failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let results = [
        step("format", || format(workspace)),
        step("tidy", || tidy::check(workspace.root())),
        step("clippy", || clippy(workspace)),
        kernel_program(workspace),
    ];
    let failures: Vec<String> = results
        .into_iter()
        .filter_map(|result| Some(format!("{:#}", result.err()?)))
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    bail!("lint failed\n\n{}", failures.join("\n\n"))
}

fn format(workspace: &Workspace) -> Result<()> {
    let manifest = workspace.kernel_crate().join("Cargo.toml");
    let both = [
        workspace
            .cargo("fmt")
            .arg("--all")
            .args(["--", "--check", "-l"])
            .output(),
        workspace
            .cargo("fmt")
            .arg("--manifest-path")
            .arg(manifest)
            .args(["--", "--check", "-l"])
            .output(),
    ];
    let mut text = String::new();
    for output in both {
        let output = output.context("cannot start cargo fmt")?;
        if !output.status.success() {
            text.push_str(&String::from_utf8_lossy(&output.stdout));
            text.push_str(&String::from_utf8_lossy(&output.stderr));
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    bail!("not formatted (cargo fmt --all, and the same in monitor-ebpf):\n{text}")
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let mut clippy = workspace.cargo("clippy");
    clippy.args([
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]);
    quiet(&mut clippy).map(|_| ())
}

/// Clippy for the BPF target where the toolchain has it. Else the compiler's own warnings for the BPF
/// target, and clippy as if the kernel program were one for the host.
fn kernel_program(workspace: &Workspace) -> Result<()> {
    let kernel_crate = workspace.kernel_crate();
    let tools = match Toolchain::find() {
        Ok(tools) => tools,
        Err(_) if toolchain::ready_object().is_some() => {
            eprintln!("skip            kernel program for the BPF target: {OBJECT} is set");
            return clippy_for_host(workspace);
        }
        Err(missing) => bail!("{missing}"),
    };
    let has_clippy = tools
        .compiler
        .rustc
        .with_file_name("clippy-driver")
        .is_file();
    let subcommand = if has_clippy { "clippy" } else { "check" };
    let nested = Nested {
        manifest_dir: &kernel_crate,
        target_dir: &workspace.target().join("lint-bpf"),
        arch: env::consts::ARCH,
    };
    let mut cargo = tools.cargo(subcommand, &nested, &["-Dwarnings"]);
    cargo.args(["--release", "--bins", "--quiet"]);
    let name = format!("{subcommand} of the kernel program for the BPF target");
    step(&name, || quiet(&mut cargo))?;
    if has_clippy {
        Ok(())
    } else {
        clippy_for_host(workspace)
    }
}

/// Nothing is linked, so it does not matter that such a program could not run.
fn clippy_for_host(workspace: &Workspace) -> Result<()> {
    let kernel_crate = workspace.kernel_crate();
    let mut clippy = workspace.cargo("clippy");
    clippy
        .current_dir(&kernel_crate)
        .env("RUSTC_BOOTSTRAP", toolchain::unlocked_crates(&kernel_crate))
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            toolchain::architecture(env::consts::ARCH),
        )
        .arg("--target-dir")
        .arg(workspace.target().join("lint-host"))
        .args(["--bins", "--quiet", "--", "-D", "warnings"]);
    step("clippy of the kernel program, as for the host", || {
        quiet(&mut clippy)
    })?;
    Ok(())
}
