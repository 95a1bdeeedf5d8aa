//! Access to a flow entry that several processors may update at once.

use core::cell::UnsafeCell;

use super::{Carried, Cold, FlowValue, Hot, SegmentHead, traffic};

/// The two parts of a [`FlowValue`] in place: map elements in the kernel, a [`FlowEntry`] elsewhere.
///
/// Counters are added atomically on BPF. The other fields are plain loads and stores: each
/// direction of a flow has its own, and one direction is handled by one processor at a time but
/// for rare steering changes, when an update of a flag may be lost until the next packet.
#[derive(Clone, Copy)]
pub struct FlowCell<'a> {
    hot: HotCell<'a>,
    cold: &'a UnsafeCell<Cold>,
}

/// The part of a [`FlowCell`] that most packets touch.
#[derive(Clone, Copy)]
pub struct HotCell<'a>(&'a UnsafeCell<Hot>);

/// A flow's entry outside the kernel.
#[derive(Default)]
pub struct FlowEntry {
    hot: UnsafeCell<Hot>,
    cold: UnsafeCell<Cold>,
}

impl FlowEntry {
    /// An entry that holds `value`.
    pub const fn new(value: &FlowValue) -> Self {
        Self {
            hot: UnsafeCell::new(value.hot()),
            cold: UnsafeCell::new(value.cold()),
        }
    }

    /// Access to it.
    pub const fn cell(&self) -> FlowCell<'_> {
        FlowCell {
            hot: HotCell(&self.hot),
            cold: &self.cold,
        }
    }
}

/// A number that processors add to at the same time.
pub trait Shared: Copy {
    /// Adds without looking at others, wrapping.
    ///
    /// # Safety
    /// As [`add_shared`].
    unsafe fn add(counter: *mut Self, amount: Self);
}

macro_rules! shared {
    ($number:ty) => {
        impl Shared for $number {
            #[inline(always)]
            unsafe fn add(counter: *mut Self, amount: Self) {
                #[cfg(target_arch = "bpf")]
                // SAFETY: the caller's; after the JIT this is one `lock xadd`.
                unsafe {
                    core::intrinsics::atomic_xadd::<
                        Self,
                        Self,
                        { core::intrinsics::AtomicOrdering::Relaxed },
                    >(counter, amount);
                }
                #[cfg(not(target_arch = "bpf"))]
                // SAFETY: the caller's.
                unsafe {
                    *counter = (*counter).wrapping_add(amount);
                }
            }
        }
    };
}
shared!(u32);
shared!(u64);

/// Adds to a counter that other processors may add to at the same time.
///
/// # Safety
/// `counter` must point to a live map entry's counter (in the replay: one that nobody else
/// accesses), all of whose writers use this function.
#[inline(always)]
pub unsafe fn add_shared<N: Shared>(counter: *mut N, amount: N) {
    // SAFETY: the caller's.
    unsafe { N::add(counter, amount) }
}

impl HotCell<'_> {
    /// Views a part of a map element as a cell.
    ///
    /// # Safety
    /// As [`FlowCell::from_parts`].
    #[inline(always)]
    pub const unsafe fn from_part(hot: *mut Hot) -> Self {
        // SAFETY: UnsafeCell has the layout of what is in it; validity is the caller's.
        unsafe { Self(&*hot.cast::<UnsafeCell<Hot>>()) }
    }

    /// Adds packets and bytes to a direction ([`super::TX`] or [`super::RX`]).
    #[inline(always)]
    pub fn add(&self, direction: usize, packets: u64, bytes: u64) {
        let entry = self.0.get();
        // SAFETY: `direction & 1` is within the two-element arrays of a valid entry. `FlowCell` is not
        // `Sync`, so that the replay's is not accessed by others.
        unsafe {
            let word = (&raw mut (*entry).words).cast::<u64>().add(direction & 1);
            let carried = (&raw mut (*entry).carried)
                .cast::<Carried>()
                .add(direction & 1);
            traffic::add(word, carried, packets, bytes);
        }
    }

    /// Reads a field that most packets touch.
    #[inline(always)]
    pub fn get<T: Copy>(&self, field: impl FnOnce(&Hot) -> T) -> T {
        // SAFETY: the value is plain data; a torn read of one field is excluded by its alignment.
        field(unsafe { &*self.0.get() })
    }

    /// Updates fields that most packets touch and that are not counters.
    #[inline(always)]
    pub fn update(&self, change: impl FnOnce(&mut Hot)) {
        // SAFETY: the value is plain data; see the type's documentation for concurrent updates.
        change(unsafe { &mut *self.0.get() });
    }
}

impl<'a> FlowCell<'a> {
    /// The part that most packets touch.
    #[inline(always)]
    pub const fn hot(&self) -> HotCell<'a> {
        self.hot
    }
}

