//! Pods that use their node's network: they have no address of their own, so that only the control
//! groups of their sockets tell of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{KnownPod, Pod};

/// Pods that are gone and still known: flows that end just after them.
const MOST_GONE: usize = 4_096;

/// By the uid that their kubelets know them by.
#[derive(Debug, Default)]
pub(super) struct HostPods {
    by_uid: HashMap<Arc<str>, Arc<KnownPod>>,
    gone: VecDeque<Arc<str>>,
}

// === impl HostPods ===

impl HostPods {
    pub(super) fn set(&mut self, known: &Arc<KnownPod>) {
        if let Some(uid) = uid(&known.pod) {
            self.by_uid.insert(Arc::clone(uid), Arc::clone(known));
        }
    }

    /// A pod is gone. No other will have its uid.
    pub(super) fn release(&mut self, pod: &Pod) {
        if let Some(uid) = uid(pod) {
            self.gone.push_back(Arc::clone(uid));
        }
        while self.gone.len() > MOST_GONE {
            if let Some(uid) = self.gone.pop_front() {
                self.by_uid.remove(&uid);
            }
        }
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Arc<KnownPod>> {
        self.by_uid.get(uid)
    }
}

fn uid(pod: &Pod) -> Option<&Arc<str>> {
    let uid = pod.static_uid.as_ref().or(pod.uid.as_ref());
    uid.filter(|_| pod.host_network)
}
