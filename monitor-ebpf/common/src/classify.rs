//! Application protocol from the first payload bytes of a flow, never from a port alone.
//!
//! Patterns are anchored at the first byte of a direction and specific enough that arbitrary data
//! rarely matches: an unknown protocol is better than a wrong one.

/// Application protocol of a flow; the discriminant is [`crate::abi::FlowValue::app`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum App {
    /// Not recognised, or no payload seen.
    #[default]
    Unknown = 0,
    /// Secure Shell (RFC 4253 section 4.2).
    Ssh = 1,
    /// TLS handshake record (RFC 8446 section 5.1).
    Tls = 2,
    /// HTTP/1.x (RFC 9112).
    Http = 3,
    /// HTTP/2 with prior knowledge (RFC 9113 section 3.4).
    Http2 = 4,
    /// DNS over UDP or TCP (RFC 1035 section 4).
    Dns = 5,
    /// QUIC long header (RFC 9000 section 17.2).
    Quic = 6,
    /// NTP (RFC 5905).
    Ntp = 7,
    /// DHCP (RFC 2131).
    Dhcp = 8,
    /// PostgreSQL frontend start-up.
    Postgresql = 9,
    /// MySQL initial handshake.
    Mysql = 10,
    /// Redis serialisation protocol.
    Redis = 11,
    /// AMQP protocol header.
    Amqp = 12,
    /// MQTT CONNECT.
    Mqtt = 13,
    /// SMB over TCP.
    Smb = 14,
    /// Remote Desktop (X.224 connection request).
    Rdp = 15,
    /// WireGuard handshake.
    Wireguard = 16,
}

impl App {
    /// Every application protocol, in the order of its code.
    pub const ALL: [Self; 17] = [
        Self::Unknown,
        Self::Ssh,
        Self::Tls,
        Self::Http,
        Self::Http2,
        Self::Dns,
        Self::Quic,
        Self::Ntp,
        Self::Dhcp,
        Self::Postgresql,
        Self::Mysql,
        Self::Redis,
        Self::Amqp,
        Self::Mqtt,
        Self::Smb,
        Self::Rdp,
        Self::Wireguard,
    ];

    /// The protocol with this code; [`App::Unknown`] for codes of a newer program.
    pub const fn from_code(code: u8) -> Self {
        if (code as usize) < Self::ALL.len() {
            Self::ALL[code as usize]
        } else {
            Self::Unknown
        }
    }

    /// Name in records and filters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ssh => "ssh",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Dns => "dns",
            Self::Quic => "quic",
            Self::Ntp => "ntp",
            Self::Dhcp => "dhcp",
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Amqp => "amqp",
            Self::Mqtt => "mqtt",
            Self::Smb => "smb",
            Self::Rdp => "rdp",
            Self::Wireguard => "wireguard",
        }
    }
}

/// The bytes of `text` as the most significant bytes of a word.
const fn word(text: &[u8]) -> u64 {
    let mut value = 0;
    let mut index = 0;
    while index < 8 {
        value <<= 8;
        if index < text.len() {
            value |= text[index] as u64;
        }
        index += 1;
    }
    value
}

/// Whether `head` starts with `text`.
#[inline(always)]
const fn starts(head: u64, text: &[u8]) -> bool {
    let shift = 64 - 8 * text.len() as u32;
    head >> shift == word(text) >> shift
}

/// Byte `index` of `head`.
#[inline(always)]
const fn byte(head: u64, index: u32) -> u64 {
    head >> (56 - 8 * index) & 0xff
}

/// Sixteen bits at byte `index` of `head`.
#[inline(always)]
const fn half(head: u64, index: u32) -> u64 {
    head >> (48 - 8 * index) & 0xffff
}

/// Classifies a TCP direction by its first eight payload bytes, most significant first.
///
/// `segment` is the payload length of the segment that completed them, `first` whether that
/// segment was the first with payload: protocols that carry a length are held to it.
#[inline(always)]
pub fn tcp(head: u64, segment: u32, first: bool) -> App {
    match byte(head, 0) as u8 {
        b'S' if starts(head, b"SSH-2.0-") || is_ssh1(head) => App::Ssh,
        b'P' if starts(head, b"PRI * HT") => App::Http2,
        0x16 if is_tls(head) => App::Tls,
        b'A'..=b'Z' if is_http(head) => App::Http,
        b'A' if starts(head, b"AMQP") && byte(head, 4) <= 3 => App::Amqp,
        b'*' if is_redis(head) => App::Redis,
        0x10 if half(head, 2) == 4 && head as u32 == u32::from_be_bytes(*b"MQTT") => App::Mqtt,
        0x03 if half(head, 0) == 0x0300 && byte(head, 2) == 0 && half(head, 5) == 0xe000 => {
            App::Rdp
        }
        0x00 if is_smb(head) => App::Smb,
        0x00 if is_postgresql(head, segment) => App::Postgresql,
        _ if is_mysql(head, segment) => App::Mysql,
        _ if first && is_dns_over_tcp(head, segment) => App::Dns,
        _ => App::Unknown,
    }
}

/// Whether all eight bytes are from tab to DEL: a server may send lines of text before its SSH
/// banner (RFC 4253 section 4.2).
#[inline(always)]
pub const fn is_text(head: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    // Bytes below 9 borrow from their high bit (Bit Twiddling Hacks, hasless).
    (head | head.wrapping_sub(9 * ONES) & !head) & HIGH == 0
}

/// `SSH-1.` and a digit; 1.99 is a version 2 server that also speaks version 1.
#[inline(always)]
const fn is_ssh1(head: u64) -> bool {
    starts(head, b"SSH-1.") && byte(head, 6).wrapping_sub(b'0' as u64) < 10
}

