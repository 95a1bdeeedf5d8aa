//! One direction of a session in clear text, up to NEWKEYS.

use super::{
    Hint, Segment, Side,
    banner::{Found, Scan},
    hassh,
    kexinit::Kexinit,
    packet::{Packet, number},
    stream::{Change, Stream, WINDOW},
    vocabulary::Hints,
};

/// What one side sends.
#[derive(Debug)]
pub(super) struct Direction {
    pub(super) side: Side,
    pub(super) stream: Stream,
    pub(super) parsed: Parsed,
}

/// What is known from the bytes so far; starts anew when earlier bytes arrive.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    stage: Stage,
    pub(super) scan: Scan,
    pub(super) hints: Hints,
    pub(super) cookie: Option<[u8; 16]>,
    pub(super) hassh: Option<Box<str>>,
    /// Payload of the KEXINIT in the stream.
    kexinit: Option<(usize, usize)>,
    /// Offset past NEWKEYS.
    pub(super) newkeys_end: Option<usize>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Ident,
    /// A KEXINIT, at this offset.
    Kexinit(usize),
    /// Key exchange, then NEWKEYS.
    Exchange(usize),
    /// Encrypted packets, or SSH 1, or a refusal: no further KEXINIT.
    Done,
    /// Nothing that can be read.
    Lost,
}

// === impl Direction ===

impl Direction {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            stream: Stream::default(),
            parsed: Parsed::default(),
        }
    }

    /// Takes in a segment; true when everything parsed before is void.
    pub(super) fn segment(&mut self, segment: &Segment<'_>) -> bool {
        let change = self.stream.segment(segment);
        if change == Change::Base {
            self.parsed = Parsed::default();
        }
        if change != Change::None {
            self.parsed.advance(&self.stream, self.side);
            if self.parsed.scan.has_ident {
                // Else a byte that the other end discards would void what is known.
                self.stream.fix_base();
            }
            if let Some(end) = self.parsed.clear_end() {
                self.stream.forget_pieces(end);
            }
        }
        change == Change::Base
    }

    /// What it offers, while the bytes are there.
    pub(super) fn kexinit(&self) -> Option<Kexinit<'_>> {
        let (start, end) = self.parsed.kexinit?;
        Kexinit::parse(self.stream.bytes().get(start..end)?)
    }

    /// Bytes of the payload of its KEXINIT.
    pub(super) fn kexinit_length(&self) -> u32 {
        let (start, end) = self.parsed.kexinit.unwrap_or_default();
        u32::try_from(end - start).unwrap_or(u32::MAX)
    }

    /// Drops what is in clear text once NEWKEYS has passed: offsets count from there on. When NEWKEYS
    /// passed, nanoseconds.
    pub(super) fn discard_clear(&mut self) -> Option<u64> {
        let end = self.parsed.newkeys_end.replace(0)?;
        self.stream.discard(end)
    }

    /// Bytes on the heap.
    pub(super) fn bytes_held(&self) -> usize {
        let texts = [&self.parsed.hassh, &self.parsed.scan.banner];
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        self.stream.bytes_held() + texts.into_iter().map(text).sum::<usize>()
    }

    /// Whether it speaks SSH and everything it sent is known, NEWKEYS not among it.
    pub(super) fn is_before_newkeys(&self) -> bool {
        // Text in place of a KEXINIT is the end: OpenSSH says what it thinks of HTTP.
        let is_read =
            self.parsed.stage != Stage::Lost || self.parsed.hints.has(Hint::KexinitInvalid);
        self.parsed.newkeys_end.is_none()
            && self.parsed.is_ssh()
            && is_read
            && self.stream.is_whole()
            && !self.stream.is_cut()
    }
}

// === impl Parsed ===

impl Parsed {
    /// Whether this side speaks SSH.
    pub(super) fn is_ssh(&self) -> bool {
        self.scan.has_ident || self.kexinit.is_some()
    }

    /// Whether its KEXINIT is known.
    pub(super) fn has_kexinit(&self) -> bool {
        self.kexinit.is_some()
    }

    /// Whether a KEXINIT that is not known will stay so.
    pub(super) fn is_over(&self) -> bool {
        self.kexinit.is_some() || matches!(self.stage, Stage::Done | Stage::Lost)
    }

    fn advance(&mut self, stream: &Stream, side: Side) {
        let bytes = stream.bytes();
        loop {
            let next = match self.stage {
                Stage::Ident => match self.scan.advance(bytes, side) {
                    Found::More if stream.is_cut() => Stage::Lost,
                    Found::More => return,
                    Found::Packets(at) => Stage::Kexinit(at),
                    Found::Final => Stage::Done,
                    Found::Nothing => Stage::Lost,
                },
                Stage::Kexinit(at) => match self.read_kexinit(stream, at, side) {
                    Some(next) => next,
                    None => return,
                },
                Stage::Exchange(at) => match Packet::at(bytes, at) {
                    Ok(Some(packet)) if packet.end > bytes.len() => return,
                    Ok(Some(packet)) => match packet.number {
                        number::NEWKEYS => {
                            self.newkeys_end = Some(packet.end);
                            Stage::Done
                        }
                        number::DISCONNECT..=number::DEBUG
                        | number::KEX_FIRST..=number::KEX_LAST => Stage::Exchange(packet.end),
                        _ => Stage::Lost,
                    },
                    Ok(None) => return,
                    Err(()) => Stage::Lost,
                },
                Stage::Done | Stage::Lost => return,
            };
            self.stage = next;
        }
    }

    /// Reads the packet at `at`, which should be the KEXINIT. None: more bytes are needed.
    fn read_kexinit(&mut self, stream: &Stream, at: usize, side: Side) -> Option<Stage> {
        let bytes = stream.bytes();
        let packet = match Packet::at(bytes, at) {
            Ok(Some(packet)) => packet,
            Ok(None) if !stream.is_cut() => return None,
            Ok(None) => {
                self.hints.set(Hint::KexinitTruncated);
                return Some(Stage::Lost);
            }
            Err(()) => {
                self.hints.set(Hint::KexinitInvalid);
                return Some(Stage::Lost);
            }
        };
        let is_kexinit = packet.number == number::KEXINIT;
        if !is_kexinit && !(number::DISCONNECT..=number::DEBUG).contains(&packet.number) {
            self.hints.set(Hint::KexinitInvalid);
            return Some(Stage::Lost);
        }
        if is_kexinit {
            // An echo shows before the packet is complete.
            let cookie = bytes.get(packet.payload + 1..packet.payload_end.min(bytes.len()));
            self.cookie = cookie.and_then(|rest| rest.first_chunk()).copied();
        }
        let Some(payload) = bytes
            .get(packet.payload..packet.payload_end)
            .filter(|_| packet.end <= bytes.len())
        else {
            if packet.end > WINDOW || stream.is_cut() {
                self.hints.set(Hint::KexinitTruncated);
                return Some(Stage::Lost);
            }
            return None;
        };
        if !is_kexinit {
            return Some(Stage::Kexinit(packet.end));
        }
        let Some(kexinit) = Kexinit::parse(payload) else {
            self.hints.set(Hint::KexinitInvalid);
            return Some(Stage::Lost);
        };
        self.hassh = Some(hassh::of(&kexinit, side).into_boxed_str());
        self.kexinit = Some((packet.payload, packet.payload_end));
        Some(Stage::Exchange(packet.end))
    }

    /// Offset up to which every byte is known to be clear text.
    fn clear_end(&self) -> Option<usize> {
        match self.stage {
            Stage::Kexinit(at) | Stage::Exchange(at) => Some(at),
            _ => self.newkeys_end,
        }
    }
}
