//! The engine: what was observed goes in, what to do about it comes out.
//!
//! One task owns it. Everything that it knows came in by [`Engine::step`], so that live monitoring,
//! replay and tests differ only in who calls it.

mod books;
mod cgroup;
mod config;
mod kubernetes;
mod loss;
mod manifests;
mod nsg;
mod policy;
mod public;
mod query;
mod record;
mod snapshot;
mod ssh;
mod translate;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use monitor_common::abi::{FlowValue, Lost};

use crate::{
    account::{Interface, InterfaceAccount, Ledger},
    cluster::{Change, Cluster, SharedAddresses},
    entity::{Names, RangeError},
    event::Record,
    flow::{Anomaly, Expiry, Family, FlowKey, Recall, SegmentEvent, Table},
    metric::Store,
    netpol::{Policies, PolicyChange},
    nsg::Chain,
    time::{ClockMap, Timestamp},
};

pub use cgroup::CgroupAnswer;
pub use config::{Capacity, Config};
pub use kubernetes::{KubernetesStatus, ResourceStatus, WatchError, WatchState};
pub use loss::LossStage;
pub use manifests::{ManifestsStatus, SkippedIn};
pub use nsg::{NsgRuleStatus, NsgStatus};
pub use policy::PolicyStatus;
pub use snapshot::{FamilyStatus, Forgotten, OpenersUnknown, Snapshot, Status};
pub use ssh::{Existing, Owner, OwnerAnswer, OwnerQuestion, Wanted};
pub use translate::{
    Lookup, Pair, Translation, TranslationAnswer, TranslationQuestion, TranslationStatus,
};

use books::Books;

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
    /// Network policies that are proposed change, as objects of a live cluster do.
    Proposed(Vec<PolicyChange>),
    /// Files propose these network policies from now on, in place of those that they did.
    ProposedByFiles(Vec<PolicyChange>),
    /// How far the objects of a live cluster are known.
    Kubernetes(KubernetesStatus),
    /// Files that declare objects and policies were read.
    Manifests(ManifestsStatus),
    /// Who holds an SSH connection on this node. Answers [`Outputs::owners`].
    Owner(OwnerAnswer),
    /// The kernel's connection tracking can be asked from now on, or why it cannot.
    Conntrack(Result<(), String>),
    /// What connection tracking says. Answers [`Outputs::translations`].
    Translations(Vec<TranslationAnswer>),
    /// What control groups are. Answers [`Outputs::cgroups`], or comes unasked.
    Cgroups(Vec<CgroupAnswer>),
    /// SSH connections of this node that were there before it was watched.
    Existing(Vec<Existing>),
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
    /// Which connections may be translated. Each is answered with [`Input::Translations`]; what
    /// depends on one that is not goes on without after two seconds.
    pub translations: Vec<TranslationQuestion>,
    /// Control groups of this node's sockets that are not known, by number. Answered with
    /// [`Input::Cgroups`], or not at all: flows wait for two seconds.
    pub cgroups: Vec<u64>,
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
    kubernetes: Option<KubernetesStatus>,
    manifests: Option<ManifestsStatus>,
    /// When series of gone pods were last looked for.
    swept: Timestamp,
}

