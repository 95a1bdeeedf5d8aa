//! The kernel programs: entry points and maps. What they do is in [`monitor_common::program`].

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod entry;
mod maps;
mod packet;
mod places;

/// First payload bytes are looked at.
const INSPECTS: bool = true;
