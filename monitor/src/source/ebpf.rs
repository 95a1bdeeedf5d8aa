//! Live source: the kernel program, its loading, attachment and reading. The only module that
//! knows aya; no aya type leaves it.

mod attach;
mod batch;
mod filters;
mod kernel;
mod live;
#[doc(hidden)]
pub mod object;
mod ring;

pub use attach::{AttachError, AttachMode, Attached, Attacher};
pub use kernel::{AccessError, Kernel, LoadError, LoadOptions};
pub use live::{Command, Live, LiveError, LiveOptions};
