//! Connections at the uplink, held against the network security groups that stood when they
//! opened.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::books::Books;
use crate::{
    account::Interface,
    entity::normalise,
    event::{
        Endpoint, FindingKind, FindingRecord, FlowRecord, NsgRecord, Outcome, Point, Protocol,
        Severity, State, Translated, VERSION,
    },
    flow::{FlowKey, Mark, Tracked},
    judge::nsg_finding,
    metric::{Fixed, Metric, Text, Value},
    nsg::{Access, Chain, Direction, Maker, Origin, Rule, RuleAccess, Step, Tuple, Verdict},
    time::Timestamp,
};

/// Sets of rules that are kept for the connections that opened under them.
const KEPT: usize = 4;
/// Time in which the same ends are told of once.
const TOLD_NS: u64 = 600_000_000_000;
/// Ends of which that is remembered.
const TOLD: usize = 4_096;
/// Rows of a metric; what is beyond is counted in one.
const ROWS: usize = 4_096;

/// What a finding is about: source, destination, its protocol and port. Findings of another kind,
/// which may be graver, are not hidden by it.
pub(super) type Told = (FindingKind, IpAddr, IpAddr, Protocol, u16);

/// The declared groups, past and present.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// Under which number the present rules are; 0 for none.
    epoch: u16,
    /// The number that was last given.
    latest: u16,
    chains: VecDeque<(u16, Arc<Chain>)>,
    is_all_local: bool,
    told: HashMap<Told, u64>,
    counts: BTreeMap<Labels, u64>,
    /// Connections that matched, by group and rule: in every group that was asked.
    hits: BTreeMap<(Arc<str>, Arc<str>), Hits>,
    /// Since when the present rules stand.
    since: Timestamp,
    /// Rules that came into force, and documents that were refused.
    loads: [u64; 2],
    /// Why the last documents were refused, if they were.
    error: Option<String>,
}

/// How often a rule matched.
#[derive(Clone, Copy, Debug, Default)]
struct Hits {
    connections: u64,
    /// Seconds since 1970 of the last one.
    last: i64,
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

/// Labels of the counter of connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    nsg: Arc<str>,
    rule: Arc<str>,
    access: Access,
    direction: Direction,
    outcome: Outcome,
}

// === impl Declared ===

impl Declared {
    pub(super) fn new(is_all_local: bool) -> Self {
        Self {
            is_all_local,
            ..Self::default()
        }
    }

    /// From now on these rules stand; connections that are open keep theirs.
    pub(super) fn set(&mut self, chain: Option<Arc<Chain>>, now: Timestamp) {
        self.error = None;
        self.since = now;
        let Some(chain) = chain else {
            self.epoch = 0;
            return;
        };
        self.loads[0] += 1;
        self.latest = self.latest.wrapping_add(1).max(1);
        self.epoch = self.latest;
        if self.chains.len() >= KEPT {
            self.chains.pop_front();
        }
        self.chains.push_back((self.epoch, chain));
    }

    /// New documents cannot be used; what stands goes on.
    pub(super) fn refuse(&mut self, error: String) {
        self.loads[1] += 1;
        self.error = Some(error);
    }

    /// What is declared, for people; `None` where nothing is.
    pub(super) fn status(&self) -> Option<NsgStatus> {
        let chain = self.chain(self.epoch)?;
        let mut rules = Vec::new();
        for direction in Direction::ALL {
            for level in chain.levels(*direction) {
                rules.extend(level.nsg.of(*direction).map(|rule| {
                    let name = (Arc::clone(&level.nsg.name), Arc::clone(&rule.name));
                    let hits = self.hits.get(&name).copied().unwrap_or_default();
                    NsgRuleStatus {
                        place: level.kind.name().into(),
                        nsg: name.0,
                        rule: name.1,
                        direction: *direction,
                        priority: rule.priority,
                        access: rule.access,
                        made_by: rule.made_by(),
                        connections: hits.connections,
                        last: (hits.connections > 0).then(|| Timestamp::from_seconds(hits.last)),
                    }
                }));
            }
        }
        Some(NsgStatus {
            since: self.since,
            refused: self.loads[1],
            error: self.error.clone(),
            rules,
        })
    }

    /// The rules that stand now.
    pub(super) fn present(&self) -> Option<Arc<Chain>> {
        self.chain(self.epoch).map(Arc::clone)
    }

    fn chain(&self, epoch: u16) -> Option<&Arc<Chain>> {
        let mut chains = self.chains.iter();
        let (_, chain) = chains.find(|(number, _)| *number == epoch)?;
        Some(chain)
    }

