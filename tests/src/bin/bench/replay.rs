//! How fast a capture is replayed: `nodewatch replay` over a million packets, on one processor.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use super::median;

/// Packets of a capture.
const PACKETS: u32 = 1_000_000;
/// Between two packets in the capture: 100,000 in a second.
const GAP_NS: u64 = 10_000;
/// Packets per second of one processor that a capture of few thousand connections must reach.
const MUST: f64 = 2_000_000.0;
/// Numbers of connections whose packets are mixed, and whether the bar is for them. The last one is
/// worse than any real capture: every packet is of another connection than those before it.
const CASES: [(u32, bool); 3] = [(10, true), (1_000, true), (100_000, false)];

/// Prints packets per second; whether the bar is missed.
pub(super) fn run(rounds: usize) -> Result<bool> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("replay.pcap");
    let mut missed = false;
    println!("replay of {PACKETS} packets, median of {rounds} rounds, one processor");
    for (connections, has_bar) in CASES {
        write(&path, connections)?;
        let mut rates = Vec::new();
        for _ in 0..rounds {
            rates.push(f64::from(PACKETS) / replay(&path)?);
        }
        let rate = median(&mut rates);
        let verdict = match (has_bar, rate < MUST) {
            (false, _) => "",
            (true, true) => "MISSED",
            (true, false) => "ok",
        };
        missed |= has_bar && rate < MUST;
        let million = 1e-6;
        println!(
            "{connections:>7} connections: {:.2} million packets/s  {verdict}",
            rate * million
        );
    }
    Ok(missed)
}

/// Seconds that a replay takes, from start to end of the process.
fn replay(path: &Path) -> Result<f64> {
    let start = Instant::now();
    let output = Command::new("taskset")
        .args(["--cpu-list", "0"])
        .arg(tests::daemon::binary()?)
        .args(["replay", "--output", "jsonl"])
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .context("taskset")?;
    let took = start.elapsed().as_secs_f64();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the replay failed: {errors}");
    Ok(took)
}

/// Writes a capture of TCP connections: a handshake each, then data in both directions.
fn write(path: &Path, connections: u32) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    // pcap with nanoseconds, Ethernet.
    let (magic, version, snap, ethernet) = (0xa1b2_3c4d_u32, 0x0004_0002_u32, 262_144_u32, 1_u32);
    for word in [magic, version, 0, 0, snap, ethernet] {
        file.write_all(&word.to_le_bytes())?;
    }
    let mut sent = vec![0_u8; connections as usize];
    // Which connection is next: xorshift, the same at every run.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut time_ns = 1_700_000_000_000_000_000_u64;
    for _ in 0..PACKETS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let connection = u32::try_from(random % u64::from(connections))?;
        let step = &mut sent[connection as usize];
        let frame = frame(connection, *step);
        // After the handshake, data of client and server in turn.
        *step = if *step < 3 { *step + 1 } else { 7 - *step };
        let length = u32::try_from(frame.len())?;
        let seconds = u32::try_from(time_ns / 1_000_000_000)?;
        let nanoseconds = u32::try_from(time_ns % 1_000_000_000)?;
        for word in [seconds, nanoseconds, length, length] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&frame)?;
        time_ns += GAP_NS;
    }
    Ok(file.flush()?)
}

/// An Ethernet frame of an IPv4 connection: SYN, SYN and ACK, ACK, data of the client (3), data of
/// the server (4).
fn frame(connection: u32, step: u8) -> Vec<u8> {
    const SYN: u8 = 2;
    const PSH: u8 = 8;
    const ACK: u8 = 16;
    let (from_client, flags, payload) = match step {
        0 => (true, SYN, 0),
        1 => (false, SYN | ACK, 0),
        2 => (true, ACK, 0),
        3 => (true, PSH | ACK, 120),
        _ => (false, PSH | ACK, 400),
    };
    let [_, high, middle, low] = connection.to_be_bytes();
    let client = [10, 1 + high, middle, low];
    let server = [10, 200, 0, 1 + low % 7];
    let port = 32_768 + u16::from_be_bytes([middle, low]) % 28_000;
    let (ends, ports) = if from_client {
        ([client, server], [port, 443])
    } else {
        ([server, client], [443, port])
    };
    let mut frame = vec![0; 54 + payload];
    frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x00]);
    let length = u16::try_from(40 + payload).expect("a short packet");
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[26..30].copy_from_slice(&ends[0]);
    frame[30..34].copy_from_slice(&ends[1]);
    frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
    frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
    frame[46..48].copy_from_slice(&[0x50, flags]);
    frame
}
