//! The flow table: readings of kernel entries become connections that open, advance and close.
//!
//! An entry of the kernel's map may be taken over by a new connection between the same ports. The
//! kernel then counts up the entry's generation and sends the old connection's final counts as an
//! event. Readings of the map and events come by different ways, so that either may be processed
//! first; counts stay exact in both orders:
//!
//! - event first: the connection is closed and stays as *ended*, so that a reading of the map that
//!   was made before the event is recognised as stale;
//! - reading first: the old connection is *displaced* and waits for its event.
//!
//! A reading may also be torn: made while the kernel replaced the entry, or carried what it had counted
//! (`Traffic`), which makes it too low. So a reading of a new
//! connection is believed only if that began before the clock was sampled for this pass over the
//! maps; if not, the next pass will tell. A reading that makes no sense at all, such as a counter
//! that went backwards, is believed only when the next one makes no sense either.

use std::collections::{HashMap, hash_map::Entry};

use monitor_common::abi::{FlowValue, RX, TX};

use super::{
    Anomaly, Delta, Expiry, FlowKey, Mark, Tracked,
    expiry::{Due, GRACE_NS},
};
use crate::time::ClockMap;

/// What the table tells of connections.
pub(crate) trait Effects {
    /// A connection begins. Its first advance follows.
    fn opened(&mut self, key: &FlowKey, flow: &mut Tracked);
    /// A reading added something; `flow` has it already. Nothing follows but the close when it
    /// `is_final`.
    fn advanced(&mut self, key: &FlowKey, flow: &mut Tracked, delta: &Delta, is_final: bool);
    /// A connection is over.
    fn closed(&mut self, key: &FlowKey, flow: &Tracked);
    /// Something did not fit.
    fn anomaly(&mut self, anomaly: Anomaly);
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Table {
    flows: HashMap<FlowKey, Tracked>,
    /// Connections whose entries were taken over, until their events come: by key, generation and
    /// first-seen time.
    displaced: HashMap<(FlowKey, u32, u64), Displaced>,
    /// Entries of `flows` that are not ended, by family.
    live: [usize; 2],
    /// Readings that were not believed since the last expiry, and entries that have been suspect
    /// for longer.
    suspects: usize,
    /// When the next entry of `flows` may be due.
    due: Due,
    /// Scratch of [`Table::expire`].
    candidates: Vec<(u64, FlowKey)>,
}

#[derive(Debug)]
struct Displaced {
    flow: Tracked,
    since_ns: u64,
}

// === impl Table ===

impl Table {
    /// Connections that are not closed, by family.
    pub(crate) fn live(&self) -> [usize; 2] {
        self.live
    }

    /// Whether every reading so far was understood: nothing awaits an event or another reading.
    pub(crate) fn is_settled(&self) -> bool {
        self.displaced.is_empty() && self.suspects == 0
    }

    /// Connections that are not closed, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&FlowKey, &Tracked)> {
        let displaced = self
            .displaced
            .iter()
            .map(|((key, ..), displaced)| (key, &displaced.flow));
        self.flows
            .iter()
            .filter(|(_, flow)| !flow.has(Mark::Ended))
            .chain(displaced)
    }

    /// A connection that is not closed, if a reading was taken in.
    pub(crate) fn get(&self, key: &FlowKey, generation: u32) -> Option<&Tracked> {
        self.flows
            .get(key)
            .filter(|flow| flow.generation == generation && !flow.has(Mark::Ended))
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, key: &FlowKey, generation: u32) -> Option<&mut Tracked> {
        self.flows
            .get_mut(key)
            .filter(|flow| flow.generation == generation && !flow.has(Mark::Ended))
    }

