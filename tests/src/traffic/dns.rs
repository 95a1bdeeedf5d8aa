//! DNS questions, and a responder for machines without dnsmasq.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{MOST, Pace, Report, SERVER_LIFE, milliseconds};

const QUESTION_A: u16 = 1;
const QUESTION_AAAA: u16 = 28;

/// Asks for the A record of `name`, `count` times over one socket; an answer counts as received if
/// it carries at least one record.
pub fn ask(server: SocketAddr, name: &str, count: u64) -> Result<Report> {
    ensure!(count <= MOST, "at most {MOST} questions");
    let local: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(local).context("cannot make a socket")?;
    socket
        .connect(server)
        .with_context(|| format!("no way to {server}"))?;
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .context("cannot set a timeout")?;
    let mut report = Report::new("dns");
    let mut pace = Pace::new(0);
    let mut answer = [0_u8; 1500];
    while report.sent + report.errors < count && pace.next() {
        let [.., high, low] = report.sent.to_be_bytes();
        let question = question([high, low], name, QUESTION_A)?;
        if let Err(error) = socket.send(&question) {
            report.failed(&error);
            continue;
        }
        report.sent += 1;
        report.sent_bytes += question.len() as u64;
        match socket.recv(&mut answer) {
            Ok(length) if length > 12 && answer[..2] == [high, low] => {
                report.received += u64::from(answer[7] > 0);
                report.mismatches += u64::from(answer[7] == 0);
                report.received_bytes += length as u64;
            }
            Ok(_) => report.mismatches += 1,
            Err(error) => report.failed(&error),
        }
    }
    report.elapsed_ms = milliseconds(pace.elapsed());
    Ok(report)
}

/// Answers every A and AAAA question with the lab's outside peer.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .context("cannot set a timeout")?;
    let start = Instant::now();
    let mut bytes = [0_u8; 512];
    while start.elapsed() < SERVER_LIFE {
        if let Ok((length, from)) = socket.recv_from(&mut bytes)
            && let Some(answer) = respond(&bytes[..length])
        {
            let _ = socket.send_to(&answer, from);
        }
    }
    Ok(())
}

fn question(id: [u8; 2], name: &str, kind: u16) -> Result<Vec<u8>> {
    let mut message = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        ensure!((1..=63).contains(&label.len()), "not a domain name: {name}");
        message.push(u8::try_from(label.len()).context("labels are short")?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    Ok(message)
}

fn respond(question: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    let kind = u16::from_be_bytes([*question.get(end + 1)?, *question.get(end + 2)?]);
    let data = match kind {
        QUESTION_A => Ipv4Addr::new(203, 0, 113, 10).octets().to_vec(),
        QUESTION_AAAA => Ipv6Addr::new(0xfd00, 0x113, 0, 0, 0, 0, 0, 10)
            .octets()
            .to_vec(),
        _ => return None,
    };
    let mut answer = question.get(..end + 5)?.to_vec();
    answer[2..12].copy_from_slice(&[0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend([0xc0, 12]);
    answer.extend(kind.to_be_bytes());
    answer.extend([0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).ok()?]);
    answer.extend(data);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered() {
        let asked = question([1, 2], "web.lab.test", QUESTION_A).expect("a question");
        let answer = respond(&asked).expect("an answer");
        assert_eq!(answer[..2], [1, 2]);
        assert_eq!(answer[7], 1, "one record");
        assert_eq!(answer[answer.len() - 4..], [203, 0, 113, 10]);
        assert_eq!(respond(&asked[..20]), None, "cut short");
        assert!(question([0, 0], "a..b", QUESTION_A).is_err());
    }
}
