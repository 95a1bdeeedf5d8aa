//! How far the cluster is known: told to the log, and to the engine for status and metrics.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use monitor_core::engine::{Input, KubernetesStatus, ResourceStatus, WatchState};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use super::fault::Fault;

/// How often counters are told of.
const TELL: Duration = Duration::from_secs(1);

/// The state of all watches.
#[derive(Debug)]
pub(super) struct Report {
    status: Mutex<Told>,
    /// Something that should be told of at once.
    news: Notify,
    /// Kinds that the server has not answered for.
    pending: watch::Sender<usize>,
}

#[derive(Debug)]
struct Told {
    status: KubernetesStatus,
    /// Whether it is not as it was told last.
    is_changed: bool,
}

// === impl Report ===

impl Report {
    pub(super) fn new(status: KubernetesStatus) -> Self {
        let pending = pending(&status);
        Self {
            status: Mutex::new(Told {
                status,
                is_changed: true,
            }),
            news: Notify::new(),
            pending: watch::Sender::new(pending),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.status
            .lock()
            .expect("no code panics while it holds this")
    }

    /// Changes what is said of a kind.
    pub(super) fn update(&self, index: usize, change: impl FnOnce(&mut ResourceStatus)) {
        let mut told = self.lock();
        let resource = &mut told.status.resources[index];
        let before = (resource.state, resource.message.clone());
        change(resource);
        let is_news = before != (resource.state, resource.message.clone());
        if is_news {
            log(resource, before.0);
        }
        told.is_changed = true;
        let pending = pending(&told.status);
        drop(told);
        self.pending.send_if_modified(|known| {
            let is_other = *known != pending;
            *known = pending;
            is_other
        });
        if is_news {
            self.news.notify_one();
        }
    }

    /// A request failed; what is known of the kind is at best what it was.
    pub(super) fn failed(&self, index: usize, fault: &Fault, state: WatchState) {
        self.update(index, |resource| {
            *resource.errors.entry(fault.error).or_default() += 1;
            resource.state = match (state, resource.state) {
                (WatchState::Stale, WatchState::Pending | WatchState::Refused) => resource.state,
                (state, _) => state,
            };
            resource.message = Some(fault.message.clone());
        });
    }

    /// Waits until the server has answered for all other kinds, or `within` is over.
    pub(super) async fn others(&self, within: Duration) {
        let mut pending = self.pending.subscribe();
        // The sender is in `self`: there is no other error than time.
        let _ = timeout(within, pending.wait_for(|pending| *pending <= 1)).await;
    }

    fn take(&self, is_forced: bool) -> Option<KubernetesStatus> {
        let mut told = self.lock();
        let is_due = is_forced || told.is_changed;
        told.is_changed = false;
        is_due.then(|| told.status.clone())
    }
}

fn pending(status: &KubernetesStatus) -> usize {
    let is_pending = |resource: &&ResourceStatus| resource.state == WatchState::Pending;
    status.resources.iter().filter(is_pending).count()
}

/// Tells the engine what changed, news at once and counters once a second, until it is gone.
pub(super) async fn tell(report: std::sync::Arc<Report>, inputs: mpsc::WeakSender<Input>) {
    let mut ticks = interval(TELL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_news = tokio::select! {
            () = report.news.notified() => true,
            _ = ticks.tick() => false,
        };
        let Some(inputs) = inputs.upgrade() else {
            return;
        };
        if let Some(status) = report.take(is_news)
            && inputs.send(Input::Kubernetes(status)).await.is_err()
        {
            return;
        }
    }
}

fn log(status: &ResourceStatus, before: WatchState) {
    let resource = &*status.resource;
    let message = status.message.as_deref().unwrap_or_default();
    match status.state {
        WatchState::Synced if before == WatchState::Synced => {}
        WatchState::Synced => {
            tracing::info!(resource, objects = status.objects, "cluster: in sync");
        }
        WatchState::Absent if before == WatchState::Absent => {}
        WatchState::Absent => tracing::info!(resource, "cluster: the API server has no such kind"),
        WatchState::Refused => tracing::warn!(
            resource,
            "cluster: no right to list and watch, other kinds work: {message}"
        ),
        WatchState::Pending => tracing::warn!(resource, "cluster: not in sync yet: {message}"),
        WatchState::Stale => tracing::warn!(
            resource,
            "cluster: objects stay as they were, trying again: {message}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use monitor_core::engine::WatchError;

    use super::*;

    fn report() -> Report {
        Report::new(KubernetesStatus {
            server: "https://192.0.2.1".to_owned(),
            resources: vec![ResourceStatus::new("nodes"), ResourceStatus::new("pods")],
        })
    }

    fn fault(error: WatchError) -> Fault {
        Fault::of_kind(error, "no".to_owned())
    }

    #[tokio::test]
    async fn pods_wait_for_the_others_and_not_for_ever() {
        let report = report();
        let start = std::time::Instant::now();
        let within = Duration::from_millis(50);
        report.others(within).await;
        assert!(start.elapsed() >= within);
        report.failed(0, &fault(WatchError::Refused), WatchState::Refused);
        report.others(Duration::from_hours(1)).await;
    }

    #[test]
    fn failures_keep_what_is_known() {
        let report = report();
        let state = |report: &Report| report.lock().status.resources[0].state;
        report.failed(0, &fault(WatchError::Unreachable), WatchState::Stale);
        assert_eq!(state(&report), WatchState::Pending);
        report.update(0, |resource| resource.state = WatchState::Synced);
        report.failed(0, &fault(WatchError::Unreachable), WatchState::Stale);
        assert_eq!(state(&report), WatchState::Stale);
        report.failed(0, &fault(WatchError::Refused), WatchState::Refused);
        report.failed(0, &fault(WatchError::Server), WatchState::Stale);
        assert_eq!(state(&report), WatchState::Refused);
        let status = report.take(false).expect("it changed");
        assert_eq!(status.resources[0].errors[&WatchError::Unreachable], 2);
        assert!(report.take(false).is_none() && report.take(true).is_some());
    }
}
