//! One network namespace: commands in it, its interfaces and their counters.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::capture::Capture;
use super::process::{self, Guard};
use super::{sweep, wait};

/// A network namespace that a lab made; its processes end and it is deleted with this value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    directory: PathBuf,
    file: Arc<File>,
    logs: AtomicU32,
}

/// An interface's own counters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received, link header included.
    pub rx_bytes: u64,
    /// Received packets that the device dropped.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent, link header included.
    pub tx_bytes: u64,
    /// Packets that the device refused to send.
    pub tx_dropped: u64,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

// === impl Namespace ===

impl Namespace {
    /// Makes a namespace; `directory` is where logs of its processes go.
    pub(super) fn create(name: &str, directory: &Path) -> Result<Self> {
        process::checked(Command::new("ip").args(["netns", "add", name]))?;
        let path = Path::new(sweep::NAMESPACES).join(name);
        let opened = File::open(&path).with_context(|| format!("cannot open {}", path.display()));
        let file = opened.inspect_err(|_| sweep::delete_namespace(name))?;
        let namespace = Self {
            name: name.to_owned(),
            directory: directory.to_path_buf(),
            file: Arc::new(file),
            logs: AtomicU32::new(0),
        };
        for scope in ["default", "all"] {
            for (key, value) in [
                ("accept_dad", "0"),
                ("dad_transmits", "0"),
                ("accept_ra", "0"),
                ("router_solicitations", "0"),
            ] {
                namespace.sysctl(&format!("net.ipv6.conf.{scope}.{key}"), value)?;
            }
            namespace.sysctl(&format!("net.ipv4.conf.{scope}.rp_filter"), "0")?;
        }
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name, as `ip netns list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path that `nsenter --net=` takes.
    pub fn path(&self) -> PathBuf {
        Path::new(sweep::NAMESPACES).join(&self.name)
    }

    /// The lab's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe.
        unsafe { command.pre_exec(move || enter(&file)) };
        command
    }

    /// A shell line that a person can type to run `what` inside.
    pub fn shell_line(&self, what: &str) -> String {
        format!("nsenter --net={} {what}", self.path().display())
    }

    /// Runs a closure on a thread that is inside.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| enter(&self.file).map(|()| inside()));
            match thread.join() {
                Ok(result) => result.with_context(|| format!("cannot enter {}", self.name)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a command made by [`Namespace::command`] in a process group of its own; its output
    /// goes to a log in the lab's directory.
    pub fn spawn(&self, label: &str, command: &mut Command) -> Result<Guard> {
        let number = self.logs.fetch_add(1, Ordering::Relaxed);
        let log = self
            .directory
            .join(format!("{}-{label}-{number}.log", self.name));
        process::spawn(label, command, &log)
    }

    /// Runs `ip` for this namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        process::checked(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Runs many `ip` commands, one a line, at the price of one process.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ip")?;
        let mut input = child.stdin.take().context("ip has no standard input")?;
        input
            .write_all(lines.as_bytes())
            .context("cannot write to ip")?;
        drop(input);
        let output = child.wait_with_output().context("cannot wait for ip")?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            bail!("ip -batch in {}: {}\n{lines}", self.name, errors.trim());
        }
        Ok(())
    }

    /// Sets a sysctl of this namespace, dotted as for sysctl(8).
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.run(|| fs::write(&path, value))?
            .with_context(|| format!("cannot set {key} = {value} in {}", self.name))
    }

    /// Sets an interface's MTU.
    pub fn set_mtu(&self, interface: &str, mtu: u32) -> Result<()> {
        self.ip(&["link", "set", interface, "mtu", &mtu.to_string()])
            .map(drop)
    }

    /// Switches segmentation, receive aggregation and checksum offloads of an interface.
    pub fn set_offloads(&self, interface: &str, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let mut command = self.command("ethtool");
        command.args(["-K", interface]);
        for feature in ["rx", "tx", "tso", "gso", "gro"] {
            command.args([feature, state]);
        }
        process::checked(&mut command).map(drop)
    }

    /// Reads an interface's counters.
    pub fn stats(&self, interface: &str) -> Result<Counters> {
        let text = self.ip(&["-s", "-j", "link", "show", "dev", interface])?;
        let links: serde_json::Value = serde_json::from_str(&text).context("ip printed no JSON")?;
        let number = |direction: &str, field: &str| {
            links[0]["stats64"][direction][field]
                .as_u64()
                .with_context(|| {
                    format!(
                        "ip shows no {direction} {field} for {interface} in {}: {text}",
                        self.name
                    )
                })
        };
        Ok(Counters {
            rx_packets: number("rx", "packets")?,
            rx_bytes: number("rx", "bytes")?,
            rx_dropped: number("rx", "dropped")?,
            tx_packets: number("tx", "packets")?,
            tx_bytes: number("tx", "bytes")?,
            tx_dropped: number("tx", "dropped")?,
        })
    }

    /// Waits until an interface passes packets: after a link comes up, the kernel still discards
    /// what is sent for some milliseconds.
    pub fn wait_up(&self, interface: &str) -> Result<()> {
        let what = format!("{interface} in {} to come up", self.name);
        wait::until(&what, Duration::from_secs(5), || {
            let text = self.ip(&["-j", "link", "show", "dev", interface]).ok()?;
            text.contains("\"operstate\":\"UP\"").then_some(())
        })
    }

    /// An interface's hardware address.
    pub fn hardware_address(&self, interface: &str) -> Result<String> {
        let text = self.ip(&["-j", "link", "show", "dev", interface])?;
        let links: serde_json::Value = serde_json::from_str(&text).context("ip printed no JSON")?;
        let address = links[0]["address"].as_str();
        address
            .map(str::to_owned)
            .with_context(|| format!("{interface} has no hardware address"))
    }

    /// The interfaces' names.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        let text = self.ip(&["-j", "link", "show"])?;
        let links: Vec<serde_json::Value> =
            serde_json::from_str(&text).context("ip printed no JSON")?;
        Ok(links
            .iter()
            .filter_map(|link| link["ifname"].as_str())
            .map(str::to_owned)
            .collect())
    }

    /// Starts to capture an interface's packets into a file.
    pub fn capture(&self, interface: &str, path: &Path) -> Result<Capture> {
        Capture::start(self, interface, path)
    }

    /// Waits until something listens on a port here, over either IP version.
    pub fn wait_listening(&self, transport: Transport, port: u16, within: Duration) -> Result<()> {
        let what = format!("a {transport:?} listener on port {port} in {}", self.name);
        self.run(|| wait::until(&what, within, || listens(transport, port).then_some(())))?
    }

    /// The processes inside.
    pub fn pids(&self) -> Vec<u32> {
        sweep::pids_in(&self.path())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        sweep::end_processes(&self.path());
        sweep::delete_namespace(&self.name);
    }
}

// === impl Counters ===

impl std::ops::Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            rx_packets: self.rx_packets - earlier.rx_packets,
            rx_bytes: self.rx_bytes - earlier.rx_bytes,
            rx_dropped: self.rx_dropped - earlier.rx_dropped,
            tx_packets: self.tx_packets - earlier.tx_packets,
            tx_bytes: self.tx_bytes - earlier.tx_bytes,
            tx_dropped: self.tx_dropped - earlier.tx_dropped,
        }
    }
}

/// Moves the calling thread into a network namespace.
pub fn enter(namespace: &File) -> std::io::Result<()> {
    // SAFETY: the descriptor is open for the whole call; setns changes the calling thread only.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Whether the calling thread's namespace has a listener, from the kernel's socket tables.
fn listens(transport: Transport, port: u16) -> bool {
    let (name, state) = match transport {
        Transport::Tcp => ("tcp", "0A"),
        Transport::Udp => ("udp", "07"),
    };
    let suffix = format!(":{port:04X}");
    ["", "6"].iter().any(|version| {
        let path = format!("/proc/thread-self/net/{name}{version}");
        fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .skip(1)
            .any(|line| {
                let mut fields = line.split_ascii_whitespace().skip(1);
                let local = fields.next().unwrap_or_default();
                local.ends_with(&suffix) && fields.nth(1) == Some(state)
            })
    })
}
