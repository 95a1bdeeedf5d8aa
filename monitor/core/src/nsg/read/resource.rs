//! A group as a resource: REST nests everything below `properties`, the CLI and PowerShell do not.

use serde_json::Value;

use super::{
    error::Problem,
    node::{Fault, Node},
    rule::{self, Kind},
    validate,
};
use crate::nsg::{
    address::quotable,
    model::{Nsg, Rule},
};

/// The type of the resource.
pub(super) const TYPE: &str = "Microsoft.Network/networkSecurityGroups";

/// Reads a group.
pub(super) fn nsg(node: &Node<'_>) -> Result<Nsg, Fault> {
    if !node.value.is_object() {
        return Err(node.fault(Problem::NoGroup));
    }
    let is_typed = match node.filled("type")? {
        Some(found) => {
            let text = found.text()?;
            if !text.eq_ignore_ascii_case(TYPE) {
                return Err(found.fault(Problem::OtherType(quotable(text))));
            }
            true
        }
        None => false,
    };
    let properties = node.object("properties")?;
    let body = properties.as_ref().unwrap_or(node);
    // A group without either is one that whoever wrote the document left out (`az resource list`): as
    // one without rules it would allow what its rules deny.
    if body.filled("defaultSecurityRules")?.is_none() && body.filled("securityRules")?.is_none() {
        if !is_typed {
            return Err(node.fault(Problem::NoGroup));
        }
        body.required("securityRules")?;
    }
    let mut rules = Vec::new();
    add_rules(body, "securityRules", Kind::User, &mut rules)?;
    add_rules(body, "defaultSecurityRules", Kind::Default, &mut rules)?;
    Ok(Nsg {
        flushes: flushes(body)?,
        ..Nsg::new(name(node)?, rules)
    })
}

/// Whether changed rules hold for open connections.
pub(super) fn flushes(body: &Node<'_>) -> Result<bool, Fault> {
    match body.filled("flushConnection")? {
        None => Ok(false),
        Some(found) => match found.value {
            Value::Bool(flushes) => Ok(*flushes),
            _ => Err(found.wrong("true or false")),
        },
    }
}

/// Reads the rules of a key.
pub(super) fn add_rules(
    body: &Node<'_>,
    key: &str,
    kind: Kind,
    rules: &mut Vec<Rule>,
) -> Result<(), Fault> {
    let Some(list) = body.filled(key)? else {
        return Ok(());
    };
    for node in list.items()? {
        let rule = rule::read(&node, kind)?;
        validate::add(rules, rule, &node)?;
    }
    Ok(())
}

/// The name of a resource, or the end of its id.
pub(super) fn name(node: &Node<'_>) -> Result<String, Fault> {
    if let Some(name) = node.filled("name")? {
        return Ok(quotable(name.text()?));
    }
    let id = node.filled("id")?;
    let Some(id) = id else {
        return Ok("unnamed".to_owned());
    };
    let last = id.text()?.rsplit('/').next().unwrap_or_default();
    Ok(quotable(last))
}
