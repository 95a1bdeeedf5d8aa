//! An object as it arrives: read without what is not needed, so that it is never held whole.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed as _, Error as _},
};
use serde_json::Value;

use crate::kube::manifests::prune::Pruned;

/// An object of any kind.
#[derive(Clone, Debug)]
pub(super) struct Seen(pub(super) Value);

/// A page of a list.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) metadata: PageMetadata,
    /// `null` where there is none.
    pub(super) items: Option<Vec<Seen>>,
}

/// What a page says of itself (`ListMeta` of the API reference).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PageMetadata {
    /// Version of the whole list.
    pub(super) resource_version: Option<String>,
    /// What asks for the next page; empty or absent on the last.
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

// === impl Seen ===

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Pruned::root().deserialize(deserializer)? {
            value @ Value::Object(_) => Ok(Self(value)),
            _ => Err(D::Error::custom(
                "an object of Kubernetes is no JSON object",
            )),
        }
    }
}

impl Seen {
    fn metadata(&self, field: &str) -> Option<&str> {
        self.0["metadata"][field]
            .as_str()
            .filter(|text| !text.is_empty())
    }

    /// Its version, to go on watching from.
    pub(super) fn version(&self) -> Option<&str> {
        self.metadata("resourceVersion")
    }

    /// Its namespace; empty for a kind without.
    pub(super) fn namespace(&self) -> &str {
        self.metadata("namespace").unwrap_or_default()
    }

    /// Its name.
    pub(super) fn name(&self) -> Option<&str> {
        self.metadata("name")
    }

    /// With its kind, which lists leave out.
    pub(super) fn of_kind(mut self, kind: &str, api_version: &str) -> Value {
        if self.0.get("kind").is_none() {
            self.0["kind"] = kind.into();
            self.0["apiVersion"] = api_version.into();
        }
        self.0
    }
}
