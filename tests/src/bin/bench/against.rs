//! The shipped program against other objects of it, over the same packets, in interleaved rounds: what
//! a change costs or saves.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use aya::programs::ProgramFd;
use monitor::source::ebpf::Kernel;
use monitor_common::abi::Hook;

use super::{Args, Bench, Packet, Who, load, median};

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
    let others = args
        .against
        .iter()
        .map(|path| Other::load(path))
        .collect::<Result<Vec<_>>>()?;
    let mut names = vec!["shipped"];
    names.extend(others.iter().map(|other| other.name.as_str()));
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
            let frame = packet.frame();
            let mask = flows - 1;
            let packets = args.packets.max(2 * flows);
            let programs: Vec<Option<&ProgramFd>> = std::iter::once(None)
                .chain(others.iter().map(|other| Some(&other.program)))
                .collect();
            let mut nets = vec![Vec::new(); programs.len()];
            // The first round makes the flows.
            for round in 0..=args.rounds {
                let empty = bench.run(Who::Empty, &frame, mask, 0, packets)?;
                for (program, net) in programs.iter().zip(&mut nets) {
                    let time = match program {
                        None => bench.run(Who::Nodewatch, &frame, mask, 0, packets)?,
                        Some(program) => bench.run_program(program, &frame, mask, 0, packets)?,
                    };
                    if round > 0 {
                        net.push(time - empty);
                    }
                }
            }
            print!("{} {flows:6} flows:", packet.name());
            let shipped = nets.first().cloned().unwrap_or_default();
            for (name, net) in names.iter().zip(&mut nets) {
                let mut differences: Vec<f64> = net
                    .iter()
                    .zip(&shipped)
                    .map(|(own, other)| own - other)
                    .collect();
                let difference = median(&mut differences);
                print!("  {name} {:.1} ({difference:+.1})", median(net));
            }
            println!();
        }
    }
    Ok(())
}
