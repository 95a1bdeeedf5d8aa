//! The engine: what was observed goes in, what to do about it comes out.
//!
//! One task owns it. Everything that it knows came in by [`Engine::step`], so that live monitoring,
//! replay and tests differ only in who calls it.

mod books;
mod nsg;
mod policy;
mod query;
mod record;
mod snapshot;
mod ssh;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use monitor_common::abi::{FlowValue, Lost};
use serde::{Deserialize, Serialize};

use crate::{
    account::{Interface, InterfaceAccount, Ledger},
    cluster::Change,
    entity::{NamedRange, Names, RangeError},
    event::{Record, SummaryRecord, VERSION},
    flow::{Anomaly, Expiry, Family, FlowKey, SegmentEvent, Table, Timeouts},
    judge::{Expectations, Thresholds},
    metric::Store,
    netpol::{self, PolicyChange},
    nsg::Chain,
    time::{ClockMap, Timestamp},
};

pub use nsg::{NsgRuleStatus, NsgStatus};
pub use snapshot::{FamilyStatus, Snapshot, Status};
pub use ssh::{Owner, OwnerAnswer, OwnerQuestion, Wanted};

use books::Books;

/// What the engine is told once.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, each named where it is set"
)]
#[derive(Clone, Debug)]
pub struct Config {
    /// How long idle connections are kept.
    pub timeouts: Timeouts,
    /// For this long after the hooks of an interface were attached, the first packet of a flow
    /// does not tell who opened it.
    pub settle: Duration,
    /// The most series that may grow with traffic; beyond, they are counted as `other`.
    pub max_series: usize,
    /// Of the flow maps: nearly full ones have shorter timeouts.
    pub capacity: Capacity,
    /// How many closed connections are remembered for queries.
    pub recent: usize,
    /// The most entries that the source is asked to delete at one tick.
    pub max_expire: usize,
    /// Whether to make records of connections that open and close.
    pub records: bool,
    /// Names of address ranges.
    pub ranges: Vec<NamedRange>,
    /// From where SSH is expected.
    pub expectations: Expectations,
    /// When attempts to log in are reported as brute force and the like.
    pub thresholds: Thresholds,
    /// Whether someone answers [`Outputs::owners`].
    pub owners: bool,
    /// Nothing tells which addresses are local: both ends are judged where declarations name them.
    pub is_all_local: bool,
    /// What networks differ in about network policies.
    pub policy_options: netpol::Options,
    /// Whether connections are judged by network policies wherever they are seen, not only at
    /// workload interfaces: in a capture.
    pub policy_everywhere: bool,
}

/// Something that was observed.
///
/// What concerns map entries ([`Input::Flows`], [`Input::Removed`], [`Input::Missing`]) must come
/// in the order in which the maps were read. [`Input::FlowEnded`] may come earlier or later by up
/// to half a minute. Times of a source do not go backwards: a replay clamps those of its capture,
/// and ends with [`Input::Removed`] of all its entries, so that all of their packets are counted.
#[derive(Clone, Debug)]
pub enum Input {
    /// The clocks were sampled. Holds for all inputs up to the next sample, so it goes before
    /// each pass over the maps and before each tick.
    Clock(ClockMap),
    /// An interface is about to be watched, or cannot be; again when that changes.
    Interface(Interface),
    /// An interface is gone. Its last account went before.
    InterfaceGone {
        /// [`Interface::id`].
        id: u32,
    },
    /// The addresses of the node's own interfaces, with their prefix lengths; all of them.
    Addresses(Vec<IpNet>),
    /// Objects of the cluster changed.
    Cluster(Vec<Change>),
    /// Network policies changed.
    Policies(Vec<PolicyChange>),
    /// Who holds an SSH connection on this node. Answers [`Outputs::owners`].
    Owner(OwnerAnswer),
    /// Entries of the kernel's maps: keys with cumulative values. May be any part of a map.
    Flows(Vec<(FlowKey, FlowValue)>),
    /// An event of the kernel: a new connection takes over the entry; the value is the old one's.
    FlowEnded {
        /// Key of the entry.
        key: FlowKey,
        /// Final value of the old connection.
        value: FlowValue,
    },
    /// A TCP segment of an SSH connection, or of one that may become one.
    Segment(SegmentEvent),
    /// Entries that the source deleted, with their final values. Answers [`Outputs::expire`].
    Removed(Vec<(FlowKey, FlowValue)>),
    /// Entries that the source was to delete and that do not exist.
    Missing(Vec<FlowKey>),
    /// The kernel's counters of interfaces, read after a complete pass over both flow maps.
    Accounting(Vec<InterfaceAccount>),
    /// The same, read before the [`Input::Flows`] that follow: the flows add up to something in
    /// between.
    AccountingBegins(Vec<InterfaceAccount>),
    /// The kernel's counters of what was lost on the way to its reader.
    Lost(Lost),
    /// Events that were lost in the daemon, in total.
    EventsLost {
        /// Where.
        stage: LossStage,
        /// How many so far.
        total: u64,
    },
    /// These network security groups are declared from now on; connections that are open keep
    /// those under which they opened.
    Nsg(Option<Arc<Chain>>),
    /// Documents with network security groups changed and cannot be used: what was declared before
    /// stays in force.
    NsgRefused {
        /// Why.
        error: String,
    },
    /// Time passes; about once a second.
    Tick,
}

