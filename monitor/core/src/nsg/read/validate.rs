//! What holds among the parts of a rule, and among rules.

use super::{
    error::Problem,
    node::{Fault, Node},
};
use crate::nsg::{
    address::{Address, quotable},
    model::Rule,
};

/// The most rules of a group that are read, default rules included; Azure allows 1,000 of users.
pub const MOST_RULES: usize = 2_000;

/// Adds a rule to those of its group.
pub(super) fn add(rules: &mut Vec<Rule>, rule: Rule, node: &Node<'_>) -> Result<(), Fault> {
    for other in rules.iter() {
        let is_same_name = other.name.eq_ignore_ascii_case(&rule.name);
        if is_same_name && other.origin == rule.origin {
            let fault = node.fault(Problem::SameName).in_field("name");
            return Err(fault.in_rule(&rule.name));
        }
        if other.direction == rule.direction && other.priority == rule.priority {
            let problem = Problem::SamePriority {
                priority: rule.priority,
                other: quotable(&other.name),
                direction: rule.direction,
            };
            return Err(at_priority(node, problem)?.in_rule(&rule.name));
        }
    }
    if rules.len() >= MOST_RULES {
        return Err(node.fault(Problem::ManyRules).in_rule(&rule.name));
    }
    rules.push(rule);
    Ok(())
}

/// A problem with the priority of a rule.
fn at_priority(node: &Node<'_>, problem: Problem) -> Result<Fault, Fault> {
    let properties = node.filled("properties")?;
    let priority = properties.as_ref().unwrap_or(node).required("priority")?;
    Ok(priority.fault(problem))
}

/// A rule has one address family; else the field with the second one.
pub(super) fn families(rule: &Rule) -> Result<(), &'static str> {
    let mut family = None;
    for (field, addresses) in [
        ("sourceAddressPrefixes", &rule.source),
        ("destinationAddressPrefixes", &rule.destination),
    ] {
        for is_v6 in addresses.iter().filter_map(Address::is_v6) {
            if family.is_some_and(|family| family != is_v6) {
                return Err(field);
            }
            family = Some(is_v6);
        }
    }
    Ok(())
}
