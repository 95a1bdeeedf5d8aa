//! Lab, demo and bench: programs of the package `tests` that need the daemon beside them.

use std::path::PathBuf;
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

// === impl Options ===

impl Options {
    /// Whether this is the first argument.
    pub(crate) fn begins_with(&self, word: &str) -> bool {
        self.arguments.first().is_some_and(|first| first == word)
    }
}

/// Sets up, builds the daemon and the program, and becomes the program.
pub(crate) fn run(workspace: &Workspace, program: &str, options: &Options) -> Result<ExitCode> {
    setup::ensure(workspace, &[Group::Build, Group::Test])?;
    let daemon = build::daemon(workspace, Profile::Release)?;
    let environment = [(DAEMON, daemon)];
    run_with(workspace, program, Profile::Release, options, &environment)
}

/// Builds the program, and the one that makes traffic for it, and becomes it, with these variables.
pub(crate) fn run_with(
    workspace: &Workspace,
    program: &str,
    profile: Profile,
    options: &Options,
    environment: &[(&str, PathBuf)],
) -> Result<ExitCode> {
    let mut cargo = workspace.cargo("build");
    cargo.args(["--package", "tests", "--bin", program, "--bin", "traffic"]);
    profile.apply(&mut cargo);
    shell::step(&format!("build the {program} program"), || {
        shell::quiet(&mut cargo)
    })?;
    let binary = workspace.target().join(profile.folder()).join(program);
    let mut command = std::process::Command::new(binary);
    command
        .args(&options.arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(workspace.root());
    shell::handed_over(&mut command)
}
