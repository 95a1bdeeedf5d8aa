//! Why an interface is not attached to.

use std::io;

use aya::programs::{ProgramError, tc::TcError};

/// Why an interface is not attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It vanished meanwhile, which is normal.
    #[error("interface {name} is gone")]
    Gone {
        /// Its name.
        name: String,
    },
    /// Being behind a neighbour means seeing nothing, and there is no room before it.
    #[error(
        "a filter with priority 1 is on {hook} of {name}: nothing can be attached in front of it"
    )]
    NoRoom {
        /// The interface.
        name: String,
        /// The hook.
        hook: &'static str,
    },
    /// An `ingress` qdisc is in the place of clsact.
    #[error("{name} has an ingress qdisc, which has no egress hook; clsact cannot be added")]
    IngressQdisc {
        /// The interface.
        name: String,
    },
    /// The kernel refuses.
    #[error("cannot attach to {hook} of {name} by {how}: {source}")]
    Refused {
        /// The interface.
        name: String,
        /// The hook.
        hook: &'static str,
        /// TCX or clsact.
        how: &'static str,
        /// The cause.
        #[source]
        source: Box<ProgramError>,
    },
    /// The clsact qdisc cannot be added.
    #[error("cannot add the clsact qdisc to {name}: {source}")]
    Qdisc {
        /// The interface.
        name: String,
        /// The cause.
        #[source]
        source: TcError,
    },
    /// The filters cannot be listed.
    #[error("cannot list the filters of {name}: {source}")]
    List {
        /// The interface.
        name: String,
        /// The cause.
        #[source]
        source: Box<rtnetlink::Error>,
    },
}

// === impl AttachError ===

impl AttachError {
    /// Whether the interface vanished, which is no fault.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Gone { .. } => true,
            Self::Refused { source, .. } => is_no_device(source.as_ref()),
            Self::Qdisc { source, .. } => is_no_device(source),
            _ => false,
        }
    }
}

/// Whether an error, or one of its causes, says that there is no such interface.
fn is_no_device(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::ENXIO | libc::ENOENT)
            )
        {
            return true;
        }
        next = error.source();
    }
    false
}
