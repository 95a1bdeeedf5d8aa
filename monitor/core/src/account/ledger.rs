//! Accounts of all interfaces, present and gone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Bounds, Difference, HOOKS, Interface, InterfaceAccount, InterfaceStatus, Totals};
use crate::{
    event::Point,
    flow::Delta,
    metric::{Fixed, Metric, Text, Value},
};

/// Interface label of all workload interfaces that are gone.
const REMOVED: &str = "removed";
/// Name of interfaces that were never announced, and of the slot for those.
const UNKNOWN: &str = "unknown";

/// Accounts of all interfaces.
///
/// Totals of interfaces that are gone are kept, so that no sum goes backwards: those of an uplink
/// under its name, those of workload interfaces, whose names come and go with pods, together.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    books: HashMap<u32, Book>,
    retired: BTreeMap<Arc<str>, Totals>,
}

/// The account of one interface.
#[derive(Debug)]
struct Book {
    interface: Arc<Interface>,
    totals: Totals,
    /// Sums of the deltas of its flows.
    flow_packets: u64,
    flow_bytes: u64,
    /// Connections that are tracked on it.
    live: u64,
    is_gone: bool,
    /// Counters that were read before the flows.
    before: Option<Totals>,
    /// What the last check found possible.
    bounds: Option<Bounds>,
    difference: Option<Difference>,
}

// === impl Ledger ===

impl Ledger {
    /// An interface is about to be watched, or what is known of it changed.
    pub(crate) fn announce(&mut self, interface: Interface) {
        let id = interface.id;
        let interface = Arc::new(interface);
        match self.books.get_mut(&id) {
            Some(book) => book.interface = interface,
            None => {
                self.books.insert(id, Book::new(interface));
            }
        }
    }

    /// An interface is gone, after its last account.
    pub(crate) fn gone(&mut self, id: u32) {
        if let Some(book) = self.books.get_mut(&id) {
            book.is_gone = true;
        }
        self.retire(id);
    }

    /// Counters were read, after a complete pass over the flow maps; how many of them were of
    /// interfaces that were never announced. `is_settled` tells that every reading of a flow was
    /// understood.
    pub(crate) fn account(&mut self, accounts: &[InterfaceAccount], is_settled: bool) -> u64 {
        let mut unknown = 0;
        for account in accounts {
            let book = self.books.entry(account.id).or_insert_with(|| {
                unknown += u64::from(account.id != 0);
                Book::new(Arc::new(unknown_interface(account.id)))
            });
            let is_quiet = account.counters.seen == book.totals.counters.seen;
            book.totals.raise(&account.into());
            let before = book.before.take();
            if is_settled {
                book.check(before.as_ref(), is_quiet);
            }
        }
        unknown
    }

    /// Counters were read, before the flows.
    pub(crate) fn account_begins(&mut self, accounts: &[InterfaceAccount]) {
        for account in accounts {
            if let Some(book) = self.books.get_mut(&account.id) {
                book.before = Some(account.into());
            }
        }
    }

    /// A connection begins; its interface, whether that is gone, and whether it was known.
    pub(crate) fn opened(&mut self, id: u32) -> (Arc<Interface>, bool, bool) {
        let mut is_known = true;
        let book = self.books.entry(id).or_insert_with(|| {
            is_known = false;
            Book::new(Arc::new(unknown_interface(id)))
        });
        book.live += 1;
        (Arc::clone(&book.interface), book.is_gone, is_known)
    }

    /// A flow advanced.
    pub(crate) fn advanced(&mut self, id: u32, delta: &Delta) {
        if let Some(book) = self.books.get_mut(&id) {
            let sum = |[tx, rx]: [u64; 2]| tx.saturating_add(rx);
            book.flow_packets = book.flow_packets.saturating_add(sum(delta.packets));
            book.flow_bytes = book.flow_bytes.saturating_add(sum(delta.bytes));
        }
    }

