//! The kernel program and the host build of the same source must agree on every frame.

use std::{collections::BTreeSet, fmt::Write as _, time::Instant};

use monitor_common::{
    abi::{FRAGMENT_ENTRIES, Interface, Reason, flag, link, point},
    classify::App,
};
use tests::{
    frames::{
        Generator, Sample,
        host::{Books, Facts, Host, Key},
    },
    lab,
};

use crate::loaded::{LOOPBACK, Loaded, OPTIONS};

/// Frames for one load of the program.
const SESSION: usize = 5_000;
/// Frames between two comparisons.
const STEP: usize = 1_000;

/// Kernel and host, fed with the same frames.
struct Both {
    kernel: Loaded,
    host: Host,
    refused: usize,
}

// === impl Both ===

impl Both {
    fn new(point: u8) -> Self {
        let interface = Interface {
            ifindex: LOOPBACK,
            id: 7,
            point,
            link: link::ETHERNET,
            _pad: [0; 2],
        };
        Self {
            kernel: Loaded::new(&OPTIONS, interface),
            host: Host::new(interface),
            refused: 0,
        }
    }

    fn feed(&mut self, sample: &Sample) {
        match self.kernel.feed(sample, LOOPBACK) {
            Ok(()) => self.host.feed(sample, LOOPBACK),
            Err(_) => self.refused += 1,
        }
    }

    /// What differs, in words.
    fn difference(&mut self) -> Option<String> {
        differ(&self.kernel.books(), &self.host.books())
    }
}

fn differ(kernel: &Books, host: &Books) -> Option<String> {
    if kernel == host {
        return None;
    }
    let mut text = String::new();
    let mut say = |what: &str, kernel: &dyn std::fmt::Debug, host: &dyn std::fmt::Debug| {
        let _ = writeln!(text, "{what}\n  kernel {kernel:?}\n  host   {host:?}");
    };
    let keys: BTreeSet<&Key> = kernel.flows.keys().chain(host.flows.keys()).collect();
    for key in keys {
        let (ours, theirs) = (kernel.flows.get(key), host.flows.get(key));
        if ours != theirs {
            say(&format!("{key:x?}"), &ours, &theirs);
        }
    }
    if kernel.ended != host.ended {
        let same = kernel.ended.iter().zip(&host.ended);
        let same = same.take_while(|(ours, theirs)| ours == theirs).count();
        say(
            &format!("ended connection {same}"),
            &kernel.ended.get(same),
            &host.ended.get(same),
        );
    }
    if kernel.told != host.told {
        let same = kernel.told.iter().zip(&host.told);
        let same = same.take_while(|(ours, theirs)| ours == theirs).count();
        let of = |books: &Books| (books.told.len(), books.told.get(same).cloned());
        say(&format!("segment {same}"), &of(kernel), &of(host));
    }
    if kernel.counters != host.counters {
        say("counters", &kernel.counters, &host.counters);
    }
    if kernel.uncounted != host.uncounted {
        say("uncounted", &kernel.uncounted, &host.uncounted);
    }
    Some(text)
}

/// Plays the frames again and names the one after which both differ.
fn explain(point: u8, frames: &[Sample], same_until: usize) -> String {
    let mut both = Both::new(point);
    for sample in &frames[..same_until] {
        both.feed(sample);
    }
    for (index, sample) in frames.iter().enumerate().skip(same_until) {
        both.feed(sample);
        if let Some(difference) = both.difference() {
            let mut hex = String::new();
            for byte in &sample.bytes {
                let _ = write!(hex, "{byte:02x}");
            }
            return format!("frame {index}, {:?}: {hex}\n{difference}", sample.hook);
        }
    }
    "the difference did not come again".to_owned()
}

