//! SSH and RDP from the Internet.

use super::{
    Check, Issue,
    region::{Region, Regions, protocols},
};
use crate::nsg::{
    interval::{Family, IntervalSet},
    model::{Direction, RuleAccess, RuleProtocol},
    names::Term,
};

/// So many public addresses are the Internet, whatever a rule calls them: a quarter of IPv4, and
/// as large a part of IPv6.
const MANY: [u128; 2] = [1 << 30, 1 << 120];

/// Rules that allow SSH or RDP from the Internet, where no rule before them denies it.
pub(super) fn open(regions: &Regions<'_>, issues: &mut Vec<Issue>) {
    if regions.direction == Direction::Outbound {
        return;
    }
    for (check, port, what) in [
        (Check::OpenSsh, 22, "SSH (TCP 22)"),
        (Check::OpenRdp, 3389, "RDP (TCP 3389)"),
    ] {
        for (index, boxed) in regions.rules.iter().enumerate() {
            let rule = &boxed.resolved.rule;
            if rule.access == RuleAccess::Deny {
                continue;
            }
            let is_open = Family::ALL.iter().enumerate().any(|(place, family)| {
                let public = Term::Internet(Some([].into())).space(*family).maybe;
                let wanted = Region::new(
                    protocols(&[RuleProtocol::Tcp]),
                    IntervalSet::one(port, port),
                    public,
                    boxed.families[place].destination().clone(),
                );
                let asked = boxed.families[place].intersection(&wanted);
                let before = regions.rules[..index].iter();
                let left = before
                    .map(|other| &other.families[place])
                    .try_fold(vec![asked], Region::cut);
                // What could not be cut is taken for open.
                left.is_none_or(|left| {
                    let sources = left.iter().filter(|piece| !piece.is_empty());
                    let all = sources.fold(IntervalSet::default(), |all, piece| {
                        all.union(piece.source())
                    });
                    all.count() >= MANY[place]
                })
            });
            if is_open {
                let why = format!("allows {what} from the Internet");
                let suggestion = "limit its source to the ranges of administrators, a VPN or \
                                  Bastion's subnet"
                    .to_owned();
                issues.push(Issue::new(check, regions.level, rule, why, suggestion));
            }
        }
    }
}