/// Where events may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossStage {
    /// The kernel's event ring was full.
    KernelRing,
    /// The channel to the engine was full.
    Channel,
    /// There was no room for another SSH connection: counted, but not identified.
    SshConnections,
    /// Too many questions at a time about who holds an SSH connection.
    Owner,
    /// Looks at all processes, for who holds SSH connections, that there was no time to finish.
    ProcessScan,
    /// A client that follows did not keep up.
    Follower,
    /// The event log could not be written.
    EventLog,
}

/// Capacity of the kernel's flow maps in entries; 0 if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Of the IPv4 map.
    pub ipv4: u64,
    /// Of the IPv6 map.
    pub ipv6: u64,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// Records to log and to send to those who follow: connections whose outcome was decided
    /// (`"state":"open"`) and connections that closed (`"state":"closed"`).
    pub records: Vec<Record>,
    /// Entries that the source should delete. It answers each with [`Input::Removed`] or
    /// [`Input::Missing`]; one that it could not delete it is asked for again.
    pub expire: Vec<FlowKey>,
    /// Whose connections to find out, on this node. Each is answered with [`Input::Owner`], or
    /// not at all.
    pub owners: Vec<OwnerQuestion>,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    clock: ClockMap,
    now: Timestamp,
    table: Table,
    books: Books,
    events_lost: BTreeMap<LossStage, u64>,
    connections_merged: u64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            settle: Duration::from_secs(1),
            max_series: 20_000,
            capacity: Capacity::default(),
            recent: 4_096,
            max_expire: 32_768,
            records: true,
            ranges: Vec::new(),
            expectations: Expectations::default(),
            thresholds: Thresholds::default(),
            owners: false,
            is_all_local: false,
            policy_options: netpol::Options::default(),
            policy_everywhere: false,
        }
    }
}

// === impl LossStage ===

impl LossStage {
    /// Every stage, from the kernel outwards.
    pub const ALL: [Self; 7] = [
        Self::KernelRing,
        Self::Channel,
        Self::SshConnections,
        Self::Owner,
        Self::ProcessScan,
        Self::Follower,
        Self::EventLog,
    ];

    /// Name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KernelRing => "kernel_ring",
            Self::Channel => "channel",
            Self::SshConnections => "ssh_connections",
            Self::Owner => "owner",
            Self::ProcessScan => "process_scan",
            Self::Follower => "follower",
            Self::EventLog => "event_log",
        }
    }
}

// === impl Capacity ===

impl Capacity {
    /// The same for both maps.
    pub const fn each(flows: u64) -> Self {
        Self {
            ipv4: flows,
            ipv6: flows,
        }
    }

    fn by_family(self) -> [u64; 2] {
        [self.ipv4, self.ipv6]
    }
}

