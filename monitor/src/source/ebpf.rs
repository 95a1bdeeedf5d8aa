//! Live source: the kernel program, its loading, attachment and reading. The only module that
//! knows aya; no aya type leaves it.

mod batch;
mod kernel;
#[doc(hidden)]
pub mod object;

pub use kernel::{AccessError, Kernel, LoadError, LoadOptions};
