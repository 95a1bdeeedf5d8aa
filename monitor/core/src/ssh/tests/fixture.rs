//! Makes sessions of segments.

use crate::ssh::{Segment, Session, Side};

pub(crate) const CHACHA: &str = "chacha20-poly1305@openssh.com";
pub(crate) const GCM: &str = "aes128-gcm@openssh.com";
pub(crate) const DROPBEAR: &str = "SSH-2.0-dropbear_2022.83";
pub(crate) const OPENSSH: &str = "SSH-2.0-OpenSSH_10.0p2";

/// A segment that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) side: Side,
    pub(crate) sequence: u32,
    pub(crate) length: u32,
    pub(crate) is_pushed: bool,
    pub(crate) time_ns: u64,
    pub(crate) bytes: Vec<u8>,
}

/// A session in the making: each call sends one segment, a millisecond after the one before.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) segments: Vec<Owned>,
    pub(crate) next: [u32; 2],
    pub(crate) now_ns: u64,
}

/// Payload of a KEXINIT.
pub(crate) fn kexinit_payload(cookie: u8, lists: [&str; 10]) -> Vec<u8> {
    let mut payload = vec![20];
    payload.extend([cookie; 16]);
    for list in lists {
        payload.extend(u32::try_from(list.len()).unwrap().to_be_bytes());
        payload.extend(list.as_bytes());
    }
    payload.extend([0; 5]);
    payload
}

/// A clear-text packet.
pub(crate) fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 4 + (8 - (payload.len() + 5 + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap();
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// A KEXINIT that offers one cipher and MAC, and is as long as OpenSSH's.
pub(crate) fn kexinit(cookie: u8, cipher: &str, mac: &str) -> Vec<u8> {
    let host_keys = ["h"; 430].join(",");
    let lists = [
        "k", &host_keys, cipher, cipher, mac, mac, "none", "none", "", "",
    ];
    packet(&kexinit_payload(cookie, lists))
}

// === impl Owned ===

impl Owned {
    pub(crate) fn as_segment(&self) -> Segment<'_> {
        Segment {
            side: self.side,
            sequence: self.sequence,
            length: self.length,
            is_pushed: self.is_pushed,
            time_ns: self.time_ns,
            bytes: &self.bytes,
        }
    }
}

// === impl Talk ===

impl Default for Talk {
    /// The server's sequence numbers wrap early.
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            next: [1_000, u32::MAX - 500],
            now_ns: 1_000,
        }
    }
}

impl Talk {
    pub(crate) fn say(mut self, side: Side, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref().to_vec();
        let length = u32::try_from(bytes.len()).unwrap();
        self.now_ns += 1_000_000;
        let next = &mut self.next[side as usize];
        self.segments.push(Owned {
            side,
            sequence: *next,
            length,
            is_pushed: true,
            time_ns: self.now_ns,
            bytes,
        });
        *next = next.wrapping_add(length);
        self
    }

    pub(crate) fn client(self, bytes: impl AsRef<[u8]>) -> Self {
        self.say(Side::Client, bytes)
    }

    pub(crate) fn server(self, bytes: impl AsRef<[u8]>) -> Self {
        self.say(Side::Server, bytes)
    }

    pub(crate) fn wait_ms(mut self, ms: u64) -> Self {
        self.now_ns += ms * 1_000_000;
        self
    }

    /// Up to both NEWKEYS; the server's banner without CR LF.
    pub(crate) fn handshake(server_banner: &str, cipher: &str, mac: &str) -> Self {
        let newkeys = packet(&[21]);
        Self::default()
            .client(format!("{OPENSSH} client\r\n"))
            .server(format!("{server_banner}\r\n"))
            .client(kexinit(1, cipher, mac))
            .server(kexinit(2, cipher, mac))
            .client(packet(&[30; 40]))
            .server([packet(&[31; 200]), newkeys.clone()].concat())
            .client(newkeys)
    }

    /// Encrypted bytes of the server, a segment for each size, none of which shows a boundary.
    pub(crate) fn answers(self, sizes: &[usize]) -> Self {
        let answer = |talk: Self, size: &usize| talk.server(vec![0xA5; *size]);
        sizes.iter().fold(self.asks(), answer)
    }

    /// Packets of the server in one segment, with packet_length in clear and a tag of 16 bytes.
    pub(crate) fn records(self, sizes: &[usize]) -> Self {
        self.records_of(sizes, 16)
    }

    /// The same with MACs of another size.
    pub(crate) fn records_of(self, sizes: &[usize], mac: usize) -> Self {
        self.requests(&[68], mac).server(records(sizes, mac))
    }

    /// Packets of the server that the client did not ask for, with a tag of 16 bytes.
    pub(crate) fn records_unasked(self, sizes: &[usize]) -> Self {
        self.server(records(sizes, 16))
    }

    /// Packets of the client in one segment, with packet_length in clear and a MAC of that size.
    pub(crate) fn requests(self, sizes: &[usize], mac: usize) -> Self {
        self.client(records(sizes, mac))
    }

    /// A request of the client.
    pub(crate) fn asks(self) -> Self {
        self.client([0x5A; 68])
    }

    pub(crate) fn session(&self) -> Session {
        session(&self.segments)
    }
}

pub(crate) fn session(segments: &[Owned]) -> Session {
    let mut session = Session::default();
    for segment in segments {
        session.segment(&segment.as_segment());
    }
    session
}

fn records(sizes: &[usize], mac: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for size in sizes {
        let length = u32::try_from(size - 4 - mac).unwrap();
        bytes.extend(length.to_be_bytes());
        bytes.resize(bytes.len() + size - 4, 0xA5);
    }
    bytes
}
