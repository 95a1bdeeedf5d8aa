//! The blocks of a pcapng file.

use std::io::Read;

use super::{CaptureError, CaptureInterface, Found, Input, MAX_RECORD, Order, Packet, Resolution};
use crate::source::replay::link;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const OPTION_END: u16 = 0;
const OPTION_NAME: u16 = 2;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_OFFSET: u16 = 14;
/// Interfaces of a capture; a file with more is hostile.
const MAX_INTERFACES: usize = 4096;

/// What the blocks so far said.
pub(super) struct State {
    order: Order,
    /// Interfaces of all sections; those of the current one start at `section`.
    interfaces: Vec<CaptureInterface>,
    section: usize,
    /// Simple packets carry no time: that of the packet before.
    last_time_ns: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            order: Order::Little,
            interfaces: Vec::new(),
            section: 0,
            last_time_ns: 0,
        }
    }
}

/// A packet within its block's body.
struct Place {
    interface: usize,
    time: Option<u64>,
    start: usize,
    captured: usize,
    length: u32,
}

// === impl State ===

impl State {
    /// The next packet.
    pub(super) fn next<'a, R: Read>(
        &'a mut self,
        input: &'a mut Input<R>,
    ) -> Result<Option<Packet<'a>>, CaptureError> {
        input.packet += 1;
        loop {
            if matches!(input.fill(12)?, Found::End) {
                return input.at_end();
            }
            let head = input.peek(12);
            if self.order.u32(head) == SECTION_HEADER {
                self.order = match Order::Little.u32(&head[8..]) {
                    0x1a2b_3c4d => Order::Little,
                    0x4d3c_2b1a => Order::Big,
                    _ => return Err(input.corrupt("the section's byte order is not told")),
                };
                self.section = self.interfaces.len();
            }
            let (kind, length) = (self.order.u32(head), self.order.u32(&head[4..]) as usize);
            if length < 12 || length % 4 != 0 {
                return Err(input.corrupt("the block's length is out of bounds"));
            }
            if !matches!(
                kind,
                SECTION_HEADER
                    | INTERFACE_DESCRIPTION
                    | ENHANCED_PACKET
                    | SIMPLE_PACKET
                    | OBSOLETE_PACKET
            ) {
                // Names, statistics, secrets: of any length.
                input.skip(length)?;
                continue;
            }
            if length > MAX_RECORD {
                return Err(input.corrupt("the block's length is out of bounds"));
            }
            input.whole(length)?;
            let block = input.peek(length);
            if self.order.u32(&block[length - 4..]) as usize != length {
                return Err(input.corrupt("the block's two lengths differ"));
            }
            let body = &block[8..length - 4];
            let place = match kind {
                INTERFACE_DESCRIPTION => {
                    match self.interface(body) {
                        Ok(interface) => self.interfaces.push(interface),
                        Err(what) => return Err(input.corrupt(what)),
                    }
                    None
                }
                ENHANCED_PACKET => Some(self.enhanced(body)),
                SIMPLE_PACKET => Some(self.simple(body)),
                OBSOLETE_PACKET => Some(self.obsolete(body)),
                _ => None,
            };
            match place {
                None => {
                    input.advance(length);
                }
                Some(Err(what)) => return Err(input.corrupt(what)),
                Some(Ok(place)) => {
                    let index = self.section + place.interface;
                    let Some(interface) = self.interfaces.get(index) else {
                        return Err(input.corrupt("the packet's interface was not described"));
                    };
                    if !link::is_known(interface.link) {
                        return Err(CaptureError::LinkType(interface.link));
                    }
                    if let Some(time) = place.time {
                        self.last_time_ns = interface.nanoseconds(time);
                    }
                    let block = input.advance(length);
                    let start = 8 + place.start;
                    let bytes = &block[start..start + place.captured];
                    let length = place
                        .length
                        .max(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    let time_ns = self.last_time_ns;
                    return Ok(Some(Packet {
                        interfaces: &self.interfaces,
                        interface: index,
                        time_ns,
                        bytes,
                        length,
                    }));
                }
            }
        }
    }

    fn interface(&self, body: &[u8]) -> Result<CaptureInterface, &'static str> {
        if body.len() < 8 {
            return Err("the interface's block is too short");
        }
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err("there are too many interfaces");
        }
        let mut interface = CaptureInterface {
            name: format!("replay{}", self.interfaces.len() + 1),
            // One that is not understood is refused when it has a packet.
            link: self.order.u16(body).into(),
            resolution: Resolution::Coarse(1_000),
            offset_ns: 0,
        };
        let mut options = &body[8..];
        while options.len() >= 4 {
            let (code, length) = (
                self.order.u16(options),
                self.order.u16(&options[2..]) as usize,
            );
            let Some(value) = options.get(4..4 + length) else {
                break;
            };
            match code {
                OPTION_END => break,
                OPTION_NAME if !value.is_empty() => {
                    // Names of interfaces are at most 15 bytes; this one comes from a file.
                    let name = String::from_utf8_lossy(&value[..value.len().min(64)]);
                    let is_plain = |c: char| c.is_ascii_graphic();
                    interface.name = name.chars().filter(|c| is_plain(*c)).collect();
                }
                OPTION_RESOLUTION => {
                    if let Some(code) = value.first() {
                        interface.resolution = Resolution::from_option(*code)
                            .ok_or("the time resolution is out of bounds")?;
                    }
                }
                OPTION_OFFSET => {
                    if let Some(seconds) = value.first_chunk() {
                        interface.offset_ns = i128::from(self.order.i64(*seconds)) * 1_000_000_000;
                    }
                }
                _ => {}
            }
            let padded = 4 + length.div_ceil(4) * 4;
            options = options.get(padded..).unwrap_or(&[]);
        }
        Ok(interface)
    }

    fn enhanced(&self, body: &[u8]) -> Result<Place, &'static str> {
        if body.len() < 20 {
            return Err("the packet's block is too short");
        }
        let word = |index: usize| self.order.u32(&body[4 * index..]);
        let time = u64::from(word(1)) << 32 | u64::from(word(2));
        place(
            body,
            word(0) as usize,
            Some(time),
            20,
            word(3) as usize,
            word(4),
        )
    }

    fn obsolete(&self, body: &[u8]) -> Result<Place, &'static str> {
        if body.len() < 20 {
            return Err("the packet's block is too short");
        }
        let word = |index: usize| self.order.u32(&body[4 * index..]);
        let interface = usize::from(self.order.u16(body));
        let time = u64::from(word(1)) << 32 | u64::from(word(2));
        place(body, interface, Some(time), 20, word(3) as usize, word(4))
    }

    fn simple(&self, body: &[u8]) -> Result<Place, &'static str> {
        if body.len() < 4 {
            return Err("the packet's block is too short");
        }
        let length = self.order.u32(body);
        let captured = (body.len() - 4).min(length as usize);
        place(body, 0, None, 4, captured, length)
    }
}

