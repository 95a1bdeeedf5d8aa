//! The rules that stand, and those that stood when connections opened that are still known.

use std::{borrow::Cow, collections::VecDeque, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Told,
    hits::{Hits, Matched},
};
use crate::{
    account::Interface,
    entity::{Names, Sight, normalise},
    event::{NsgRecord, Point},
    flow::{FlowKey, Mark, Tracked},
    judge,
    metric::{Fixed, Metric, Text, Value},
    nsg::{Access, Chain, Direction, Maker, Rule, RuleAccess, Standing, Tuple, Unclear, Verdict},
    time::Timestamp,
};

/// Time in which the same ends are told of once.
const WINDOW: Duration = Duration::from_mins(10);
/// Sets of rules that are kept for the connections that opened under them; beyond, and beyond
/// [`MOST_BYTES`], the oldest go.
const MOST_KEPT: usize = 64;
/// What rules that no longer stand may take.
const MOST_BYTES: usize = 64 << 20;
/// What connections have instead of the number of rules that are no longer kept.
const UNKEPT: u16 = u16::MAX;
/// What is said of a connection whose rules were given up.
const GIVEN_UP: &str = "the rules under which it opened are no longer kept: others took their \
                        place too often since";

/// The declared groups, past and present.
#[derive(Debug, Default)]
pub(in super::super) struct Declared {
    /// Rules by when they came into force, the latest last.
    epochs: VecDeque<Epoch>,
    /// The number that was last given; 0 and [`UNKEPT`] are never.
    latest: u16,
    /// Whether the very first rules are no longer kept.
    has_lost_first: bool,
    is_all_local: bool,
    told: judge::Told<Told>,
    hits: Hits,
    /// Rules that came into force, and documents that were refused.
    loads: [u64; 2],
    /// Why the last documents were refused, if they were.
    error: Option<String>,
}

/// A time in which the same rules stood.
#[derive(Debug)]
struct Epoch {
    /// By this connections know it.
    number: u16,
    since: Timestamp,
    /// When others took their place.
    until: Option<Timestamp>,
    /// What the rules take.
    bytes: usize,
    /// `None` where nothing was declared.
    chain: Option<Arc<Chain>>,
    /// Connections of this time that are known.
    flows: usize,
}

/// What is declared, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NsgStatus {
    /// Since when these rules stand.
    pub since: Timestamp,
    /// How often documents were refused since the daemon began; what stood before stays in force.
    pub refused: u64,
    /// Why the last ones were refused; absent when the present documents are in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The rules in the order in which they are asked.
    pub rules: Vec<NsgRuleStatus>,
}

/// A rule and how often it matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NsgRuleStatus {
    /// Where it is: `admin`, `subnet` or `nic`.
    pub place: Cow<'static, str>,
    /// Name of its group.
    pub nsg: Arc<str>,
    /// Its name.
    pub rule: Arc<str>,
    /// Its direction.
    pub direction: Direction,
    /// Its priority.
    pub priority: u16,
    /// What it does.
    pub access: RuleAccess,
    /// The program that wrote it, where its name tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<Maker>,
    /// Connections that matched it.
    pub connections: u64,
    /// Start of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
}

// === impl Declared ===

impl Declared {
    pub(in super::super) fn new(is_all_local: bool) -> Self {
        Self {
            is_all_local,
            ..Self::default()
        }
    }

    /// From now on these rules stand; connections that are open keep theirs. Those that stand already
    /// go on, and end a refusal.
    pub(in super::super) fn set(&mut self, chain: Option<Arc<Chain>>, now: Timestamp) {
        self.error = None;
        if let (Some(present), Some(chain)) = (self.present(), &chain)
            && Arc::ptr_eq(&present, chain)
        {
            return;
        }
        self.loads[0] += u64::from(chain.is_some());
        self.latest = self.latest % (UNKEPT - 1) + 1;
        if let Some(past) = self.epochs.back_mut() {
            past.until = Some(now);
        }
        self.epochs.push_back(Epoch {
            number: self.latest,
            since: now,
            until: None,
            bytes: chain.as_ref().map_or(0, |chain| chain.kept_bytes()),
            chain,
            flows: 0,
        });
        self.give_up();
        let chains = self.epochs.iter().filter_map(|epoch| epoch.chain.as_ref());
        self.hits.keep(chains);
    }