/// How often series of gone pods, and pods that no policy selects, are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Whether a count is not worth telling.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What is declared.
#[derive(Debug)]
pub struct Declarations<'a> {
    /// Network security groups.
    pub chain: Option<Arc<Chain>>,
    /// Objects of the cluster.
    pub cluster: &'a Cluster,
    /// Network policies in force.
    pub policies: &'a mut Policies,
    /// This node's name, where its own addresses are those of one of the cluster's.
    pub node: Option<Arc<str>>,
    /// This node's own addresses, whether the cluster has a node with them or not.
    pub own: &'a HashSet<IpAddr>,
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
                cgroups: cgroup::CgroupQuestions::new(config.cgroups),
                translations: translate::Translations::new(config.translations),
                store: Store::new(config.max_series),
                ledger: Ledger::default(),
                recall: Recall::default(),
                recent: VecDeque::new(),
                recent_max: config.recent,
                forgotten: None,
                settle_ns: u64::try_from(config.settle.as_nanos()).unwrap_or(u64::MAX),
                anomalies: [0; Anomaly::ALL.len()],
                connections: 0,
                records: config.records.then(Vec::new),
                now: Timestamp::UNIX_EPOCH,
                clock_ns: 0,
                is_ending: false,
                blank: "".into(),
                by_workload: config.by_workload,
            },
            swept: Timestamp::UNIX_EPOCH,
            config,
            clock: ClockMap::default(),
            now: Timestamp::UNIX_EPOCH,
            table: Table::default(),
            events_lost: LossStage::ALL.map(|stage| (stage, 0)).into(),
            connections_merged: 0,
            kubernetes: None,
            manifests: None,
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
            Input::Clock(sample) => {
                *clock = sample;
                books.clock_ns = sample.monotonic_now_ns;
            }
            Input::Interface(interface) => books.announce(interface),
            Input::InterfaceGone { id } => {
                table.interface_gone(id);
                books.interface_gone(id);
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
            Input::Proposed(changes) => books.policy.propose_changes(changes),
            Input::ProposedByFiles(changes) => books.policy.propose(changes),
            Input::Kubernetes(status) => {
                books.await_pods();
                books.names.cluster_mut().set_missing(status.missing());
                self.kubernetes = Some(status);
            }
            Input::Manifests(status) => self.manifests = Some(status),
            Input::Owner(answer) => books.owner_found(answer, table),
            Input::Conntrack(available) => books.translations.set_available(available),
            Input::Cgroups(answers) => books.cgroups_found(answers, table),
            Input::Translations(answers) => books.translations_found(&answers, table),
            Input::Existing(existing) => books.ssh_existed(existing, table),
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
                books.accounts_read(clock.monotonic_now_ns);
                books.anomalies[Anomaly::InterfaceUnknown as usize] += unknown;
            }
            Input::AccountingBegins(accounts) => {
                books.ledger.account_begins(&accounts);
                books.accounts_read(clock.monotonic_now_ns);
            }
            Input::Lost(lost) => {
                self.raise_lost(LossStage::KernelRing, lost.ring_full);
                self.connections_merged = self.connections_merged.max(lost.merged_connections);
            }
            Input::EventsLost { stage, total } => self.raise_lost(stage, total),
            Input::Nsg(chain) => books.nsg.set(chain, now),
            Input::NsgRefused { error } => books.nsg.refuse(error),
            Input::Tick => {
                books.cgroup_tick(table);
                books.translation_tick(table);
                books.policy_tick(table);
                books.ssh_tick(clock, table);
                let untracked = books.ssh.untracked();
                let forgotten = books.ssh.forgotten();
                let histories = books.ssh.watch.forgotten();
                let unnamed = books.unnamed();
                self.raise_lost(LossStage::PodNames, unnamed);
                self.raise_lost(LossStage::SshConnections, untracked);
                self.raise_lost(LossStage::SshPending, forgotten);
                self.raise_lost(LossStage::SshHistories, histories);
                let flows = self.books.recall.given_up();
                self.raise_lost(LossStage::FlowHistories, flows);
                expire = self.tick();
            }
        }
        Outputs {
            records: self.books.take_records(),
            expire,
            owners: self.books.ssh.take_questions(),
            translations: self.books.translations.take_questions(),
            cgroups: self.books.cgroups.take(),
        }
    }

    /// Takes in what is declared from the beginning. Unlike [`Input::Cluster`] and
    /// [`Input::Policies`] this is no change that the network has yet to follow.
    pub fn declare(&mut self, cluster: Vec<Change>, policies: Vec<PolicyChange>) {
        self.books.apply_cluster(cluster, policy::START);
        self.books.apply_policies(policies, policy::START);
    }

    /// Judges connections also by what is proposed: these policies in place of those in force of
    /// the same names, beside the others.
    pub fn propose(&mut self, policies: Vec<PolicyChange>) {
        self.books.policy.propose(policies);
    }

    /// What is declared now, to explain what it says.
    pub fn declarations(&mut self) -> Declarations<'_> {
        Declarations {
            chain: self.books.nsg.present(),
            cluster: self.books.names.cluster(),
            node: self.books.names.node_name(),
            own: self.books.names.own(),
            policies: self.books.policy.policies(),
        }
    }

    /// Addresses that several pods have which have not ended.
    pub fn shared_addresses(&self) -> SharedAddresses {
        self.books.names.cluster().shared_addresses()
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
            ..Outputs::default()
        }
    }

    /// Whether to make records from now on. Without anyone to read them they cost time for
    /// nothing.
    pub fn set_records(&mut self, wanted: bool) {
        self.books.records = wanted.then(Vec::new);
    }

    fn tick(&mut self) -> Vec<FlowKey> {
        // A clock that was set back tells nothing of how long it is.
        if self.now < self.swept || self.now.saturating_since(self.swept) >= SWEEP {
            self.swept = self.now;
            self.books.sweep_series(self.now, self.config.series_ttl);
            self.books.sweep_policy(self.config.series_ttl);
            self.books.cover_pods();
        }
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
