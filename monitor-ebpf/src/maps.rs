//! The maps, and [`Backend`] on them.

use crate::{packet::masked, places};
use aya_ebpf::{
    btf_maps::{Array, LruHashMap, PerCpuArray, RingBuf},
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::btf_map,
};
use monitor_common::{
    abi::{
        CAPTURE_BYTES, CHUNK_BYTES, ClockSample, Counters, EVENT_RING_BYTES, FRAGMENT_ENTRIES,
        FlowCell, FlowEnd, FlowKey4, FlowKey6, FragmentKey, FragmentPorts, Hook, HotCell,
        Interface, Lost, REASONS, Reason, SLOT_PROBES, SLOTS, SegmentHead, Uncounted, add_shared,
        event, slot_probe,
    },
    packet::Packet,
    program::{Backend, Segment, chunk},
};

/// Ports of fragmented datagrams; an evicted one shows as [`Reason::FragmentUnknown`].
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, { FRAGMENT_ENTRIES as usize }> =
    LruHashMap::new();

/// Watched interfaces.
#[btf_map]
static INTERFACES: Array<Interface, { SLOTS as usize }> = Array::new();

/// Totals of each interface slot, and of unknown interfaces.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, { SLOTS as usize + 1 }> = PerCpuArray::new();

/// Uncounted packets of each interface slot, and of unknown interfaces.
#[btf_map]
static UNCOUNTED: Array<Uncounted, { SLOTS as usize + 1 }> = Array::new();

/// Losses on the way to userspace.
#[btf_map]
static LOST: Array<Lost, 1> = Array::new();

/// The last clock sample.
#[btf_map]
static CLOCK: Array<ClockSample, 1> = Array::new();

/// Where a [`SegmentHead`] and the bytes after it are put together.
#[repr(C, align(8))]
struct Capture {
    head: [u8; CAPTURE_HEAD],
    bytes: [u8; CHUNK_BYTES as usize],
    /// What the verifier takes for possible, a bit mask being all that it understands.
    _room: [u8; CHUNK_BYTES as usize],
}

/// Room for either head; a shorter one ends where the bytes begin.
const CAPTURE_HEAD: usize = size_of::<SegmentHead<FlowKey6>>();

/// One per processor: a program of a hook is not interrupted by another one.
#[btf_map]
static CAPTURE: PerCpuArray<Capture, 1> = PerCpuArray::new();

/// Where the head of an event starts.
///
/// # Safety
/// `capture` must be this processor's element.
#[inline(always)]
unsafe fn head_in<K>(capture: *mut Capture) -> *mut SegmentHead<K> {
    // SAFETY: the caller's; heads are multiples of eight bytes, and none is longer.
    unsafe {
        (&raw mut (*capture).head)
            .cast::<u8>()
            .add(CAPTURE_HEAD - size_of::<SegmentHead<K>>())
            .cast()
    }
}

/// Sends the segment whose head is in the capture buffer, in as many events as it takes.
#[inline(always)]
pub(crate) fn send_capture<K>(packet: &impl Packet, offset: u32, length: u32, bytes: u32) {
    let Some(capture) = CAPTURE.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the helper takes no arguments.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let size = size_of::<SegmentHead<K>>();
    // SAFETY: this processor's own element, which only the running program uses.
    let (head, buffer, pushed) = unsafe {
        let head = head_in::<K>(capture);
        (head, &mut (*capture).bytes, (*head).pushed)
    };
    let mut index = 0;
    while index < CAPTURE_BYTES / CHUNK_BYTES {
        let Some(part) = chunk(index, length, bytes) else {
            return;
        };
        let is_there = packet.copy_to(offset + part.start, part.captured, buffer);
        let captured = if is_there { part.captured } else { 0 };
        // SAFETY: as above; then `size` bytes of head and at most CHUNK_BYTES after it, for which
        // the verifier takes one bit more.
        let event = unsafe {
            (*head).time_ns = time_ns;
            if index > 0 {
                (*head).sequence = (*head).sequence.wrapping_add(CHUNK_BYTES);
            }
            (*head).length = part.length as u16;
            (*head).captured = captured as u16;
            (*head).pushed = if part.is_last { pushed } else { 0 };
            let captured = masked::<{ 2 * CHUNK_BYTES as i32 - 1 }>(captured as usize);
            core::slice::from_raw_parts(head.cast::<u8>(), size + captured)
        };
        if EVENTS.output_untyped::<[u8]>(event, 0).is_err() {
            Maps::lost();
        }
        index += 1;
    }
}

/// Events for userspace.
#[btf_map]
static EVENTS: RingBuf<u8, { EVENT_RING_BYTES as usize }> = RingBuf::new();

pub(crate) fn set_clock(sample: ClockSample) {
    if let Some(slot) = CLOCK.get_ptr_mut(0) {
        // SAFETY: a live array element; userspace runs one sample at a time.
        unsafe { *slot = sample };
    }
}

/// The kernel's maps as the place where flows are kept.
pub(crate) struct Maps;

impl Maps {
    /// Counts an event that found the ring full.
    #[inline(always)]
    fn lost() {
        if let Some(lost) = LOST.get_ptr_mut(0) {
            // SAFETY: a field of a live array element.
            unsafe { add_shared(&raw mut (*lost).ring_full, 1) };
        }
    }

