//! Where a packet's bytes come from.

use core::marker::PhantomData;

use crate::abi::{CHUNK_BYTES, Hook};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
    impl<T: Sealed, const N: usize> Sealed for [T; N] {}
}

/// Plain integers and arrays of them: any bytes are a valid value.
pub trait Plain: Copy + sealed::Sealed {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The first `N` bytes of a packet, in one piece.
#[derive(Clone, Copy)]
pub struct Window<'a, const N: usize> {
    start: *const u8,
    packet: PhantomData<&'a [u8]>,
}

impl<const N: usize> Window<'_, N> {
    /// A window on so many bytes.
    ///
    /// # Safety
    /// There must be `N` bytes, for as long as the window lives.
    #[inline(always)]
    pub const unsafe fn new(start: *const u8) -> Self {
        Self {
            start,
            packet: PhantomData,
        }
    }

    /// Bytes at an offset within it, in the wire's byte order.
    #[inline(always)]
    pub fn get<T: Plain, const OFFSET: usize>(&self) -> T {
        const { assert!(OFFSET + size_of::<T>() <= N) };
        // SAFETY: within the window.
        let bytes = unsafe { self.start.add(OFFSET).cast::<T>() };
        #[cfg(target_arch = "bpf")]
        // SAFETY: any bytes are a valid `T`, and the supported architectures load unaligned words.
        unsafe {
            *bytes
        }
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: any bytes are a valid `T`.
        unsafe {
            bytes.read_unaligned()
        }
    }
}

/// One packet at one hook.
pub trait Packet {
    /// Length from the start of the link layer, in bytes, as on the wire (a capture may hold less).
    fn length(&self) -> u32;

    /// Bytes at `offset` from the start of the link layer, in the wire's byte order; `None` where
    /// the packet (or what was captured of it) ends before them.
    fn read<T: Plain>(&self, offset: u32) -> Option<T>;

    /// The first `N` bytes, where they are in one piece of memory.
    fn window<const N: usize>(&self) -> Option<Window<'_, N>>;

    /// As [`Packet::read`], for offsets that are rarely read: in the kernel always a copy, so that
    /// the verifier need not follow the offset.
    fn copy<T: Plain>(&self, offset: u32) -> Option<T>;

    /// The same number, below 2^14. In the kernel, one of which the verifier has forgotten how it came about:
    /// it then checks what follows once, not once for every way to get there.
    #[inline(always)]
    fn forget(&self, value: u16) -> u16 {
        value
    }

    /// The first `count` (1 to 7) bytes at `offset`, as the most significant bytes of a number.
    fn read_few(&self, offset: u32, count: u32) -> Option<u64>;

    /// Copies `count` bytes at `offset` to the start of `to`, which holds [`CHUNK_BYTES`] and as many
    /// at least; `false` where the packet ends before, or for none.
    fn copy_to(&self, offset: u32, count: u32, to: &mut [u8; CHUNK_BYTES as usize]) -> bool;

    /// In the kernel, sends the segment with this payload whose head the backend put in place: in a
    /// function that the verifier checks by itself. Elsewhere a backend sends it.
    #[inline(always)]
    fn tell(&self, v6: bool, offset: u32, length: u32, bytes: u32) {
        let _ = (v6, offset, length, bytes);
    }

    /// Number of packets on the wire that this buffer stands for: the segment count of a GRO or
    /// GSO packet, else 1.
    fn segments(&self) -> u32;

    /// Index of the interface.
    fn ifindex(&self) -> u32;

    /// Which hook of the interface the packet passed.
    fn hook(&self) -> Hook;

    /// Cgroup of the socket that sent the packet, 0 where unknown.
    fn cgroup_id(&self) -> u64;
}

/// A captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What was captured, from the start of the link layer.
    pub bytes: &'a [u8],
    /// Length on the wire.
    pub length: u32,
    /// Index of the interface it was captured on.
    pub ifindex: u32,
    /// Hook that it stands for.
    pub hook: Hook,
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        let start = offset as usize;
        let bytes = self.bytes.get(start..start.checked_add(size_of::<T>())?)?;
        // SAFETY: the slice has exactly size_of::<T>() bytes and any bytes are a valid `T`.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    #[inline(always)]
    fn window<const N: usize>(&self) -> Option<Window<'_, N>> {
        let bytes = self.bytes.first_chunk::<N>()?;
        // SAFETY: as many bytes, which live as long as `self`.
        Some(unsafe { Window::new(bytes.as_ptr()) })
    }

    #[inline(always)]
    fn copy<T: Plain>(&self, offset: u32) -> Option<T> {
        self.read(offset)
    }

    #[inline(always)]
    fn read_few(&self, offset: u32, count: u32) -> Option<u64> {
        let start = offset as usize;
        let bytes = self.bytes.get(start..start.checked_add(count as usize)?)?;
        let mut word = [0; 8];
        word.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u64::from_be_bytes(word))
    }

    #[inline(always)]
    fn copy_to(&self, offset: u32, count: u32, to: &mut [u8; CHUNK_BYTES as usize]) -> bool {
        let (start, count) = (offset as usize, count as usize);
        let bytes = start
            .checked_add(count)
            .and_then(|end| self.bytes.get(start..end));
        match (bytes, to.get_mut(..count)) {
            (Some(bytes), Some(to)) if count > 0 => {
                to.copy_from_slice(bytes);
                true
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    #[inline(always)]
    fn hook(&self) -> Hook {
        self.hook
    }

    #[inline(always)]
    fn cgroup_id(&self) -> u64 {
        0
    }
}
