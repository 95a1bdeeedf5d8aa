//! What is known of one kind's objects, and what changes by what arrives.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
};

use monitor_core::{
    cluster::Change,
    netpol::{PolicyChange, TierKind},
};
use serde_json::Value;

use super::{resource::Resource, seen::Seen};
use crate::kube::{
    decode::{Decoded, Fault, Object, decode, title},
    manifests::{MODE, PROPOSE},
};

/// Namespace, empty for a kind without, and name.
pub(super) type Key = (Arc<str>, Arc<str>);

/// What to tell the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Of objects.
    pub(super) cluster: Vec<Change>,
    /// Of policies in force.
    pub(super) policies: Vec<PolicyChange>,
    /// Of policies that are proposed.
    pub(super) proposed: Vec<PolicyChange>,
}

/// Something of an object cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    /// What the object is known by.
    pub(super) key: Key,
    /// Kind and name.
    pub(super) object: String,
    /// What is wrong with it.
    pub(super) fault: Fault,
    /// Whether it is an address, and the object is used without it; else the object is left out.
    pub(super) is_address: bool,
}

/// How many objects there are, and what of them cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Objects that are used.
    pub(super) objects: u64,
    /// Objects that are left out.
    pub(super) skipped: u64,
    /// Addresses that are none, of objects that are used.
    pub(super) invalid_addresses: u64,
}

/// The objects of a kind: of each its name, and a digest of what it says.
#[derive(Debug)]
pub(super) struct Known {
    resource: &'static Resource,
    api_version: String,
    objects: HashMap<Key, Kept>,
    counts: Counts,
    /// A list that has not come to its end: its objects, and what they change.
    list: Option<(HashMap<Key, Kept>, Changes)>,
    digests: RandomState,
}

/// What is kept of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// It is known, with this digest.
    Used {
        digest: u64,
        is_proposed: bool,
        invalid_addresses: u64,
    },
    /// It is left out.
    Skipped,
}

/// Hashes what is written to it.
struct Digest<H>(H);

// === impl Changes ===

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.policies.is_empty() && self.proposed.is_empty()
    }

    fn push(&mut self, object: Object, is_proposed: bool) {
        let policies = if is_proposed {
            &mut self.proposed
        } else {
            &mut self.policies
        };
        match object {
            Object::Namespace(namespace) => self.cluster.push(Change::Namespace(namespace)),
            Object::Node(node) => self.cluster.push(Change::Node(node)),
            Object::Service(service) => self.cluster.push(Change::Service(service)),
            Object::EndpointSlice(slice) => self.cluster.push(Change::EndpointSlice(slice)),
            Object::Pod(pod) => self.cluster.push(Change::Pod(pod)),
            Object::NetworkPolicy(policy) => policies.push(PolicyChange::Namespaced(policy)),
            Object::TierPolicy(policy) => policies.push(PolicyChange::Tier(policy)),
            // Not watched: its pods are.
            Object::Workload(_) => {}
        }
    }

    fn push_gone(&mut self, resource: &Resource, key: &Key, is_proposed: bool, is_late: bool) {
        let (namespace, name) = (Arc::clone(&key.0), Arc::clone(&key.1));
        let tier = match resource.kind {
            "Namespace" => return self.cluster.push(Change::NamespaceGone(name)),
            "Node" => return self.cluster.push(Change::NodeGone(name)),
            "Service" => return self.cluster.push(Change::ServiceGone(namespace, name)),
            "EndpointSlice" => {
                return self
                    .cluster
                    .push(Change::EndpointSliceGone(namespace, name));
            }
            "Pod" if is_late => return self.cluster.push(Change::PodLost(namespace, name)),
            "Pod" => return self.cluster.push(Change::PodGone(namespace, name)),
            "AdminNetworkPolicy" => Some(TierKind::Admin),
            "BaselineAdminNetworkPolicy" => Some(TierKind::BaselineAdmin),
            "ClusterNetworkPolicy" => Some(TierKind::Cluster),
            _ => None,
        };
        let gone = match tier {
            Some(kind) => PolicyChange::TierGone(kind, name),
            None => PolicyChange::NamespacedGone(namespace, name),
        };
        if is_proposed {
            self.proposed.push(gone);
        } else {
            self.policies.push(gone);
        }
    }
}

// === impl Counts ===

impl Counts {
    fn add(&mut self, kept: Kept) {
        match kept {
            Kept::Used {
                invalid_addresses, ..
            } => {
                self.objects += 1;
                self.invalid_addresses += invalid_addresses;
            }
            Kept::Skipped => self.skipped += 1,
        }
    }

    fn remove(&mut self, kept: Kept) {
        match kept {
            Kept::Used {
                invalid_addresses, ..
            } => {
                self.objects -= 1;
                self.invalid_addresses -= invalid_addresses;
            }
            Kept::Skipped => self.skipped -= 1,
        }
    }
}

// === impl Known ===

impl Known {
    pub(super) fn new(resource: &'static Resource, version: &str) -> Self {
        Self {
            resource,
            api_version: resource.api_version(version),
            objects: HashMap::new(),
            counts: Counts::default(),
            list: None,
            digests: RandomState::new(),
        }
    }

    /// The server speaks another version of the kind.
    pub(super) fn set_version(&mut self, version: &str) {
        self.api_version = self.resource.api_version(version);
    }

    /// Objects that are known, and what of them cannot be used.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether an object is there that cannot be used, or an address of it.
    pub(super) fn is_unusable(&self, key: &Key) -> bool {
        match self.objects.get(key) {
            Some(Kept::Skipped) => true,
            Some(Kept::Used {
                invalid_addresses, ..
            }) => *invalid_addresses > 0,
            None => false,
        }
    }

