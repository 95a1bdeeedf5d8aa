//! The socket's place in the file system: taken only when nobody answers there, given back only
//! when it is still ours.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers.
    #[error(
        "a nodewatch daemon already listens on {}: stop it, or choose another --socket",
        path.display()
    )]
    Live {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there.
    #[error(
        "{} exists and is not a socket: remove it, or choose another --socket",
        path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The listening socket; its file is removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

// === impl Listener ===

impl Listener {
    /// Takes the socket's place: makes the directory where it is missing and replaces a socket on
    /// which nobody answers.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let system = |action, path: &Path| {
            let path = path.to_owned();
            move |source| BindError::System {
                action,
                path,
                source,
            }
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(system("create the directory", directory))?;
        // Daemons that start at once take turns, or one would remove the other's new socket.
        let turn = fs::File::open(directory).map_err(system("open the directory", directory))?;
        turn.lock()
            .map_err(system("lock the directory", directory))?;
        make_room(path)?;
        let socket = UnixListener::bind(path).map_err(system("listen on", path))?;
        let metadata = fs::symlink_metadata(path).map_err(system("inspect", path))?;
        let listener = Self {
            socket,
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(system("set the permissions of", path))?;
        listener
            .socket
            .set_nonblocking(true)
            .map_err(system("set up", path))?;
        Ok(listener)
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket, for a runtime.
    pub(super) fn socket(&self) -> io::Result<UnixListener> {
        self.socket.try_clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the API socket");
        }
    }
}

/// Removes a socket on which nobody answers.
fn make_room(path: &Path) -> Result<(), BindError> {
    let system = |action| {
        move |source| BindError::System {
            action,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system("inspect")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::Live {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a dead daemon");
            fs::remove_file(path).map_err(system("replace"))
        }
        Err(error) => Err(system("connect to")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_ours_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new/api.sock");
        let listener = Listener::bind(&path).expect("a new directory and socket");
        let mode = |path: &Path| fs::metadata(path).expect("it exists").mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a parent")), 0o700);
        drop(listener);
        assert!(!path.exists(), "ours is removed");

        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "a dead one remains");
        let listener = Listener::bind(&path).expect("the dead one is replaced");
        assert!(UnixStream::connect(listener.path()).is_ok());
    }

    #[test]
    fn a_live_socket_is_refused_and_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("api.sock");
        let first = Listener::bind(&path).expect("free");
        let error = Listener::bind(&path).expect_err("taken").to_string();
        assert!(
            error.starts_with("a nodewatch daemon already listens on "),
            "{error}"
        );
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(
            UnixStream::connect(&path).is_ok(),
            "the first still answers"
        );
        drop(first);
    }

    #[test]
    fn what_is_not_ours_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("api.sock");
        fs::write(&path, "precious").expect("a file");
        let error = Listener::bind(&path).expect_err("no socket");
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious");
        fs::remove_file(&path).expect("removed");

        let listener = Listener::bind(&path).expect("free");
        fs::remove_file(&path).expect("removed behind its back");
        let other = UnixListener::bind(&path).expect("another socket");
        drop(listener);
        assert!(path.exists(), "the other socket stays");
        drop(other);
    }

    #[test]
    fn the_system_refuses() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("a file");
        for path in [
            file.join("api.sock"),
            directory.path().join("x".repeat(120)),
        ] {
            let error = Listener::bind(&path)
                .expect_err("no place for a socket")
                .to_string();
            assert!(error.starts_with("cannot "), "{error}");
        }
    }
}
