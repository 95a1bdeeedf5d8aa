//! Clear-text binary packets (RFC 4253 section 6).

/// Message numbers (RFC 4253 section 12).
pub(super) mod number {
    pub(in super::super) const DISCONNECT: u8 = 1;
    pub(in super::super) const DEBUG: u8 = 4;
    pub(in super::super) const KEXINIT: u8 = 20;
    pub(in super::super) const NEWKEYS: u8 = 21;
    pub(in super::super) const KEX_FIRST: u8 = 30;
    pub(in super::super) const KEX_LAST: u8 = 49;
}

/// Bounds of packet_length: padding_length and the least padding; RFC 4253 section 6.1.
pub(super) const LENGTHS: std::ops::RangeInclusive<u32> = 5..=35_000;
/// Least padding.
const MIN_PADDING: u8 = 4;
/// packet_length, padding_length and the message number.
const HEAD: usize = 6;

/// Where a packet and its parts are in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// Message number.
    pub(super) number: u8,
    /// Offset of the message number.
    pub(super) payload: usize,
    /// Offset past the payload.
    pub(super) payload_end: usize,
    /// Offset past the padding.
    pub(super) end: usize,
}

// === impl Packet ===

impl Packet {
    /// The packet at `at`, whose end may not be there yet. None: its head is not. An error: it is no
    /// packet.
    pub(super) fn at(bytes: &[u8], at: usize) -> Result<Option<Self>, ()> {
        let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEAD>()) else {
            return Ok(None);
        };
        let [a, b, c, d, padding, number] = *head;
        let length = u32::from_be_bytes([a, b, c, d]);
        // padding_length and the message number must fit beside the padding.
        if !LENGTHS.contains(&length) || padding < MIN_PADDING || u32::from(padding) + 2 > length {
            return Err(());
        }
        let end = at + 4 + length as usize;
        Ok(Some(Self {
            number,
            payload: at + 5,
            payload_end: end - usize::from(padding),
            end,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let at = |length: u32, padding: u8| {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend([padding, number::KEXINIT]);
            Packet::at(&bytes, 0).map(|packet| packet.map(|packet| packet.end))
        };
        assert_eq!(at(12, 10), Ok(Some(16)));
        assert_eq!(at(12, 11), Err(()), "no room for a payload");
        assert_eq!(at(12, 3), Err(()));
        assert_eq!(at(4, 4), Err(()));
        assert_eq!(at(35_000, 4), Ok(Some(35_004)));
        assert_eq!(at(35_001, 4), Err(()));
        assert_eq!(at(u32::MAX, 255), Err(()));
        assert_eq!(Packet::at(&[0, 0, 0, 12, 10], 0), Ok(None));
        assert_eq!(Packet::at(&[], usize::MAX), Ok(None));
    }
}
