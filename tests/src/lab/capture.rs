//! Packet captures by tcpdump, complete from the start to the stop.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::namespace::Namespace;
use super::process::Guard;
use super::wait;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    guard: Guard,
    path: PathBuf,
}

/// What a finished capture holds.
#[derive(Debug)]
pub struct Captured {
    /// The file.
    pub path: PathBuf,
    /// Packets in it.
    pub packets: u64,
    /// Packets that the kernel could not hand over in time.
    pub dropped: u64,
}

impl Capture {
    /// Starts tcpdump and returns once it listens.
    pub(super) fn start(namespace: &Namespace, interface: &str, path: &Path) -> Result<Self> {
        let mut command = namespace.command("tcpdump");
        command.args([
            "-i", interface, "-n", "-s", "0", "-B", "32768", "-U", "-Z", "root", "-w",
        ]);
        command.arg(path);
        let mut guard = namespace.spawn("tcpdump", &mut command)?;
        guard.wait_log("listening on", Duration::from_secs(10))?;
        Ok(Self {
            guard,
            path: path.to_path_buf(),
        })
    }

    /// Lets the last packets reach the file, ends tcpdump and returns its own counts.
    pub fn stop(mut self) -> Result<Captured> {
        let size = || Ok(std::fs::metadata(&self.path).map_or(0, |file| file.len()));
        // libpcap hands packets over in blocks, a partly filled one after a second.
        let (calm, within) = (Duration::from_millis(1300), Duration::from_secs(30));
        wait::until_stable("the capture file", calm, within, size)?;
        self.guard.signal(libc::SIGINT);
        let status = self
            .guard
            .wait(Duration::from_secs(10))
            .context("tcpdump does not end")?;
        let log = self.guard.log();
        if !status.success() {
            bail!("tcpdump: {status}\n{log}");
        }
        let count = |what: &str| {
            let line = log.lines().find(|line| line.trim_end().ends_with(what));
            let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
            number.with_context(|| format!("tcpdump did not say {what:?}:\n{log}"))
        };
        Ok(Captured {
            packets: count("captured")?,
            dropped: count("dropped by kernel")?,
            path: self.path,
        })
    }
}