    /// A connection is over.
    pub(crate) fn closed(&mut self, id: u32) {
        if let Some(book) = self.books.get_mut(&id) {
            book.live = book.live.saturating_sub(1);
            if book.is_gone {
                self.retire(id);
            }
        }
    }

    /// The interface of a tracked connection.
    pub(crate) fn interface(&self, id: u32) -> Option<&Arc<Interface>> {
        self.books.get(&id).map(|book| &book.interface)
    }

    /// Interfaces that are present.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.present().map(|book| &*book.interface)
    }

    /// Totals of all interfaces that ever were.
    pub(crate) fn totals(&self) -> Totals {
        let books = self.books.values().map(|book| &book.totals);
        let mut totals = Totals::default();
        self.retired
            .values()
            .chain(books)
            .for_each(|other| totals.add(other));
        totals
    }

    /// Packets that found no room in the kernel's flow tables, as far as was read.
    pub(crate) fn refused(&self) -> u64 {
        let read = |book: &Book| {
            let before = book.before.as_ref().map_or(0, Totals::refused);
            book.totals.refused().max(before)
        };
        let present = self.books.values().map(read);
        let retired = self.retired.values().map(Totals::refused);
        present.chain(retired).fold(0, u64::saturating_add)
    }

    /// Interfaces that packets were seen at and that are present.
    pub(crate) fn seen_interfaces(&self) -> u64 {
        let is_seen = |book: &&Book| book.totals.counters.seen != [0; 2];
        self.books
            .values()
            .filter(is_seen)
            .fold(0, |count, _| count + 1)
    }

    /// Present interfaces, uplinks first, then by name.
    pub(crate) fn status(&self) -> Vec<InterfaceStatus> {
        let mut status: Vec<_> = self.present().map(Book::status).collect();
        status.sort_by(|a, b| (a.point, &a.name, a.ifindex).cmp(&(b.point, &b.name, b.ifindex)));
        status
    }

    /// Samples of all accounting metrics. An uplink has a sample for each reason, a workload
    /// interface only for reasons that occurred.
    pub(crate) fn samples(&self, samples: &mut Vec<Fixed>) {
        let mut by_label: BTreeMap<&str, (&Arc<str>, Totals, bool)> = BTreeMap::new();
        let removed = Arc::from(REMOVED);
        let retired = self
            .retired
            .iter()
            .map(|(label, totals)| (label, totals, false));
        let books = self.books.values().map(|book| {
            let is_uplink = book.interface.point == Point::Uplink;
            let label = if book.is_removed() {
                &removed
            } else {
                &book.interface.name
            };
            (label, &book.totals, is_uplink)
        });
        for (label, totals, is_uplink) in retired.chain(books) {
            let row = by_label
                .entry(label)
                .or_insert_with(|| (label, Totals::default(), is_uplink));
            row.1.add(totals);
            row.2 |= is_uplink;
        }
        for (label, totals, is_uplink) in by_label.values() {
            totals_samples(label, totals, *is_uplink, samples);
        }

        let mut present: Vec<_> = self.present().collect();
        present.sort_by(|a, b| a.interface.name.cmp(&b.interface.name));
        // Interfaces that were never announced share a name, and a series may be there only once.
        present.dedup_by(|a, b| a.interface.name == b.interface.name);
        for book in present {
            book.samples(samples);
        }
    }

    fn present(&self) -> impl Iterator<Item = &Book> {
        self.books.values().filter(|book| !book.is_gone)
    }

    /// Drops the account of an interface that is gone, once its last connection is closed.
    fn retire(&mut self, id: u32) {
        if let Some(book) = self.books.get(&id)
            && book.is_gone
            && book.live == 0
            && let Some(book) = self.books.remove(&id)
        {
            let label = if book.is_removed() {
                Arc::from(REMOVED)
            } else {
                Arc::clone(&book.interface.name)
            };
            self.retired.entry(label).or_default().add(&book.totals);
        }
    }
}

