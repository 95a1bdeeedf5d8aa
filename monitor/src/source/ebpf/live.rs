//! The source task: watches interfaces, reads the kernel's maps once per interval, hands on
//! events as they come, deletes what the engine no longer needs.
//!
//! It owns the kernel program and runs on a thread of its own, since reading a large map blocks
//! for tens of milliseconds.

mod pass;
mod watch;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use monitor_core::{
    account::{Interface as Account, InterfaceAccount},
    engine::Input,
    event::Point,
    flow::FlowKey,
};
use tokio::{
    sync::{mpsc, oneshot, watch as latest},
    time::MissedTickBehavior,
};

use super::{
    attach::{AttachMode, Attacher},
    error::AccessError,
    kernel::Kernel,
    ring,
};
use crate::source::{
    links::{Change, LinkError, Watcher},
    select::Selection,
};

/// Events taken from the ring before other work gets its turn.
const EVENTS_PER_TURN: usize = 4096;

/// Time between two attempts to watch what is not covered.
const RETRY: Duration = Duration::from_secs(10);

/// What the engine asks of the source.
#[derive(Debug)]
pub enum Command {
    /// Delete these entries and tell their final values.
    Expire(Vec<FlowKey>),
}

/// How to watch.
#[derive(Debug)]
pub struct LiveOptions {
    /// Which interfaces.
    pub selection: Selection,
    /// How to attach.
    pub attach: AttachMode,
    /// Time between two passes over the flow maps.
    pub interval: Duration,
}

/// Why the source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// rtnetlink failed.
    #[error(transparent)]
    Links(#[from] LinkError),
    /// A map cannot be read.
    #[error("cannot read the kernel's maps: {0}")]
    Access(#[from] AccessError),
    /// The event ring cannot be waited for.
    #[error("cannot wait for the event ring: {0}")]
    Ring(#[source] io::Error),
    /// An uplink that was asked for does not exist.
    #[error("there is no interface `{0}` to watch as uplink")]
    UnknownUplink(String),
    /// rtnetlink closed.
    #[error("rtnetlink stopped telling changes")]
    LinksClosed,
    /// The engine ended.
    #[error("the engine has stopped")]
    EngineStopped,
}

/// An interface that is to be watched.
#[derive(Debug)]
struct Watched {
    account: Account,
    /// Its link layer, as [`Link::layer`](crate::source::links::Link::layer).
    layer: Option<u8>,
    /// Its slot in the kernel; none where it cannot be watched, of which it stays known.
    slot: Option<u32>,
}

/// The source task's state.
///
/// Invariant: an interface is in `watched` if and only if the engine knows it as present.
pub struct Live {
    kernel: Kernel,
    attacher: Attacher,
    links: Watcher,
    options: LiveOptions,
    inputs: mpsc::Sender<Input>,
    watched: BTreeMap<u32, Watched>,
    /// Last accounts of interfaces that went since the last pass. The next one tells them, behind
    /// their last flows: of an interface that lived for less than an interval, all of them.
    departed: Vec<InterfaceAccount>,
    /// How many flows the last pass read.
    flows: usize,
    /// When the last two passes began, in ticks of the kernel program.
    passes: [Option<u32>; 2],
    /// How many there were since one told all flows.
    since_all: u32,
    default_routes: Vec<u32>,
    /// Whether there was an uplink when that was last looked at; that there should be one is
    /// taken for granted.
    has_uplink: bool,
    next_id: u32,
}

// === impl Live ===

impl Live {
    /// Takes over a loaded kernel program. Must be called on the runtime and in the network
    /// namespace where it will run.
    pub fn new(
        kernel: Kernel,
        options: LiveOptions,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self, LiveError> {
        let links = Watcher::new()?;
        let attacher = Attacher::new(options.attach, links.handle().clone());
        Ok(Self {
            kernel,
            attacher,
            links,
            options,
            inputs,
            watched: BTreeMap::new(),
            departed: Vec::new(),
            flows: 0,
            passes: [None; 2],
            since_all: 0,
            default_routes: Vec::new(),
            has_uplink: true,
            next_id: 1,
        })
    }

    /// Watches until `stop` is true; then reads everything once more and detaches. `started` is
    /// told once the interfaces that exist are watched.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut stop: latest::Receiver<bool>,
        started: oneshot::Sender<()>,
    ) -> Result<(), LiveError> {
        let result = self.watch(&mut commands, &mut stop, started).await;
        // Whatever happened: what can still be told is told, and nothing of ours remains.
        let last = match result {
            Ok(()) => self.pass(true).await,
            Err(_) => Ok(()),
        };
        self.attacher.detach_all(&self.kernel).await;
        result.and(last)
    }

    async fn watch(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        stop: &mut latest::Receiver<bool>,
        started: oneshot::Sender<()>,
    ) -> Result<(), LiveError> {
        // Sampled first: whatever is attached later is newer than this clock.
        self.clock().await?;
        self.resync(true).await?;
        self.look_for_uplink();
        let ring = self
            .kernel
            .events_fd()
            .and_then(ring::register)
            .map_err(LiveError::Ring)?;
        let mut interval = tokio::time::interval(self.options.interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = tokio::time::interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        retry.reset();
        // A receiver that is gone does not want to know.
        let _ = started.send(());
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                change = self.links.next() => {
                    match change.ok_or(LiveError::LinksClosed)? {
                        Change::Link(link) => self.on_link(link).await?,
                        Change::LinkGone { ifindex } => self.on_gone(ifindex).await?,
                        Change::Addresses => self.on_addresses().await?,
                        Change::Resync => self.resync(false).await?,
                    }
                    self.look_for_uplink();
                }
                command = commands.recv() => match command {
                    Some(Command::Expire(keys)) => self.expire(keys).await?,
                    None => return Err(LiveError::EngineStopped),
                },
                _ = interval.tick() => self.pass(false).await?,
                _ = retry.tick() => self.retry().await?,
                // Last: a flood of events leaves this never idle. A pass and a deletion read the ring
                // themselves, so that nothing overtakes an event.
                ready = ring.readable() => {
                    let mut ready = ready.map_err(LiveError::Ring)?;
                    // Edge triggered: only an empty ring may be waited for again.
                    if self.events().await? < EVENTS_PER_TURN {
                        ready.clear_ready();
                    }
                }
            }
        }
    }

    async fn send(&self, input: Input) -> Result<(), LiveError> {
        self.inputs
            .send(input)
            .await
            .map_err(|_| LiveError::EngineStopped)
    }

    /// An account under a new identity.
    fn new_account(&mut self, ifindex: u32, name: &str, point: Point) -> Account {
        let id = self.next_id;
        // 24 bits; after sixteen million interfaces an old identity is long forgotten.
        self.next_id = if id >= 0x00ff_ffff { 1 } else { id + 1 };
        Account {
            id,
            ifindex,
            name: Arc::from(name),
            point,
            attach: Arc::from("none"),
            covered: false,
            reason: None,
            attached_ns: None,
        }
    }
}
