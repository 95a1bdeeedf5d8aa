//! Why the kernel program cannot be loaded or its maps not be used.

use std::io;

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use monitor_common::abi::ABI_VERSION;

/// Why the kernel program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel refuses for want of privileges.
    #[error(
        "the kernel refuses to load BPF programs: run as root or with CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON ({0})"
    )]
    Privileges(io::Error),
    /// The object does not fit this build.
    #[error("the kernel object has layout version {found}, this program expects {ABI_VERSION}")]
    AbiVersion {
        /// Version that the object states.
        found: u32,
    },
    /// The object lacks a map or program.
    #[error("the kernel object has no {0}")]
    Missing(&'static str),
    /// The kernel refuses the object.
    #[error("cannot load the kernel program: {}", chain(.0))]
    Object(#[source] EbpfError),
    /// The kernel refuses a program.
    #[error("cannot load program {name}: {}", chain(.source))]
    Program {
        /// Its name.
        name: &'static str,
        /// The cause, with the verifier's log.
        #[source]
        source: ProgramError,
    },
    /// A map cannot be used.
    #[error("cannot use map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// The cause.
        #[source]
        source: MapError,
    },
    /// The places for flows cannot be mapped.
    #[error("cannot map the kernel's places for flows into memory: {0}")]
    Memory(#[source] io::Error),
    /// The log of the kernel program cannot be read.
    #[error("cannot read the log of the kernel program: {0}")]
    Log(#[from] aya_log::Error),
    /// The clocks cannot be compared.
    #[error("cannot read the kernel's clocks: {0}")]
    Clock(#[source] Box<AccessError>),
}

/// Why a map could not be read or written, or a program not be run.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// By aya's map interface.
    #[error("map {name}: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// The cause.
        #[source]
        source: MapError,
    },
    /// By a system call of our own.
    #[error("map {name}: {source}")]
    Batch {
        /// Name of the map.
        name: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What is in a map could not be had in memory.
    #[error("map {name}: cannot map it into memory: {source}")]
    Memory {
        /// Name of the map.
        name: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No free slot for an interface.
    #[error("no free slot for interface {ifindex}: too many interfaces are watched")]
    NoSlot {
        /// The interface.
        ifindex: u32,
    },
    /// A test run failed.
    #[error("cannot run program {name}: {source}")]
    TestRun {
        /// Name of the program.
        name: &'static str,
        /// The cause.
        #[source]
        source: Box<ProgramError>,
    },
}

/// An error with its causes, on one line each.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Whether an error, or one of its causes, is the kernel's refusal for want of privileges.
pub(super) fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            // EACCES is the verifier's verdict, not a want of privileges.
            && io.raw_os_error() == Some(libc::EPERM)
        {
            return true;
        }
        next = error.source();
    }
    false
}
