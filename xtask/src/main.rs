//! Chores of the repository: `cargo xtask <command>`.
//!
//! | module | does |
//! |---|---|
//! | [`setup`] | installs what a command needs, once |
//! | [`space`] | refuses to start where there is no room on disk |
//! | [`build`] | builds and runs the daemon |
//! | [`lint`], [`tidy`] | format, clippy, the kernel program's warnings, rules of this repository |
//! | [`test`] | everything that must pass before a change is merged |
//! | [`vm`] | the test programs on other kernels, in QEMU |
//! | [`kube`], [`cluster`] | a real Kubernetes from Debian's packages, and nodewatch in it |
//! | [`archive`] | Debian's archive, by an apt of our own |
//! | [`programs`] | lab, demo and bench: programs of the package `tests` |
//! | [`figures`] | the figures of the documents, measured anew |
//! | [`fuzz`] | inputs that break what reads bytes of strangers |
//! | [`dist`], [`image`] | the release archive, the container image |

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::setup::Group;
use crate::workspace::Workspace;

mod archive;
mod build;
mod cluster;
mod dist;
mod figures;
mod fuzz;
mod image;
mod kube;
mod lint;
mod programs;
mod setup;
mod shell;
mod space;
mod test;
mod tidy;
#[path = "../../monitor/build/toolchain.rs"]
mod toolchain;
mod vm;
mod workspace;

/// Chores of the nodewatch repository.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install what building, testing and the virtual machines need (Debian, Ubuntu)
    Setup {
        /// Only these groups; all of them when none is named
        #[arg(value_enum)]
        groups: Vec<Group>,
    },
    /// Build the daemon with the kernel program inside (a release build)
    Build {
        /// Build without optimisation
        #[arg(long)]
        debug: bool,
    },
    /// Build and run nodewatch
    Run {
        /// Arguments of nodewatch
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set-up, lint, all tests, then the kernels of `vm`
    Test {
        /// Leave the virtual machines out
        #[arg(long)]
        no_vm: bool,
    },
    /// Format, clippy, warnings of the kernel program, tidy
    Lint,
    /// Rules of this repository that no other tool checks
    Tidy,
    /// Run the kernel tests on Debian's kernels in QEMU
    Vm(vm::Options),
    /// Fetch and build a real Kubernetes: API server and etcd, and what a node needs
    Kube(kube::Options),
    /// Network lab: namespaces, servers, traffic
    Lab(programs::Options),
    /// A real Kubernetes cluster on this machine with nodewatch in it: up, demo, down
    Cluster(programs::Options),
    /// What a packet costs, compared with an empty program
    Bench(programs::Options),
    /// The other figures of the documents, measured anew on a quiet machine
    Figures(figures::Options),
    /// The daemon in a lab, with flows as they happen
    Demo(programs::Options),
    /// Look for inputs that break what reads bytes of strangers
    Fuzz(fuzz::Options),
    /// Archive of the binary, licences and README for a release
    Dist,
    /// The container image, with neither a container engine nor a registry
    Image(image::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match chore {
        Chore::Setup { groups } if groups.is_empty() => {
            space::ensure(&workspace)?;
            setup::ensure(&workspace, Group::ALL)?;
        }
        Chore::Setup { groups } => setup::ensure(&workspace, &groups)?,
        Chore::Build { debug } => {
            setup::ensure(&workspace, &[Group::Build])?;
            let binary = build::daemon(&workspace, build::Profile::from_debug(debug))?;
            println!("{}", binary.display());
        }
        Chore::Run { arguments } => return build::run(&workspace, &arguments),
        Chore::Test { no_vm } => test::run(&workspace, !no_vm)?,
        Chore::Lint => {
            setup::ensure(&workspace, &[Group::Build, Group::Lint])?;
            lint::run(&workspace)?;
        }
        Chore::Tidy => tidy::run(&workspace)?,
        Chore::Vm(options) => vm::run(&workspace, &options)?,
        Chore::Kube(options) => kube::run(&options)?,
        Chore::Lab(options) => return programs::run(&workspace, "lab", &options),
        Chore::Cluster(options) => return cluster::run(&workspace, &options),
        Chore::Figures(options) => figures::run(&workspace, &options)?,
        Chore::Bench(options) => return programs::run(&workspace, "bench", &options),
        Chore::Demo(options) => return programs::run(&workspace, "demo", &options),
        Chore::Fuzz(options) => fuzz::run(&workspace, &options)?,
        Chore::Dist => dist::run(&workspace)?,
        Chore::Image(options) => image::run(&workspace, &options)?,
    }
    Ok(ExitCode::SUCCESS)
}
