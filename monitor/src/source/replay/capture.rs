//! pcap and pcapng files, packet by packet, in bounded memory.
//!
//! Read by ourselves: the `pcap-file` crate refuses packets that are longer than the snap length
//! of their capture, and does not apply the time resolution of a pcapng interface.
//! Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.

mod pcapng;

use std::io::{self, Read};

use super::link;

/// The longest packet or block that is read; tcpdump's own limit is a quarter of that.
const MAX_RECORD: usize = 1 << 20;
/// What is read at a time.
const CHUNK: usize = 1 << 18;

/// Why a capture cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// It is something else.
    #[error("not a pcap or pcapng file: it starts with {0:02x?}")]
    Magic([u8; 4]),
    /// It ends in the middle of a record.
    #[error("truncated at byte {offset}: packet {packet} is incomplete")]
    Truncated {
        /// Where the record starts.
        offset: u64,
        /// Its number, from 1.
        packet: u64,
    },
    /// A record contradicts itself.
    #[error("corrupt at byte {offset}, at packet {packet}: {what}")]
    Corrupt {
        /// Where the record starts.
        offset: u64,
        /// Its number, from 1.
        packet: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Packets of a link type that is not understood.
    #[error("link type {0} is not supported: Ethernet, raw IP, BSD loopback and Linux cooked are")]
    LinkType(u32),
}

/// A packet of a capture.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    /// All interfaces that were described so far.
    pub(super) interfaces: &'a [CaptureInterface],
    /// Which of them the packet was captured on.
    pub(super) interface: usize,
    /// Nanoseconds since the epoch.
    pub(super) time_ns: u64,
    /// What was captured.
    pub(super) bytes: &'a [u8],
    /// Length on the wire.
    pub(super) length: u32,
}

/// An interface that was captured on.
#[derive(Clone, Debug)]
pub(super) struct CaptureInterface {
    pub(super) name: String,
    /// Link type.
    pub(super) link: u32,
    resolution: Resolution,
    /// What is added to its timestamps, in nanoseconds.
    offset_ns: i128,
}

/// Units of timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    /// So many nanoseconds each.
    Coarse(u64),
    /// So many in a second.
    PerSecond(u128),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

enum Format {
    Pcap {
        order: Order,
        interface: CaptureInterface,
    },
    Pcapng(pcapng::State),
}

/// A capture that is read.
pub(super) struct Capture<R> {
    input: Input<R>,
    format: Format,
}

/// Buffered input that knows where it is.
struct Input<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Of `start`, in the file.
    offset: u64,
    /// Number of the record that is read, from 1.
    packet: u64,
}

/// What is found where a record should start.
enum Found {
    Bytes,
    End,
}

// === impl Capture ===

impl<R: Read> Capture<R> {
    /// Reads the header.
    pub(super) fn open(reader: R) -> Result<Self, CaptureError> {
        let mut input = Input {
            reader,
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
            offset: 0,
            packet: 0,
        };
        if matches!(input.fill(4)?, Found::End) {
            return if input.available() == 0 {
                Err(CaptureError::Empty)
            } else {
                let mut magic = [0; 4];
                for (to, from) in magic.iter_mut().zip(input.peek(input.available())) {
                    *to = *from;
                }
                Err(CaptureError::Magic(magic))
            };
        }
        let magic = array(input.peek(4));
        let (order, unit) = match u32::from_le_bytes(magic) {
            0xa1b2_c3d4 => (Order::Little, 1_000),
            0xa1b2_3c4d => (Order::Little, 1),
            0xd4c3_b2a1 => (Order::Big, 1_000),
            0x4d3c_b2a1 => (Order::Big, 1),
            0x0a0d_0d0a => {
                return Ok(Self {
                    input,
                    format: Format::Pcapng(pcapng::State::default()),
                });
            }
            _ => return Err(CaptureError::Magic(magic)),
        };
        input.whole(24)?;
        let link = order.u32(&input.peek(24)[20..]) & 0x03ff_ffff;
        input.advance(24);
        if !link::is_known(link) {
            return Err(CaptureError::LinkType(link));
        }
        let resolution = Resolution::Coarse(unit);
        let interface = CaptureInterface {
            name: "replay".to_owned(),
            link,
            resolution,
            offset_ns: 0,
        };
        Ok(Self {
            input,
            format: Format::Pcap { order, interface },
        })
    }

