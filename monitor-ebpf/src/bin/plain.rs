//! The kernel programs without the look at payload: the benchmark compares the shipped ones with these,
//! which are the same but for that.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "../entry.rs"]
mod entry;
#[path = "../maps.rs"]
mod maps;
#[path = "../packet.rs"]
mod packet;
#[path = "../places.rs"]
mod places;

/// Nothing is looked at.
const INSPECTS: bool = false;