    /// What the rules say about a connection, for a record.
    pub(super) fn expect(
        &self,
        key: &FlowKey,
        flow: &Tracked,
        interface: &Interface,
    ) -> Option<NsgRecord> {
        let (verdict, direction) = self.verdict(key, flow, interface)?;
        let need = self.chain(flow.nsg_epoch)?.needs().of(verdict.tuple());
        Some(NsgRecord {
            access: verdict.access,
            direction,
            rule: verdict.rule.map(|rule| Arc::clone(&rule.name)),
            nsg: verdict.level().map(|level| Arc::clone(&level.nsg.name)),
            made_by: verdict.rule.and_then(Rule::made_by),
            need: need.map(|need| Arc::clone(&need.name)),
            reason: verdict.reason(),
        })
    }

    /// What the rules say about a connection; `None` where they do not apply, or its direction is
    /// a guess.
    pub(super) fn verdict(
        &self,
        key: &FlowKey,
        flow: &Tracked,
        interface: &Interface,
    ) -> Option<(Verdict<'_>, Direction)> {
        if flow.nsg_epoch == 0 || interface.point != Point::Uplink || flow.has(Mark::Multicast) {
            return None;
        }
        let orientation = flow.orientation(key);
        if !orientation.is_known {
            return None;
        }
        let chain = self.chain(flow.nsg_epoch)?;
        let protocol = key.protocol();
        let end = |ip, port| (normalise(ip), protocol.has_ports().then_some(port));
        let local = end(key.local(), key.local_port());
        let remote = end(key.remote(), key.remote_port());
        let (source, destination) = if orientation.source_is_local {
            (local, remote)
        } else {
            (remote, local)
        };
        let direction = if self.is_all_local {
            chain.direction(source.0, destination.0)
        } else if orientation.source_is_local {
            Direction::Outbound
        } else {
            Direction::Inbound
        };
        let verdict = chain.judge(&Tuple {
            direction,
            protocol,
            source: source.0,
            source_port: source.1,
            destination: destination.0,
            destination_port: destination.1,
        });
        Some((verdict, direction))
    }

    fn count(
        &mut self,
        mut labels: Labels,
        steps: impl IntoIterator<Item = (Arc<str>, Arc<str>)>,
        seconds: i64,
    ) {
        for rule in steps {
            if self.hits.len() < ROWS || self.hits.contains_key(&rule) {
                let hits = self.hits.entry(rule).or_default();
                hits.connections += 1;
                hits.last = seconds.max(hits.last);
            }
        }
        if self.counts.len() >= ROWS && !self.counts.contains_key(&labels) {
            (labels.nsg, labels.rule) = ("other".into(), "other".into());
        }
        *self.counts.entry(labels).or_default() += 1;
    }

    /// Whether this is to be told of: not if it was lately.
    pub(super) fn tells(&mut self, about: Told, at: Timestamp) -> bool {
        let at_ns = u64::try_from(at.nanoseconds()).unwrap_or(0);
        let last = self.told.get(&about);
        if last.is_some_and(|last| at_ns.saturating_sub(*last) < TOLD_NS) {
            return false;
        }
        if self.told.len() >= TOLD {
            self.told.clear();
        }
        self.told.insert(about, at_ns);
        true
    }

    /// Samples of the metrics about rules.
    pub(super) fn samples(&self, fixed: &mut Vec<Fixed>) {
        for (result, count) in ["loaded", "refused"].into_iter().zip(self.loads) {
            fixed.push(Fixed {
                metric: Metric::NsgLoads,
                labels: vec![Text::Static(result)],
                value: Value::Counter(count),
            });
        }
        for (labels, count) in &self.counts {
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
        for ((nsg, rule), hits) in &self.hits {
            fixed.push(Fixed {
                metric: Metric::NsgRuleLastMatch,
                labels: vec![
                    Text::Shared(Arc::clone(nsg)),
                    Text::Shared(Arc::clone(rule)),
                ],
                value: Value::Gauge(hits.last),
            });
        }
    }
}

// === impl Books ===

impl Books {
    /// Gives a connection the rules that stand now.
    pub(super) fn nsg_opened(&self, flow: &mut Tracked) {
        flow.nsg_epoch = self.nsg.epoch;
    }

    /// Counts a connection whose outcome is decided for the rule that should decide it.
    pub(super) fn nsg_counted(&mut self, key: &FlowKey, flow: &Tracked, outcome: Outcome) {
        if flow.nsg_epoch == 0 {
            return;
        }
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return;
        };
        let Some((verdict, direction)) = self.nsg.verdict(key, flow, interface) else {
            return;
        };
        let name = |name: Option<&Arc<str>>| name.map_or_else(|| "".into(), Arc::clone);
        let labels = Labels {
            nsg: name(verdict.level().map(|level| &level.nsg.name)),
            rule: name(verdict.rule.map(|rule| &rule.name)),
            access: verdict.access,
            direction,
            outcome,
        };
        let certain = verdict.steps().filter(Step::is_certain);
        let mut steps: Vec<_> = certain
            .map(|step| {
                (
                    Arc::clone(&step.level.nsg.name),
                    Arc::clone(&step.rule().name),
                )
            })
            .collect();
        // One group may be both the subnet's and the network card's.
        steps.dedup();
        let seconds = flow.start.nanoseconds() / 1_000_000_000;
        self.nsg.count(labels, steps, seconds);
    }

