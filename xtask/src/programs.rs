//! Lab, demo and bench: programs of the package `tests` that need the daemon beside them.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::build::{self, Profile};
use crate::setup::{self, Group};
use crate::shell;
use crate::workspace::Workspace;

/// Environment variable that tells the programs of `tests` where the daemon is.
pub(crate) const DAEMON: &str = "NODEWATCH_BIN";

/// Arguments that belong to the program.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Arguments of the program; `--help` after `--` shows its own help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Sets up, builds the daemon and the program, and becomes the program.
pub(crate) fn run(workspace: &Workspace, program: &str, options: &Options) -> Result<ExitCode> {
    setup::ensure(workspace, &[Group::Build, Group::Test])?;
    let daemon = build::daemon(workspace, Profile::Release)?;
    let mut cargo = workspace.cargo("build");
    cargo.args(["--release", "--package", "tests", "--bin", program]);
    shell::step(&format!("build the {program} program"), || {
        shell::quiet(&mut cargo)
    })?;
    let binary = workspace.target().join("release").join(program);
    let mut command = std::process::Command::new(binary);
    command
        .args(&options.arguments)
        .env(DAEMON, daemon)
        .current_dir(workspace.root());
    shell::handed_over(&mut command)
}
