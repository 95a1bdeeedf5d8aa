//! Values that the kernel program wrote, from their bytes.

use monitor_common::abi::{FlowEnd, FlowKey4, FlowKey6, SegmentHead};

/// Types that may be filled by the kernel: integers and byte arrays without padding.
///
/// # Safety
/// Any bytes must be a valid value, and there must be no padding.
pub(super) unsafe trait MapData: Copy {}
// SAFETY: repr(C), integers only, sizes asserted next to the types.
unsafe impl MapData for FlowKey4 {}
// SAFETY: as above.
unsafe impl MapData for FlowKey6 {}
// SAFETY: as above, and no padding since its parts have none and are 8 or 4 byte aligned.
unsafe impl MapData for FlowEnd<FlowKey4> {}
// SAFETY: as above.
unsafe impl MapData for FlowEnd<FlowKey6> {}
// SAFETY: integers and byte arrays with explicit padding, and a key as above.
unsafe impl MapData for SegmentHead<FlowKey4> {}
// SAFETY: as above.
unsafe impl MapData for SegmentHead<FlowKey6> {}

/// A value from the bytes of a ring item; `None` if there are too few.
pub(super) fn from_bytes<T: MapData>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: there are enough bytes, and any bytes are a valid `MapData`.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
