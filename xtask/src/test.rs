//! Everything that must pass before a change is merged.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::build::{self, Profile};
use crate::kube::{self, PROGRAMS, Part};
use crate::programs::DAEMON;
use crate::setup::{self, Group};
use crate::shell::{loud_step, quiet, step, visible};
use crate::workspace::Workspace;
use crate::{lint, space, vm};

/// Set-up, lint, the test suite, then (unless left out) the kernels.
pub(crate) fn run(workspace: &Workspace, kernels: bool) -> Result<()> {
    let mut groups = vec![Group::Build, Group::Lint, Group::Test, Group::Deploy];
    if kernels {
        groups.push(Group::Vm);
    }
    space::ensure(workspace)?;
    setup::ensure(workspace, &groups)?;
    lint::run(workspace)?;
    // Some minutes, once. Where it cannot be had the tests that need it say so, and fail where none may be
    // skipped.
    if let Err(error) = kube::ensure(&[Part::Server, Part::Node]) {
        eprintln!("no real Kubernetes for the tests: {error:#}");
    }
    suite(workspace)?;
    if kernels {
        vm::run(workspace, &vm::Options::default())
    } else {
        Ok(())
    }
}

/// All tests of the workspace. Tests that need root and a kernel with BPF decide themselves whether to
/// skip; `CI=true` or `NODEWATCH_REQUIRE_ROOT_TESTS=1` makes a skip a failure.
fn suite(workspace: &Workspace) -> Result<()> {
    let daemon = build::daemon(workspace, Profile::Debug)?;
    let nextest = has_nextest();
    step("build the tests", || {
        let mut cargo = workspace.cargo("test");
        quiet(cargo.args(["--workspace", "--no-run", "--quiet"]))
    })?;
    if nextest {
        // nextest leaves the examples in the documentation out
        step("examples in the documentation", || {
            quiet(
                workspace
                    .cargo("test")
                    .args(["--workspace", "--doc", "--quiet"]),
            )
        })?;
    }
    loud_step("tests", || {
        let mut cargo = workspace.cargo(if nextest { "nextest" } else { "test" });
        if nextest {
            cargo.arg("run");
        }
        cargo.env(DAEMON, &daemon).env(PROGRAMS, kube::folder());
        visible(cargo.arg("--workspace"))
    })
}

fn has_nextest() -> bool {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    cargo.status().is_ok_and(|status| status.success())
}
