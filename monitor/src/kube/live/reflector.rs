//! One kind of object: listed, then watched, and again whenever that fails.
//!
//! Kubernetes API concepts, "Efficient detection of changes": a list has a version, from which a
//! watch goes on; a server that no longer knows what changed since a version says so (410), and all
//! is listed again. Servers that can, send the list as the beginning of the watch (`WatchList`):
//! object by object, which neither side has to hold whole.
//!
//! Why not the watcher of `kube-runtime`: it does not tell when a watch stands again, so that
//! nothing could say that an outage is over; it asks again without a pause where a server ends each
//! watch at once; it never gives up a version that the server refuses with a status of 410.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use kube::{
    Client, Error,
    api::{ListParams, WatchEvent, WatchParams},
    core::Request,
};
use monitor_core::engine::{Input, WatchError, WatchState};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    fault::{Backoff, Fault, UNTIL_INSTALLED},
    known::{Changes, Counts, Key, Known, Unusable},
    report::Report,
    resource::Resource,
    seen::{Page, PageMetadata, Seen},
};
use crate::runtime::now;

/// Objects of a page. Each may have 1.5 MB, whoever wrote it: a page is held whole.
const PAGE: u32 = 100;
/// For a page, and for a watch to begin.
const ANSWER: Duration = Duration::from_mins(1);
/// How long the server keeps a watch, in seconds.
const WATCH: u32 = 290;
/// Without a word for this long, the connection is lost.
const SILENCE: Duration = Duration::from_mins(5);
/// The same while the list is sent as the beginning of a watch, and how long that may take: a server
/// that does not know what was asked for sends events for ever, and no end of the list.
const LIST_SILENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });
const LIST: Duration = Duration::from_secs(if cfg!(test) { 4 } else { 120 });
/// A watch that ends sooner did not work.
const SHORT: Duration = Duration::from_secs(5);
/// For this long after an outage, deletions may be told of late.
const LATE: Duration = Duration::from_secs(30);
/// A refusal counts once it has lasted this long: a server that starts does not know its own rules
/// at first.
const REFUSED: Duration = Duration::from_secs(3);
/// So does that there is no such kind, where there was one: its objects are gone then.
const REMOVED: Duration = Duration::from_secs(30);
/// How long the last kind waits for the others.
const OTHERS: Duration = Duration::from_secs(10);
/// Marks the end of the list at the beginning of a watch (KEP-3157).
const LIST_END: &str = "k8s.io/initial-events-end";
/// Objects and addresses that cannot be used and are told of one by one, in each [`TOLD_PERIOD`].
const TOLD: u32 = 10;
const TOLD_PERIOD: Duration = Duration::from_mins(1);
/// Objects that cannot be used and are kept with the reason: the last that is still so is in the
/// status.
const UNUSABLE: usize = 16;

/// Follows one kind of object.
pub(super) struct Reflector {
    resource: &'static Resource,
    /// Its place in the report.
    index: usize,
    client: Client,
    report: Arc<Report>,
    inputs: mpsc::WeakSender<Input>,
    known: Known,
    /// Which of the resource's versions is asked for.
    version: usize,
    /// Versions that the server does not have, since one worked.
    absent: usize,
    /// Since when the server refuses, or has no such kind.
    without_since: Option<Instant>,
    /// Whether the server may send lists as the beginning of a watch.
    streams_lists: bool,
    /// What the watch goes on from; without it, all is listed.
    position: Option<String>,
    is_first: bool,
    backoff: Backoff,
    /// A request failed: what comes next may have happened some time ago.
    is_behind: bool,
    /// Until when deletions may be told of late.
    late_until: Option<Instant>,
    told: (Instant, u32),
    /// The last objects that could not be used, or addresses of them, and why: at most
    /// [`UNUSABLE`].
    unusable: VecDeque<(Key, String)>,
}

