//! Identification lines (RFC 4253 section 4.2).

use std::fmt::Write as _;

use super::{
    Hint, Side,
    packet::{Packet, number},
    stream::WINDOW,
    vocabulary::Hints,
};

/// Bytes of an identification line, CR and LF included.
const MAX_LINE: usize = 255;
/// Characters of an escaped byte.
const ESCAPE: usize = 4;
/// Lines that OpenSSH takes ahead of the identification (`SSH_MAX_PRE_BANNER_LINES`).
const MAX_LINES_BEFORE: u16 = 1024;
/// What OpenSSH's `sshd` says in place of a banner, since 9.8 and before.
const REFUSALS: [&[u8]; 2] = [b"Not allowed at this time", b"Exceeded MaxStartups"];
/// PROXY protocol version 1: at most 107 bytes with CR and LF.
const PROXY_1: &[u8] = b"PROXY ";
const PROXY_1_MAX: usize = 107;
/// PROXY protocol version 2: signature, version and command, family, length of the rest.
const PROXY_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PROXY_2_HEAD: usize = 16;

/// How far the search for the identification line of one direction has come.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Offset of the line that is looked at.
    line: usize,
    /// Offset up to which there is no line feed.
    searched: usize,
    lines_before: u16,
    is_past_proxy: bool,
    /// A line begins as an identification does.
    pub(super) has_ident: bool,
    /// Escaped identification without CR and LF.
    pub(super) banner: Option<Box<str>>,
    pub(super) hints: Hints,
}

/// Where a search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// More bytes decide.
    More,
    /// Packets begin at this offset.
    Packets(usize),
    /// SSH 1, or a refusal: nothing follows that this module reads.
    Final,
    /// No identification, and none will come.
    Nothing,
}

// === impl Scan ===

impl Scan {
    /// Goes on with the bytes of `side` so far.
    pub(super) fn advance(&mut self, bytes: &[u8], side: Side) -> Found {
        if side == Side::Client && !self.is_past_proxy {
            match proxy(bytes) {
                None => return Found::More,
                Some(0) => {}
                Some(end) => {
                    self.hints.set(Hint::ProxyHeader);
                    (self.line, self.searched) = (end, end);
                }
            }
            self.is_past_proxy = true;
        }
        loop {
            let rest = bytes.get(self.line..).unwrap_or_default();
            if self.lines_before == 0 && starts_packet(rest) {
                return Found::Packets(self.line);
            }
            if is_ident(rest) {
                return self.ident(rest);
            }
            if side == Side::Client {
                let is_open = could_be_ident(rest);
                return if is_open { Found::More } else { Found::Nothing };
            }
            let is_refusal = REFUSALS.iter().any(|refusal| rest.starts_with(refusal));
            if self.lines_before == 0 && is_refusal {
                self.hints.set(Hint::Refused);
                return Found::Final;
            }
            let Some(feed) = self.line_feed(bytes) else {
                return Found::More;
            };
            (self.line, self.searched) = (feed + 1, feed + 1);
            self.lines_before += 1;
            if self.lines_before > MAX_LINES_BEFORE {
                return Found::Nothing;
            }
        }
    }

    /// Keeps as much of the banner as one has that needs no escapes.
    pub(super) fn shorten(&mut self) {
        let Some(banner) = self.banner.as_deref().filter(|text| text.len() > MAX_LINE) else {
            return;
        };
        let head = banner.get(..MAX_LINE).unwrap_or(banner);
        // No part of an escape.
        let tail = MAX_LINE - ESCAPE + 1;
        let end = head.rfind('\\').filter(|at| *at >= tail);
        self.banner = head.get(..end.unwrap_or(MAX_LINE)).map(Into::into);
    }