    /// Forgets rules under which no known connection opened, and more where there are too many. The
    /// last but one remain: connections that opened under them may not have been read yet.
    fn give_up(&mut self) {
        let first = self.epochs.front().map(|epoch| epoch.number);
        let mut left = self.epochs.len();
        self.epochs.retain(|epoch| {
            left -= 1;
            epoch.flows > 0 || left < 2
        });
        let past = self.epochs.len() - 1;
        let mut total: usize = self.epochs.iter().take(past).map(|epoch| epoch.bytes).sum();
        while self.epochs.len() > MOST_KEPT || total > MOST_BYTES {
            let Some(oldest) = self.epochs.pop_front() else {
                break;
            };
            total -= oldest.bytes;
        }
        self.has_lost_first |= first != self.epochs.front().map(|epoch| epoch.number);
    }

    /// New documents cannot be used; what stands goes on.
    pub(in super::super) fn refuse(&mut self, error: String) {
        self.loads[1] += 1;
        self.error = Some(error);
    }

    /// What is declared, for people; `None` where nothing is.
    pub(in super::super) fn status(&self) -> Option<NsgStatus> {
        let epoch = self.epochs.back()?;
        let chain = epoch.chain.as_ref()?;
        let mut rules = Vec::new();
        for direction in Direction::ALL {
            for level in chain.levels(*direction) {
                rules.extend(level.nsg.of(*direction).map(|rule| {
                    let (connections, last) = self.hits.of(&level.nsg.name, &rule.name);
                    NsgRuleStatus {
                        place: level.kind.name().into(),
                        nsg: Arc::clone(&level.nsg.name),
                        rule: Arc::clone(&rule.name),
                        direction: *direction,
                        priority: rule.priority,
                        access: rule.access,
                        made_by: rule.made_by(),
                        connections,
                        last: last.map(Timestamp::from_seconds),
                    }
                }));
            }
        }
        Some(NsgStatus {
            since: epoch.since,
            refused: self.loads[1],
            error: self.error.clone(),
            rules,
        })
    }

    /// The rules that stand now.
    pub(in super::super) fn present(&self) -> Option<Arc<Chain>> {
        self.epochs.back()?.chain.as_ref().map(Arc::clone)
    }

    /// Gives a connection the rules that stood when it opened. What stood before the first ones is
    /// taken to be the same; those that are no longer kept have no like.
    pub(super) fn opened(&mut self, flow: &mut Tracked) {
        if self.epochs.is_empty() {
            return;
        }
        let mut epochs = self.epochs.iter();
        let at = match epochs.rposition(|epoch| epoch.since <= flow.start) {
            Some(at) => {
                let until = self.epochs[at].until;
                until.is_none_or(|until| flow.start < until).then_some(at)
            }
            None => (!self.has_lost_first).then_some(0),
        };
        let Some(epoch) = at.and_then(|at| self.epochs.get_mut(at)) else {
            flow.nsg_epoch = UNKEPT;
            return;
        };
        epoch.flows += 1;
        flow.nsg_epoch = epoch.number;
    }

    /// Gives a connection of which packets came after this time the rules that stand now, where Azure
    /// holds open connections against changed rules; whether these are others than before.
    pub(super) fn renewed(&mut self, flow: &mut Tracked, after: Timestamp) -> bool {
        let is_held = |epoch: &Epoch| {
            epoch.since < after && epoch.chain.as_ref().is_some_and(|chain| chain.flushes())
        };
        if flow.nsg_epoch == self.latest || !self.epochs.back().is_some_and(is_held) {
            return false;
        }
        self.closed(flow);
        if let Some(epoch) = self.epochs.back_mut() {
            epoch.flows += 1;
            flow.nsg_epoch = epoch.number;
        }
        true
    }

    /// A connection is no longer known.
    pub(in super::super) fn closed(&mut self, flow: &Tracked) {
        let mut epochs = self.epochs.iter_mut();
        if let Some(epoch) = epochs.find(|epoch| epoch.number == flow.nsg_epoch) {
            epoch.flows = epoch.flows.saturating_sub(1);
        }
    }

    fn epoch(&self, number: u16) -> Option<&Epoch> {
        // Most are of the latest.
        let mut epochs = self.epochs.iter().rev();
        epochs.find(|epoch| epoch.number == number)
    }

    /// What the rules say about a connection, for a record.
    pub(in super::super) fn expect(
        &self,
        names: &Names,
        key: &FlowKey,
        flow: &Tracked,
        interface: &Interface,
    ) -> Option<NsgRecord> {
        let Some((verdict, direction)) = self.verdict(names, key, flow, interface) else {
            return self.unjudged(names, key, flow, interface);
        };
        let chain = self.epoch(flow.nsg_epoch)?.chain.as_ref()?;
        let need = chain.needs().of(verdict.tuple());
        Some(NsgRecord {
            access: verdict.access,
            direction: Some(direction),
            rule: verdict.rule.map(|rule| Arc::clone(&rule.name)),
            nsg: verdict.level().map(|level| Arc::clone(&level.nsg.name)),
            made_by: verdict.rule.and_then(Rule::made_by),
            need: need.map(|need| Arc::clone(&need.name)),
            reason: verdict.reason(),
        })
    }

