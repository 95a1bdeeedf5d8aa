//! One virtual machine: boot, wait, read what it wrote on its console.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::shell::{line, tail};
use crate::vm::image::Image;
use crate::vm::kernel::Kernel;
use crate::vm::modules;

/// Marks the lines of the console that are meant for this program.
const MARK: &str = "NODEWATCH-VM ";
/// How much of a console a failure shows.
const SHOWN_LINES: usize = 60;

/// How machines are run.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Where archives and consoles are written.
    pub(crate) folder: PathBuf,
    /// Hardware virtualisation instead of emulation.
    pub(crate) kvm: bool,
    /// How long a machine may run.
    pub(crate) limit: Duration,
}

/// What one machine did.
#[derive(Debug)]
pub(crate) struct Run {
    /// Kernel release that it reported.
    pub(crate) release: Option<String>,
    console: String,
    timed_out: bool,
}

// === impl Machine ===

impl Machine {
    /// Boots a kernel and waits until it powers off.
    pub(crate) fn boot(&self, name: &str, kernel: &Kernel, image: &Image) -> Result<Run> {
        let archive = self.folder.join(format!("{name}.cpio"));
        let log = self.folder.join(format!("{name}.log"));
        fs::write(
            &archive,
            image.with_modules(&modules::load_order(&kernel.modules)?),
        )
        .with_context(|| format!("cannot write {}", archive.display()))?;
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-M",
            "q35",
            "-m",
            "1024",
            "-smp",
            "1",
            "-nographic",
            "-no-reboot",
        ])
        .args(["-nodefaults", "-serial", "stdio", "-nic", "none"])
        .args(if self.kvm {
            ["-accel", "kvm"]
        } else {
            ["-accel", "tcg"]
        })
        .args(["-cpu", if self.kvm { "host" } else { "max" }])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&archive)
        // quiet boot; a panic ends the machine at once
        .args([
            "-append",
            "console=ttyS0 loglevel=4 panic=-1 random.trust_cpu=on",
        ])
        .stdin(Stdio::null())
        .stdout(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?)
        .stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = qemu
            .spawn()
            .with_context(|| format!("cannot start {}", line(&qemu)))?;
        let mut timed_out = false;
        while child.try_wait().context("cannot wait for QEMU")?.is_none() {
            if start.elapsed() > self.limit {
                timed_out = true;
                // it may have ended in between; waiting below shows either way
                let _ = child.kill();
            }
            thread::sleep(Duration::from_millis(100));
        }
        let output = child.wait_with_output().context("cannot wait for QEMU")?;
        let mut console = printable(&String::from_utf8_lossy(&fs::read(&log)?));
        if !output.stderr.is_empty() {
            console.push_str("\nqemu: ");
            console.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        fs::write(&log, &console)?;
        fs::remove_file(&archive).context("cannot remove the archive of a finished machine")?;
        Ok(Run::from_console(console, timed_out))
    }
}

// === impl Run ===

impl Run {
    fn from_console(console: String, timed_out: bool) -> Self {
        let release = marked(&console).find_map(|text| text.strip_prefix("release="));
        Self {
            release: release.map(str::to_owned),
            console,
            timed_out,
        }
    }

    /// Whether a program passed, and what to print about it.
    pub(crate) fn result(&self, program: &str) -> (bool, String) {
        let exit = marked(&self.console)
            .find_map(|text| text.strip_prefix(program)?.strip_prefix(" exit="));
        let counts = self
            .counts(program)
            .map(|counts| format!(": {counts}"))
            .unwrap_or_default();
        match exit {
            Some("0") => (true, format!("ok{counts}")),
            Some(status) => (false, format!("FAILED (exit {status}){counts}")),
            None if self.timed_out => (false, "TIMED OUT".to_owned()),
            None => (false, "DID NOT FINISH".to_owned()),
        }
    }

    /// What the test harness of a program counted.
    fn counts(&self, program: &str) -> Option<&str> {
        let end = self.console.find(&format!("{MARK}{program} exit="))?;
        let before = &self.console[..end];
        let own = before.rfind(MARK).map_or(before, |start| &before[start..]);
        let result = own
            .lines()
            .rev()
            .find_map(|line| line.split_once("test result: "))?
            .1;
        result
            .split_once(". ")
            .map(|(_, counts)| counts.split("; 0 measured").next().unwrap_or(counts))
    }

    /// The end of the console.
    pub(crate) fn tail(&self) -> String {
        tail(&self.console, SHOWN_LINES)
    }
}

/// Console output without the control sequences of the firmware.
fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            // ESC [ parameters letter, or ESC and one letter
            '\u{1b}' => {
                if characters.next() == Some('[') {
                    characters.by_ref().find(char::is_ascii_alphabetic);
                }
            }
            '\n' | '\t' => clean.push(character),
            _ if character.is_control() => {}
            _ => clean.push(character),
        }
    }
    clean
}

/// What follows the mark on the lines that have it; a kernel message may stand before it.
fn marked(console: &str) -> impl Iterator<Item = &str> {
    console
        .lines()
        .filter_map(|line| Some(line[line.find(MARK)? + MARK.len()..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[ 0.1] boot\nNODEWATCH-VM release=6.1.0-9-cloud-amd64\n\
        test a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
        [ 1.0] noise NODEWATCH-VM kernel exit=0\nNODEWATCH-VM other exit=101\n";

    #[test]
    fn results_are_read_from_the_console() {
        let run = Run::from_console(CONSOLE.to_owned(), false);
        assert_eq!(run.release.as_deref(), Some("6.1.0-9-cloud-amd64"));
        assert_eq!(
            run.result("kernel"),
            (true, "ok: 3 passed; 0 failed; 1 ignored".to_owned())
        );
        assert_eq!(run.result("other"), (false, "FAILED (exit 101)".to_owned()));
        assert_eq!(run.result("absent"), (false, "DID NOT FINISH".to_owned()));
    }

    #[test]
    fn control_sequences_are_removed() {
        assert_eq!(
            printable("\u{1b}c\u{1b}[?7l\u{1b}[2Jok\r\nnext\u{7}"),
            "ok\nnext"
        );
    }

    #[test]
    fn a_machine_that_hangs_is_a_failure() {
        let run = Run::from_console("[ 0.1] boot\n".to_owned(), true);
        assert_eq!(run.release, None);
        assert_eq!(run.result("kernel"), (false, "TIMED OUT".to_owned()));
    }
}
