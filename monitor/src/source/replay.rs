//! Offline source: a capture through the same packet program and the same engine, with time taken
//! from the capture. No privileges, no daemon.

mod backend;
mod capture;
mod link;

use std::{collections::HashMap, io::Read, sync::Arc};

use ipnet::IpNet;
use monitor_common::{
    abi::{Hook, Interface, point},
    packet::Frame,
    program::on_packet,
};
use monitor_core::{
    account::Interface as Account,
    engine::{Engine, Input, Outputs},
    event::{Point, Record},
    flow::FlowKey,
    time::{ClockMap, Timestamp},
};

use backend::{NS_PER_TICK, Table};
pub use capture::CaptureError;
use capture::{Capture, Packet};
use link::CapturedOn;

/// Time of the capture between two passes over the flows.
const PASS_NS: u64 = 1_000_000_000;
/// Longer than any connection is kept without packets, and shorter than the coarse clock takes to
/// wrap.
const STALE_NS: u64 = 24 * 3600 * 1_000_000_000;
/// Connections that ended by another one taking their place, between two passes: what happens at
/// one moment of the capture may be without bound.
const MAX_ENDED: usize = 1 << 14;

/// Interfaces that cooked packets may name by index; those of more are counted together.
const MAX_COOKED: usize = 1024;

/// What is worth knowing about a capture, besides its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// There are cooked packets that do not tell on which interface they were captured: of all
    /// interfaces together, a packet that crosses two of them counts twice.
    pub names_no_interface: bool,
    /// How far, in nanoseconds, the time of a packet lies before the latest one until then, at most.
    /// Time stands still in between, so that what lies far back has wrong times and lengths.
    pub steps_back_ns: u64,
}

/// Times may step back this far, in nanoseconds, without a note: captures of several queues do.
pub const STEP_BACK_NS: u64 = 1_000_000_000;

/// How to replay.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// Addresses that are local: their end of a flow is its local end.
    pub local: Vec<IpNet>,
    /// The most flows of each family at a time.
    pub max_flows: usize,
}

/// A replay in progress.
struct Replay<'a> {
    engine: &'a mut Engine,
    table: Table,
    /// Interfaces already announced.
    announced: usize,
    /// Where packets of a capture interface are counted, by its number.
    places: Vec<usize>,
    /// The same for interfaces that cooked packets of a capture interface name by index.
    cooked: HashMap<(usize, u32), usize>,
    notes: Notes,
    now_ns: u64,
    last_pass_ns: u64,
}

/// Replays a capture through an engine. Records go to `on_record`, which may stop the replay by an
/// error of its own.
///
/// A capture that breaks off, or goes wrong midway, gives the records so far and then the error.
pub fn replay<E>(
    reader: impl Read,
    options: &ReplayOptions,
    engine: &mut Engine,
    on_record: impl FnMut(Record) -> Result<(), E>,
) -> Result<Result<(), CaptureError>, E> {
    replay_noting(reader, options, engine, &mut Notes::default(), on_record)
}

