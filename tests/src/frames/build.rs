//! Packets as values, and their bytes.

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel,
    Ipv6Header, SingleVlanHeader, TcpHeader, UdpHeader, VlanId,
};

use super::random::Random;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// Last byte of the local address.
    pub local: u8,
    /// Last byte of the remote address.
    pub remote: u8,
    /// Port of the local end.
    pub local_port: u16,
    /// Port of the remote end.
    pub remote_port: u16,
}

/// An IPv6 extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its protocol number.
    pub kind: u8,
    /// Its bytes; the first becomes the number of what follows.
    pub bytes: Vec<u8>,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification of the datagram.
    pub identification: u32,
    /// Offset in units of eight bytes.
    pub offset: u16,
    /// Whether there are more fragments.
    pub more: bool,
    /// IPv6: how many of the extension headers are in front of the fragment header.
    pub place: usize,
}

/// An IP packet in an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its ends.
    pub pair: Pair,
    /// Whether the local end sends it.
    pub from_local: bool,
    /// VLAN tags.
    pub tags: usize,
    /// IPv4 options, in words.
    pub options: usize,
    /// IPv6 extension headers.
    pub extensions: Vec<Extension>,
    /// Set for a fragment.
    pub fragment: Option<Fragment>,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Transport header and what follows.
    pub payload: Vec<u8>,
}

// === impl Pair ===

impl Pair {
    pub(super) fn random(random: &mut Random) -> Self {
        Self {
            v6: random.chance(45),
            local: 1 + random.byte() % 4,
            remote: 1 + random.byte() % 4,
            local_port: 40_000 + random.half() % 8,
            remote_port: *random.pick(&[22, 53, 80, 443, 5353]),
        }
    }
}

// === impl Extension ===

impl Extension {
    pub(super) fn random(random: &mut Random) -> Self {
        let kind = *random.pick(&[0, 43, 44, 51, 60, 135, 60, 0]);
        let units = random.byte() % 3;
        let length = match kind {
            44 => 8,
            51 => 4 * (usize::from(units) + 2),
            _ => 8 * (usize::from(units) + 1),
        };
        let mut bytes = vec![0; length];
        if kind != 44 {
            bytes[1] = units;
        }
        Self { kind, bytes }
    }
}

// === impl Packet ===

impl Packet {
    /// A packet without payload.
    pub fn new(pair: Pair, from_local: bool, protocol: u8) -> Self {
        Self {
            pair,
            from_local,
            tags: 0,
            options: 0,
            extensions: Vec::new(),
            fragment: None,
            protocol,
            payload: Vec::new(),
        }
    }

    /// Source and destination port.
    pub fn ports(&self) -> (u16, u16) {
        if self.from_local {
            (self.pair.local_port, self.pair.remote_port)
        } else {
            (self.pair.remote_port, self.pair.local_port)
        }
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let inner = if self.pair.v6 {
            EtherType::IPV6
        } else {
            EtherType::IPV4
        };
        let tag = |index: usize| {
            if index == self.tags {
                inner
            } else if index == 0 && self.tags > 1 {
                EtherType::PROVIDER_BRIDGING
            } else {
                EtherType::VLAN_TAGGED_FRAME
            }
        };
        let ethernet = Ethernet2Header {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
            ether_type: tag(0),
        };
        let mut bytes = ethernet.to_bytes().to_vec();
        for index in 1..=self.tags {
            let header = SingleVlanHeader {
                vlan_id: VlanId::try_new(42).expect("below 4096"),
                ether_type: tag(index),
                ..SingleVlanHeader::default()
            };
            bytes.extend(header.to_bytes());
        }
        bytes.extend(self.ip());
        bytes
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        if self.pair.v6 { self.v6() } else { self.v4() }
    }

