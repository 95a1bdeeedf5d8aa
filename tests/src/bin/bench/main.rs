//! What a packet costs: the kernel program against an empty one and a plain per-CPU hash counter,
//! over the same packets, in interleaved rounds.
//!
//! Absolute values move between machines and runs; paired differences and ratios within one run
//! hold. The programs run by `BPF_PROG_TEST_RUN`; only [`real`] attaches them, in a lab.
//! [`inspect`] compares them with themselves without the look at payload, [`against`] with objects of other
//! versions, [`replay`] measures the same
//! logic over a capture.

mod against;
mod inspect;
mod real;
mod replay;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, loaded_programs},
};
use clap::Parser;
use monitor::source::ebpf::{Kernel, LoadOptions, object};
use monitor_common::abi::{
    Aside, DEFAULT_FLOWS4, DEFAULT_FLOWS6, EVENT_RING_BYTES, FlowKey4, FlowKey6, FlowValue, Hook,
    Interface, Place, link, point, split,
};

/// Measures what a packet costs.
#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Args {
    /// Interleaved rounds per case.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets per round.
    #[arg(long, default_value_t = 200_000)]
    packets: u32,
    /// Only what looking at payload costs, while it is looked at and afterwards.
    #[arg(long)]
    inspect: bool,
    /// Only packets on a real path.
    #[arg(long)]
    real: bool,
    /// Only the replay of captures; needs no privileges.
    #[arg(long)]
    replay: bool,
    /// Only the shipped program against these objects of it.
    #[arg(long, value_name = "OBJECT")]
    against: Vec<PathBuf>,
    /// Exit with 1 if a figure misses its bar.
    #[arg(long)]
    check: bool,
}

/// What the driver does to the next packet: see the bench programs.
#[derive(Clone, Copy)]
#[repr(C)]
struct Drive {
    mask: u32,
    count: u32,
    shift: u32,
    step: u32,
}
// SAFETY: repr(C), four integers, no padding.
unsafe impl Pod for Drive {}

/// The candidates and their driver.
struct Bench {
    object: Ebpf,
    candidate: ProgramArray<MapData>,
    drive: Array<MapData, Drive>,
    empty: ProgramFd,
    hash: ProgramFd,
    nodewatch: ProgramFd,
    /// The same without the look at payload.
    plain: ProgramFd,
    kernel: Kernel,
    plain_kernel: Kernel,
    /// Payload bytes of the packets.
    step: u32,
    missed: bool,
}

/// A packet of the cases; the driver varies its source.
#[derive(Clone, Copy)]
enum Packet {
    V4,
    V6,
}

impl Packet {
    fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// A TCP segment without payload, padded to 80 bytes.
    fn frame(self) -> Vec<u8> {
        self.frame_with(&[])
    }

    /// The same with payload.
    fn frame_with(self, payload: &[u8]) -> Vec<u8> {
        let length = 20 + u16::try_from(payload.len()).expect("a short payload");
        let mut frame = vec![0; 80.max(74 + payload.len())];
        let transport = match self {
            Self::V4 => {
                frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x00]);
                frame[16..18].copy_from_slice(&(20 + length).to_be_bytes());
                frame[22..24].copy_from_slice(&[64, 6]);
                frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
                frame[30..34].copy_from_slice(&[10, 1, 0, 1]);
                34
            }
            Self::V6 => {
                frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                frame[18..20].copy_from_slice(&length.to_be_bytes());
                frame[20..23].copy_from_slice(&[6, 64, 0xfd]);
                frame[38] = 0xfd;
                frame[53] = 1;
                54
            }
        };
        frame[transport + 2..transport + 4].copy_from_slice(&443_u16.to_be_bytes());
        frame[transport + 12..transport + 14].copy_from_slice(&[0x50, 0x10]);
        frame[transport + 20..][..payload.len()].copy_from_slice(payload);
        frame
    }
}

