//! What the benchmark compares with: an empty program and a plain per-CPU hash counter, and the
//! driver that feeds all candidates the same packets.

#![no_std]
#![no_main]

use aya_ebpf::{
    btf_maps::{Array, PerCpuHashMap},
    macros::{btf_map, classifier, map},
    maps::ProgramArray,
    programs::TcContext,
};

/// `TCX_NEXT`.
const NEXT: i32 = -1;
/// Returned by the driver when there is no candidate.
const NO_CANDIDATE: i32 = 77;
/// Ethernet header.
const NETWORK: usize = 14;

/// What the driver does to the next packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Drive {
    /// Number of flows less one, a power of two less one.
    pub mask: u32,
    /// Packets driven so far.
    pub count: u32,
    /// Flows as a power of two.
    pub shift: u32,
    /// Payload bytes, by which a flow's sequence number grows from packet to packet.
    pub step: u32,
}

#[btf_map]
static DRIVE: Array<Drive, 1> = Array::new();

#[map]
static CANDIDATE: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Key of the plain counter: addresses and ports, 16 bytes with the interface.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Key {
    source: u32,
    destination: u32,
    ports: u32,
    ifindex: u32,
}

/// Packets and bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Count {
    packets: u64,
    bytes: u64,
}

#[btf_map]
static COUNTS: PerCpuHashMap<Key, Count, 131_072> = PerCpuHashMap::new();

/// Does nothing: what a tc program costs by being there.
#[classifier]
pub fn bench_empty(_ctx: TcContext) -> i32 {
    NEXT
}

/// Counts IPv4 TCP and UDP packets in a per-CPU hash, and nothing else.
#[classifier]
pub fn bench_hash(ctx: TcContext) -> i32 {
    let start = ctx.data();
    if start + NETWORK + 24 > ctx.data_end() {
        return NEXT;
    }
    // SAFETY: within the bounds checked above; the packet is IPv4 without options.
    let key = unsafe {
        Key {
            source: *((start + NETWORK + 12) as *const u32),
            destination: *((start + NETWORK + 16) as *const u32),
            ports: *((start + NETWORK + 20) as *const u32),
            ifindex: (*ctx.skb.skb).ifindex,
        }
    };
    let bytes = u64::from(ctx.len());
    if let Some(count) = COUNTS.get_ptr_mut(key) {
        // SAFETY: this processor's own element.
        unsafe {
            (*count).packets += 1;
            (*count).bytes += bytes;
        }
    } else {
        let _ = COUNTS.insert(key, Count { packets: 1, bytes }, 0);
    }
    NEXT
}

/// Gives the packet the addresses of the next flow, scattered over the table, and the sequence number
/// that comes next there, and jumps to the candidate.
#[classifier]
pub fn bench_drive(ctx: TcContext) -> i32 {
    let Some(drive) = DRIVE.get_ptr_mut(0) else {
        return NO_CANDIDATE;
    };
    // SAFETY: a live array element; one benchmark runs at a time.
    let (index, sequence) = unsafe {
        let count = (*drive).count;
        (*drive).count = count.wrapping_add(1);
        (
            count.wrapping_mul(0x9e37_79b1) & (*drive).mask,
            (count >> ((*drive).shift & 31)).wrapping_mul((*drive).step),
        )
    };
    let start = ctx.data();
    if start + NETWORK + 48 > ctx.data_end() {
        return NO_CANDIDATE;
    }
    // SAFETY: within the bounds checked above.
    unsafe {
        if *((start + NETWORK) as *const u8) >> 4 == 4 {
            // Source address 10.x.y.z and source port.
            *((start + NETWORK + 12) as *mut u32) = u32::from_be(0x0a00_0000 | index >> 4);
            *((start + NETWORK + 20) as *mut u16) = u16::from_be(40_000 + (index & 15) as u16);
            *((start + NETWORK + 24) as *mut u32) = u32::from_be(sequence);
        } else {
            // Last word of the source address and source port.
            *((start + NETWORK + 20) as *mut u32) = u32::from_be(index >> 4);
            *((start + NETWORK + 40) as *mut u16) = u16::from_be(40_000 + (index & 15) as u16);
            *((start + NETWORK + 44) as *mut u32) = u32::from_be(sequence);
        }
    }
    // SAFETY: jumps to the program that userspace put there, or fails.
    unsafe { CANDIDATE.tail_call(&ctx, 0) };
    NO_CANDIDATE
}

/// Several helpers may only be called by programs with a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
