//! Generated frames: valid, odd, truncated and hostile, the same ones for the same seed.

pub mod build;
pub mod host;
mod payload;
mod random;
mod tcp;

use std::collections::VecDeque;

use monitor_common::{abi::Hook, parse::protocol};

use build::{Extension, Fragment, Packet, Pair};
pub(crate) use random::Random;
use tcp::Connection;

/// Connections that are open at the same time.
const CONNECTIONS: usize = 24;
/// Earlier packets that an ICMP error may quote or that may be sent again.
const RECENT: usize = 64;

/// One frame at one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The hook that it passes.
    pub hook: Hook,
    /// The frame, from its Ethernet header.
    pub bytes: Vec<u8>,
}

/// An endless sequence of frames.
#[derive(Debug)]
pub struct Generator {
    random: Random,
    connections: Vec<Connection>,
    recent: VecDeque<Packet>,
}

// === impl Generator ===

impl Generator {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let connections = (0..CONNECTIONS)
            .map(|_| Connection::new(&mut random))
            .collect();
        Self {
            random,
            connections,
            recent: VecDeque::new(),
        }
    }

    fn packet(&mut self) -> Packet {
        let random = &mut self.random;
        let packet = match random.below(100) {
            0..40 => {
                let index = random.below(CONNECTIONS);
                return self.connections[index].step(random);
            }
            40..56 => udp(random),
            56..64 => echo(random),
            64..76 => self.error(),
            76..88 => fragment(random),
            88..93 => {
                let mut packet = random_packet(random, protocol::SCTP);
                let (source, destination) = packet.ports();
                packet.payload = build::sctp(source, destination, random.below(40));
                packet
            }
            _ => {
                let number = *random.pick(&[2, 4, 41, 47, 50, 59, 89, 103, 1, 58, 253]);
                let mut packet = random_packet(random, number);
                let length = random.below(60);
                packet.payload = random.bytes(length);
                packet
            }
        };
        self.recent.push_back(packet.clone());
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        packet
    }

    /// An ICMP error about an earlier packet, which passed the other hook.
    fn error(&mut self) -> Packet {
        let random = &mut self.random;
        let quoted = if random.chance(50) {
            let index = random.below(CONNECTIONS);
            self.connections[index].last()
        } else {
            self.recent.get(random.below(RECENT)).cloned()
        };
        let Some(quoted) = quoted else {
            return udp(random);
        };
        let v6 = quoted.pair.v6;
        let number = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
        let mut packet = random_packet(random, number);
        packet.pair = Pair {
            local: quoted.pair.local,
            v6,
            ..packet.pair
        };
        packet.from_local = !quoted.from_local;
        if !v6 {
            packet.extensions.clear();
        }
        let kind = if random.chance(80) {
            if v6 { 1 } else { 3 }
        } else {
            *random.pick(&[1, 2, 3, 4, 5, 11, 12])
        };
        let code = *random.pick(&[0, 1, 2, 3, 3, 3, 4, 13]);
        let mut quote = quoted.ip();
        let limit = random.below(80);
        if random.chance(50) {
            quote.truncate(if v6 { 48 } else { 28 });
        } else if random.chance(30) {
            quote.truncate(limit);
        }
        packet.payload = build::icmp(kind, code, 0, &quote);
        packet
    }
}

impl Iterator for Generator {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let packet = self.packet();
        let random = &mut self.random;
        let hook = if packet.from_local {
            Hook::Egress
        } else {
            Hook::Ingress
        };
        let mut bytes = packet.frame();
        match random.below(100) {
            0..14 => mutate(random, &mut bytes, packet.tags),
            14..17 => bytes = foreign(random),
            17 => {
                let length = 14 + random.below(120);
                bytes = random.bytes(length);
            }
            // Padding behind the IP packet, as Ethernet's minimum length makes it.
            18..24 => bytes.extend(random.bytes(20)),
            _ => {}
        }
        pad(&mut bytes);
        Some(Sample { hook, bytes })
    }
}

/// A test run refuses IP frames that are shorter than the header, with `EINVAL`.
fn pad(bytes: &mut Vec<u8>) {
    let least = match bytes.get(12..14) {
        Some([0x08, 0x00] | [0x86, 0xdd]) => 64,
        // At least something behind the Ethernet header.
        _ => 15,
    };
    if bytes.len() < least {
        bytes.resize(least, 0);
    }
}