impl Bench {
    fn new() -> Result<Self> {
        let (kernel, nodewatch) = load(object::PROGRAMS)?;
        let (plain_kernel, plain) = load(object::PLAIN)?;
        let mut object = EbpfLoader::new().load(object::BENCH)?;
        for name in ["bench_empty", "bench_hash", "bench_drive"] {
            classifier_mut(&mut object, name)?.load()?;
        }
        let empty = by_id(classifier(&object, "bench_empty")?.info()?.id())?;
        let hash = by_id(classifier(&object, "bench_hash")?.info()?.id())?;
        let candidate = ProgramArray::try_from(object.take_map("CANDIDATE").context("no map")?)?;
        let drive = Array::try_from(object.take_map("DRIVE").context("no map")?)?;
        Ok(Self {
            object,
            candidate,
            drive,
            empty,
            hash,
            nodewatch,
            plain,
            kernel,
            plain_kernel,
            step: 0,
            missed: false,
        })
    }

    /// Mean nanoseconds of one packet through a candidate.
    fn run(&mut self, who: Who, frame: &[u8], mask: u32, from: u32, packets: u32) -> Result<f64> {
        let program = match who {
            Who::Empty => &self.empty,
            Who::Hash => &self.hash,
            Who::Nodewatch => &self.nodewatch,
            Who::Plain => &self.plain,
        };
        let program = program.try_clone()?;
        self.run_program(&program, frame, mask, from, packets)
    }

    /// The same for a program that is none of them.
    fn run_program(
        &mut self,
        program: &ProgramFd,
        frame: &[u8],
        mask: u32,
        from: u32,
        packets: u32,
    ) -> Result<f64> {
        self.candidate.set(0, program, 0)?;
        let drive = Drive {
            mask,
            count: from,
            shift: mask.count_ones(),
            step: self.step,
        };
        self.drive.set(0, drive, 0)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = packets;
        let result = classifier(&self.object, "bench_drive")?.test_run(options)?;
        ensure!(
            result.return_value.cast_signed() == -1,
            "the driver found no candidate"
        );
        Ok(result.duration.as_secs_f64() * 1e9)
    }

    /// Packets of flows that exist.
    fn hot(&mut self, args: &Args, packet: Packet, flows: u32) -> Result<()> {
        let frame = packet.frame();
        let mask = flows - 1;
        for who in [Who::Hash, Who::Nodewatch] {
            self.run(who, &frame, mask, 0, (2 * flows).max(1000))?;
        }
        let packets = args.packets.max(2 * flows);
        let mut rounds = Rounds::default();
        for _ in 0..args.rounds {
            let empty = self.run(Who::Empty, &frame, mask, 0, packets)?;
            let hash = self.run(Who::Hash, &frame, mask, 0, packets)?;
            let own = self.run(Who::Nodewatch, &frame, mask, 0, packets)?;
            rounds.add(empty, Some(hash), own);
        }
        let (must, ratio) = match (packet, flows) {
            (_, 65_536) => (230.0, f64::INFINITY),
            (Packet::V4, _) => (60.0, 2.8),
            (Packet::V6, _) => (70.0, 2.8),
        };
        let name = format!("{} hot, {flows} flows", packet.name());
        self.missed |= rounds.print(&name, must, ratio);
        Ok(())
    }

    /// The first packet of each flow, the map having room.
    fn new_flows(&mut self, args: &Args, packet: Packet) -> Result<()> {
        let frame = packet.frame();
        let flows = 60_000;
        let mut rounds = Rounds::default();
        for _ in 0..args.rounds {
            self.clear()?;
            let empty = self.run(Who::Empty, &frame, u32::MAX >> 4, 0, flows)?;
            let own = self.run(Who::Nodewatch, &frame, u32::MAX >> 4, 0, flows)?;
            rounds.add(empty, None, own);
            let mut present = 0;
            match packet {
                Packet::V4 => self.kernel.each_flow4(None, |_, _| present += 1)?,
                Packet::V6 => self.kernel.each_flow6(None, |_, _| present += 1)?,
            }
            ensure!(present > 59_000, "only {present} flows were added");
        }
        self.missed |= rounds.print(&format!("{} new flow", packet.name()), 700.0, f64::INFINITY);
        Ok(())
    }

