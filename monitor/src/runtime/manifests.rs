//! The daemon's manifests: read at the start, and again when their files change.

use std::{path::PathBuf, sync::Arc, time::Duration};

use monitor_core::{
    engine::{Engine, Input, ManifestsStatus},
    netpol::PolicyChange,
    time::Timestamp,
};
use tokio::{sync::mpsc, time};

use crate::{
    config::Config,
    kube::manifests::{Difference, ManifestError, Manifests, Stamp, policies_beside},
};

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
/// Diagnostics that are logged at a time.
const LOGGED: usize = 20;

/// Logs what is wrong with manifests.
fn log(manifests: &Manifests) {
    for diagnostic in manifests.diagnostics.iter().take(LOGGED) {
        tracing::warn!("{diagnostic}");
    }
    if manifests.left_out > 0 {
        let left_out = manifests.left_out;
        tracing::warn!(left_out, "documents and objects left out of the manifests");
    }
}

/// What is declared, and what is proposed.
pub(super) struct Known {
    declared: Manifests,
    proposed: Option<Vec<PolicyChange>>,
    /// Of both: what was read, and what of it is left out.
    status: ManifestsStatus,
    /// Of the files, before they were read.
    stamp: [Stamp; 2],
}

/// What was read, and whether a part of it could not be.
struct Reading {
    known: Known,
    is_broken: bool,
}

/// Where both are.
#[derive(Clone)]
pub(super) struct Places {
    declared: Vec<PathBuf>,
    proposed: Vec<PathBuf>,
}

// === impl Places ===

impl Places {
    /// Those that a configuration names.
    pub(super) fn of(config: &Config) -> Self {
        Self {
            declared: config.manifests.clone(),
            proposed: config.proposed.clone(),
        }
    }

    /// Whether there is nothing to watch.
    pub(super) fn is_empty(&self) -> bool {
        self.declared.is_empty() && self.proposed.is_empty()
    }

    /// What the files look like now.
    fn stamp(&self) -> [Stamp; 2] {
        [&self.declared, &self.proposed].map(|paths| Stamp::of(paths))
    }

    /// Reads both for the first time.
    pub(super) fn first(&self) -> Result<Known, ManifestError> {
        // The stamp is of before they are read: what is written meanwhile is a change.
        self.read(self.stamp()).map(|reading| reading.known)
    }

    /// Reads both.
    fn read(&self, stamp: [Stamp; 2]) -> Result<Reading, ManifestError> {
        let mut declared = Manifests::read(&self.declared)?;
        log(&declared);
        let proposed = if self.proposed.is_empty() {
            None
        } else {
            let proposed = Manifests::read(&self.proposed)?;
            log(&proposed);
            Some(proposed)
        };
        let is_broken = |manifests: &Manifests| manifests.is_broken;
        let is_broken = is_broken(&declared) || proposed.as_ref().is_some_and(is_broken);
        let status = match &proposed {
            Some(proposed) => declared.status.clone().and(proposed.status.clone()),
            None => declared.status.clone(),
        };
        let proposed = declared.take_proposed(proposed);
        let known = Known {
            declared,
            proposed,
            status,
            stamp,
        };
        Ok(Reading { known, is_broken })
    }
}

// === impl Known ===

impl Known {
    /// Tells an engine what is declared and proposed from the beginning, where there are files.
    pub(super) fn declare(&self, engine: &mut Engine, places: &Places, now: Timestamp) {
        if let Some(proposed) = &self.proposed {
            engine.propose(proposed.clone());
        }
        engine.declare(
            self.declared.cluster.clone(),
            self.declared.policies.clone(),
        );
        if !places.is_empty() {
            engine.step(Input::Manifests(self.status.clone()), now);
        }
    }

    /// What can be read of the files, and beside it what was declared before: that it cannot be
    /// read does not say that it is gone.
    fn with(&self, part: Self) -> Self {
        let before = self.proposed.as_deref().unwrap_or_default();
        Self {
            declared: part.declared.beside(&self.declared),
            proposed: part
                .proposed
                .map(|proposed| policies_beside(proposed, before)),
            status: part.status,
            stamp: part.stamp,
        }
    }
}

/// Tells what was read of the files; whether there is still an engine to tell.
async fn tell(status: ManifestsStatus, inputs: &mpsc::WeakSender<Input>) -> bool {
    match inputs.upgrade() {
        Some(inputs) => inputs.send(Input::Manifests(status)).await.is_ok(),
        None => false,
    }
}

