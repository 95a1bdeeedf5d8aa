//! Where things are: the repository, its target directory, the cache outside it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell;
use crate::toolchain;

/// The repository that this program was started in.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

// === impl Workspace ===

impl Workspace {
    /// The workspace of the manifest that cargo runs.
    pub(crate) fn find() -> Result<Self> {
        let start =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(env::current_dir, |d| Ok(d.into()))?;
        let root = start
            .ancestors()
            .find(|directory| directory.join("monitor-ebpf").is_dir())
            .context("not inside the nodewatch repository: start this as `cargo xtask`")?
            .to_path_buf();
        // `CARGO_TARGET_DIR` and configuration files may move it; cargo knows.
        let metadata = Self::metadata_of(&root.join("Cargo.toml"))?;
        let target = metadata["target_directory"]
            .as_str()
            .context("cargo metadata has no target")?;
        let target = PathBuf::from(target);
        Ok(Self { root, target })
    }

    /// Root of the repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Target directory of the host workspace.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The kernel crate, a workspace of its own.
    pub(crate) fn kernel_crate(&self) -> PathBuf {
        self.root.join("monitor-ebpf")
    }

    /// `cargo` of the running toolchain, in the repository.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.arg(subcommand).current_dir(&self.root);
        command
    }

    /// What `cargo metadata` says about a manifest, without its dependencies' own.
    pub(crate) fn metadata_of(manifest: &Path) -> Result<Value> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args([
                "metadata",
                "--no-deps",
                "--format-version=1",
                "--manifest-path",
            ])
            .arg(manifest);
        let text = shell::printed(&mut command)?;
        serde_json::from_str(&text).context("cargo metadata printed no JSON")
    }

    /// Directory for what outlives a checkout: tools, kernels.
    pub(crate) fn cache() -> PathBuf {
        toolchain::cache_dir()
    }
}