    /// Offset of the next line feed.
    fn line_feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let unseen = bytes.get(self.searched..).unwrap_or_default();
        let feed = unseen.iter().position(|byte| *byte == b'\n');
        let offset = feed.map(|feed| self.searched + feed);
        self.searched = offset.unwrap_or(bytes.len());
        offset
    }

    /// `rest` begins with an identification.
    fn ident(&mut self, rest: &[u8]) -> Found {
        self.has_ident = true;
        if self.lines_before > 0 {
            self.hints.set(Hint::LinesBeforeBanner);
        }
        let head = rest.get(..MAX_LINE).unwrap_or(rest);
        let feed = rest.iter().position(|byte| *byte == b'\n');
        // One after the line is in the packet that follows.
        let nul = head.iter().position(|byte| *byte == 0);
        let nul = nul.filter(|nul| feed.is_none_or(|feed| *nul < feed));
        if nul.is_some() {
            self.hints.set(Hint::NulInBanner);
        }
        let end = match nul.map(|nul| padded_end(rest, nul)) {
            Some(Found::Packets(end)) => Some(end),
            Some(Found::More) => None,
            _ => feed.map(|feed| feed + 1),
        };
        if end.map_or(rest.len() > MAX_LINE, |end| end > MAX_LINE) {
            self.hints.set(Hint::LongBanner);
        }
        if end.is_some() || nul.is_some() || rest.len() >= MAX_LINE {
            let line = head.get(..end.unwrap_or(MAX_LINE)).unwrap_or(head);
            self.banner = Some(escape(line));
        }
        let is_version_1 = rest.starts_with(b"SSH-1.") && !rest.starts_with(b"SSH-1.99-");
        match end {
            Some(_) if is_version_1 => {
                self.hints.set(Hint::Version1);
                Found::Final
            }
            Some(end) => Found::Packets(self.line + end),
            None => Found::More,
        }
    }
}

/// Length of a PROXY header. None: more bytes decide.
fn proxy(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(PROXY_1) {
        let head = bytes.get(..PROXY_1_MAX).unwrap_or(bytes);
        return match head.iter().position(|byte| *byte == b'\n') {
            Some(feed) => Some(feed + 1),
            None if bytes.len() >= PROXY_1_MAX => Some(0),
            None => None,
        };
    }
    if bytes.starts_with(PROXY_2) {
        let length = bytes.get(PROXY_2_HEAD - 2..)?.first_chunk()?;
        let end = PROXY_2_HEAD + usize::from(u16::from_be_bytes(*length));
        return (bytes.len() >= end || end > WINDOW).then_some(end);
    }
    let is_partial = PROXY_1.starts_with(bytes) || PROXY_2.starts_with(bytes);
    if is_partial { None } else { Some(0) }
}

/// Whether these bytes are a KEXINIT, the identification having passed unseen.
fn starts_packet(bytes: &[u8]) -> bool {
    matches!(Packet::at(bytes, 0), Ok(Some(packet)) if packet.number == number::KEXINIT)
}

fn is_ident(bytes: &[u8]) -> bool {
    matches!(bytes, [b'S', b'S', b'H', b'-', b'1' | b'2', b'.', ..])
}

fn could_be_ident(bytes: &[u8]) -> bool {
    [b"SSH-1.", b"SSH-2."].iter().any(|ident| ident.starts_with(bytes))
        // A KEXINIT without identification: packet_length is below 65 536.
        || (bytes.len() < 6 && bytes.iter().take(2).all(|byte| *byte == 0))
}

/// Where packets begin after an identification that ends with NUL bytes and no line feed: the last
/// two of them are the upper half of packet_length.
fn padded_end(rest: &[u8], nul: usize) -> Found {
    let padded = rest.get(nul..).unwrap_or_default();
    let Some(padding) = padded.iter().position(|byte| *byte != 0) else {
        return Found::More;
    };
    // A packet_length begins with two zeros, or three below 256.
    for zeros in [2, 3] {
        let Some(start) = padding.checked_sub(zeros) else {
            return Found::Nothing;
        };
        match Packet::at(padded, start) {
            Ok(None) => return Found::More,
            Ok(Some(packet)) if packet.number == number::KEXINIT => {
                return Found::Packets(nul + start);
            }
            _ => {}
        }
    }
    Found::Nothing
}

/// Up to CR LF, LF or NUL; everything but printable ASCII, and the backslash, as `\xNN`.
fn escape(line: &[u8]) -> Box<str> {
    let line = match line.iter().position(|byte| matches!(byte, 0 | b'\n')) {
        Some(end) => line.get(..end).unwrap_or(line),
        None => line,
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut text = String::with_capacity(line.len());
    for byte in line {
        match byte {
            b'\\' | ..0x20 | 0x7F.. => {
                write!(text, "\\x{byte:02x}").expect("a String takes everything");
            }
            _ => text.push(char::from(*byte)),
        }
    }
    text.into_boxed_str()
}
