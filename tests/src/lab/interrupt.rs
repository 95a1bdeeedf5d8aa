//! Ctrl-C, and a last clean-up where a panic aborts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::sweep;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Prepares a program that makes labs: SIGINT, SIGTERM and SIGHUP only set a flag, so that
/// destructors run; a panic removes this process's labs before it aborts.
pub fn prepare() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = note as extern "C" fn(libc::c_int);
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        sweep::own();
    }));
}

/// Whether someone asked this program to end.
pub fn happened() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Waits until someone asks this program to end, or until `limit` has passed.
pub fn wait(limit: Duration) {
    let start = Instant::now();
    while !happened() && start.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(50));
    }
}

extern "C" fn note(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}
