//! The loaded kernel program and typed access to its maps.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader, Pod, VerifierLogLevel,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, Stack},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use aya_log::EbpfLogger;
use monitor_common::abi::{
    ABI_VERSION, ClockSample, Counters, FlowKey4, FlowKey6, FlowValue, Hook, Interface, Lost,
    SLOT_PROBES, SegmentHead, Uncounted, names, slot_probe, split,
};

use super::{
    error::{AccessError, LoadError, is_permission},
    flows::Flows,
    object,
};

/// A map type of the ABI, as aya's typed maps want it.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(super) struct Abi<T>(pub T);

macro_rules! pod {
    ($($type:ty),*) => {
        $(
            // SAFETY: repr(C), integers only, no padding; sizes asserted next to the types.
            unsafe impl Pod for Abi<$type> {}
        )*
    };
}
pod!(
    FlowKey4,
    FlowKey6,
    Interface,
    Counters,
    Uncounted,
    Lost,
    ClockSample
);

/// How to load the kernel program.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Capacity for IPv4 flows, see [`split`].
    pub max_flows4: u32,
    /// Capacity for IPv6 flows.
    pub max_flows6: u32,
    /// Size of the event ring in bytes, a power of two multiple of the page size.
    pub event_ring_bytes: u32,
    /// Level of the kernel program's own log: 0 off, 1 error to 5 trace. When off, the verifier
    /// removes the log statements.
    pub log_level: u8,
}

/// The loaded kernel program. Dropping it detaches what was attached by links and frees the maps.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    flows4: Flows<FlowKey4>,
    flows6: Flows<FlowKey6>,
    interfaces: Array<MapData, Abi<Interface>>,
    counters: PerCpuArray<MapData, Abi<Counters>>,
    uncounted: Array<MapData, Abi<Uncounted>>,
    lost: Array<MapData, Abi<Lost>>,
    clock: Array<MapData, Abi<ClockSample>>,
    events: RingBuf<MapData>,
    event_ring_bytes: u32,
    /// Prints what the kernel program logged; absent when its log is off.
    log: Option<Box<dyn FnMut() + Send>>,
    ns_per_tick: u64,
}

macro_rules! take_map {
    ($ebpf:expr, $name:expr, $type:ident) => {
        $type::try_from($ebpf.take_map($name).ok_or(LoadError::Missing($name))?).map_err(
            |source| LoadError::Map {
                name: $name,
                source,
            },
        )?
    };
}

impl Kernel {
    /// Loads the programs; nothing is attached yet.
    ///
    /// Where the kernel lacks a helper that is not essential, the program is loaded without it:
    /// that is found out by trying.
    pub fn load(options: &LoadOptions) -> Result<Self, LoadError> {
        Self::load_object(object::PROGRAMS, options)
    }

    /// The same of another object, for the benchmark.
    #[doc(hidden)]
    pub fn load_object(object: &[u8], options: &LoadOptions) -> Result<Self, LoadError> {
        match Self::load_with(object, options, true) {
            Err(LoadError::Program { .. }) => Self::load_with(object, options, false),
            result => result,
        }
    }