    /// Connections that are not closed and whose entries are theirs, to change them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&FlowKey, &mut Tracked)> {
        self.flows
            .iter_mut()
            .filter(|(_, flow)| !flow.has(Mark::Ended))
    }

    /// Whether a connection is not closed.
    pub(crate) fn has(&self, key: &FlowKey, generation: u32) -> bool {
        let displaced = || {
            let mut displaced = self.displaced.keys();
            displaced.any(|(known, number, _)| known == key && *number == generation)
        };
        self.get(key, generation).is_some() || displaced()
    }

    /// An entry was read from the kernel's map.
    pub(crate) fn sighted(
        &mut self,
        key: &FlowKey,
        value: &FlowValue,
        clock: &ClockMap,
        effects: &mut impl Effects,
    ) {
        // Just inserted or taken over: its first packet is not yet counted, nor when it came.
        if value.packets == [0, 0] {
            return;
        }
        let family = key.family() as usize;
        let mut entry = match self.flows.entry(*key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                self.live[family] += 1;
                let flow = entry.insert(begin(key, value, clock, effects, false));
                self.due.note(key, flow);
                return;
            }
        };
        let flow = entry.get_mut();
        let is_ended = flow.has(Mark::Ended);
        let fits = flow.is_same(value);
        if is_ended && (fits || flow.is_after(value)) {
            return;
        }
        if let Some(delta) = flow.delta(value).filter(|_| fits) {
            flow.set(Mark::Suspect, false);
            if !flow.is_current(value) {
                flow.update(value, clock);
                effects.advanced(key, flow, &delta, false);
                self.due.note(key, flow);
            }
            return;
        }
        if value.first_seen_ns > flow.first_seen_ns {
            if value.first_seen_ns > clock.monotonic_now_ns {
                self.suspects += 1;
                return;
            }
        } else if !flow.has(Mark::Suspect) {
            flow.set(Mark::Suspect, true);
            self.suspects += 1;
            return;
        }
        if is_ended {
            self.live[family] += 1;
        } else if fits {
            effects.anomaly(Anomaly::CounterBackwards);
            effects.closed(key, flow);
        } else {
            displace(&mut self.displaced, key, flow.clone(), clock, effects);
        }
        *flow = begin(key, value, clock, effects, false);
        self.due.note(key, flow);
    }

    /// The kernel told the final counts of a connection whose entry was taken over.
    pub(crate) fn ended(
        &mut self,
        key: &FlowKey,
        value: &FlowValue,
        clock: &ClockMap,
        effects: &mut impl Effects,
    ) {
        let family = key.family() as usize;
        if let Some(flow) = self.flows.get_mut(key)
            && flow.is_same(value)
        {
            if !flow.has(Mark::Ended) {
                finish(key, flow, value, clock, effects);
                entomb(flow, clock);
                self.due.note(key, flow);
                self.live[family] -= 1;
            }
            return;
        }
        if let Some(mut displaced) = self.take_displaced(key, value) {
            finish(key, &mut displaced, value, clock, effects);
            return;
        }
        let mut ended = begin(key, value, clock, effects, true);
        effects.closed(key, &ended);
        entomb(&mut ended, clock);
        self.due.note(key, &ended);
        match self.flows.entry(*key) {
            Entry::Vacant(entry) => {
                entry.insert(ended);
            }
            Entry::Occupied(mut entry) if entry.get().is_before(value) => {
                let older = entry.insert(ended);
                if !older.has(Mark::Ended) {
                    self.live[family] -= 1;
                    displace(&mut self.displaced, key, older, clock, effects);
                }
            }
            Entry::Occupied(_) => {}
        }
    }

    /// The source deleted an entry and read its final counts.
    pub(crate) fn removed(
        &mut self,
        key: &FlowKey,
        value: &FlowValue,
        clock: &ClockMap,
        effects: &mut impl Effects,
    ) {
        // The event of a later entry with this key may have come before.
        let is_later =
            |flow: &Tracked| flow.has(Mark::Ended) && flow.first_seen_ns > value.first_seen_ns;
        if !self.flows.get(key).is_some_and(is_later)
            && let Some(mut flow) = self.flows.remove(key)
        {
            let is_live = !flow.has(Mark::Ended);
            if is_live {
                self.live[key.family() as usize] -= 1;
            }
            if flow.is_same(value) {
                if is_live {
                    finish(key, &mut flow, value, clock, effects);
                }
                return;
            }
            if is_live {
                displace(&mut self.displaced, key, flow, clock, effects);
            }
        }
        if let Some(mut flow) = self.take_displaced(key, value) {
            finish(key, &mut flow, value, clock, effects);
        } else {
            let flow = begin(key, value, clock, effects, true);
            effects.closed(key, &flow);
        }
    }

    /// The source was to delete an entry that does not exist.
    pub(crate) fn missing(&mut self, key: &FlowKey, effects: &mut impl Effects) {
        if let Some(flow) = self.flows.remove(key)
            && !flow.has(Mark::Ended)
        {
            self.live[key.family() as usize] -= 1;
            effects.anomaly(Anomaly::EntryVanished);
            effects.closed(key, &flow);
        }
    }

    /// An interface is gone: its connections are over.
    pub(crate) fn interface_gone(&mut self, interface_id: u32) {
        self.flows
            .iter_mut()
            .filter(|(key, _)| key.interface_id() == interface_id)
            .for_each(|(_, flow)| flow.set(Mark::Gone, true));
        self.due.reset();
    }

    /// Entries that the source should delete, at most `limit`, the longest idle first.
    pub(crate) fn expire(
        &mut self,
        expiry: &Expiry,
        clock: &ClockMap,
        limit: usize,
        effects: &mut impl Effects,
    ) -> Vec<FlowKey> {
        let keys = if self.suspects == 0 && self.due.is_later(expiry) {
            Vec::new()
        } else {
            self.take_due(expiry, limit)
        };
        let is_late = |displaced: &Displaced| {
            clock.monotonic_now_ns.saturating_sub(displaced.since_ns) >= GRACE_NS
        };
        for ((key, ..), displaced) in self.displaced.extract_if(|_, displaced| is_late(displaced)) {
            effects.anomaly(Anomaly::EndMissing);
            effects.closed(&key, &displaced.flow);
        }
        keys
    }

    /// Looks through all entries: those whose deletion is to be asked for.
    fn take_due(&mut self, expiry: &Expiry, limit: usize) -> Vec<FlowKey> {
        let candidates = &mut self.candidates;
        candidates.clear();
        self.suspects = 0;
        self.due.begin(expiry);
        self.flows.retain(|key, flow| {
            let is_ended = flow.has(Mark::Ended);
            self.suspects += usize::from(!is_ended && flow.has(Mark::Suspect));
            if !expiry.is_due(key, flow) {
                self.due.note(key, flow);
            } else if is_ended {
                return false;
            } else {
                candidates.push((flow.last_seen_ns, *key));
            }
            true
        });
        candidates.sort_unstable();
        if candidates.len() > limit {
            candidates.truncate(limit);
            self.due.reset();
        }
        for (_, key) in &*candidates {
            if let Some(flow) = self.flows.get_mut(key) {
                expiry.ask(flow);
                self.due.note(key, flow);
            }
        }
        candidates.iter().map(|(_, key)| *key).collect()
    }

    /// Closes everything with the counts last seen, in order of their start.
    pub(crate) fn close_all(&mut self, effects: &mut impl Effects) {
        let displaced = self
            .displaced
            .drain()
            .map(|((key, ..), displaced)| (key, displaced.flow));
        let mut flows: Vec<_> = self
            .flows
            .drain()
            .filter(|(_, flow)| !flow.has(Mark::Ended))
            .chain(displaced)
            .collect();
        self.live = [0; 2];
        self.suspects = 0;
        flows.sort_unstable_by_key(|(key, flow)| (flow.start, flow.generation, *key));
        for (key, flow) in &flows {
            effects.closed(key, flow);
        }
    }

    fn take_displaced(&mut self, key: &FlowKey, value: &FlowValue) -> Option<Tracked> {
        if self.displaced.is_empty() {
            return None;
        }
        self.displaced
            .remove(&(*key, value.generation, value.first_seen_ns))
            .map(|displaced| displaced.flow)
    }
}

