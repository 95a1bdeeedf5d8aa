//! The daemon: build it (the kernel program is built by its build script) and run it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::setup::{self, Group};
use crate::shell;
use crate::workspace::Workspace;

/// Which of cargo's profiles to build with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Optimised.
    Release,
    /// Not optimised, with assertions.
    Debug,
}

// === impl Profile ===

impl Profile {
    /// From a `--debug` switch.
    pub(crate) fn from_debug(debug: bool) -> Self {
        if debug { Self::Debug } else { Self::Release }
    }

    /// Name of the profile's folder in the target directory.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
        }
    }

    /// Adds the profile's switch to a cargo command.
    pub(crate) fn apply(self, command: &mut Command) {
        if self == Self::Release {
            command.arg("--release");
        }
    }
}

/// Builds the daemon and says where it is.
pub(crate) fn daemon(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let mut cargo = workspace.cargo("build");
    cargo.args(["--package", "monitor", "--bin", "nodewatch"]);
    profile.apply(&mut cargo);
    shell::step("build nodewatch and its kernel program", || {
        shell::quiet(&mut cargo)
    })?;
    Ok(workspace.target().join(profile.folder()).join("nodewatch"))
}

/// Builds nodewatch and runs it in the caller's terminal.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(workspace, &[Group::Build])?;
    let binary = daemon(workspace, Profile::Release)?;
    shell::handed_over(Command::new(binary).args(arguments))
}
