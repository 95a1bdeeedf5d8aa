//! Effective rules: flat, with tags expanded, one group for each place that has one.

use super::{
    Group,
    error::Problem,
    node::{Fault, Node},
    resource,
    rule::{self, Kind},
    validate,
};
use crate::nsg::{
    level::LevelKind,
    model::{Nsg, Rule},
};

/// Reads a group of an effective document.
pub(super) fn group(node: &Node<'_>) -> Result<Group, Fault> {
    let kind = kind(node)?;
    let list = node.required("effectiveSecurityRules")?;
    let mut rules: Vec<Rule> = Vec::new();
    for node in list.items()? {
        let rule = match kind {
            Some(LevelKind::Admin) => rule::read(&node, Kind::EffectiveAdmin)?,
            _ => rule::read(&node, Kind::Effective)?,
        };
        validate::add(&mut rules, rule, &node)?;
    }
    let name = match node.object("networkSecurityGroup")? {
        Some(group) => resource::name(&group)?,
        None => "effective".to_owned(),
    };
    let nsg = match kind {
        Some(LevelKind::Admin) => Nsg::admin(name, rules),
        _ => Nsg::new(name, rules),
    };
    Ok(Group { kind, nsg })
}

/// Where the group applies.
fn kind(node: &Node<'_>) -> Result<Option<LevelKind>, Fault> {
    let Some(association) = node.filled("association")? else {
        return Ok(None);
    };
    let mut found = None;
    for (key, kind) in [
        ("subnet", LevelKind::Subnet),
        ("networkInterface", LevelKind::Nic),
        ("networkManager", LevelKind::Admin),
    ] {
        if association.filled(key)?.is_some() {
            if found.is_some() {
                return Err(association.fault(Problem::Type {
                    expected: "one of subnet, networkInterface and networkManager",
                    found: "several".to_owned(),
                }));
            }
            found = Some(kind);
        }
    }
    Ok(found)
}
