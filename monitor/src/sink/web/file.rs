//! The file: errors name the line and the key.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use serde_saphyr::{Options, Spanned};

use super::{Access, Web, read_text, tls};

/// Characters of a parser's message that are shown.
const MOST_MESSAGE: usize = 300;

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Line, from 1.
    pub(super) line: u64,
    /// The key, and what is wrong with it.
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tls_server_config: Option<Spanned<tls::Section>>,
    #[serde(rename = "http_server_config")]
    _http_server_config: Option<HttpSection>,
    basic_auth_users: BTreeMap<String, Spanned<String>>,
    bearer_token_files: Vec<Spanned<String>>,
    bearer_token_sha256: Vec<Spanned<String>>,
}

/// `http_server_config`: it may allow HTTP/2, which nothing here needs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpSection {
    #[serde(rename = "http2")]
    _http2: Option<bool>,
}

// === impl Wrong ===

impl Wrong {
    pub(super) fn new(line: u64, message: String) -> Self {
        Self {
            line: line.max(1),
            message,
        }
    }
}

/// Reads the text of a configuration and the files that it names.
pub(super) fn read(text: &str, folder: &Path) -> Result<Web, Wrong> {
    let file = parse(text)?;
    let mut files = Vec::new();
    let tls = file
        .tls_server_config
        .map(|section| {
            let line = section.referenced.line();
            section.value.build(line, folder, &mut files)
        })
        .transpose()?;
    let mut access = Access::default();
    for (name, hash) in &file.basic_auth_users {
        access.add_user(name, &hash.value).map_err(|message| {
            let name = name.escape_debug();
            Wrong::new(
                hash.referenced.line(),
                format!("basic_auth_users.{name}: {message}"),
            )
        })?;
    }
    for given in &file.bearer_token_files {
        add_token(&mut access, &folder.join(&given.value), &mut files).map_err(|message| {
            Wrong::new(
                given.referenced.line(),
                format!("bearer_token_files: {message}"),
            )
        })?;
    }
    for sum in &file.bearer_token_sha256 {
        access.add_sum(&sum.value).map_err(|message| {
            Wrong::new(
                sum.referenced.line(),
                format!("bearer_token_sha256: {message}"),
            )
        })?;
    }
    Ok(Web {
        needs_certificate: tls.as_ref().is_some_and(|tls| tls.needs_certificate),
        tls: tls.map(|tls| Arc::new(tls.config)),
        access,
        files,
    })
}

fn add_token(access: &mut Access, path: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let text = read_text(path).map_err(|error| tls::cannot_read(path, &error))?;
    files.push(path.to_owned());
    let token = text.trim_end_matches(['\r', '\n']);
    access
        .add_token(token)
        .map_err(|message| format!("{}: {message}", path.display()))
}

fn parse(text: &str) -> Result<File, Wrong> {
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    let read = serde_saphyr::from_str_with_options::<Option<File>>(text, options());
    match read {
        Ok(file) => Ok(file.unwrap_or_default()),
        Err(error) => {
            let line = error.location().map_or(1, |place| place.line()).max(1);
            let whole = error.without_snippet().to_string();
            let message = whole.split(" at line ").next().unwrap_or(&whole);
            let message: String = message
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(MOST_MESSAGE)
                .collect();
            let message = match key_at(text, line) {
                Some(key) if !message.contains(&format!("`{key}`")) => format!("{key}: {message}"),
                _ => message,
            };
            Err(Wrong::new(line, message))
        }
    }
}

/// The key that a line begins with.
fn key_at(text: &str, line: u64) -> Option<&str> {
    let line = text
        .lines()
        .nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let (key, _) = line.split_once(':')?;
    let key = key.trim_start_matches([' ', '-']);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!key.is_empty() && key.len() < 64 && key.chars().all(is_word)).then_some(key)
}

/// Limits: the file is small, and nobody needs aliases in it.
fn options() -> Options {
    serde_saphyr::options! {
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_nodes: 10_000,
            max_events: 40_000,
            max_documents: 1,
            max_total_scalar_bytes: 1 << 20,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 1_000,
            max_replay_stack_depth: 4,
        },
    }
}
