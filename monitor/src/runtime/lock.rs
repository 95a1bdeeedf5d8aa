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
    time::Duration,
};

use tokio::{net::UnixStream, runtime::Builder};

use crate::host;

/// The names, in the order in which they are taken.
const NAMES: [&str; 4] = ["nodewatch", "nodewatch.1", "nodewatch.2", "nodewatch.3"];

/// How long no connection is taken after one could not be.
const PAUSE: Duration = Duration::from_millis(500);

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
    // Root in a container may lack what a daemon needs.
    let may_be_daemon = pid.map_or_else(
        || credentials.uid() == 0,
        |pid| host::has_net_admin(pid) != Some(false),
    );
    if may_be_daemon {
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
            tokio::spawn(async move {
                loop {
                    // Out of files, say: that passes.
                    if listener.accept().await.is_err() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _},
        process::{Command, Stdio},
    };

    use tokio::io::AsyncReadExt as _;

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

    const INSIDE: &str = "NODEWATCH_TEST_NAME";

    /// The same test in a process of its own, which the program and its arguments start.
    fn again(program: &str, arguments: &[&str], test: &str, name: &str) -> Command {
        let (_, module) = module_path!().split_once("::").expect("a module");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", &format!("{module}::{test}"), "--nocapture"])
            .env(INSIDE, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    #[test]
    fn root_without_the_privileges_of_a_daemon_is_passed_by() {
        if let Ok(name) = std::env::var(INSIDE) {
            let _lock = take_names(&[&name]).expect("free");
            println!("\nready");
            let _ = std::io::stdin().read(&mut [0]);
            return;
        }
        let name = unique("e");
        let is_root = host::has_net_admin(std::process::id().cast_signed()) == Some(true);
        // Whoever has no such privilege cannot give it up.
        let (program, arguments) = if is_root {
            ("setpriv", &["--bounding-set=-net_admin"][..])
        } else {
            ("env", &[][..])
        };
        let test = "root_without_the_privileges_of_a_daemon_is_passed_by";
        let mut other = again(program, arguments, test, &name)
            .spawn()
            .expect("a process");
        let output = BufReader::new(other.stdout.take().expect("piped"));
        let is_ready = output
            .lines()
            .map_while(Result::ok)
            .any(|line| line == "ready");
        assert!(is_ready);
        let holder = holder(&name).expect("the kernel tells");
        let pid = other.id();
        drop(other.stdin.take());
        other.wait().expect("its end");
        let Holder::Other { who } = holder else {
            panic!("{holder:?}");
        };
        assert!(who.starts_with(&format!("process {pid}, user ")), "{who}");
    }

    #[test]
    fn connections_are_taken_again_after_files_ran_out() {
        let test = "connections_are_taken_again_after_files_ran_out";
        let Ok(name) = std::env::var(INSIDE) else {
            let limited = ["-c", "ulimit -n 64; exec \"$0\" \"$@\""];
            let output = again("sh", &limited, test, &unique("f")).output();
            let output = output.expect("a shell");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && text.contains("1 passed"),
                "{output:?}"
            );
            return;
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let lock = take_names(&[&name]).expect("free");
            lock.serve().expect("served");
            let client = tokio::net::UnixSocket::new_stream().expect("a socket");
            let mut files = Vec::new();
            while let Ok(file) = std::fs::File::open("/dev/null") {
                files.push(file);
            }
            let mut client = client.connect(format!("\0{name}")).await.expect("a queue");
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(100), client.read(&mut byte));
            assert!(read.await.is_err(), "it cannot be taken yet");
            drop(files);
            let read = tokio::time::timeout(20 * PAUSE, client.read(&mut byte));
            assert_eq!(read.await.expect("taken and dropped").ok(), Some(0));
        });
    }
}
