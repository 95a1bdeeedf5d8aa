//! `cargo xtask cluster`: a real Kubernetes on this machine, with the image and the manifests of this tree.

use std::process::ExitCode;

use anyhow::Result;

use crate::build::Profile;
use crate::image::{self, Arch};
use crate::kube::{self, PROGRAMS, Part};
use crate::programs::{self, Options};
use crate::setup::{self, Group};
use crate::workspace::Workspace;

/// Environment variable with the archive of the agent's image.
const IMAGE: &str = "NODEWATCH_IMAGE";

/// Makes sure of Kubernetes and of the image, and becomes the program `cluster` of `tests`.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    setup::ensure(workspace, &[Group::Test, Group::Deploy])?;
    let kube = kube::ensure(&[Part::Server, Part::Node])?;
    let mut environment = vec![(PROGRAMS, kube)];
    // Taking it down needs no image.
    if !options.begins_with("down") {
        environment.push((IMAGE, image::build(workspace, Arch::HERE)?));
    }
    // It only starts others: the profile that is built quickest.
    programs::run_with(workspace, "cluster", Profile::Debug, options, &environment)
}
