//! The loaded program under test: frames in, books out.

use monitor::source::ebpf::{AccessError, Kernel, LoadOptions};
use monitor_common::abi::{
    EVENT_RING_BYTES, FlowEnd, FlowKey4, FlowKey6, Hook, Interface, SegmentHead, UNKNOWN_SLOT,
    event, link, names, point,
};
use tests::frames::{
    Sample,
    host::{Books, Facts, Key, Told},
};

/// The loopback interface: it exists everywhere, and nothing is attached to it.
pub(crate) const LOOPBACK: u32 = 1;

/// What tests load, unless they test limits.
pub(crate) const OPTIONS: LoadOptions = LoadOptions {
    max_flows4: 32_768,
    max_flows6: 32_768,
    event_ring_bytes: EVENT_RING_BYTES,
    log_level: 0,
};

/// The loopback interface as an uplink.
pub(crate) const UPLINK: Interface = Interface {
    ifindex: LOOPBACK,
    id: 3,
    point: point::UPLINK,
    link: link::ETHERNET,
    _pad: [0; 2],
};

/// A loaded program, and the events that it sent.
pub(crate) struct Loaded {
    pub(crate) kernel: Kernel,
    slot: u32,
    ended: Vec<(Key, Facts)>,
    told: Vec<Told>,
}

// === impl Loaded ===

impl Loaded {
    /// Loads, and registers the interface.
    pub(crate) fn new(options: &LoadOptions, interface: Interface) -> Self {
        let mut kernel = Kernel::load(options).unwrap_or_else(|error| panic!("{error}"));
        let slot = kernel.register(interface).expect("a free slot");
        Self {
            kernel,
            slot,
            ended: Vec::new(),
            told: Vec::new(),
        }
    }

    /// Runs the program of the hook over a frame; an error where the kernel refuses to.
    pub(crate) fn feed(&mut self, sample: &Sample, ifindex: u32) -> Result<(), AccessError> {
        let program = match sample.hook {
            Hook::Ingress => names::INGRESS_PROGRAM,
            Hook::Egress => names::EGRESS_PROGRAM,
        };
        let (verdict, _) = self.kernel.run(program, &sample.bytes, Some(ifindex), 1)?;
        assert_eq!(verdict, u32::MAX, "the next program must decide, always");
        Ok(())
    }

    /// Takes the events out of the ring.
    pub(crate) fn drain(&mut self) {
        let (ended, told) = (&mut self.ended, &mut self.told);
        self.kernel
            .drain_events(usize::MAX, |event| match decode(event) {
                Event::Ended(key, facts) => ended.push((key, facts)),
                Event::Told(segment) => told.push(segment),
            });
    }

    /// Everything that was counted so far.
    pub(crate) fn books(&mut self) -> Books {
        self.drain();
        let (mut flows4, mut flows6) = (Vec::new(), Vec::new());
        self.kernel.read_flows4(&mut flows4).expect("mapped");
        self.kernel.read_flows6(&mut flows6).expect("mapped");
        let flows4 = flows4
            .iter()
            .map(|(key, value)| (Key::V4(*key), value.into()));
        let flows6 = flows6
            .iter()
            .map(|(key, value)| (Key::V6(*key), value.into()));
        let kernel = &self.kernel;
        Books {
            flows: flows4.chain(flows6).collect(),
            ended: self.ended.clone(),
            told: self.told.clone(),
            counters: [self.slot, UNKNOWN_SLOT].map(|slot| kernel.counters(slot).expect("a slot")),
            uncounted: [self.slot, UNKNOWN_SLOT]
                .map(|slot| kernel.uncounted(slot).expect("a slot")),
        }
    }
}

/// Version of the running kernel.
pub(crate) fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

enum Event {
    Ended(Key, Facts),
    Told(Told),
}

fn decode(bytes: &[u8]) -> Event {
    let kind = bytes.first_chunk().copied().map(u32::from_ne_bytes);
    match kind {
        Some(event::FLOW_END4) => {
            let end: FlowEnd<FlowKey4> = read(bytes);
            Event::Ended(Key::V4(end.key), Facts::from(&end.value()))
        }
        Some(event::FLOW_END6) => {
            let end: FlowEnd<FlowKey6> = read(bytes);
            Event::Ended(Key::V6(end.key), Facts::from(&end.value()))
        }
        Some(event::SEGMENT4) => {
            let (head, rest) = bytes.split_at(size_of::<SegmentHead<FlowKey4>>());
            let head: SegmentHead<FlowKey4> = read(head);
            Event::Told(Told::new(Key::V4(head.key), &head, rest))
        }
        Some(event::SEGMENT6) => {
            let (head, rest) = bytes.split_at(size_of::<SegmentHead<FlowKey6>>());
            let head: SegmentHead<FlowKey6> = read(head);
            Event::Told(Told::new(Key::V6(head.key), &head, rest))
        }
        _ => panic!("an event of kind {kind:?}: {bytes:02x?}"),
    }
}

fn read<T: Copy>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>(), "length of an event");
    // SAFETY: there are as many bytes, and the only two types are integers without padding.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}