fn unknown_interface(id: u32) -> Interface {
    Interface {
        id,
        ifindex: 0,
        name: UNKNOWN.into(),
        point: Point::Uplink,
        attach: "none".into(),
        covered: false,
        reason: None,
        attached_ns: None,
    }
}

fn totals_samples(label: &Arc<str>, totals: &Totals, is_uplink: bool, samples: &mut Vec<Fixed>) {
    for (hook, direction) in HOOKS {
        let mut push = |metric, reason, value| {
            samples.push(Fixed {
                metric,
                labels: vec![
                    Text::Shared(Arc::clone(label)),
                    Text::Static(direction),
                    Text::Static(reason),
                ],
                value: Value::Counter(value),
            });
        };
        let index = hook as usize;
        push(Metric::PacketsSeen, "", totals.counters.seen[index]);
        push(Metric::PacketsCounted, "", totals.counters.counted[index]);
        push(Metric::SocketBuffers, "", totals.counters.buffers[index]);
        for (reason, packets) in totals.reasons(hook) {
            if is_uplink || packets > 0 {
                push(Metric::PacketsUncounted, reason.name(), packets);
            }
        }
    }
}

// === impl Book ===

impl Book {
    fn new(interface: Arc<Interface>) -> Self {
        Self {
            interface,
            totals: Totals::default(),
            flow_packets: 0,
            flow_bytes: 0,
            live: 0,
            is_gone: false,
            before: None,
            bounds: None,
            difference: None,
        }
    }

    /// Judges whether something is missing, see [`Difference`].
    fn check(&mut self, before: Option<&Totals>, is_quiet: bool) {
        let (packets, bytes) = (self.flow_packets, self.flow_bytes);
        if is_quiet {
            self.bounds = None;
            self.difference = Some(Difference::of(&self.totals, packets, bytes));
        } else if let Some(before) = before {
            let bounds = Bounds::new(before, &self.totals, packets, bytes);
            if let Some(last) = self.bounds.replace(bounds) {
                let so_far = self.difference.unwrap_or_default();
                self.difference = Some(bounds.hull(last).nearest(so_far));
            }
        }
    }

    fn is_removed(&self) -> bool {
        self.is_gone && self.interface.point == Point::Workload
    }

    fn status(&self) -> InterfaceStatus {
        let [ingress, egress] = HOOKS.map(|(hook, _)| self.totals.status(hook));
        InterfaceStatus {
            name: Arc::clone(&self.interface.name),
            ifindex: self.interface.ifindex,
            point: self.interface.point,
            attach: Arc::clone(&self.interface.attach),
            covered: self.interface.covered,
            reason: self.interface.reason.clone(),
            flows: self.live,
            ingress,
            egress,
            difference: self.difference,
        }
    }

    fn samples(&self, samples: &mut Vec<Fixed>) {
        let name = || Text::Shared(Arc::clone(&self.interface.name));
        if let Some(difference) = &self.difference {
            let checks = [
                ("ingress", "program", difference.ingress),
                ("egress", "program", difference.egress),
                ("both", "flows", difference.flow_packets),
            ];
            for (direction, check, value) in checks {
                samples.push(Fixed {
                    metric: Metric::AccountingDifference,
                    labels: vec![name(), Text::Static(direction), Text::Static(check)],
                    value: Value::Gauge(value),
                });
            }
        }
        // The slot for interfaces that have none is not an interface.
        if self.interface.id != 0 {
            samples.push(Fixed {
                metric: Metric::InterfaceCovered,
                labels: vec![
                    name(),
                    Text::Static(self.interface.point.name()),
                    Text::Shared(Arc::clone(&self.interface.attach)),
                ],
                value: Value::Gauge(i64::from(self.interface.covered)),
            });
        }
    }
}

#[cfg(test)]
mod tests;
