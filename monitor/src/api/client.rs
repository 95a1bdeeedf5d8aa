//! The side of the other commands.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use super::{Answer, Request, StatusAnswer, wire};

/// Why the daemon does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error(
        "no nodewatch daemon answers on {}: {source} (start one with `nodewatch run`, or name its \
         --socket)",
        path.display()
    )]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is not for this user.
    #[error(
        "permission denied on {}: the daemon answers its own user only, so run this as root (with \
         sudo), or as the user that the daemon runs as",
        path.display()
    )]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the daemon on {} went away: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It closed the connection too early.
    #[error("the daemon on {} has stopped", path.display())]
    Stopped {
        /// The socket.
        path: PathBuf,
    },
    /// It refuses the request.
    #[error("the daemon on {} refuses: {message}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// It answers something else.
    #[error("the daemon on {} answers what this version does not understand: {source}", path.display())]
    Unknown {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// A connection to the daemon, after one request.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

/// A line of the daemon's answer.
#[derive(Debug)]
pub enum Line<'a> {
    /// A record or a status, as JSON, without the end of the line.
    Data(&'a [u8]),
    /// Records that did not get here.
    Lost(u64),
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

// === impl Client ===

impl Client {
    /// Connects and asks.
    pub async fn ask(path: &Path, request: &Request) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ClientError::Permission { path });
            }
            Err(source) => return Err(ClientError::NoDaemon { path, source }),
        };
        let mut client = Self {
            path,
            stream: BufReader::new(stream),
            line: Vec::new(),
        };
        let mut line = Vec::new();
        let sent = match wire::write_line(&mut line, request) {
            Ok(()) => client.stream.write_all(&line).await,
            Err(error) => Err(error),
        };
        sent.map_err(|source| client.broken(source))?;
        Ok(client)
    }

    /// The next line, `None` at the end.
    ///
    /// Cancellation safe: a line of which a part was read goes on with the next call.
    pub async fn next(&mut self) -> Result<Option<Line<'_>>, ClientError> {
        // After a whole line was returned, the next one begins.
        if self.line.ends_with(b"\n") {
            self.line.clear();
        }
        let read = self.stream.read_until(b'\n', &mut self.line).await;
        if let Err(source) = read {
            return Err(self.broken(source));
        }
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return if self.line.is_empty() {
                Ok(None)
            } else {
                Err(self.stopped())
            };
        };
        let head: Head<'_> = serde_json::from_slice(line).map_err(|source| self.unknown(source))?;
        if head.kind != "lost" && head.kind != "error" {
            return Ok(Some(Line::Data(line)));
        }
        match serde_json::from_slice(line).map_err(|source| self.unknown(source))? {
            Answer::Lost { records } => Ok(Some(Line::Lost(records))),
            Answer::Error { message } => Err(ClientError::Refused {
                path: self.path.clone(),
                message,
            }),
            Answer::Status(_) => Ok(Some(Line::Data(line))),
        }
    }

    /// The daemon closed a connection that should have gone on.
    pub fn stopped(&self) -> ClientError {
        ClientError::Stopped {
            path: self.path.clone(),
        }
    }

    /// An answer that cannot be read.
    pub fn unknown(&self, source: serde_json::Error) -> ClientError {
        ClientError::Unknown {
            path: self.path.clone(),
            source,
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken {
            path: self.path.clone(),
            source,
        }
    }
}

/// Asks the daemon for its status.
pub async fn status(path: &Path) -> Result<StatusAnswer, ClientError> {
    let mut client = Client::ask(path, &Request::Status {}).await?;
    let parsed = match client.next().await? {
        Some(Line::Data(line)) => serde_json::from_slice(line),
        Some(Line::Lost(_)) | None => return Err(client.stopped()),
    };
    match parsed {
        Ok(Answer::Status(status)) => Ok(*status),
        Ok(Answer::Lost { .. } | Answer::Error { .. }) => Err(client.stopped()),
        Err(source) => Err(client.unknown(source)),
    }
}
