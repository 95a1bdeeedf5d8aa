//! How the rest of the daemon talks to the engine task.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use monitor_core::{
    engine::Snapshot,
    event::{FindingRecord, FlowRecord, Record, SshRecord},
    filter::FlowFilter,
    nsg::Chain,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::explain::{Asked, ExplainError, Explanation};

/// A question to the engine task.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) filter: FlowFilter,
    pub(crate) last: Option<usize>,
    pub(crate) reply: Reply,
}

/// What is asked for, and where the answer goes.
#[derive(Debug)]
pub(crate) enum Reply {
    Flows(oneshot::Sender<Vec<FlowRecord>>),
    Ssh(oneshot::Sender<Vec<SshRecord>>),
    Findings(oneshot::Sender<Vec<FindingRecord>>),
    Explain(Asked, oneshot::Sender<Result<Explanation, ExplainError>>),
    Chain(oneshot::Sender<Option<Arc<Chain>>>),
}

/// The engine task has ended.
#[derive(Debug, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopped;

/// A connection to the engine task; cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    pub(crate) queries: mpsc::Sender<Query>,
    pub(crate) records: broadcast::Sender<Arc<Record>>,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) followers_lost: Arc<Mutex<u64>>,
    pub(crate) log_lost: Arc<AtomicU64>,
}

// === impl EngineHandle ===

impl EngineHandle {
    /// Flows that match, active and recently closed, the newest last; at most `last` of them.
    pub async fn query(
        &self,
        filter: FlowFilter,
        last: Option<usize>,
    ) -> Result<Vec<FlowRecord>, Stopped> {
        self.ask(filter, last, Reply::Flows).await
    }

    /// SSH connections that match, open and recently closed, the newest last; at most `last` of them.
    pub async fn query_ssh(
        &self,
        filter: FlowFilter,
        last: Option<usize>,
    ) -> Result<Vec<SshRecord>, Stopped> {
        self.ask(filter, last, Reply::Ssh).await
    }

    /// Recent findings that match, the newest last; at most `last` of them.
    pub async fn query_findings(
        &self,
        filter: FlowFilter,
        last: Option<usize>,
    ) -> Result<Vec<FindingRecord>, Stopped> {
        self.ask(filter, last, Reply::Findings).await
    }

    /// Which rules and policies decide a flow, as they stand now.
    pub async fn explain(
        &self,
        asked: Asked,
    ) -> Result<Result<Explanation, ExplainError>, Stopped> {
        let what = |sender| Reply::Explain(asked, sender);
        self.ask(FlowFilter::default(), None, what).await
    }

    /// The network security groups that stand now.
    pub async fn chain(&self) -> Result<Option<Arc<Chain>>, Stopped> {
        self.ask(FlowFilter::default(), None, Reply::Chain).await
    }

    async fn ask<T>(
        &self,
        filter: FlowFilter,
        last: Option<usize>,
        what: impl FnOnce(oneshot::Sender<T>) -> Reply,
    ) -> Result<T, Stopped> {
        let (sender, answer) = oneshot::channel();
        let reply = what(sender);
        self.queries
            .send(Query {
                filter,
                last,
                reply,
            })
            .await
            .map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Records from now on. A receiver that does not keep up skips some and is told how many,
    /// which it passes to [`EngineHandle::lost_by_follower`].
    pub fn follow(&self) -> broadcast::Receiver<Arc<Record>> {
        self.records.subscribe()
    }

    /// Counts records that a follower did not get.
    pub fn lost_by_follower(&self, records: u64) {
        let mut lost = self
            .followers_lost
            .lock()
            .expect("no code panics while it holds this");
        *lost = lost.saturating_add(records);
    }

    /// Records that followers did not get, in total.
    pub(crate) fn followers_lost(&self) -> u64 {
        *self
            .followers_lost
            .lock()
            .expect("no code panics while it holds this")
    }

    /// Counts records that could not be written to the event log.
    pub fn lost_by_log(&self, records: u64) {
        self.log_lost.fetch_add(records, Ordering::Relaxed);
    }

    /// Records that could not be written to the event log, in total.
    pub(crate) fn log_lost(&self) -> u64 {
        self.log_lost.load(Ordering::Relaxed)
    }

    /// What the engine published last, at most a second or so old.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }
}
