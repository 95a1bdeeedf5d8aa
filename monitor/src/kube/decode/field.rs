//! A field of an object and the way to it.

use std::{fmt, net::IpAddr, str::FromStr as _, sync::Arc};

use monitor_core::{
    entity::{normalise, parse_net},
    event::Protocol,
};
use serde_json::Value;

use super::InvalidAddresses;

/// Characters of a value that a message shows.
const SHOWN: usize = 80;
/// Addresses of one object that are told of one by one.
const MAX_INVALID: usize = 8;

/// What is wrong with an object, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", Way(path))]
pub struct Fault {
    /// The way to the field, from the object.
    pub path: Vec<Segment>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A step on the way to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A field by name.
    Key(String),
    /// An element by number.
    Index(usize),
}

/// A field of an object, there or not. `null` is as good as absent, as to the API server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    value: Option<&'a Value>,
    parent: Option<&'a Field<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

/// Prints the way to a field: `spec.ingress[0].from: `.
struct Way<'a>(&'a [Segment]);

// === impl Way ===

impl fmt::Display for Way<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(number) => write!(formatter, "[{number}]")?,
                Segment::Key(key) if index == 0 => write!(formatter, "{}", shown(key))?,
                Segment::Key(key) => write!(formatter, ".{}", shown(key))?,
            }
        }
        if self.0.is_empty() {
            Ok(())
        } else {
            formatter.write_str(": ")
        }
    }
}

/// A text as a message shows it: on one line, and not too long.
pub(super) fn shown(text: &str) -> String {
    let mut escaped: String = text
        .chars()
        .take(SHOWN)
        .flat_map(|character| match character {
            '"' | '\'' => vec![character].into_iter(),
            _ => character.escape_debug().collect::<Vec<_>>().into_iter(),
        })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        escaped.push('…');
    }
    escaped
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

// === impl Field ===

impl<'a> Field<'a> {
    /// The object itself.
    pub(super) fn root(value: &'a Value) -> Self {
        Self {
            value: Some(value),
            parent: None,
            step: Step::Root,
        }
    }

    fn below(&'a self, step: Step<'a>, value: Option<&'a Value>) -> Field<'a> {
        Field {
            value: value.filter(|value| !value.is_null()),
            parent: Some(self),
            step,
        }
    }

    /// The field of this name; absent where this one is absent or no object.
    pub(super) fn get(&'a self, key: &'a str) -> Field<'a> {
        self.below(Step::Key(key), self.value.and_then(|value| value.get(key)))
    }

