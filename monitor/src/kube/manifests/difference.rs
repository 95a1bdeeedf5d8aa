//! What changed between two readings of the same manifests.

use std::{collections::BTreeMap, sync::Arc};

use monitor_core::{
    cluster::{Change, Namespace},
    event::Labels,
    netpol::{PolicyChange, TierKind},
};

use super::Manifests;

/// What a change of the cluster is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Namespace(Arc<str>),
    Node(Arc<str>),
    Service(Arc<str>, Arc<str>),
    EndpointSlice(Arc<str>, Arc<str>),
    Pod(Arc<str>, Arc<str>),
}

/// What a change of the policies is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PolicyKey {
    Namespaced(Arc<str>, Arc<str>),
    Tier(TierKind, Arc<str>),
}

/// What to apply to get from one reading to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Of the cluster.
    pub cluster: Vec<Change>,
    /// Of the policies.
    pub policies: Vec<PolicyChange>,
}

// === impl Difference ===

impl Difference {
    /// What became different from one reading to the next: what is gone first.
    pub fn between(before: &Manifests, after: &Manifests) -> Self {
        let (old, new) = (objects(&before.cluster), objects(&after.cluster));
        let gone = old.keys().filter(|key| !new.contains_key(key)).map(gone);
        let changed = new
            .iter()
            .filter(|(key, change)| old.get(key) != Some(change))
            .map(|(_, change)| (*change).clone());
        let cluster = gone.chain(changed).collect();
        let (old, new) = (policies(&before.policies), policies(&after.policies));
        let gone = old
            .keys()
            .filter(|key| !new.contains_key(key))
            .map(policy_gone);
        let changed = new
            .iter()
            .filter(|(key, change)| old.get(key) != Some(change))
            .map(|(_, change)| (*change).clone());
        let policies = gone.chain(changed).collect();
        Self { cluster, policies }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.policies.is_empty()
    }
}

// === impl Manifests ===

impl Manifests {
    /// These, and beside them what earlier ones declared and these do not: where a part of these
    /// cannot be read, it is not known to be gone.
    #[must_use]
    pub fn beside(mut self, before: &Self) -> Self {
        let new = objects(&self.cluster);
        let kept = objects(&before.cluster)
            .into_iter()
            .filter(|(key, _)| !new.contains_key(key))
            .map(|(_, change)| change.clone());
        let kept: Vec<_> = kept.collect();
        self.cluster.extend(kept);
        self.policies = policies_beside(self.policies, &before.policies);
        self
    }
}

/// Policies, and beside them those of earlier ones that are not among them.
pub fn policies_beside(mut after: Vec<PolicyChange>, before: &[PolicyChange]) -> Vec<PolicyChange> {
    let new = policies(&after);
    let kept = policies(before)
        .into_iter()
        .filter(|(key, _)| !new.contains_key(key))
        .map(|(_, change)| change.clone());
    let kept: Vec<_> = kept.collect();
    after.extend(kept);
    after
}

/// Objects by what they are; of several with one name the last, as if they were applied in order.
fn objects(changes: &[Change]) -> BTreeMap<Key, &Change> {
    let keyed = changes.iter().filter_map(|change| {
        let key = match change {
            Change::Namespace(namespace) => Key::Namespace(Arc::clone(&namespace.name)),
            Change::Node(node) => Key::Node(Arc::clone(&node.name)),
            Change::Service(service) => {
                Key::Service(Arc::clone(&service.namespace), Arc::clone(&service.name))
            }
            Change::EndpointSlice(slice) => {
                Key::EndpointSlice(Arc::clone(&slice.namespace), Arc::clone(&slice.name))
            }
            Change::Pod(pod) => Key::Pod(Arc::clone(&pod.namespace), Arc::clone(&pod.name)),
            // Manifests say what is there.
            Change::NamespaceGone(_)
            | Change::NodeGone(_)
            | Change::ServiceGone(..)
            | Change::EndpointSliceGone(..)
            | Change::PodGone(..)
            | Change::PodLost(..) => return None,
        };
        Some((key, change))
    });
    keyed.collect()
}

fn gone(key: &Key) -> Change {
    match key {
        // Not declared is not deleted: what is declared in it stays in force, as where no file ever
        // declared its namespace.
        Key::Namespace(name) => Change::Namespace(Namespace {
            name: Arc::clone(name),
            labels: Labels::default(),
        }),
        Key::Node(name) => Change::NodeGone(Arc::clone(name)),
        Key::Service(namespace, name) => {
            Change::ServiceGone(Arc::clone(namespace), Arc::clone(name))
        }
        Key::EndpointSlice(namespace, name) => {
            Change::EndpointSliceGone(Arc::clone(namespace), Arc::clone(name))
        }
        Key::Pod(namespace, name) => Change::PodGone(Arc::clone(namespace), Arc::clone(name)),
    }
}