    fn v4(&self) -> Vec<u8> {
        let local = [10, 0, 0, self.pair.local];
        let remote = [198, 51, 100, self.pair.remote];
        let (source, destination) = self.order(local, remote);
        let mut header = Ipv4Header {
            protocol: IpNumber(self.protocol),
            time_to_live: 64,
            source,
            destination,
            ..Ipv4Header::default()
        };
        let mut options = Ipv4Options::new();
        if self.options > 0 {
            // No operation, four times a word.
            let words = vec![1; 4 * self.options.min(10)];
            options = Ipv4Options::try_from(&words[..]).expect("whole words, at most ten");
        }
        header.options = options;
        if let Some(fragment) = self.fragment {
            let [.., c, d] = fragment.identification.to_be_bytes();
            header.identification = u16::from_be_bytes([c, d]);
            header.fragment_offset = IpFragOffset::try_new(fragment.offset).expect("13 bits");
            header.more_fragments = fragment.more;
            header.dont_fragment = false;
        }
        header
            .set_payload_len(self.payload.len())
            .expect("a short payload");
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(&self.payload);
        bytes
    }

    fn v6(&self) -> Vec<u8> {
        let address = |network: u8, end: u8| {
            let mut bytes = [
                0x20, 1, 0x0d, 0xb8, 0, 0, 0, network, 0, 0, 0, 0, 0, 0, 0, 0,
            ];
            bytes[15] = end;
            bytes
        };
        let (source, destination) =
            self.order(address(1, self.pair.local), address(2, self.pair.remote));
        let mut extensions = self.extensions.clone();
        if let Some(fragment) = self.fragment {
            let mut bytes = vec![0, 0];
            let place = fragment.offset << 3 | u16::from(fragment.more);
            bytes.extend(place.to_be_bytes());
            bytes.extend(fragment.identification.to_be_bytes());
            let place = fragment.place.min(extensions.len());
            extensions.insert(place, Extension { kind: 44, bytes });
        }
        let mut tail = Vec::new();
        for (index, extension) in extensions.iter().enumerate() {
            let next = extensions
                .get(index + 1)
                .map_or(self.protocol, |next| next.kind);
            let mut bytes = extension.bytes.clone();
            bytes[0] = next;
            tail.extend(bytes);
        }
        tail.extend(&self.payload);
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: u16::try_from(tail.len()).expect("a short payload"),
            next_header: IpNumber(extensions.first().map_or(self.protocol, |first| first.kind)),
            hop_limit: 64,
            source,
            destination,
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(tail);
        bytes
    }

    fn order<T>(&self, local: T, remote: T) -> (T, T) {
        if self.from_local {
            (local, remote)
        } else {
            (remote, local)
        }
    }
}

/// A TCP segment; checksums are not what this is about.
pub fn tcp(source: u16, destination: u16, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(source, destination, sequence, 64_240);
    let set = |bit: u8| flags & bit != 0;
    header.fin = set(0x01);
    header.syn = set(0x02);
    header.rst = set(0x04);
    header.psh = set(0x08);
    header.ack = set(0x10);
    header.urg = set(0x20);
    header.ece = set(0x40);
    header.cwr = set(0x80);
    if header.syn {
        // Maximum segment size 1460.
        header
            .set_options_raw(&[2, 4, 5, 0xb4])
            .expect("one word of options");
    }
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(data);
    bytes
}

/// A UDP datagram.
pub fn udp(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let header = UdpHeader {
        source_port: source,
        destination_port: destination,
        length: u16::try_from(8 + data.len()).expect("a short datagram"),
        checksum: 0,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(data);
    bytes
}

/// An SCTP packet with `length` bytes of chunks.
pub fn sctp(source: u16, destination: u16, length: usize) -> Vec<u8> {
    let mut bytes = source.to_be_bytes().to_vec();
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.resize(12 + length, 0);
    bytes
}

/// An ICMP or ICMPv6 message; `rest` is the second word of its header.
pub fn icmp(kind: u8, code: u8, rest: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest.to_be_bytes());
    bytes.extend(data);
    bytes
}
