//! Waiting for the event ring.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Registers a descriptor of the ring with the runtime.
pub(super) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the `AsyncFd` and closed only when that is dropped.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
