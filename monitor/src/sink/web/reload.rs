//! A configuration that changes while the daemon runs: certificates are renewed, Secrets are swapped.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{Counts, Web, WebError};
use crate::azure::Watch;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is in force, and how often it changed; cheap to clone.
#[derive(Clone, Debug)]
pub struct Current {
    web: watch::Receiver<Arc<Web>>,
    counts: Arc<Counts>,
}

/// Brings changed files into force.
#[derive(Debug)]
pub struct Reload {
    path: PathBuf,
    watch: Watch,
    /// Why the files as they are cannot be used. A file that they name may come later, and is not
    /// watched before it is known from a configuration that can be used.
    refused: Option<String>,
    web: watch::Sender<Arc<Web>>,
    counts: Arc<Counts>,
}

// === impl Current ===

impl Current {
    /// What is in force now.
    pub(in crate::sink) fn web(&self) -> Arc<Web> {
        Arc::clone(&self.web.borrow())
    }

    /// What happened since the start.
    pub(in crate::sink) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

impl From<Web> for Current {
    /// One that does not change.
    fn from(web: Web) -> Self {
        Self {
            web: watch::channel(Arc::new(web)).1,
            counts: Arc::default(),
        }
    }
}

/// Reads a configuration; what is in force, and what keeps it up to date.
pub fn reload(path: PathBuf) -> Result<(Current, Reload), WebError> {
    // Once to know the files, and again now that they are watched: no change between is missed.
    let watch = Watch::of(Web::read(&path)?.files.into_iter());
    let web = Web::read(&path)?;
    let counts = Arc::<Counts>::default();
    let (sender, receiver) = watch::channel(Arc::new(web));
    let current = Current {
        web: receiver,
        counts: Arc::clone(&counts),
    };
    let reload = Reload {
        path,
        watch,
        refused: None,
        web: sender,
        counts,
    };
    Ok((current, reload))
}

// === impl Reload ===

impl Reload {
    /// Looks at the files until the daemon stops.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = &mut stop => return,
            }
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(back) => self = back,
                // A panic aborts; what is left is that the runtime stops.
                Err(_) => return,
            }
        }
    }

    /// Reads changed files. What cannot be used is refused, and what stood before stays in force.
    pub(super) fn look(&mut self) {
        let is_changed = self.watch.is_changed();
        if !is_changed && self.refused.is_none() {
            return;
        }
        // Files that change while they are read are other files at the next look.
        match Web::read(&self.path) {
            Ok(web) => {
                tracing::info!(
                    metrics = web.words(),
                    "the web configuration changed and is in force"
                );
                self.watch.rename(web.files.iter().cloned());
                self.refused = None;
                self.counts.load(true);
                self.web.send_replace(Arc::new(web));
            }
            Err(error) => {
                let error = error.to_string();
                let is_new = self.refused.as_ref() != Some(&error);
                if is_changed || is_new {
                    self.counts.load(false);
                }
                if is_new {
                    tracing::warn!(
                        "{error}; the web configuration changed and is refused, the old one stays in force"
                    );
                    self.refused = Some(error);
                }
            }
        }
    }
}