/// Hands on what changes in the files, until the engine ends. What cannot be read whole changes
/// nothing at first: a file may be half written. At the next look, if nobody has written on, all
/// that can be read counts; what cannot stays as it was.
pub(super) async fn watch(places: Places, first: Known, inputs: mpsc::WeakSender<Input>) {
    let places = Arc::new(places);
    let mut stamp = first.stamp.clone();
    let mut known = first;
    let mut part = None;
    loop {
        time::sleep(LOOK).await;
        let look = {
            let (places, stamp) = (Arc::clone(&places), stamp.clone());
            tokio::task::spawn_blocking(move || {
                let now = places.stamp();
                (now != stamp).then(|| (now.clone(), places.read(now)))
            })
        };
        let Ok(look) = look.await else {
            continue;
        };
        let now = match look {
            None => match part.take() {
                Some(part) => known.with(part),
                None => continue,
            },
            Some((now, read)) => {
                stamp = now;
                part = None;
                // What is left out is told at once, also while what could be read waits.
                let status = match &read {
                    Ok(reading) => reading.known.status.clone(),
                    Err(error) => ManifestsStatus {
                        error: Some(error.to_string()),
                        ..known.status.clone()
                    },
                };
                if !tell(status, &inputs).await {
                    return;
                }
                match read {
                    Ok(Reading {
                        known,
                        is_broken: false,
                    }) => known,
                    Ok(Reading { known, .. }) => {
                        tracing::warn!("what of the manifests cannot be read stays as it was");
                        part = Some(known);
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!("manifests stay as they were: {error}");
                        continue;
                    }
                }
            }
        };
        let Difference { cluster, policies } = Difference::between(&known.declared, &now.declared);
        let is_proposal_new = now.proposed != known.proposed;
        let (objects, rules) = (cluster.len(), policies.len());
        if objects + rules == 0 && !is_proposal_new {
            known = now;
            continue;
        }
        // The engine ends when the source has dropped its sender: this one does not count.
        let Some(inputs) = inputs.upgrade() else {
            return;
        };
        let told = async {
            inputs.send(Input::Cluster(cluster)).await?;
            inputs.send(Input::Policies(policies)).await?;
            if is_proposal_new {
                let proposed = Input::ProposedByFiles(now.proposed.clone().unwrap_or_default());
                inputs.send(proposed).await?;
            }
            Ok::<_, mpsc::error::SendError<Input>>(())
        };
        if told.await.is_err() {
            return;
        }
        let proposed = is_proposal_new;
        tracing::info!(objects, policies = rules, proposed, "manifests changed");
        known = now;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use monitor_core::cluster::Change;

    use super::*;

    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}}\n";
    const POLICY: &str = "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {}}\n";

    async fn next(inputs: &mut mpsc::Receiver<Input>) -> (Vec<Change>, Vec<PolicyChange>) {
        let mut cluster = Vec::new();
        loop {
            let input = time::timeout(Duration::from_secs(20), inputs.recv());
            match input.await.expect("in time").expect("an input") {
                Input::Manifests(_) => {}
                Input::Cluster(changes) => cluster = changes,
                Input::Policies(changes) => return (cluster, changes),
                other => panic!("{other:?}"),
            }
        }
    }

    /// What was told of files that are left out, if nothing else was told.
    fn only_status(inputs: &mut mpsc::Receiver<Input>) -> ManifestsStatus {
        let status = match inputs.try_recv().expect("a status") {
            Input::Manifests(status) => status,
            other => panic!("{other:?}"),
        };
        assert!(inputs.try_recv().is_err(), "nothing changes");
        status
    }

    #[tokio::test]
    async fn changes_of_files_are_handed_on_once_they_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("m.yaml");
        fs::write(&file, POD).unwrap();
        let paths = vec![directory.path().to_owned()];
        let (sender, mut inputs) = mpsc::channel(8);
        let places = Places {
            declared: paths,
            proposed: Vec::new(),
        };
        let first = places.first().unwrap();
        let watching = tokio::spawn(watch(places, first, sender.downgrade()));
        // Half written, then whole, in a way that a look between both would see.
        time::sleep(Duration::from_millis(100)).await;
        fs::write(&file, format!("{POD}---\n{{apiVersion: ")).unwrap();
        time::sleep(LOOK + LOOK).await;
        let status = only_status(&mut inputs);
        assert_eq!(status.skipped["documents"], 1);
        assert_eq!(status.skipped_in[0].file, file.display().to_string());
        assert!(status.skipped_in[0].last.starts_with("line 3: is no YAML"));
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
        // What is left out and declares nothing is told of all the same, and so is a directory
        // that is gone.
        fs::write(
            &file,
            POLICY.replace("spec: {}", "spec: {policyTypes: [Up]}"),
        )
        .unwrap();
        time::sleep(LOOK + LOOK).await;
        let status = only_status(&mut inputs);
        assert_eq!((status.files, status.skipped["networkpolicies"]), (1, 1));
        let last = &status.skipped_in[0].last;
        assert!(
            last.starts_with("line 2: NetworkPolicy x/p: spec.policyTypes"),
            "{last}"
        );
        fs::rename(directory.path(), directory.path().with_extension("away")).unwrap();
        time::sleep(LOOK + LOOK).await;
        let status = only_status(&mut inputs);
        assert_eq!(status.skipped["networkpolicies"], 1);
        assert!(status.error.is_some(), "{status:?}");
        fs::rename(directory.path().with_extension("away"), directory.path()).unwrap();
        time::sleep(LOOK + LOOK).await;
        assert_eq!(only_status(&mut inputs).error, None);
        // The watch does not keep the engine from ending.
        drop(sender);
        assert!(inputs.recv().await.is_none());
        fs::write(&file, POD).unwrap();
        time::timeout(Duration::from_secs(20), watching)
            .await
            .expect("in time")
            .unwrap();
    }

    #[tokio::test]
    async fn what_stays_broken_holds_nothing_else_up() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        fs::write(file("m.yaml"), POD).unwrap();
        let places = Places {
            declared: vec![directory.path().to_owned()],
            proposed: Vec::new(),
        };
        let first = places.first().unwrap();
        // Between the reading and the first look.
        fs::write(file("p.yaml"), POLICY).unwrap();
        let (sender, mut inputs) = mpsc::channel(8);
        let watching = tokio::spawn(watch(places, first, sender.downgrade()));
        let (cluster, policies) = next(&mut inputs).await;
        assert_eq!((cluster.len(), policies.len()), (0, 1));
        fs::write(file("m.yaml"), format!("{POD}---\n{{apiVersion: ")).unwrap();
        fs::write(file("p.yaml"), POLICY.replace("name: p,", "name: q,")).unwrap();
        let (cluster, policies) = next(&mut inputs).await;
        assert!(cluster.is_empty(), "{cluster:?}");
        let [PolicyChange::Namespaced(policy)] = &policies[..] else {
            panic!("one is new, and none is known to be gone: {policies:?}");
        };
        assert_eq!(&*policy.name, "q");
        // All can be read again: what is gone is.
        fs::write(file("m.yaml"), "").unwrap();
        let (cluster, policies) = next(&mut inputs).await;
        assert!(matches!(&cluster[..], [Change::PodGone(..)]), "{cluster:?}");
        assert!(
            matches!(&policies[..], [PolicyChange::NamespacedGone(_, name)] if &**name == "p"),
            "{policies:?}"
        );
        watching.abort();
    }

    #[tokio::test]
    async fn what_is_proposed_changes_with_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let [declared, proposed] = ["declared", "proposed"].map(|name| directory.path().join(name));
        fs::create_dir(&declared).unwrap();
        fs::create_dir(&proposed).unwrap();
        fs::write(declared.join("m.yaml"), POD).unwrap();
        let places = Places {
            declared: vec![declared.clone()],
            proposed: vec![proposed.clone()],
        };
        let first = places.first().unwrap();
        assert_eq!(first.proposed.as_deref(), Some(&[][..]));
        let (sender, mut inputs) = mpsc::channel(8);
        let watching = tokio::spawn(watch(places, first, sender.downgrade()));
        time::sleep(Duration::from_millis(100)).await;
        let mut proposed_now = async || {
            loop {
                let input = time::timeout(Duration::from_secs(20), inputs.recv());
                if let Input::ProposedByFiles(changes) = input.await.unwrap().unwrap() {
                    return changes.len();
                }
            }
        };
        fs::write(proposed.join("p.yaml"), POLICY).unwrap();
        assert_eq!(proposed_now().await, 1);
        // One in force that says it is proposed.
        let annotated = POLICY.replace(
            "name: p,",
            "name: q, annotations: {nodewatch.io/mode: propose},",
        );
        fs::write(declared.join("q.yaml"), annotated).unwrap();
        assert_eq!(proposed_now().await, 2);
        fs::remove_file(proposed.join("p.yaml")).unwrap();
        assert_eq!(proposed_now().await, 1);
        watching.abort();
    }
}
