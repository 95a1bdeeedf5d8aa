//! Packets and bytes of a direction in one word, so that a packet takes one atomic addition.

use super::add_shared;

/// Bits of a word that hold bytes; packets are above them.
const BYTE_BITS: u32 = 37;
/// Packets that are carried out of a word together, as a power of two.
const PACKET_UNIT: u32 = 16;
/// Bytes that are carried out of a word together, as a power of two.
const BYTE_UNIT: u32 = 26;
/// Where any of these bits is set, there may be something to carry.
const FULL: u64 =
    u64::MAX << (BYTE_BITS + PACKET_UNIT) | (u64::MAX << BYTE_UNIT & ((1 << BYTE_BITS) - 1));

/// What was carried out of a direction's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Carried {
    /// Packets, in units of 2^16.
    pub packets: u32,
    /// Bytes, in units of 2^26.
    pub bytes: u32,
}

/// Packets and bytes of a direction: `word` is what was added (`packets * 2^37 + bytes`) less what was carried.
///
/// Both parts of the word are signed numbers: processors that find it full at the same instant
/// each carry what they see, which may leave less than nothing in it. The totals are exact all the
/// same, as long as fewer than 500 processors do so at once.
///
/// Carrying takes from the word first and gives then: who reads in between is told too little, and the next
/// reading is right. Where a processor may show its stores in another order (arm64) too much is told only
/// while the word is full, see [`Traffic::is_full`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// What has not been carried.
    pub word: u64,
    /// What has been.
    pub carried: Carried,
}

impl Traffic {
    /// So many packets and bytes: below 2^47 and 2^57.
    pub const fn new(packets: u64, bytes: u64) -> Self {
        Self {
            word: joined(
                packets & ((1 << PACKET_UNIT) - 1),
                bytes & ((1 << BYTE_UNIT) - 1),
            ),
            carried: Carried {
                packets: (packets >> PACKET_UNIT) as u32,
                bytes: (bytes >> BYTE_UNIT) as u32,
            },
        }
    }

    /// Packets in total.
    pub const fn packets(&self) -> u64 {
        let (packets, _) = divided(self.word);
        total(self.carried.packets, PACKET_UNIT, packets)
    }

    /// Bytes in total.
    pub const fn bytes(&self) -> u64 {
        let (_, bytes) = divided(self.word);
        total(self.carried.bytes, BYTE_UNIT, bytes)
    }

    /// Whether something is to be carried, or is being carried at this moment.
    pub const fn is_full(&self) -> bool {
        self.word & FULL != 0
    }
}

/// Counts packets and bytes (below 2^16 and 2^30) in a direction's word.
///
/// # Safety
/// The pointers must be to a live map entry's counts (in the replay: to some that nobody else
/// accesses), all of whose writers use this function.
#[inline(always)]
pub(super) unsafe fn add(word: *mut u64, carried: *mut Carried, packets: u64, bytes: u64) {
    // SAFETY: the caller's.
    unsafe {
        if *word & FULL != 0 {
            carry(word, carried);
        }
        add_shared(word, joined(packets, bytes));
    }
}

/// Takes full units out of the word: once in 65,536 packets, or 64 MiB.
///
/// # Safety
/// As [`add`].
#[inline(never)]
unsafe fn carry(word: *mut u64, carried: *mut Carried) {
    // SAFETY: the caller's; volatile, since others write it.
    unsafe {
        let (packets, bytes) = divided(word.read_volatile());
        if packets >> PACKET_UNIT > 0 {
            let units = (packets >> PACKET_UNIT).cast_unsigned();
            let taken = joined(units << PACKET_UNIT, 0);
            add_shared(word, 0_u64.wrapping_sub(taken));
            add_shared(&raw mut (*carried).packets, units as u32);
        }
        if bytes >> BYTE_UNIT > 0 {
            let units = (bytes >> BYTE_UNIT).cast_unsigned();
            let taken = units << BYTE_UNIT;
            add_shared(word, 0_u64.wrapping_sub(taken));
            add_shared(&raw mut (*carried).bytes, units as u32);
        }
    }
}

/// Both parts are signed: in the moment in which an entry is taken over either may be below zero.
const fn total(carried: u32, unit: u32, rest: i64) -> u64 {
    let total = ((carried.cast_signed() as i64) << unit) + rest;
    if total < 0 { 0 } else { total.cast_unsigned() }
}

#[inline(always)]
const fn joined(packets: u64, bytes: u64) -> u64 {
    (packets << BYTE_BITS).wrapping_add(bytes)
}

/// Packets and bytes of a word.
#[inline(always)]
const fn divided(word: u64) -> (i64, i64) {
    let bytes = (word << (64 - BYTE_BITS)).cast_signed() >> (64 - BYTE_BITS);
    let packets = word.wrapping_sub(bytes.cast_unsigned()).cast_signed() >> BYTE_BITS;
    (packets, bytes)
}

#[cfg(test)]
mod tests;
