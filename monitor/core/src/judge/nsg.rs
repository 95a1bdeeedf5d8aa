//! What network security groups say should happen, held against what happened.
//!
//! An inbound packet at the node's network card has passed the real groups: one that the declared
//! rules deny is drift, whatever becomes of it. An outbound packet is seen before the groups, so the
//! answer decides.

use crate::{
    event::{FindingKind, Outcome},
    nsg::{Access, Direction},
};

/// What does not agree, if anything. `is_final` where the outcome will not change.
pub(crate) fn nsg_finding(
    expected: Access,
    direction: Direction,
    outcome: Outcome,
    is_final: bool,
) -> Option<FindingKind> {
    match (expected, direction, outcome) {
        (Access::Deny, Direction::Inbound, _)
        | (Access::Deny, Direction::Outbound, Outcome::Established | Outcome::Reset) => {
            Some(FindingKind::NsgDrift)
        }
        (Access::Allow, _, Outcome::Unanswered) if is_final => Some(FindingKind::NsgOverBlocked),
        // Refused is blocked as declared, or allowed as declared. What was picked up midstream or
        // needs no answer tells nothing.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectation_and_outcome_give_the_finding() {
        use Access::{Allow, Deny, Indeterminate};
        use Direction::{Inbound, Outbound};
        use Outcome::{Established, Midstream, OneWay, Refused, Reset, Unanswered};
        let drift = Some(FindingKind::NsgDrift);
        for outcome in [Established, Refused, Unanswered, Reset, OneWay] {
            assert_eq!(
                nsg_finding(Deny, Inbound, outcome, false),
                drift,
                "{outcome}"
            );
            assert_eq!(nsg_finding(Indeterminate, Inbound, outcome, true), None);
        }
        for (outcome, expected) in [
            (Established, drift),
            (Reset, drift),
            (Refused, None),
            (Unanswered, None),
            (OneWay, None),
            (Midstream, None),
        ] {
            assert_eq!(
                nsg_finding(Deny, Outbound, outcome, true),
                expected,
                "{outcome}"
            );
        }
        for direction in [Inbound, Outbound] {
            assert_eq!(nsg_finding(Allow, direction, Established, true), None);
            assert_eq!(nsg_finding(Allow, direction, Refused, true), None);
            assert_eq!(nsg_finding(Allow, direction, OneWay, true), None);
            assert_eq!(nsg_finding(Allow, direction, Unanswered, false), None);
            assert_eq!(
                nsg_finding(Allow, direction, Unanswered, true),
                Some(FindingKind::NsgOverBlocked)
            );
        }
    }
}
