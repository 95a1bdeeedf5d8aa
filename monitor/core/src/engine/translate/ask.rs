//! Which connections to ask about, and what goes on once it is known.

use super::{
    At, Kept, Lookup, PATIENCE, Pair, State, Translation, TranslationAnswer, TranslationQuestion,
    UNSEEN, seconds,
};
use crate::{
    account::Interface,
    engine::books::{Books, is_decided},
    entity::{Names, Sight, is_private},
    event::{EntityKind, Point},
    flow::{FlowKey, Mark, Table, Tracked},
    time::Timestamp,
};

/// Whether a name or a verdict of a connection depends on how it is translated.
pub(super) fn depends(names: &Names, key: &FlowKey, flow: &Tracked, interface: &Interface) -> bool {
    let source_is_local = flow.orientation(key).source_is_local;
    !flow.has(Mark::Multicast)
        && may_depend(
            names,
            key,
            interface.point,
            source_is_local,
            flow.cgroup_id,
            flow.start,
        )
}

fn may_depend(
    names: &Names,
    key: &FlowKey,
    point: Point,
    source_is_local: bool,
    cgroup_id: u64,
    at: Timestamp,
) -> bool {
    if !key.protocol().has_ports() || !names.knows_node() {
        return false;
    }
    let (local, remote) = (key.local(), key.remote());
    let is_loopback = local.is_loopback() || remote.is_loopback();
    if is_loopback {
        return false;
    }
    let port = None;
    let sight = |ip| Sight {
        ip,
        port,
        point,
        at,
    };
    let kind = |ip| names.resolve(&sight(ip)).kind;
    match (point, source_is_local) {
        // A pod may mean a Service, or a port of a node that leads to one.
        (Point::Workload, true) => match kind(remote) {
            EntityKind::Service | EntityKind::Node => true,
            EntityKind::Range | EntityKind::Unknown => is_private(remote),
            EntityKind::Pod | EntityKind::Internet => false,
        },
        // Behind the node's address there may be whoever came to a port of the node.
        (Point::Workload, false) => names.is_own(remote),
        // What a socket of the node sends is the node's own.
        (Point::Uplink, true) => names.is_own(local) && cgroup_id == 0,
        // A port of the node, or an address of a load balancer, may lead to a pod, unless a socket
        // of the node has answered.
        (Point::Uplink, false) => cgroup_id == 0 && kind(local) != EntityKind::Pod,
    }
}

