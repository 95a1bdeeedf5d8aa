//! TCP: many short connections, one long stream that is compared byte by byte, and their server.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{LONGEST, MOST, Noise, Pace, Report, SERVER_LIFE, milliseconds};

/// How long one connection may be stuck before it counts as failed.
const STUCK: Duration = Duration::from_secs(20);

/// Connections that the server handles at once.
const MOST_CONNECTIONS: usize = 512;

/// Bytes of the long stream that are written at once.
const BLOCK: usize = 16 << 10;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Opens `count` connections one after another; over each it sends `size` bytes, reads them back,
/// compares and closes.
pub fn short(to: SocketAddr, count: u64, size: usize, rate: u64) -> Result<Report> {
    ensure!(count <= MOST, "at most {MOST} connections");
    ensure!(size <= 1 << 20, "at most 1 MiB a connection");
    let mut noise = Noise::new(0x5407);
    let mut payload = vec![0_u8; size];
    let mut answer = Vec::with_capacity(size);
    let mut report = Report::new("tcp-short");
    let mut pace = Pace::new(rate);
    while report.sent < count && pace.next() {
        noise.fill(&mut payload);
        report.sent += 1;
        match exchange(to, &payload, &mut answer) {
            Ok(()) => {
                report.received += 1;
                report.sent_bytes += payload.len() as u64;
                report.received_bytes += answer.len() as u64;
                report.mismatches += u64::from(answer != payload);
            }
            Err(error) => report.failed(&error),
        }
        if pace.elapsed() > LONGEST {
            break;
        }
    }
    report.elapsed_ms = milliseconds(pace.elapsed());
    Ok(report)
}

/// Keeps one connection busy for `lasting` at `rate` bytes a second and compares every byte that
/// comes back from the echo.
pub fn stream(to: SocketAddr, lasting: Duration, rate: u64) -> Result<Report> {
    ensure!(lasting <= LONGEST, "at most {} s", LONGEST.as_secs());
    ensure!(rate > 0, "a rate is needed");
    let stream = open(to).with_context(|| format!("cannot connect to {to}"))?;
    let mut reader = stream.try_clone().context("cannot share the connection")?;
    let checker = std::thread::spawn(move || check(&mut reader));
    let mut writer = stream;
    let mut noise = Noise::new(0xfeed);
    let mut block = vec![0_u8; BLOCK];
    let mut report = Report::new("tcp-stream");
    report.sent = 1;
    let start = Instant::now();
    let mut pace = Pace::new((rate / BLOCK as u64).max(1));
    while start.elapsed() < lasting && pace.next() {
        noise.fill(&mut block);
        match writer.write_all(&block) {
            Ok(()) => report.sent_bytes += block.len() as u64,
            Err(error) => {
                report.failed(&error);
                break;
            }
        }
    }
    let _ = writer.shutdown(Shutdown::Write);
    let checked = checker
        .join()
        .map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
    report.received = u64::from(checked.received_bytes > 0);
    report.received_bytes = checked.received_bytes;
    report.mismatches = checked.mismatches;
    report.longest_gap_ms = checked.longest_gap_ms;
    report.errors += checked.errors;
    report.first_error = report.first_error.or(checked.first_error);
    report.elapsed_ms = milliseconds(start.elapsed());
    Ok(report)
}

/// Sends back what comes, on every connection, until its life is over.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let listener =
        TcpListener::bind(listen).with_context(|| format!("no listening on {listen}"))?;
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            if OPEN.fetch_add(1, Ordering::Relaxed) < MOST_CONNECTIONS {
                std::thread::spawn(move || {
                    let _ = echo(connection);
                    OPEN.fetch_sub(1, Ordering::Relaxed);
                });
            } else {
                OPEN.fetch_sub(1, Ordering::Relaxed);
            }
        }
    });
    std::thread::sleep(SERVER_LIFE);
    Ok(())
}

fn exchange(to: SocketAddr, payload: &[u8], answer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut stream = open(to)?;
    stream.write_all(payload)?;
    stream.shutdown(Shutdown::Write)?;
    answer.clear();
    stream.read_to_end(answer)?;
    Ok(())
}

fn open(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, STUCK)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STUCK))?;
    stream.set_write_timeout(Some(STUCK))?;
    Ok(stream)
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SERVER_LIFE))?;
    stream.set_write_timeout(Some(STUCK))?;
    let mut bytes = vec![0_u8; BLOCK];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(length) => stream.write_all(&bytes[..length])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(Shutdown::Write)
}

/// Reads the echo of the long stream to its end.
fn check(reader: &mut TcpStream) -> Report {
    let mut report = Report::new("check");
    let mut noise = Noise::new(0xfeed);
    let (mut wanted, mut block) = (vec![0_u8; BLOCK], vec![0_u8; BLOCK]);
    let mut filled = 0;
    let mut last = Instant::now();
    loop {
        match reader.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(length) => {
                report.longest_gap_ms = report.longest_gap_ms.max(milliseconds(last.elapsed()));
                last = Instant::now();
                report.received_bytes += length as u64;
                filled += length;
            }
            Err(error) => {
                report.failed(&error);
                break;
            }
        }
        if filled == BLOCK {
            noise.fill(&mut wanted);
            report.mismatches += u64::from(wanted != block);
            filled = 0;
        }
    }
    report.mismatches += u64::from(filled != 0);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_comes_back_as_it_went() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("an address");
        std::thread::spawn(move || listener.incoming().flatten().for_each(|c| drop(echo(c))));
        let report = stream(to, Duration::from_millis(300), 1 << 20).expect("a report");
        assert!(report.sent_bytes >= BLOCK as u64, "{report:?}");
        assert_eq!((report.mismatches, report.errors), (0, 0), "{report:?}");
        assert_eq!(report.sent_bytes, report.received_bytes, "{report:?}");
        let report = short(to, 20, 100, 0).expect("a report");
        assert_eq!((report.received, report.mismatches), (20, 0), "{report:?}");
    }
}
