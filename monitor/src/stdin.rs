//! Standard input, which can be read once: `-` for two files would wait for ever, or find nothing.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

/// Standard input for whoever asks first.
pub(crate) fn take() -> io::Result<io::StdinLock<'static>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "standard input is read for something else",
        ));
    }
    Ok(io::stdin().lock())
}
