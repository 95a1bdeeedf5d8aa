//! The kernel object, built by `build.rs`.

/// The packet programs and their maps.
pub static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nodewatch.o"));

/// The programs that the benchmark compares with; linked only where used.
#[doc(hidden)]
pub static BENCH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.o"));

/// The packet programs without the look at payload, for the benchmark.
#[doc(hidden)]
pub static PLAIN: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/plain.o"));