fn place(
    body: &[u8],
    interface: usize,
    time: Option<u64>,
    start: usize,
    captured: usize,
    length: u32,
) -> Result<Place, &'static str> {
    if captured > body.len() - start {
        return Err("the packet is longer than its block");
    }
    Ok(Place {
        interface,
        time,
        start,
        captured,
        length,
    })
}

// === impl CaptureInterface ===

impl CaptureInterface {
    /// Nanoseconds since the epoch of a timestamp.
    fn nanoseconds(&self, units: u64) -> u64 {
        let time = i128::from(self.resolution.nanoseconds(units)) + self.offset_ns;
        u64::try_from(time.max(0)).unwrap_or(u64::MAX)
    }
}

// === impl Resolution ===

impl Resolution {
    /// `if_tsresol`: a negative power of ten, or, with the highest bit, of two.
    fn from_option(code: u8) -> Option<Self> {
        let exponent = u32::from(code & 0x7f);
        if code & 0x80 == 0 {
            match exponent {
                0..=9 => Some(Self::Coarse(10_u64.pow(9 - exponent))),
                10..=18 => Some(Self::PerSecond(10_u128.pow(exponent))),
                _ => None,
            }
        } else {
            (exponent < 64).then(|| Self::PerSecond(1 << exponent))
        }
    }

    fn nanoseconds(self, units: u64) -> u64 {
        match self {
            Self::Coarse(each) => units.saturating_mul(each),
            Self::PerSecond(count) => {
                u64::try_from(u128::from(units) * 1_000_000_000 / count).unwrap_or(u64::MAX)
            }
        }
    }
}