/// What the frames made happen, so that their variety is proven, too.
#[derive(Debug, Default)]
struct Reached {
    flows: usize,
    ended: usize,
    seen: u64,
    counted: u64,
    uncounted: Vec<(&'static str, u64)>,
    apps: BTreeSet<App>,
    retransmits: u64,
    handshakes: usize,
    unreachable: usize,
    split: usize,
    told: usize,
    told_bytes: usize,
}

// === impl Reached ===

impl Reached {
    fn add(&mut self, books: &Books) {
        self.flows += books.flows.len();
        self.ended += books.ended.len();
        self.told += books.told.len();
        self.told_bytes += books
            .told
            .iter()
            .map(|told| told.bytes.len())
            .sum::<usize>();
        let [counters, _] = &books.counters;
        self.seen += counters.seen.iter().sum::<u64>();
        self.counted += counters.counted.iter().sum::<u64>();
        let [uncounted, _] = &books.uncounted;
        if self.uncounted.is_empty() {
            self.uncounted = Reason::ALL
                .iter()
                .map(|reason| (reason.name(), 0))
                .collect();
        }
        for (index, (_, total)) in self.uncounted.iter_mut().enumerate() {
            *total += uncounted.packets[0][index] + uncounted.packets[1][index];
        }
        let ended = books.ended.iter().map(|(_, facts)| facts);
        for facts in books.flows.values().chain(ended) {
            self.add_flow(facts);
        }
    }

    fn add_flow(&mut self, facts: &Facts) {
        self.apps.insert(facts.app);
        self.retransmits += facts.retransmits.iter().map(|n| u64::from(*n)).sum::<u64>();
        self.handshakes += usize::from(facts.has_handshake_rtt);
        let flags = facts.flags[0] | facts.flags[1];
        self.unreachable += usize::from(flags & flag::UNREACHABLE != 0);
        self.split += usize::from(facts.prefix_length != [0, 0]);
    }

    fn check(&self) {
        let lacking: Vec<_> = self
            .uncounted
            .iter()
            .filter(|(_, count)| *count == 0)
            .collect();
        let names: Vec<_> = lacking.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["table_full", "insert_failed", "unknown_interface"]);
        let uncounted: u64 = self.uncounted.iter().map(|(_, count)| count).sum();
        assert_eq!(self.seen, self.counted + uncounted);
        assert_eq!(self.apps.len(), App::ALL.len(), "{:?}", self.apps);
        for count in [
            self.handshakes,
            self.unreachable,
            self.split,
            self.ended,
            self.told,
        ] {
            assert!(count > 10, "{self:?}");
        }
        assert!(self.told_bytes > 100 * 20, "{self:?}");
        assert!(self.retransmits > 100, "{self:?}");
    }
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// `NODEWATCH_FRAMES` and `NODEWATCH_SEED` ask for more, or other, frames.
#[test]
fn kernel_and_host_agree_on_generated_frames() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    let in_vm = std::env::var_os("NODEWATCH_VM").is_some();
    let count = number("NODEWATCH_FRAMES").unwrap_or(if in_vm { 10_000 } else { 100_000 });
    let seed = number("NODEWATCH_SEED").unwrap_or(0x6e6f_6465);
    let start = Instant::now();
    let mut reached = Reached::default();
    let mut refused = 0;
    let sessions = count.div_ceil(SESSION);
    for session in 0..sessions {
        let seed = u64::try_from(seed + session).expect("64 bits");
        let frames: Vec<Sample> = Generator::new(seed).take(SESSION).collect();
        let point = if session % 2 == 0 {
            point::UPLINK
        } else {
            point::WORKLOAD
        };
        let mut both = Both::new(point);
        for (step, samples) in frames.chunks(STEP).enumerate() {
            for sample in samples {
                both.feed(sample);
            }
            assert!(
                both.difference().is_none(),
                "seed {seed}: {}",
                explain(point, &frames, step * STEP)
            );
        }
        // Beyond, the kernel's map forgets and the host's does not.
        assert!(both.host.fragments() < FRAGMENT_ENTRIES as usize / 2);
        refused += both.refused;
        reached.add(&both.host.books());
    }
    println!(
        "{} frames, 0 differences, {refused} refused by the kernel's test run, {:.1} s: {reached:#?}",
        sessions * SESSION,
        start.elapsed().as_secs_f64()
    );
    reached.check();
    assert!(
        refused * 100 < sessions * SESSION,
        "{refused} frames were refused"
    );
}

/// The comparison itself: one byte more on one side shows, and is named.
#[test]
fn a_difference_is_found() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    let mut both = Both::new(point::UPLINK);
    let frames: Vec<Sample> = Generator::new(1).take(50).collect();
    for sample in &frames {
        both.feed(sample);
    }
    assert_eq!(both.difference(), None);
    let other = Sample {
        hook: frames[0].hook,
        bytes: vec![0; 64],
    };
    both.host.feed(&other, LOOPBACK);
    let difference = both.difference().expect("one frame more");
    assert!(difference.contains("counters"), "{difference}");
    assert!(difference.contains("uncounted"), "{difference}");
}
