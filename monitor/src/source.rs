//! Where flows come from.

pub mod ebpf;
