//! Whether this machine can run a lab at all, and one lab at a time.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::sweep;

/// Environment variable that turns "skipped" into "failed".
pub const REQUIRE: &str = "NODEWATCH_REQUIRE_ROOT_TESTS";

static SWEPT: OnceLock<()> = OnceLock::new();
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The right to run a lab: labs of one test binary run one after another, so that timings mean
/// something.
#[derive(Debug)]
pub struct Permit {
    _turn: MutexGuard<'static, ()>,
}

/// Returns a permit where labs work. Elsewhere it says why the test is skipped, or panics if the
/// environment demands these tests (`CI=true` or `NODEWATCH_REQUIRE_ROOT_TESTS=1`).
pub fn require() -> Option<Permit> {
    require_with(&[])
}

/// Like [`require`], for a test that also needs these programs.
pub fn require_with(tools: &[&str]) -> Option<Permit> {
    let refusal = obstacle()
        .map(str::to_owned)
        .or_else(|| missing_tool(tools).map(|tool| format!("program {tool} is not installed")));
    if let Some(reason) = refusal {
        skip(&reason);
        return None;
    }
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    SWEPT.get_or_init(sweep::stale);
    Some(Permit { _turn: turn })
}

/// Says that a test is skipped, or panics where skipping is not allowed.
pub fn skip(reason: &str) {
    assert!(
        !demanded(),
        "this test may not be skipped here ({REQUIRE} or CI is set): {reason}"
    );
    // Not eprintln: the test harness would swallow it, and a skipped test would look like a pass.
    let line = format!("skipped: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Why labs do not work here, if so.
pub fn obstacle() -> Option<&'static str> {
    static OBSTACLE: OnceLock<Option<&'static str>> = OnceLock::new();
    *OBSTACLE.get_or_init(find_obstacle)
}

/// Where a program is, by `PATH` and the system directories.
pub fn find_tool(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(Into::into))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

fn missing_tool<'a>(tools: &[&'a str]) -> Option<&'a str> {
    tools.iter().copied().find(|tool| find_tool(tool).is_none())
}

fn demanded() -> bool {
    let is = |name: &str, wanted: &str| std::env::var(name).is_ok_and(|value| value == wanted);
    is("CI", "true") || is(REQUIRE, "1")
}

fn find_obstacle() -> Option<&'static str> {
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("network labs need root");
    }
    if !Path::new("/proc/self/ns/net").exists() {
        return Some("this kernel has no network namespaces");
    }
    if missing_tool(&["ip", "nsenter", "unshare"]).is_some() {
        return Some("network labs need ip, nsenter and unshare (packages iproute2, util-linux)");
    }
    let works = Command::new("unshare")
        .args([
            "--net", "--mount", "ip", "link", "add", "name", "one", "type", "veth",
        ])
        .args(["peer", "name", "two"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    (!works).then_some("making a network namespace with a veth pair is not permitted here")
}
