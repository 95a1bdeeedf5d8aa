//! The daemon: its tasks, and how they start and stop.
//!
//! ```text
//! source thread (kernel maps, links) -> inputs -> engine task -> records, snapshot
//!        ^---------- commands (expire) -----------'  ^   |          |
//! owner thread (sockets, processes) -> answers ------'   |          |
//!        ^---------- questions --------------------------'          |
//! conntrack thread (translation): likewise                          |
//!                         API socket, HTTP server <- EngineHandle --'
//! ```
//!
//! Stopping goes the same way: the source reads once more, detaches and drops its sender; the
//! engine, having drained its inputs, closes all flows; then the servers end.

mod capabilities;
mod cgroups;
mod cluster;
mod conntrack;
mod engine;
mod handle;
mod lock;
mod manifests;
mod memory;
mod nsg;
mod owner;
mod shared;

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use monitor_common::abi::{EVENT_RING_BYTES, Hook};
use monitor_core::{
    engine::{Capacity, Config as EngineConfig, Engine, Input},
    time::Timestamp,
};
use serde_json::json;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
};

use crate::{
    api,
    azure::{SourceError, Watch},
    config::{Attach, Config, Labels},
    host::{
        self,
        cgroups::{Cgroups, CgroupsError},
        owner::{Finder, Missing},
    },
    kube::manifests::ManifestError,
    sink::{
        events::{self, EventLog},
        http,
        web::{self, Web, WebError},
    },
    source::{
        ebpf::{AttachMode, Command, Kernel, Live, LiveError, LiveOptions, LoadError, LoadOptions},
        select::{PatternError, Selection},
    },
};

pub use handle::{EngineHandle, Stopped};

#[cfg(test)]
pub(crate) use handle::Reply;

