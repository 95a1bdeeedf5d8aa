//! Where flows come from.

pub mod ebpf;
pub mod links;
pub mod replay;
pub mod select;
