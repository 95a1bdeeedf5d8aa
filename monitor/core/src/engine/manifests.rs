//! What of manifests is left out: what the reader of the files says of them.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

/// Files that are told of by name.
const MAX_FILES: usize = 32;

/// The files that declare objects and policies, and those that propose policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestsStatus {
    /// Files that were read.
    pub files: u64,
    /// Objects that are left out, as the API server would refuse them, by kind as the API names it;
    /// `documents` are those that cannot be read, whole files among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<Cow<'static, str>, u64>,
    /// Where they are, the first files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_in: Vec<SkippedIn>,
    /// Documents and objects that are left out of further files.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub skipped_elsewhere: u64,
    /// Addresses of objects that are no IP addresses, by kind as the API names it: the objects are
    /// used as if those were not there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub invalid_addresses: BTreeMap<Cow<'static, str>, u64>,
    /// File, line, object and field of one of them, the last that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_invalid_address: Option<String>,
    /// Why a change of the files is not taken up: all is as it was read before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A file with something left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedIn {
    /// Its path.
    pub file: String,
    /// Documents and objects of it that are left out.
    pub skipped: u64,
    /// Line, object, field and what is wrong, of the last of them.
    pub last: String,
}

// === impl ManifestsStatus ===

impl ManifestsStatus {
    /// Name of what cannot be read among [`ManifestsStatus::skipped`].
    pub const DOCUMENTS: &str = "documents";

    /// Something of a file is left out.
    pub fn skip(&mut self, resource: &'static str, file: &str, last: String) {
        *self.skipped.entry(resource.into()).or_default() += 1;
        // Files are read one after the other.
        if let Some(known) = self.skipped_in.iter_mut().rfind(|known| known.file == file) {
            known.skipped += 1;
            known.last = last;
        } else if self.skipped_in.len() < MAX_FILES {
            self.skipped_in.push(SkippedIn {
                file: file.to_owned(),
                skipped: 1,
                last,
            });
        } else {
            self.skipped_elsewhere += 1;
        }
    }

    /// What is said of these files and of others.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.files += other.files;
        for (resource, count) in other.skipped {
            *self.skipped.entry(resource).or_default() += count;
        }
        self.skipped_elsewhere += other.skipped_elsewhere;
        for file in other.skipped_in {
            if self.skipped_in.len() < MAX_FILES {
                self.skipped_in.push(file);
            } else {
                self.skipped_elsewhere += file.skipped;
            }
        }
        // What is proposed are policies: of other objects in its files nothing is used.
        self.error = self.error.or(other.error);
        self
    }
}
