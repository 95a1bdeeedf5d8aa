//! What only a real kernel can answer. Runs here, and on every kernel of `cargo xtask vm`.

#[path = "kernel/attach.rs"]
mod attach;