    /// Endless new flows, the map being full: each is counted as uncounted.
    fn overload(&mut self, args: &Args, packet: Packet) -> Result<()> {
        let frame = packet.frame();
        self.run(Who::Nodewatch, &frame, u32::MAX >> 4, 0, 2 * DEFAULT_FLOWS4)?;
        let before = self.kernel.counters(1)?;
        let mut rounds = Rounds::default();
        let mut from = 2 * DEFAULT_FLOWS4;
        for _ in 0..args.rounds {
            let empty = self.run(Who::Empty, &frame, u32::MAX >> 4, from, args.packets)?;
            let own = self.run(Who::Nodewatch, &frame, u32::MAX >> 4, from, args.packets)?;
            rounds.add(empty, None, own);
            from += args.packets;
        }
        let after = self.kernel.counters(1)?;
        let uncounted: u64 = self.kernel.uncounted(1)?.packets[0].iter().sum();
        ensure!(
            after.seen[0] == after.counted[0] + uncounted,
            "seen {} is not counted {} + uncounted {uncounted}",
            after.seen[0],
            after.counted[0],
        );
        ensure!(after.seen[0] > before.seen[0], "nothing was seen");
        self.missed |= rounds.print(
            &format!("{} overload, table full", packet.name()),
            1500.0,
            f64::INFINITY,
        );
        Ok(())
    }

    /// Reading all flows from the kernel, and what a flow takes there.
    fn reading(&mut self) -> Result<()> {
        self.clear()?;
        let frame = Packet::V4.frame();
        self.run(Who::Nodewatch, &frame, u32::MAX >> 4, 0, 100_000)?;
        let mut times = Vec::new();
        let mut flows: Vec<(FlowKey4, FlowValue)> = Vec::new();
        for _ in 0..9 {
            flows.clear();
            let start = Instant::now();
            self.kernel.read_flows4(&mut flows)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let time = median(&mut times);
        println!("read {} flows: {time:.1} ms (must 80)", flows.len());
        self.missed |= time > 80.0;
        // A place, what is aside of it, and for those that are spare an element of a preallocated
        // hash: 48 bytes of header, key and number; 16 per bucket; a word on the stack.
        let place = size_of::<Place<FlowKey4>>() + size_of::<Aside>();
        let spare = 48 + size_of::<FlowKey4>() + 8 + 16 + 4;
        let spares = split(DEFAULT_FLOWS4).1 as usize;
        let element = place + spare * spares / DEFAULT_FLOWS4 as usize;
        println!("memory per tracked IPv4 flow: {element} bytes (must 250)");
        self.missed |= element > 250;
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        clear(&mut self.kernel)
    }
}

#[derive(Clone, Copy)]
enum Who {
    Empty,
    Hash,
    Nodewatch,
    Plain,
}

/// Loads a packet program, with the loopback interface, which test runs name as the packet's.
fn load(object: &[u8]) -> Result<(Kernel, ProgramFd)> {
    let options = LoadOptions {
        max_flows4: DEFAULT_FLOWS4,
        max_flows6: DEFAULT_FLOWS6,
        event_ring_bytes: EVENT_RING_BYTES,
        log_level: 0,
    };
    let mut kernel = Kernel::load_object(object, &options)?;
    kernel.register(Interface {
        ifindex: 1,
        id: 1,
        point: point::UPLINK,
        link: link::ETHERNET,
        _pad: [0; 2],
    })?;
    let program = by_id(kernel.program_id(Hook::Ingress).context("no program id")?)?;
    Ok((kernel, program))
}

/// Removes all flows.
fn clear(kernel: &mut Kernel) -> Result<()> {
    let mut flows4: Vec<(FlowKey4, FlowValue)> = Vec::new();
    kernel.read_flows4(&mut flows4)?;
    let keys4: Vec<_> = flows4.iter().map(|(key, _)| *key).collect();
    kernel.take_flows4(&keys4)?;
    let mut flows6: Vec<(FlowKey6, FlowValue)> = Vec::new();
    kernel.read_flows6(&mut flows6)?;
    let keys6: Vec<_> = flows6.iter().map(|(key, _)| *key).collect();
    kernel.take_flows6(&keys6)?;
    Ok(())
}

/// Measurements of interleaved rounds, in nanoseconds per packet.
#[derive(Default)]
struct Rounds {
    empty: Vec<f64>,
    hash_net: Vec<f64>,
    own_net: Vec<f64>,
    ratio: Vec<f64>,
}

impl Rounds {
    fn add(&mut self, empty: f64, hash: Option<f64>, own: f64) {
        self.empty.push(empty);
        self.hash_net.extend(hash.map(|hash| hash - empty));
        self.own_net.push(own - empty);
        self.ratio.push(own / empty);
    }

