//! Why a document is refused.

use std::fmt;

use serde_json::Value;

use super::node::{self, Place};
use crate::nsg::{
    address::{AddressError, quotable},
    level::LevelKind,
    model::Direction,
};

/// Why a document is refused, and where in it the reason is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The rule.
    pub rule: Option<String>,
    /// The field, or the way to it.
    pub field: Option<String>,
    /// What is wrong with it.
    pub problem: Box<Problem>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not JSON.
    #[error("not readable as JSON: {0}")]
    Syntax(String),
    /// Too large.
    #[error("{bytes} bytes, at most {most} are read")]
    Size {
        /// Its size.
        bytes: usize,
        /// The largest.
        most: usize,
    },
    /// JSON of another kind.
    #[error(
        "no network security group: expected output of `az network nsg show` or `list`, a REST \
         resource, an ARM template or effective rules"
    )]
    NoGroup,
    /// A resource of another kind.
    #[error("resource type `{0}` is not a network security group")]
    OtherType(String),
    /// Several groups.
    #[error("has several groups, choose one as FILE#NAME: {}", names.join(", "))]
    Several {
        /// Their names.
        names: Vec<String>,
    },
    /// Not that group.
    #[error("has no group `{name}`, only {}", names.join(", "))]
    NoSuchGroup {
        /// What was asked for.
        name: String,
        /// What there is.
        names: Vec<String>,
    },
    /// Effective rules, but none for this place.
    #[error("has no effective rules for the {kind}")]
    NotFor {
        /// The place.
        kind: LevelKind,
    },
    /// Not effective rules.
    #[error(
        "does not say where its groups apply: give output of `az network nic list-effective-nsg`, \
         or use --nsg subnet=FILE and --nsg nic=FILE"
    )]
    NotEffective,
    /// There is more.
    #[error("only the first page of an answer: fetch all pages and join them")]
    Paged,
    /// A key that must be there.
    #[error("is missing")]
    Missing,
    /// The same tag twice.
    #[error("service tag `{0}` is there twice, and only one of both can be meant")]
    TagTwice(String),
    /// The same key twice, in different letter case.
    #[error("is there twice, in different letter case")]
    Twice,
    /// The same key twice.
    #[error("is there twice, and only one of both can be meant")]
    Repeated,
    /// Nearly the name of a field.
    #[error("is not known, and nearly the name of `{meant}`: is that meant?")]
    Misspelt {
        /// That field.
        meant: &'static str,
    },
    /// Another type of value.
    #[error("must be {expected}, not {found}")]
    Type {
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Not one of a set of words.
    #[error("`{value}` is not one of {expected}")]
    Word {
        /// What it is.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
    /// Not an address or port.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A priority that no rule can have.
    #[error("{priority} is not between {from} and {to}")]
    Priority {
        /// What it is.
        priority: i128,
        /// The lowest.
        from: u16,
        /// The highest.
        to: u16,
    },
    /// Two rules of a direction with one priority.
    #[error("{priority} is also the priority of rule `{other}` ({direction})")]
    SamePriority {
        /// The priority.
        priority: u16,
        /// The other rule.
        other: String,
        /// Their direction.
        direction: Direction,
    },
    /// More rules than a group has.
    #[error(
        "is one more than the {} rules of a group that are read",
        super::MOST_RULES
    )]
    ManyRules,
    /// Two rules with one name.
    #[error("there are two rules of this name, and they differ")]
    SameName,
    /// A name that no rule can have.
    #[error("a name has 1 to 80 characters, this has {0}")]
    NameLength(usize),
    /// No address.
    #[error(
        "names no address: one of AddressPrefix, AddressPrefixes or ApplicationSecurityGroups is needed"
    )]
    NoAddress,
    /// No port.
    #[error("names no port: one of PortRange or PortRanges is needed")]
    NoPort,
    /// IPv4 and IPv6.
    #[error("mixes IPv4 and IPv6 addresses: a rule has one family")]
    MixedFamilies,
    /// A tag in a list.
    #[error("`{0}` in a list: a rule has `*` or one service tag, and no list of them")]
    TagInList(String),
    /// A template expression.
    #[error(
        "template expression `{0}` has no literal value: give its parameter a defaultValue, or \
         use the deployed group"
    )]
    Expression(String),
    /// A loop in a template.
    #[error("makes resources in a loop: use the deployed group")]
    Copy,
    /// A template in a template.
    #[error("has a nested template with network security groups: use the deployed groups")]
    NestedTemplate,
    /// A rule for a group that is elsewhere.
    #[error("belongs to group `{0}`, which is not in this template")]
    NoParent(String),
}

// === impl ReadError ===

impl ReadError {
    /// About a whole file.
    pub(super) fn of_file(file: &str, problem: Problem) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            rule: None,
            field: None,
            problem: Box::new(problem),
        }
    }

    /// About a key that is there twice in one object; its line is that of the second one.
    pub(super) fn repeated(file: &str, text: &str, places: &[Place], line: usize) -> Self {
        // Only a message is made of this: it does not matter which of both keys is read.
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        Self {
            line: Some(line),
            rule: rule_at(&value, places),
            field: node::field_of(places),
            ..Self::of_file(file, Problem::Repeated)
        }
    }

    /// About a text that is not JSON.
    pub(super) fn syntax(file: &str, error: &serde_json::Error) -> Self {
        let line = (error.line() > 0).then(|| error.line());
        let message = error.to_string();
        // The line is said before.
        let message = message.split(" at line ").next().unwrap_or_default();
        let message = match line {
            Some(_) => format!("{}, column {}", quotable(message), error.column()),
            None => quotable(message),
        };
        Self {
            line,
            ..Self::of_file(file, Problem::Syntax(message))
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            rule,
            field,
            problem,
        } = self;
        formatter.write_str(file)?;
        if let Some(line) = line {
            write!(formatter, ":{line}")?;
        }
        if let Some(rule) = rule {
            write!(formatter, ": rule `{rule}`")?;
        }
        if let Some(field) = field {
            write!(formatter, ": field `{field}`")?;
        }
        write!(formatter, ": {problem}")
    }
}

impl std::error::Error for ReadError {}

/// The name of the rule that a place is in.
fn rule_at(root: &Value, places: &[Place]) -> Option<String> {
    let (mut value, mut name, mut rule) = (root, None, None);
    for place in places {
        if let Value::Object(members) = value {
            let own = members.get("name").and_then(Value::as_str);
            name = own.or(name);
            if members.contains_key("priority") && members.contains_key("direction") {
                rule = name;
            }
        }
        value = match place {
            Place::Key(key) => value.get(key)?,
            Place::Index(index) => {
                name = None;
                value.get(index)?
            }
        };
    }
    rule.map(quotable)
}
