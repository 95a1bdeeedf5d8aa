//! Clients: curl, iperf3 and the lab's own traffic program.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};

use super::namespace::{Namespace, Transport};
use super::process::{self, Guard};
use super::{gate, wait};
use crate::traffic::Report;

/// How long one run of a client may take.
const RUN: Duration = Duration::from_secs(150);

/// A curl command that prints the body and fails on an HTTP error.
pub fn curl(from: &Namespace, url: &str) -> Command {
    let mut command = from.command("curl");
    command.args([
        "--silent",
        "--show-error",
        "--fail",
        "--insecure",
        "--max-time",
        "20",
    ]);
    command.args(["--noproxy", "*", url]);
    command
}

/// The URL of a path at an address, with the brackets of IPv6.
pub fn url(scheme: &str, address: IpAddr, path: &str) -> String {
    let host = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    format!("{scheme}://{host}{path}")
}

/// An iperf3 client that reports in JSON.
pub fn iperf(from: &Namespace, to: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = from.command("iperf3");
    command.args([
        "--json",
        "--client",
        &to.ip().to_string(),
        "--port",
        &to.port().to_string(),
    ]);
    command.args(arguments);
    command
}

/// The lab's traffic program with these arguments.
pub fn traffic(from: &Namespace, arguments: &[&str]) -> Result<Command> {
    let mut command = from.command(traffic_program()?);
    command.args(arguments);
    Ok(command)
}

/// Runs the traffic program to its end and returns what it says it did.
pub fn send(from: &Namespace, arguments: &[&str]) -> Result<Report> {
    let text = process::checked_within(&mut traffic(from, arguments)?, RUN)?;
    serde_json::from_str(text.trim()).with_context(|| format!("no report: {text:?}"))
}

/// A run of the traffic program in the background.
#[derive(Debug)]
pub struct Running {
    guard: Guard,
}

/// Starts the traffic program and does not wait for its end.
pub fn start(from: &Namespace, arguments: &[&str]) -> Result<Running> {
    let guard = from.spawn("traffic", &mut traffic(from, arguments)?)?;
    Ok(Running { guard })
}

/// Starts one of the traffic program's servers, such as `tcp-serve`, on all addresses.
pub fn serve(namespace: &Namespace, what: &str, port: u16) -> Result<Guard> {
    let listen = format!("[::]:{port}");
    let mut command = traffic(namespace, &[what, "--listen", &listen])?;
    let guard = namespace.spawn(what, &mut command)?;
    let transport = if what.starts_with("tcp") {
        Transport::Tcp
    } else {
        Transport::Udp
    };
    namespace
        .wait_listening(transport, port, Duration::from_secs(10))
        .with_context(|| format!("{what}: {}", guard.log()))?;
    Ok(guard)
}

/// Waits until `from` reaches `to` by an echo request, so that neighbours are resolved.
pub fn wait_reachable(from: &Namespace, to: IpAddr, within: Duration) -> Result<()> {
    let address = to.to_string();
    let what = format!("{to} to answer in {}", from.name());
    wait::until(&what, within, || {
        let report = send(
            from,
            &["icmp", "--to", &address, "--count", "1", "--wait-ms", "500"],
        );
        report
            .is_ok_and(|report| report.received == 1)
            .then_some(())
    })
}

// === impl Running ===

impl Running {
    /// Waits for the end and returns what the program says it did.
    pub fn report(mut self, within: Duration) -> Result<Report> {
        let status = self.guard.wait(within);
        let text = self.guard.log();
        let status = status.with_context(|| format!("the traffic program still runs: {text}"))?;
        anyhow::ensure!(status.success(), "the traffic program: {status}: {text}");
        serde_json::from_str(text.trim()).with_context(|| format!("no report: {text:?}"))
    }

    /// Whether it still sends.
    pub fn is_running(&mut self) -> bool {
        self.guard.is_running()
    }
}

/// The traffic program: beside this program, else built once.
fn traffic_program() -> Result<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| {
        let beside = beside("traffic");
        if let Some(path) = beside.as_ref().filter(|path| path.is_file()) {
            return Ok(path.clone());
        }
        build("tests", "traffic").map_err(|error| format!("{error:#}"))
    });
    found
        .clone()
        .map_err(|error| anyhow::anyhow!("no traffic program: {error}"))
}

/// Where a program of this workspace is if it was built together with the running one.
pub(crate) fn beside(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let directory = own.parent()?;
    let directory = if directory.ends_with("deps") {
        directory.parent()?
    } else {
        directory
    };
    Some(directory.join(name))
}

/// Builds a program of this workspace in the running one's profile and returns where it is.
pub(crate) fn build(package: &str, name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from);
    let cargo = cargo
        .or_else(|| gate::find_tool("cargo"))
        .context("cargo is not installed")?;
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--message-format=json-render-diagnostics",
        "--package",
        package,
    ]);
    command
        .args(["--bin", name])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let messages = process::checked_within(&mut command, Duration::from_mins(15))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no program {name}"))
}
