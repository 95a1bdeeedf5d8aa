//! Who may read over HTTP, and how: TLS, passwords, tokens, as one YAML file says.
//!
//! The file is the *web configuration* of Prometheus' exporters
//! (<https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>), and two
//! keys of our own for bearer tokens. `/healthz` and `/readyz` need nothing of it: the kubelet has no
//! credentials.

mod access;
mod count;
mod file;
mod reload;
mod tls;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::ServerConfig;

pub(super) use access::{Access, Verdict};
pub(super) use count::{Counts, Refused};
pub use reload::{Current, Reload, reload};

/// Larger files are none that anybody writes: the configuration, certificates, keys, tokens.
const MOST_BYTES: u64 = 1 << 20;

/// What a web configuration says, ready to use.
#[derive(Debug)]
pub struct Web {
    /// `None` for plain HTTP.
    tls: Option<Arc<ServerConfig>>,
    /// Whether metrics are for those only who show a certificate of the declared authority.
    needs_certificate: bool,
    access: Access,
    /// All files that were read, the configuration first.
    files: Vec<PathBuf>,
}

/// Why a web configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// A file cannot be read.
    #[error("--web-config: cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("--web-config: {}:{line}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong, the key named.
        message: String,
    },
}

// === impl Web ===

impl Web {
    /// Plain HTTP for everyone.
    pub fn open() -> Self {
        Self {
            tls: None,
            needs_certificate: false,
            access: Access::default(),
            files: Vec::new(),
        }
    }

    /// Reads a configuration and all that it names; relative names are in its folder.
    pub fn read(path: &Path) -> Result<Self, WebError> {
        let text = read_text(path).map_err(|source| WebError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Reads the text of a configuration of this name and all that it names.
    pub fn parse(path: &Path, text: &str) -> Result<Self, WebError> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut web = file::read(text, folder).map_err(|error| WebError::Content {
            path: path.to_owned(),
            line: error.line,
            message: error.message,
        })?;
        web.files.insert(0, path.to_owned());
        Ok(web)
    }

    /// TLS; `None` for plain HTTP.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.clone()
    }

    /// Whether metrics need a client's certificate.
    pub(super) fn needs_certificate(&self) -> bool {
        self.needs_certificate
    }

    /// Who may read.
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// For people: what is asked of a reader.
    pub fn words(&self) -> String {
        let mut words = vec![if self.tls.is_some() { "https" } else { "http" }];
        if self.needs_certificate {
            words.push("client certificate");
        }
        words.extend(self.access.words());
        words.join(", ")
    }
}

/// Reads a file of text that is not unreasonably large.
fn read_text(path: &Path) -> io::Result<String> {
    use io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path)?;
    file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("more than {MOST_BYTES} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