impl FlowCell<'_> {
    /// Views map elements as a cell.
    ///
    /// # Safety
    /// `hot` and `cold` must point to parts of live map elements that stay valid for `'a` and that are
    /// only accessed through cells or by the kernel meanwhile.
    #[inline(always)]
    pub const unsafe fn from_parts(hot: *mut Hot, cold: *mut Cold) -> Self {
        // SAFETY: UnsafeCell has the layout of what is in it; validity is the caller's.
        unsafe {
            Self {
                hot: HotCell::from_part(hot),
                cold: &*cold.cast::<UnsafeCell<Cold>>(),
            }
        }
    }

    /// A copy of the whole value.
    #[inline(always)]
    pub fn snapshot(&self) -> FlowValue {
        // SAFETY: the pointers of an UnsafeCell are valid and aligned; the value is plain data.
        unsafe { FlowValue::of(&*self.hot.0.get(), &*self.cold.get()) }
    }

    /// Copies the whole value, without taking stack for it, and takes packets and bytes out of this cell:
    /// what other processors count meanwhile stays in it.
    ///
    /// # Safety
    /// `hot` and `cold` must be valid for writing and not overlap this cell.
    #[inline(always)]
    pub unsafe fn move_to(&self, hot: *mut Hot, cold: *mut Cold) {
        let own = self.hot.0.get();
        // SAFETY: this cell is valid and aligned; the others are the caller's.
        unsafe {
            // First, so that what is carried meanwhile is told too low rather than twice.
            let carried = (&raw const (*own).carried).read_volatile();
            core::ptr::copy_nonoverlapping(own, hot, 1);
            (*hot).carried = carried;
            core::ptr::copy_nonoverlapping(self.cold.get(), cold, 1);
            self.take(&*hot);
        }
    }

    /// The whole value; packets and bytes are taken out of this cell.
    #[cfg(not(target_arch = "bpf"))]
    pub fn end(&self) -> FlowValue {
        let hot = self.get(|hot| *hot);
        self.take(&hot);
        FlowValue::of(&hot, &self.get_cold(|cold| *cold))
    }

    /// Takes packets and bytes out of this cell.
    #[inline(always)]
    fn take(&self, told: &Hot) {
        let own = self.hot.0.get();
        for direction in 0..2 {
            // SAFETY: one of two directions of a valid entry; as in `add`.
            unsafe {
                let word = (&raw mut (*own).words).cast::<u64>().add(direction);
                let carried = (&raw mut (*own).carried).cast::<Carried>().add(direction);
                let (told_word, told) = (told.words[direction], told.carried[direction]);
                add_shared(word, told_word.wrapping_neg());
                add_shared(&raw mut (*carried).packets, told.packets.wrapping_neg());
                add_shared(&raw mut (*carried).bytes, told.bytes.wrapping_neg());
            }
        }
    }

    /// Writes what the event of a segment tells of this flow and of its place; kind, key, time and
    /// lengths are left.
    ///
    /// # Safety
    /// `head` must be valid for writing.
    #[inline(always)]
    pub unsafe fn write_head<K>(
        &self,
        (direction, sequence, is_pushed): (usize, u32, bool),
        head: *mut SegmentHead<K>,
    ) {
        let flags = self.get(|hot| hot.flags);
        self.get_cold(|value| {
            // SAFETY: the caller's; written field by field, so that nothing is built on the stack.
            unsafe {
                (*head).sequence = sequence;
                (*head).flags = flags;
                (*head).generation = value.generation;
                (*head).direction = direction as u8;
                (*head).app = value.app;
                (*head).prefix_length = value.prefix_length[direction & 1];
                (*head).pushed = u8::from(is_pushed);
                (*head).prefix_end = value.inspect_sequence[direction & 1];
                (*head).prefix = value.prefix[direction & 1];
            }
        });
    }

    /// The head of a segment's event, without bytes.
    #[cfg(not(target_arch = "bpf"))]
    pub fn head<K: Copy>(
        &self,
        place: (usize, u32, bool),
        (kind, key, time_ns): (u32, &K, u64),
    ) -> SegmentHead<K> {
        let mut head = core::mem::MaybeUninit::<SegmentHead<K>>::uninit();
        let to = head.as_mut_ptr();
        // SAFETY: memory of this type; all fields are written before it is read.
        unsafe {
            self.write_head(place, to);
            (*to).kind = kind;
            (*to).key = *key;
            (*to).time_ns = time_ns;
            (*to).length = 0;
            (*to).captured = 0;
            head.assume_init()
        }
    }

    /// Sets all but packets and bytes to zeros.
    #[inline(always)]
    pub fn clear(&self) {
        self.update(|hot| {
            hot.flags = [0; 2];
            hot.last_seen_ticks = 0;
            hot.next_sequence = [0; 2];
        });
        // Volatile, lest the compiler makes a call of `memset` of it, a loop over bytes on BPF.
        let cold = self.cold.get().cast::<u64>();
        for index in 0..size_of::<Cold>() / size_of::<u64>() {
            // SAFETY: within the part, which is plain data of this size and alignment.
            unsafe { cold.add(index).write_volatile(0) };
        }
    }

    /// Adds packets and bytes to a direction ([`super::TX`] or [`super::RX`]).
    #[inline(always)]
    pub fn add(&self, direction: usize, packets: u64, bytes: u64) {
        self.hot.add(direction, packets, bytes);
    }

    /// Reads a field that most packets touch.
    #[inline(always)]
    pub fn get<T: Copy>(&self, field: impl FnOnce(&Hot) -> T) -> T {
        self.hot.get(field)
    }

    /// Updates fields that most packets touch and that are not counters.
    #[inline(always)]
    pub fn update(&self, change: impl FnOnce(&mut Hot)) {
        self.hot.update(change);
    }

    /// Reads one of the other fields.
    #[inline(always)]
    pub fn get_cold<T: Copy>(&self, field: impl FnOnce(&Cold) -> T) -> T {
        // SAFETY: as in `get`.
        field(unsafe { &*self.cold.get() })
    }

    /// Updates the other fields.
    #[inline(always)]
    pub fn update_cold(&self, change: impl FnOnce(&mut Cold)) {
        // SAFETY: as in `update`.
        change(unsafe { &mut *self.cold.get() });
    }
}
