//! The daemon's manifests: read at the start, and again when their files change.

use std::{path::PathBuf, sync::Arc, time::Duration};

use monitor_core::{engine::Input, netpol::PolicyChange};
use tokio::{sync::mpsc, time};

use crate::kube::manifests::{Difference, ManifestError, Manifests, Stamp};

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
/// Diagnostics that are logged at a time.
const LOGGED: usize = 20;

/// Logs what is wrong with manifests.
pub(super) fn log(manifests: &Manifests) {
    for diagnostic in manifests.diagnostics.iter().take(LOGGED) {
        tracing::warn!("{diagnostic}");
    }
    if manifests.left_out > 0 {
        let left_out = manifests.left_out;
        tracing::warn!(left_out, "documents and objects left out of the manifests");
    }
}

/// Reads what is proposed, and takes what `declared` says is.
pub(super) fn proposed(
    paths: &[PathBuf],
    declared: &mut Manifests,
) -> Result<Option<Vec<PolicyChange>>, ManifestError> {
    let proposed = if paths.is_empty() {
        None
    } else {
        let proposed = Manifests::read(paths)?;
        log(&proposed);
        Some(proposed)
    };
    Ok(declared.take_proposed(proposed))
}

/// Hands on what changes in the files, until the engine ends. What cannot be read whole changes
/// nothing: a file may be half written.
pub(super) async fn watch(paths: Vec<PathBuf>, first: Manifests, inputs: mpsc::WeakSender<Input>) {
    let paths = Arc::new(paths);
    let mut stamp = Stamp::of(&paths);
    let mut known = first;
    loop {
        time::sleep(LOOK).await;
        let look = {
            let (paths, stamp) = (Arc::clone(&paths), stamp.clone());
            tokio::task::spawn_blocking(move || {
                let now = Stamp::of(&paths);
                (now != stamp).then(|| (now, Manifests::read(&paths)))
            })
        };
        let Ok(Some((now, read))) = look.await else {
            continue;
        };
        stamp = now;
        let manifests = match read {
            Ok(manifests) => manifests,
            Err(error) => {
                tracing::warn!("manifests stay as they were: {error}");
                continue;
            }
        };
        log(&manifests);
        if manifests.is_broken {
            tracing::warn!("manifests stay as they were until all can be read");
            continue;
        }
        let Difference { cluster, policies } = Difference::between(&known, &manifests);
        let (objects, rules) = (cluster.len(), policies.len());
        // The engine ends when the source has dropped its sender: this one does not count.
        let Some(inputs) = inputs.upgrade() else {
            return;
        };
        let told = async {
            inputs.send(Input::Cluster(cluster)).await?;
            inputs.send(Input::Policies(policies)).await
        };
        if told.await.is_err() {
            return;
        }
        tracing::info!(objects, policies = rules, "manifests changed");
        known = manifests;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use monitor_core::{cluster::Change, netpol::PolicyChange};

    use super::*;

    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}}\n";
    const POLICY: &str = "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {}}\n";

    async fn next(inputs: &mut mpsc::Receiver<Input>) -> (Vec<Change>, Vec<PolicyChange>) {
        let mut told = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let input = time::timeout(Duration::from_secs(20), inputs.recv());
            match input.await.expect("in time").expect("an input") {
                Input::Cluster(changes) => told.0 = changes,
                Input::Policies(changes) => told.1 = changes,
                other => panic!("{other:?}"),
            }
        }
        told
    }

    #[tokio::test]
    async fn changes_of_files_are_handed_on_once_they_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("m.yaml");
        fs::write(&file, POD).unwrap();
        let paths = vec![directory.path().to_owned()];
        let first = Manifests::read(&paths).unwrap();
        let (sender, mut inputs) = mpsc::channel(8);
        let watching = tokio::spawn(watch(paths, first, sender.downgrade()));
        // Half written, then whole, in a way that a look between both would see.
        time::sleep(Duration::from_millis(100)).await;
        fs::write(&file, format!("{POD}---\n{{apiVersion: ")).unwrap();
        time::sleep(LOOK + LOOK).await;
        assert!(
            inputs.try_recv().is_err(),
            "nothing changes by what is broken"
        );
        fs::write(&file, format!("{POD}{POLICY}")).unwrap();
        let (cluster, policies) = next(&mut inputs).await;
        assert_eq!((cluster.len(), policies.len()), (0, 1));
        fs::remove_file(&file).unwrap();
        let (cluster, policies) = next(&mut inputs).await;
        assert!(matches!(&cluster[..], [Change::PodGone(..)]), "{cluster:?}");
        assert!(
            matches!(&policies[..], [PolicyChange::NamespacedGone(..)]),
            "{policies:?}"
        );
        // The watch does not keep the engine from ending.
        drop(sender);
        assert!(inputs.recv().await.is_none());
        fs::write(&file, POD).unwrap();
        time::timeout(Duration::from_secs(20), watching)
            .await
            .expect("in time")
            .unwrap();
    }
}
