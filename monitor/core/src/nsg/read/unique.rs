//! JSON of which no object has a key twice. Readers differ in which of both they take, so a
//! document that says two things is taken for none.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::node::Place;

/// Why a text is not read.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is not JSON.
    Syntax(serde_json::Error),
    /// A key is there twice: the way to it, and the line of the second one, from 1.
    Twice(Vec<Place>, usize),
}

/// Reads a text as JSON.
pub(super) fn parse(text: &str) -> Result<Value, Failure> {
    let twice = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Unique { twice: &twice }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    read.map_err(|error| {
        let mut places = twice.into_inner();
        if places.is_empty() {
            return Failure::Syntax(error);
        }
        places.reverse();
        Failure::Twice(places, error.line())
    })
}

/// A value; the way to a key that is there twice, from within.
#[derive(Clone, Copy)]
struct Unique<'a> {
    twice: &'a RefCell<Vec<Place>>,
}

// === impl Unique ===

impl Unique<'_> {
    /// Adds a place to the way to what is there twice, if that is why reading failed.
    fn within(self, place: impl FnOnce() -> Place) {
        let mut twice = self.twice.borrow_mut();
        if !twice.is_empty() {
            twice.push(place());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            match items.next_element_seed(self) {
                Ok(Some(item)) => list.push(item),
                Ok(None) => return Ok(Value::Array(list)),
                Err(error) => {
                    self.within(|| Place::Index(list.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if object.contains_key(&key) {
                self.twice.borrow_mut().push(Place::Key(key));
                return Err(A::Error::custom("a key is there twice"));
            }
            match members.next_value_seed(self) {
                Ok(value) => {
                    object.insert(key, value);
                }
                Err(error) => {
                    self.within(|| Place::Key(key));
                    return Err(error);
                }
            }
        }
        Ok(Value::Object(object))
    }
}