    /// The next packet, `None` at the end.
    pub(super) fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        let Self { input, format } = self;
        match format {
            Format::Pcap { order, interface } => pcap(input, *order, interface),
            Format::Pcapng(state) => state.next(input),
        }
    }
}

/// The next record of a pcap file.
fn pcap<'a, R: Read>(
    input: &'a mut Input<R>,
    order: Order,
    interface: &'a CaptureInterface,
) -> Result<Option<Packet<'a>>, CaptureError> {
    const HEADER: usize = 16;
    input.packet += 1;
    if matches!(input.fill(HEADER)?, Found::End) {
        return input.at_end();
    }
    let header = input.peek(HEADER);
    let word = |index: usize| order.u32(&header[4 * index..]);
    let (seconds, fraction, captured, length) = (word(0), word(1), word(2), word(3));
    let captured = captured as usize;
    if captured > MAX_RECORD {
        return Err(input.corrupt("the packet's captured length is out of bounds"));
    }
    let unit = match interface.resolution {
        Resolution::Coarse(unit) => unit,
        Resolution::PerSecond(_) => 1,
    };
    let time_ns = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * unit;
    input.whole(HEADER + captured)?;
    let bytes = &input.advance(HEADER + captured)[HEADER..];
    // Some writers leave the length on the wire at zero or at less than was captured.
    let length = length.max(u32::try_from(captured).unwrap_or(u32::MAX));
    Ok(Some(Packet {
        interfaces: std::slice::from_ref(interface),
        interface: 0,
        time_ns,
        bytes,
        length,
    }))
}

// === impl Input ===

impl<R: Read> Input<R> {
    fn available(&self) -> usize {
        self.end - self.start
    }

    /// Makes `count` bytes available if there are so many.
    fn fill(&mut self, count: usize) -> io::Result<Found> {
        while self.available() < count {
            if self.start > 0 && self.start + count > self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.buffer.len() < count {
                self.buffer.resize(count.max(CHUNK), 0);
            }
            let end = self.end;
            match self.reader.read(&mut self.buffer[end..]) {
                Ok(0) => return Ok(Found::End),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Found::Bytes)
    }

    /// Makes `count` bytes of a record available.
    fn whole(&mut self, count: usize) -> Result<(), CaptureError> {
        match self.fill(count)? {
            Found::Bytes => Ok(()),
            Found::End => Err(CaptureError::Truncated {
                offset: self.offset,
                packet: self.packet,
            }),
        }
    }

    /// Passes over bytes of a record of any length.
    fn skip(&mut self, mut count: usize) -> Result<(), CaptureError> {
        let (offset, packet) = (self.offset, self.packet);
        while count > 0 {
            let some = count.min(CHUNK);
            if matches!(self.fill(some)?, Found::End) {
                return Err(CaptureError::Truncated { offset, packet });
            }
            self.advance(some);
            count -= some;
        }
        Ok(())
    }

    /// The end of the file where a record might have started.
    fn at_end<T>(&self) -> Result<Option<T>, CaptureError> {
        if self.available() == 0 {
            Ok(None)
        } else {
            Err(CaptureError::Truncated {
                offset: self.offset,
                packet: self.packet,
            })
        }
    }

    /// Bytes that were made available.
    fn peek(&self, count: usize) -> &[u8] {
        &self.buffer[self.start..self.start + count]
    }

    /// Passes over bytes that were made available, and gives them.
    fn advance(&mut self, count: usize) -> &[u8] {
        let start = self.start;
        self.start += count;
        self.offset += count as u64;
        &self.buffer[start..start + count]
    }

    fn corrupt(&self, what: &'static str) -> CaptureError {
        CaptureError::Corrupt {
            offset: self.offset,
            packet: self.packet,
            what,
        }
    }
}

// === impl Order ===

impl Order {
    /// The number at the start of `bytes`, which are at least four.
    fn u32(self, bytes: &[u8]) -> u32 {
        let bytes = array(bytes);
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn i64(self, bytes: [u8; 8]) -> i64 {
        match self {
            Self::Little => i64::from_le_bytes(bytes),
            Self::Big => i64::from_be_bytes(bytes),
        }
    }

    /// The number at the start of `bytes`, which are at least two.
    fn u16(self, bytes: &[u8]) -> u16 {
        let bytes = array(bytes);
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }
}

/// The first bytes of a slice that is at least so long.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

#[cfg(test)]
mod tests;
