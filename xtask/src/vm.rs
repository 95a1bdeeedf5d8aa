//! `cargo xtask vm`: the test programs on Debian's kernels, in QEMU without KVM.
//!
//! | module | does |
//! |---|---|
//! | [`kernel`] | fetches kernels from the Debian archive, once, with an apt of its own |
//! | [`modules`] | finds kernel modules and their order |
//! | [`image`] | root file system: busybox, tools, the test programs, the libraries they link |
//! | [`cpio`] | the archive format that the kernel unpacks |
//! | [`qemu`] | boots, waits, reads the console |

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::build::{self, Profile};
use crate::setup::{self, Group};
use crate::shell::{printed, step};
use crate::vm::image::Image;
use crate::vm::kernel::{KERNELS, Kernel, Source};
use crate::vm::qemu::{Machine, Run};
use crate::workspace::Workspace;

mod cpio;
mod image;
mod kernel;
mod modules;
mod qemu;

/// Virtual machines that run at once.
const AT_ONCE: usize = 2;
/// Test targets of the package `tests` that run in the machines.
const TARGETS: [&str; 1] = ["kernel"];

/// Options of `cargo xtask vm`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these kernels: 5.10, 6.1, 6.12, unstable (repeatable)
    #[arg(long = "kernel", value_name = "NAME")]
    kernels: Vec<String>,
    /// Use hardware virtualisation
    #[arg(long)]
    kvm: bool,
    /// Look for newer kernels instead of using the cached ones
    #[arg(long)]
    refresh: bool,
    /// Seconds that a machine may take
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Run this program instead of the kernel tests (repeatable)
    #[arg(long = "program", value_name = "FILE")]
    programs: Vec<PathBuf>,
    /// Arguments of the test programs, such as the name of one test
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            kernels: Vec::new(),
            kvm: false,
            refresh: false,
            timeout: 300,
            programs: Vec::new(),
            arguments: Vec::new(),
        }
    }
}

/// A program to run in the machines, under the name that results show.
#[derive(Debug)]
struct Program {
    name: String,
    path: PathBuf,
}

/// Boots every kernel, runs every program, prints a table; an error when anything failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let sources = chosen(&options.kernels)?;
    if options.programs.is_empty() {
        setup::ensure(workspace, &[Group::Build, Group::Vm])?;
    } else {
        setup::ensure(workspace, &[Group::Vm])?;
    }
    let programs = programs(workspace, options)?;
    // tests may start it, too
    let daemon = if options.programs.is_empty() {
        Some(build::daemon(workspace, Profile::Debug)?)
    } else {
        None
    };
    let fetched: Vec<(&Source, Result<Kernel>)> = sources
        .iter()
        .map(|source| (*source, kernel::fetch(source, options.refresh)))
        .collect();

    let folder = workspace.target().join("vm");
    std::fs::create_dir_all(&folder)?;
    let image = step("file system for the virtual machines", || {
        Image::build(&programs, daemon.as_deref(), &options.arguments)
    })?;
    let machine = Machine {
        folder,
        kvm: options.kvm,
        limit: Duration::from_secs(options.timeout),
    };

    let queue = Mutex::new(fetched.into_iter());
    let mut runs: Vec<(&Source, Result<Run>)> = thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            loop {
                let next = queue.lock().ok().and_then(|mut queue| queue.next());
                let Some((source, fetched)) = next else {
                    return done;
                };
                let run = fetched.and_then(|kernel| {
                    step(&format!("boot {}", source.name), || {
                        machine.boot(source.name, &kernel, &image)
                    })
                });
                done.push((source, run));
            }
        };
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .flatten()
            .collect()
    });
    runs.sort_by_key(|(source, _)| sources.iter().position(|each| each.name == source.name));
    report(&runs, &programs, sources.len(), &machine.folder)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Source>> {
    if names.is_empty() {
        return Ok(KERNELS.iter().collect());
    }
    let known = || {
        KERNELS
            .iter()
            .map(|source| source.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let find = |name: &String| {
        KERNELS
            .iter()
            .find(|source| source.name == name)
            .with_context(|| format!("no kernel called {name}; there are {}", known()))
    };
    names.iter().map(find).collect()
}

/// The test programs: built now, or the files that the user named.
fn programs(workspace: &Workspace, options: &Options) -> Result<Vec<Program>> {
    if options.programs.is_empty() {
        return TARGETS
            .iter()
            .map(|target| test_program(workspace, target))
            .collect();
    }
    let named = |path: &PathBuf| {
        let name = path
            .file_name()
            .with_context(|| format!("{} is no file", path.display()))?;
        Ok(Program {
            name: name.to_string_lossy().into_owned(),
            path: path.clone(),
        })
    };
    options.programs.iter().map(named).collect()
}

fn test_program(workspace: &Workspace, target: &str) -> Result<Program> {
    let mut cargo = workspace.cargo("test");
    cargo.args([
        "--package",
        "tests",
        "--test",
        target,
        "--no-run",
        "--message-format=json",
    ]);
    let messages = step(&format!("build the {target} tests"), || printed(&mut cargo))?;
    let path = executable(&messages, target)
        .with_context(|| format!("cargo did not say where the {target} tests are"))?;
    Ok(Program {
        name: target.to_owned(),
        path,
    })
}

/// The executable of a test target in cargo's messages.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// One line per kernel and program, then the consoles of what failed.
fn report(
    runs: &[(&Source, Result<Run>)],
    programs: &[Program],
    expected: usize,
    folder: &Path,
) -> Result<()> {
    let mut failures = Vec::new();
    println!();
    println!(
        "{:<10} {:<28} {:<12} result",
        "kernel", "release", "program"
    );
    for (source, run) in runs {
        let run = match run {
            Ok(run) => run,
            Err(error) => {
                println!(
                    "{:<10} {:<28} {:<12} NOT RUN: {error:#}",
                    source.name, "-", "-"
                );
                failures.push(source.name);
                continue;
            }
        };
        let release = run.release.as_deref().unwrap_or("(did not boot)");
        for program in programs {
            let (passed, result) = run.result(&program.name);
            println!(
                "{:<10} {release:<28} {:<12} {result}",
                source.name, program.name
            );
            if !passed {
                failures.push(source.name);
            }
        }
    }
    if failures.is_empty() && runs.len() == expected {
        return Ok(());
    }
    failures.dedup();
    for (source, run) in runs {
        if let Ok(run) = run
            && failures.contains(&source.name)
        {
            eprintln!(
                "\n---- end of the console of {}\n{}",
                source.name,
                run.tail()
            );
        }
    }
    bail!(
        "failed on {}; the consoles are in {}",
        failures.join(", "),
        folder.join("NAME.log").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_executable_among_cargo_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"tests"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"kernel"},"executable":"/x/kernel-1"}
not json"#;
        assert_eq!(
            executable(messages, "kernel"),
            Some(PathBuf::from("/x/kernel-1"))
        );
        assert_eq!(executable(messages, "other"), None);
    }

    #[test]
    fn unknown_kernels_are_refused_by_name() {
        let error = chosen(&["4.19".to_owned()]).expect_err("4.19 is not in the list");
        assert!(error.to_string().contains("5.10, 6.1"), "{error}");
    }
}