    /// Reports a connection that is not as declared; whether it was.
    pub(super) fn judge_nsg(&mut self, key: &FlowKey, flow: &Tracked, state: State) -> bool {
        if flow.nsg_epoch == 0 || flow.has(Mark::NsgTold) {
            return false;
        }
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return false;
        };
        // Most connections are as declared: no record is made of those.
        let Some((verdict, direction)) = self.nsg.verdict(key, flow, interface) else {
            return false;
        };
        let is_final = state == State::Closed;
        let outcome = flow.outcome(key);
        let Some(finding) = nsg_finding(verdict.access, direction, outcome, is_final) else {
            return false;
        };
        let is_default = verdict
            .rule
            .is_some_and(|rule| rule.origin == Origin::Default);
        let Some(expected) = self.nsg.expect(key, flow, interface) else {
            return false;
        };
        let mut record = self.record(key, flow, interface, state);
        record.finding = Some(finding.name().into());
        let port = record.destination.port.unwrap_or(0);
        let (source, destination) = (record.source.ip, record.destination.ip);
        let about = (finding, source, destination, record.protocol, port);
        if !self.nsg.tells(about, flow.end()) {
            return true;
        }
        let rule = expected.rule.as_deref().unwrap_or("-");
        let group = expected.nsg.as_deref().unwrap_or("-");
        let severity = match finding {
            FindingKind::NsgDrift => Severity::High,
            _ if expected.need.is_some() => Severity::Medium,
            _ => Severity::Low,
        };
        let says = match (finding, direction) {
            (FindingKind::NsgDrift, Direction::Inbound) => "and its packets arrive",
            (FindingKind::NsgDrift, Direction::Outbound) => "and it is answered",
            (_, Direction::Inbound) => "but nothing on this node answers it",
            (_, Direction::Outbound) => "but it is not answered: something else may block it",
        };
        let is_ssh = record.protocol == Protocol::TCP && record.destination.port == Some(22);
        let cause = match (finding, direction) {
            (FindingKind::NsgDrift, Direction::Inbound) if is_ssh && is_default => {
                ": no rule is about SSH from there, one is missing in the documents or was added \
                 since"
            }
            (FindingKind::NsgOverBlocked, Direction::Inbound) if is_ssh => {
                ": SSH is disabled on the node, or something on it drops it"
            }
            _ => "",
        };
        let needed = expected.need.as_ref().map_or_else(String::new, |need| {
            format!("; the profile needs it (`{need}`)")
        });
        let maker = match expected.made_by {
            Some(Maker::AksLoadBalancer) => " (which AKS writes for a load balancer)",
            None => "",
        };
        let protocol = record.protocol;
        let behind = pods_behind(&record);
        let verb = match expected.access {
            Access::Deny => "denies",
            Access::Allow | Access::Indeterminate => "allows",
        };
        let to = match record.destination.port {
            Some(port) => format!("{destination} port {port}"),
            None => destination.to_string(),
        };
        self.push_finding(FindingRecord {
            version: VERSION,
            time: self.now,
            finding,
            severity,
            reason: format!(
                "rule {rule} {verb} {protocol} from {source} to {to}{behind}, {says}{cause}{needed}"
            ),
            declared_by: format!("network security group {group}, rule {rule}{maker}"),
            technique: None,
            basis: vec!["flow".to_owned()],
            source,
            ssh: None,
            flow: Some(Box::new(record)),
        });
        true
    }
}

/// The pods behind the addresses that the network card sees, where these are the node's.
fn pods_behind(record: &FlowRecord) -> String {
    let Some(ends) = record.translated.as_ref().and_then(Translated::ends) else {
        return String::new();
    };
    let pod = |end: &Option<Endpoint>, word: &str| {
        let end = end.as_ref()?;
        let (namespace, pod) = (end.namespace.as_ref()?, end.pod.as_ref()?);
        Some(format!("{word} pod {namespace}/{pod}"))
    };
    let pods = [pod(&ends.source, "from"), pod(&ends.destination, "to")];
    let pods: Vec<_> = pods.into_iter().flatten().collect();
    if pods.is_empty() {
        return String::new();
    }
    format!(" ({})", pods.join(", "))
}
