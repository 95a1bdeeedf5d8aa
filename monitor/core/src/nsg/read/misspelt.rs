//! Fields whose names are nearly those of fields that are read.
//!
//! Azure adds fields, so what is not known is left alone. A field that differs from a known one by
//! a letter or two is a slip of the pen: a rule would be wider than it was written. Where nothing
//! else says what it should have said the document is refused, else there is a warning.

use serde_json::{Map, Value};

use super::{
    error::Problem,
    node::{Fault, Node, Segment},
};

/// Fields that say the same thing, in any letter case: one of them is enough.
type Group = &'static [&'static str];

/// Fields of rules.
const RULE: [Group; 11] = [
    &["name"],
    &["priority"],
    &["direction"],
    &["access"],
    &["protocol"],
    &[
        "sourceAddressPrefix",
        "sourceAddressPrefixes",
        "sourceApplicationSecurityGroups",
        "sources",
    ],
    &[
        "destinationAddressPrefix",
        "destinationAddressPrefixes",
        "destinationApplicationSecurityGroups",
        "destinations",
    ],
    &["sourcePortRange", "sourcePortRanges"],
    &["destinationPortRange", "destinationPortRanges"],
    &["expandedSourceAddressPrefix"],
    &["expandedDestinationAddressPrefix"],
];
/// Fields of groups.
const GROUP: [Group; 3] = [
    &["securityRules"],
    &["defaultSecurityRules"],
    &["effectiveSecurityRules"],
];
/// Objects whose members have the names that users gave them.
const FREE: [&str; 5] = ["tags", "parameters", "variables", "outputs", "metadata"];
/// An object that has two of these, and one of the first two, is a rule.
const MARKS: [&str; 4] = ["priority", "access", "direction", "protocol"];
/// Warnings that are kept.
const MOST_WARNINGS: usize = 50;

/// Looks through a document. The first field that should have said what nothing else does is
/// a fault; the others are returned.
pub(super) fn check(root: &Node<'_>) -> Result<Vec<Fault>, Fault> {
    let mut warnings = Vec::new();
    walk(root, None, false, &mut warnings)?;
    Ok(warnings)
}

fn walk(
    node: &Node<'_>,
    name: Option<&str>,
    is_free: bool,
    warnings: &mut Vec<Fault>,
) -> Result<(), Fault> {
    match node.value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let child = node.child(item, Segment::Index(index));
                walk(&child, None, false, warnings)?;
            }
        }
        Value::Object(members) => {
            let own = members
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case("name"));
            // REST has the name outside of the properties.
            let name = own.and_then(|(_, value)| value.as_str()).or(name);
            if !is_free && is_rule(members) {
                fields(node, members, &RULE, name, warnings)?;
            }
            if !is_free {
                fields(node, members, &GROUP, None, warnings)?;
            }
            for (key, value) in members {
                let below = key.eq_ignore_ascii_case("properties").then_some(name);
                let child = node.child(value, Segment::Key(key));
                let is_free = FREE.iter().any(|name| key.eq_ignore_ascii_case(name));
                walk(&child, below.flatten(), is_free, warnings)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn is_rule(members: &Map<String, Value>) -> bool {
    let has = |mark: &&&str| members.keys().any(|key| key.eq_ignore_ascii_case(mark));
    let is_judging = MARKS[..2].iter().any(|mark| has(&mark));
    is_judging && MARKS.iter().filter(has).count() >= 2
}

fn fields(
    node: &Node<'_>,
    members: &Map<String, Value>,
    groups: &[Group],
    rule: Option<&str>,
    warnings: &mut Vec<Fault>,
) -> Result<(), Fault> {
    let is_known = |key: &str| {
        let mut names = groups.iter().copied().flatten();
        names.any(|name| name.eq_ignore_ascii_case(key))
    };
    for (key, value) in members {
        if is_known(key) {
            continue;
        }
        let near = groups.iter().find_map(|group| {
            let meant = group.iter().find(|name| is_near(key, name))?;
            Some((*group, *meant))
        });
        let Some((group, meant)) = near else { continue };
        let mut fault = node
            .child(value, Segment::Key(key))
            .fault(Problem::Misspelt { meant });
        if let Some(rule) = rule {
            fault = fault.in_rule(rule);
        }
        let says = |(key, value): (&String, &Value)| {
            let is_empty = match value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.is_empty(),
                _ => false,
            };
            !is_empty && group.iter().any(|name| name.eq_ignore_ascii_case(key))
        };
        if !members.iter().any(says) {
            return Err(fault);
        }
        if warnings.len() < MOST_WARNINGS {
            warnings.push(fault);
        }
    }
    Ok(())
}

/// Whether a key is a known name with a slip: up to two letters changed, missing or too many, in
/// short names one; letter case, `_` and `-` do not count.
fn is_near(key: &str, name: &str) -> bool {
    let plain = |text: &str| -> Vec<u8> {
        let bytes = text.bytes().filter(|byte| !b"_-".contains(byte));
        bytes.map(|byte| byte.to_ascii_lowercase()).collect()
    };
    let (key, name) = (plain(key), plain(name));
    let most = if name.len() < 8 { 1 } else { 2 };
    key.len().abs_diff(name.len()) <= most && distance(&key, &name) <= most
}

/// Letters that must be changed, put in, taken out or, if neighbours, exchanged (optimal string
/// alignment).
fn distance(from: &[u8], to: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let change = last[column] + usize::from(a != b);
            let mut least = change.min(last[column + 1] + 1).min(next[column] + 1);
            let is_swap = row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b;
            if is_swap {
                least = least.min(before[column - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_near_and_other_fields_are_not() {
        for (key, name) in [
            ("sourceAdressPrefix", "sourceAddressPrefix"),
            ("source_address_prefix", "sourceAddressPrefix"),
            ("destinationPortRnage", "destinationPortRange"),
            ("destinationPortsRange", "destinationPortRange"),
            ("prority", "priority"),
            ("acess", "access"),
            ("souces", "sources"),
        ] {
            assert!(is_near(key, name), "{key}");
        }
        let names = || RULE.iter().chain(&GROUP).copied().flatten();
        for key in [
            "id",
            "etag",
            "type",
            "tags",
            "kind",
            "description",
            "provisioningState",
            "resourceGroup",
            "systemData",
            "location",
            "networkInterfaces",
            "subnets",
            "flowLogs",
            "dependsOn",
            "sourcePortRangesText",
        ] {
            assert!(!names().any(|name| is_near(key, name)), "{key}");
        }
    }
}