impl Books {
    /// Whether a connection waits to be told how it is translated; asks where that was not done.
    pub(in crate::engine) fn awaits_translation(
        &mut self,
        key: &FlowKey,
        flow: &Tracked,
        is_final: bool,
    ) -> bool {
        if !self.translations.asks || self.translations.unavailable.is_some() {
            return false;
        }
        if let Some(slot) = self.translations.slots.get(&(*key, flow.generation)) {
            let is_asked = slot.state == State::Asked;
            if is_asked && is_final {
                self.translations.is_late(&(*key, flow.generation));
            }
            return is_asked && !is_final;
        }
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return false;
        };
        let point = interface.point;
        // At an uplink a port scan opens nothing; a denied connection of a pod is judged.
        let is_due = point == Point::Workload || is_decided(flow.outcome(key));
        if !is_due || !depends(&self.names, key, flow, interface) {
            return false;
        }
        if is_final {
            // By now its entry may be of another connection.
            self.translations
                .set_unknown((*key, flow.generation), self.now);
            return false;
        }
        self.translations.ask(key, flow.generation, point, self.now)
    }

    /// Asks about a connection that its packets show before the flow table does.
    pub(in crate::engine) fn ask_translation(
        &mut self,
        key: &FlowKey,
        generation: u32,
        source_is_local: bool,
        tracked: Option<&Tracked>,
        at: Timestamp,
    ) {
        let is_known = self.translations.slots.contains_key(&(*key, generation));
        if !self.translations.asks || self.translations.unavailable.is_some() || is_known {
            return;
        }
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return;
        };
        let (point, cgroup_id) = (interface.point, tracked.map_or(0, |flow| flow.cgroup_id));
        if may_depend(&self.names, key, point, source_is_local, cgroup_id, at) {
            self.translations.ask(key, generation, point, self.now);
        }
    }

    /// Whether it is not known how a connection is translated that its packets show.
    pub(in crate::engine) fn is_translation_unknown(
        &self,
        key: &FlowKey,
        generation: u32,
        source_is_local: bool,
        tracked: Option<&Tracked>,
        at: Timestamp,
    ) -> bool {
        let depends = || {
            let interface = self.ledger.interface(key.interface_id());
            let cgroup_id = tracked.map_or(0, |flow| flow.cgroup_id);
            interface.is_some_and(|interface| {
                let point = interface.point;
                may_depend(&self.names, key, point, source_is_local, cgroup_id, at)
            })
        };
        self.translations.is_unknown(key, generation)
            || self.translations.unavailable.is_some() && depends()
    }

    /// A connection is over: what was known of it.
    pub(in crate::engine) fn close_translation(&mut self, key: &FlowKey, flow: &Tracked) -> Kept {
        let kept = self.translations.close(key, flow.generation);
        let is_untold = kept == Kept::Direct && self.translations.unavailable.is_some();
        let interface = self.ledger.interface(key.interface_id());
        match interface.filter(|_| is_untold) {
            Some(interface) if depends(&self.names, key, flow, interface) => Kept::Unknown,
            _ => kept,
        }
    }

    /// Takes in answers.
    pub(in crate::engine) fn translations_found(
        &mut self,
        answers: &[TranslationAnswer],
        table: &mut Table,
    ) {
        for answer in answers {
            let answer = &self.without_tracking(*answer);
            if self.translations.found(answer) {
                let TranslationQuestion {
                    key, generation, ..
                } = answer.question;
                self.translation_known(&(key, generation), table);
            }
        }
    }

    /// Where nothing is tracked netfilter translates nothing, so that a connection is as it is seen,
    /// unless somebody else has to translate it: whoever serves the addresses of services here.
    fn without_tracking(&self, answer: TranslationAnswer) -> TranslationAnswer {
        if answer.found != Lookup::Idle {
            return answer;
        }
        let TranslationQuestion {
            key,
            protocol,
            source,
            destination,
            ..
        } = answer.question;
        let cluster = self.names.cluster();
        let interface = self.ledger.interface(key.interface_id());
        let is_of_pod = interface.is_some_and(|interface| interface.point == Point::Workload);
        let port = Some((protocol, destination.port()));
        let is_served = cluster.service_of(destination.ip(), port).is_some();
        let found = if !cluster.has_services() || is_of_pod && !is_served {
            let as_seen = Pair {
                source,
                destination,
            };
            Lookup::Found(Translation {
                original: as_seen,
                reached: as_seen,
            })
        } else {
            Lookup::Missing
        };
        TranslationAnswer { found, ..answer }
    }

    /// Time passes: who waits for too long goes on without an answer.
    pub(in crate::engine) fn translation_tick(&mut self, table: &mut Table) {
        while let Some((at, since)) = self.translations.waiting.front().copied() {
            // A clock that was set back tells nothing of how long it is.
            if since <= self.now && self.now < since.saturating_add(PATIENCE) {
                break;
            }
            self.translations.waiting.pop_front();
            if self.translations.is_late(&at) {
                self.translation_known(&at, table);
            }
        }
        let now = self.now;
        let is_swept = self
            .translations
            .swept
            .is_some_and(|swept| swept <= now && now < swept.saturating_add(UNSEEN));
        if !is_swept {
            self.translations.swept = Some(now);
            let unseen = u32::try_from(UNSEEN.as_secs()).unwrap_or(u32::MAX);
            self.translations.slots.retain(|(key, generation), slot| {
                seconds(now).abs_diff(slot.since_s) < unseen || table.has(key, *generation)
            });
        }
    }

    fn translation_known(&mut self, at: &At, table: &mut Table) {
        let (key, generation) = at;
        if let Some(flow) = table.get_mut(key, *generation)
            && !self.awaits_cgroup(flow)
        {
            self.settle(key, flow, false);
            if flow.has(Mark::Counted) {
                self.translations.forget_direct(at);
            }
        }
        self.ssh_translated(key, *generation, table.get(key, *generation));
    }
}