/// A handshake record with a ClientHello or ServerHello below 64 KiB.
#[inline(always)]
const fn is_tls(head: u64) -> bool {
    byte(head, 1) == 3
        && byte(head, 2) <= 4
        && half(head, 3) >= 4
        && half(head, 3) <= 16_640
        && (byte(head, 5) == 1 || byte(head, 5) == 2)
        && byte(head, 6) == 0
}

/// A request line with a registered method, or a status line.
#[inline(always)]
const fn is_http(head: u64) -> bool {
    starts(head, b"HTTP/1.")
        || starts(head, b"GET ")
        || starts(head, b"POST ")
        || starts(head, b"PUT ")
        || starts(head, b"HEAD ")
        || starts(head, b"DELETE ")
        || starts(head, b"OPTIONS ")
        || starts(head, b"PATCH ")
        || starts(head, b"CONNECT ")
        || starts(head, b"TRACE ")
}

/// An array of bulk strings: `*<digit>\r\n$`.
#[inline(always)]
const fn is_redis(head: u64) -> bool {
    byte(head, 1).wrapping_sub(b'1' as u64) < 9
        && half(head, 2) == 0x0d0a
        && byte(head, 4) == b'$' as u64
}

/// A NetBIOS session message with an SMB1, SMB2 or SMB3 header.
#[inline(always)]
const fn is_smb(head: u64) -> bool {
    matches!(byte(head, 4), 0xfd..=0xff) && head & 0xff_ffff == 0x53_4d42
}

/// StartupMessage version 3.0, SSLRequest or GSSENCRequest.
#[inline(always)]
const fn is_postgresql(head: u64, segment: u32) -> bool {
    let length = (head >> 32) as u32;
    match head as u32 {
        0x0003_0000 => length == segment && length >= 9,
        80_877_103 | 80_877_104 => length == 8,
        _ => false,
    }
}

/// HandshakeV10: three bytes of length, packet number 0, protocol 10, a version that starts with a
/// digit.
#[inline(always)]
const fn is_mysql(head: u64, segment: u32) -> bool {
    let length = byte(head, 0) | byte(head, 1) << 8 | byte(head, 2) << 16;
    byte(head, 3) == 0
        && byte(head, 4) == 10
        && byte(head, 5).wrapping_sub(b'3' as u64) < 10
        && length + 4 == segment as u64
        && length >= 20
}

/// A query or an answer with one question whose length prefix is that of the segment.
#[inline(always)]
const fn is_dns_over_tcp(head: u64, segment: u32) -> bool {
    half(head, 0) + 2 == segment as u64
        && segment >= 19
        && is_dns_flags(half(head, 4))
        && half(head, 6) == 1
}

/// Opcode QUERY, NOTIFY or UPDATE, reserved bit clear, response code assigned.
#[inline(always)]
const fn is_dns_flags(flags: u64) -> bool {
    matches!(flags >> 11 & 0xf, 0 | 4 | 5) && flags & 0x40 == 0 && flags & 0xf <= 10
}

/// Classifies a datagram by its first sixteen payload bytes, most significant first.
#[inline(always)]
pub fn udp(head: [u64; 2], length: u32, source_port: u16, destination_port: u16) -> App {
    let [first, second] = head;
    let port = |number| source_port == number || destination_port == number;
    if is_dns(first, second, length) {
        App::Dns
    } else if is_quic(first) {
        App::Quic
    } else if first >> 32 == 0x0100_0000 && length == 148
        || first >> 32 == 0x0200_0000 && length == 92
    {
        App::Wireguard
    } else if port(123) && is_ntp(first, length) {
        App::Ntp
    } else if (port(67) || port(68)) && is_dhcp(first, length) {
        App::Dhcp
    } else {
        App::Unknown
    }
}

/// A header with plausible counts and a first label.
#[inline(always)]
const fn is_dns(first: u64, second: u64, length: u32) -> bool {
    let flags = half(first, 2);
    let questions = half(first, 4);
    let answers = half(first, 6);
    let response = flags & 0x8000 != 0;
    let counts = if response {
        questions <= 1 && answers <= 256
    } else {
        questions >= 1 && questions <= 16 && answers == 0 && half(second, 0) == 0
    };
    length >= 17
        && is_dns_flags(flags)
        && counts
        && half(second, 2) <= 16
        && byte(second, 4) <= 63
        && (questions == 1 || response && answers >= 1 || questions > 1)
}

/// A long header of version 1, version 2 or a draft.
#[inline(always)]
const fn is_quic(first: u64) -> bool {
    let version = (first >> 24) as u32;
    byte(first, 0) & 0xc0 == 0xc0
        && (version == 1 || version == 0x6b33_43cf || version >> 8 == 0x00ff_0000)
        && byte(first, 5) <= 20
}

/// Version 3 or 4, a client or server mode, 48 bytes (RFC 5905 figure 8).
#[inline(always)]
const fn is_ntp(first: u64, length: u32) -> bool {
    let leap_version_mode = byte(first, 0);
    matches!(leap_version_mode >> 3 & 7, 3 | 4)
        && matches!(leap_version_mode & 7, 1..=5)
        && length >= 48
}

/// BOOTREQUEST or BOOTREPLY over Ethernet.
#[inline(always)]
const fn is_dhcp(first: u64, length: u32) -> bool {
    matches!(first >> 40, 0x01_01_06 | 0x02_01_06) && length >= 240
}

#[cfg(test)]
mod tests;
