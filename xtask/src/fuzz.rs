//! Fuzzing: libFuzzer, led by the coverage of instrumented code, over what reads bytes of strangers.
//!
//! The instrumentation is an LLVM pass that stable compilers have; a sanitizer would need a nightly one,
//! and there is no `unsafe` in what is fuzzed. `cargo fuzz run --fuzz-dir tests/fuzz --features libfuzzer
//! -s none TARGET` does the same where it is installed.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Group};
use crate::shell::{printed, quiet, step, visible};
use crate::workspace::Workspace;

/// Compiles coverage into all code: which edges were taken, and what numbers were compared with.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing";
/// Where the programs are.
const PROGRAMS: &str = "tests/fuzz/src/bin";
/// Writes the inputs to begin with.
const SEEDS: &str = "seeds";

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this target; all of them, one after the other, when none is named
    target: Option<String>,
    /// Run these files once, instead of looking for more
    files: Vec<PathBuf>,
    /// Inputs to try for each target
    #[arg(long, default_value_t = 100_000)]
    runs: u64,
    /// End a target after so many seconds
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

/// Builds the targets and lets each look for inputs that break something.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::ensure(workspace, &[Group::Build, Group::Fuzz])?;
    let all = targets(&workspace.root().join(PROGRAMS))?;
    let chosen = match &options.target {
        Some(name) if all.contains(name) => vec![name.clone()],
        Some(name) => bail!("no target {name}; there is {}", all.join(", ")),
        None => all,
    };
    let folder = workspace.target().join("fuzz");
    let programs = step("build the targets", || build(workspace, &folder))?;
    quiet(Command::new(programs.join(SEEDS)).arg(folder.join(SEEDS)))?;
    let mut broken = Vec::new();
    for name in chosen {
        if look(&folder, &programs, &name, options).is_err() {
            broken.push(name);
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!(
        "{} broke; the inputs are in {}: mend it, and keep them in tests/fuzz/regressions",
        broken.join(", "),
        folder.join("found").display()
    )
}

/// Names of the targets.
fn targets(programs: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(programs).context("cannot list the targets")? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if name != SEEDS {
            names.push(name.into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds all programs; the folder that they are in.
fn build(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let version = printed(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it compiles for")?;
    let mut cargo = workspace.cargo("build");
    cargo
        .args(["--package", "fuzz", "--features", "libfuzzer", "--bins"])
        // Named, so that build scripts and macros are not instrumented.
        .args(["--profile", "fuzz", "--target", host, "--target-dir"])
        .arg(folder)
        .env("RUSTFLAGS", INSTRUMENTATION);
    quiet(&mut cargo)?;
    Ok(folder.join(host).join("fuzz"))
}

/// Runs one target, under libFuzzer.
fn look(folder: &Path, programs: &Path, name: &str, options: &Options) -> Result<()> {
    let (corpus, found) = (
        folder.join("corpus").join(name),
        folder.join("found").join(name),
    );
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(found.join(""));
    let mut command = Command::new(programs.join(name));
    command
        .arg(prefix)
        .args(["-timeout=10", "-rss_limit_mb=2048"]);
    if options.files.is_empty() {
        command
            .arg(format!("-runs={}", options.runs))
            .arg(format!("-max_total_time={}", options.seconds))
            .args(["-max_len=8192", "-print_final_stats=1", "-verbosity=0"])
            // What is new goes into the first.
            .arg(corpus)
            .arg(folder.join(SEEDS).join(name));
    } else {
        command.args(&options.files);
    }
    println!("{name}");
    visible(&mut command)
}
