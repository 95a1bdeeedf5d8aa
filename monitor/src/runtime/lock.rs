//! One daemon per network namespace.
//!
//! Two would count everything twice, and by clsact each would take the other's filters for those
//! of a crashed one. The lock is an abstract Unix socket: its name belongs to the network
//! namespace, and it vanishes with the process however that ends.
//!
//! Anybody may bind such a name, which must not keep the daemon from running. So who holds it is
//! asked of the kernel: a process that could not be a daemon, for it has no privileges, is passed
//! by. There are a few names, all of which a daemon takes where it can: two daemons meet at the
//! ones that nobody else holds, whenever those were free.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use tokio::{net::UnixStream, runtime::Builder};

use crate::host;

/// The names, in the order in which they are taken.
const NAMES: [&str; 4] = ["nodewatch", "nodewatch.1", "nodewatch.2", "nodewatch.3"];

/// The lock cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error(
        "another nodewatch daemon already watches this network namespace{}",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Taken {
        /// Its process, where it is visible from here.
        pid: Option<i32>,
    },
    /// The operating system refuses.
    #[error("cannot take the lock of this network namespace: {0}")]
    System(#[source] io::Error),
}

/// The lock; dropping it releases it.
#[derive(Debug)]
pub(super) struct Lock {
    listeners: Vec<UnixListener>,
}

/// Who holds a name.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    /// Nobody any more.
    Nobody,
    /// What may be a daemon.
    Daemon { pid: Option<i32> },
    /// What cannot be one.
    Other { who: String },
}

/// Takes the lock of the network namespace of this thread.
pub(super) fn take() -> Result<Lock, LockError> {
    take_names(&NAMES)
}

fn take_names(names: &[&str]) -> Result<Lock, LockError> {
    let mut listeners = Vec::new();
    for name in names {
        if let Some(listener) = take_name(name)? {
            listeners.push(listener);
        }
    }
    if listeners.is_empty() {
        tracing::warn!("whether another daemon watches this network namespace is not known");
    }
    Ok(Lock { listeners })
}

/// Takes one of the names, `None` where it is held by what cannot be a daemon.
fn take_name(name: &str) -> Result<Option<UnixListener>, LockError> {
    let address = SocketAddr::from_abstract_name(name).map_err(LockError::System)?;
    for is_last in [false, true] {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                return Err(LockError::System(error));
            }
            Err(_) => {}
        }
        match holder(name).map_err(LockError::System)? {
            Holder::Daemon { pid } => return Err(LockError::Taken { pid }),
            // Once more: it may just have been released.
            Holder::Nobody if !is_last => {}
            Holder::Nobody => warn(name, "a socket that does not listen"),
            Holder::Other { who } => {
                warn(name, &who);
                break;
            }
        }
    }
    Ok(None)
}

fn warn(name: &str, who: &str) {
    tracing::warn!(
        "the name `@{name}`, by which daemons find out about each other, is held by {who}, which \
         is no daemon: going on without it"
    );
}

/// Asks the kernel who listens.
fn holder(name: &str) -> io::Result<Holder> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let credentials = runtime.block_on(async {
        // Never waits: where the queue of connections is full, that is an error.
        UnixStream::connect(format!("\0{name}")).await?.peer_cred()
    });
    let credentials = match credentials {
        Ok(credentials) => credentials,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::ConnectionRefused => Ok(Holder::Nobody),
                // A daemon takes connections (`Lock::serve`).
                io::ErrorKind::WouldBlock => Ok(Holder::Other {
                    who: "a process that takes no connections".to_owned(),
                }),
                _ => Err(error),
            };
        }
    };
    // Zero for a process that is not visible from here.
    let pid = credentials.pid().filter(|pid| *pid > 0);
    let is_privileged =
        credentials.uid() == 0 || pid.is_some_and(|pid| host::has_net_admin(pid) != Some(false));
    if is_privileged {
        return Ok(Holder::Daemon { pid });
    }
    let process = pid.map_or_else(
        || "a process of another container".to_owned(),
        |pid| format!("process {pid}"),
    );
    Ok(Holder::Other {
        who: format!("{process}, user {}", credentials.uid()),
    })
}

// === impl Lock ===

impl Lock {
    /// Takes and drops the connections of those who ask who is here, lest they pile up. Needs a
    /// running tokio runtime.
    pub(super) fn serve(&self) -> io::Result<()> {
        for listener in &self.listeners {
            let listener = listener.try_clone()?;
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener)?;
            tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unique(what: &str) -> String {
        format!("nodewatch-test-{what}-{}", std::process::id())
    }

    #[test]
    fn whoever_comes_second_is_told_who_has_it() {
        let names = [unique("a"), unique("b")];
        let names = names.each_ref().map(String::as_str);
        let first = take_names(&names).expect("free");
        assert_eq!(first.listeners.len(), 2);
        // Tests run as root, or the holder has the same privileges as a daemon would.
        if host::has_net_admin(std::process::id().cast_signed()) == Some(true) {
            let error = take_names(&names).expect_err("taken").to_string();
            let pid = std::process::id();
            assert!(error.ends_with(&format!("(process {pid})")), "{error}");
        }
        drop(first);
        assert!(take_names(&names).is_ok(), "free again");
    }

    #[test]
    fn a_name_that_nobody_listens_on_is_passed_by() {
        let names = [unique("c"), unique("d")];
        let runtime = Builder::new_current_thread().enable_io().build();
        let runtime = runtime.expect("a runtime");
        let _inside = runtime.enter();
        let squatter = tokio::net::UnixSocket::new_stream().expect("a socket");
        squatter.bind(format!("\0{}", names[0])).expect("free");
        let names = names.each_ref().map(String::as_str);
        let lock = take_names(&names).expect("no daemon is here");
        assert_eq!(lock.listeners.len(), 1);
    }
}
