//! Rules as boxes, and what is left of a box when others are cut off.

use std::collections::HashMap;

use crate::nsg::{
    address::{Address, Ports},
    interval::{Family, IntervalSet},
    level::Level,
    matching::Resolved,
    model::{Direction, RuleProtocol},
    names::Term,
};

/// Pieces of a box beyond which nothing is said about it.
const MOST_PIECES: usize = 4_096;
/// Intervals in what is cut off, likewise: 32 bytes each.
const MOST_INTERVALS: usize = 1 << 20;
/// Where a packet without ports is among ports.
const NO_PORT: u128 = 1 << 16;
/// Room for sets that nobody has defined, beside the addresses of IPv4.
const UNDEFINED: u128 = 1 << 16;

/// Sets of each field. A box without a member in one of them is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    /// Protocols, destination ports, source ports, sources, destinations: the small sets first.
    fields: [IntervalSet; 5],
}

/// The rules of a direction as boxes of both families.
pub(super) struct Regions<'a> {
    pub(super) level: &'a Level,
    pub(super) direction: Direction,
    pub(super) rules: Vec<Boxed<'a>>,
}

/// A rule and its boxes, by family.
pub(super) struct Boxed<'a> {
    pub(super) resolved: &'a Resolved,
    pub(super) families: [Region; 2],
}

/// Names of sets that nobody has defined.
#[derive(Default)]
struct Undefined(HashMap<String, u128>);

/// Addresses as sets: rules that name the same tag share its set.
#[derive(Default)]
struct Sets<'a> {
    known: HashMap<(&'a [Address], Family), IntervalSet>,
    undefined: Undefined,
}

// === impl Regions ===

impl<'a> Regions<'a> {
    pub(super) fn new(level: &'a Level, direction: Direction) -> Self {
        let mut sets = Sets::default();
        let rules = level.rules(direction).iter();
        Self {
            level,
            direction,
            rules: rules
                .map(|resolved| Boxed {
                    resolved,
                    families: Family::ALL.map(|family| Region::of(resolved, family, &mut sets)),
                })
                .collect(),
        }
    }
}

// === impl Region ===

impl Region {
    /// The box of a rule.
    fn of<'a>(resolved: &'a Resolved, family: Family, sets: &mut Sets<'a>) -> Self {
        let rule = &resolved.rule;
        let ports_matter = !rule.source_ports.is_any() || !rule.destination_ports.is_any();
        let all = match rule.protocol.number() {
            Some(number) => IntervalSet::one(number.into(), number.into()),
            None => IntervalSet::one(0, 255),
        };
        // What has no ports cannot match a rule that limits them.
        let protocols = if ports_matter {
            all.intersection(&protocols(&[RuleProtocol::Tcp, RuleProtocol::Udp]))
        } else {
            all
        };
        Self {
            fields: [
                protocols,
                ports(&rule.destination_ports),
                ports(&rule.source_ports),
                sets.of(&rule.source, &resolved.source, family),
                sets.of(&rule.destination, &resolved.destination, family),
            ],
        }
    }

    /// A box of these protocols, destination ports, sources and destinations, from any port.
    pub(super) fn new(
        protocols: IntervalSet,
        destination_ports: IntervalSet,
        source: IntervalSet,
        destination: IntervalSet,
    ) -> Self {
        let fields = [
            protocols,
            destination_ports,
            IntervalSet::one(0, NO_PORT),
            source,
            destination,
        ];
        Self { fields }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.iter().any(IntervalSet::is_empty)
    }

    pub(super) fn protocols(&self) -> &IntervalSet {
        &self.fields[0]
    }

    pub(super) fn source(&self) -> &IntervalSet {
        &self.fields[3]
    }

    pub(super) fn destination(&self) -> &IntervalSet {
        &self.fields[4]
    }

    /// Whether two boxes have something in common.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let mut pairs = self.fields.iter().zip(&other.fields);
        pairs.all(|(mine, theirs)| mine.meets(theirs))
    }

    /// What two boxes have in common.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut fields = self.fields.clone();
        for (mine, theirs) in fields.iter_mut().zip(&other.fields) {
            *mine = mine.intersection(theirs);
        }
        Self { fields }
    }

    /// Cuts a box off pieces; `None` where there would be too many.
    pub(super) fn cut(pieces: Vec<Self>, other: &Self) -> Option<Vec<Self>> {
        let mut left = Vec::with_capacity(pieces.len());
        let mut intervals = 0;
        for piece in pieces {
            if !piece.meets(other) {
                left.push(piece);
                continue;
            }
            let mut inside = piece;
            for field in 0..inside.fields.len() {
                let rest = inside.fields[field].difference(&other.fields[field]);
                intervals += rest.intervals().len();
                if !rest.is_empty() {
                    let mut outside = inside.clone();
                    outside.fields[field] = rest;
                    left.push(outside);
                }
                let both = inside.fields[field].intersection(&other.fields[field]);
                intervals += both.intervals().len();
                inside.fields[field] = both;
            }
            if left.len() > MOST_PIECES || intervals > MOST_INTERVALS {
                return None;
            }
        }
        Some(left)
    }
}

/// Some protocols.
pub(super) fn protocols(list: &[RuleProtocol]) -> IntervalSet {
    let numbers = list.iter().filter_map(|protocol| protocol.number());
    numbers
        .map(|number| (number.into(), number.into()))
        .collect()
}

fn ports(ports: &Ports) -> IntervalSet {
    if ports.is_any() {
        return IntervalSet::one(0, NO_PORT);
    }
    let ranges = ports.ranges().iter();
    ranges
        .map(|range| (u128::from(*range.start()), u128::from(*range.end())))
        .collect()
}

fn addresses(terms: &[Term], family: Family, undefined: &mut Undefined) -> IntervalSet {
    let mut set = IntervalSet::default();
    for term in terms {
        let more = match term {
            Term::Any => match family {
                Family::V4 => IntervalSet::one(0, Family::V4.max() + UNDEFINED),
                Family::V6 => family.all(),
            },
            // Names are compared without regard to case.
            Term::Unknown(why) => undefined.set(&format!("{why:?}").to_lowercase(), family),
            Term::Undeclared => {
                let host = term.space(family).yes;
                host.union(&undefined.set("virtual network", family))
            }
            Term::Zero if family == Family::V6 => undefined.set("0.0.0.0/0", family),
            Term::Zero | Term::Net(_) | Term::Nets(_) | Term::Internet(_) => {
                term.space(family).maybe
            }
        };
        set = set.union(&more);
    }
    set
}

// === impl Sets ===

impl<'a> Sets<'a> {
    /// The set of the addresses of an end, which stand for these terms.
    fn of(&mut self, end: &'a [Address], terms: &[Term], family: Family) -> IntervalSet {
        let Self { known, undefined } = self;
        let set = known
            .entry((end, family))
            .or_insert_with(|| addresses(terms, family, undefined));
        set.clone()
    }
}

// === impl Undefined ===

impl Undefined {
    /// A set that has nothing in common with any other but `*`.
    fn set(&mut self, name: &str, family: Family) -> IntervalSet {
        let next = self.0.len() as u128;
        let number = *self.0.entry(name.to_owned()).or_insert(next);
        let number = number % UNDEFINED;
        let place = match family {
            Family::V4 => Family::V4.max() + 1 + number.min(UNDEFINED - 1),
            // Nobody has the last addresses of IPv6's multicast.
            Family::V6 => u128::MAX - number,
        };
        IntervalSet::one(place, place)
    }
}
