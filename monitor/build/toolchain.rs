//! Which compiler builds the kernel program, and how it is called.
//!
//! Shared by the build script of `monitor` and by `xtask` (set-up and lint), so that both always mean the
//! same toolchain. In this order:
//!
//! 1. a `rustc` whose sysroot already holds `core` for [`TARGET`] (Debian: `rustc-web` and
//!    `libstd-rust-web-dev-bpf`), stable features unlocked for our own crates only;
//! 2. the nightly of rustup with the component `rust-src`, which compiles `core` itself.
//!
//! Both link with `bpf-linker`, from `PATH` or from the cache directory where `cargo xtask setup` puts it.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Target triple of the kernel program.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// Environment variable that names a ready kernel object; no compiler is needed then.
pub(crate) const OBJECT: &str = "NODEWATCH_EBPF_OBJECT";
/// Environment variable that moves the cache directory.
pub(crate) const CACHE: &str = "NODEWATCH_CACHE";

/// A compiler that can build `core` or has it for the BPF target.
#[derive(Debug, Clone)]
pub(crate) struct Compiler {
    /// `cargo` of the same toolchain.
    pub(crate) cargo: PathBuf,
    /// `rustc` itself, not a rustup proxy.
    pub(crate) rustc: PathBuf,
    /// Whether `core` must be compiled from its source (nightly only).
    pub(crate) build_std: bool,
}

/// All that building the kernel program takes.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// The compiler.
    pub(crate) compiler: Compiler,
    /// Path of `bpf-linker`.
    pub(crate) linker: PathBuf,
}

/// Where a nested cargo works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nested<'a> {
    /// Directory of the kernel crate.
    pub(crate) manifest_dir: &'a Path,
    /// Its own target directory: the outer cargo holds the lock of the other one.
    pub(crate) target_dir: &'a Path,
    /// Architecture of the kernel that the program runs on, as Rust names it (`x86_64`, `aarch64`).
    pub(crate) arch: &'a str,
}

/// What is missing, and what to do about it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Missing {
    /// No compiler knows the BPF target.
    Compiler,
    /// `bpf-linker` is not installed.
    Linker,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Compiler => "no Rust compiler here can build for bpfel-unknown-none",
            Self::Linker => "bpf-linker is neither on PATH nor in the cache directory",
        };
        write!(
            f,
            "cannot build the kernel program: {what}. Do one of:\n  \
             - cargo xtask setup build      (Debian and Ubuntu: installs what is missing)\n  \
             - rustup toolchain install nightly --component rust-src, and bpf-linker built for the LLVM \
             that `rustc +nightly -vV` names\n  \
             - {OBJECT}=/path/to/nodewatch.o    (a kernel object that was built elsewhere)"
        )
    }
}

// === impl Toolchain ===

impl Toolchain {
    /// Finds compiler and linker on this machine.
    pub(crate) fn find() -> Result<Self, Missing> {
        let compiler = Compiler::find().ok_or(Missing::Compiler)?;
        let linker = find_linker().ok_or(Missing::Linker)?;
        Ok(Self { compiler, linker })
    }

    /// A cargo command for the kernel crate, in an environment without traces of an outer cargo, with more
    /// flags for the compiler than those that the program always needs.
    pub(crate) fn cargo(&self, subcommand: &str, nested: &Nested<'_>, flags: &[&str]) -> Command {
        let mut command = Command::new(&self.compiler.cargo);
        clean_environment(&mut command);
        let arch = architecture(nested.arch);
        let mut rustflags = vec![arch.as_str(), "-Cdebuginfo=2", "-Clink-arg=--btf"];
        rustflags.extend(flags);
        command
            .current_dir(nested.manifest_dir)
            .env("RUSTC", &self.compiler.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\x1f"))
            .env("PATH", path_with(self.linker.parent()))
            .arg(subcommand)
            .args(["--target", TARGET])
            .arg("--target-dir")
            .arg(nested.target_dir);
        if self.compiler.build_std {
            command.args(["-Z", "build-std=core"]);
        } else {
            // Naming the crates keeps every other one on stable rules; `=1` would also make the build
            // scripts of dependencies believe that this is a nightly.
            command.env("RUSTC_BOOTSTRAP", unlocked_crates(nested.manifest_dir));
        }
        command
    }
}

// === impl Compiler ===

impl Compiler {
    /// The first compiler of the list in the module's documentation that is installed.
    pub(crate) fn find() -> Option<Self> {
        Self::with_prebuilt_core().or_else(Self::nightly)
    }

