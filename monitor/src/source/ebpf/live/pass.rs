//! A pass over the kernel's maps, events, and deletions.

use std::time::{SystemTime, UNIX_EPOCH};

use monitor_common::abi::{
    Counters, FlowEnd, FlowKey4, FlowKey6, SegmentHead, UNKNOWN_SLOT, event,
};
use monitor_core::{
    account::InterfaceAccount,
    engine::Input,
    flow::{FlowKey, SegmentEvent},
    time::ClockMap,
};

use super::{EVENTS_PER_TURN, Live, LiveError};
use crate::source::ebpf::data;

/// Flows in one input: some 90 KiB.
const FLOWS_PER_INPUT: usize = 512;
/// Every so many passes tell all flows.
const ALL_EVERY: u32 = 64;
/// Identity under which packets on interfaces without a slot are accounted for.
const UNKNOWN_ID: u32 = 0;

// === impl Live ===

impl Live {
    /// Samples the clocks and tells them; the kernel program's own, in ticks, wrapping as its flows have it.
    pub(super) async fn clock(&mut self) -> Result<u32, LiveError> {
        let sample = self.kernel.clock()?;
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let difference = wall.as_nanos().cast_signed() - i128::from(sample.monotonic_ns);
        self.send(Input::Clock(ClockMap {
            wall_minus_monotonic_ns: i64::try_from(difference).unwrap_or(i64::MAX),
            ticks_now: sample.ticks,
            monotonic_now_ns: sample.monotonic_ns,
            ns_per_tick: self.kernel.ns_per_tick(),
        }))
        .await?;
        #[expect(clippy::cast_possible_truncation, reason = "it wraps")]
        let ticks = sample.ticks as u32;
        Ok(ticks)
    }

    /// Reads flows, counters and losses.
    ///
    /// Flows are read that had a packet since the pass before the last: the engine knows the others as they
    /// are. Twice, since it believes some readings only when the next one says the same. At times, and
    /// at the end, all are: a processor that was stopped between counting a packet and noting its time
    /// is rare, but nothing else would tell that packet.
    pub(super) async fn pass(&mut self, all: bool) -> Result<(), LiveError> {
        let now = self.clock().await?;
        let [since, last] = self.passes;
        self.passes = [last, Some(now)];
        self.since_all = (self.since_all + 1) % ALL_EVERY;
        let since = since.filter(|_| !all && self.since_all != 0);
        self.kernel.flush_log();
        let mut before = self.accounts()?;
        before.extend(self.departed.iter().copied());
        // Some more than last time, in one piece: what grows leaves holes.
        let mut flows = Vec::with_capacity(self.flows + self.flows / 8);
        let kernel = &mut self.kernel;
        kernel.each_flow4(since, |key, value| flows.push((FlowKey::from(key), value)))?;
        kernel.each_flow6(since, |key, value| flows.push((FlowKey::from(key), value)))?;
        self.flows = flows.len();
        // An entry that was read after another connection took it over has its event in the ring.
        self.events_so_far().await?;
        // Behind all that flows were told of.
        let departed = std::mem::take(&mut self.departed);
        let mut accounts = departed.clone();
        accounts.extend(self.accounts()?);
        let lost = self.kernel.lost()?;
        self.send(Input::AccountingBegins(before)).await?;
        // Part by part, so that the channel bounds what waits for the engine: all flows of several
        // passes would be more than the daemon may have.
        let mut flows = flows.into_iter();
        loop {
            let part: Vec<_> = flows.by_ref().take(FLOWS_PER_INPUT).collect();
            if part.is_empty() {
                break;
            }
            self.send(Input::Flows(part)).await?;
        }
        drop(flows);
        self.send(Input::Accounting(accounts)).await?;
        for InterfaceAccount { id, .. } in departed {
            self.send(Input::InterfaceGone { id }).await?;
        }
        self.send(Input::Lost(lost)).await?;
        self.send(Input::Tick).await
    }

