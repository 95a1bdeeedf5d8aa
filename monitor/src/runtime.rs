//! The daemon: its tasks, and how they start and stop.

mod handle;

pub use handle::{EngineHandle, Stopped};
