//! The line of a field: read again, only when there is something to tell of it.

use std::fmt;

use serde::{
    Deserialize as _,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Options, Spanned};

use super::super::decode::Segment;

/// Line of the field of a document, from 1; `None` if it is not there.
pub(super) fn line(text: &str, options: Options, way: &[Segment]) -> Option<u64> {
    let mut found = None;
    let way = Way {
        rest: way,
        found: &mut found,
    };
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |document| {
        way.deserialize(document)
    });
    read.ok()?;
    found
}

/// Goes to a field and notes its line.
struct Way<'a> {
    rest: &'a [Segment],
    found: &'a mut Option<u64>,
}

// === impl Way ===

impl<'de> DeserializeSeed<'de> for Way<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.rest.is_empty() {
            let spanned = Spanned::<IgnoredAny>::deserialize(deserializer)?;
            *self.found = Some(spanned.referenced.line());
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Way<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list or an object")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let wanted = match self.rest.first() {
            Some(Segment::Index(index)) => Some(*index),
            _ => None,
        };
        let Self { rest, found } = self;
        for index in 0_usize.. {
            let is_there = if Some(index) == wanted {
                let way = Way {
                    rest: rest.get(1..).unwrap_or_default(),
                    found: &mut *found,
                };
                items.next_element_seed(way)?.is_some()
            } else {
                items.next_element::<IgnoredAny>()?.is_some()
            };
            if !is_there {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Self { rest, found } = self;
        while let Some(key) = entries.next_key::<String>()? {
            let is_wanted = matches!(rest.first(), Some(Segment::Key(wanted)) if *wanted == key);
            if is_wanted {
                let way = Way {
                    rest: rest.get(1..).unwrap_or_default(),
                    found: &mut *found,
                };
                entries.next_value_seed(way)?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}
