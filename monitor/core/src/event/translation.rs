//! What address translation on this node made of a connection's ends.

use serde::{Deserialize, Serialize};

use super::Endpoint;

/// The ends of a translated connection on the other side of the translation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Translated {
    /// The ends that differ.
    Ends(Box<TranslatedEnds>),
    /// The word `unknown`.
    Word(TranslatedWord),
}

/// What else there is to say of a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TranslatedWord {
    /// The connection may be translated, and the kernel's connection tracking cannot be asked or
    /// does not know it.
    Unknown,
}

/// Ends of a connection on the other side of a translation; what is the same is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslatedEnds {
    /// In place of the record's source: behind the node's address the pod that opened the
    /// connection, or the node's address that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Endpoint>,
    /// In place of the record's destination: behind a Service the pod that was chosen, or the
    /// address that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Endpoint>,
}

// === impl Translated ===

impl Translated {
    /// It is not known.
    pub const UNKNOWN: Self = Self::Word(TranslatedWord::Unknown);

    /// The ends, where they are known.
    pub fn ends(&self) -> Option<&TranslatedEnds> {
        match self {
            Self::Ends(ends) => Some(ends),
            Self::Word(TranslatedWord::Unknown) => None,
        }
    }
}