/// How long the daemon may take to stop once it was told to.
const STOP: Duration = Duration::from_millis(1500);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The host does not allow it.
    #[error(transparent)]
    Host(#[from] host::HostError),
    /// Another one watches the same network namespace.
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    /// A workload pattern is invalid.
    #[error("--workload: {0}")]
    Pattern(#[from] PatternError),
    /// The ranges contradict each other.
    #[error("--range: {0}")]
    Ranges(#[from] monitor_core::entity::RangeError),
    /// The manifests cannot be read.
    #[error("--manifests: {0}")]
    Manifests(#[from] ManifestError),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] cluster::ClusterError),
    /// Network security groups cannot be used.
    #[error(transparent)]
    Nsg(#[from] SourceError),
    /// The kernel program cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An uplink that is named does not exist.
    #[error("{origin}: there is no interface `{name}`")]
    UnknownUplink {
        /// The flag, or file, line and key.
        origin: String,
        /// What is named.
        name: String,
    },
    /// The source failed.
    #[error(transparent)]
    Live(LiveError),
    /// The API socket cannot be served.
    #[error(transparent)]
    Api(#[from] api::BindError),
    /// The HTTP server cannot be served.
    #[error(transparent)]
    Http(#[from] http::BindError),
    /// The web configuration cannot be used.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The event log cannot be opened.
    #[error(transparent)]
    Events(#[from] events::OpenError),
    /// The source does not stop.
    #[error(
        "the daemon did not stop in time: links are detached by the kernel, clsact filters may be \
         left (`tc filter show dev IFACE ingress`)"
    )]
    Stuck,
    /// The operating system refuses threads, signals or the like.
    #[error("cannot start: {0}")]
    System(#[source] io::Error),
}

// === impl RuntimeError ===

impl RuntimeError {
    /// Exit status: 2 for bad input, 3 where the system refuses.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Pattern(_)
            | Self::Ranges(_)
            | Self::Manifests(_)
            | Self::Cluster(_)
            | Self::Nsg(_)
            | Self::Web(_)
            | Self::UnknownUplink { .. } => 2,
            _ => 3,
        }
    }
}

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(config: &Config) -> Result<(), RuntimeError> {
    memory::give_back();
    // What is given is checked before the system is asked. From here on changes are noticed.
    let watch = Watch::new(&config.nsg);
    let chain = config.nsg.watched()?.map(|loaded| {
        nsg::log(&loaded);
        Arc::new(loaded.chain)
    });
    let web = config.web_config.clone().map(web::reload).transpose()?;
    let places = manifests::Places::of(config);
    let known = places.first()?;
    let cluster = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RuntimeError::System)?
        .block_on(cluster::find(config))?;
    host::check_kernel()?;
    host::check_capabilities()?;
    let lock = lock::take()?;
    let selection = Selection::new(&config.uplink, &config.workload)?;
    let finder = Finder::new();
    match &finder {
        Err(error) => tracing::warn!("{error}"),
        Ok(_) => tracing::info!("processes and users: {}", host::owner::words(None)),
    }
    let cgroups = Cgroups::new();
    if let Err(error) = &cgroups {
        tracing::warn!("control groups cannot be told: {error}");
    }
    let mut engine = Engine::new(EngineConfig {
        owners: finder.is_ok(),
        translations: true,
        cgroups: cgroups.is_ok(),
        timeouts: config.timeouts,
        max_series: config.max_series,
        by_workload: config.labels == Labels::Workload,
        series_ttl: config.series_ttl,
        capacity: Capacity {
            ipv4: u64::from(config.max_flows4),
            ipv6: u64::from(config.max_flows6),
        },
        recent: config.recent,
        ranges: config.ranges.clone(),
        expectations: config.expectations.clone(),
        thresholds: config.thresholds,
        policy_options: config.policy_options,
        ..EngineConfig::default()
    })?;
    if let Some(chain) = &chain {
        engine.step(Input::Nsg(Some(Arc::clone(chain))), now());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(capabilities::worker_starts)
        .enable_all()
        .build()
        .map_err(RuntimeError::System)?;
    known.declare(&mut engine, &places, now());
    if let Some(status) = cluster.status() {
        engine.step(Input::Kubernetes(status), now());
    }
    let given = Given {
        known,
        groups: nsg::Known { watch, chain },
        web,
        cluster,
    };
    let looks = Looks { finder, cgroups };
    runtime.block_on(async {
        lock.serve().map_err(RuntimeError::System)?;
        Box::pin(serve(config, selection, engine, given, looks)).await
    })
}

/// Where what is declared comes from, and what was read from files and is read again when they change.
struct Given {
    /// By manifests.
    known: manifests::Known,
    /// Of network security groups.
    groups: nsg::Known,
    /// How metrics are served.
    web: Option<(web::Current, web::Reload)>,
    /// A live cluster.
    cluster: cluster::Source,
}

/// What finds out who on this node a connection belongs to.
struct Looks {
    finder: Result<Finder, Missing>,
    cgroups: Result<Cgroups, CgroupsError>,
}

async fn serve(
    config: &Config,
    selection: Selection,
    engine: Engine,
    Given {
        known,
        groups,
        web,
        cluster,
    }: Given,
    Looks { finder, cgroups }: Looks,
) -> Result<(), RuntimeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RuntimeError::System)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RuntimeError::System)?;
    // A terminal that closes, and Ctrl-\: without a handler nothing would be detached.
    let mut hangup = signal(SignalKind::hangup()).map_err(RuntimeError::System)?;
    let mut quit = signal(SignalKind::quit()).map_err(RuntimeError::System)?;
    // Before the kernel is touched: what is taken is refused at no cost.
    let api = api::Listener::bind(&config.socket)?;
    let http = match config.listen {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    let event_log = config.event_log.as_deref();
    let event_log = event_log
        .map(|path| EventLog::open(path, config.event_log_bytes))
        .transpose()?;
    let kernel = Kernel::load(&LoadOptions {
        max_flows4: config.max_flows4,
        max_flows6: config.max_flows6,
        event_ring_bytes: EVENT_RING_BYTES,
        log_level: config.kernel_log.level(),
    })?;
    capabilities::loaded();
    let info = info(config, &kernel, finder.as_ref().err(), &cgroups);

    let ends = engine::task(engine);
    let (stop, stopped) = watch::channel(false);
    let (ready, is_ready) = watch::channel(false);
    let (engine_ended, ended) = oneshot::channel::<()>();
    let event_log = event_log.map(|log| {
        let records = ends.handle.follow();
        let ended = async {
            // Gone or told: the engine has ended.
            let _ = ended.await;
        };
        tokio::spawn(events::serve(log, ends.handle.clone(), records, ended))
    });
    let engine = tokio::spawn(ends.task.run());
    let has_finder = finder.is_ok();
    if let Ok(finder) = finder {
        owner::start(finder, ends.questions, ends.answers, ends.given)
            .map_err(RuntimeError::System)?;
    }
    if let Ok(cgroups) = cgroups {
        cgroups::start(cgroups, ends.cgroups, ends.found.clone(), ends.missed)
            .map_err(RuntimeError::System)?;
    }
    conntrack::start(ends.translations, ends.found).map_err(RuntimeError::System)?;
    let options = LiveOptions {
        selection,
        attach: match config.attach {
            Attach::Auto => AttachMode::Auto,
            Attach::Tcx => AttachMode::Tcx,
            Attach::Clsact => AttachMode::Clsact,
        },
        interval: config.poll_interval,
    };
    cluster.start(&ends.inputs);
    let places = manifests::Places::of(config);
    if !places.is_empty() {
        let inputs = ends.inputs.downgrade();
        tokio::spawn(manifests::watch(places, known, inputs));
    }
    if !config.nsg.is_empty() {
        let (sources, inputs) = (config.nsg.clone(), ends.inputs.clone());
        tokio::spawn(nsg::reload(sources, groups, inputs, stop_told(&stopped)));
    }
    let (started, has_started) = oneshot::channel();
    let inputs = has_finder.then(|| ends.inputs.downgrade());
    let mut source = start_source(
        kernel,
        options,
        ends.inputs,
        ends.commands,
        &stopped,
        started,
    )?;
    let api = tokio::spawn(api::serve(
        api,
        ends.handle.clone(),
        info,
        stop_told(&stopped),
    ));
    if let Some(http) = http {
        let web = match web {
            Some((current, reload)) => {
                tokio::spawn(reload.run(stop_told(&stopped)));
                current
            }
            None => Web::open().into(),
        };
        let reboot = config.reboot_required_file.clone();
        let context = http::Context::new(ends.handle.clone(), is_ready, web, reboot);
        tokio::spawn(http::serve(http, context, stop_told(&stopped)));
    }
    tokio::spawn(async move {
        if has_started.await.is_ok() {
            // What begins from now on is seen.
            if let Some(Err(error)) = inputs.as_ref().map(owner::existing) {
                tracing::warn!(%error, "cannot tell which SSH connections were there before");
            }
            tracing::info!("ready");
            ready.send_replace(true);
        }
    });

    let ended = tokio::select! {
        result = &mut source => Some(result),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        _ = hangup.recv() => None,
        _ = quit.recv() => None,
    };
    stop.send_replace(true);
    let result = match ended {
        Some(result) => result,
        None => match tokio::time::timeout(STOP, source).await {
            Ok(result) => result,
            Err(_) => {
                return Err(RuntimeError::Stuck);
            }
        },
    };
    // The engine ends when the source has dropped its sender.
    if tokio::time::timeout(STOP, engine).await.is_err() {
        tracing::error!("the engine does not stop");
    }
    drop(engine_ended);
    if let Some(event_log) = event_log
        && tokio::time::timeout(STOP, event_log).await.is_err()
    {
        tracing::error!("the event log is not written to its end");
    }
    // It removes its socket.
    if let Ok(Err(error)) = api.await {
        tracing::warn!(%error, "API socket");
    }
    match result {
        Ok(Err(LiveError::UnknownUplink(name))) => Err(RuntimeError::UnknownUplink {
            origin: config.uplink_origin.clone(),
            name,
        }),
        Ok(result) => result.map_err(RuntimeError::Live),
        // The thread's sender is dropped without a result only by a panic, which aborts.
        Err(_) => Err(RuntimeError::Live(LiveError::EngineStopped)),
    }
}

/// Starts the source on a thread of its own; what it ends with.
fn start_source(
    kernel: Kernel,
    options: LiveOptions,
    inputs: mpsc::Sender<Input>,
    commands: mpsc::Receiver<Command>,
    stop: &watch::Receiver<bool>,
    started: oneshot::Sender<()>,
) -> Result<oneshot::Receiver<Result<(), LiveError>>, RuntimeError> {
    let (sender, result) = oneshot::channel();
    let stop = stop.clone();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RuntimeError::System)?;
    thread::Builder::new()
        .name("source".to_owned())
        .spawn(move || {
            let outcome = runtime.block_on(async {
                Live::new(kernel, options, inputs)?
                    .run(commands, stop, started)
                    .await
            });
            // The receiver is gone only when the daemon gave up waiting.
            let _ = sender.send(outcome);
        })
        .map_err(RuntimeError::System)?;
    Ok(result)
}

/// Done once the daemon is told to stop.
fn stop_told(stop: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stop = stop.clone();
    async move {
        // A sender that is gone is a daemon that ends.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

/// What `status` tells about the daemon itself.
fn info(
    config: &Config,
    kernel: &Kernel,
    missing: Option<&Missing>,
    cgroups: &Result<Cgroups, CgroupsError>,
) -> api::DaemonInfo {
    let mut info = api::DaemonInfo::new(now());
    let details = [
        ("attach", json!(config.attach.name())),
        ("kernel_log", json!(config.kernel_log.level())),
        (
            "poll_interval_ms",
            json!(config.poll_interval.as_secs_f64() * 1e3),
        ),
        (
            "listen",
            json!(config.listen.map(|address| address.to_string())),
        ),
        ("processes", json!(host::owner::words(missing))),
        ("cgroups", json!(host::cgroups::words(cgroups))),
        ("ns_per_tick", json!(kernel.ns_per_tick())),
        (
            "verified_instructions",
            json!([
                kernel.verified_instructions(Hook::Ingress),
                kernel.verified_instructions(Hook::Egress),
            ]),
        ),
    ];
    for (name, value) in details {
        if !value.is_null() {
            info.details.insert(name.to_owned(), value);
        }
    }
    info
}

/// Wall-clock time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_nanoseconds(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