fn policies(changes: &[PolicyChange]) -> BTreeMap<PolicyKey, &PolicyChange> {
    let keyed = changes.iter().filter_map(|change| {
        let key = match change {
            PolicyChange::Namespaced(policy) => {
                PolicyKey::Namespaced(Arc::clone(&policy.namespace), Arc::clone(&policy.name))
            }
            PolicyChange::Tier(policy) => PolicyKey::Tier(policy.kind, Arc::clone(&policy.name)),
            PolicyChange::NamespacedGone(..) | PolicyChange::TierGone(..) => return None,
        };
        Some((key, change))
    });
    keyed.collect()
}

fn policy_gone(key: &PolicyKey) -> PolicyChange {
    match key {
        PolicyKey::Namespaced(namespace, name) => {
            PolicyChange::NamespacedGone(Arc::clone(namespace), Arc::clone(name))
        }
        PolicyKey::Tier(kind, name) => PolicyChange::TierGone(*kind, Arc::clone(name)),
    }
}

#[cfg(test)]
mod tests {
    use monitor_core::{
        cluster::Cluster,
        event::Protocol,
        netpol::{Flow, Options, Policies},
        time::Timestamp,
    };

    use super::*;

    fn names(difference: &Difference) -> Vec<String> {
        let cluster = difference.cluster.iter().map(|change| match change {
            Change::Pod(pod) => format!("+pod {}", pod.name),
            Change::PodGone(_, name) => format!("-pod {name}"),
            Change::Namespace(namespace) => format!("+namespace {}", namespace.name),
            Change::NamespaceGone(name) => format!("-namespace {name}"),
            other => panic!("{other:?}"),
        });
        let policies = difference.policies.iter().map(|change| match change {
            PolicyChange::Namespaced(policy) => format!("+policy {}", policy.name),
            PolicyChange::NamespacedGone(_, name) => format!("-policy {name}"),
            other => panic!("{other:?}"),
        });
        cluster.chain(policies).collect()
    }

    #[test]
    fn only_what_changed_is_applied() {
        let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: x}}\n---\n";
        let pod = |name: &str, labels: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: x, labels: {{{labels}}}}}}}\n---\n"
            )
        };
        let policy = |name: &str, types: &str| {
            format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: x}}, spec: {{policyTypes: [{types}]}}}}\n---\n"
            )
        };
        let read = |text: String| Manifests::parse("m", &text);
        let before = read(
            namespace.to_owned()
                + &pod("same", "a: b")
                + &pod("other", "a: b")
                + &pod("gone", "")
                + &policy("same", "Ingress")
                + &policy("other", "Ingress")
                + &policy("gone", "Ingress"),
        );
        let after = read(
            pod("same", "a: b")
                + &pod("other", "a: c")
                + &pod("new", "")
                + &policy("same", "Ingress")
                + &policy("other", "Egress")
                + &policy("new", "Ingress"),
        );
        assert!(Difference::between(&before, &before).is_empty());
        assert_eq!(
            names(&Difference::between(&before, &after)),
            [
                "+namespace x",
                "-pod gone",
                "+pod new",
                "+pod other",
                "-policy gone",
                "+policy new",
                "+policy other",
            ]
        );
    }

    #[test]
    fn policies_outlive_the_object_of_their_namespace() {
        let namespace =
            "{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {a: b}}}\n---\n";
        let rest = "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: x}, status: {podIP: 10.0.0.1}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: x}, spec: {podSelector: {}, policyTypes: [Ingress]}}
";
        let before = Manifests::parse("m", &format!("{namespace}{rest}"));
        let after = Manifests::parse("m", rest);
        let mut cluster = Cluster::new();
        let mut policies = Policies::new(Options::default());
        let apply = |cluster: &mut Cluster, policies: &mut Policies, difference: Difference| {
            for change in difference.cluster {
                cluster.apply(change, Timestamp::from_seconds(1));
            }
            for change in difference.policies {
                policies.apply(change);
            }
        };
        let allowed = |cluster: &Cluster, policies: &mut Policies| {
            let [outside, pod] =
                ["192.0.2.1", "10.0.0.1"].map(|ip| cluster.end_of_ip(ip.parse().unwrap()));
            let flow = Flow::new(outside, pod, Protocol::TCP, 80);
            policies.judge(cluster, &flow).allowed
        };
        let none = Manifests::parse("m", "");
        apply(
            &mut cluster,
            &mut policies,
            Difference::between(&none, &before),
        );
        assert_eq!(allowed(&cluster, &mut policies), Some(false));
        assert!(cluster.namespace_labels("x").unwrap().contains_key("a"));
        apply(
            &mut cluster,
            &mut policies,
            Difference::between(&before, &after),
        );
        assert_eq!(allowed(&cluster, &mut policies), Some(false));
        assert!(!cluster.namespace_labels("x").unwrap().contains_key("a"));
    }
}
