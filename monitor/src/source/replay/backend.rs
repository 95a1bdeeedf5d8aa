//! Where the packet program keeps its flows when it runs offline.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque, hash_map::Entry as MapEntry},
    hash::Hash,
};

use elsa::FrozenVec;
use foldhash::fast::RandomState;
use ipnet::IpNet;
use monitor_common::{
    abi::{
        Counters, FRAGMENT_ENTRIES, FlowCell, FlowEntry, FlowKey4, FlowKey6, FlowValue,
        FragmentKey, FragmentPorts, Hook, Interface, Reason, Uncounted,
    },
    packet::Packet,
    program::{Backend, Ends, Segment},
};
use monitor_core::{
    account::InterfaceAccount,
    flow::{FlowKey, SegmentEvent},
};

/// Length of a tick of the coarse clock.
pub(super) const NS_PER_TICK: u64 = 1_000_000;

/// Keys are chosen by whoever sent the packets, so hashing is seeded.
type Map<K, V> = HashMap<K, V, RandomState>;

/// A flow's place; reused for another flow after its removal.
struct Slot {
    entry: FlowEntry,
    touched: Cell<bool>,
}

/// Flows of one family.
struct Flows<K> {
    places: RefCell<Map<K, usize>>,
    slots: FrozenVec<Box<Slot>>,
    free: RefCell<Vec<usize>>,
    touched: RefCell<Vec<(K, usize)>>,
    capacity: usize,
}

/// Flows, counters, fragments and the time, for one thread.
pub(super) struct Table {
    interfaces: Vec<Interface>,
    accounts: RefCell<Vec<(Counters, Uncounted)>>,
    flows4: Flows<FlowKey4>,
    flows6: Flows<FlowKey6>,
    ended: RefCell<Vec<(FlowKey, FlowValue)>>,
    told: RefCell<Vec<SegmentEvent>>,
    fragments: RefCell<Map<FragmentKey, FragmentPorts>>,
    fragment_order: RefCell<VecDeque<FragmentKey>>,
    local: Vec<IpNet>,
    now_ns: Cell<u64>,
}

// === impl Flows ===

impl<K: Copy + Eq + Hash + Into<FlowKey>> Flows<K> {
    fn new(capacity: usize) -> Self {
        Self {
            places: RefCell::default(),
            slots: FrozenVec::new(),
            free: RefCell::default(),
            touched: RefCell::default(),
            capacity,
        }
    }

    fn get(&self, key: &K) -> Option<FlowCell<'_>> {
        let place = *self.places.borrow().get(key)?;
        let slot = self.slots.get(place)?;
        if !slot.touched.replace(true) {
            self.touched.borrow_mut().push((*key, place));
        }
        Some(slot.entry.cell())
    }

    fn insert(&self, key: &K) -> Result<bool, Reason> {
        let mut places = self.places.borrow_mut();
        let count = places.len();
        let MapEntry::Vacant(entry) = places.entry(*key) else {
            return Ok(false);
        };
        if count >= self.capacity {
            return Err(Reason::TableFull);
        }
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            self.slots.push(Box::new(Slot {
                entry: FlowEntry::default(),
                touched: Cell::new(false),
            }));
            self.slots.len() - 1
        });
        entry.insert(place);
        Ok(true)
    }

    fn remove(&self, key: &K) -> Option<FlowValue> {
        let place = self.places.borrow_mut().remove(key)?;
        let slot = self.slots.get(place)?;
        let value = slot.entry.cell().end();
        slot.entry.cell().clear();
        slot.touched.set(false);
        self.free.borrow_mut().push(place);
        Some(value)
    }

    /// Adds all keys with the times of their first packets.
    fn list(&self, keys: &mut Vec<(u64, FlowKey)>) {
        let places = self.places.borrow();
        keys.extend(places.iter().filter_map(|(key, place)| {
            let cell = self.slots.get(*place)?.entry.cell();
            Some((cell.get_cold(|cold| cold.first_seen_ns), (*key).into()))
        }));
    }

    /// Flows with packets since the last call, as they are now.
    fn take_touched(&self) -> Vec<(K, FlowValue)> {
        let touched = std::mem::take(&mut *self.touched.borrow_mut());
        let places = self.places.borrow();
        touched
            .into_iter()
            // One that was removed meanwhile has told its last value.
            .filter(|(key, place)| places.get(key) == Some(place))
            .filter_map(|(key, place)| {
                let slot = self.slots.get(place)?;
                slot.touched.set(false);
                Some((key, slot.entry.cell().snapshot()))
            })
            .collect()
    }
}

