//! What a platform needs and rules take away.
//!
//! What AKS needs, and which documents say so, is in `profile/aks.toml`.

use super::{
    Check, Issue, allow_before,
    region::{Region, Regions},
};
use crate::nsg::{
    Address,
    interval::{Family, IntervalSet},
    level::LevelKind,
    model::{Rule, RuleAccess},
    names::Space,
    profile::{Extent, Needs, Resolved},
};

/// Needed traffic that a rule denies.
pub(super) fn blocked(regions: &Regions<'_>, needs: &Needs, issues: &mut Vec<Issue>) {
    if regions.level.kind == LevelKind::Admin {
        return;
    }
    let mut told: Vec<(Check, &str, usize)> = Vec::new();
    let asked = |need: &&Resolved| need.direction == regions.direction;
    for need in needs.resolved.iter().filter(asked) {
        let denied = denied(regions, need);
        let check = need.need.reported_as();
        for index in denied {
            let why = &*need.need.why;
            if told.contains(&(check, why, index)) {
                continue;
            }
            told.push((check, why, index));
            let rule = &regions.rules[index].resolved.rule;
            let denies = match need.need.extent {
                Extent::All => "denies",
                Extent::Some => "denies all of",
            };
            let text = match need.need.check {
                Some(_) => format!("{denies} {why}"),
                None => format!("{denies} {why} (need `{}`)", need.need.name),
            };
            let suggestion = allow_before(rule);
            issues.push(Issue::new(check, regions.level, rule, text, suggestion));
        }
    }
}

/// The rules that deny a need, or a part of it.
fn denied(regions: &Regions<'_>, need: &Resolved) -> Vec<usize> {
    let mut denied: Vec<usize> = Vec::new();
    let mut is_allowed = false;
    for (place, family) in Family::ALL.into_iter().enumerate() {
        let mut pieces = vec![region(need, family)];
        for (index, boxed) in regions.rules.iter().enumerate() {
            let (rule, theirs) = (&boxed.resolved.rule, &boxed.families[place]);
            if !is_about(need, rule) || !pieces.iter().any(|piece| piece.meets(theirs)) {
                continue;
            }
            if rule.access != RuleAccess::Deny {
                is_allowed = true;
            } else if !denied.contains(&index) {
                denied.push(index);
            }
            match (Region::cut(pieces, theirs), need.need.extent) {
                (Some(left), _) => pieces = left,
                // A later rule may allow some of it.
                (None, Extent::Some) => return Vec::new(),
                (None, Extent::All) => break,
            }
        }
    }
    match need.need.extent {
        Extent::All => denied,
        Extent::Some if is_allowed => Vec::new(),
        // The one that takes what the others left.
        Extent::Some => denied.pop().into_iter().collect(),
    }
}

/// Platform services are stopped only by rules that name them.
fn is_about(need: &Resolved, rule: &Rule) -> bool {
    let names = |service: &String| {
        rule.destination.iter().any(|address| match address {
            Address::Tag { name, .. } => name.eq_ignore_ascii_case(service),
            _ => false,
        })
    };
    need.service.as_ref().is_none_or(names)
}

fn region(need: &Resolved, family: Family) -> Region {
    let numbers = need.need.protocols.iter();
    let ports = need.ports.ranges().iter();
    Region::new(
        numbers
            .map(|protocol| (protocol.0.into(), protocol.0.into()))
            .collect::<IntervalSet>(),
        ports
            .map(|range| (u128::from(*range.start()), u128::from(*range.end())))
            .collect(),
        Space::of(&need.from, family).yes,
        Space::of(&need.to, family).yes,
    )
}
