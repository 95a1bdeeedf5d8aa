//! ARM templates: groups, with rules inside, as nested resources and as child resources.
//!
//! Expressions are replaced by their value where that is written in the template; one that is not,
//! in a field that is read, refuses the document.

use serde_json::Value;

use super::{
    Group,
    error::Problem,
    expression::Template,
    node::{Fault, Node},
    resource::{self, TYPE},
    rule::{self, Kind},
    validate,
};
use crate::nsg::{
    address::quotable,
    model::{Nsg, Rule},
};

/// A group whose rules are still being collected.
struct Draft {
    name: String,
    rules: Vec<Rule>,
    flushes: bool,
}

/// Reads the groups of a template.
pub(super) fn groups(root: &Node<'_>) -> Result<Vec<Group>, Fault> {
    // Expressions are replaced in a copy of the same form, so that places remain places.
    let template = Template::new(root.value);
    let resolved = template.resolve(root.value);
    let root = Node::root(&resolved);
    let Some(resources) = root.get("resources")? else {
        return Err(root.fault(Problem::NoGroup));
    };
    let mut drafts = Vec::new();
    let resources = nodes(&resources)?;
    for node in &resources {
        if is_of(node, TYPE)? && is_deployed(node)? {
            let draft = draft(node)?;
            drafts.push(draft);
        }
    }
    for node in &resources {
        if is_of(node, &format!("{TYPE}/securityRules"))? {
            if !is_deployed(node)? {
                continue;
            }
            let name = node.required("name")?;
            let text = name.text()?;
            let (group, rule) = text.rsplit_once('/').unwrap_or(("", text));
            let draft = drafts
                .iter_mut()
                .find(|draft| draft.name.eq_ignore_ascii_case(group))
                .ok_or_else(|| name.fault(Problem::NoParent(quotable(group))).in_rule(rule))?;
            draft.add(node, rule)?;
        } else if is_of(node, "Microsoft.Resources/deployments")? && holds_groups(node.value) {
            return Err(node.fault(Problem::NestedTemplate));
        }
    }
    let group = |draft: Draft| Group {
        kind: None,
        nsg: Nsg {
            flushes: draft.flushes,
            ..Nsg::new(draft.name, draft.rules)
        },
    };
    Ok(drafts.into_iter().map(group).collect())
}

/// Resources: a list, or, with symbolic names, an object.
fn nodes<'a>(resources: &'a Node<'a>) -> Result<Vec<Node<'a>>, Fault> {
    let Value::Object(members) = resources.value else {
        return resources.items();
    };
    let mut nodes = Vec::with_capacity(members.len());
    for key in members.keys() {
        nodes.extend(resources.get(key)?);
    }
    Ok(nodes)
}

/// Whether a resource is of a type.
fn is_of(node: &Node<'_>, expected: &str) -> Result<bool, Fault> {
    let found = node.filled("type")?;
    Ok(found.is_some_and(|found| {
        let text = found.value.as_str().unwrap_or_default();
        text.eq_ignore_ascii_case(expected)
    }))
}

/// Whether a resource is made: it is not one that exists elsewhere, and its condition holds.
fn is_deployed(node: &Node<'_>) -> Result<bool, Fault> {
    if let Some(copy) = node.filled("copy")? {
        return Err(copy.fault(Problem::Copy));
    }
    if node
        .get("existing")?
        .is_some_and(|existing| existing.value == &Value::Bool(true))
    {
        return Ok(false);
    }
    match node.filled("condition")? {
        None => Ok(true),
        Some(condition) => match condition.value {
            Value::Bool(condition) => Ok(*condition),
            _ => Err(condition.wrong("true or false")),
        },
    }
}

fn draft(node: &Node<'_>) -> Result<Draft, Fault> {
    let name = node.required("name")?;
    let mut draft = Draft {
        name: quotable(name.text()?),
        rules: Vec::new(),
        flushes: false,
    };
    if let Some(properties) = node.object("properties")? {
        if let Some(copy) = properties.filled("copy")? {
            return Err(copy.fault(Problem::Copy));
        }
        resource::add_rules(&properties, "securityRules", Kind::User, &mut draft.rules)?;
        let defaults = "defaultSecurityRules";
        resource::add_rules(&properties, defaults, Kind::Default, &mut draft.rules)?;
        draft.flushes = resource::flushes(&properties)?;
    }
    if let Some(resources) = node.filled("resources")? {
        for node in nodes(&resources)? {
            let full = format!("{TYPE}/securityRules");
            let is_rule = is_of(&node, "securityRules")? || is_of(&node, &full)?;
            if is_rule && is_deployed(&node)? {
                let name = node.required("name")?;
                let rule = name.text()?.rsplit('/').next().unwrap_or_default();
                draft.add(&node, rule)?;
            }
        }
    }
    Ok(draft)
}

// === impl Draft ===

impl Draft {
    /// Adds a child resource. The same rule twice is one: exported templates repeat every rule as
    /// a resource of its own.
    fn add(&mut self, node: &Node<'_>, name: &str) -> Result<(), Fault> {
        let rule = rule::read_named(node, name, Kind::User)?;
        if self.rules.contains(&rule) {
            return Ok(());
        }
        validate::add(&mut self.rules, rule, node)
    }
}

/// Whether groups or rules are anywhere in a value.
fn holds_groups(value: &Value) -> bool {
    match value {
        Value::String(text) => text
            .get(..TYPE.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(TYPE)),
        Value::Array(items) => items.iter().any(holds_groups),
        Value::Object(members) => members.values().any(holds_groups),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