// === impl Table ===

impl Table {
    pub(super) fn new(local: Vec<IpNet>, max_flows: usize) -> Self {
        Self {
            interfaces: Vec::new(),
            accounts: RefCell::default(),
            flows4: Flows::new(max_flows),
            flows6: Flows::new(max_flows),
            ended: RefCell::default(),
            told: RefCell::default(),
            fragments: RefCell::default(),
            fragment_order: RefCell::default(),
            local,
            now_ns: Cell::new(0),
        }
    }

    pub(super) fn set_time(&self, now_ns: u64) {
        self.now_ns.set(now_ns);
    }

    pub(super) fn register(&mut self, interface: Interface) {
        self.interfaces.push(interface);
        self.accounts.get_mut().push(Default::default());
    }

    /// The index under which a capture interface's packets are counted, with this link layer.
    pub(super) fn ifindex(&mut self, index: usize, layer: u8) -> u32 {
        match self.interfaces.get_mut(index) {
            Some(interface) => {
                interface.link = layer;
                interface.ifindex
            }
            None => 0,
        }
    }

    /// Connections that ended by another one taking their place, since the last pass.
    pub(super) fn ended(&self) -> usize {
        self.ended.borrow().len()
    }

    /// Segments that were handed to userspace, since the last call.
    pub(super) fn take_told(&self) -> Vec<SegmentEvent> {
        if self.told.borrow().is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut *self.told.borrow_mut())
    }

    pub(super) fn take_ended(&self) -> Vec<(FlowKey, FlowValue)> {
        std::mem::take(&mut *self.ended.borrow_mut())
    }

    pub(super) fn take_touched(&self) -> Vec<(FlowKey, FlowValue)> {
        let flows4 = self.flows4.take_touched().into_iter();
        let flows6 = self.flows6.take_touched().into_iter();
        let flows4 = flows4.map(|(key, value)| (FlowKey::from(key), value));
        flows4
            .chain(flows6.map(|(key, value)| (FlowKey::from(key), value)))
            .collect()
    }

    pub(super) fn accounts(&self) -> Vec<InterfaceAccount> {
        let accounts = self.accounts.borrow();
        let accounts = self.interfaces.iter().zip(accounts.iter());
        accounts
            .map(|(interface, (counters, uncounted))| InterfaceAccount {
                id: interface.id,
                counters: *counters,
                uncounted: *uncounted,
            })
            .collect()
    }

    pub(super) fn remove(&self, key: &FlowKey) -> Option<FlowValue> {
        match key {
            FlowKey::V4(key) => self.flows4.remove(key),
            FlowKey::V6(key) => self.flows6.remove(key),
        }
    }

    /// Keys of all flows, in order of their first packets.
    pub(super) fn keys(&self) -> Vec<FlowKey> {
        let mut keys = Vec::new();
        self.flows4.list(&mut keys);
        self.flows6.list(&mut keys);
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    fn is_local(&self, words: [u32; 4], v6: bool) -> bool {
        if self.local.is_empty() {
            return false;
        }
        let ip = if v6 {
            let mut octets = [0; 16];
            for (chunk, word) in octets.chunks_exact_mut(4).zip(words) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            std::net::IpAddr::from(octets)
        } else {
            let [.., last] = words;
            std::net::IpAddr::from(last.to_be_bytes())
        };
        self.local.iter().any(|prefix| prefix.contains(&ip))
    }
}

