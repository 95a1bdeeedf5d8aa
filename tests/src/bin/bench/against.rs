//! The shipped program against other objects of it, over the same packets, in interleaved rounds: what
//! a change costs or saves. They must have the same layout of maps (`abi::ABI_VERSION`).

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::programs::ProgramFd;
use monitor::source::ebpf::Kernel;
use monitor_common::abi::Hook;

use super::{Args, Bench, Packet, Who, clear, load, median};

/// An object beside the shipped one.
struct Other {
    name: String,
    program: ProgramFd,
    /// Holds the maps.
    kernel: Kernel,
}

impl Other {
    fn load(path: &Path) -> Result<Self> {
        let object = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (kernel, program) =
            load(&object).with_context(|| format!("cannot load {}", path.display()))?;
        let name = path.file_stem().unwrap_or(path.as_os_str());
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            program,
            kernel,
        })
    }
}

/// Prints what a packet costs in each, net of the empty program.
pub(super) fn run(bench: &mut Bench, args: &Args) -> Result<()> {
    let mut others = args
        .against
        .iter()
        .map(|path| Other::load(path))
        .collect::<Result<Vec<_>>>()?;
    println!(
        "median ns per packet over {} rounds, net of empty; in brackets: median of paired differences to shipped",
        args.rounds
    );
    let verified = |kernel: &Kernel| {
        [Hook::Ingress, Hook::Egress].map(|hook| kernel.verified_instructions(hook).unwrap_or(0))
    };
    println!(
        "verified instructions: shipped {:?}",
        verified(&bench.kernel)
    );
    for other in &others {
        println!("  {} {:?}", other.name, verified(&other.kernel));
    }
    for packet in [Packet::V4, Packet::V6] {
        for flows in [1, 1_024, 65_536] {
            let name = format!("{} {flows} flows", packet.name());
            let packets = args.packets.max(2 * flows);
            let case = (packet, flows - 1, packets, false);
            compare(bench, &mut others, args, &name, case)?;
        }
        let name = format!("{} new flow", packet.name());
        let case = (packet, u32::MAX >> 4, NEW, true);
        compare(bench, &mut others, args, &name, case)?;
    }
    Ok(())
}

/// How many flows are new in a round.
const NEW: u32 = 30_000;

/// Packets of as many flows as the mask tells; where those are new, all are removed before.
fn compare(
    bench: &mut Bench,
    others: &mut [Other],
    args: &Args,
    name: &str,
    (packet, mask, packets, is_new): (Packet, u32, u32, bool),
) -> Result<()> {
    let frame = packet.frame();
    let mut nets = vec![Vec::new(); 1 + others.len()];
    // The first round makes the flows.
    for round in 0..=args.rounds {
        let empty = bench.run(Who::Empty, &frame, mask, 0, packets)?;
        let mut times = vec![0.0; nets.len()];
        // Each is first in turn.
        for turn in 0..times.len() {
            let who = (round + turn) % times.len();
            let time = match who.checked_sub(1).and_then(|index| others.get_mut(index)) {
                None => {
                    if is_new {
                        clear(&mut bench.kernel)?;
                    }
                    bench.run(Who::Nodewatch, &frame, mask, 0, packets)?
                }
                Some(other) => {
                    if is_new {
                        clear(&mut other.kernel)?;
                    }
                    bench.run_program(&other.program, &frame, mask, 0, packets)?
                }
            };
            times[who] = time;
        }
        if round > 0 {
            for (net, time) in nets.iter_mut().zip(times) {
                net.push(time - empty);
            }
        }
    }
    print!("{name:18}");
    let shipped = nets.first().cloned().unwrap_or_default();
    let names = std::iter::once("shipped").chain(others.iter().map(|other| other.name.as_str()));
    for (name, net) in names.zip(&mut nets) {
        let pairs = net.iter().zip(&shipped);
        let mut differences: Vec<f64> = pairs.map(|(own, other)| own - other).collect();
        let difference = median(&mut differences);
        print!("  {name} {:.1} ({difference:+.1})", median(net));
    }
    println!();
    Ok(())
}
