//! Reading the file: errors name the file, the line and the key.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use monitor_core::{entity::Names, judge::Thresholds};

use super::{Settings, SshSettings, named};

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
        let parsed = Self::parse(&text).and_then(|settings| {
            settings.check_ranges(&text)?;
            settings.ssh.check(&text)?;
            Ok(settings)
        });
        let mut settings = parsed.map_err(|(line, message)| FileError::Content {
            path: path.to_owned(),
            line,
            message,
        })?;
        settings.uplink_origin =
            element(&text, "uplink", 0).map(|line| format!("{}:{line}: uplink", path.display()));
        Ok(settings)
    }

    /// Refuses ranges that contradict each other; the error is a line and a message.
    fn check_ranges(&self, text: &str) -> Result<(), (usize, String)> {
        for count in 1..=self.range.len() {
            if let Err(error) = Names::new(named(self.range[..count].to_vec())) {
                let line = element(text, "range", count - 1).unwrap_or(1);
                return Err((line, format!("range: {error}")));
            }
        }
        Ok(())
    }

    /// Reads the text of a file; the error is a line and a message.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            (line_of(text, at), message(text, at, error.message()))
        })
    }
}

// === impl SshSettings ===

impl SshSettings {
    /// Refuses thresholds that are never met, for no more is remembered; the error is a line and a
    /// message.
    fn check(&self, text: &str) -> Result<(), (usize, String)> {
        // Attempts and failures may be many in one connection.
        let counted = [
            ("brute_force_connections", self.brute_force_connections),
            ("brute_force_unknown", self.brute_force_unknown),
            ("spray_connections", self.spray_connections),
            ("spray_targets", self.spray_targets),
            ("spray_sources", self.spray_sources),
            ("scan_targets", self.scan_targets),
        ];
        for (key, value) in counted {
            if let Some(value) = value.filter(|value| value.get() > Thresholds::MOST) {
                let line = member(text, "ssh", key).unwrap_or(1);
                let most = Thresholds::MOST;
                return Err((
                    line,
                    format!(
                        "ssh.{key}: {value} is more than {most}, the connections that are remembered of \
                         each source"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Line of a position, from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Line of an element of a list at the top.
fn element(text: &str, key: &str, index: usize) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    match table.get_ref().get(key)?.get_ref() {
        DeValue::Array(elements) => Some(line_of(text, elements.get(index)?.span().start)),
        _ => None,
    }
}

/// Line of a value in a table at the top.
fn member(text: &str, table: &str, key: &str) -> Option<usize> {
    let top = DeTable::parse(text).ok()?;
    match top.get_ref().get(table)?.get_ref() {
        DeValue::Table(table) => Some(line_of(text, table.get(key)?.span().start)),
        _ => None,
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
