//! What a packet costs on a real path: the daemon on the uplink of a lab, the empty program behind
//! it on the same hook, so that both run on the same packets. The kernel's own run time statistics
//! tell the rest; they include what measuring costs, in both alike.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    programs::{LinkOrder, SchedClassifier, TcAttachType, loaded_programs, tc::TcAttachOptions},
    sys::{Stats, enable_stats},
};
use monitor::source::ebpf::object;
use tests::daemon::Daemon;
use tests::held::Held;
use tests::lab::{Lab, UPLINK, client};

/// What real packets may cost, in nanoseconds, less the empty program.
const MUST: f64 = 80.0;

/// Port of the server.
const PORT: u16 = 7002;

/// Nanoseconds and runs of a program so far.
#[derive(Clone, Copy)]
struct Ran {
    time: f64,
    count: u64,
}

/// Measures, prints medians; whether a bar is missed.
pub(crate) fn run(rounds: usize) -> Result<bool> {
    let lab = Lab::new("bench")?;
    let peer = lab.add_inside()?;
    let daemon = Daemon::start(lab.node(), &[])?;
    let (object, [empty, hash]) = lab.node().run(attach_compared)??;
    let own = ingress_of(daemon.pid())?;
    // Statistics are on while this is open; the setting of the machine is not touched.
    let _statistics = enable_stats(Stats::RunTime).context("run time statistics")?;
    let mut missed = false;
    println!(
        "{:28} {:>7} {:>9} {:>9} {:>7}  {:>10}",
        "real packets", "empty", "hash net", "net", "ratio", "must"
    );
    for (name, flows, v6) in [
        ("IPv4 UDP, 1 flow", "1", false),
        ("IPv4 UDP, 1000 flows", "1000", false),
        ("IPv6 UDP, 1000 flows", "1000", true),
    ] {
        let node = if v6 {
            tests::lab::NODE.v6.into()
        } else {
            tests::lab::NODE.v4.into()
        };
        let to = SocketAddr::new(node, PORT).to_string();
        let _server = client::serve(lab.node(), "udp-sink", PORT)?;
        let (mut empties, mut nets, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let mut hashes = Vec::new();
        // The first round opens the flows: their first packets are not what is measured.
        for round in 0..=rounds {
            let before = (ran(empty)?, ran(own)?, ran(hash)?);
            let arguments = [
                "udp",
                "--to",
                &to,
                "--count",
                "100000",
                "--size",
                "40",
                "--flows",
                flows,
                "--rate",
                "100000",
                "--from-port",
                "20000",
            ];
            client::send(&peer, &arguments)?;
            let after = (ran(empty)?, ran(own)?, ran(hash)?);
            if round == 0 {
                continue;
            }
            let empty = mean(before.0, after.0)?;
            let own = mean(before.1, after.1)?;
            if !v6 {
                hashes.push(mean(before.2, after.2)? - empty);
            }
            empties.push(empty);
            nets.push(own - empty);
            ratios.push(own / empty);
        }
        let (empty, net) = (super::median(&mut empties), super::median(&mut nets));
        let ratio = super::median(&mut ratios);
        let hash = if v6 {
            "-".to_owned()
        } else {
            format!("{:.1}", super::median(&mut hashes))
        };
        let verdict = if net > MUST { "MISSED" } else { "ok" };
        missed |= net > MUST;
        println!("{name:28} {empty:7.1} {hash:>9} {net:9.1} {ratio:6.2}x  {MUST:>10}  {verdict}");
    }
    drop(object);
    daemon.stop()?;
    Ok(missed)
}

/// The empty program and the plain hash counter at the end of the uplink's ingress hook; detached
/// with the object.
fn attach_compared() -> Result<(Ebpf, [u32; 2])> {
    let mut object = EbpfLoader::new().load(object::BENCH)?;
    let mut ids = [0; 2];
    for (id, name) in ids.iter_mut().zip(["bench_empty", "bench_hash"]) {
        let program: &mut SchedClassifier = super::classifier_mut(&mut object, name)?;
        program.load()?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::last());
        program
            .attach_with_options(UPLINK, TcAttachType::Ingress, options)
            .context("the compared programs need TCX, kernel 6.6 or newer")?;
        *id = program.info()?.id();
    }
    Ok((object, ids))
}

/// The daemon's program at ingress.
fn ingress_of(pid: u32) -> Result<u32> {
    let held = Held::by(pid)?.programs;
    for program in loaded_programs() {
        let program = program?;
        let is_ingress = program
            .name_as_str()
            .is_some_and(|name| name.starts_with("nodewatch_in"));
        if held.contains(&program.id()) && is_ingress {
            return Ok(program.id());
        }
    }
    anyhow::bail!("the daemon holds no ingress program")
}

fn ran(id: u32) -> Result<Ran> {
    for program in loaded_programs() {
        let program = program?;
        if program.id() == id {
            return Ok(Ran {
                time: program.run_time().as_secs_f64() * 1e9,
                count: program.run_count(),
            });
        }
    }
    anyhow::bail!("program {id} is gone")
}

fn mean(before: Ran, after: Ran) -> Result<f64> {
    let runs = after.count - before.count;
    ensure!(runs > 50_000, "only {runs} packets came");
    #[expect(clippy::cast_precision_loss, reason = "a mean")]
    Ok((after.time - before.time) / runs as f64)
}