    fn load_with(object: &[u8], options: &LoadOptions, cgroup: bool) -> Result<Self, LoadError> {
        let cgroup = u8::from(cgroup);
        let (split4, split6) = (split(options.max_flows4), split(options.max_flows6));
        let mut ebpf = EbpfLoader::new()
            // Nothing of it depends on types of this kernel: reading them takes 12 MiB.
            .btf(None)
            .verifier_log_level(VerifierLogLevel::default())
            .override_global("AYA_LOG_LEVEL", &options.log_level, false)
            .override_global("NODEWATCH_CGROUP", &cgroup, true)
            .override_global("NODEWATCH_NEAR4", &split4.0, true)
            .override_global("NODEWATCH_NEAR6", &split6.0, true)
            .map_max_entries(names::PLACES4, options.max_flows4)
            .map_max_entries(names::PLACES6, options.max_flows6)
            .map_max_entries(names::ASIDE4, options.max_flows4)
            .map_max_entries(names::ASIDE6, options.max_flows6)
            .map_max_entries(names::FLOWS4, split4.1)
            .map_max_entries(names::FLOWS6, split6.1)
            .map_max_entries(names::SPARE4, split4.1)
            .map_max_entries(names::SPARE6, split6.1)
            .map_max_entries(names::EVENTS, options.event_ring_bytes)
            .load(object)
            .map_err(|error| {
                if is_permission(&error) {
                    LoadError::Privileges(io::Error::from_raw_os_error(libc::EPERM))
                } else {
                    LoadError::Object(error)
                }
            })?;
        for name in [
            names::INGRESS_PROGRAM,
            names::EGRESS_PROGRAM,
            names::CLOCK_PROGRAM,
        ] {
            let program: &mut SchedClassifier = ebpf
                .program_mut(name)
                .and_then(|program| program.try_into().ok())
                .ok_or(LoadError::Missing(name))?;
            program.load().map_err(|source| {
                if is_permission(&source) {
                    LoadError::Privileges(io::Error::from_raw_os_error(libc::EPERM))
                } else {
                    LoadError::Program { name, source }
                }
            })?;
        }
        let log = if options.log_level == 0 {
            None
        } else {
            let mut logger = EbpfLogger::init(&mut ebpf)?;
            Some(Box::new(move || logger.flush()) as Box<dyn FnMut() + Send>)
        };
        let flows4 = Flows::new(
            [
                take_array(&mut ebpf, names::PLACES4)?,
                take_array(&mut ebpf, names::ASIDE4)?,
            ],
            take_map!(ebpf, names::FLOWS4, HashMap),
            take_map!(ebpf, names::SPARE4, Stack),
            split4,
        )
        .map_err(LoadError::Memory)?;
        let flows6 = Flows::new(
            [
                take_array(&mut ebpf, names::PLACES6)?,
                take_array(&mut ebpf, names::ASIDE6)?,
            ],
            take_map!(ebpf, names::FLOWS6, HashMap),
            take_map!(ebpf, names::SPARE6, Stack),
            split6,
        )
        .map_err(LoadError::Memory)?;
        let mut kernel = Self {
            log,
            flows4,
            flows6,
            interfaces: take_map!(ebpf, names::INTERFACES, Array),
            counters: take_map!(ebpf, names::COUNTERS, PerCpuArray),
            uncounted: take_map!(ebpf, names::UNCOUNTED, Array),
            lost: take_map!(ebpf, names::LOST, Array),
            clock: take_map!(ebpf, names::CLOCK, Array),
            events: take_map!(ebpf, names::EVENTS, RingBuf),
            event_ring_bytes: options.event_ring_bytes,
            ns_per_tick: 0,
            ebpf,
        };
        kernel.calibrate()?;
        Ok(kernel)
    }

    /// Finds out how long a tick is, and that the object has the layout of this build.
    fn calibrate(&mut self) -> Result<(), LoadError> {
        let found = self
            .run(names::CLOCK_PROGRAM, &[0; 64], None, 1)
            .map_err(|error| LoadError::Clock(Box::new(error)))?
            .0;
        if found != ABI_VERSION {
            return Err(LoadError::AbiVersion { found });
        }
        let clock = |error| LoadError::Clock(Box::new(error));
        let first = self.clock().map_err(clock)?;
        thread::sleep(Duration::from_millis(60));
        let second = self.clock().map_err(clock)?;
        let ticks = second.ticks.saturating_sub(first.ticks).max(1);
        let measured = second.monotonic_ns.saturating_sub(first.monotonic_ns) / ticks;
        // CONFIG_HZ is one of these.
        self.ns_per_tick = [1_000_000, 3_333_333, 4_000_000, 10_000_000]
            .into_iter()
            .min_by_key(|candidate: &u64| candidate.abs_diff(measured))
            .expect("a non-empty list");
        Ok(())
    }

    /// Nanoseconds per tick of [`FlowValue::last_seen_ticks`].
    pub fn ns_per_tick(&self) -> u64 {
        self.ns_per_tick
    }

    /// Both kernel clocks, now.
    pub fn clock(&mut self) -> Result<ClockSample, AccessError> {
        self.run(names::CLOCK_PROGRAM, &[0; 64], None, 1)?;
        let sample = self.clock.get(&0, 0);
        sample
            .map(|sample| sample.0)
            .map_err(|source| map_error(names::CLOCK, source))
    }

