//! Documents with network security groups that change while the daemon runs.

use std::{sync::Arc, time::Duration};

use monitor_core::{engine::Input, nsg::lint};
use tokio::sync::mpsc;

use crate::azure::{Loaded, Sources, Watch};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells what is doubtful about documents, and what they take away of what the platform needs.
pub(super) fn log(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "a network security group's document is doubtful");
    }
    for (need, name) in &loaded.chain.needs().unchecked {
        tracing::warn!(%need, undefined = %name, "a need of the profile cannot be checked");
    }
    // Rules become sets for this, which costs time where there are many.
    if loaded.profile.is_none() {
        return;
    }
    for issue in lint::blocked(&loaded.chain, loaded.chain.needs()) {
        tracing::warn!(
            group = %issue.name,
            rule = %issue.rule,
            why = %issue.why,
            "a network security group's rule takes away what the profile needs"
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
        let loaded = tokio::task::spawn_blocking(move || {
            let loaded = sources.load()?;
            log(&loaded);
            Ok::<_, crate::azure::SourceError>(loaded.chain)
        })
        .await;
        let input = match loaded {
            Ok(Ok(chain)) => {
                tracing::info!("network security groups changed and are in force");
                Input::Nsg(Some(Arc::new(chain)))
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
    }
}