    /// What is said of a connection whose rules are no longer kept, or of which nobody knows which
    /// way it goes.
    fn unjudged(
        &self,
        names: &Names,
        key: &FlowKey,
        flow: &Tracked,
        interface: &Interface,
    ) -> Option<NsgRecord> {
        let tuple = tuple(key, flow, interface)?;
        let (chain, is_kept) = match self.epoch(flow.nsg_epoch) {
            Some(epoch) => (Arc::clone(epoch.chain.as_ref()?), true),
            None => (self.present()?, false),
        };
        let direction = self.direction(&chain, names, flow, interface, &tuple);
        let reason = match direction {
            _ if !is_kept => GIVEN_UP.to_owned(),
            Err(unclear) => format!("which end is at the network card is not known: {unclear}"),
            Ok(_) => return None,
        };
        Some(NsgRecord {
            access: Access::Indeterminate,
            direction: direction.ok(),
            rule: None,
            nsg: None,
            made_by: None,
            need: None,
            reason: Some(reason),
        })
    }

    /// What the rules say about a connection; `None` where they do not apply, or its direction is
    /// not known.
    pub(in super::super) fn verdict(
        &self,
        names: &Names,
        key: &FlowKey,
        flow: &Tracked,
        interface: &Interface,
    ) -> Option<(Verdict<'_>, Direction)> {
        let tuple = tuple(key, flow, interface)?;
        let chain = self.epoch(flow.nsg_epoch)?.chain.as_ref()?;
        let direction = self.direction(chain, names, flow, interface, &tuple).ok()?;
        let verdict = chain.judge(&Tuple { direction, ..tuple });
        Some((verdict, direction))
    }

    /// Which way a packet goes; where nothing tells what is local, by what its ends are.
    fn direction(
        &self,
        chain: &Chain,
        names: &Names,
        flow: &Tracked,
        interface: &Interface,
        tuple: &Tuple,
    ) -> Result<Direction, Unclear> {
        if !self.is_all_local {
            return Ok(tuple.direction);
        }
        let end = |ip, port: Option<u16>| {
            let sight = Sight {
                ip,
                port: port.map(|port| (tuple.protocol, port)),
                point: interface.point,
                at: flow.start,
            };
            (ip, Standing::from(names.resolve(&sight).kind))
        };
        chain.direction(
            end(tuple.source, tuple.source_port),
            end(tuple.destination, tuple.destination_port),
        )
    }

    /// Counts a connection; the rules that matched are given by group and name.
    pub(super) fn count(&mut self, matched: Matched) {
        self.hits.count(matched);
    }

    /// Whether this is to be told of: not if it was lately.
    pub(in super::super) fn tells(&mut self, about: Told, at: Timestamp) -> bool {
        let at_ns = u64::try_from(at.nanoseconds()).unwrap_or(0);
        self.told.is_due(about, at_ns, WINDOW)
    }

    /// Samples of the metrics about rules.
    pub(in super::super) fn samples(&self, fixed: &mut Vec<Fixed>) {
        for (result, count) in ["loaded", "refused"].into_iter().zip(self.loads) {
            fixed.push(Fixed {
                metric: Metric::NsgLoads,
                labels: vec![Text::Static(result)],
                value: Value::Counter(count),
            });
        }
        let present = self.epochs.back().and_then(|epoch| epoch.chain.as_deref());
        self.hits.samples(present, fixed);
    }
}

/// The packet that opened a connection which groups apply to; its direction is that of the
/// network card.
fn tuple(key: &FlowKey, flow: &Tracked, interface: &Interface) -> Option<Tuple> {
    if flow.nsg_epoch == 0 || interface.point != Point::Uplink || flow.has(Mark::Multicast) {
        return None;
    }
    let orientation = flow.orientation(key);
    if !orientation.is_known {
        return None;
    }
    let protocol = key.protocol();
    let end = |ip, port| (normalise(ip), protocol.has_ports().then_some(port));
    let local = end(key.local(), key.local_port());
    let remote = end(key.remote(), key.remote_port());
    let (direction, source, destination) = if orientation.source_is_local {
        (Direction::Outbound, local, remote)
    } else {
        (Direction::Inbound, remote, local)
    };
    Some(Tuple {
        direction,
        protocol,
        source: source.0,
        source_port: source.1,
        destination: destination.0,
        destination_port: destination.1,
    })
}
