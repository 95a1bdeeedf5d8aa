//! How often rules matched.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    event::Outcome,
    metric::{Fixed, Metric, OTHER, Text, Value},
    nsg::{Access, Chain, Direction, read::MOST_RULES},
};

/// Rows of the counter of connections; what is beyond is counted in one.
const ROWS: usize = 4_096;
/// Rules that are counted: those of three full groups, and as many that stood before.
const RULES: usize = 2 * 3 * MOST_RULES;

/// A rule by its group's name and its own.
pub(super) type Name = (Arc<str>, Arc<str>);

/// Connections by what matched them.
#[derive(Debug, Default)]
pub(super) struct Hits {
    connections: BTreeMap<Labels, u64>,
    /// In every group that was asked.
    rules: BTreeMap<Name, Row>,
}

/// How often a rule matched.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    connections: u64,
    /// Seconds since 1970 of the last one.
    last: i64,
}

/// A connection and what matched it.
#[derive(Debug)]
pub(super) struct Matched {
    pub(super) labels: Labels,
    /// The rules that matched for certain.
    pub(super) rules: Vec<Name>,
    /// When it opened, in seconds since 1970.
    pub(super) at: i64,
}

/// Labels of the counter of connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    pub(super) nsg: Arc<str>,
    pub(super) rule: Arc<str>,
    pub(super) access: Access,
    pub(super) direction: Direction,
    pub(super) outcome: Outcome,
}

// === impl Hits ===

impl Hits {
    /// Connections that matched a rule, and the second in which the last one opened.
    pub(super) fn of(&self, nsg: &Arc<str>, rule: &Arc<str>) -> (u64, Option<i64>) {
        let row = self.rules.get(&(Arc::clone(nsg), Arc::clone(rule)));
        row.map_or((0, None), |row| (row.connections, Some(row.last)))
    }

    /// Counts a connection.
    pub(super) fn count(&mut self, matched: Matched) {
        let Matched {
            mut labels,
            rules,
            at,
        } = matched;
        for rule in rules {
            if self.rules.len() < RULES || self.rules.contains_key(&rule) {
                let row = self.rules.entry(rule).or_default();
                row.connections += 1;
                row.last = at.max(row.last);
            }
        }
        if self.connections.len() >= ROWS && !self.connections.contains_key(&labels) {
            (labels.nsg, labels.rule) = (OTHER.into(), OTHER.into());
        }
        *self.connections.entry(labels).or_default() += 1;
    }

    /// Ends the rows of rules that are in none of these. Load balancer rules of AKS have names that
    /// change with every Service, so there would be ever more.
    pub(super) fn keep<'a>(&mut self, chains: impl Iterator<Item = &'a Arc<Chain>>) {
        let names: BTreeSet<Name> = chains.flat_map(|chain| names(chain)).collect();
        self.rules.retain(|name, _| names.contains(name));
        self.connections.retain(|labels, _| {
            let name = (Arc::clone(&labels.nsg), Arc::clone(&labels.rule));
            let is_of_no_rule = labels.rule.is_empty() || &*labels.rule == OTHER;
            is_of_no_rule || names.contains(&name)
        });
    }

    /// Samples of the metrics; rules that never matched have one, too.
    pub(super) fn samples(&self, present: Option<&Chain>, fixed: &mut Vec<Fixed>) {
        for (labels, count) in &self.connections {
            let Labels {
                nsg,
                rule,
                access,
                direction,
                outcome,
            } = labels;
            let way = match direction {
                Direction::Inbound => "inbound",
                Direction::Outbound => "outbound",
            };
            fixed.push(Fixed {
                metric: Metric::NsgConnections,
                labels: vec![
                    Text::Shared(Arc::clone(nsg)),
                    Text::Shared(Arc::clone(rule)),
                    Text::Static(access.name()),
                    Text::Static(way),
                    Text::Static(outcome.name()),
                ],
                value: Value::Counter(*count),
            });
        }
        let label = |(nsg, rule): &Name| {
            vec![
                Text::Shared(Arc::clone(nsg)),
                Text::Shared(Arc::clone(rule)),
            ]
        };
        let mut matches: BTreeMap<Name, u64> = BTreeMap::new();
        matches.extend(present.into_iter().flat_map(names).map(|name| (name, 0)));
        for (name, row) in &self.rules {
            matches.insert(name.clone(), row.connections);
            fixed.push(Fixed {
                metric: Metric::NsgRuleLastMatch,
                labels: label(name),
                value: Value::Gauge(row.last),
            });
        }
        for (name, connections) in &matches {
            fixed.push(Fixed {
                metric: Metric::NsgRuleMatches,
                labels: label(name),
                value: Value::Counter(*connections),
            });
        }
    }
}

/// The rules of every place.
fn names(chain: &Chain) -> impl Iterator<Item = Name> {
    Direction::ALL.iter().flat_map(|direction| {
        chain.levels(*direction).flat_map(|level| {
            let rules = level.nsg.of(*direction);
            rules.map(|rule| (Arc::clone(&level.nsg.name), Arc::clone(&rule.name)))
        })
    })
}
