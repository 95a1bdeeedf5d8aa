//! The packet program's host build, with the kernel's rules for interfaces and maps.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
};

use elsa::FrozenMap;

use monitor_common::{
    abi::{
        Counters, FlowCell, FlowEntry, FlowKey4, FlowKey6, FlowValue, FragmentKey, FragmentPorts,
        Hook, Interface, Reason, SegmentHead, UNKNOWN_SLOT, Uncounted, event, slot_probe,
    },
    classify::App,
    packet::{Frame, Packet},
    program::{Backend, Segment, on_packet},
};

use super::Sample;

/// Key of a flow of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// IPv4.
    V4(FlowKey4),
    /// IPv6.
    V6(FlowKey6),
}

/// What kernel and host must agree on about a flow: all but clocks and cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of FlowValue")]
pub struct Facts {
    pub packets: [u64; 2],
    pub bytes: [u64; 2],
    pub next_sequence: [u32; 2],
    pub flags: [u16; 2],
    pub has_handshake_rtt: bool,
    pub app: App,
    pub retransmits: [u32; 2],
    pub prefix: [[u8; 8]; 2],
    pub prefix_length: [u8; 2],
    pub inspected: [u8; 2],
    pub generation: u32,
    pub inspect_sequence: [u32; 2],
    pub captured: [u16; 2],
    pub told: [u8; 2],
}

/// A segment that was handed to userspace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of SegmentHead")]
pub struct Told {
    pub key: Key,
    pub direction: u8,
    pub sequence: u32,
    pub flags: [u16; 2],
    pub generation: u32,
    pub length: u16,
    pub pushed: u8,
    pub app: u8,
    pub prefix: ([u8; 8], u8, u32),
    pub bytes: Vec<u8>,
}

// === impl Told ===

impl Told {
    /// All but the time.
    pub fn new<K>(key: Key, head: &SegmentHead<K>, bytes: &[u8]) -> Self {
        assert_eq!(
            bytes.len(),
            usize::from(head.captured),
            "bytes of a segment"
        );
        Self {
            key,
            direction: head.direction,
            sequence: head.sequence,
            flags: head.flags,
            generation: head.generation,
            length: head.length,
            pushed: head.pushed,
            app: head.app,
            prefix: (head.prefix, head.prefix_length, head.prefix_end),
            bytes: bytes.to_vec(),
        }
    }
}

/// Everything that was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Flows.
    pub flows: BTreeMap<Key, Facts>,
    /// Connections that ended because another one took their entry, in order.
    pub ended: Vec<(Key, Facts)>,
    /// Segments that were handed to userspace, in order.
    pub told: Vec<Told>,
    /// Totals of the interface, then of unknown interfaces.
    pub counters: [Counters; 2],
    /// Uncounted packets, likewise.
    pub uncounted: [Uncounted; 2],
}

/// Flows in the memory of this process.
pub struct Host {
    interface: Interface,
    counters: RefCell<[Counters; 2]>,
    uncounted: RefCell<[Uncounted; 2]>,
    flows4: FrozenMap<FlowKey4, Box<FlowEntry>>,
    flows6: FrozenMap<FlowKey6, Box<FlowEntry>>,
    /// Of all flows.
    keys: RefCell<Vec<Key>>,
    fragments: RefCell<HashMap<FragmentKey, FragmentPorts>>,
    ended: RefCell<Vec<(Key, Facts)>>,
    told: RefCell<Vec<Told>>,
    now_ns: Cell<u64>,
}

// === impl Facts ===

impl From<&FlowValue> for Facts {
    fn from(value: &FlowValue) -> Self {
        Self {
            packets: value.packets,
            bytes: value.bytes,
            next_sequence: value.next_sequence,
            flags: value.flags,
            has_handshake_rtt: value.handshake_rtt_ns != 0,
            app: App::from_code(value.app),
            retransmits: value.retransmits,
            prefix: value.prefix,
            prefix_length: value.prefix_length,
            inspected: value.inspected,
            generation: value.generation,
            inspect_sequence: value.inspect_sequence,
            captured: value.captured,
            told: value.told,
        }
    }
}

// === impl Host ===

impl Host {
    /// Knows one interface.
    pub fn new(interface: Interface) -> Self {
        Self {
            interface,
            counters: RefCell::default(),
            uncounted: RefCell::default(),
            flows4: FrozenMap::new(),
            flows6: FrozenMap::new(),
            keys: RefCell::default(),
            fragments: RefCell::default(),
            ended: RefCell::default(),
            told: RefCell::default(),
            now_ns: Cell::new(1),
        }
    }