    /// Counts a connection that goes on in an earlier one's entry.
    #[inline(always)]
    fn merged() {
        if let Some(lost) = LOST.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe { add_shared(&raw mut (*lost).merged_connections, 1) };
        }
    }

    #[inline(always)]
    fn send_end<K: Copy + 'static>(kind: u32, key: &K, last: &FlowCell<'_>) -> bool {
        let Some(mut entry) = EVENTS.reserve_untyped::<FlowEnd<K>>(0) else {
            Self::lost();
            Self::merged();
            return false;
        };
        let event = entry.as_mut_ptr();
        // SAFETY: reserved memory of this type; written field by field, so that nothing of it is
        // built on the stack first.
        unsafe {
            (*event).kind = kind;
            (*event)._pad = 0;
            (*event).key = *key;
            last.move_to(&raw mut (*event).hot, &raw mut (*event).cold);
        }
        entry.submit(0);
        true
    }

    #[inline(always)]
    fn send_segment<K: Copy, P: Packet>(
        kind: u32,
        packet: &P,
        key: &K,
        flow: &FlowCell<'_>,
        segment: &Segment,
    ) {
        let Some(capture) = CAPTURE.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: within this processor's own element, which only the running program uses.
        unsafe {
            let head = head_in::<K>(capture);
            flow.write_head(segment.place(), head);
            (*head).kind = kind;
            (*head).key = *key;
        }
        let (length, bytes) = segment.lengths();
        packet.tell(kind == event::SEGMENT6, segment.offset(), length, bytes);
    }
}

impl Backend for Maps {
    const INSPECTS: bool = crate::INSPECTS;

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<(u32, &Interface)> {
        let mut probe = 0;
        while probe < SLOT_PROBES {
            let slot = slot_probe(ifindex, probe);
            let interface = INTERFACES.get(slot)?;
            if interface.ifindex == ifindex {
                return Some((slot, interface));
            }
            probe += 1;
        }
        None
    }

    #[inline(always)]
    fn account(&self, slot: u32, hook: Hook, packets: u32, result: Result<u64, Reason>) {
        let hook = hook as usize & 1;
        if let Some(counters) = COUNTERS.get_ptr_mut(slot) {
            // SAFETY: this processor's own element; a program is not preempted by another
            // instance of itself on the same hook and processor (migration is disabled).
            let counters = unsafe { &mut *counters };
            counters.buffers[hook] += 1;
            counters.seen[hook] += u64::from(packets);
            if let Ok(bytes) = result {
                counters.counted[hook] += u64::from(packets);
                counters.bytes[hook] += bytes;
            }
        }
        if let Err(reason) = result
            && let Some(uncounted) = UNCOUNTED.get_ptr_mut(slot)
        {
            // SAFETY: a live array element; the index is below REASONS.
            unsafe {
                let counter = (&raw mut (*uncounted).packets)
                    .cast::<u64>()
                    .add(hook * REASONS + (reason as usize & (REASONS - 1)));
                add_shared(counter, u64::from(packets));
            }
        }
    }

    #[inline(always)]
    fn flow4(&self, key: &FlowKey4) -> Option<FlowCell<'_>> {
        let (hot, cold) = places::find4(key)?;
        // SAFETY: live array elements. Userspace frees a place only a while after no key leads to
        // it, so that it is not reused while this program runs.
        Some(unsafe { FlowCell::from_parts(hot, cold) })
    }

    #[inline(always)]
    fn flow6(&self, key: &FlowKey6) -> Option<FlowCell<'_>> {
        let (hot, cold) = places::find6(key)?;
        // SAFETY: as in `flow4`.
        Some(unsafe { FlowCell::from_parts(hot, cold) })
    }

    #[inline(always)]
    fn near4(&self, key: &FlowKey4) -> Option<HotCell<'_>> {
        let hot = places::near4(key)?;
        // SAFETY: as in `flow4`.
        Some(unsafe { HotCell::from_part(hot) })
    }

    #[inline(always)]
    fn near6(&self, key: &FlowKey6) -> Option<HotCell<'_>> {
        let hot = places::near6(key)?;
        // SAFETY: as in `flow4`.
        Some(unsafe { HotCell::from_part(hot) })
    }

    #[inline(always)]
    fn insert4(&self, key: &FlowKey4) -> Result<bool, Reason> {
        places::take4(key)
    }

    #[inline(always)]
    fn insert6(&self, key: &FlowKey6) -> Result<bool, Reason> {
        places::take6(key)
    }

    #[inline(always)]
    fn ended4(&self, key: &FlowKey4, last: &FlowCell<'_>) -> bool {
        Self::send_end(event::FLOW_END4, key, last)
    }

    #[inline(always)]
    fn ended6(&self, key: &FlowKey6, last: &FlowCell<'_>) -> bool {
        Self::send_end(event::FLOW_END6, key, last)
    }

    #[inline(always)]
    fn segment4<P: Packet>(
        &self,
        packet: &P,
        key: &FlowKey4,
        flow: &FlowCell<'_>,
        segment: &Segment,
    ) {
        Self::send_segment(event::SEGMENT4, packet, key, flow, segment);
    }

    #[inline(always)]
    fn segment6<P: Packet>(
        &self,
        packet: &P,
        key: &FlowKey6,
        flow: &FlowCell<'_>,
        segment: &Segment,
    ) {
        Self::send_segment(event::SEGMENT6, packet, key, flow, segment);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        // SAFETY: copied at once; a slot that is reused meanwhile gives another datagram's ports,
        // as a reused identification on the wire would.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        // A failure shows when the later fragments arrive, as `FragmentUnknown`.
        let _ = FRAGMENTS.insert(key, ports, 0);
    }

    #[inline(always)]
    fn ticks(&self) -> u32 {
        // SAFETY: the helper takes no arguments.
        unsafe { bpf_jiffies64() as u32 }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes no arguments.
        unsafe { bpf_ktime_get_ns() }
    }
}