    /// Runs a program over a frame `repeat` times, without attaching it: its return value and the
    /// mean duration. `ifindex` names an existing interface as the packet's.
    pub fn run(
        &mut self,
        name: &'static str,
        frame: &[u8],
        ifindex: Option<u32>,
        repeat: u32,
    ) -> Result<(u32, Duration), AccessError> {
        // struct __sk_buff: ifindex is the eleventh word.
        let mut context = [0_u8; 192];
        if let Some(ifindex) = ifindex {
            context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        }
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        if ifindex.is_some() {
            options.ctx_in = Some(&context);
        }
        let program: &SchedClassifier = self
            .ebpf
            .program(name)
            .and_then(|program| program.try_into().ok())
            .expect("loaded with the object");
        let result = program
            .test_run(options)
            .map_err(|source| AccessError::TestRun {
                name,
                source: Box::new(source),
            })?;
        Ok((result.return_value, result.duration))
    }

    /// Instructions that the verifier looked at to accept a program, where the kernel tells (5.16).
    pub fn verified_instructions(&self, hook: Hook) -> Option<u32> {
        self.program(hook).info().ok()?.verified_instruction_count()
    }

    /// Kernel id of a program.
    pub fn program_id(&self, hook: Hook) -> Option<u32> {
        Some(self.program(hook).info().ok()?.id())
    }

    pub(super) fn program(&self, hook: Hook) -> &SchedClassifier {
        self.ebpf
            .program(program_name(hook))
            .and_then(|program| program.try_into().ok())
            .expect("loaded with the object")
    }

    pub(super) fn program_mut(&mut self, hook: Hook) -> &mut SchedClassifier {
        self.ebpf
            .program_mut(program_name(hook))
            .and_then(|program| program.try_into().ok())
            .expect("loaded with the object")
    }

    /// Registers an interface, so that its packets are counted; its slot.
    pub fn register(&mut self, interface: Interface) -> Result<u32, AccessError> {
        for probe in 0..SLOT_PROBES {
            let slot = slot_probe(interface.ifindex, probe);
            let present = self
                .interfaces
                .get(&slot, 0)
                .map_err(|source| map_error(names::INTERFACES, source))?;
            if present.0.ifindex == 0 {
                self.interfaces
                    .set(slot, Abi(interface), 0)
                    .map_err(|source| map_error(names::INTERFACES, source))?;
                return Ok(slot);
            }
        }
        Err(AccessError::NoSlot {
            ifindex: interface.ifindex,
        })
    }

    /// Unregisters an interface: packets that come later count as on one without a slot. Those on
    /// their way still count in its slot, whose counters stay for now.
    pub fn close(&mut self, slot: u32) -> Result<(), AccessError> {
        self.interfaces
            .set(slot, Abi(Interface::default()), 0)
            .map_err(|source| map_error(names::INTERFACES, source))
    }

    /// Zeroes the counters of a closed slot, after they were read for the last time.
    pub fn clear(&mut self, slot: u32) -> Result<(), AccessError> {
        let processors = aya::util::nr_cpus().map_err(|(_, source)| AccessError::Batch {
            name: names::COUNTERS,
            source,
        })?;
        let zero = aya::maps::PerCpuValues::try_from(vec![Abi(Counters::default()); processors])
            .map_err(|source| AccessError::Batch {
                name: names::COUNTERS,
                source,
            })?;
        self.counters
            .set(slot, zero, 0)
            .map_err(|source| map_error(names::COUNTERS, source))?;
        self.uncounted
            .set(slot, Abi(Uncounted::default()), 0)
            .map_err(|source| map_error(names::UNCOUNTED, source))
    }

    /// Totals of an interface slot, summed over processors.
    pub fn counters(&self, slot: u32) -> Result<Counters, AccessError> {
        let per_processor = self
            .counters
            .get(&slot, 0)
            .map_err(|source| map_error(names::COUNTERS, source))?;
        let mut sum = Counters::default();
        for Abi(part) in per_processor.iter() {
            for hook in 0..2 {
                sum.seen[hook] += part.seen[hook];
                sum.counted[hook] += part.counted[hook];
                sum.buffers[hook] += part.buffers[hook];
                sum.bytes[hook] += part.bytes[hook];
            }
        }
        Ok(sum)
    }

    /// Uncounted packets of an interface slot.
    pub fn uncounted(&self, slot: u32) -> Result<Uncounted, AccessError> {
        let uncounted = self.uncounted.get(&slot, 0);
        uncounted
            .map(|value| value.0)
            .map_err(|source| map_error(names::UNCOUNTED, source))
    }