/// A connection with its first reading.
fn begin(
    key: &FlowKey,
    value: &FlowValue,
    clock: &ClockMap,
    effects: &mut impl Effects,
    is_final: bool,
) -> Tracked {
    let mut flow = Tracked::open(value, clock);
    flow.update(value, clock);
    effects.opened(key, &mut flow);
    let delta = Delta {
        packets: value.packets,
        bytes: value.bytes,
        after_ns: value.first_seen_ns,
    };
    effects.advanced(key, &mut flow, &delta, is_final);
    flow
}

/// Closes a connection with its final reading. A counter that would go backwards stays: the
/// reading is of this connection, so there is no other to count it for.
fn finish(
    key: &FlowKey,
    flow: &mut Tracked,
    value: &FlowValue,
    clock: &ClockMap,
    effects: &mut impl Effects,
) {
    let mut last = *value;
    if flow.delta(value).is_none() {
        effects.anomaly(Anomaly::CounterBackwards);
        for direction in [TX, RX] {
            last.packets[direction] = last.packets[direction].max(flow.packets[direction]);
            last.bytes[direction] = last.bytes[direction].max(flow.bytes[direction]);
        }
    }
    let delta = flow.delta(&last).unwrap_or_default();
    flow.update(&last, clock);
    effects.advanced(key, flow, &delta, true);
    effects.closed(key, flow);
}

/// Keeps an ended connection in the table, to recognise stale readings of its entry.
fn entomb(flow: &mut Tracked, clock: &ClockMap) {
    flow.set(Mark::Ended, true);
    flow.last_seen_ns = flow.last_seen_ns.max(clock.monotonic_now_ns);
}

fn displace(
    displaced: &mut HashMap<(FlowKey, u32, u64), Displaced>,
    key: &FlowKey,
    flow: Tracked,
    clock: &ClockMap,
    effects: &mut impl Effects,
) {
    let identity = (*key, flow.generation, flow.first_seen_ns);
    let waiting = Displaced {
        flow,
        since_ns: clock.monotonic_now_ns,
    };
    if let Some(Displaced { flow, .. }) = displaced.insert(identity, waiting) {
        effects.anomaly(Anomaly::EndMissing);
        effects.closed(key, &flow);
    }
}

#[cfg(test)]
mod tests;
