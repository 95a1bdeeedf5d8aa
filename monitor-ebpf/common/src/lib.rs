//! What the kernel program and userspace share.
//!
//! - [`abi`]: the layout of every map key, map value and ring-buffer event.
//! - [`packet`]: where a packet's bytes come from (the kernel's `__sk_buff`, or a captured frame).
//! - [`parse`]: bytes to headers; everything that cannot be counted has an [`abi::Reason`].
//! - [`classify`]: application protocol from the first payload bytes.
//! - [`program`]: the whole per-packet logic, generic over [`packet::Packet`] and
//!   [`program::Backend`]. Built for BPF it is the kernel program, built for the host the replay.
//!
//! `no_std`, no dependencies, no panics on the packet path.

#![no_std]
#![expect(
    clippy::inline_always,
    reason = "calls cost stack and arguments on BPF; what is not inlined there is chosen by hand"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "fields are cut out of words; a checked conversion has a panic, which BPF cannot have"
)]
#![expect(
    clippy::pub_underscore_fields,
    reason = "padding is part of the layout"
)]
#![expect(
    clippy::verbose_bit_mask,
    reason = "masks are those of the header's description"
)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    allow(internal_features, reason = "no atomics on the BPF target")
)]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod classify;
#[cfg(test)]
mod fixture;
pub mod packet;
pub mod parse;
pub mod program;
