//! What reads bytes of strangers, to be called with any bytes at all.
//!
//! Each [`Target`] takes a text or a sequence of frames, segments and the like, and panics where
//! something is not as it always should be. `cargo xtask fuzz` runs them under libFuzzer, which looks
//! for new ways through the code; the test `fuzz` runs them over their seeds, changed at random, and
//! over what was once found.

mod capture;
mod config;
mod input;
mod manifests;
mod mutate;
mod nsg;
mod packet;
mod ssh;

pub use mutate::Mutator;

/// Something that reads bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name, that of the program in `tests/fuzz` too.
    pub name: &'static str,
    /// Reads bytes; panics where something is wrong.
    pub run: fn(&[u8]),
    /// Inputs to begin with, made of what the other tests use.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What mutations insert.
    pub words: &'static [&'static [u8]],
    /// Inputs that the test tries: a few seconds of them.
    pub runs: u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "ssh_banner",
        run: ssh::banner,
        seeds: ssh::banner_seeds,
        words: ssh::WORDS,
        runs: 20_000,
    },
    Target {
        name: "ssh_kexinit",
        run: ssh::kexinit,
        seeds: ssh::kexinit_seeds,
        words: ssh::WORDS,
        runs: 10_000,
    },
    Target {
        name: "ssh_session",
        run: ssh::session,
        seeds: ssh::session_seeds,
        words: ssh::WORDS,
        runs: 5_000,
    },
    Target {
        name: "packet",
        run: packet::run,
        seeds: packet::seeds,
        words: packet::WORDS,
        runs: 20_000,
    },
    Target {
        name: "nsg",
        run: nsg::run,
        seeds: nsg::seeds,
        words: nsg::WORDS,
        runs: 1_000,
    },
    Target {
        name: "manifests",
        run: manifests::run,
        seeds: manifests::seeds,
        words: manifests::WORDS,
        runs: 2_000,
    },
    Target {
        name: "capture",
        run: capture::run,
        seeds: capture::seeds,
        words: capture::WORDS,
        runs: 2_000,
    },
    Target {
        name: "config",
        run: config::run,
        seeds: config::seeds,
        words: config::WORDS,
        runs: 5_000,
    },
    Target {
        name: "web_config",
        run: config::run_web,
        seeds: config::web_seeds,
        words: config::WORDS,
        runs: 5_000,
    },
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs the target of a name: what the programs of `tests/fuzz` do.
pub fn run(name: &str, bytes: &[u8]) {
    let target = target(name).unwrap_or_else(|| panic!("no target {name}"));
    (target.run)(bytes);
}

/// What people read is on one line, bounded and without bytes that a terminal obeys.
fn check_message(message: &str) {
    assert!(
        message.len() <= 4_096,
        "{} bytes: {message:.200}",
        message.len()
    );
    assert!(!message.chars().any(char::is_control), "{message:?}");
}
