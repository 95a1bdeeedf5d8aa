//! Reading a document without what is not needed: of a list of pods, that is most of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::documents::{is_too_deep, too_deep};

/// Fields that are skipped, by the field that they are in.
const SKIPPED: &[(&str, &[&str])] = &[
    ("", &["data", "binaryData", "stringData"]),
    ("metadata", &["managedFields"]),
    ("spec", &["volumes", "affinity", "tolerations"]),
    ("status", &["conditions", "images"]),
    ("versions", &["schema"]),
];
/// Fields of containers that are kept: those of a container are many, and long.
const CONTAINER: &[&str] = &["name", "ports", "restartPolicy"];

/// The annotation that is kept: others may be as long as the object.
const ANNOTATIONS: [&str; 2] = [super::MODE, "kubernetes.io/config.mirror"];

/// Reads a value without what is not needed.
pub(in crate::kube) struct Pruned {
    /// Name of the field that the value is in, or of the list that it is an element of.
    within: String,
    depth: usize,
}

// === impl Pruned ===

impl Pruned {
    /// Reads a document.
    pub(in crate::kube) fn root() -> Self {
        Self {
            within: String::new(),
            depth: 0,
        }
    }

    fn skips(&self, key: &str) -> bool {
        let is_skipped =
            |(within, keys): &(&str, &[&str])| *within == self.within && keys.contains(&key);
        let is_container = matches!(&*self.within, "containers" | "initContainers");
        let is_annotation = &*self.within == "annotations" && !ANNOTATIONS.contains(&key);
        SKIPPED.iter().any(is_skipped) || is_annotation || is_container && !CONTAINER.contains(&key)
    }
}

impl<'de> DeserializeSeed<'de> for Pruned {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pruned {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.depth + 1;
        if is_too_deep(depth) {
            return Err(too_deep());
        }
        let mut values = Vec::new();
        loop {
            let within = match &*self.within {
                // The elements of a list of objects are objects of their own.
                "items" => String::new(),
                within => within.to_owned(),
            };
            match items.next_element_seed(Self { within, depth })? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let depth = self.depth + 1;
        if is_too_deep(depth) {
            return Err(too_deep());
        }
        let mut values = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if self.skips(&key) {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let within = key.clone();
            let value = entries.next_value_seed(Self { within, depth })?;
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}