    /// Counts a frame on the interface `ifindex`.
    pub fn feed(&self, sample: &Sample, ifindex: u32) {
        self.now_ns.set(self.now_ns.get() + 1000);
        let frame = Frame {
            bytes: &sample.bytes,
            length: u32::try_from(sample.bytes.len()).expect("a short frame"),
            ifindex,
            hook: sample.hook,
        };
        // What came of it is in the books.
        let _ = on_packet(&frame, self);
    }

    /// Datagrams whose ports are remembered.
    pub fn fragments(&self) -> usize {
        self.fragments.borrow().len()
    }

    /// What was counted so far.
    pub fn books(&self) -> Books {
        let keys = self.keys.borrow();
        let flows = keys.iter().map(|key| {
            let entry = match key {
                Key::V4(key) => self.flows4.get(key),
                Key::V6(key) => self.flows6.get(key),
            };
            let entry = entry.expect("keys are those of the flows");
            (*key, Facts::from(&entry.cell().snapshot()))
        });
        Books {
            flows: flows.collect(),
            ended: self.ended.borrow().clone(),
            told: self.told.borrow().clone(),
            counters: *self.counters.borrow(),
            uncounted: *self.uncounted.borrow(),
        }
    }
}

impl Backend for Host {
    fn interface(&self, ifindex: u32) -> Option<(u32, &Interface)> {
        (ifindex == self.interface.ifindex).then(|| (slot_probe(ifindex, 0), &self.interface))
    }

    fn account(&self, slot: u32, hook: Hook, packets: u32, result: Result<u64, Reason>) {
        let book = usize::from(slot == UNKNOWN_SLOT);
        let hook = hook as usize;
        let counters = &mut self.counters.borrow_mut()[book];
        let packets = u64::from(packets);
        counters.buffers[hook] += 1;
        counters.seen[hook] += packets;
        match result {
            Ok(bytes) => {
                counters.counted[hook] += packets;
                counters.bytes[hook] += bytes;
            }
            Err(reason) => {
                self.uncounted.borrow_mut()[book].packets[hook][reason as usize] += packets;
            }
        }
    }

    fn flow4(&self, key: &FlowKey4) -> Option<FlowCell<'_>> {
        self.flows4.get(key).map(FlowEntry::cell)
    }

    fn flow6(&self, key: &FlowKey6) -> Option<FlowCell<'_>> {
        self.flows6.get(key).map(FlowEntry::cell)
    }

    fn insert4(&self, key: &FlowKey4) -> Result<bool, Reason> {
        self.flows4.insert(*key, Box::default());
        self.keys.borrow_mut().push(Key::V4(*key));
        Ok(true)
    }

    fn insert6(&self, key: &FlowKey6) -> Result<bool, Reason> {
        self.flows6.insert(*key, Box::default());
        self.keys.borrow_mut().push(Key::V6(*key));
        Ok(true)
    }

    fn ended4(&self, key: &FlowKey4, last: &FlowCell<'_>) -> bool {
        let facts = Facts::from(&last.end());
        self.ended.borrow_mut().push((Key::V4(*key), facts));
        true
    }

    fn ended6(&self, key: &FlowKey6, last: &FlowCell<'_>) -> bool {
        let facts = Facts::from(&last.end());
        self.ended.borrow_mut().push((Key::V6(*key), facts));
        true
    }

    fn segment4<P: Packet>(
        &self,
        packet: &P,
        key: &FlowKey4,
        flow: &FlowCell<'_>,
        segment: &Segment,
    ) {
        let told = (event::SEGMENT4, key, 0);
        segment.each(packet, told, flow, |head, bytes| {
            self.told
                .borrow_mut()
                .push(Told::new(Key::V4(*key), head, bytes));
        });
    }

    fn segment6<P: Packet>(
        &self,
        packet: &P,
        key: &FlowKey6,
        flow: &FlowCell<'_>,
        segment: &Segment,
    ) {
        let told = (event::SEGMENT6, key, 0);
        segment.each(packet, told, flow, |head, bytes| {
            self.told
                .borrow_mut()
                .push(Told::new(Key::V6(*key), head, bytes));
        });
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, *ports);
    }

    fn ticks(&self) -> u32 {
        0
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }
}