// === impl Engine ===

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(config: Config) -> Result<Self, RangeError> {
        Ok(Self {
            books: Books {
                names: Names::new(config.ranges.clone())?,
                ssh: ssh::Connections::new(
                    config.expectations.clone(),
                    config.thresholds,
                    config.is_all_local,
                    config.owners,
                ),
                policy: policy::Judge::new(config.policy_options, config.policy_everywhere),
                nsg: nsg::Declared::new(config.is_all_local),
                store: Store::new(config.max_series),
                ledger: Ledger::default(),
                recent: VecDeque::new(),
                recent_max: config.recent,
                settle_ns: u64::try_from(config.settle.as_nanos()).unwrap_or(u64::MAX),
                anomalies: [0; Anomaly::ALL.len()],
                connections: 0,
                records: config.records.then(Vec::new),
                now: Timestamp::UNIX_EPOCH,
                is_ending: false,
                blank: "".into(),
            },
            config,
            clock: ClockMap::default(),
            now: Timestamp::UNIX_EPOCH,
            table: Table::default(),
            events_lost: LossStage::ALL.map(|stage| (stage, 0)).into(),
            connections_merged: 0,
        })
    }

    /// Takes in what was observed.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Outputs {
        self.now = now;
        self.books.now = now;
        let Self {
            clock,
            table,
            books,
            ..
        } = self;
        let mut expire = Vec::new();
        match input {
            Input::Clock(sample) => *clock = sample,
            Input::Interface(interface) => books.ledger.announce(interface),
            Input::InterfaceGone { id } => {
                table.interface_gone(id);
                books.ledger.gone(id);
            }
            Input::Addresses(addresses) => books.names.set_addresses(&addresses),
            Input::Cluster(changes) => books.apply_cluster(changes, now),
            Input::Policies(changes) => books.apply_policies(changes, now),
            Input::Flows(flows) => {
                for (key, value) in &flows {
                    table.sighted(key, value, clock, books);
                }
            }
            Input::FlowEnded { key, value } => table.ended(&key, &value, clock, books),
            Input::Owner(answer) => books.owner_found(answer, table),
            Input::Segment(segment) => {
                let tracked = table.get(&segment.key, segment.generation);
                books.ssh_segment(&segment, clock, tracked);
            }
            Input::Removed(flows) => {
                for (key, value) in &flows {
                    table.removed(key, value, clock, books);
                }
            }
            Input::Missing(keys) => {
                for key in &keys {
                    table.missing(key, books);
                }
            }
            Input::Accounting(accounts) => {
                let unknown = books.ledger.account(&accounts, table.is_settled());
                books.anomalies[Anomaly::InterfaceUnknown as usize] += unknown;
            }
            Input::AccountingBegins(accounts) => books.ledger.account_begins(&accounts),
            Input::Lost(lost) => {
                self.raise_lost(LossStage::KernelRing, lost.ring_full);
                self.connections_merged = self.connections_merged.max(lost.merged_connections);
            }
            Input::EventsLost { stage, total } => self.raise_lost(stage, total),
            Input::Nsg(chain) => books.nsg.set(chain, now),
            Input::NsgRefused { error } => books.nsg.refuse(error),
            Input::Tick => {
                books.ssh_tick(clock, table);
                let untracked = books.ssh.untracked();
                self.raise_lost(LossStage::SshConnections, untracked);
                expire = self.tick();
            }
        }
        Outputs {
            records: self.books.take_records(),
            expire,
            owners: self.books.ssh.take_questions(),
        }
    }

    /// Takes in what is declared from the beginning. Unlike [`Input::Cluster`] and
    /// [`Input::Policies`] this is no change that the network has yet to follow.
    pub fn declare(&mut self, cluster: Vec<Change>, policies: Vec<PolicyChange>) {
        self.books.apply_cluster(cluster, policy::START);
        self.books.apply_policies(policies, policy::START);
    }

    /// Judges connections also by what is proposed: these policies in place of those in force of
    /// the same names, beside the others. To be called first.
    pub fn propose(&mut self, policies: Vec<PolicyChange>) {
        self.books.policy.propose(policies);
    }

    /// Observation ends, by the end of a capture or of the daemon: connections that are closed
    /// from here on are cut off, unless they were over before.
    pub fn ending(&mut self) {
        self.books.is_ending = true;
    }

    /// Closes every connection with the counts last seen: the end of a replay or of the daemon.
    pub fn finish(&mut self, now: Timestamp) -> Outputs {
        self.ending();
        self.now = now;
        self.books.now = now;
        self.table.close_all(&mut self.books);
        Outputs {
            records: self.books.take_records(),
            expire: Vec::new(),
            owners: Vec::new(),
        }
    }

    /// Whether to make records from now on. Without anyone to read them they cost time for
    /// nothing.
    pub fn set_records(&mut self, wanted: bool) {
        self.books.records = wanted.then(Vec::new);
    }

    /// Totals of all that was seen. Who replays fills in the files and how long it took.
    pub fn summary(&self) -> SummaryRecord {
        let totals = self.books.ledger.totals();
        let sum = |counts: [u64; 2]| counts.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
        let mut uncounted = BTreeMap::new();
        for (hook, _) in crate::account::HOOKS {
            for (reason, packets) in totals.reasons(hook).filter(|(_, packets)| *packets > 0) {
                *uncounted.entry(reason.name().into()).or_default() += packets;
            }
        }
        SummaryRecord {
            version: VERSION,
            time: self.now,
            files: Vec::new(),
            interfaces: self.books.ledger.seen_interfaces(),
            packets_seen: sum(totals.counters.seen),
            packets_counted: sum(totals.counters.counted),
            packets_uncounted: uncounted.values().sum(),
            uncounted,
            bytes_counted: sum(totals.counters.bytes),
            flows: self.books.connections,
            ssh_connections: self.books.ssh.connections(),
            findings: self.books.ssh.findings(),
            wall_time_ms: 0,
        }
    }

    fn tick(&mut self) -> Vec<FlowKey> {
        let used = self.table.live().map(|live| live as u64);
        let expiry = Expiry::new(
            &self.config.timeouts,
            &self.clock,
            used,
            self.config.capacity.by_family(),
        );
        self.table.expire(
            &expiry,
            &self.clock,
            self.config.max_expire,
            &mut self.books,
        )
    }

    fn raise_lost(&mut self, stage: LossStage, total: u64) {
        let lost = self.events_lost.entry(stage).or_default();
        *lost = total.max(*lost);
    }

    fn families(&self) -> [(Family, FamilyStatus); 2] {
        let (live, capacity) = (self.table.live(), self.config.capacity.by_family());
        Family::ALL.map(|family| {
            let active = live[family as usize] as u64;
            (
                family,
                FamilyStatus {
                    active,
                    capacity: capacity[family as usize],
                },
            )
        })
    }
}

#[cfg(test)]
mod tests;
