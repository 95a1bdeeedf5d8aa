//! A text as documents, and a document as values.

use serde::de::DeserializeSeed as _;
use serde_json::Value;
use serde_saphyr::Options;

use super::{super::decode::Segment, locate, prune::Pruned};

/// Deepest nesting. Objects of Kubernetes need a dozen levels, schemas of custom resources some forty; each takes
/// stack.
const MAX_DEPTH: usize = 64;
/// Nodes of one document: a list of 100,000 pods has about ten million.
const MAX_NODES: usize = 50_000_000;
/// Nodes that aliases may add to a document.
const MAX_ALIASED: usize = 100_000;
/// Characters of a parser's message that are shown.
const MAX_MESSAGE: usize = 200;

/// The documents of a text, one after the other.
pub(super) struct Documents<'a> {
    rest: &'a str,
    line: u64,
}

/// A document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
    /// Line of the file that it begins at, from 1.
    line: u64,
}

/// Why a document cannot be read.
#[derive(Debug)]
pub(super) struct DocumentError {
    pub(super) line: u64,
    pub(super) message: String,
}

// === impl Documents ===

impl<'a> Documents<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text.strip_prefix('\u{feff}').unwrap_or(text),
            line: 1,
        }
    }
}

impl<'a> Iterator for Documents<'a> {
    type Item = Document<'a>;

    /// Up to the next line `---` or `...` that is not before the document's content. Such lines
    /// end a document whatever they stand in, so that a broken document spoils no other.
    fn next(&mut self) -> Option<Document<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let begin = self.line;
        let (mut length, mut lines, mut has_content) = (0, 0, false);
        for line in self.rest.split_inclusive('\n') {
            let is_start = is_marker(line, "---");
            let is_end = is_marker(line, "...");
            if is_start && has_content {
                break;
            }
            length += line.len();
            lines += 1;
            if is_end {
                break;
            }
            let content = line.trim_start();
            let is_blank = content.is_empty() || content.starts_with(['#', '%']);
            has_content |= is_start || !is_blank;
        }
        let (text, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.line += lines;
        Some(Document { text, line: begin })
    }
}

/// Whether a line is a document marker.
fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

// === impl Document ===

impl Document<'_> {
    /// Its values: one of a YAML document, any number of a JSON text.
    pub(super) fn parse(&self) -> Result<Vec<Value>, DocumentError> {
        let start = self.text.trim_start();
        if !start.starts_with(['{', '[']) {
            return self.yaml().map(|value| vec![value]);
        }
        // Flow style may be more than JSON allows; then it is YAML.
        match self.json() {
            Ok(values) => Ok(values),
            Err(error) => self.yaml().map(|value| vec![value]).map_err(|_| error),
        }
    }

    fn json(&self) -> Result<Vec<Value>, DocumentError> {
        let mut values = Vec::new();
        let mut rest = serde_json::Deserializer::from_str(self.text);
        loop {
            match Pruned::root().deserialize(&mut rest) {
                Ok(value) => values.push(value),
                Err(error) => {
                    let line = u64::try_from(error.line()).unwrap_or(u64::MAX).max(1);
                    return Err(DocumentError {
                        line: self.line + line - 1,
                        message: message("is no JSON", &error.to_string()),
                    });
                }
            }
            if rest.end().is_ok() {
                return Ok(values);
            }
        }
    }

    fn yaml(&self) -> Result<Value, DocumentError> {
        let read = serde_saphyr::with_deserializer_from_str_with_options(
            self.text,
            options(),
            |deserializer| Pruned::root().deserialize(deserializer),
        );
        read.map_err(|error| {
            let line = error
                .location()
                .map_or(1, |location| location.line())
                .max(1);
            DocumentError {
                line: self.line + line - 1,
                message: message("is no YAML", &words(error.without_snippet())),
            }
        })
    }

    /// Line of the file that a field of the document is at, from 1; of what is nearest to it where
    /// it is not there.
    pub(super) fn line_of(&self, way: &[Segment]) -> u64 {
        if way.is_empty() {
            return self.line + self.blank_lines();
        }
        let line = (0..=way.len())
            .rev()
            .find_map(|length| locate::line(self.text, options(), &way[..length]));
        self.line + line.unwrap_or(1).max(1) - 1
    }
}

impl Document<'_> {
    /// Lines before the first with content.
    fn blank_lines(&self) -> u64 {
        let is_blank = |line: &&str| {
            let content = line.trim_start();
            content.is_empty() || content.starts_with('#') || is_marker(line, "---")
        };
        let lines = self.text.split_inclusive('\n').take_while(is_blank).count();
        u64::try_from(lines).unwrap_or(0)
    }

    /// Bytes that are read to find the line of a field, at most.
    pub(super) fn cost_of(&self, way: &[Segment]) -> usize {
        self.text.len().saturating_mul(way.len() + 1)
    }
}

/// Limits on what a document may ask for.
fn options() -> Options {
    serde_saphyr::options! {
        // A namespace `y` or a label `on` is a text, as in YAML 1.2; fields that are true or false
        // take the words of YAML 1.1 all the same.
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_documents: 1,
            max_total_scalar_bytes: super::files::MAX_FILE,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED,
            max_replay_stack_depth: 16,
        },
    }
}

/// What a parser says, without advice to whoever calls it.
fn words(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => {
                let key: String = key.chars().flat_map(char::escape_debug).collect();
                format!("the field {key} is there twice")
            }
            None => "a field is there twice".to_owned(),
        },
        error => error.to_string(),
    }
}

/// A parser's message on one line, without the place, which is told in lines of the file.
fn message(what: &str, text: &str) -> String {
    let text = text.split(" at line ").next().unwrap_or(text);
    let text: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(MAX_MESSAGE)
        .collect();
    format!("{what}: {text}")
}

/// That a seed gives up is an error of its deserializer.
pub(super) fn too_deep<E: serde::de::Error>() -> E {
    E::custom(format_args!("nested deeper than {MAX_DEPTH} levels"))
}

/// Whether a depth is too deep.
pub(super) const fn is_too_deep(depth: usize) -> bool {
    depth > MAX_DEPTH
}
