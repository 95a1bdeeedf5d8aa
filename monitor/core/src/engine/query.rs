//! Answers to what a user asks for.

use super::{
    Engine,
    record::{self, Context},
    translate::Kept,
};
use crate::{
    account::Interface,
    entity::{Entity, Sight, normalise},
    event::{FindingKind, FindingRecord, FlowRecord, SshRecord, State},
    filter::{Facts, FlowFilter, Named, NamedEnd},
    flow::{FlowKey, Tracked},
    time::Timestamp,
};

/// A connection that may be asked for.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    end: Timestamp,
    key: &'a FlowKey,
    flow: &'a Tracked,
    interface: &'a Interface,
    state: State,
    /// What was known of its translation when it closed.
    kept: Option<&'a Kept>,
}

// === impl Engine ===

impl Engine {
    /// Connections that a filter asks for, tracked and recently closed, at most the `last` ones;
    /// in order of their last packet, the newest last.
    pub fn query(&self, filter: &FlowFilter, last: Option<usize>) -> Vec<FlowRecord> {
        let mut candidates = self.candidates(filter);
        // Order and records cost most: none for what is not returned.
        let surplus = last.map_or(0, |last| candidates.len().saturating_sub(last));
        if surplus == candidates.len() {
            return Vec::new();
        }
        if surplus > 0 {
            candidates.select_nth_unstable_by(surplus, Candidate::compare);
            candidates.drain(..surplus);
        }
        candidates.sort_unstable_by(Candidate::compare);
        candidates
            .iter()
            .map(|candidate| self.record(candidate))
            .collect()
    }

    /// SSH connections that a filter asks for, open and recently closed, at most the `last` ones;
    /// in order of their last packet, the newest last.
    pub fn query_ssh(&self, filter: &FlowFilter, last: Option<usize>) -> Vec<SshRecord> {
        let mut records: Vec<_> = self
            .books
            .ssh
            .recent()
            .map(|record| (**record).clone())
            .chain(self.books.ssh_open(&self.table))
            .filter(|record| filter.matches_ssh(record))
            .collect();
        records.sort_by_key(|record| record.end);
        let surplus = last.map_or(0, |last| records.len().saturating_sub(last));
        records.drain(..surplus);
        records
    }

    /// Recent findings that a filter asks for, at most the `last` ones, the newest last.
    pub fn query_findings(&self, filter: &FlowFilter, last: Option<usize>) -> Vec<FindingRecord> {
        let mut records: Vec<_> = self
            .books
            .ssh
            .recent_findings()
            .filter(|record| {
                filter.since.is_none_or(|since| record.time >= since)
                    && filter.matches_finding(record)
            })
            .map(|record| (**record).clone())
            .collect();
        records.sort_by_key(|record| record.time);
        let surplus = last.map_or(0, |last| records.len().saturating_sub(last));
        records.drain(..surplus);
        records
    }

    fn candidates(&self, filter: &FlowFilter) -> Vec<Candidate<'_>> {
        let open = self.table.iter().filter_map(|(key, flow)| {
            let interface = self.books.ledger.interface(key.interface_id())?;
            Some(Candidate {
                end: flow.end(),
                key,
                flow,
                interface,
                state: State::Open,
                kept: None,
            })
        });
        let closed = self.books.recent.iter().map(|closed| Candidate {
            end: closed.flow.end(),
            key: &closed.key,
            flow: &closed.flow,
            interface: &closed.interface,
            state: State::Closed,
            kept: Some(&closed.translation),
        });
        let is_empty = filter.terms.is_empty() && filter.since.is_none();
        let needs_names = filter.needs_names();
        open.chain(closed)
            .filter(|candidate| {
                is_empty || {
                    let facts = candidate.facts();
                    filter.may_match(&facts)
                        && (!needs_names || self.matches_named(filter, &facts, candidate))
                }
            })
            .collect()
    }

    fn matches_named(
        &self,
        filter: &FlowFilter,
        facts: &Facts<'_>,
        candidate: &Candidate<'_>,
    ) -> bool {
        let Candidate {
            key,
            flow,
            interface,
            state,
            kept,
            ..
        } = *candidate;
        let context = Context {
            kept,
            ..self.books.context()
        };
        let translated = context.translated(key, flow, interface, false);
        let entities = [
            (key.local(), key.local_port()),
            (key.remote(), key.remote_port()),
        ]
        .map(|(ip, port)| {
            let sight = Sight {
                ip,
                port: Some((key.protocol(), port)),
                point: interface.point,
                at: flow.start,
            };
            self.books.names.resolve_socket(&sight, flow.cgroup_id)
        });
        let [local, remote] = &entities;
        let end = |entity| {
            let Entity { namespace, pod, .. }: &Entity = entity;
            NamedEnd {
                namespace: namespace.as_deref(),
                pod: pod.as_deref(),
            }
        };
        filter.matches_named(
            facts,
            &Named {
                ends: NamedEnd::all([end(local), end(remote)], translated.as_ref()),
                finding: record::finding(
                    &self.books.names,
                    &self.books.nsg,
                    key,
                    flow,
                    interface,
                    state,
                )
                .map(FindingKind::name),
            },
        )
    }

    fn record(&self, candidate: &Candidate<'_>) -> FlowRecord {
        let Candidate {
            end,
            key,
            flow,
            interface,
            state,
            kept,
        } = *candidate;
        record::of(
            &Context {
                kept,
                ..self.books.context()
            },
            key,
            flow,
            interface,
            state,
            end,
        )
    }
}

// === impl Candidate ===

impl Candidate<'_> {
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        let order = |candidate: &Self| (candidate.end, candidate.flow.start, *candidate.key);
        order(self).cmp(&order(other))
    }

    fn facts(&self) -> Facts<'static> {
        let protocol = self.key.protocol();
        let port = |port: u16| protocol.has_ports().then_some(port);
        Facts {
            ips: [normalise(self.key.local()), normalise(self.key.remote())],
            ports: [port(self.key.local_port()), port(self.key.remote_port())],
            protocol,
            app: self.flow.app().name(),
            point: self.interface.point,
            outcome: self.flow.outcome(self.key),
            end: self.end,
        }
    }
}