/// Why nothing more comes.
enum Stop {
    Fault(Fault),
    /// The engine is gone.
    Engine,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Whether an error is about one event and not about the watch. What is no event is taken for a
/// status without a code.
fn is_one_event(error: &Error) -> bool {
    match error {
        Error::SerdeError(_) => true,
        Error::Api(status) => status.code == 0,
        _ => false,
    }
}

// === impl Reflector ===

impl Reflector {
    pub(super) fn new(
        resource: &'static Resource,
        index: usize,
        client: Client,
        report: Arc<Report>,
        inputs: mpsc::WeakSender<Input>,
    ) -> Self {
        Self {
            known: Known::new(resource, resource.versions[0]),
            resource,
            index,
            client,
            report,
            inputs,
            version: 0,
            absent: 0,
            without_since: None,
            streams_lists: true,
            position: None,
            is_first: true,
            backoff: Backoff::new(),
            is_behind: false,
            late_until: None,
            told: (Instant::now(), 0),
            unusable: VecDeque::new(),
        }
    }

    /// Follows until the engine is gone.
    pub(super) async fn run(mut self) {
        loop {
            let followed = match (&self.position, self.streams_lists) {
                (None, false) => self.list().await,
                _ => self.watch().await,
            };
            let wait = match followed {
                Ok(wait) => wait,
                Err(Stop::Engine) => return,
                Err(Stop::Fault(fault)) => match self.failed(&fault).await {
                    Ok(wait) => wait,
                    Err(_) => return,
                },
            };
            if !wait.is_zero() {
                sleep(wait).await;
            }
        }
    }

    fn request(&self) -> Request {
        Request::new(self.resource.path(self.resource.versions[self.version]))
    }

    /// Lists page by page.
    async fn list(&mut self) -> Result<Duration, Stop> {
        self.known.begin();
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let request = self.request().list(&parameters);
            let request = request.map_err(|error| Fault::from(Error::BuildRequest(error)))?;
            let page = timeout(ANSWER, self.client.request::<Page>(request)).await;
            let page = page
                .map_err(|_| Fault::silent("a list", ANSWER))?
                .map_err(Fault::from)?;
            for seen in page.items.into_iter().flatten() {
                let unusable = self.known.collect(seen);
                self.complain(unusable);
            }
            let PageMetadata {
                resource_version,
                next,
            } = page.metadata;
            match next.filter(|next| !next.is_empty()) {
                Some(next) => parameters.continue_token = Some(next),
                None => return self.listed(resource_version.as_deref()).await,
            }
        }
    }

    /// A list has come to its end.
    async fn listed(&mut self, version: Option<&str>) -> Result<Duration, Stop> {
        let version = version.filter(|version| !version.is_empty());
        let version = version.ok_or_else(|| {
            let message = "a list has no version to watch from".to_owned();
            Fault::of_kind(WatchError::Protocol, message)
        })?;
        self.position = Some(version.to_owned());
        let changes = self.known.commit();
        if self.resource.is_last && self.is_first {
            self.report.others(OTHERS).await;
        }
        self.is_first = false;
        self.send(changes).await?;
        self.absent = 0;
        self.without_since = None;
        self.stands(|status| status.lists += 1);
        Ok(Duration::ZERO)
    }