    fn with_prebuilt_core() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        ["/usr/bin", "/usr/local/bin"]
            .iter()
            .map(PathBuf::from)
            .chain(env::split_paths(&path))
            .find_map(|directory| {
                let found = Self {
                    cargo: directory.join("cargo"),
                    rustc: directory.join("rustc"),
                    build_std: false,
                };
                let usable = found.cargo.is_file()
                    && found.rustc.is_file()
                    && found.sysroot()?.join("lib/rustlib").join(TARGET).is_dir();
                usable.then_some(found)
            })
    }

    fn nightly() -> Option<Self> {
        let which = |tool| {
            let mut rustup = Command::new("rustup");
            rustup.args(["which", "--toolchain", "nightly", tool]);
            printed(&mut rustup).map(PathBuf::from)
        };
        let found = Self {
            cargo: which("cargo")?,
            rustc: which("rustc")?,
            build_std: true,
        };
        let source = found.sysroot()?.join("lib/rustlib/src/rust/library/core");
        source.is_dir().then_some(found)
    }

    fn sysroot(&self) -> Option<PathBuf> {
        let mut rustc = Command::new(&self.rustc);
        clean_environment(&mut rustc);
        printed(rustc.args(["--print", "sysroot"])).map(PathBuf::from)
    }

    /// Major version of the LLVM inside this compiler; the linker must have the same one.
    #[allow(dead_code, reason = "only xtask asks")]
    pub(crate) fn llvm_major(&self) -> Option<u32> {
        let mut rustc = Command::new(&self.rustc);
        clean_environment(&mut rustc);
        let text = printed(rustc.arg("-vV"))?;
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))?;
        version.split('.').next()?.parse().ok()
    }
}

// === helpers ===

/// The kernel object that the environment names.
pub(crate) fn ready_object() -> Option<PathBuf> {
    env::var_os(OBJECT)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Directory for what outlives a checkout: tools, kernels.
pub(crate) fn cache_dir() -> PathBuf {
    let from = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(directory) = from(CACHE) {
        return directory;
    }
    from("XDG_CACHE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("nodewatch")
}

/// `bpf-linker` on `PATH` or in the cache directory.
pub(crate) fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([cache_dir().join("tools/bin")])
        .map(|directory| directory.join("bpf-linker"))
        .find(|file| file.is_file())
}

/// The flag that tells aya-ebpf for which architecture's kernel it is compiled.
pub(crate) fn architecture(arch: &str) -> String {
    format!("--cfg=bpf_target_arch=\"{arch}\"")
}

/// Our crates that may use unstable features, and aya's: the value of `RUSTC_BOOTSTRAP`.
pub(crate) fn unlocked_crates(manifest_dir: &Path) -> String {
    let manifest = fs::read_to_string(manifest_dir.join("Cargo.toml")).unwrap_or_default();
    let named = manifest.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "name").then(|| value.trim().trim_matches('"').to_owned())
    });
    let files = fs::read_dir(manifest_dir.join("src/bin"))
        .into_iter()
        .flatten()
        .flatten();
    let binaries = files.filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()));
    let mut crates = vec!["aya_ebpf".to_owned(), "monitor_common".to_owned()];
    crates.extend(named.chain(binaries).map(|name| name.replace('-', "_")));
    crates.sort_unstable();
    crates.dedup();
    crates.join(",")
}

fn path_with(first: Option<&Path>) -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = first
        .map(Path::to_path_buf)
        .into_iter()
        .chain(env::split_paths(&path));
    env::join_paths(directories).unwrap_or(path)
}

/// Removes what cargo and rustup set for the processes they start: it describes the host build.
fn clean_environment(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_build_variable) {
            command.env_remove(&name);
        }
    }
}

fn is_build_variable(name: &str) -> bool {
    const KEPT: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    const REMOVED: [&str; 6] = [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "DEP_",
    ];
    const REMOVED_WHOLE: [&str; 10] = [
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "DEBUG",
        "OPT_LEVEL",
        "NUM_JOBS",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "MFLAGS",
    ];
    let starts_with = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    (starts_with(&REMOVED) && !starts_with(&KEPT)) || REMOVED_WHOLE.contains(&name)
}

fn printed(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Whether an executable of this name is on `PATH` or in the directories of system tools.
#[allow(dead_code, reason = "only xtask asks")]
pub(crate) fn which(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name.as_ref()))
        .find(|file| file.is_file())
}