    /// A list begins; one that had begun and not ended is forgotten.
    pub(super) fn begin(&mut self) {
        self.list = Some((HashMap::new(), Changes::default()));
    }

    /// An object of the list.
    pub(super) fn collect(&mut self, seen: Seen) -> Option<Unusable> {
        let (mut objects, mut changes) = self.list.take().unwrap_or_default();
        let mut unusable = None;
        if let Some(key) = key(&seen) {
            let before = self.objects.get(&key).copied();
            let (kept, fault) = self.take(&key, seen, before, &mut changes);
            unusable = fault;
            objects.insert(key, kept);
        }
        self.list = Some((objects, changes));
        unusable
    }

    /// The list ends: what it did not have is gone, since some time that was not seen.
    pub(super) fn commit(&mut self) -> Changes {
        let (objects, changed) = self.list.take().unwrap_or_default();
        let mut changes = Changes::default();
        for (key, kept) in &self.objects {
            if let Kept::Used { is_proposed, .. } = kept
                && !objects.contains_key(key)
            {
                changes.push_gone(self.resource, key, *is_proposed, true);
            }
        }
        // What is gone makes room first: an address may have passed on.
        changes.cluster.extend(changed.cluster);
        changes.policies.extend(changed.policies);
        changes.proposed.extend(changed.proposed);
        self.counts = Counts::default();
        for kept in objects.values() {
            self.counts.add(*kept);
        }
        self.objects = objects;
        // A list may have been far longer than it is now.
        self.objects.shrink_to(2 * self.objects.len());
        changes
    }

    /// The server has no such kind: nothing is there.
    pub(super) fn clear(&mut self) -> Changes {
        self.begin();
        self.commit()
    }

    /// An object came or changed.
    pub(super) fn apply(&mut self, seen: Seen) -> (Changes, Option<Unusable>) {
        let mut changes = Changes::default();
        let Some(key) = key(&seen) else {
            return (changes, None);
        };
        let before = self.objects.get(&key).copied();
        let (kept, unusable) = self.take(&key, seen, before, &mut changes);
        if let Some(before) = self.objects.insert(key, kept) {
            self.counts.remove(before);
        }
        self.counts.add(kept);
        (changes, unusable)
    }

    /// An object went. `is_late`: maybe some time ago.
    pub(super) fn delete(&mut self, seen: &Seen, is_late: bool) -> Changes {
        let mut changes = Changes::default();
        let Some(key) = key(seen) else {
            return changes;
        };
        if let Some(kept) = self.objects.remove(&key) {
            self.counts.remove(kept);
            if let Kept::Used { is_proposed, .. } = kept {
                changes.push_gone(self.resource, &key, is_proposed, is_late);
            }
        }
        changes
    }

    /// Reads an object, and tells what it changes.
    fn take(
        &self,
        key: &Key,
        seen: Seen,
        before: Option<Kept>,
        changes: &mut Changes,
    ) -> (Kept, Option<Unusable>) {
        let value = seen.of_kind(self.resource.kind, &self.api_version);
        let is_proposed = value["metadata"]["annotations"][MODE] == PROPOSE;
        let mut leave_out = |value: &Value, fault| {
            if let Some(Kept::Used { is_proposed, .. }) = before {
                changes.push_gone(self.resource, key, is_proposed, false);
            }
            let unusable = Unusable {
                key: key.clone(),
                object: title(value),
                fault,
                is_address: false,
            };
            (Kept::Skipped, Some(unusable))
        };
        let (object, invalid) = match decode(&value) {
            // What else is doubtful is for who writes the object, not for who runs every node.
            Ok(Decoded::Object(object, doubts)) => (object, doubts.addresses),
            Ok(Decoded::Other(kind)) => {
                let message = format!("is a {kind}, where a {} was asked for", self.resource.kind);
                let path = Vec::new();
                return leave_out(&value, Fault { path, message });
            }
            Ok(Decoded::Foreign) => {
                let (path, message) = (Vec::new(), "is no object of Kubernetes".to_owned());
                return leave_out(&value, Fault { path, message });
            }
            Err(fault) => return leave_out(&value, fault),
        };
        let digest = self.digest(&object);
        let kept = Kept::Used {
            digest,
            is_proposed,
            invalid_addresses: invalid.count,
        };
        // Most events are about what is not needed: conditions, heartbeats, annotations.
        if before == Some(kept) {
            return (kept, None);
        }
        if let Some(Kept::Used {
            is_proposed: was, ..
        }) = before
            && was != is_proposed
        {
            changes.push_gone(self.resource, key, was, false);
        }
        changes.push(object, is_proposed);
        let is_told = matches!(
            before,
            Some(Kept::Used { invalid_addresses, .. }) if invalid_addresses == invalid.count
        );
        let fault = invalid.faults.into_iter().next().filter(|_| !is_told);
        let unusable = fault.map(|fault| Unusable {
            key: key.clone(),
            object: title(&value),
            fault,
            is_address: true,
        });
        (kept, unusable)
    }

    /// A number for what an object says. Seeded: nobody can make two objects of one number.
    fn digest(&self, object: &Object) -> u64 {
        let mut digest = Digest(self.digests.build_hasher());
        write!(digest, "{object:?}").expect("a hasher takes all");
        digest.0.finish()
    }
}

/// What an object is known by.
fn key(seen: &Seen) -> Option<Key> {
    Some((seen.namespace().into(), seen.name()?.into()))
}

// === impl Digest ===

impl<H: Hasher> fmt::Write for Digest<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
