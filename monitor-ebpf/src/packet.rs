//! A packet at a tc hook.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::{bpf_skb_cgroup_id, bpf_skb_load_bytes},
    programs::TcContext,
};
use monitor_common::{
    abi::{CHUNK_BYTES, Hook},
    packet::{Packet, Plain, Window},
};

use crate::entry::{self, NODEWATCH_CGROUP, skb_of};

/// Bound of the offsets of headers, one less than a power of two: 22 bytes of Ethernet and VLAN
/// tags, 40 of IPv6 and six extension headers of 2048 stay below. Within what the verifier accepts
/// as an offset into a packet.
const MAX_OFFSET: u16 = 0x3fff;

/// An offset of a header, of which the verifier sees the bound.
///
/// Written in assembly, since the compiler knows the bound and would drop the instruction; kernels
/// up to 6.1 lose it where the compiler packs the offset with other values.
#[inline(always)]
fn bounded(offset: u32) -> usize {
    masked::<{ MAX_OFFSET as i32 }>(offset as usize)
}

/// `value & MASK`, an instruction that the compiler keeps; see [`bounded`].
#[inline(always)]
pub(crate) fn masked<const MASK: i32>(value: usize) -> usize {
    let mut value = value;
    // SAFETY: changes this register only.
    unsafe {
        core::arch::asm!(
            "{0} &= {1}",
            inout(reg) value,
            const MASK,
            options(pure, nomem, nostack)
        );
    }
    value
}

/// The `__sk_buff` of the running program.
pub(crate) struct Skb<'a, const EGRESS: bool> {
    ctx: &'a TcContext,
}

impl<'a, const EGRESS: bool> Skb<'a, EGRESS> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }
}

impl<const EGRESS: bool> Packet for Skb<'_, EGRESS> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.ctx.len()
    }

    /// Direct access first (30 ns cheaper); where the linear area of the buffer is too short, a
    /// copy by `bpf_skb_load_bytes`, which also reads page fragments. Single bytes are always
    /// copied: of `start < data_end` the verifier learns nothing.
    #[inline(always)]
    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        let start = self.ctx.data() + bounded(offset);
        if size_of::<T>() > 1 && start + size_of::<T>() <= self.ctx.data_end() {
            // SAFETY: the verifier proves the bounds check above; any bytes are a valid `T`, and
            // the supported architectures load unaligned words.
            return Some(unsafe { *(start as *const T) });
        }
        self.copy(offset)
    }

    #[inline(always)]
    fn window<const N: usize>(&self) -> Option<Window<'_, N>> {
        let start = self.ctx.data();
        if start + N > self.ctx.data_end() {
            return None;
        }
        // SAFETY: the verifier proves the bounds check above.
        Some(unsafe { Window::new(start as *const u8) })
    }

    #[inline(always)]
    fn copy<T: Plain>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes size_of::<T>() bytes or fails.
        let result = unsafe {
            bpf_skb_load_bytes(
                skb_of(self.ctx).cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        if result != 0 {
            return None;
        }
        // SAFETY: initialised by the helper.
        Some(unsafe { value.assume_init() })
    }

    /// Changed twice by a number of which the verifier knows nothing, which gives the same value. In
    /// assembly, since the compiler knows that.
    #[inline(always)]
    fn forget(&self, value: u16) -> u16 {
        // SAFETY: a field of the program's own context; volatile, so that it is read anew.
        let unknown = unsafe { (&raw const (*skb_of(self.ctx)).len).read_volatile() };
        let mut value = u64::from(value);
        // SAFETY: changes this register only.
        unsafe {
            core::arch::asm!(
                "{0} ^= {1}",
                "{0} ^= {1}",
                inout(reg) value,
                in(reg) u64::from(unknown),
                options(pure, nomem, nostack)
            );
        }
        value as u16 & MAX_OFFSET
    }

    #[inline(always)]
    fn read_few(&self, offset: u32, count: u32) -> Option<u64> {
        if count == 0 {
            return None;
        }
        // One to eight, by arithmetic rather than by comparison: older kernels (6.1 and before) do
        // not connect a comparison with other copies of the number.
        let count = ((count - 1) & 7) + 1;
        let mut word = [0_u8; 8];
        // SAFETY: the helper writes at most eight bytes, or fails.
        let result = unsafe {
            bpf_skb_load_bytes(
                skb_of(self.ctx).cast(),
                offset,
                word.as_mut_ptr().cast(),
                count,
            )
        };
        (result == 0).then(|| u64::from_be_bytes(word))
    }

    #[inline(always)]
    fn copy_to(&self, offset: u32, count: u32, to: &mut [u8; CHUNK_BYTES as usize]) -> bool {
        if count == 0 {
            return false;
        }
        // As in `read_few`: one to CHUNK_BYTES.
        let count = masked::<{ CHUNK_BYTES as i32 - 1 }>(count as usize - 1) as u32 + 1;
        // SAFETY: the helper writes at most CHUNK_BYTES bytes, or fails.
        let result = unsafe {
            bpf_skb_load_bytes(
                skb_of(self.ctx).cast(),
                offset,
                to.as_mut_ptr().cast(),
                count,
            )
        };
        result == 0
    }

    #[inline(always)]
    fn tell(&self, v6: bool, offset: u32, length: u32, bytes: u32) {
        entry::nodewatch_tell(skb_of(self.ctx), u32::from(v6), offset, length, bytes);
    }

    /// `gso_segs`; where a driver leaves it empty (`SKB_GSO_DODGY`) it is derived from `gso_size`,
    /// with headers of 54 bytes.
    #[inline(always)]
    fn segments(&self) -> u32 {
        let skb = skb_of(self.ctx);
        // SAFETY: fields of the program's own context.
        let (size, segments) = unsafe {
            let size = (*skb).gso_size;
            // Only buffers that stand for several packets have a segment size.
            if size == 0 {
                return 1;
            }
            (size, (*skb).gso_segs)
        };
        if segments > 0 {
            return segments;
        }
        let length = self.ctx.len();
        if length <= 54 {
            1
        } else {
            (length - 54).div_ceil(size)
        }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: a field of the program's own context.
        unsafe { (*skb_of(self.ctx)).ifindex }
    }

    #[inline(always)]
    fn hook(&self) -> Hook {
        if EGRESS { Hook::Egress } else { Hook::Ingress }
    }

    #[inline(always)]
    fn cgroup_id(&self) -> u64 {
        // The sender's socket is known on the way out only.
        if EGRESS && NODEWATCH_CGROUP.load() != 0 {
            // SAFETY: the helper takes the program's own context.
            unsafe { bpf_skb_cgroup_id(skb_of(self.ctx)) }
        } else {
            0
        }
    }
}
