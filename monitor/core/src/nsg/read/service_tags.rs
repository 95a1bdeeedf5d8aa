//! Service tags: the weekly file and the discovery API's answer.

use std::{borrow::Cow, collections::HashSet, fmt, sync::Arc};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use super::error::{Problem, ReadError};
use crate::{entity::parse_net, nsg::address::quotable};

/// The largest file that is read, in bytes. The public cloud's has some five million.
const MOST_BYTES: usize = 64 << 20;

/// What the file is read for.
#[derive(Deserialize)]
#[serde(expecting = "an object with `values`")]
struct File<'a> {
    #[serde(borrow, alias = "Values")]
    values: Vec<Tag<'a>>,
    /// Where the rest of the discovery API's answer is.
    #[serde(borrow, default, rename = "nextLink", alias = "NextLink")]
    next: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with `name` and `properties`")]
struct Tag<'a> {
    #[serde(borrow, alias = "Name")]
    name: Cow<'a, str>,
    #[serde(alias = "Properties")]
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with `addressPrefixes`")]
struct Properties {
    #[serde(rename = "addressPrefixes", alias = "AddressPrefixes")]
    prefixes: Vec<Prefix>,
}

struct Prefix(IpNet);

/// A service tag and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTag {
    /// Its name.
    pub name: String,
    /// Its address ranges, of both families.
    pub prefixes: Arc<[IpNet]>,
}

/// Reads a service tag file; `file` is for messages.
pub fn read_service_tags(file: &str, text: &str) -> Result<Vec<ServiceTag>, ReadError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MOST_BYTES {
        let size = Problem::Size {
            bytes: text.len(),
            most: MOST_BYTES,
        };
        return Err(ReadError::of_file(file, size));
    }
    let File { values, next } =
        serde_json::from_str(text).map_err(|error| ReadError::syntax(file, &error))?;
    if next.is_some_and(|next| !next.is_empty()) {
        return Err(ReadError {
            field: Some("nextLink".to_owned()),
            ..ReadError::of_file(file, Problem::Paged)
        });
    }
    let mut names = HashSet::new();
    for tag in &values {
        if !names.insert(tag.name.to_ascii_lowercase()) {
            let problem = Problem::TagTwice(quotable(&tag.name));
            return Err(ReadError::of_file(file, problem));
        }
    }
    let tag = |Tag { name, properties }: Tag<'_>| {
        let nets = properties.prefixes.into_iter().map(|Prefix(net)| net);
        ServiceTag {
            name: name.into_owned(),
            prefixes: nets.collect(),
        }
    };
    Ok(values.into_iter().map(tag).collect())
}

// === impl Prefix ===

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Prefix;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an address range")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Prefix, E> {
                parse_net(text).map(Prefix).ok_or_else(|| {
                    let text = quotable(text);
                    E::custom(format_args!(
                        "`{text}` in addressPrefixes is no address range"
                    ))
                })
            }
        }

        deserializer.deserialize_str(Text)
    }
}
