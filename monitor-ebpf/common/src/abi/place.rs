//! Where flows are kept: an array of places. A flow takes one of the few near places that a short
//! hash of its key tells, or a spare one that a hash map leads to.

use super::{Cold, FlowKey4, FlowKey6, Hot};

/// Near places of a flow: neighbours, at an even number and the next.
pub const NEAR: u32 = 2;

/// Smallest capacity of which a part is near places; below, a full table is full to the place.
const SMALLEST_SPLIT: u32 = 4_096;

/// Divides the capacity for flows of a family into near places (a power of two, or none; the first
/// ones) and spare ones.
///
/// A quarter is near: by chance, three of four flows have a near place when a quarter of the capacity is
/// used, nine of ten when an eighth is.
pub const fn split(capacity: u32) -> (u32, u32) {
    if capacity < SMALLEST_SPLIT {
        return (0, capacity);
    }
    let near = 1 << (capacity / 4).ilog2();
    (near, capacity - near)
}

/// A place for a flow: its key, and what most packets touch of it. For IPv4 that is one cache line, for IPv6
/// two; in every second place a packet without TCP payload needs the first only.
///
/// The key's last word (ports and scope) is written last and tells whether the place is taken: 0
/// is free, [`LEAVING`] is about to be freed. The rest is in an [`Aside`] of the same number.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub struct Place<K> {
    /// Key of the flow.
    pub key: K,
    /// What most packets touch.
    pub hot: Hot,
}

/// What few packets touch of a place. Apart, so that the places of the flows that are in use take
/// few pages: address translation costs as much as the memory itself where many flows take turns.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Aside {
    /// What few packets touch.
    pub cold: Cold,
    /// How many processors tried to take the place since it was free: the first one does.
    pub claims: u64,
}

/// Odd numbers of which the words of a key are multiples: a sum of products, which a processor
/// works out side by side. Pushing each word through the hash of those before takes 5 ns longer for IPv6.
const FACTORS: [u64; 8] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x8ebc_6af0_9c88_c6e3,
    0x5899_65cc_7537_4cc3,
];

/// Last word of the key of a place that userspace is about to free: an interface identity of 0,
/// which no flow has.
pub const LEAVING: u64 = 0xff << 32;

/// A flow key as words; the last holds ports and scope, and is never 0.
pub trait PlaceKey: Copy {
    /// Number of words.
    const WORDS: usize;

    /// Word `index`.
    fn word(&self, index: usize) -> u64;

    /// One of the flow's [`NEAR`] places among `near` (a power of two); the other one is its
    /// neighbour, whose number differs in the last bit.
    #[inline(always)]
    fn near(&self, near: u32) -> u32 {
        let mut hash = 0_u64;
        let mut index = 0;
        while index < Self::WORDS {
            hash = hash.wrapping_add(self.word(index).wrapping_mul(FACTORS[index & 7]));
            index += 1;
        }
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(FACTORS[5]) >> 32;
        hash as u32 & near.wrapping_sub(1)
    }
}

#[inline(always)]
const fn last_word(local_port: u16, remote_port: u16, scope: u32) -> u64 {
    local_port as u64 | (remote_port as u64) << 16 | (scope as u64) << 32
}

impl PlaceKey for FlowKey4 {
    const WORDS: usize = 2;

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        match index {
            0 => u64::from(self.local) | u64::from(self.remote) << 32,
            _ => last_word(self.local_port, self.remote_port, self.scope),
        }
    }
}

impl PlaceKey for FlowKey6 {
    const WORDS: usize = 5;

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        match index {
            0 | 1 => self.local[index & 1],
            2 | 3 => self.remote[index & 1],
            _ => last_word(self.local_port, self.remote_port, self.scope),
        }
    }
}

/// The words themselves.
impl<const N: usize> PlaceKey for [u64; N] {
    const WORDS: usize = N;

    #[inline(always)]
    fn word(&self, index: usize) -> u64 {
        if index < N { self[index] } else { 0 }
    }
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Place<FlowKey4>>() == 64);
    assert!(size_of::<Place<FlowKey6>>() == 96);
    assert!(size_of::<Aside>() == 88);
    assert!(offset_of!(Place<FlowKey4>, hot) == 16);
    assert!(offset_of!(Place<FlowKey6>, hot) == 40);
    assert!(offset_of!(Place<FlowKey6>, hot) + offset_of!(Hot, next_sequence) == 64);
    assert!(offset_of!(Aside, claims) == 80);
};
