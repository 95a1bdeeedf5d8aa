//! What was not looked for, since something is missing that nobody has said.

use std::{fmt::Write as _, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Check, Options, idle, region::Regions};
use crate::nsg::{
    address::VIRTUAL_NETWORK,
    chain::Chain,
    model::{Direction, Origin},
    names::Term,
    profile::PODS,
};

/// A check that could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unchecked {
    /// What was not looked for.
    pub check: Check,
    /// Of which need of the profile; absent where it is no need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<Arc<str>>,
    /// The name that nobody has defined; `pods` where those of the virtual network were looked at,
    /// and others were not named.
    pub missing: String,
}

/// What [`super::lint`] does not look for.
pub fn unchecked(chain: &Chain, options: &Options<'_>) -> Vec<Unchecked> {
    let needs = options.needs(chain);
    let mut found = needs.unchecked.clone();
    if chain.network().is_none() && has_private_ends(chain) {
        found.push(Unchecked {
            check: Check::NeverMatches,
            need: None,
            missing: VIRTUAL_NETWORK.to_owned(),
        });
    }
    if options.pods.is_empty() {
        found.extend(needs.without_pods());
    }
    found
}

/// Whether a rule is for private addresses only, which match if they are of the virtual network.
fn has_private_ends(chain: &Chain) -> bool {
    Direction::ALL.iter().any(|direction| {
        chain.levels(*direction).any(|level| {
            let regions = Regions::new(level, *direction);
            let found = |network| {
                let mut issues = Vec::new();
                idle::never_matching(&regions, network, &mut issues);
                issues.len()
            };
            found(Some(&[])) > found(None)
        })
    })
}

/// Whether a user's rule names an `Internet` that is computed, which approximates Azure's own list.
pub fn is_approximate(chain: &Chain) -> bool {
    let is_computed = |term: &Term| matches!(term, Term::Internet(_));
    Direction::ALL.iter().any(|direction| {
        let rules = chain
            .levels(*direction)
            .flat_map(|level| level.rules(*direction));
        rules
            .filter(|resolved| resolved.rule.origin == Origin::User)
            .any(|resolved| {
                let mut terms = resolved.source.iter().chain(&resolved.destination);
                terms.any(is_computed)
            })
    })
}

// === impl Unchecked ===

impl Unchecked {
    /// All of them in words: a sentence for each name that is missing, with what is to be given.
    pub fn sentences(all: &[Self]) -> Vec<String> {
        let mut sentences = Vec::new();
        for (index, first) in all.iter().enumerate() {
            let missing = &first.missing;
            if all[..index].iter().any(|one| one.missing == *missing) {
                continue;
            }
            let same: Vec<_> = all.iter().filter(|one| one.missing == *missing).collect();
            let checks = checks(&same);
            sentences.push(match &**missing {
                PODS => format!(
                    "{checks}: checked within VirtualNetwork only; where pods have addresses of \
                     their own, as in an overlay network, give --pod-cidr CIDR"
                ),
                VIRTUAL_NETWORK => format!(
                    "{checks}: not checked, VirtualNetwork is not defined: give --virtual-network \
                     CIDR, or effective rules (--effective FILE)"
                ),
                name => format!(
                    "{checks}: not checked, {name} is not defined: give --tag {name}=CIDR,…"
                ),
            });
        }
        sentences
    }
}

/// Names of checks, each once, with the needs that have no check of their own.
fn checks(all: &[&Unchecked]) -> String {
    let mut text = String::new();
    for (index, one) in all.iter().enumerate() {
        if all[..index].iter().any(|other| other.check == one.check) {
            continue;
        }
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{}", one.check);
        match one.check {
            Check::NeedBlocked => {
                let same = all.iter().filter(|other| other.check == one.check);
                let needs: Vec<_> = same
                    .filter_map(|other| other.need.as_ref())
                    .map(|need| format!("`{}`", crate::nsg::address::quotable(need)))
                    .collect();
                let _ = write!(text, " ({})", needs.join(", "));
            }
            Check::NeverMatches => text.push_str(" of private ranges"),
            _ => {}
        }
    }
    text
}
