//! Documents: every shape in which Azure's tools print network security groups.
//!
//! | shape | told by |
//! |---|---|
//! | REST, ARM resource | `properties.securityRules` |
//! | `az network nsg show`, `list`, PowerShell | `securityRules`, an array of such, or `value` with one |
//! | ARM template | `resources`; rules also as child resources |
//! | effective rules | `effectiveSecurityRules` |
//!
//! Nothing is read in part: the first thing that is not as it should be refuses the document, with
//! its file, line, rule and field. Keys and enumerated words are read without regard to case.

use super::{
    level::LevelKind,
    model::{Nsg, Rule},
};

mod effective;
mod error;
mod expression;
mod line;
mod misspelt;
mod node;
mod resource;
mod rule;
mod service_tags;
mod template;
mod unique;
mod validate;

pub use error::{Problem, ReadError};
pub use service_tags::{ServiceTag, read_service_tags};
pub use validate::MOST_RULES;

use node::{Fault, Node};
use rule::Kind;

/// The largest document that is read, in bytes: a list of groups of some hundred full ones.
pub const MOST_BYTES: usize = 32 << 20;

/// What a document holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Name of the file, for messages.
    file: String,
    /// Its groups.
    pub groups: Vec<Group>,
    /// What is doubtful about it: fields that are not read and that nearly have the name of one
    /// that is.
    pub warnings: Vec<ReadError>,
}

/// One group of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Where it applies, if the document says so: effective rules do.
    pub kind: Option<LevelKind>,
    /// Its rules, default rules included.
    pub nsg: Nsg,
}

/// Reads a document of any shape; `file` is for messages.
pub fn read(file: &str, text: &str) -> Result<Document, ReadError> {
    let (groups, warnings) = with_json(file, text, |root| {
        let groups = if root.get("resources")?.is_some() {
            template::groups(root)?
        } else if let Some(groups) = members(root)? {
            groups
        } else {
            vec![group(root)?]
        };
        if groups.is_empty() {
            return Err(root.fault(Problem::NoGroup));
        }
        Ok(groups)
    })?;
    Ok(Document {
        file: file.to_owned(),
        groups,
        warnings,
    })
}

/// Reads admin rules: an array of rules in the shape of a group's, `AlwaysAllow` included; and what
/// is doubtful about them, as [`Document::warnings`] tells.
pub fn read_admin_rules(file: &str, text: &str) -> Result<(Nsg, Vec<ReadError>), ReadError> {
    with_json(file, text, |root| {
        let value = root.get("value")?;
        let list = value.as_ref().unwrap_or(root).items()?;
        let mut rules: Vec<Rule> = Vec::with_capacity(list.len());
        for node in &list {
            let rule = rule::read(node, Kind::Admin)?;
            validate::add(&mut rules, rule, node)?;
        }
        Ok(Nsg::admin("admin-rules", rules))
    })
}

/// Reads a text as JSON and what is in it; faults and warnings get their file and line.
fn with_json<T>(
    file: &str,
    text: &str,
    read: impl FnOnce(&Node<'_>) -> Result<T, Fault>,
) -> Result<(T, Vec<ReadError>), ReadError> {
    // An editor on Windows may have put a byte order mark there.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MOST_BYTES {
        let size = Problem::Size {
            bytes: text.len(),
            most: MOST_BYTES,
        };
        return Err(ReadError::of_file(file, size));
    }
    let value = unique::parse(text).map_err(|failure| match failure {
        unique::Failure::Syntax(error) => ReadError::syntax(file, &error),
        unique::Failure::Twice(places, line) => ReadError::repeated(file, text, &places, line),
    })?;
    let root = Node::root(&value);
    let warnings = misspelt::check(&root).map_err(|fault| fault.located(file, text))?;
    let found = read(&root).map_err(|fault| fault.located(file, text))?;
    let located = |fault: Fault| fault.located(file, text);
    Ok((found, warnings.into_iter().map(located).collect()))
}

/// The groups of a list: an array, or `value` with one.
fn members(root: &Node<'_>) -> Result<Option<Vec<Group>>, Fault> {
    let value = root.get("value")?;
    let list = match &value {
        Some(value) => value.items()?,
        None if root.value.is_array() => root.items()?,
        None => return Ok(None),
    };
    if let Some(next) = root.get("nextLink")?.filter(|next| !next.value.is_null()) {
        return Err(next.fault(Problem::Paged));
    }
    let groups: Result<Vec<_>, _> = list.iter().map(group).collect();
    groups.map(Some)
}

fn group(node: &Node<'_>) -> Result<Group, Fault> {
    if node.get("effectiveSecurityRules")?.is_some() {
        return effective::group(node);
    }
    let nsg = resource::nsg(node)?;
    Ok(Group { kind: None, nsg })
}

// === impl Document ===

impl Document {
    /// The group of a name, or for a place: effective rules say where each applies.
    pub fn choose(self, name: Option<&str>, kind: LevelKind) -> Result<Nsg, ReadError> {
        let Self { file, groups, .. } = self;
        let names: Vec<_> = groups
            .iter()
            .map(|group| group.nsg.name.to_string())
            .collect();
        let is_chosen = |group: &Group| match name {
            Some(name) => group.nsg.name.eq_ignore_ascii_case(name),
            None => true,
        };
        let mut chosen: Vec<_> = groups.into_iter().filter(is_chosen).collect();
        if chosen.iter().any(|group| group.kind.is_some()) && chosen.len() > 1 {
            chosen.retain(|group| group.kind == Some(kind));
        }
        match (chosen.pop(), chosen.is_empty(), name) {
            (Some(group), true, _) => Ok(group.nsg),
            (None, _, Some(name)) => {
                let problem = Problem::NoSuchGroup {
                    name: super::address::quotable(name),
                    names,
                };
                Err(ReadError::of_file(&file, problem))
            }
            (None, _, None) => Err(ReadError::of_file(&file, Problem::NotFor { kind })),
            (Some(_), false, _) => Err(ReadError::of_file(&file, Problem::Several { names })),
        }
    }

    /// The groups of every place, of a document of effective rules.
    pub fn into_levels(self) -> Result<super::Levels, ReadError> {
        let Self { file, groups, .. } = self;
        let mut levels = super::Levels::default();
        for Group { kind, nsg } in groups {
            let Some(kind) = kind else {
                return Err(ReadError::of_file(&file, Problem::NotEffective));
            };
            let place = match kind {
                LevelKind::Admin => &mut levels.admin,
                LevelKind::Subnet => &mut levels.subnet,
                LevelKind::Nic => &mut levels.nic,
            };
            if let Some(first) = place.as_ref() {
                let names = vec![first.name.to_string(), nsg.name.to_string()];
                return Err(ReadError::of_file(&file, Problem::Several { names }));
            }
            *place = Some(nsg);
        }
        Ok(levels)
    }
}