/// As [`replay`]; what is worth knowing about the capture is noted.
pub fn replay_noting<E>(
    reader: impl Read,
    options: &ReplayOptions,
    engine: &mut Engine,
    notes: &mut Notes,
    mut on_record: impl FnMut(Record) -> Result<(), E>,
) -> Result<Result<(), CaptureError>, E> {
    let mut capture = match Capture::open(reader) {
        Ok(capture) => capture,
        Err(error) => return Ok(Err(error)),
    };
    let mut replay = Replay {
        engine,
        table: Table::new(options.local.clone(), options.max_flows),
        announced: 0,
        places: Vec::new(),
        cooked: HashMap::new(),
        notes: Notes::default(),
        now_ns: 0,
        last_pass_ns: 0,
    };
    let outcome = loop {
        match capture.next_packet() {
            Ok(Some(packet)) => replay.packet(&packet, &mut on_record)?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    replay.finish(&mut on_record)?;
    *notes = replay.notes;
    Ok(outcome)
}

// === impl Replay ===

impl Replay<'_> {
    fn packet<E>(
        &mut self,
        packet: &Packet<'_>,
        on_record: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        // Times in a capture may step back a little; those of the engine do not.
        let time_ns = self.now_ns.max(packet.time_ns);
        let back_ns = time_ns - packet.time_ns;
        self.notes.steps_back_ns = self.notes.steps_back_ns.max(back_ns);
        let is_due = time_ns - self.last_pass_ns >= PASS_NS || self.table.ended() >= MAX_ENDED;
        if is_due && self.announced > 0 {
            self.pass(on_record)?;
        }
        if is_due {
            self.advance(time_ns, on_record)?;
        }
        self.set_time(time_ns);
        while let Some(interface) = packet.interfaces.get(self.places.len())
            && self.places.len() <= packet.interface
        {
            let place = self.announce(&interface.name, on_record)?;
            self.places.push(place);
        }
        let Some(interface) = packet.interfaces.get(packet.interface) else {
            return Ok(());
        };
        let place = match link::captured_on(interface.link, packet.bytes) {
            CapturedOn::This => self.places[packet.interface],
            CapturedOn::Index(index) => self.cooked(packet.interface, index, on_record)?,
            CapturedOn::NotTold => {
                self.notes.names_no_interface = true;
                self.places[packet.interface]
            }
        };
        let (layer, bytes, length) = link::present(interface.link, packet.bytes, packet.length);
        let ifindex = self.table.ifindex(place, layer);
        let frame = Frame {
            bytes,
            length,
            ifindex,
            hook: Hook::Ingress,
        };
        // Why a packet is not counted is in the table's counters.
        let _ = on_packet(&frame, &self.table);
        for segment in self.table.take_told() {
            self.step(Input::Segment(segment), on_record)?;
        }
        Ok(())
    }

    fn set_time(&mut self, time_ns: u64) {
        self.now_ns = time_ns;
        self.table.set_time(time_ns);
    }

    /// Where packets of an interface are counted that a cooked packet names by index.
    fn cooked<E>(
        &mut self,
        capture: usize,
        index: u32,
        on_record: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<usize, E> {
        if let Some(place) = self.cooked.get(&(capture, index)) {
            return Ok(*place);
        }
        // The index comes from the file.
        if self.cooked.len() >= MAX_COOKED {
            return Ok(self.places[capture]);
        }
        let place = self.announce(&format!("if{index}"), on_record)?;
        self.cooked.insert((capture, index), place);
        Ok(place)
    }

    /// Registers the next interface of the capture; where its packets are counted.
    fn announce<E>(
        &mut self,
        name: &str,
        on_record: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<usize, E> {
        let place = self.announced;
        let number = u32::try_from(self.announced + 1).unwrap_or(u32::MAX);
        self.table.register(Interface {
            ifindex: number,
            id: number,
            point: point::UPLINK,
            ..Interface::default()
        });
        self.announced += 1;
        let account = Account {
            id: number,
            ifindex: number,
            name: Arc::from(name),
            point: Point::Uplink,
            attach: Arc::from("replay"),
            covered: true,
            reason: None,
            attached_ns: None,
        };
        self.clock(on_record)?;
        self.step(Input::Interface(account), on_record)?;
        Ok(place)
    }

    fn clock<E>(&mut self, on_record: &mut impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        // The capture's clock is both: wall-clock time and the time that flows are kept in.
        let clock = ClockMap {
            wall_minus_monotonic_ns: 0,
            ticks_now: self.now_ns / NS_PER_TICK,
            monotonic_now_ns: self.now_ns,
            ns_per_tick: NS_PER_TICK,
        };
        self.step(Input::Clock(clock), on_record)
    }

    /// Hands on what changed, as the live source does once a second.
    fn pass<E>(&mut self, on_record: &mut impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        self.clock(on_record)?;
        for (key, value) in self.table.take_ended() {
            self.step(Input::FlowEnded { key, value }, on_record)?;
        }
        let flows = self.table.take_touched();
        self.step(Input::Flows(flows), on_record)?;
        let accounts = self.table.accounts();
        self.step(Input::Accounting(accounts), on_record)
    }

    /// Lets time pass until the next packet, and removes what is idle by then.
    fn advance<E>(
        &mut self,
        time_ns: u64,
        on_record: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        // In a gap so long that the coarse clock wraps, everything ends first.
        let stale_ns = self.now_ns.saturating_add(STALE_NS);
        if time_ns > stale_ns {
            self.set_time(stale_ns);
            self.tick(on_record)?;
        }
        self.set_time(time_ns);
        self.last_pass_ns = time_ns;
        self.tick(on_record)
    }

    fn tick<E>(&mut self, on_record: &mut impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        self.clock(on_record)?;
        loop {
            let outputs = self.engine.step(Input::Tick, self.now());
            // The engine asks for a limited number at a time.
            let is_last = outputs.expire.is_empty();
            self.hand_on(outputs, on_record)?;
            if is_last {
                return Ok(());
            }
        }
    }

    fn step<E>(
        &mut self,
        input: Input,
        on_record: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let now = self.now();
        let outputs = self.engine.step(input, now);
        self.hand_on(outputs, on_record)
    }

    fn hand_on<E>(
        &mut self,
        Outputs {
            records, expire, ..
        }: Outputs,
        on_record: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        for record in records {
            on_record(record)?;
        }
        if expire.is_empty() {
            return Ok(());
        }
        self.remove(&expire, on_record)
    }

    fn remove<E>(
        &mut self,
        keys: &[FlowKey],
        on_record: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut removed = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for key in keys {
            match self.table.remove(key) {
                Some(value) => removed.push((*key, value)),
                None => missing.push(*key),
            }
        }
        if !missing.is_empty() {
            self.step(Input::Missing(missing), on_record)?;
        }
        self.step(Input::Removed(removed), on_record)
    }

    /// Counts what is left and closes all flows.
    fn finish<E>(&mut self, on_record: &mut impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        self.pass(on_record)?;
        self.tick(on_record)?;
        // What is still there is over only because the capture is.
        self.engine.ending();
        let keys = self.table.keys();
        self.remove(&keys, on_record)?;
        let accounts = self.table.accounts();
        self.step(Input::Accounting(accounts), on_record)?;
        let now = self.now();
        let outputs = self.engine.finish(now);
        self.hand_on(outputs, on_record)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanoseconds(i64::try_from(self.now_ns).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests;
