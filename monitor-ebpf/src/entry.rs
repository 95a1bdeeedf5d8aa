//! Entry points of the kernel programs.
//!
//! A packet is never dropped, changed or delayed: every exit returns [`NEXT`].

use aya_ebpf::{
    Global,
    bindings::__sk_buff,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use monitor_common::{
    abi::{ABI_VERSION, ClockSample, FlowKey4, FlowKey6},
    packet::Packet,
    program::on_packet,
};

use crate::{
    maps::{self, Maps},
    packet::Skb,
};

/// `TCX_NEXT` and `TC_ACT_UNSPEC`: the next program of the hook decides.
const NEXT: i32 = -1;

/// Layout that this object was built with; the loader compares it.
#[unsafe(no_mangle)]
static NODEWATCH_ABI: Global<u32> = Global::new(ABI_VERSION);

/// Whether the kernel has `bpf_skb_cgroup_id`: cleared by the loader where it has not, so that the
/// verifier removes the call.
#[unsafe(no_mangle)]
pub(crate) static NODEWATCH_CGROUP: Global<u8> = Global::new(1);

/// Ingress hook of a watched interface.
///
/// # Minimum kernel version
/// 5.15 is supported; 5.10 loads it (`bpf_ktime_get_ns`, `bpf_jiffies64`, ring buffer 5.8).
#[classifier]
pub fn nodewatch_in(ctx: TcContext) -> i32 {
    watch(&ctx, &Skb::<false>::new(&ctx))
}

/// Egress hook of a watched interface.
///
/// # Minimum kernel version
/// As [`nodewatch_in`].
#[classifier]
pub fn nodewatch_out(ctx: TcContext) -> i32 {
    watch(&ctx, &Skb::<true>::new(&ctx))
}

#[inline(always)]
fn watch(ctx: &TcContext, packet: &impl Packet) -> i32 {
    if let Err(reason) = on_packet(packet, &Maps) {
        debug!(
            ctx,
            "interface {} hook {}: not counted, reason {}",
            packet.ifindex(),
            packet.hook() as u8,
            reason as u8
        );
    }
    NEXT
}

/// Sends the segment whose head is in the capture buffer.
///
/// A global function (`BTF_FUNC_GLOBAL`): the verifier checks it once, not for each way to get
/// there.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nodewatch_tell(
    skb: *mut __sk_buff,
    v6: u32,
    offset: u32,
    length: u32,
    bytes: u32,
) -> u32 {
    let ctx = TcContext::new(skb);
    let packet = Skb::<false>::new(&ctx);
    if v6 == 0 {
        maps::send_capture::<FlowKey4>(&packet, offset, length, bytes);
    } else {
        maps::send_capture::<FlowKey6>(&packet, offset, length, bytes);
    }
    0
}

/// Samples both clocks, so that userspace can place coarse times; run by `BPF_PROG_TEST_RUN`.
#[classifier]
pub fn nodewatch_clock(_ctx: TcContext) -> i32 {
    // SAFETY: both helpers take no pointers.
    let sample = unsafe {
        ClockSample {
            monotonic_ns: bpf_ktime_get_ns(),
            ticks: bpf_jiffies64(),
        }
    };
    maps::set_clock(sample);
    NODEWATCH_ABI.load() as i32
}

/// Kernel context of a program.
pub(crate) fn skb_of(ctx: &TcContext) -> *mut __sk_buff {
    ctx.skb.skb
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