impl Backend for Table {
    fn interface(&self, ifindex: u32) -> Option<(u32, &Interface)> {
        let slot = ifindex.checked_sub(1)?;
        Some((slot, self.interfaces.get(usize::try_from(slot).ok()?)?))
    }

    fn account(&self, slot: u32, hook: Hook, packets: u32, result: Result<u64, Reason>) {
        let mut accounts = self.accounts.borrow_mut();
        let slot = usize::try_from(slot).unwrap_or(usize::MAX);
        let Some((counters, uncounted)) = accounts.get_mut(slot) else {
            return;
        };
        let hook = hook as usize;
        counters.buffers[hook] += 1;
        counters.seen[hook] += u64::from(packets);
        match result {
            Ok(bytes) => {
                counters.counted[hook] += u64::from(packets);
                counters.bytes[hook] += bytes;
            }
            Err(reason) => uncounted.packets[hook][reason as usize] += u64::from(packets),
        }
    }

    fn flow4(&self, key: &FlowKey4) -> Option<FlowCell<'_>> {
        self.flows4.get(key)
    }

    fn flow6(&self, key: &FlowKey6) -> Option<FlowCell<'_>> {
        self.flows6.get(key)
    }

    fn insert4(&self, key: &FlowKey4) -> Result<bool, Reason> {
        self.flows4.insert(key)
    }

    fn insert6(&self, key: &FlowKey6) -> Result<bool, Reason> {
        self.flows6.insert(key)
    }

    fn ended4(&self, key: &FlowKey4, last: &FlowCell<'_>) -> bool {
        self.ended
            .borrow_mut()
            .push((FlowKey::from(*key), last.end()));
        true
    }

    fn ended6(&self, key: &FlowKey6, last: &FlowCell<'_>) -> bool {
        self.ended
            .borrow_mut()
            .push((FlowKey::from(*key), last.end()));
        true
    }

    fn segment4<P: Packet>(
        &self,
        packet: &P,
        key: &FlowKey4,
        flow: &FlowCell<'_>,
        segment: &Segment,
    ) {
        segment.each(packet, (0, key, self.now_ns.get()), flow, |head, bytes| {
            self.told.borrow_mut().push(SegmentEvent::new(head, bytes));
        });
    }

    fn segment6<P: Packet>(
        &self,
        packet: &P,
        key: &FlowKey6,
        flow: &FlowCell<'_>,
        segment: &Segment,
    ) {
        segment.each(packet, (0, key, self.now_ns.get()), flow, |head, bytes| {
            self.told.borrow_mut().push(SegmentEvent::new(head, bytes));
        });
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        let mut fragments = self.fragments.borrow_mut();
        if fragments.insert(*key, *ports).is_none() {
            let mut order = self.fragment_order.borrow_mut();
            order.push_back(*key);
            // The oldest goes, as in the kernel's map of this size.
            if order.len() > FRAGMENT_ENTRIES as usize
                && let Some(oldest) = order.pop_front()
            {
                fragments.remove(&oldest);
            }
        }
    }

    fn ticks(&self) -> u32 {
        // Wraps, as in the kernel.
        u32::try_from((self.now_ns.get() / NS_PER_TICK) & u64::from(u32::MAX)).unwrap_or(0)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// By `--local`; where that does not tell, in an order that both directions share.
    fn source_is_local(&self, _: &Interface, _: Hook, ends: &Ends) -> bool {
        let source = self.is_local(ends.source, ends.v6);
        let destination = self.is_local(ends.destination, ends.v6);
        if source == destination {
            (ends.source, ends.source_port) <= (ends.destination, ends.destination_port)
        } else {
            source
        }
    }
}
