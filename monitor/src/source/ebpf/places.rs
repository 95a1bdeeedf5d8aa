//! The places where flows are kept, in memory shared with the kernel: read and freed without a
//! system call. The kernel program takes a free place and never gives one back, see [`Place`].

use std::{
    io,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::maps::MapData as Map;
use monitor_common::abi::{
    Aside, Carried, Cold, FlowValue, Hot, LEAVING, NEAR, Place, PlaceKey, Traffic, flag,
};

use super::{data::MapData, elements::Elements};

/// In each pass, one of so many places is looked at whether it got stuck.
const STRIDE: usize = 16;

/// So many free places after the last one that was ever taken end a pass. Spare places are taken in
/// their order, but for those that processors hold at an instant, one each.
const MARGIN: u32 = 1_024;

/// How often packets and bytes are read again that are being carried.
const PATIENCE: u32 = 16;

/// The places of one family.
pub(super) struct Places<K> {
    elements: Elements<Place<K>>,
    asides: Elements<Aside>,
    /// The first ones, found by a hash of the key: a power of two, or 0.
    near: u32,
    count: u32,
    /// Beyond every place that was seen taken. What is never looked at takes no memory here.
    reached: u32,
    passes: usize,
    /// Places that were claimed but not taken at the pass before.
    stuck: Vec<u32>,
}

// === impl Places ===

impl<K: PlaceKey + MapData> Places<K> {
    /// Takes over the arrays of so many near and spare places, at least one.
    pub(super) fn new(places: Map, asides: Map, near: u32, spare: u32) -> io::Result<Self> {
        let count = near + spare;
        let mut new = Self {
            elements: Elements::new(places, count)?,
            asides: Elements::new(asides, count)?,
            near,
            count,
            reached: near,
            passes: 0,
            stuck: Vec::new(),
        };
        new.reach(near)?;
        Ok(new)
    }

    /// Has the first `count` places in memory.
    pub(super) fn reach(&mut self, count: u32) -> io::Result<()> {
        self.elements.reach(count)?;
        self.asides.reach(count)
    }

    /// Tells the flows that had a packet since a moment (in ticks, wrapping) or all, and frees places
    /// that got stuck.
    pub(super) fn read(
        &mut self,
        since: Option<u32>,
        mut tell: impl FnMut(K, FlowValue),
    ) -> io::Result<()> {
        self.passes += 1;
        let before = std::mem::take(&mut self.stuck);
        for index in 0..self.near {
            match self.last_word(index).load(Ordering::Acquire) {
                0 if index as usize % STRIDE == self.passes % STRIDE => self.look(index),
                0 | LEAVING => {}
                _ if self.is_idle(index, since) => {}
                _ => {
                    let (key, value) = self.copy(index);
                    tell(key, value);
                }
            }
        }
        let mut index = self.near;
        loop {
            let end = self.count.min(self.reached.saturating_add(MARGIN));
            if index >= end {
                break;
            }
            self.reach(end)?;
            match self.last_word(index).load(Ordering::Acquire) {
                0 => {}
                word => {
                    self.reached = self.reached.max(index + 1);
                    if word != LEAVING && !self.is_idle(index, since) {
                        let (key, value) = self.copy(index);
                        tell(key, value);
                    }
                }
            }
            index += 1;
        }
        for index in before {
            // Nobody takes a second to take a place: those who tried disturbed each other.
            if self.last_word(index).load(Ordering::Acquire) == 0 {
                self.claims(index).store(0, Ordering::Release);
            }
        }
        Ok(())
    }

    /// The near place of a flow.
    pub(super) fn find(&self, key: &K) -> Option<u32> {
        if self.near == 0 {
            return None;
        }
        let first = key.near(self.near);
        (0..NEAR)
            .map(|way| first ^ way)
            .find(|index| self.holds(*index, key))
    }

    /// Marks a place, so that the kernel program no longer finds it by its key.
    pub(super) fn leave(&self, index: u32) {
        self.last_word(index).store(LEAVING, Ordering::Release);
    }

    /// Frees a place that was marked a while ago: the last value of its flow.
    pub(super) fn free(&self, index: u32) -> FlowValue {
        let (_, value) = self.copy(index);
        let (place, aside) = (self.elements.at(index), self.asides.at(index));
        // SAFETY: within the mappings. The kernel program does not touch a place that is neither
        // found nor free.
        unsafe {
            (&raw mut (*place).hot).write_volatile(Hot::default());
            (&raw mut (*aside).cold).write_volatile(Cold::default());
        }
        self.claims(index).store(0, Ordering::Release);
        // The last word last: then it is free.
        for word in 0..K::WORDS {
            self.word(index, word).store(0, Ordering::Release);
        }
        value
    }

    fn look(&mut self, index: u32) {
        if self.claims(index).load(Ordering::Acquire) != 0 {
            self.stuck.push(index);
        }
    }

    fn holds(&self, index: u32, key: &K) -> bool {
        (0..K::WORDS)
            .rev()
            .all(|word| self.word(index, word).load(Ordering::Acquire) == key.word(word))
    }

    /// Whether a flow's last packet was before a moment, and no error of ICMP is about it: such a one may
    /// come later, and leaves the time alone. The kernel program counts first and notes the time then:
    /// what is skipped in between is told by the next pass.
    fn is_idle(&self, index: u32, since: Option<u32>) -> bool {
        let Some(since) = since else {
            return false;
        };
        let place = self.elements.at(index);
        // SAFETY: within the mapping; volatile, as the kernel writes them meanwhile.
        let (last, [tx, rx]) = unsafe {
            (
                (&raw const (*place).hot.last_seen_ticks).read_volatile(),
                (&raw const (*place).hot.flags).read_volatile(),
            )
        };
        (tx | rx) & flag::UNREACHABLE == 0 && last.wrapping_sub(since).cast_signed() < 0
    }

    fn copy(&self, index: u32) -> (K, FlowValue) {
        let (place, aside) = (self.elements.at(index), self.asides.at(index));
        // SAFETY: within the mappings; volatile, as the kernel writes them meanwhile, and any bytes
        // are valid.
        let (key, mut hot, cold) = unsafe {
            (
                (&raw const (*place).key).read_volatile(),
                (&raw const (*place).hot).read_volatile(),
                (&raw const (*aside).cold).read_volatile(),
            )
        };
        for (direction, carried) in hot.carried.iter_mut().enumerate() {
            // SAFETY: fields within the mapping, of one of two directions.
            let traffic = unsafe {
                let hot = (&raw const (*place).hot).cast_mut();
                read_traffic(
                    (&raw mut (*hot).words).cast::<u64>().add(direction),
                    (&raw mut (*hot).carried).cast::<Carried>().add(direction),
                )
            };
            hot.words[direction] = traffic.word;
            *carried = traffic.carried;
        }
        (key, FlowValue::of(&hot, &cold))
    }

    fn word(&self, index: u32, word: usize) -> &AtomicU64 {
        let key = self.elements.at(index).cast::<u64>();
        // SAFETY: the key is first, of K::WORDS aligned words, and lives as long as the mapping.
        unsafe { AtomicU64::from_ptr(key.add(word % K::WORDS)) }
    }

    fn last_word(&self, index: u32) -> &AtomicU64 {
        self.word(index, K::WORDS - 1)
    }

    fn claims(&self, index: u32) -> &AtomicU64 {
        let aside = self.asides.at(index);
        // SAFETY: an aligned field within the mapping, which lives as long as `self`.
        unsafe { AtomicU64::from_ptr(&raw mut (*aside).claims) }
    }
}

/// Packets and bytes of a direction, read until nothing was carried out of the word meanwhile.
///
/// # Safety
/// Both must point to those of a flow in a mapping.
unsafe fn read_traffic(word: *mut u64, carried: *mut Carried) -> Traffic {
    // SAFETY: the caller's; the kernel adds to these numbers as to atomic ones.
    let (word, packets, bytes) = unsafe {
        (
            AtomicU64::from_ptr(word),
            AtomicU32::from_ptr(&raw mut (*carried).packets),
            AtomicU32::from_ptr(&raw mut (*carried).bytes),
        )
    };
    let read = || Carried {
        packets: packets.load(Ordering::Acquire),
        bytes: bytes.load(Ordering::Acquire),
    };
    let mut before = read();
    let mut tries = PATIENCE;
    loop {
        let traffic = Traffic {
            word: word.load(Ordering::Acquire),
            carried: read(),
        };
        // At most once in 65,536 packets; a word may rest full until the next packet.
        if traffic.carried == before && !traffic.is_full() {
            return traffic;
        }
        if tries == 0 {
            // With what was carried before the word was read: rather too low than twice.
            return Traffic {
                carried: before,
                ..traffic
            };
        }
        before = traffic.carried;
        tries -= 1;
    }
}
