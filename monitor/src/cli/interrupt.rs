//! SIGINT and SIGTERM while a file is read: what is printed so far is brought to its end.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

/// How long to wait for the end of what is printed; a read that waits for more input is not
/// ended by a signal.
const PATIENCE: Duration = Duration::from_secs(10);
/// The status of what a signal ended, less the signal's number.
const SIGNALLED: i32 = 128;

/// Whether a signal came.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupted(Arc<AtomicBool>);

/// Input that ends when a signal comes.
pub(super) struct Input<'a, R> {
    pub(super) reader: R,
    pub(super) interrupted: &'a Interrupted,
}

// === impl Interrupted ===

impl Interrupted {
    /// From now on signals are taken. Without the means for that they end the program, as before.
    pub(super) fn watch() -> Self {
        let interrupted = Self::default();
        let flag = interrupted.clone();
        let wait = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut interrupt = signal(SignalKind::interrupt())?;
                let mut terminate = signal(SignalKind::terminate())?;
                let number = tokio::select! {
                    _ = interrupt.recv() => libc::SIGINT,
                    _ = terminate.recv() => libc::SIGTERM,
                };
                flag.0.store(true, Ordering::Relaxed);
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = tokio::time::sleep(PATIENCE) => {}
                }
                std::process::exit(SIGNALLED + number)
            })
        };
        thread::spawn(move || -> io::Result<()> { wait() });
        interrupted
    }

    /// Whether one came.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Input ===

impl<R: Read> Read for Input<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupted.is_set() {
            return Ok(0);
        }
        self.reader.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_ends_when_a_signal_comes() {
        let interrupted = Interrupted::default();
        let mut input = Input {
            reader: io::repeat(7),
            interrupted: &interrupted,
        };
        let mut buffer = [0; 4];
        assert_eq!(input.read(&mut buffer).expect("it repeats"), 4);
        interrupted.0.store(true, Ordering::Relaxed);
        assert_eq!(input.read(&mut buffer).expect("the end"), 0);
    }
}
