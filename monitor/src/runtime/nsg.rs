//! Documents with network security groups that change while the daemon runs.

use std::{sync::Arc, time::Duration};

use monitor_core::{
    engine::Input,
    nsg::{Chain, lint},
};
use tokio::sync::mpsc;

use crate::azure::{Loaded, Sources, Watch};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Rules that take something away, of which one line each is written.
const MOST_LINES: usize = 50;

/// Tells what is doubtful about documents, and what they take away of what the platform needs.
pub(super) fn log(loaded: &Loaded) {
    log_warnings(loaded);
    if loaded.profile.is_some() {
        log_needs(&loaded.chain);
    }
}

fn log_warnings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "a network security group's document is doubtful");
    }
}

/// Tells what rules take away of what the platform needs. Rules become sets for this, which costs
/// time where there are many.
fn log_needs(chain: &Chain) {
    for (need, name) in &chain.needs().unchecked {
        tracing::warn!(%need, undefined = %name, "a need of the profile cannot be checked");
    }
    let issues = lint::blocked(chain, chain.needs());
    for issue in issues.iter().take(MOST_LINES) {
        tracing::warn!(
            group = %issue.name,
            rule = %issue.rule,
            why = %issue.why,
            "a network security group's rule takes away what the profile needs"
        );
    }
    if let Some(more) = issues
        .len()
        .checked_sub(MOST_LINES)
        .filter(|more| *more > 0)
    {
        tracing::warn!(
            more,
            "more rules take away what the profile needs: nodewatch nsg lint"
        );
    }
}

/// Brings changed documents into force until the daemon stops. Documents that cannot be used are
/// refused, and what stood before stays in force.
pub(super) async fn reload(
    sources: Sources,
    mut watch: Watch,
    inputs: mpsc::Sender<Input>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = &mut stop => return,
        }
        if !watch.is_changed() {
            continue;
        }
        let sources = sources.clone();
        // Files may be large, and file systems slow.
        let loaded = tokio::task::spawn_blocking(move || sources.load()).await;
        let mut in_force = None;
        let input = match loaded {
            Ok(Ok(loaded)) => {
                log_warnings(&loaded);
                tracing::info!("network security groups changed and are in force");
                let chain = Arc::new(loaded.chain);
                in_force = loaded.profile.is_some().then(|| Arc::clone(&chain));
                Input::Nsg(Some(chain))
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "network security groups changed and are refused, the old ones stay in force");
                Input::NsgRefused {
                    error: error.to_string(),
                }
            }
            // A panic aborts; what is left is that the runtime stops.
            Err(_) => return,
        };
        if inputs.send(input).await.is_err() {
            return;
        }
        // What it means is told once it is in force.
        if let Some(chain) = in_force {
            let told = tokio::task::spawn_blocking(move || log_needs(&chain));
            if told.await.is_err() {
                return;
            }
        }
    }
}
