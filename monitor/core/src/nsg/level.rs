//! One place where rules are: admin rules, the subnet's group, the network card's.

use super::{
    compiled::{Compiled, Found},
    matching::{FieldMatch, Resolved},
    model::{Direction, Nsg},
    names::Names,
    tuple::Tuple,
};
use crate::words;

/// Where rules are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LevelKind {
    /// Virtual Network Manager's.
    Admin,
    /// The subnet's group.
    Subnet,
    /// The network card's group.
    Nic,
}

/// The rules of one place, ready to judge.
#[derive(Debug)]
pub struct Level {
    /// Which place.
    pub kind: LevelKind,
    /// The group.
    pub nsg: Nsg,
    inbound: Side,
    outbound: Side,
}

/// The rules of a direction.
#[derive(Debug)]
struct Side {
    rules: Vec<Resolved>,
    compiled: Compiled,
}

/// The first rule that may match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit<'a> {
    pub(super) rule: &'a Resolved,
    pub(super) is_certain: bool,
}

// === impl LevelKind ===

words::words!(LevelKind, Admin = "admin", Subnet = "subnet", Nic = "nic");

// === impl Level ===

impl Level {
    /// Compiles a group's rules.
    pub fn new(kind: LevelKind, nsg: Nsg, names: &Names) -> Self {
        let network = names.network(Some(&nsg));
        let side = |direction| {
            let rules: Vec<_> = nsg
                .of(direction)
                .map(|rule| Resolved::new(rule, names, network.as_ref()))
                .collect();
            Side {
                compiled: Compiled::new(&rules.iter().collect::<Vec<_>>()),
                rules,
            }
        };
        Self {
            kind,
            inbound: side(Direction::Inbound),
            outbound: side(Direction::Outbound),
            nsg,
        }
    }

    const fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// The rules of a direction with what their names stand for.
    pub(super) fn rules(&self, direction: Direction) -> &[Resolved] {
        &self.side(direction).rules
    }

    /// The first rule that may match.
    pub(super) fn find(&self, tuple: &Tuple) -> Option<Hit<'_>> {
        let Side { rules, compiled } = self.side(tuple.direction);
        let Found { index, is_certain } = compiled.find(tuple)?;
        Some(Hit {
            rule: &rules[index],
            is_certain,
        })
    }

    /// The same, by asking one rule after the other.
    pub(super) fn find_linear(&self, tuple: &Tuple) -> Option<Hit<'_>> {
        self.rules(tuple.direction).iter().find_map(|rule| {
            let is_certain = match rule.matches(tuple) {
                FieldMatch::Yes => true,
                FieldMatch::Unknown(_) => false,
                FieldMatch::No => return None,
            };
            Some(Hit { rule, is_certain })
        })
    }

    /// Bytes that the compiled rules take.
    #[cfg(test)]
    pub(super) fn size_bytes(&self) -> usize {
        self.inbound.compiled.size_bytes() + self.outbound.compiled.size_bytes()
    }
}
