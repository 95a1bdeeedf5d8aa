//! One daemon per network namespace.
//!
//! Two would count everything twice, and by clsact each would take the other's filters for those
//! of a crashed one. The lock is an abstract Unix socket: its name belongs to the network
//! namespace, and it vanishes with the process however that ends.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

const NAME: &[u8] = b"nodewatch";

/// The lock cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("another nodewatch daemon already watches this network namespace")]
    Taken,
    /// The operating system refuses.
    #[error("cannot take the lock of this network namespace: {0}")]
    System(#[source] io::Error),
}

/// The lock; dropping it releases it.
#[derive(Debug)]
pub(super) struct Lock {
    _listener: UnixListener,
}

/// Takes the lock of the network namespace of this thread.
pub(super) fn take() -> Result<Lock, LockError> {
    let address = SocketAddr::from_abstract_name(NAME).map_err(LockError::System)?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Lock {
            _listener: listener,
        }),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(LockError::Taken),
        Err(error) => Err(LockError::System(error)),
    }
}
