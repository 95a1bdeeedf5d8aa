//! UDP datagrams, also larger than the MTU, and an echo server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{MOST, Noise, Pace, Report, SERVER_LIFE, milliseconds};

/// The most sockets that one run may use.
const MOST_FLOWS: usize = 4_096;

/// A run of datagrams.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where to.
    pub to: SocketAddr,
    /// How many in all.
    pub count: u64,
    /// Payload bytes in each.
    pub size: usize,
    /// Datagrams a second; zero: as fast as it goes.
    pub rate: u64,
    /// Over how many source ports, in turn.
    pub flows: usize,
    /// The first of them, the others after it; 0: any.
    pub from_port: u16,
    /// Whether to wait for an echo of each before the next.
    pub echo: bool,
}

/// Sends the datagrams. With `echo` it compares each answer.
pub fn send(job: &Job) -> Result<Report> {
    ensure!(job.count <= MOST, "at most {MOST} datagrams");
    ensure!(
        (1..=MOST_FLOWS).contains(&job.flows),
        "1 to {MOST_FLOWS} flows"
    );
    ensure!(job.size <= 65_000, "at most 65000 bytes");
    let sockets = (0..job.flows)
        .map(|index| {
            let port = match job.from_port {
                0 => 0,
                first => u16::try_from(index)
                    .ok()
                    .and_then(|index| first.checked_add(index))
                    .context("ports end at 65535")?,
            };
            connect(job.to, port)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut noise = Noise::new(0x5eed);
    let mut payload = vec![0_u8; job.size];
    let mut answer = vec![0_u8; job.size + 1];
    let mut report = Report::new("udp");
    let mut pace = Pace::new(job.rate);
    for socket in sockets.iter().cycle() {
        if report.sent + report.errors >= job.count || !pace.next() {
            break;
        }
        if job.echo {
            noise.fill(&mut payload);
        }
        match socket.send(&payload) {
            Ok(bytes) => {
                report.sent += 1;
                report.sent_bytes += bytes as u64;
            }
            Err(error) => report.failed(&error),
        }
        if job.echo {
            match socket.recv(&mut answer) {
                Ok(bytes) => {
                    report.received += 1;
                    report.received_bytes += bytes as u64;
                    report.mismatches += u64::from(answer[..bytes] != payload[..]);
                }
                Err(error) => report.failed(&error),
            }
        }
    }
    report.elapsed_ms = milliseconds(pace.elapsed());
    Ok(report)
}

/// Takes datagrams until its life is over; with `answer` it sends each back.
pub fn serve(listen: SocketAddr, answer: bool) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .context("cannot set a timeout")?;
    let start = Instant::now();
    let mut bytes = vec![0_u8; 65_536];
    while start.elapsed() < SERVER_LIFE {
        if let Ok((length, from)) = socket.recv_from(&mut bytes)
            && answer
        {
            let _ = socket.send_to(&bytes[..length], from);
        }
    }
    Ok(())
}

fn connect(to: SocketAddr, from_port: u16) -> Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, from_port)).context("cannot make a socket")?;
    socket
        .connect(to)
        .with_context(|| format!("no way to {to}"))?;
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .context("cannot set a timeout")?;
    Ok(socket)
}
