//! What the kernel program costs to load, and that its log costs nothing when it is off.

use aya::programs::loaded_programs;
use monitor::source::ebpf::LoadOptions;
use monitor_common::abi::Hook;
use tests::{frames::Sample, lab};

use crate::loaded::{LOOPBACK, Loaded, OPTIONS, UPLINK, kernel_version};

/// Instructions that the verifier may look at. Kernels give up at 1,000,000; older ones recognise
/// less of what they saw before.
fn budget() -> u32 {
    if kernel_version() >= (6, 12) {
        300_000
    } else {
        400_000
    }
}

/// What a loaded program amounts to.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Where the kernel tells (5.16).
    verified: Option<u32>,
    translated: u32,
    jitted: u32,
}

fn load(log_level: u8) -> (Loaded, [Cost; 2]) {
    let options = LoadOptions {
        log_level,
        ..OPTIONS
    };
    let loaded = Loaded::new(&options, UPLINK);
    let costs = [Hook::Ingress, Hook::Egress].map(|hook| {
        let id = loaded.kernel.program_id(hook).expect("an id");
        let info = loaded_programs()
            .filter_map(Result::ok)
            .find(|info| info.id() == id)
            .expect("loaded");
        Cost {
            verified: loaded.kernel.verified_instructions(hook),
            translated: info.size_translated().expect("root may see it"),
            jitted: info.size_jitted(),
        }
    });
    (loaded, costs)
}

#[test]
fn loading_is_cheap_and_a_log_that_is_off_costs_nothing() {
    let Some(_permit) = lab::gate::require() else {
        return;
    };
    let (_silent, off) = load(0);
    let (mut loud, on) = load(5);
    let budget = budget();
    for (hook, (off, on)) in ["ingress", "egress"].iter().zip(off.iter().zip(&on)) {
        println!("{hook}: log off {off:?}, log on {on:?}");
        // The statements are not skipped but gone.
        assert!(off.translated + 100 < on.translated, "{off:?} {on:?}");
        assert!(off.jitted <= on.jitted, "{off:?} {on:?}");
        if let (Some(off), Some(on)) = (off.verified, on.verified) {
            // What verifiers need not follow twice is a matter of luck: some percent more or less.
            assert!(off <= on + on / 20, "{off} {on}");
            assert!(
                off < budget,
                "{hook}: {off} instructions verified, {budget} allowed"
            );
        }
    }
    // What it logs is logged: a frame that is not IP.
    let frame = Sample {
        hook: Hook::Ingress,
        bytes: vec![0; 64],
    };
    loud.feed(&frame, LOOPBACK).expect("a run");
    loud.kernel.flush_log();
}