    /// Counters of what is watched, and of packets on interfaces without a slot.
    fn accounts(&self) -> Result<Vec<InterfaceAccount>, LiveError> {
        let of = |id, slot| {
            Ok::<_, LiveError>(InterfaceAccount {
                id,
                counters: self.kernel.counters(slot)?,
                uncounted: self.kernel.uncounted(slot)?,
            })
        };
        let mut accounts = Vec::with_capacity(self.watched.len() + 1);
        for watched in self.watched.values() {
            if let Some(slot) = watched.slot {
                accounts.push(of(watched.account.id, slot)?);
            }
        }
        let unknown = of(UNKNOWN_ID, UNKNOWN_SLOT)?;
        if unknown.counters != Counters::default() {
            accounts.push(unknown);
        }
        Ok(accounts)
    }

    /// Hands on the events that are there, up to a limit; how many there were.
    pub(super) async fn events(&mut self) -> Result<usize, LiveError> {
        let mut inputs = Vec::new();
        let drained = self.kernel.drain_events(EVENTS_PER_TURN, |bytes| {
            match decode(bytes) {
                Some(input) => inputs.push(input),
                // Only a kernel object of another layout sends such, which the loader refuses.
                None => tracing::error!(length = bytes.len(), "unknown event from the kernel"),
            }
        });
        for input in inputs {
            self.send(input).await?;
        }
        Ok(drained)
    }

    /// Hands on the events that are in the ring now. Those that come meanwhile may be too many ever to
    /// end: more than the ring holds are not waited for.
    async fn events_so_far(&mut self) -> Result<(), LiveError> {
        for _ in 0..=self.kernel.event_capacity() / EVENTS_PER_TURN {
            if self.events().await? < EVENTS_PER_TURN {
                break;
            }
        }
        Ok(())
    }

    /// Deletes entries and tells their final values.
    pub(super) async fn expire(&mut self, keys: Vec<FlowKey>) -> Result<(), LiveError> {
        let mut removed = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        let (mut keys4, mut keys6) = (Vec::new(), Vec::new());
        for key in keys {
            match key {
                FlowKey::V4(key) => keys4.push(key),
                FlowKey::V6(key) => keys6.push(key),
            }
        }
        let values4 = self.kernel.take_flows4(&keys4)?;
        let values6 = self.kernel.take_flows6(&keys6)?;
        // What was there before these values is in the ring.
        self.events_so_far().await?;
        let keys4 = keys4.into_iter().map(FlowKey::from);
        let keys6 = keys6.into_iter().map(FlowKey::from);
        for (key, value) in keys4.zip(values4).chain(keys6.zip(values6)) {
            match value {
                Some(value) => removed.push((key, value)),
                None => missing.push(key),
            }
        }
        if !missing.is_empty() {
            self.send(Input::Missing(missing)).await?;
        }
        self.send(Input::Removed(removed)).await
    }
}

/// Reads an event of the ring.
fn decode(bytes: &[u8]) -> Option<Input> {
    let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    match kind {
        event::FLOW_END4 => {
            let end = data::from_bytes::<FlowEnd<FlowKey4>>(bytes)?;
            Some(Input::FlowEnded {
                key: FlowKey::from(end.key),
                value: end.value(),
            })
        }
        event::FLOW_END6 => {
            let end = data::from_bytes::<FlowEnd<FlowKey6>>(bytes)?;
            Some(Input::FlowEnded {
                key: FlowKey::from(end.key),
                value: end.value(),
            })
        }
        event::SEGMENT4 => segment::<FlowKey4>(bytes),
        event::SEGMENT6 => segment::<FlowKey6>(bytes),
        _ => None,
    }
}

fn segment<K: Copy + Into<FlowKey>>(bytes: &[u8]) -> Option<Input>
where
    SegmentHead<K>: data::MapData,
{
    let (head, rest) = bytes.split_at_checked(size_of::<SegmentHead<K>>())?;
    let head = data::from_bytes::<SegmentHead<K>>(head)?;
    Some(Input::Segment(SegmentEvent::new(&head, rest)))
}
