//! Child processes with a deadline, and a guard that ends a whole process group.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::wait;

/// How long a helper command may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running process group; it is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    label: String,
    log: Option<PathBuf>,
}

/// How a process ended when it was asked to.
#[derive(Debug)]
pub struct Stopped {
    /// The exit status.
    pub status: ExitStatus,
    /// Time from the signal to the end.
    pub took: Duration,
}

/// Runs a command to its end and returns what it wrote; kills it after `within`.
pub fn output(command: &mut Command, within: Duration) -> Result<Output> {
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let mut guard = Guard {
        child,
        label: shown,
        log: None,
    };
    let status = guard.wait(within);
    if status.is_none() {
        guard.kill();
    }
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status {
        Some(status) => Ok(Output {
            status,
            stdout,
            stderr,
        }),
        None => bail!(
            "{} still ran after {:.0} s; stderr: {}",
            guard.label,
            within.as_secs_f64(),
            String::from_utf8_lossy(&stderr)
        ),
    }
}

/// Runs a command that has to succeed and returns its standard output.
pub fn checked(command: &mut Command) -> Result<String> {
    checked_within(command, PATIENCE)
}

/// Like [`checked`], with a deadline of one's own.
pub fn checked_within(command: &mut Command, within: Duration) -> Result<String> {
    let shown = show(command);
    let output = output(command, within)?;
    if !output.status.success() {
        bail!(
            "{shown}: {}; stdout: {}; stderr: {}",
            output.status,
            String::from_utf8_lossy(&output.stdout).trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a command in a process group of its own, writing to `log`.
pub fn spawn(label: &str, command: &mut Command, log: &Path) -> Result<Guard> {
    let file = fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let errors = file.try_clone().context("cannot duplicate the log")?;
    command.stdin(Stdio::null()).stdout(file).stderr(errors);
    let mut guard = Guard::start(label, command)?;
    guard.log = Some(log.to_path_buf());
    Ok(guard)
}

// === impl Guard ===

impl Guard {
    /// Starts a command in a process group of its own, with the standard streams as they are set.
    pub fn start(label: &str, command: &mut Command) -> Result<Self> {
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {label}: {}", show(command)))?;
        Ok(Self {
            child,
            label: label.to_owned(),
            log: None,
        })
    }

    /// The process id, which is also the group's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it was started as.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The child's standard output, if it was piped and not taken before.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What the process wrote so far.
    pub fn log(&self) -> String {
        let bytes = self
            .log
            .as_ref()
            .and_then(|path| fs::read(path).ok())
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal to the process alone, not to its group.
    pub fn signal(&mut self, signal: libc::c_int) {
        if self.is_running() {
            send(self.pid(), signal);
        }
    }

    /// Waits for the end.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        let mut step = Duration::from_millis(1);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if start.elapsed() >= within {
                return None;
            }
            std::thread::sleep(step);
            step = (step * 2).min(Duration::from_millis(10));
        }
    }

    /// Sends a signal, waits for the end and says how long it took.
    pub fn stop(mut self, signal: libc::c_int, within: Duration) -> Result<Stopped> {
        let start = Instant::now();
        self.signal(signal);
        match self.wait(within) {
            Some(status) => Ok(Stopped {
                status,
                took: start.elapsed(),
            }),
            None => bail!(
                "{} did not end within {:.1} s of signal {signal}; log:\n{}",
                self.label,
                within.as_secs_f64(),
                self.log()
            ),
        }
    }

    /// Waits until the log contains `text`.
    pub fn wait_log(&mut self, text: &str, within: Duration) -> Result<()> {
        let found = wait::until(&format!("{} to say {text:?}", self.label), within, || {
            let log = self.log();
            (log.contains(text) || !self.is_running()).then(|| self.log().contains(text))
        });
        match found {
            Ok(true) => Ok(()),
            Ok(false) => bail!(
                "{} ended without {text:?}; log:\n{}",
                self.label,
                self.log()
            ),
            Err(error) => Err(error.context(format!("log:\n{}", self.log()))),
        }
    }

    /// Kills the group and reaps the process.
    pub fn kill(&mut self) {
        if self.is_running() {
            // SAFETY: kill takes plain integers. The group id is the id of our own child, which is
            // not reaped yet, so the number cannot belong to anyone else.
            unsafe { libc::kill(-pid_number(self.pid()), libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to one process.
pub(super) fn send(pid: u32, signal: libc::c_int) {
    // SAFETY: kill takes plain integers; a process that is gone gives an error and no more.
    unsafe { libc::kill(pid_number(pid), signal) };
}

/// A command line as a shell would show it.
pub fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn pid_number(pid: u32) -> libc::pid_t {
    libc::pid_t::try_from(pid).expect("process ids are positive 32-bit numbers")
}

fn drain<R: Read + Send + 'static>(source: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut source) = source {
            let _ = source.read_to_end(&mut bytes);
        }
        bytes
    })
}
