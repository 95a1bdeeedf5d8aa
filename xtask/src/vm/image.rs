//! The root file system of a test machine: busybox, network tools, the test programs and the libraries
//! that all of them link. One archive for every kernel; the modules come as a second one behind it.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::programs::DAEMON;
use crate::shell::{printed, quiet};
use crate::toolchain::which;
use crate::vm::Program;
use crate::vm::cpio::Archive;
use crate::vm::modules::Module;

/// Tools that tests may start; those that this machine lacks are left out.
const TOOLS: [&str; 5] = ["ip", "tc", "ethtool", "bpftool", "nft"];
/// Directories that must exist before anything is mounted.
const DIRECTORIES: [&str; 7] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/var", "/etc"];

/// Where the daemon is in the machine.
const DAEMON_PLACE: &str = "/usr/bin/nodewatch";

/// The archive without modules.
#[derive(Debug)]
pub(crate) struct Image {
    bytes: Vec<u8>,
}

// === impl Image ===

impl Image {
    /// Collects everything but the modules.
    pub(crate) fn build(
        programs: &[Program],
        daemon: Option<&Path>,
        arguments: &[String],
    ) -> Result<Self> {
        let mut archive = Archive::default();
        for directory in DIRECTORIES {
            archive.directory(directory);
        }
        archive.link("/var/run", "/run");
        let busybox = which("busybox").context("busybox is not installed")?;
        add(&mut archive, "/bb/busybox", &busybox)?;
        // not busybox: its shell prefers its own applets to the real `ip` and `tc`
        add(
            &mut archive,
            "/bin/sh",
            &which("sh").context("there is no shell")?,
        )?;
        archive.file("/init", include_bytes!("init.sh"));
        for tool in TOOLS {
            if let Some(path) = which(tool) {
                add(&mut archive, &format!("/sbin/{tool}"), &path)?;
            }
        }
        for program in programs {
            let small = stripped(&program.path)?;
            archive.file(&format!("/tests/{}", program.name), &small);
            libraries(&mut archive, &program.path)?;
        }
        if let Some(daemon) = daemon {
            archive.file(DAEMON_PLACE, &stripped(daemon)?);
            libraries(&mut archive, daemon)?;
        }
        let names: String = programs
            .iter()
            .map(|program| program.name.clone() + "\n")
            .collect();
        archive.file("/programs", names.as_bytes());
        archive.file("/arguments", command_line(arguments).as_bytes());
        archive.file("/environment", environment().as_bytes());
        Ok(Self {
            bytes: archive.finish(),
        })
    }

    /// The archive with a kernel's modules.
    pub(crate) fn with_modules(&self, modules: &[Module]) -> Vec<u8> {
        let mut archive = Archive::default();
        let mut order = String::new();
        for module in modules {
            archive.file(&format!("/modules/{}.ko", module.name), &module.object);
            order.push_str(&module.name);
            order.push('\n');
        }
        archive.file("/modules/order", order.as_bytes());
        let mut bytes = self.bytes.clone();
        bytes.extend(archive.finish());
        bytes
    }
}

/// What the test programs find in their environment: `NODEWATCH_*` of this process, no skipping.
fn environment() -> String {
    let mut text = format!(
        "export NODEWATCH_VM=1 NODEWATCH_REQUIRE_ROOT_TESTS=1 RUST_BACKTRACE=1 LC_ALL=C\n\
         export {DAEMON}={DAEMON_PLACE}\n"
    );
    for (name, value) in env::vars() {
        // paths of this machine mean nothing there
        if name.starts_with("NODEWATCH_") && !value.contains('/') {
            // writing to a String cannot fail
            let _ = writeln!(text, "export {name}={}", quoted(&value));
        }
    }
    text
}

fn command_line(arguments: &[String]) -> String {
    let mut words = vec!["--test-threads=1".to_owned()];
    words.extend(arguments.iter().map(|argument| quoted(argument)));
    words.join(" ")
}

/// A word as the shell takes it literally.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn add(archive: &mut Archive, place: &str, file: &Path) -> Result<()> {
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    archive.file(place, &content);
    libraries(archive, file)
}

/// Adds the shared libraries of a program at the paths where its loader looks for them.
fn libraries(archive: &mut Archive, program: &Path) -> Result<()> {
    // fails for static programs and scripts, which need none
    let Ok(text) = printed(Command::new("ldd").arg(program)) else {
        return Ok(());
    };
    for path in library_paths(&text) {
        let place = path.to_string_lossy();
        if !archive.contains(&place) {
            let content = fs::read(&path).with_context(|| format!("cannot read {place}"))?;
            archive.file(&place, &content);
        }
    }
    Ok(())
}

/// The files in the output of `ldd`.
fn library_paths(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

/// A program without debug information, which would fill the machine's memory.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    if fs::read(program)?.starts_with(b"#!") {
        return Ok(fs::read(program)?);
    }
    let small = env::temp_dir().join(format!("nodewatch-strip-{}", std::process::id()));
    let mut strip = Command::new("strip");
    quiet(
        strip
            .arg("--strip-debug")
            .arg("-o")
            .arg(&small)
            .arg(program),
    )?;
    let content = fs::read(&small).with_context(|| format!("cannot read {}", small.display()));
    fs::remove_file(&small).context("cannot remove a temporary file")?;
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux.so.2 (0x00007f)\n";
        assert_eq!(
            library_paths(text),
            [
                PathBuf::from("/lib/x/libc.so.6"),
                PathBuf::from("/lib64/ld-linux.so.2")
            ]
        );
    }

    #[test]
    fn arguments_reach_the_program_literally() {
        let arguments = ["a b".to_owned(), "it's $HOME".to_owned()];
        assert_eq!(
            command_line(&arguments),
            r"--test-threads=1 'a b' 'it'\''s $HOME'"
        );
    }
}
