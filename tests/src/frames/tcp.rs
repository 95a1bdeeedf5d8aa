//! TCP connections, step by step: what happens on them, and what should not.

use monitor_common::{abi::flag, parse::protocol};

use super::{
    build::{self, Packet, Pair},
    payload,
    random::Random,
};

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Opened,
    Accepted,
    Talking,
    Closing,
}

/// One connection, and those that follow it between the same ports.
#[derive(Debug)]
pub(super) struct Connection {
    pair: Pair,
    tags: usize,
    /// The local end opens.
    from_local: bool,
    state: State,
    /// Next sequence number of opener and acceptor.
    next: [u32; 2],
    /// What is still to be sent by each.
    queue: [Vec<u8>; 2],
    /// Bytes in a segment, at most.
    piece: usize,
    last: Option<Packet>,
}

const SYN: u16 = flag::SYN;
const ACK: u16 = flag::ACK;

// === impl Connection ===

impl Connection {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            pair: Pair::random(random),
            tags: random.below(12) / 10,
            from_local: random.chance(50),
            state: State::Closed,
            next: [0; 2],
            queue: [Vec::new(), Vec::new()],
            piece: 1,
            last: None,
        }
    }

    /// The last segment.
    pub(super) fn last(&self) -> Option<Packet> {
        self.last.clone()
    }

    /// The next segment.
    pub(super) fn step(&mut self, random: &mut Random) -> Packet {
        if random.chance(8)
            && let Some(last) = self.last.clone()
        {
            return last;
        }
        let packet = match self.state {
            State::Closed => self.open(random),
            State::Opened if random.chance(10) => {
                self.segment(0, self.next[0].wrapping_sub(1), SYN, &[])
            }
            State::Opened if random.chance(10) => {
                // Both open at once, or the port is reused from the other side.
                self.next[1] = random.sequence();
                self.segment(1, self.next[1].wrapping_sub(1), SYN, &[])
            }
            State::Opened if random.chance(10) => {
                self.state = State::Closed;
                self.segment(1, 0, flag::RST | ACK, &[])
            }
            State::Opened => {
                self.state = State::Accepted;
                self.next[1] = random.sequence();
                self.segment(1, self.next[1].wrapping_sub(1), SYN | ACK, &[])
            }
            State::Accepted => {
                self.state = State::Talking;
                self.segment(0, self.next[0], ACK, &[])
            }
            State::Talking => self.talk(random),
            State::Closing => {
                self.state = State::Closed;
                self.segment(1, self.next[1], flag::FIN | ACK, &[])
            }
        };
        self.last = Some(packet.clone());
        packet
    }

    fn open(&mut self, random: &mut Random) -> Packet {
        match random.below(10) {
            // Another pair of ports; at times already under way.
            0 => {
                self.pair = Pair::random(random);
                self.from_local = random.chance(50);
            }
            1 => {
                self.state = State::Talking;
                self.next = [random.sequence(), random.sequence()];
                self.queue = [payload::tcp(random), payload::tcp(random)];
                return self.segment(0, self.next[0], ACK, &[]);
            }
            _ => {}
        }
        self.state = State::Opened;
        // The sequence numbers of some connections wrap around.
        self.next[0] = if random.chance(20) {
            u32::MAX - 3
        } else {
            random.sequence()
        };
        self.queue = [payload::tcp(random), payload::tcp(random)];
        self.piece = *random.pick(&[1, 3, 7, 8, 20, 1400, 1400, 1400]);
        let syn = self.next[0].wrapping_sub(1);
        if random.chance(10) {
            // With data (RFC 7413), which the queue holds, too: unless acknowledged it comes again.
            let early = self.queue[0].clone();
            return self.segment(0, syn, SYN, &early);
        }
        self.segment(0, syn, SYN, &[])
    }

    fn talk(&mut self, random: &mut Random) -> Packet {
        let side = random.below(2);
        match random.below(20) {
            0 => {
                self.state = State::Closing;
                return self.segment(0, self.next[0], flag::FIN | ACK, &[]);
            }
            1 => {
                self.state = State::Closed;
                return self.segment(side, self.next[side], flag::RST, &[]);
            }
            // Reuse without an end.
            2 => return self.open(random),
            // Lost and found: ahead of the stream, or behind it.
            3 => {
                let ahead = self.next[side].wrapping_add(20);
                return self.segment(side, ahead, ACK, b"ahead of the stream");
            }
            4 => {
                let behind = self.next[side].wrapping_sub(5);
                return self.segment(side, behind, ACK, b"again");
            }
            5 => return self.segment(side, self.next[side], ACK, &[]),
            _ => {}
        }
        let length = self.piece.min(self.queue[side].len());
        let data: Vec<u8> = self.queue[side].drain(..length).collect();
        let data = if data.is_empty() {
            random.bytes(64)
        } else {
            data
        };
        let sequence = self.next[side];
        let length = u32::try_from(data.len()).expect("a short segment");
        self.next[side] = sequence.wrapping_add(length);
        self.segment(side, sequence, flag::PSH | ACK, &data)
    }

    /// A segment of the opener (0) or the acceptor (1).
    fn segment(&self, side: usize, sequence: u32, flags: u16, data: &[u8]) -> Packet {
        let from_local = self.from_local == (side == 0);
        let mut packet = Packet::new(self.pair, from_local, protocol::TCP);
        packet.tags = self.tags;
        let (source, destination) = packet.ports();
        let [_, flags] = flags.to_be_bytes();
        packet.payload = build::tcp(source, destination, sequence, flags, data);
        packet
    }
}
