//! The source tree of Kubernetes: two repairs, then the compiler.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::archive::empty;
use crate::shell::quiet;

/// The source package.
pub(super) const PACKAGE: &str = "kubernetes";
/// Replaces a vendored library that is older than the compiler.
pub(super) const REFLECT: &str = "golang-github-modern-go-reflect2-dev";

/// Where the tree believes to be.
const IMPORT: &str = "k8s.io/kubernetes";
/// What asks for a description of its types.
const TAG: &str = "+k8s:openapi-gen=";
/// Directories with that tag that are examples, not served.
const EXAMPLES: [&str; 2] = ["code-generator", "sample-apiserver"];

/// A tree that can be compiled, and the compiler.
#[derive(Debug)]
pub(super) struct Tree {
    work: PathBuf,
    root: PathBuf,
    compiler: PathBuf,
}

// === impl Tree ===

impl Tree {
    /// Unpacks the source package in `work` and repairs it; `packages` has compiler and library.
    pub(super) fn prepare(work: &Path, packages: &Path) -> Result<Self> {
        let tree = Self {
            work: work.to_path_buf(),
            root: work.join("gopath/src").join(IMPORT),
            compiler: packages.join("usr/lib/go-1.19"),
        };
        tree.unpack()?;
        let library = "github.com/modern-go/reflect2";
        tree.replace_reflect(&packages.join("usr/share/gocode/src").join(library))?;
        tree.describe_types()?;
        Ok(tree)
    }

    /// Where compiled programs are.
    pub(super) fn binaries(&self) -> PathBuf {
        self.work.join("bin")
    }

    /// Compiles programs of `cmd/`, stripped.
    pub(super) fn build(&self, programs: &[&str], version: &str) -> Result<()> {
        let mut flags = "-s -w".to_owned();
        let mut numbers = version.split('.');
        let (major, minor) = (numbers.next(), numbers.next());
        for package in ["component-base/version", "client-go/pkg/version"] {
            for (name, value) in [
                ("gitVersion", format!("v{version}")),
                ("gitMajor", major.unwrap_or_default().to_owned()),
                ("gitMinor", minor.unwrap_or_default().to_owned()),
            ] {
                write!(flags, " -X {IMPORT}/vendor/k8s.io/{package}.{name}={value}")?;
            }
        }
        fs::create_dir_all(self.binaries())?;
        let mut go = self.go();
        go.args(["build", "-trimpath", "-ldflags", &flags, "-o"]);
        // with the slash it is a directory
        go.arg(self.binaries().join(""));
        go.args(programs.iter().map(|name| format!("{IMPORT}/cmd/{name}")));
        quiet(&mut go).map(drop)
    }

    /// The upstream archive. Debian's own patches concern kubectl and need not be applied.
    fn unpack(&self) -> Result<()> {
        empty(&self.root)?;
        let sources = self.work.join("source");
        let archive = fs::read_dir(&sources)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().contains(".orig.tar."))
            .context("the source package has no upstream archive")?;
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&archive).args(["--strip-components=1"]);
        quiet(tar.arg("-C").arg(&self.root))?;
        fs::remove_dir_all(&sources).context("cannot remove the source package")
    }

    /// The vendored release reads the runtime's own structures as they were before Go 1.18, and crashes.
    fn replace_reflect(&self, newer: &Path) -> Result<()> {
        let vendored = self.root.join("vendor/github.com/modern-go/reflect2");
        let code =
            |file: &Path| matches!(file.extension().and_then(OsStr::to_str), Some("go" | "s"));
        for file in entries(&vendored)?.into_iter().filter(|file| code(file)) {
            fs::remove_file(file)?;
        }
        let mut copied = 0;
        for file in entries(newer)?.into_iter().filter(|file| code(file)) {
            let name = file.file_name().context("a file has a name")?;
            fs::copy(&file, vendored.join(name))?;
            copied += 1;
        }
        if copied == 0 {
            bail!("{} has no code", newer.display());
        }
        Ok(())
    }

    /// Writes `pkg/generated/openapi`, which upstream generates when it builds.
    fn describe_types(&self) -> Result<()> {
        let mut packages = Vec::new();
        for folder in ["pkg", "cmd", "plugin", "staging/src/k8s.io"] {
            self.tagged(&self.root.join(folder), &mut packages)?;
        }
        packages.sort();
        if packages.is_empty() {
            bail!("no package of the source tree is tagged {TAG}");
        }
        let generator = self.work.join("openapi-gen");
        let mut build = self.go();
        build.args(["build", "-trimpath", "-o"]).arg(&generator);
        build.arg(format!(
            "{IMPORT}/vendor/k8s.io/kube-openapi/cmd/openapi-gen"
        ));
        quiet(&mut build)?;
        let mut generate = self.environment(Command::new(&generator));
        generate
            .args([
                "--go-header-file",
                "hack/boilerplate/boilerplate.generatego.txt",
            ])
            .args(["--input-dirs", &packages.join(",")])
            .args([
                "--output-package",
                &format!("{IMPORT}/pkg/generated/openapi"),
            ])
            .args(["--output-file-base", "zz_generated.openapi"])
            .args(["--report-filename", "/dev/null", "--output-base"])
            .arg(self.work.join("gopath/src"));
        quiet(&mut generate).map(drop)
    }

    /// Import paths of the directories below that have the tag.
    fn tagged(&self, directory: &Path, found: &mut Vec<String>) -> Result<()> {
        let mut here = false;
        for path in entries(directory)? {
            if path.is_symlink() {
                continue;
            }
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            if path.is_dir() {
                if !EXAMPLES.contains(&name) {
                    self.tagged(&path, found)?;
                }
            } else if !here && path.extension().is_some_and(|end| end == "go") {
                let text = fs::read_to_string(&path)?;
                here = text.lines().any(|line| {
                    let comment = line.strip_prefix("//").map(str::trim_start);
                    comment.is_some_and(|comment| comment.starts_with(TAG))
                });
            }
        }
        if here {
            let path = directory.strip_prefix(&self.root)?;
            // The compiler knows what is staged by its vendored name.
            let path = path.to_string_lossy().replace("staging/src/", "vendor/");
            found.push(format!("{IMPORT}/{path}"));
        }
        Ok(())
    }

    fn go(&self) -> Command {
        self.environment(Command::new(self.compiler.join("bin/go")))
    }

    /// Nothing of the user's own Go is read or written.
    fn environment(&self, mut command: Command) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.compiler.join("bin")).chain(std::env::split_paths(&path));
        for name in ["GOFLAGS", "GOOS", "GOARCH", "GOEXPERIMENT"] {
            command.env_remove(name);
        }
        command
            .current_dir(&self.root)
            .env("PATH", std::env::join_paths(path).unwrap_or_default())
            .env("GOROOT", &self.compiler)
            .env("GOPATH", self.work.join("gopath"))
            .env("GOCACHE", self.work.join("gocache"))
            .env("GOTMPDIR", &self.work)
            .env("GOENV", "off")
            .env("GO111MODULE", "off")
            .env("CGO_ENABLED", "0");
        command
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in read {
        paths.push(entry?.path());
    }
    Ok(paths)
}
