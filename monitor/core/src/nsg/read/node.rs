//! A place in a JSON document that knows how it was reached.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    error::{Problem, ReadError},
    line,
};
use crate::nsg::address::quotable;

/// A value and the way to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    way: Option<(&'a Node<'a>, Segment<'a>)>,
}

/// One step into a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

/// The same, after the document is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Key(String),
    Index(usize),
}

/// A problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    places: Vec<Place>,
    rule: Option<String>,
    problem: Box<Problem>,
    /// The field, where it is not the last place.
    field: Option<String>,
}

// === impl Node ===

impl<'a> Node<'a> {
    /// The document.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, way: None }
    }

    /// A value within this one.
    pub(super) fn child<'b>(&'b self, value: &'b Value, segment: Segment<'b>) -> Node<'b> {
        Node {
            value,
            way: Some((self, segment)),
        }
    }

    /// A member of an object, without regard to case; not there in anything else.
    pub(super) fn get(&self, key: &str) -> Result<Option<Node<'_>>, Fault> {
        let Value::Object(members) = self.value else {
            return Ok(None);
        };
        let mut found = None;
        for (name, value) in members {
            if name.eq_ignore_ascii_case(key) {
                let node = self.child(value, Segment::Key(name));
                if found.is_some() {
                    return Err(node.fault(Problem::Twice));
                }
                found = Some(node);
            }
        }
        Ok(found)
    }

    /// The same; null is as good as not there.
    pub(super) fn filled(&self, key: &str) -> Result<Option<Node<'_>>, Fault> {
        Ok(self.get(key)?.filter(|node| !node.value.is_null()))
    }

    /// The same; it must be an object, whose members would seem not to be there otherwise.
    pub(super) fn object(&self, key: &str) -> Result<Option<Node<'_>>, Fault> {
        match self.filled(key)? {
            Some(found) if !found.value.is_object() => Err(found.wrong("an object")),
            found => Ok(found),
        }
    }

    /// The same; it must be there.
    pub(super) fn required(&self, key: &str) -> Result<Node<'_>, Fault> {
        let found = self.filled(key)?;
        found.ok_or_else(|| Fault {
            field: Some(key.to_owned()),
            ..self.fault(Problem::Missing)
        })
    }

    /// The members of an array.
    pub(super) fn items(&self) -> Result<Vec<Node<'_>>, Fault> {
        let Value::Array(items) = self.value else {
            return Err(self.wrong("a list"));
        };
        let items = items.iter().enumerate();
        Ok(items
            .map(|(index, value)| self.child(value, Segment::Index(index)))
            .collect())
    }

    /// A text. A template's expression that could not be resolved is none.
    pub(super) fn text(&self) -> Result<&'a str, Fault> {
        match self.value {
            Value::String(text) if text.starts_with('[') && text.ends_with(']') => {
                Err(self.fault(Problem::Expression(quotable(text))))
            }
            Value::String(text) => Ok(text),
            _ => Err(self.wrong("a text")),
        }
    }

    /// That this has another type.
    pub(super) fn wrong(&self, expected: &'static str) -> Fault {
        if let Value::String(text) = self.value
            && text.starts_with('[')
            && text.ends_with(']')
        {
            return self.fault(Problem::Expression(quotable(text)));
        }
        let found = match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "true or false".to_owned(),
            Value::Number(number) => format!("a number ({})", quotable(&number.to_string())),
            Value::String(text) => format!("a text (`{}`)", quotable(text)),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        self.fault(Problem::Type { expected, found })
    }

    /// A problem here.
    pub(super) fn fault(&self, problem: impl Into<Problem>) -> Fault {
        let mut places = Vec::new();
        let mut node = self;
        while let Some((parent, segment)) = node.way {
            places.push(match segment {
                Segment::Key(key) => Place::Key(key.to_owned()),
                Segment::Index(index) => Place::Index(index),
            });
            node = parent;
        }
        places.reverse();
        Fault {
            places,
            rule: None,
            problem: Box::new(problem.into()),
            field: None,
        }
    }
}

// === impl Fault ===

impl Fault {
    /// The same, in a rule.
    pub(super) fn in_rule(mut self, name: &str) -> Self {
        self.rule.get_or_insert_with(|| quotable(name));
        self
    }

    /// The same, about a field.
    pub(super) fn in_field(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// The same with file and line.
    pub(super) fn located(self, file: &str, text: &str) -> ReadError {
        let Self {
            places,
            rule,
            problem,
            field,
        } = self;
        let field = field.or_else(|| field_of(&places));
        ReadError {
            file: file.to_owned(),
            line: line::locate(text, &places),
            rule,
            field,
            problem,
        }
    }
}

/// The last key, and the places in its lists.
pub(super) fn field_of(places: &[Place]) -> Option<String> {
    let from = places
        .iter()
        .rposition(|place| matches!(place, Place::Key(_)))?;
    let mut field = String::new();
    for place in &places[from..] {
        match place {
            Place::Key(key) => field.push_str(&quotable(key)),
            Place::Index(index) => {
                // Writing to a text cannot fail.
                let _ = write!(field, "[{index}]");
            }
        }
    }
    Some(field)
}
