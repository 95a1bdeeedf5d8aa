//! What 1,000 rules with service tags of 100,000 prefixes cost.
//!
//! `cargo xtask figures nsg` prints the figures and holds them to what is promised;
//! `cargo bench -p monitor-core --bench nsg` has them with their spread.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

#[path = "../benches/nsg/group.rs"]
mod group;

/// What the rules, and what their names stand for, may take, in bytes.
const MOST_MEMORY: usize = 30 << 20;
/// How long a changed document may take from its text to rules that judge.
const MOST_RELOAD: Duration = Duration::from_millis(300);
/// Verdicts a second on one processor, at least.
const LEAST_VERDICTS: f64 = 5e6;

/// A line of this process' status, in bytes.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with(name));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: usize = digits
        .and_then(|digits| digits.parse().ok())
        .expect("a size");
    kibibytes * 1_024
}

#[test]
fn a_thousand_rules_with_a_hundred_thousand_prefixes_take_30_mib_at_most() {
    let (document, tags) = (group::document(), group::tag_file());
    let before = status("VmRSS:");
    let chain = group::load(&document, &tags);
    let (kept, peak) = (status("VmRSS:"), status("VmHWM:"));
    let [kept, peak] = [kept, peak].map(|now| now.saturating_sub(before));
    println!(
        "memory: {:.1} MiB while loading, {:.1} MiB kept, of which {:.1} MiB tables",
        mebibytes(peak),
        mebibytes(kept),
        mebibytes(chain.size_bytes())
    );
    assert!(peak < MOST_MEMORY, "{peak} bytes");
    assert!(chain.too_large().is_none());
}

#[test]
#[ignore = "tells something in a release build on a quiet machine only"]
fn verdicts_and_reloads_are_as_fast_as_promised() {
    let (document, tags, flows) = (group::document(), group::tag_file(), group::flows());
    // The best of some: what else runs on the machine only adds.
    let mut reload = Duration::MAX;
    let mut chain = None;
    for _ in 0..5 {
        let start = Instant::now();
        chain = Some(group::load(black_box(&document), black_box(&tags)));
        reload = reload.min(start.elapsed());
    }
    let chain = chain.expect("loaded");
    let mut rate = 0.0_f64;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..50 {
            for tuple in &flows {
                black_box(chain.judge(black_box(tuple)).access);
            }
        }
        let verdicts = 50.0 * f64::from(u32::try_from(group::FLOWS).expect("few"));
        rate = rate.max(verdicts / start.elapsed().as_secs_f64());
    }
    println!(
        "verdicts: {:.1} million a second; reload: {reload:?}",
        rate / 1e6
    );
    assert!(rate >= LEAST_VERDICTS, "{rate}");
    assert!(reload <= MOST_RELOAD, "{reload:?}");
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
