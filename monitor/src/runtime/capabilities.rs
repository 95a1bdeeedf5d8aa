//! Gives up capabilities that are no longer needed.
//!
//! Capabilities belong to threads. Those of the runtime answer requests and keep the books: they give up
//! nearly all as they start. The main thread does once the kernel program is loaded, and with it the
//! source, whose thread it starts thereafter. Nothing that is given up can be had back.

use rustix::{
    io,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        set_capabilities, set_no_new_privs,
    },
};

/// To attach to interfaces that come, to read the maps, to see whose filters are there (`SYS_ADMIN`, where
/// the process has it), to look up processes.
const SOURCE: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_ADMIN)
    .union(LOOK_UP);
/// To ask the kernel about connections and processes.
const WORKER: CapabilitySet = CapabilitySet::NET_ADMIN.union(LOOK_UP);
/// To look up processes.
const LOOK_UP: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// For a thread of the runtime, as it starts.
pub(super) fn worker_starts() {
    tell(keep(WORKER));
}

/// For the main thread, once the kernel program is loaded.
pub(super) fn loaded() {
    tell(set_no_new_privs(true).and_then(|()| keep(SOURCE)));
}

/// Leaves the calling thread these of the capabilities that it has.
fn keep(kept: CapabilitySet) -> io::Result<()> {
    let now = capabilities(None)?;
    clear_ambient_capability_set()?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: now.effective & kept,
            permitted: now.permitted & kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// Having too many of them stops nothing.
fn tell(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "cannot give up capabilities");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_gone_for_this_thread_only() {
        let before = capabilities(None).expect("capabilities");
        let inside = std::thread::spawn(|| {
            keep(WORKER).expect("less is always allowed");
            let now = capabilities(None).expect("capabilities");
            let again = CapabilitySets {
                permitted: now.permitted | CapabilitySet::SYS_MODULE,
                ..now
            };
            (now, set_capabilities(None, again).is_err())
        });
        let (now, is_refused) = inside.join().expect("no panic");
        assert_eq!(now.effective, before.effective & WORKER);
        assert_eq!(now.permitted, before.permitted & WORKER);
        assert!(is_refused);
        assert_eq!(capabilities(None).expect("capabilities"), before);
    }
}
