//! One place where rules are: admin rules, the subnet's group, the network card's.

use super::{
    compiled::{Compiled, Found},
    matching::{FieldMatch, Resolved},
    memory::Memory,
    model::{Direction, Nsg, RuleAccess},
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
    /// `None` where that would take too much: then rules are asked one after the other.
    compiled: Option<Compiled>,
}

/// What the rows of one field of the rules of a direction may take. 4,000 addresses in 1,000 rules,
/// which is what Azure allows, take 2 MiB; service tags hardly any, since all their prefixes are
/// matched by the same rules.
const MOST_ROWS: usize = 8 << 20;

/// A rule that may match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit<'a> {
    pub(super) rule: &'a Resolved,
    /// Whether it matches for certain.
    pub(super) is_certain: bool,
    /// What its place does, whichever of its rules that may match does; `None` where that differs.
    pub(super) access: Option<RuleAccess>,
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
                compiled: Compiled::new(&rules.iter().collect::<Vec<_>>(), MOST_ROWS).ok(),
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
        let Some(compiled) = compiled else {
            return self.find_linear(tuple);
        };
        let Found { index, is_certain } = compiled.find(tuple)?;
        Some(Hit::new(&rules[index], is_certain))
    }

    /// The rules that may match, up to the first that certainly does.
    pub(super) fn candidates(&self, tuple: &Tuple) -> Vec<Hit<'_>> {
        let Side { rules, compiled } = self.side(tuple.direction);
        let Some(compiled) = compiled else {
            return self.candidates_linear(tuple);
        };
        let found = compiled.all(tuple);
        until_certain(found.map(|found| Hit::new(&rules[found.index], found.is_certain)))
    }

    /// The same as [`Level::find`], by asking one rule after the other.
    pub(super) fn find_linear(&self, tuple: &Tuple) -> Option<Hit<'_>> {
        let mut rules = self.rules(tuple.direction).iter();
        rules.find_map(|rule| Hit::of(rule, &rule.matches(tuple)))
    }

    /// The same as [`Level::candidates`], by asking one rule after the other.
    pub(super) fn candidates_linear(&self, tuple: &Tuple) -> Vec<Hit<'_>> {
        let rules = self.rules(tuple.direction).iter();
        until_certain(rules.filter_map(|rule| Hit::of(rule, &rule.matches(tuple))))
    }

    /// Whether the rules are compiled; else a verdict takes as long as there are rules.
    pub(super) fn is_compiled(&self) -> bool {
        self.inbound.compiled.is_some() && self.outbound.compiled.is_some()
    }

    /// Whether this is the same place with the same rules, and their names stand for the same.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.nsg == other.nsg
            && self.inbound.rules == other.inbound.rules
            && self.outbound.rules == other.outbound.rules
    }

    /// Counts all that this takes.
    pub(super) fn count(&self, memory: &mut Memory) {
        memory.add(self.size_bytes());
        for rule in &self.nsg.rules {
            memory.rule(rule);
        }
        for side in [&self.inbound, &self.outbound] {
            for rule in &side.rules {
                memory.resolved(rule);
            }
        }
    }

    /// Bytes that the compiled rules take.
    pub(super) fn size_bytes(&self) -> usize {
        let sides = [&self.inbound, &self.outbound].into_iter();
        let compiled = sides.filter_map(|side| side.compiled.as_ref());
        compiled.map(Compiled::size_bytes).sum()
    }
}

// === impl Hit ===

impl<'a> Hit<'a> {
    fn new(rule: &'a Resolved, is_certain: bool) -> Self {
        Self {
            rule,
            is_certain,
            access: is_certain.then_some(rule.rule.access),
        }
    }

    /// A rule that matches so; `None` where it does not.
    pub(super) fn of(rule: &'a Resolved, matches: &FieldMatch) -> Option<Self> {
        match matches {
            FieldMatch::Yes => Some(Self::new(rule, true)),
            FieldMatch::Unknown(_) => Some(Self::new(rule, false)),
            FieldMatch::No => None,
        }
    }
}

/// The first of them, up to one that is certain.
pub(super) fn until_certain<'a>(hits: impl Iterator<Item = Hit<'a>>) -> Vec<Hit<'a>> {
    let mut found = Vec::new();
    for hit in hits {
        found.push(hit);
        if hit.is_certain {
            break;
        }
    }
    found
}
