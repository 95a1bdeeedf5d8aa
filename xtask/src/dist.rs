//! The release archive: binary, licences, README.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::setup::{self, Group};
use crate::shell::{printed, quiet, step};
use crate::workspace::Workspace;

/// What goes into the archive beside the binary.
const DOCUMENTS: [&str; 3] = ["LICENSE", "LICENSE-GPL-2.0", "README.md"];

/// Builds `nodewatch-VERSION-ARCH-linux.tar.gz` and its checksum; the same sources give the same archive.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::ensure(workspace, &[Group::Build])?;
    let binary = build::daemon(workspace, Profile::Release)?;
    let name = format!(
        "nodewatch-{}-{}-linux",
        env!("CARGO_PKG_VERSION"),
        env::consts::ARCH
    );
    let dist = workspace.target().join("dist");
    let archive = format!("{name}.tar.gz");
    step("archive", || {
        let folder = dist.join(&name);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .context("cannot remove the folder of an earlier archive")?;
        }
        fs::create_dir_all(&folder)?;
        fs::copy(&binary, folder.join("nodewatch")).context("cannot copy the binary")?;
        for document in DOCUMENTS {
            fs::copy(workspace.root().join(document), folder.join(document))
                .with_context(|| format!("cannot copy {document}"))?;
        }
        let mut tar = Command::new("tar");
        tar.current_dir(&dist)
            .args([
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "--mtime=@0",
            ])
            .args(["-I", "gzip -n", "-cf", &archive, &name]);
        quiet(&mut tar)?;
        let sum = printed(Command::new("sha256sum").arg(&archive).current_dir(&dist))?;
        fs::write(dist.join(format!("{archive}.sha256")), sum).context("cannot write the checksum")
    })?;
    println!("{}", dist.join(archive).display());
    Ok(())
}
