//! Documents with network security groups that change while the daemon runs.

use std::{sync::Arc, time::Duration};

use monitor_core::{
    engine::Input,
    nsg::{
        Chain,
        lint::{self, Unchecked},
    },
};
use tokio::sync::mpsc;

use crate::azure::{Loaded, SourceError, Sources, Watch};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Rules that take something away, of which one line each is written.
const MOST_LINES: usize = 50;

/// What was read from the files.
pub(super) struct Known {
    /// How they looked then.
    pub(super) watch: Watch,
    /// The rules in force.
    pub(super) chain: Option<Arc<Chain>>,
}

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
    for Unchecked { need, missing, .. } in &chain.needs().unchecked {
        let need = need.as_deref().unwrap_or_default();
        tracing::warn!(need, undefined = %missing, "a need of the profile cannot be checked");
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
/// refused, and what stood before stays in force. Documents that were written anew and say the same
/// change nothing: they only end a refusal.
pub(super) async fn reload(
    sources: Sources,
    Known { mut watch, chain }: Known,
    inputs: mpsc::Sender<Input>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let mut present = chain;
    let mut is_refused = false;
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = &mut stop => return,
        }
        if !watch.is_changed() {
            continue;
        }
        let (sources, before) = (sources.clone(), present.clone());
        // Files may be large, and file systems slow.
        let loaded = tokio::task::spawn_blocking(move || {
            let loaded = sources.load()?;
            let is_same = before.is_some_and(|before| before.says_the_same(&loaded.chain));
            Ok::<_, SourceError>((loaded, is_same))
        });
        let mut in_force = None;
        let input = match loaded.await {
            Ok(Ok((_, true))) => {
                tracing::info!("network security groups were written anew and say the same");
                if !std::mem::take(&mut is_refused) {
                    continue;
                }
                Input::Nsg(present.clone())
            }
            Ok(Ok((loaded, false))) => {
                log_warnings(&loaded);
                tracing::info!("network security groups changed and are in force");
                let chain = Arc::new(loaded.chain);
                in_force = loaded.profile.is_some().then(|| Arc::clone(&chain));
                (present, is_refused) = (Some(Arc::clone(&chain)), false);
                Input::Nsg(Some(chain))
            }
            Ok(Err(error)) => {
                is_refused = true;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    /// A group with one rule that allows a port.
    fn group(port: u16) -> String {
        format!(
            "{{\"name\":\"g\",\"securityRules\":[{{\"name\":\"R\",\"priority\":100,\
             \"direction\":\"Inbound\",\"access\":\"Allow\",\"protocol\":\"Tcp\",\
             \"sourceAddressPrefix\":\"*\",\"destinationAddressPrefix\":\"*\",\
             \"sourcePortRange\":\"*\",\"destinationPortRange\":\"{port}\"}}]}}"
        )
    }

    #[tokio::test]
    async fn documents_that_say_the_same_change_nothing_but_end_a_refusal() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("nsg.json");
        // Of another length each time, so that the change is seen.
        let mut written = 0;
        let mut write = |text: &str| {
            written += 1;
            fs::write(&file, format!("{text}{}", " ".repeat(written))).expect("written");
        };
        write(&group(22));
        let sources = Sources {
            nsg: vec![format!("subnet={}", file.display())],
            ..Sources::default()
        };
        let chain = Arc::new(sources.load().expect("valid").chain);
        let known = Known {
            watch: Watch::new(&sources),
            chain: Some(Arc::clone(&chain)),
        };
        let (inputs, mut given) = mpsc::channel(8);
        tokio::spawn(reload(sources, known, inputs, std::future::pending()));

        write(&group(22));
        let nothing = timeout(3 * INTERVAL, given.recv()).await;
        assert!(nothing.is_err(), "{nothing:?}");
        write("{");
        let refused = given.recv().await;
        assert!(matches!(refused, Some(Input::NsgRefused { .. })));
        // What is in force goes on.
        write(&group(22));
        let Some(Input::Nsg(Some(same))) = given.recv().await else {
            panic!("no rules");
        };
        assert!(Arc::ptr_eq(&same, &chain));
        write(&group(23));
        let Some(Input::Nsg(Some(other))) = given.recv().await else {
            panic!("no rules");
        };
        assert!(!other.says_the_same(&chain));
    }
}
