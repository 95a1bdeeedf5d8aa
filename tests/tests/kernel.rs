//! What only a real kernel can answer. Runs here, and on every kernel of `cargo xtask vm`.

#[path = "kernel/attach.rs"]
mod attach;
#[path = "kernel/carry.rs"]
mod carry;
#[path = "kernel/differential.rs"]
mod differential;
#[path = "kernel/layout.rs"]
mod layout;
#[path = "kernel/limits.rs"]
mod limits;
#[path = "kernel/loaded.rs"]
mod loaded;
#[path = "kernel/log.rs"]
mod log;
#[path = "kernel/places.rs"]
mod places;
