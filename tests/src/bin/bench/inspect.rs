//! What looking at payload costs: the shipped program against the same without it, over the same
//! packets, in pairs of one run.

use anyhow::{Result, ensure};
use monitor_common::abi::{FlowKey4, FlowKey6, FlowValue, RX, flag};

use super::{Args, Bench, Packet, Who, clear, median};

/// Data packets of a direction that are looked at at most.
const LOOKED_AT: u32 = 8;
/// Nanoseconds that the look may cost a packet once it is over: what pairs of one program differ by.
const MUST: f64 = 2.0;
/// Text that a server sends first: a banner may follow, so that all eight packets are looked at.
const TEXT: &[u8] =
    b"220 mail.example.org ready, and what else there is to say to a client before it speaks\r\n";
const BANNER: &[u8] =
    b"SSH-2.0-OpenSSH_9.6 and as much as a segment of a key exchange has at least of it\r\n";

/// Prints what it costs, while it is looked at and afterwards; notes whether the bar is missed.
pub(super) fn run(bench: &mut Bench, args: &Args) -> Result<()> {
    println!(
        "looking at payload: median ns per packet, and of {} pairs with the same program without it; \
         half of them are within",
        args.rounds
    );
    println!(
        "{:38} {:>8} {:>8} {:>8}  {:>15}  {:>5}",
        "", "without", "with", "differ", "", "must"
    );
    for packet in [Packet::V4, Packet::V6] {
        for flows in [1, 1_024] {
            afterwards(bench, args, packet, flows)?;
        }
    }
    for packet in [Packet::V4, Packet::V6] {
        let name = packet.name();
        let first = format!("{name} packets 1 to 8");
        during(
            bench,
            args,
            packet,
            &format!("{first}, decided by one"),
            &[1; 60],
            1_024,
        )?;
        during(
            bench,
            args,
            packet,
            &format!("{first}, byte by byte"),
            b"S",
            1_024,
        )?;
        during(
            bench,
            args,
            packet,
            &format!("{first}, maybe a banner"),
            TEXT,
            1_024,
        )?;
        during(bench, args, packet, &format!("{first}, SSH"), BANNER, 1_024)?;
    }
    Ok(())
}

/// From the ninth data packet of each flow on.
fn afterwards(bench: &mut Bench, args: &Args, packet: Packet, flows: u32) -> Result<()> {
    let frame = packet.frame_with(TEXT);
    bench.step = u32::try_from(TEXT.len())?;
    let mask = flows - 1;
    let mut from = LOOKED_AT * flows;
    start(bench)?;
    for who in [Who::Plain, Who::Nodewatch] {
        bench.run(who, &frame, mask, 0, from)?;
    }
    let inspected = all_inspected(bench, packet)?;
    ensure!(
        inspected == flows as usize,
        "eight packets are not all that is looked at: {inspected} of {flows} flows"
    );
    let mut pairs = Pairs::default();
    for round in 0..args.rounds {
        pairs.measure(round, |who| {
            bench.run(who, &frame, mask, from, args.packets)
        })?;
        from = from.wrapping_add(args.packets);
    }
    bench.step = 0;
    let name = format!("{} from packet 9, {flows} flows", packet.name());
    bench.missed |= pairs.print(&name, Some(MUST));
    Ok(())
}

/// The first eight data packets of each flow.
fn during(
    bench: &mut Bench,
    args: &Args,
    packet: Packet,
    name: &str,
    payload: &[u8],
    flows: u32,
) -> Result<()> {
    let (empty, frame) = (packet.frame(), packet.frame_with(payload));
    let mask = flows - 1;
    let mut pairs = Pairs::default();
    for round in 0..args.rounds {
        start(bench)?;
        pairs.measure(round, |who| {
            bench.step = 0;
            bench.run(who, &empty, mask, 0, flows)?;
            bench.step = u32::try_from(payload.len())?;
            bench.run(who, &frame, mask, 0, LOOKED_AT * flows)
        })?;
    }
    bench.step = 0;
    pairs.print(name, None);
    Ok(())
}

/// Neither program has flows, and the ring is empty.
fn start(bench: &mut Bench) -> Result<()> {
    clear(&mut bench.kernel)?;
    clear(&mut bench.plain_kernel)?;
    bench.kernel.drain_events(usize::MAX, |_| ());
    Ok(())
}

/// How many flows the shipped program looks at no more.
fn all_inspected(bench: &mut Bench, packet: Packet) -> Result<usize> {
    let is_done = |value: &FlowValue| value.flags[RX] & flag::INSPECTED != 0;
    Ok(match packet {
        Packet::V4 => {
            let mut flows: Vec<(FlowKey4, FlowValue)> = Vec::new();
            bench.kernel.read_flows4(&mut flows)?;
            flows.iter().filter(|(_, value)| is_done(value)).count()
        }
        Packet::V6 => {
            let mut flows: Vec<(FlowKey6, FlowValue)> = Vec::new();
            bench.kernel.read_flows6(&mut flows)?;
            flows.iter().filter(|(_, value)| is_done(value)).count()
        }
    })
}

/// Both programs, one after the other.
#[derive(Default)]
struct Pairs {
    without: Vec<f64>,
    with: Vec<f64>,
    difference: Vec<f64>,
}

// === impl Pairs ===

impl Pairs {
    /// One pair; which comes first alternates.
    fn measure(&mut self, round: usize, mut run: impl FnMut(Who) -> Result<f64>) -> Result<()> {
        let (without, with) = if round.is_multiple_of(2) {
            let without = run(Who::Plain)?;
            (without, run(Who::Nodewatch)?)
        } else {
            let with = run(Who::Nodewatch)?;
            (run(Who::Plain)?, with)
        };
        self.without.push(without);
        self.with.push(with);
        self.difference.push(with - without);
        Ok(())
    }

    /// Prints medians and quartiles; whether a bar is missed.
    fn print(mut self, name: &str, must: Option<f64>) -> bool {
        let (without, with) = (median(&mut self.without), median(&mut self.with));
        let difference = median(&mut self.difference);
        let quarter = |part: usize| self.difference[self.difference.len() * part / 4];
        let missed = must.is_some_and(|must| difference > must);
        let bar = must.map_or_else(String::new, |must| {
            format!("{must:>5}  {}", if missed { "MISSED" } else { "ok" })
        });
        let (low, high) = (quarter(1), quarter(3));
        println!(
            "{name:38} {without:8.1} {with:8.1} {difference:8.1}  {low:6.1} to {high:5.1}  {bar}"
        );
        missed
    }
}
