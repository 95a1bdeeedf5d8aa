//! Namespaces: what is known of them, and for how long.

use std::{collections::BTreeMap, sync::Arc};

use super::{Cluster, NAME_LABEL, Namespace};
use crate::event::Labels;

/// Namespaces that are remembered after they, or all of their pods, are gone.
const GONE: usize = 1_024;

/// What is known of a namespace.
#[derive(Debug)]
pub(super) struct NamespaceState {
    /// With [`NAME_LABEL`].
    labels: Labels,
    /// Its object was deleted: what is in it goes, too, but the watches of other kinds may tell
    /// of that later.
    pub(super) is_gone: bool,
    /// Its object was told of: else its name is all that is known.
    pub(super) is_told: bool,
}

// === impl Cluster ===

impl Cluster {
    pub(super) fn set_namespace(&mut self, namespace: Namespace) {
        let labels = named(&namespace.name, &namespace.labels);
        let is_known = self
            .namespaces
            .get(&namespace.name)
            .is_some_and(|known| !known.is_gone && known.is_told && known.labels == labels);
        if !is_known {
            let state = NamespaceState {
                labels,
                is_gone: false,
                is_told: true,
            };
            self.namespaces.insert(namespace.name, state);
            self.epoch += 1;
        }
    }

    /// A namespace was deleted.
    pub(super) fn end_namespace(&mut self, name: Arc<str>) {
        let state = NamespaceState {
            labels: named(&name, &Labels::default()),
            is_gone: true,
            is_told: true,
        };
        self.gone.push_back(Arc::clone(&name));
        self.namespaces.insert(name, state);
        self.forget_namespaces();
        self.epoch += 1;
    }

    /// A pod of a namespace is told of: the namespace's object may be still to come, and its name is
    /// known already.
    pub(super) fn meet_namespace(&mut self, name: &Arc<str>) {
        if !self.namespaces.contains_key(name) {
            let state = NamespaceState {
                labels: named(name, &Labels::default()),
                is_gone: false,
                is_told: false,
            };
            self.namespaces.insert(Arc::clone(name), state);
        }
    }

    /// The last pod of a namespace is gone. Where nothing tells of namespaces, nothing will tell
    /// that this one is gone; its name counts for connections that its pods had.
    pub(super) fn leave_namespace(&mut self, name: &str) {
        let known = self.namespaces.get_key_value(name);
        if let Some((name, _)) = known.filter(|(_, state)| !state.is_told)
            && !self.gone.contains(name)
        {
            self.gone.push_back(Arc::clone(name));
            self.forget_namespaces();
        }
    }

    /// Forgets namespaces that were deleted or left by all pods long since. Pods and policies that
    /// were in them are told of by other watches, which may lag by seconds, not by so many deletions.
    fn forget_namespaces(&mut self) {
        while self.gone.len() > GONE
            && let Some(name) = self.gone.pop_front()
        {
            let is_over = self.namespaces.get(&name).is_some_and(|state| {
                state.is_gone || !state.is_told && !self.pods.contains_key(&name)
            });
            if is_over && !self.gone.contains(&name) {
                self.namespaces.remove(&name);
            }
        }
    }

    /// Labels of a namespace, [`NAME_LABEL`] included; `None` if nothing is known of it.
    pub fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name).map(|state| &state.labels)
    }

    /// Whether a namespace was deleted. What is still known to be in it is on its way out: its
    /// policies do not count any more.
    pub(crate) fn is_namespace_gone(&self, name: &str) -> bool {
        self.namespaces.get(name).is_some_and(|state| state.is_gone)
    }

    /// Namespaces of which anything is kept.
    #[cfg(test)]
    pub(crate) fn namespaces_len(&self) -> usize {
        self.namespaces.len()
    }
}

/// Labels with the one that the API server sets.
fn named(name: &str, labels: &Labels) -> Labels {
    if labels.get(NAME_LABEL).is_some_and(|label| label == name) {
        return Arc::clone(labels);
    }
    let mut labels = BTreeMap::clone(labels);
    labels.insert(NAME_LABEL.to_owned(), name.to_owned());
    labels.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Change, Missing, Pod},
        time::Timestamp,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn deleted_namespaces_are_forgotten_after_many_more() {
        let mut cluster = Cluster::new();
        let delete = |cluster: &mut Cluster, name: &str| {
            let labels = Labels::default();
            let name: Arc<str> = name.into();
            let namespace = Namespace {
                name: Arc::clone(&name),
                labels,
            };
            cluster.apply(Change::Namespace(namespace), at(1));
            cluster.apply(Change::NamespaceGone(name), at(1));
        };
        delete(&mut cluster, "first");
        delete(&mut cluster, "again");
        for number in 0..GONE - 1 {
            delete(&mut cluster, &format!("ci-{number}"));
        }
        assert!(!cluster.is_namespace_gone("first"));
        assert!(cluster.is_namespace_gone("again"));
        // One that is made anew is there, and stays.
        let back = Namespace {
            name: "again".into(),
            labels: Labels::default(),
        };
        cluster.apply(Change::Namespace(back), at(2));
        for number in 0..3_000 {
            delete(&mut cluster, &format!("more-{number}"));
        }
        assert_eq!(cluster.namespaces_len(), GONE + 1);
        assert!(cluster.namespace_labels("again").is_some());
    }

    #[test]
    fn namespaces_that_nothing_tells_of_are_forgotten_after_their_last_pods() {
        let mut cluster = Cluster::new();
        cluster.set_missing(Missing {
            namespaces: true,
            nodes: false,
        });
        let gone = |cluster: &mut Cluster, namespace: &str, pod: &str| {
            cluster.apply(Change::PodGone(namespace.into(), pod.into()), at(1));
        };
        for round in 0..2 * GONE {
            let namespace = format!("ci-{round}");
            cluster.apply(Pod::new(&namespace, "build").into(), at(1));
            gone(&mut cluster, &namespace, "build");
            // Its pods come and go, and one stays.
            cluster.apply(Pod::new("left", "web").into(), at(1));
            gone(&mut cluster, "left", "web");
            cluster.apply(Pod::new("kept", "web").into(), at(1));
            cluster.apply(Pod::new("kept", "db").into(), at(1));
            gone(&mut cluster, "kept", "web");
        }
        assert!(cluster.namespaces_len() <= GONE + 1);
        assert!(cluster.gone.len() <= GONE);
        // Connections of what has just gone are still judged by its name.
        let last = format!("ci-{}", 2 * GONE - 1);
        for name in ["kept", &last] {
            let labels = cluster.namespace_labels(name).expect("it is remembered");
            assert_eq!(labels.get(NAME_LABEL).map(String::as_str), Some(name));
            assert!(!cluster.knows_namespace(name));
        }
        assert_eq!(cluster.namespace_labels("ci-0"), None);
    }

    #[test]
    fn a_deleted_namespace_may_have_been_made_anew_where_namespaces_are_not_told_of() {
        let mut cluster = Cluster::new();
        let namespace = Namespace {
            name: "shop".into(),
            labels: Labels::default(),
        };
        cluster.apply(Change::Namespace(namespace), at(1));
        cluster.apply(Change::NamespaceGone("shop".into()), at(1));
        assert!(cluster.knows_namespace("shop"));
        cluster.set_missing(Missing {
            namespaces: true,
            nodes: false,
        });
        assert!(!cluster.knows_namespace("shop"));
    }
}