    /// Watches from where the last watch or list ended, or from nothing, until the watch ends.
    async fn watch(&mut self) -> Result<Duration, Stop> {
        let mut is_list = self.position.is_none();
        if is_list {
            self.known.begin();
        }
        let parameters = WatchParams {
            timeout: Some(WATCH),
            send_initial_events: is_list,
            ..WatchParams::default()
        };
        // Without a version: the list is as the server has it now.
        let from = self.position.as_deref().unwrap_or_default();
        let request = self.request().watch(&parameters, from);
        let request = request.map_err(|error| Fault::from(Error::BuildRequest(error)))?;
        let start = Instant::now();
        let events = timeout(ANSWER, self.client.request_events::<Seen>(request)).await;
        let events = events
            .map_err(|_| Fault::silent("a watch", ANSWER))?
            .map_err(Fault::from)?;
        if !is_list {
            self.stands(|_| ());
            if std::mem::take(&mut self.is_behind) {
                self.late_until = Some(Instant::now() + LATE);
            }
        }
        let mut events = pin!(events);
        let mut is_working = false;
        loop {
            let silence = if is_list {
                LIST_SILENCE.min(LIST.saturating_sub(start.elapsed()))
            } else {
                SILENCE
            };
            let event = match timeout(silence, events.next()).await {
                Ok(Some(event)) => event,
                // Some servers take the parameter and never come to the end of the list.
                Err(_) if is_list => {
                    self.streams_lists = false;
                    return Ok(Duration::ZERO);
                }
                Err(_) => return Err(Fault::silent("a watch", silence).into()),
                Ok(None) if is_list => {
                    let message = "the watch ended before the list that it begins with".to_owned();
                    return Err(Fault::of_kind(WatchError::Unreachable, message).into());
                }
                Ok(None) => break,
            };
            match event {
                Ok(WatchEvent::Added(seen) | WatchEvent::Modified(seen)) if is_list => {
                    let unusable = self.known.collect(seen);
                    self.complain(unusable);
                }
                Ok(WatchEvent::Added(seen) | WatchEvent::Modified(seen)) => {
                    self.position = seen.version().map(str::to_owned);
                    let (changes, unusable) = self.known.apply(seen);
                    self.complain(unusable);
                    self.event(changes).await?;
                }
                Ok(WatchEvent::Deleted(_)) if is_list => {
                    let message = "an object went before the list was sent".to_owned();
                    return Err(Fault::of_kind(WatchError::Protocol, message).into());
                }
                Ok(WatchEvent::Deleted(seen)) => {
                    self.position = seen.version().map(str::to_owned);
                    let is_late = self.late_until.is_some_and(|until| Instant::now() < until);
                    let changes = self.known.delete(&seen, is_late);
                    self.event(changes).await?;
                }
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    let version = bookmark.metadata.resource_version;
                    if !is_list {
                        self.position = Some(version);
                    } else if bookmark.metadata.annotations.contains_key(LIST_END) {
                        self.listed(Some(&version)).await?;
                        is_list = false;
                    }
                }
                Ok(WatchEvent::Error(status)) => return Err(Fault::of_status(&status).into()),
                Err(error) if !is_list && is_one_event(&error) => {
                    tracing::warn!(
                        resource = self.resource.name,
                        "cluster: an event is not understood: {error}"
                    );
                    self.report.update(self.index, |status| {
                        *status.errors.entry(WatchError::Protocol).or_default() += 1;
                    });
                }
                Err(error) => return Err(Fault::from(error).into()),
            }
            if !is_working && !is_list {
                is_working = true;
                self.backoff.reset();
            }
        }
        // The server ends every watch after a while; one that ends at once does not work.
        if is_working || start.elapsed() > SHORT {
            self.backoff.reset();
            return Ok(Duration::ZERO);
        }
        Ok(self.backoff.next())
    }

    /// An event came.
    async fn event(&mut self, changes: Changes) -> Result<(), Stop> {
        self.send(changes).await?;
        self.stands(|status| status.events += 1);
        Ok(())
    }

    /// What the server has is what is known.
    fn stands(&self, change: impl FnOnce(&mut monitor_core::engine::ResourceStatus)) {
        let counts = self.known.counts();
        let mut unusable = self.unusable.iter().rev();
        let unusable = unusable.find(|(key, _)| self.known.is_unusable(key));
        let unusable = unusable.map(|(_, text)| text.clone());
        self.report.update(self.index, |status| {
            let (lists, events) = (status.lists, status.events);
            change(status);
            if (lists, events) != (status.lists, status.events) {
                status.last_event = Some(now());
            }
            status.state = WatchState::Synced;
            status.message = None;
            (status.objects, status.skipped) = (counts.objects, counts.skipped);
            status.invalid_addresses = counts.invalid_addresses;
            status.unusable = unusable;
        });
    }

    /// What to do after a failure: how long to wait.
    async fn failed(&mut self, fault: &Fault) -> Result<Duration, Stop> {
        if fault.is_invalid && self.position.is_none() && self.streams_lists {
            tracing::debug!(
                resource = self.resource.name,
                "the API server streams no lists: {}",
                fault.message
            );
            self.streams_lists = false;
            return Ok(Duration::ZERO);
        }
        if fault.is_absent {
            return self.absent(fault).await;
        }
        self.is_behind = true;
        let is_refused = fault.error == WatchError::Refused;
        if fault.is_invalid || fault.error == WatchError::Expired {
            self.position = None;
        }
        if !is_refused {
            self.without_since = None;
        }
        let state = if is_refused && self.without_for() >= REFUSED {
            WatchState::Refused
        } else {
            WatchState::Stale
        };
        self.report.failed(self.index, fault, state);
        Ok(self.backoff.next())
    }

    /// How long the server has refused, or had no such kind.
    fn without_for(&mut self) -> Duration {
        let now = Instant::now();
        now - *self.without_since.get_or_insert(now)
    }

    /// The server does not have the version that was asked for.
    async fn absent(&mut self, fault: &Fault) -> Result<Duration, Stop> {
        let versions = self.resource.versions;
        self.position = None;
        self.version = (self.version + 1) % versions.len();
        self.known.set_version(versions[self.version]);
        self.absent += 1;
        if self.absent < versions.len() {
            return Ok(Duration::ZERO);
        }
        self.absent = 0;
        let without = self.without_for();
        if self.known.counts() != Counts::default() && without < REMOVED {
            self.is_behind = true;
            self.report.failed(self.index, fault, WatchState::Stale);
            return Ok(self.backoff.next());
        }
        let changes = self.known.clear();
        self.send(changes).await?;
        self.report.update(self.index, |status| {
            status.state = WatchState::Absent;
            status.message = None;
            (status.objects, status.skipped) = (0, 0);
            (status.invalid_addresses, status.unusable) = (0, None);
        });
        Ok(if without < REMOVED {
            self.backoff.next()
        } else {
            self.backoff.spread(UNTIL_INSTALLED)
        })
    }

    /// Hands changes on.
    async fn send(&self, changes: Changes) -> Result<(), Stop> {
        if changes.is_empty() {
            return Ok(());
        }
        let inputs = self.inputs.upgrade().ok_or(Stop::Engine)?;
        let Changes {
            cluster,
            policies,
            proposed,
        } = changes;
        let told = [
            (!cluster.is_empty()).then_some(Input::Cluster(cluster)),
            (!policies.is_empty()).then_some(Input::Policies(policies)),
            (!proposed.is_empty()).then_some(Input::Proposed(proposed)),
        ];
        for input in told.into_iter().flatten() {
            inputs.send(input).await.map_err(|_| Stop::Engine)?;
        }
        Ok(())
    }

    /// Tells of what cannot be used, unless there is much of it.
    fn complain(&mut self, unusable: Option<Unusable>) {
        let Some(Unusable {
            key,
            object,
            fault,
            is_address,
        }) = unusable
        else {
            return;
        };
        if self.told.0.elapsed() > TOLD_PERIOD {
            self.told = (Instant::now(), 0);
        }
        self.told.1 += 1;
        if self.told.1 <= TOLD {
            if is_address {
                tracing::warn!("cluster: {object}: {fault}");
            } else {
                tracing::warn!("cluster: {object}: {fault}; skipped: as if it were not there");
            }
        }
        self.unusable.retain(|(known, _)| *known != key);
        if self.unusable.len() >= UNUSABLE {
            self.unusable.pop_front();
        }
        self.unusable.push_back((key, format!("{object}: {fault}")));
    }
}