    /// Whether it is there.
    pub(super) fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// Its value, if it is there.
    pub(super) fn value(&self) -> Option<&'a Value> {
        self.value
    }

    /// What is wrong with it.
    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        let mut path = Vec::new();
        let mut at = Some(self);
        while let Some(field) = at {
            match field.step {
                Step::Root => {}
                Step::Key(key) => path.push(Segment::Key(key.to_owned())),
                Step::Index(index) => path.push(Segment::Index(index)),
            }
            at = field.parent;
        }
        path.reverse();
        Fault {
            path,
            message: message.into(),
        }
    }

    fn expected(&self, wanted: &str) -> Fault {
        match self.value {
            None => self.fault(format!("missing: expected {wanted}")),
            Some(value) => self.fault(format!("expected {wanted}, found {}", kind_of(value))),
        }
    }

    /// Its text, if it is there.
    pub(super) fn text(&self) -> Result<Option<&'a str>, Fault> {
        match self.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.expected("a string")),
        }
    }

    /// Its text.
    pub(super) fn required(&self) -> Result<&'a str, Fault> {
        self.text()?.ok_or_else(|| self.expected("a string"))
    }

    /// Its truth value; false where it is absent.
    pub(super) fn flag(&self) -> Result<bool, Fault> {
        match self.value {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            // Booleans of YAML 1.1, which the API's own tools read.
            Some(Value::String(word))
                if matches!(
                    &**word,
                    "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON"
                ) =>
            {
                Ok(true)
            }
            Some(Value::String(word))
                if matches!(
                    &**word,
                    "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF"
                ) =>
            {
                Ok(false)
            }
            Some(_) => Err(self.expected("true or false")),
        }
    }

    /// Its elements; none where it is absent.
    pub(super) fn items(&'a self) -> Result<impl Iterator<Item = Field<'a>>, Fault> {
        let items = match self.value {
            None => [].iter(),
            Some(Value::Array(items)) => items.iter(),
            Some(_) => return Err(self.expected("a list")),
        };
        Ok(items
            .enumerate()
            .map(|(index, item)| self.below(Step::Index(index), Some(item))))
    }

    /// Its fields; none where it is absent.
    pub(super) fn entries(&'a self) -> Result<impl Iterator<Item = (&'a str, Field<'a>)>, Fault> {
        let entries = match self.value {
            None => None,
            Some(Value::Object(entries)) => Some(entries),
            Some(_) => return Err(self.expected("an object")),
        };
        Ok(entries
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), self.below(Step::Key(key), Some(value)))))
    }

    /// Makes sure that it is an object or absent, and gives the names of its fields that are set.
    pub(super) fn keys(&'a self) -> Result<Vec<&'a str>, Fault> {
        Ok(self
            .entries()?
            .filter(|(_, field)| field.is_set())
            .map(|(key, _)| key)
            .collect())
    }

    /// Its value as a port number.
    pub(super) fn port(&self) -> Result<u16, Fault> {
        let Some(Value::Number(number)) = self.value else {
            return Err(self.expected("a port number from 1 to 65535"));
        };
        number
            .as_u64()
            .and_then(|number| u16::try_from(number).ok())
            .filter(|number| *number > 0)
            .ok_or_else(|| self.fault(format!("{number} is no port number from 1 to 65535")))
    }

    /// Its value as a transport protocol; TCP where it is absent.
    pub(super) fn protocol(&self) -> Result<Protocol, Fault> {
        match self.text()? {
            None | Some("TCP") => Ok(Protocol::TCP),
            Some("UDP") => Ok(Protocol::UDP),
            Some("SCTP") => Ok(Protocol::SCTP),
            Some(other) => Err(self.fault(format!(
                "`{}` is no protocol of policies: use TCP, UDP or SCTP",
                shown(other)
            ))),
        }
    }

    /// Its value as a range of addresses; host bits become zero.
    pub(super) fn net(&self) -> Result<ipnet::IpNet, Fault> {
        let text = self.required()?;
        let net = text.contains('/').then(|| parse_net(text)).flatten();
        net.ok_or_else(|| {
            self.fault(format!(
                "`{}` is no address range: write it as 192.0.2.0/24 or 2001:db8::/64",
                shown(text)
            ))
        })
    }

    /// Its value as an address, normalised; `None` where it is absent, empty or none.
    pub(super) fn ip(&self) -> Result<Option<IpAddr>, Fault> {
        let ip = self.text()?.and_then(|text| IpAddr::from_str(text).ok());
        Ok(ip.map(normalise))
    }

    /// Its value as an address, normalised; `None` where it is absent or empty, and where it is no
    /// address, which is noted.
    pub(super) fn ip_or_note(
        &self,
        invalid: &mut InvalidAddresses,
    ) -> Result<Option<IpAddr>, Fault> {
        let text = self.text()?.unwrap_or_default();
        let ip = self.ip()?;
        if ip.is_none() && !text.is_empty() {
            invalid.count += 1;
            if invalid.faults.len() < MAX_INVALID {
                let message = format!("`{}` is no IP address: it is not used", shown(text));
                invalid.faults.push(self.fault(message));
            }
        }
        Ok(ip)
    }

    /// Its value as a text to share.
    pub(super) fn shared(&self) -> Result<Option<Arc<str>>, Fault> {
        Ok(self.text()?.map(Arc::from))
    }
}