    /// Prints medians; whether a bar is missed.
    fn print(mut self, name: &str, must: f64, must_ratio: f64) -> bool {
        let (empty, own) = (median(&mut self.empty), median(&mut self.own_net));
        let ratio = median(&mut self.ratio);
        let hash = if self.hash_net.is_empty() {
            "-".to_owned()
        } else {
            format!("{:.0}", median(&mut self.hash_net))
        };
        let missed = own > must || ratio > must_ratio;
        let verdict = if missed { "MISSED" } else { "ok" };
        let bar = if must_ratio.is_finite() {
            format!("{must:.0}, {must_ratio}x")
        } else {
            format!("{must:.0}")
        };
        println!("{name:28} {empty:7.1} {hash:>9} {own:9.1} {ratio:6.2}x  {bar:>10}  {verdict}");
        missed
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn classifier<'a>(object: &'a Ebpf, name: &str) -> Result<&'a SchedClassifier> {
    Ok(object
        .program(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}

fn classifier_mut<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(object
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}

fn by_id(id: u32) -> Result<ProgramFd> {
    for program in loaded_programs() {
        let program = program?;
        if program.id() == id {
            return Ok(program.fd()?);
        }
    }
    anyhow::bail!("program {id} is not loaded")
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.real {
        let missed = real::run(args.rounds.min(9))?;
        return Ok(ExitCode::from(u8::from(args.check && missed)));
    }
    if args.replay {
        let missed = replay::run(args.rounds.min(5))?;
        return Ok(ExitCode::from(u8::from(args.check && missed)));
    }
    let mut bench = Bench::new()?;
    if !args.against.is_empty() {
        against::run(&mut bench, &args)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.inspect {
        inspect::run(&mut bench, &args)?;
        return Ok(ExitCode::from(u8::from(args.check && bench.missed)));
    }
    println!(
        "verified instructions: ingress {:?}, egress {:?}",
        bench.kernel.verified_instructions(Hook::Ingress),
        bench.kernel.verified_instructions(Hook::Egress)
    );
    println!(
        "median ns per packet over {} interleaved rounds; net: less the empty program",
        args.rounds
    );
    println!(
        "{:28} {:>7} {:>9} {:>9} {:>7}  {:>10}",
        "", "empty", "hash net", "net", "ratio", "must"
    );
    for packet in [Packet::V4, Packet::V6] {
        for flows in [1, 1024, 65_536] {
            bench.hot(&args, packet, flows)?;
        }
    }
    for packet in [Packet::V4, Packet::V6] {
        bench.new_flows(&args, packet)?;
        bench.overload(&args, packet)?;
    }
    bench.reading()?;
    inspect::run(&mut bench, &args)?;
    bench.missed |= real::run(args.rounds.min(9))?;
    bench.missed |= replay::run(args.rounds.min(5))?;
    Ok(if args.check && bench.missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
