//! Rules that decide nothing, and rules that decide what another one decides.

use ipnet::IpNet;

use super::{
    Check, Issue, list,
    region::{Boxed, Region, Regions},
};
use crate::nsg::{
    interval::{Family, IntervalSet},
    model::{Direction, Origin, RuleAccess},
    names::{self, Term},
};

/// Rules of which nothing is left when those before them are cut off.
pub(super) fn shadowed(regions: &Regions<'_>, issues: &mut Vec<Issue>) {
    for (index, boxed) in regions.rules.iter().enumerate() {
        let rule = &boxed.resolved.rule;
        if rule.origin == Origin::Default || boxed.families.iter().all(Region::is_empty) {
            continue;
        }
        let before = &regions.rules[..index];
        let Some(by) = covering(boxed, before) else {
            continue;
        };
        let names: Vec<_> = by.iter().map(|rule| &*rule.resolved.rule.name).collect();
        let is_opposed = by
            .iter()
            .any(|other| other.resolved.rule.access != rule.access);
        let why = format!(
            "all that it matches is decided before it is asked, by {}",
            list(&names)
        );
        let suggestion = if is_opposed {
            let would = match rule.access {
                RuleAccess::Deny => "deny",
                RuleAccess::Allow | RuleAccess::AlwaysAllow => "allow",
            };
            format!(
                "it would {would}, and at least one of them does otherwise: if it is to have effect, \
                 give it a lower priority number than theirs; else remove it"
            )
        } else {
            "remove it: nothing changes without it".to_owned()
        };
        issues.push(Issue::new(
            Check::Shadowed,
            regions.level,
            rule,
            why,
            suggestion,
        ));
    }
}

/// The rules that together take everything from a rule; `None` where something is left.
fn covering<'r, 'a>(boxed: &Boxed<'a>, before: &'r [Boxed<'a>]) -> Option<Vec<&'r Boxed<'a>>> {
    let mut by: Vec<&Boxed<'a>> = Vec::new();
    for (family, region) in boxed.families.iter().enumerate() {
        if region.is_empty() {
            continue;
        }
        let mut pieces = vec![region.clone()];
        for other in before {
            let theirs = &other.families[family];
            if !pieces.iter().any(|piece| piece.meets(theirs)) {
                continue;
            }
            pieces = Region::cut(pieces, theirs)?;
            if !by.iter().any(|known| std::ptr::eq(*known, other)) {
                by.push(other);
            }
            if pieces.is_empty() {
                break;
            }
        }
        if !pieces.is_empty() {
            return None;
        }
    }
    Some(by)
}

/// Rules that nothing can match.
pub(super) fn never_matching(
    regions: &Regions<'_>,
    network: Option<&[IpNet]>,
    issues: &mut Vec<Issue>,
) {
    for boxed in &regions.rules {
        let rule = &boxed.resolved.rule;
        if rule.origin == Origin::Default {
            continue;
        }
        let found = empty(boxed)
            .or_else(|| foreign(boxed, regions.direction, network))
            .or_else(|| platform(boxed, regions.direction));
        if let Some((why, suggestion)) = found {
            let (why, suggestion) = (why.to_owned(), suggestion.to_owned());
            issues.push(Issue::new(
                Check::NeverMatches,
                regions.level,
                rule,
                why,
                suggestion,
            ));
        }
    }
}

type Text = (&'static str, &'static str);

/// A field that stands for nothing.
fn empty(boxed: &Boxed<'_>) -> Option<Text> {
    if !boxed.families.iter().all(Region::is_empty) {
        return None;
    }
    if boxed
        .families
        .iter()
        .all(|region| region.protocols().is_empty())
    {
        return Some((
            "its protocol has no ports, and it limits ports",
            "write `*` for its ports",
        ));
    }
    let is_nowhere = |side: fn(&Region) -> &IntervalSet| {
        boxed.families.iter().all(|region| side(region).is_empty())
    };
    if is_nowhere(Region::source) {
        return Some((
            "its source stands for no address",
            "remove it, or define what its source stands for",
        ));
    }
    if is_nowhere(Region::destination) {
        return Some((
            "its destination stands for no address",
            "remove it, or define what its destination stands for",
        ));
    }
    Some((
        "its source and its destination have no address family in common",
        "give both ends addresses of one family",
    ))
}

/// A private address at the local end that is not the network's. Public ones may be frontends of a
/// load balancer with floating IP.
fn foreign(boxed: &Boxed<'_>, direction: Direction, network: Option<&[IpNet]>) -> Option<Text> {
    let network = network?;
    let (local, terms): (fn(&Region) -> &IntervalSet, _) = match direction {
        Direction::Inbound => (Region::destination, &boxed.resolved.destination),
        Direction::Outbound => (Region::source, &boxed.resolved.source),
    };
    if !terms
        .iter()
        .all(|term| matches!(term, Term::Net(_) | Term::Nets(_)))
    {
        return None;
    }
    let is_foreign = Family::ALL
        .iter()
        .zip(&boxed.families)
        .all(|(family, region)| {
            let public = Term::Internet(Some([].into())).space(*family).maybe;
            let own = family.ranges(network);
            !local(region).meets(&own) && !local(region).meets(&public)
        });
    let text = match direction {
        Direction::Inbound => (
            "its destination is a private range outside VirtualNetwork",
            "correct its destination, or give the missing --virtual-network",
        ),
        Direction::Outbound => (
            "its source is a private range outside VirtualNetwork",
            "correct its source, or give the missing --virtual-network",
        ),
    };
    is_foreign.then_some(text)
}

/// A rule that names the address of a platform service, which rules do not apply to.
fn platform(boxed: &Boxed<'_>, direction: Direction) -> Option<Text> {
    let is_platform = |term: &Term| match term {
        Term::Net(IpNet::V4(net)) => {
            net.prefix_len() == 32 && [names::HOST, names::METADATA].contains(&net.addr())
        }
        _ => false,
    };
    let is_denied = boxed.resolved.rule.access == RuleAccess::Deny;
    let terms = &boxed.resolved.destination;
    (direction == Direction::Outbound && is_denied && terms.iter().all(is_platform)).then_some((
        "rules for the address do not apply to the platform's services there",
        "name the service's tag instead: AzurePlatformDNS or AzurePlatformIMDS",
    ))
}

/// Rules of the user that allow, in part, what another one allows.
pub(super) fn overlapping(regions: &Regions<'_>, issues: &mut Vec<Issue>) {
    let allows = regions.rules.iter().filter(|boxed| {
        let rule = &boxed.resolved.rule;
        rule.access != RuleAccess::Deny && rule.origin != Origin::Default
    });
    let allows: Vec<_> = allows.collect();
    for (index, boxed) in allows.iter().enumerate() {
        let meets = |other: &&&Boxed<'_>| {
            let mut pairs = boxed.families.iter().zip(&other.families);
            pairs.any(|(mine, theirs)| mine.meets(theirs))
        };
        let others: Vec<_> = allows[..index].iter().filter(meets).collect();
        let Some(first) = others.first() else {
            continue;
        };
        let first = &first.resolved.rule;
        let names: Vec<_> = others
            .iter()
            .map(|other| &*other.resolved.rule.name)
            .collect();
        let why = format!("allows, in part, what {} already allows", list(&names));
        let suggestion = format!(
            "removing one of the two leaves open what the other allows: merge it with {}, or make \
             their ranges disjoint",
            first.name
        );
        let rule = &boxed.resolved.rule;
        issues.push(Issue::new(
            Check::OverlappingAllows,
            regions.level,
            rule,
            why,
            suggestion,
        ));
    }
}
