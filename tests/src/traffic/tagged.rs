//! Frames with VLAN tags, built by hand and sent through a packet socket: this needs no VLAN
//! device, which not every kernel has.

use std::ffi::CString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};

use super::icmp::checksum;
use super::{MOST, Pace, Report, milliseconds};

/// A run of tagged UDP datagrams.
#[derive(Clone, Debug)]
pub struct Job {
    /// The interface to send from.
    pub interface: String,
    /// VLAN ids, outermost first; one or two.
    pub vlans: Vec<u16>,
    /// The sender's hardware address.
    pub source_hardware: [u8; 6],
    /// The receiver's hardware address.
    pub destination_hardware: [u8; 6],
    /// The sender's address and port.
    pub source: SocketAddr,
    /// The receiver's address and port.
    pub destination: SocketAddr,
    /// How many.
    pub count: u64,
    /// Payload bytes in each.
    pub size: usize,
    /// Frames a second; zero: as fast as it goes.
    pub rate: u64,
}

/// Sends the frames.
pub fn send(job: &Job) -> Result<Report> {
    ensure!(job.count <= MOST, "at most {MOST} frames");
    ensure!((1..=2).contains(&job.vlans.len()), "one or two VLAN ids");
    ensure!(job.size <= 1400, "at most 1400 bytes");
    let frame = frame(job)?;
    let (socket, address) = open(&job.interface)?;
    let mut report = Report::new("vlan");
    let mut pace = Pace::new(job.rate);
    while report.sent + report.errors < job.count && pace.next() {
        // SAFETY: frame and address are valid for their given lengths during the call.
        let result = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                socket_length(&address),
            )
        };
        if result < 0 {
            report.failed(&std::io::Error::last_os_error());
        } else {
            report.sent += 1;
            report.sent_bytes += job.size as u64;
        }
    }
    report.elapsed_ms = milliseconds(pace.elapsed());
    Ok(report)
}

/// Parses `02:00:00:00:00:01`.
pub fn hardware_address(text: &str) -> Result<[u8; 6]> {
    let bytes = text.split(':').map(|part| u8::from_str_radix(part, 16));
    let bytes: Vec<u8> = bytes
        .collect::<Result<_, _>>()
        .context("not a hardware address")?;
    bytes
        .try_into()
        .map_err(|_| anyhow::anyhow!("a hardware address has six bytes"))
}

fn frame(job: &Job) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    frame.extend(job.destination_hardware);
    frame.extend(job.source_hardware);
    let outer_types: &[u16] = if job.vlans.len() == 2 {
        &[0x88a8, 0x8100]
    } else {
        &[0x8100]
    };
    for (kind, id) in outer_types.iter().zip(&job.vlans) {
        ensure!((1..4095).contains(id), "VLAN ids are 1 to 4094");
        frame.extend(kind.to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    let udp_length = u16::try_from(8 + job.size).context("too long")?;
    let pseudo = match (job.source.ip(), job.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend(0x0800_u16.to_be_bytes());
            let total = (20 + udp_length).to_be_bytes();
            let mut header = vec![0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, 17, 0, 0];
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            frame.extend(header);
            [&source.octets()[..], &destination.octets()[..]].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend(0x86dd_u16.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(udp_length.to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
            [&source.octets()[..], &destination.octets()[..]].concat()
        }
        _ => bail!("source and destination are of different IP versions"),
    };
    let mut datagram = Vec::new();
    datagram.extend(job.source.port().to_be_bytes());
    datagram.extend(job.destination.port().to_be_bytes());
    datagram.extend(udp_length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(std::iter::repeat_n(b'v', job.size));
    let mut summed = pseudo;
    summed.extend([0, 17]);
    summed.extend(udp_length.to_be_bytes());
    summed.extend(&datagram);
    let sum = checksum(&summed).to_be_bytes();
    datagram[6..8].copy_from_slice(&sum);
    frame.extend(datagram);
    Ok(frame)
}

fn open(interface: &str) -> Result<(OwnedFd, libc::sockaddr_ll)> {
    let name = CString::new(interface).context("not an interface name")?;
    // SAFETY: the name is a valid C string for the whole call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    ensure!(index != 0, "no interface {interface}");
    // SAFETY: socket takes plain integers. Protocol zero: it receives nothing.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error()).context("packet sockets need root");
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an all-zero sockaddr_ll is a valid value of that plain struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).context("AF_PACKET is small")?;
    address.sll_ifindex = i32::try_from(index).context("interface indices are positive")?;
    address.sll_halen = 6;
    Ok((socket, address))
}

fn socket_length(address: &libc::sockaddr_ll) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(address)).expect("the struct is small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_tags_and_right_checksums() {
        let mut job = Job {
            interface: String::new(),
            vlans: vec![100],
            source_hardware: [2, 0, 0, 0, 0, 1],
            destination_hardware: [2, 0, 0, 0, 0, 2],
            source: "172.16.100.1:1000".parse().expect("an address"),
            destination: "172.16.100.2:2000".parse().expect("an address"),
            count: 1,
            size: 10,
            rate: 0,
        };
        let tagged = frame(&job).expect("a frame");
        assert_eq!(tagged.len(), 14 + 4 + 20 + 8 + 10);
        assert_eq!(&tagged[12..18], &[0x81, 0, 0, 100, 8, 0]);
        assert_eq!(
            checksum(&tagged[18..38]),
            0,
            "the sum over a good header is zero"
        );
        job.vlans = vec![7, 100];
        job.source = "[fd00::1]:1000".parse().expect("an address");
        job.destination = "[fd00::2]:2000".parse().expect("an address");
        let tagged = frame(&job).expect("a frame");
        assert_eq!(
            &tagged[12..22],
            &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 100, 0x86, 0xdd]
        );
        job.source = "10.0.0.1:1".parse().expect("an address");
        assert!(frame(&job).is_err());
    }
}
