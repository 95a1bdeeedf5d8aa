//! Map operations that aya 0.14 lacks: batched lookup, and lookup with deletion in one step.
//!
//! Reading by `BPF_MAP_LOOKUP_BATCH` costs a fraction of a microsecond per entry where a lookup
//! call per key costs several, and cannot loop or repeat when a key vanishes meanwhile.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
};

use monitor_common::abi::{FlowEnd, FlowKey4, FlowKey6, FlowValue, SegmentHead};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// The kernel's own code for "operation not supported" (`include/linux/errno.h`).
const ENOTSUPP: i32 = 524;
/// Entries per system call.
const CHUNK: usize = 4096;

/// Types that may be filled by the kernel: integers and byte arrays without padding.
///
/// # Safety
/// Any bytes must be a valid value, and there must be no padding.
pub(super) unsafe trait MapData: Copy {}
// SAFETY: repr(C), integers only, sizes asserted next to the types.
unsafe impl MapData for FlowKey4 {}
// SAFETY: as above.
unsafe impl MapData for FlowKey6 {}
// SAFETY: as above.
unsafe impl MapData for FlowValue {}
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

/// `union bpf_attr` for `BPF_MAP_*_ELEM`.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for `BPF_MAP_*_BATCH`.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<()> {
    // SAFETY: `attr` is a live attribute structure of the size given; the pointers in it are to
    // live buffers of the sizes that the map was created with.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn raw_fd(map: BorrowedFd<'_>) -> u32 {
    u32::try_from(map.as_raw_fd()).expect("an open descriptor is not negative")
}

/// Reads a hash map, appending to `entries`.
///
/// Entries that are added or removed meanwhile may or may not be seen; all others are seen once.
/// Minimum kernel version: 5.6.
pub(super) fn read<K: MapData, V: MapData>(
    map: BorrowedFd<'_>,
    entries: &mut Vec<(K, V)>,
) -> io::Result<()> {
    let mut capacity = CHUNK;
    let mut keys: Vec<MaybeUninit<K>> = vec![MaybeUninit::uninit(); capacity];
    let mut values: Vec<MaybeUninit<V>> = vec![MaybeUninit::uninit(); capacity];
    let mut position = 0_u32;
    let mut started = false;
    loop {
        let mut next = 0_u32;
        let mut attr = BatchAttr {
            in_batch: if started {
                &raw const position as u64
            } else {
                0
            },
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(capacity).expect("a few thousand entries"),
            map_fd: raw_fd(map),
            element_flags: 0,
            flags: 0,
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attr);
        let done = match &result {
            Ok(()) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                // One bucket holds more than the buffer; nothing was copied.
                Some(libc::ENOSPC) => {
                    capacity *= 2;
                    keys.resize(capacity, MaybeUninit::uninit());
                    values.resize(capacity, MaybeUninit::uninit());
                    continue;
                }
                Some(libc::EINTR) => continue,
                _ => return result,
            },
        };
        let filled = (attr.count as usize).min(capacity);
        entries.reserve(filled);
        for (key, value) in keys[..filled].iter().zip(&values[..filled]) {
            // SAFETY: the kernel filled the first `count` keys and values, which are `MapData`.
            entries.push(unsafe { (key.assume_init(), value.assume_init()) });
        }
        if done {
            return Ok(());
        }
        position = next;
        started = true;
    }
}

/// Removes an entry and tells its last value; `None` if it is not there.
///
/// In one step from kernel 5.14; below, what is counted between the two calls is lost, which is
/// why only idle entries are removed.
pub(super) fn take<K: MapData, V: MapData>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    let mut attr = ElementAttr {
        map_fd: raw_fd(map),
        _pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    let found = match bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) {
        Err(error) if matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EINVAL)) => {
            bpf(BPF_MAP_LOOKUP_ELEM, &mut attr).and_then(|()| bpf(BPF_MAP_DELETE_ELEM, &mut attr))
        }
        result => result,
    };
    match found {
        // SAFETY: filled by the kernel, and `MapData`.
        Ok(()) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
