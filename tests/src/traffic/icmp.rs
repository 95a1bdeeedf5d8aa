//! Echo requests over raw sockets, because a ping program is not everywhere.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{MOST, Noise, Pace, Report, milliseconds};

/// Sends `count` echo requests with `size` payload bytes, `rate` a second, and waits up to `wait`
/// for the answer to each. Lost ones are `sent - received`.
pub fn send(to: IpAddr, count: u64, size: usize, rate: u64, wait: Duration) -> Result<Report> {
    ensure!(count <= MOST, "at most {MOST} requests");
    ensure!(size <= 60_000, "at most 60000 bytes");
    let socket = open(to)?;
    socket
        .set_read_timeout(Some(wait))
        .context("cannot set a timeout")?;
    let [id_high, id_low, ..] = std::process::id().to_ne_bytes();
    let mut noise = Noise::new(0xec40);
    let mut report = Report::new("icmp");
    let mut pace = Pace::new(rate);
    let mut request = vec![0_u8; 8 + size];
    while report.sent + report.errors < count && pace.next() {
        noise.fill(&mut request[8..]);
        let [.., high, low] = report.sent.to_be_bytes();
        request[..8].copy_from_slice(&[0, 0, 0, 0, id_high, id_low, high, low]);
        request[0] = if to.is_ipv4() { 8 } else { 128 };
        if to.is_ipv4() {
            // The kernel computes ICMPv6's checksum itself, as it needs the source address.
            let sum = checksum(&request).to_be_bytes();
            request[2..4].copy_from_slice(&sum);
        }
        match socket.send_to(&request, SocketAddr::new(to, 0)) {
            Ok(_) => {
                report.sent += 1;
                report.sent_bytes += size as u64;
            }
            Err(error) => {
                report.failed(&error);
                continue;
            }
        }
        let sent_at = Instant::now();
        match answer(&socket, to, &request, wait) {
            Ok(Some(same)) => {
                report.received += 1;
                report.received_bytes += size as u64;
                report.mismatches += u64::from(!same);
                report.longest_gap_ms = report.longest_gap_ms.max(milliseconds(sent_at.elapsed()));
            }
            Ok(None) => {}
            Err(error) => report.failed(&error),
        }
    }
    report.elapsed_ms = milliseconds(pace.elapsed());
    Ok(report)
}

/// Waits for the answer to `request`; says whether its payload is the same.
fn answer(
    socket: &UdpSocket,
    from: IpAddr,
    request: &[u8],
    wait: Duration,
) -> std::io::Result<Option<bool>> {
    let start = Instant::now();
    let mut bytes = vec![0_u8; 65_536];
    while start.elapsed() < wait {
        let (length, source) = match socket.recv_from(&mut bytes) {
            Ok(received) => received,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        // IPv4's raw sockets hand over the IP header, IPv6's do not.
        let header = if from.is_ipv4() {
            usize::from(bytes[0] & 0x0f) * 4
        } else {
            0
        };
        let wanted = if from.is_ipv4() { 0 } else { 129 };
        let message = bytes.get(header..length).unwrap_or_default();
        if source.ip() == from
            && message.len() >= 8
            && message[0] == wanted
            && message[4..8] == request[4..8]
        {
            return Ok(Some(message[8..] == request[8..]));
        }
    }
    Ok(None)
}

/// A raw ICMP socket behind the interface of a UDP socket: sending and receiving are the same.
fn open(to: IpAddr) -> Result<UdpSocket> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    // SAFETY: socket takes plain integers.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("raw sockets need root");
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(UdpSocket::from(owned))
}

/// The internet checksum.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the carries are folded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&bytes), !0xddf2);
        assert_eq!(checksum(&[]), 0xffff);
        assert_eq!(checksum(&[0x12]), !0x1200);
    }
}
