//! All that reads bytes of strangers: over its seeds, over them changed at random, and over what
//! `cargo xtask fuzz` once found.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tests::deploy;
use tests::fuzz::{self, Mutator, Target};

/// Inputs that once broke something, a folder for each target.
const REGRESSIONS: &str = "tests/fuzz/regressions";
/// An input that takes longer makes something slow that should not be.
const SLOW: Duration = Duration::from_secs(5);

/// Runs an input; one that breaks something is left in a file, which is named.
fn check(target: &Target, input: &[u8], what: &str) {
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = start.elapsed();
    if outcome.is_ok() && took < SLOW {
        return;
    }
    let file = std::env::temp_dir().join(format!("nodewatch-fuzz-{}", target.name));
    fs::write(&file, input).expect("written");
    panic!(
        "{}: {what} breaks it after {took:?}: cargo xtask fuzz {} {}",
        target.name,
        target.name,
        file.display()
    );
}

fn run(name: &str) {
    let target = fuzz::target(name).expect("a target");
    let seeds = (target.seeds)();
    for (number, seed) in seeds.iter().enumerate() {
        check(target, seed, &format!("seed {number}"));
    }
    for file in regressions(name) {
        let input = fs::read(&file).expect("an input");
        check(target, &input, &file.display().to_string());
    }
    let mut mutator = Mutator::new(1, &seeds, target.words);
    let start = Instant::now();
    for number in 0..target.runs {
        check(target, &mutator.input(), &format!("input {number}"));
    }
    println!("{name}: {} inputs in {:?}", target.runs, start.elapsed());
}

fn regressions(name: &str) -> Vec<PathBuf> {
    let folder = deploy::path(&format!("{REGRESSIONS}/{name}"));
    let mut files = Vec::new();
    if let Ok(entries) = fs::read_dir(folder) {
        files.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    files.sort();
    files
}

/// A test for each, so that they run beside each other and each says how it went.
macro_rules! targets {
    ($($name:ident),+) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )+

        #[test]
        fn every_target_has_a_test_and_a_program() {
            let mut tested = vec![$(stringify!($name)),+];
            let mut all: Vec<_> = fuzz::TARGETS.iter().map(|target| target.name).collect();
            all.sort_unstable();
            tested.sort_unstable();
            assert_eq!(tested, all);
            let programs = deploy::files("tests/fuzz/src/bin", ".rs").expect("programs");
            for name in all {
                let program = format!("tests/fuzz/src/bin/{name}.rs");
                assert!(programs.contains(&program), "{program}");
                let text = deploy::read(&program).expect("a program");
                assert!(text.contains(&format!("run(\"{name}\", bytes)")), "{program}");
            }
        }
    };
}

targets!(
    ssh_banner,
    ssh_kexinit,
    ssh_session,
    packet,
    nsg,
    manifests,
    capture,
    config,
    web_config
);
