//! The daemon under test: started in a namespace, read over HTTP and its socket, stopped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::lab::client;
use crate::lab::process::{self, Guard, Stopped};
use crate::lab::{Namespace, wait};
use crate::openmetrics::Metrics;

/// Environment variable with the path of a ready binary.
pub const BINARY: &str = "NODEWATCH_BIN";

/// Where the daemon serves HTTP inside its namespace.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9469);

/// How long a start or an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A running daemon; it is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon<'lab> {
    /// The process.
    pub guard: Guard,
    namespace: &'lab Namespace,
    socket: PathBuf,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header lines.
    pub head: String,
    /// The body.
    pub body: String,
}

/// The binary: `NODEWATCH_BIN`, else built once in the running program's profile.
pub fn binary() -> Result<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os(BINARY) {
            let path = PathBuf::from(path);
            let absolute = std::fs::canonicalize(&path);
            return absolute.map_err(|error| format!("{BINARY}={}: {error}", path.display()));
        }
        client::build("monitor", "nodewatch").or_else(|error| {
            let beside = client::beside("nodewatch").filter(|path| path.is_file());
            beside.ok_or_else(|| format!("{error:#}"))
        })
    });
    match found {
        Ok(path) => Ok(path),
        Err(error) => bail!("no nodewatch binary: {error}"),
    }
}

/// The daemon's command line in a namespace, not started: `nodewatch <arguments>`.
pub fn command(namespace: &Namespace, arguments: &[&str]) -> Result<Command> {
    let mut command = namespace.command(binary()?);
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        // The tests may themselves run in a pod.
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("NO_COLOR");
    Ok(command)
}

/// Gets a path over HTTP inside a namespace.
pub fn http(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<Response> {
    namespace
        .run(|| get(address, path))?
        .with_context(|| format!("GET http://{address}{path}"))
}

// === impl Daemon ===

impl<'lab> Daemon<'lab> {
    /// Starts `nodewatch run` with further arguments and waits until it is ready.
    pub fn start(namespace: &'lab Namespace, arguments: &[&str]) -> Result<Self> {
        let mut daemon = Self::launch(namespace, arguments)?;
        daemon.wait_ready(PATIENCE)?;
        Ok(daemon)
    }

    /// Starts `nodewatch run` and does not wait.
    pub fn launch(namespace: &'lab Namespace, arguments: &[&str]) -> Result<Self> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let socket = namespace.directory().join(format!("api-{number}.sock"));
        Self::launch_at(namespace, arguments, &socket)
    }

    /// Starts `nodewatch run` on a socket of one's choice and does not wait.
    pub fn launch_at(
        namespace: &'lab Namespace,
        arguments: &[&str],
        socket: &Path,
    ) -> Result<Self> {
        let command = command(namespace, &["run", "--listen", &LISTEN.to_string()])?;
        Self::spawn(namespace, command, arguments, socket)
    }

    /// Starts `nodewatch run` by another program, which is to run its last arguments.
    pub fn launch_by(
        namespace: &'lab Namespace,
        mut by: Command,
        arguments: &[&str],
    ) -> Result<Self> {
        by.env_remove("RUST_LOG")
            .arg(binary()?)
            .args(["run", "--listen", &LISTEN.to_string()]);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let socket = namespace.directory().join(format!("api-{number}.sock"));
        Self::spawn(namespace, by, arguments, &socket)
    }

    fn spawn(
        namespace: &'lab Namespace,
        mut command: Command,
        arguments: &[&str],
        socket: &Path,
    ) -> Result<Self> {
        command.arg("--socket").arg(socket).args(arguments);
        let guard = namespace.spawn("nodewatch", &mut command)?;
        Ok(Self {
            guard,
            namespace,
            socket: socket.to_path_buf(),
        })
    }

    /// Waits until `/readyz` says yes.
    pub fn wait_ready(&mut self, within: Duration) -> Result<()> {
        let namespace = self.namespace;
        let ready = wait::until("the daemon to be ready", within, || {
            let yes = http(namespace, LISTEN, "/readyz").is_ok_and(|answer| answer.status == 200);
            (yes || !self.guard.is_running()).then_some(yes)
        });
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the daemon ended:\n{}", self.guard.log()),
            Err(error) => Err(error.context(format!("log:\n{}", self.guard.log()))),
        }
    }

    /// Where it runs.
    pub fn namespace(&self) -> &'lab Namespace {
        self.namespace
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// The API socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the daemon wrote.
    pub fn log(&self) -> String {
        self.guard.log()
    }

    /// Gets a path over HTTP.
    pub fn http(&self, path: &str) -> Result<Response> {
        http(self.namespace, LISTEN, path)
    }

    /// Scrapes and parses `/metrics`.
    pub fn metrics(&self) -> Result<Metrics> {
        let answer = self.http("/metrics")?;
        ensure!(
            answer.status == 200,
            "/metrics: {} {}",
            answer.status,
            answer.body
        );
        Metrics::parse(&answer.body)
    }

    /// A client command against the daemon's socket.
    pub fn cli(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = command(self.namespace, arguments)?;
        command.arg("--socket").arg(&self.socket);
        Ok(command)
    }

    /// Runs a client command to its end, whatever its exit status.
    pub fn ask(&self, arguments: &[&str]) -> Result<Output> {
        process::output(&mut self.cli(arguments)?, PATIENCE)
    }

    /// Runs a client command that has to succeed and returns its standard output.
    pub fn tell(&self, arguments: &[&str]) -> Result<String> {
        process::checked(&mut self.cli(arguments)?)
            .with_context(|| format!("daemon's log:\n{}", self.guard.log()))
    }

    /// Runs a client command with `-o jsonl` and parses every line.
    pub fn records(&self, arguments: &[&str]) -> Result<Vec<serde_json::Value>> {
        let text = self.tell(&[arguments, &["-o", "jsonl"]].concat())?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
            .collect()
    }

    /// Asks the daemon to end and says how it did and how long it took.
    pub fn stop(self) -> Result<Stopped> {
        self.guard.stop(libc::SIGTERM, PATIENCE)
    }

    /// Kills the daemon without a warning.
    pub fn kill(mut self) {
        self.guard.kill();
    }
}

/// Whether standard error of a finished command mentions all of these, in any case of letters.
pub fn mentions(output: &Output, words: &[&str]) -> bool {
    let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
    words.iter().all(|word| text.contains(&word.to_lowercase()))
}

fn get(address: SocketAddr, path: &str) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).context("not UTF-8")?;
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.context("no status code")?;
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok(Response {
        status,
        head: head.to_owned(),
        body,
    })
}

fn unchunk(mut text: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
            .context("a chunk's size is no number")?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(rest.get(..size).context("a chunk is cut short")?);
        text = rest[size..]
            .strip_prefix("\r\n")
            .context("a chunk without an end")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        assert_eq!(
            unchunk("3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n").expect("it is right"),
            "abcde"
        );
        assert!(unchunk("5\r\nabc\r\n0\r\n\r\n").is_err());
    }
}