    /// Losses on the way to userspace.
    pub fn lost(&self) -> Result<Lost, AccessError> {
        let lost = self.lost.get(&0, 0);
        lost.map(|value| value.0)
            .map_err(|source| map_error(names::LOST, source))
    }

    /// Appends all IPv4 flows.
    pub fn read_flows4(
        &mut self,
        flows: &mut Vec<(FlowKey4, FlowValue)>,
    ) -> Result<(), AccessError> {
        self.each_flow4(None, |key, value| flows.push((key, value)))
    }

    /// Appends all IPv6 flows.
    pub fn read_flows6(
        &mut self,
        flows: &mut Vec<(FlowKey6, FlowValue)>,
    ) -> Result<(), AccessError> {
        self.each_flow6(None, |key, value| flows.push((key, value)))
    }

    /// Tells the IPv4 flows that had a packet since a moment, or all. It is in the ticks of
    /// [`FlowValue::last_seen_ticks`], wrapping.
    pub fn each_flow4(
        &mut self,
        since: Option<u32>,
        tell: impl FnMut(FlowKey4, FlowValue),
    ) -> Result<(), AccessError> {
        let result = self.flows4.read(since, tell);
        result.map_err(|source| AccessError::Memory {
            name: names::PLACES4,
            source,
        })
    }

    /// Tells the IPv6 flows that had a packet since a moment, or all. It is in the ticks of
    /// [`FlowValue::last_seen_ticks`], wrapping.
    pub fn each_flow6(
        &mut self,
        since: Option<u32>,
        tell: impl FnMut(FlowKey6, FlowValue),
    ) -> Result<(), AccessError> {
        let result = self.flows6.read(since, tell);
        result.map_err(|source| AccessError::Memory {
            name: names::PLACES6,
            source,
        })
    }

    /// Removes IPv4 flows and tells their last values, `None` for those that are not there. Blocks
    /// for two milliseconds.
    pub fn take_flows4(
        &mut self,
        keys: &[FlowKey4],
    ) -> Result<Vec<Option<FlowValue>>, AccessError> {
        let result = self.flows4.take(keys);
        result.map_err(|source| map_error(names::FLOWS4, source))
    }

    /// Removes IPv6 flows, as [`Kernel::take_flows4`].
    pub fn take_flows6(
        &mut self,
        keys: &[FlowKey6],
    ) -> Result<Vec<Option<FlowValue>>, AccessError> {
        let result = self.flows6.take(keys);
        result.map_err(|source| map_error(names::FLOWS6, source))
    }

    /// Prints what the kernel program logged since the last call, by `log`.
    pub fn flush_log(&mut self) {
        if let Some(flush) = &mut self.log {
            flush();
        }
    }

    /// The most events that the ring holds at a time.
    pub fn event_capacity(&self) -> usize {
        event_capacity(self.event_ring_bytes)
    }

    /// A descriptor of the event ring, which becomes readable when events arrive.
    pub fn events_fd(&self) -> io::Result<OwnedFd> {
        self.events.as_fd().try_clone_to_owned()
    }

    /// Hands over the events that are there, at most `limit`; how many there were.
    pub fn drain_events(&mut self, limit: usize, mut on_event: impl FnMut(&[u8])) -> usize {
        let mut drained = 0;
        while drained < limit
            && let Some(item) = self.events.next()
        {
            on_event(&item);
            drained += 1;
        }
        drained
    }
}

/// The most events that a ring of this size in bytes holds. Each has a header of eight bytes; a segment
/// without payload over IPv4 is the smallest.
fn event_capacity(ring_bytes: u32) -> usize {
    const HEADER: usize = 8;
    ring_bytes as usize / (HEADER + size_of::<SegmentHead<FlowKey4>>())
}

/// Name of the program for a hook.
pub(super) fn program_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Ingress => names::INGRESS_PROGRAM,
        Hook::Egress => names::EGRESS_PROGRAM,
    }
}

/// An array, to be read by other means than aya's.
fn take_array(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, LoadError> {
    match ebpf.take_map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(LoadError::Missing(name)),
    }
}

fn map_error(name: &'static str, source: MapError) -> AccessError {
    AccessError::Map { name, source }
}
