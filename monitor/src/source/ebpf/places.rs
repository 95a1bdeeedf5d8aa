//! The places where flows are kept, in memory shared with the kernel: read and freed without a
//! system call. The kernel program takes a free place and never gives one back, see [`Place`].

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use monitor_common::abi::{Aside, Cold, FlowValue, Hot, LEAVING, NEAR, Place, PlaceKey};

use super::data::MapData;

/// In each pass, one of so many places is looked at whether it got stuck.
const STRIDE: usize = 16;

/// So many free places after the last one that was ever taken end a pass. Spare places are taken in
/// their order, but for those that processors hold at an instant, one each.
const MARGIN: u32 = 1_024;

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

/// An array of the kernel's in this process's memory.
struct Elements<T> {
    memory: NonNull<T>,
    count: u32,
}

// SAFETY: the memory is shared with the kernel anyway; all access is atomic or volatile.
unsafe impl<T: Send> Send for Elements<T> {}

// === impl Elements ===

impl<T> Elements<T> {
    /// Maps the array `map` of `count` elements, at least one.
    fn new(map: BorrowedFd<'_>, count: u32) -> io::Result<Self> {
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<T>() * count as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            memory: NonNull::new(memory.cast()).expect("a mapping is not at address zero"),
            count,
        })
    }

    fn at(&self, index: u32) -> *mut T {
        assert!(index < self.count, "an element of this array");
        // SAFETY: within the mapping, by the check above.
        unsafe { self.memory.as_ptr().add(index as usize) }
    }
}

impl<T> Drop for Elements<T> {
    fn drop(&mut self) {
        let length = size_of::<T>() * self.count as usize;
        // SAFETY: the mapping made in `new`; nothing borrows from it any longer.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), length) };
    }
}

// === impl Places ===

impl<K: PlaceKey + MapData> Places<K> {
    /// Maps the arrays of so many near and spare places, at least one.
    pub(super) fn new(
        places: BorrowedFd<'_>,
        asides: BorrowedFd<'_>,
        near: u32,
        spare: u32,
    ) -> io::Result<Self> {
        let count = near + spare;
        Ok(Self {
            elements: Elements::new(places, count)?,
            asides: Elements::new(asides, count)?,
            near,
            count,
            reached: near,
            passes: 0,
            stuck: Vec::new(),
        })
    }

    /// Appends the flows, and frees places that got stuck.
    pub(super) fn read(&mut self, flows: &mut Vec<(K, FlowValue)>) {
        self.passes += 1;
        let before = std::mem::take(&mut self.stuck);
        for index in 0..self.near {
            match self.last_word(index).load(Ordering::Acquire) {
                0 if index as usize % STRIDE == self.passes % STRIDE => self.look(index),
                0 | LEAVING => {}
                _ => flows.push(self.copy(index)),
            }
        }
        let mut index = self.near;
        while index < self.count.min(self.reached.saturating_add(MARGIN)) {
            match self.last_word(index).load(Ordering::Acquire) {
                0 => {}
                word => {
                    self.reached = self.reached.max(index + 1);
                    if word != LEAVING {
                        flows.push(self.copy(index));
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

    fn copy(&self, index: u32) -> (K, FlowValue) {
        let (place, aside) = (self.elements.at(index), self.asides.at(index));
        // SAFETY: within the mappings; volatile, as the kernel writes them meanwhile, and any bytes
        // are valid.
        let (key, hot, cold) = unsafe {
            (
                (&raw const (*place).key).read_volatile(),
                (&raw const (*place).hot).read_volatile(),
                (&raw const (*aside).cold).read_volatile(),
            )
        };
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