/// A packet without transport, between two of a few addresses.
fn random_packet(random: &mut Random, protocol: u8) -> Packet {
    let pair = Pair::random(random);
    let mut packet = Packet::new(pair, random.chance(50), protocol);
    packet.tags = match random.below(100) {
        0..70 => 0,
        70..85 => 1,
        85..95 => 2,
        _ => 3,
    };
    if pair.v6 && random.chance(40) {
        let length = random.below(9);
        packet.extensions = (0..length).map(|_| Extension::random(random)).collect();
    } else if random.chance(20) {
        packet.options = random.below(11);
    }
    packet
}

fn udp(random: &mut Random) -> Packet {
    let mut packet = random_packet(random, protocol::UDP);
    let (mut source, mut destination) = packet.ports();
    let (port, data) = payload::udp(random);
    if port != 0 {
        if packet.from_local {
            packet.pair.remote_port = port;
            destination = port;
        } else {
            packet.pair.local_port = port;
            source = port;
        }
    }
    packet.payload = build::udp(source, destination, &data);
    packet
}

fn echo(random: &mut Random) -> Packet {
    let number = *random.pick(&[protocol::ICMP, protocol::ICMPV6]);
    let mut packet = random_packet(random, number);
    packet.pair.v6 = number == protocol::ICMPV6;
    if !packet.pair.v6 {
        packet.extensions.clear();
    }
    let kinds: &[u8] = if packet.pair.v6 {
        &[128, 129, 128, 129, 135, 134, 2]
    } else {
        &[8, 0, 8, 0, 13, 5, 11]
    };
    let kind = *random.pick(kinds);
    let code = if random.chance(90) { 0 } else { random.byte() };
    let identifier = u32::from(random.byte() & 3) << 16 | u32::from(random.half());
    packet.payload = build::icmp(kind, code, identifier, &[0x61; 32]);
    packet
}

/// A part of one of a few datagrams.
fn fragment(random: &mut Random) -> Packet {
    let number = *random.pick(&[
        protocol::UDP,
        protocol::UDP,
        protocol::TCP,
        protocol::SCTP,
        protocol::ICMP,
        47,
    ]);
    let mut packet = random_packet(random, number);
    let (source, destination) = packet.ports();
    packet.payload = match number {
        protocol::TCP => build::tcp(source, destination, 7, 0x10, &random.bytes(40)),
        protocol::UDP => build::udp(source, destination, &random.bytes(40)),
        protocol::SCTP => build::sctp(source, destination, 40),
        protocol::ICMP => build::icmp(8, 0, 3 << 16, &random.bytes(40)),
        _ => random.bytes(40),
    };
    let first = random.chance(45);
    packet.fragment = Some(Fragment {
        identification: u32::from(random.byte() & 7),
        offset: if first { 0 } else { 1 + random.half() % 100 },
        more: first || random.chance(50),
        place: random.below(3),
    });
    if random.chance(5) {
        // Atomic: whole, with a fragment header.
        packet.fragment = Some(Fragment {
            identification: 99,
            offset: 0,
            more: false,
            place: 0,
        });
    }
    packet
}

/// Not IP: ARP, LLDP, MPLS, 802.3, or a tag with one of them behind.
fn foreign(random: &mut Random) -> Vec<u8> {
    let mut bytes = random.bytes(12);
    let ethertype: u16 = *random.pick(&[0x0806, 0x88cc, 0x8847, 0x0040, 0x8100, 0x88a8, 0x9100]);
    bytes.extend(ethertype.to_be_bytes());
    let length = random.below(60);
    bytes.extend(random.bytes(length));
    bytes
}

/// Breaks a frame in one or two places.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, tags: usize) {
    let ip = 14 + 4 * tags;
    for _ in 0..=random.below(2) {
        if bytes.is_empty() {
            return;
        }
        let position = match random.below(10) {
            // Header fields that everything depends on.
            0 => ip,
            1 => ip + 2 + random.below(2),
            2 => ip + 4 + random.below(4),
            3 => ip + 6 + random.below(4),
            4 => ip + 20 + random.below(16),
            5 => ip + 40 + random.below(16),
            6 => 12 + random.below(2),
            7 => {
                let length = random.below(bytes.len());
                bytes.truncate(length.max(14));
                continue;
            }
            _ => random.below(bytes.len().min(120)),
        };
        if let Some(byte) = bytes.get_mut(position) {
            *byte = match random.below(4) {
                0 => 0,
                1 => 0xff,
                2 => *byte ^ (1 << random.below(8)),
                _ => random.byte(),
            };
        }
    }
}
