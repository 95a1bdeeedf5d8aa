//! Container images of one layer, written as the archives that container runtimes import.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::deploy;
use crate::lab::process;

/// What goes into an image.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its full name with a tag.
    pub name: &'a str,
    /// Files, and where they are in the image (without a leading slash).
    pub files: &'a [(PathBuf, String)],
    /// The command that its containers start with.
    pub entrypoint: &'a [&'a str],
    /// Arguments, unless the container has its own.
    pub arguments: &'a [&'a str],
}

// === impl Image ===

impl Image<'_> {
    /// Writes the archive and tells where it is.
    pub fn write(&self, directory: &Path) -> Result<PathBuf> {
        let short = self.name.rsplit('/').next().unwrap_or(self.name);
        let work = directory.join(format!("image-{}", short.replace(':', "-")));
        let root = work.join("root");
        fs::create_dir_all(root.join("tmp"))?;
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        for (from, to) in self.files {
            let to = root.join(to);
            fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
            fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        let layer = work.join("layer.tar");
        tar(&layer, &root, &["."])?;
        let sum = process::checked(Command::new("sha256sum").arg(&layer))?;
        let Some(sum) = sum.split(' ').next().filter(|sum| sum.len() == 64) else {
            bail!("sha256sum printed {sum:?}");
        };
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.arguments,
                "Env": ["PATH=/usr/bin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
        });
        fs::write(work.join("config.json"), config.to_string())?;
        let manifest = json!([{
            "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"],
        }]);
        fs::write(work.join("manifest.json"), manifest.to_string())?;
        let archive = work.join("image.tar");
        tar(
            &archive,
            &work,
            &["manifest.json", "config.json", "layer.tar"],
        )?;
        Ok(archive)
    }
}

/// The agent's image under the name in the manifests, from a binary that is linked dynamically: with the
/// libraries that it asks for.
pub fn agent(directory: &Path, binary: &Path) -> Result<PathBuf> {
    let kustomization = deploy::yaml(&deploy::read("deploy/base/kustomization.yaml")?)?;
    let tag = kustomization[0]["images"][0]["newTag"].as_str();
    let tag = tag.context("the manifests name no tag")?;
    let name = &format!("docker.io/library/nodewatch:{tag}");
    let stripped = directory.join("nodewatch.stripped");
    let mut strip = Command::new("strip");
    process::checked(strip.arg("-o").arg(&stripped).arg(binary))?;
    let mut files = vec![(stripped, "usr/bin/nodewatch".to_owned())];
    let output = process::output(Command::new("ldd").arg(binary), process::PATIENCE)?;
    // A static one makes ldd fail, and has no libraries.
    for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        if let Some(path) = word.strip_prefix('/') {
            files.push((PathBuf::from(word), path.to_owned()));
        }
    }
    Image {
        name,
        files: &files,
        entrypoint: &["/usr/bin/nodewatch"],
        arguments: &["run"],
    }
    .write(directory)
}

fn tar(archive: &Path, directory: &Path, what: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]);
    process::checked(tar.arg(archive).arg("-C").arg(directory).args(what)).map(drop)
}
