//! Live source: the kernel program, its loading, attachment and reading. The only module that
//! knows aya; no aya type leaves it.

mod attach;
mod data;
mod elements;
mod error;
mod filters;
mod flows;
mod kernel;
mod live;
mod neighbours;
#[doc(hidden)]
pub mod object;
mod places;
mod ring;

pub use attach::{AttachError, AttachMode, Attached, Attacher};
pub use error::{AccessError, LoadError};
pub use kernel::{Kernel, LoadOptions};
pub use live::{Command, Live, LiveError, LiveOptions};
pub use neighbours::{Neighbour, Neighbours, neighbours};
