//! Reading the file: errors name the file, the line and the key.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::Settings;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{}:{line}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, the key named.
        message: String,
    },
}

// === impl Settings ===

impl Settings {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|(line, message)| FileError::Content {
            path: path.to_owned(),
            line,
            message,
        })
    }

    /// Reads the text of a file; the error is a line and a message.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
            (line, message(text, at, error.message()))
        })
    }
}

/// The parser's message, on one line, after the key that it is about.
fn message(text: &str, at: usize, message: &str) -> String {
    let mut keys = Vec::new();
    if let Ok(table) = DeTable::parse(text) {
        find(table.get_ref(), at, &mut keys);
    }
    let message = message.trim().replace('\n', ", ");
    let message = match message.strip_prefix("unknown field") {
        // The message has the key itself.
        Some(rest) => {
            keys.pop();
            format!("unknown key{rest}")
        }
        None => message,
    };
    if keys.is_empty() {
        message
    } else {
        format!("{}: {message}", keys.join("."))
    }
}

/// The path of the key or value at this position.
fn find(table: &DeTable<'_>, at: usize, keys: &mut Vec<String>) {
    for (key, value) in table {
        if !key.span().contains(&at) && !value.span().contains(&at) {
            if let DeValue::Table(table) = value.get_ref() {
                // The span of a table with a header is its header's.
                keys.push(key.get_ref().to_string());
                let depth = keys.len();
                find(table, at, keys);
                if keys.len() > depth {
                    return;
                }
                keys.pop();
            }
            continue;
        }
        keys.push(key.get_ref().to_string());
        if let DeValue::Table(table) = value.get_ref() {
            find(table, at, keys);
        }
        return;
    }
}
