//! What changes by what arrives.

use serde_json::json;

use super::super::resource::RESOURCES;
use super::*;

fn known(name: &str) -> Known {
    let resource = RESOURCES.iter().find(|resource| resource.name == name);
    Known::new(resource.expect("a kind"), "v1")
}

/// As in a list: without a kind.
fn seen(value: &Value) -> Seen {
    serde_json::from_value(value.clone()).expect("an object")
}

fn pod(name: &str, ip: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "resourceVersion": "7",
            "managedFields": [{"manager": "kubelet"}], "annotations": {"long": "text"},
        },
        "status": {"podIP": ip, "conditions": [{"type": "Ready"}]},
    })
}

fn policy(name: &str, types: &[&str], mode: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "annotations": {MODE: mode}},
        "spec": {"podSelector": {}, "policyTypes": types},
    })
}

/// Lists these objects and no others.
fn list(known: &mut Known, objects: &[Value]) -> Changes {
    known.begin();
    for object in objects {
        assert_eq!(known.collect(seen(object)), None);
    }
    known.commit()
}

fn counts(objects: u64, skipped: u64, invalid_addresses: u64) -> Counts {
    Counts {
        objects,
        skipped,
        invalid_addresses,
    }
}

fn told(changes: &Changes) -> Vec<String> {
    let cluster = changes.cluster.iter().map(|change| match change {
        Change::Pod(pod) => format!("+{}", pod.name),
        Change::PodGone(_, name) => format!("-{name}"),
        Change::PodLost(_, name) => format!("-{name}?"),
        other => panic!("{other:?}"),
    });
    let named = |sign: &'static str, changes: &[PolicyChange]| {
        let names = changes.iter().map(|change| match change {
            PolicyChange::Namespaced(policy) => format!("{sign}+{}", policy.name),
            PolicyChange::NamespacedGone(_, name) => format!("{sign}-{name}"),
            other => panic!("{other:?}"),
        });
        names.collect::<Vec<_>>()
    };
    cluster
        .chain(named("", &changes.policies))
        .chain(named("proposed ", &changes.proposed))
        .collect()
}

#[test]
fn a_list_is_all_there_is() {
    let mut known = known("pods");
    let (a, b, c) = (
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        pod("c", "10.0.0.3"),
    );
    let changes = list(&mut known, &[a.clone(), b.clone()]);
    assert_eq!(told(&changes), ["+a", "+b"]);
    assert_eq!(known.counts(), counts(2, 0, 0));
    // What is gone makes room first, and nobody saw when it went; what is the same is not told.
    let moved = pod("d", "10.0.0.1");
    let changes = list(&mut known, &[b.clone(), c, moved]);
    assert_eq!(told(&changes), ["-a?", "+c", "+d"]);
    // A list that breaks off changes nothing.
    known.begin();
    known.collect(seen(&a));
    let changes = list(&mut known, &[b]);
    assert_eq!(told(&changes).len(), 2, "{changes:?}");
    assert_eq!(known.counts(), counts(1, 0, 0));
    assert_eq!(told(&known.clear()), ["-b?"]);
    assert_eq!(known.counts(), counts(0, 0, 0));
}

#[test]
fn events_tell_only_what_matters() {
    let mut known = known("pods");
    let object = pod("a", "10.0.0.1");
    assert_eq!(told(&known.apply(seen(&object)).0), ["+a"]);
    let mut beaten = object.clone();
    beaten["metadata"]["resourceVersion"] = "8".into();
    beaten["status"]["conditions"] = json!([{"type": "Ready", "lastHeartbeatTime": "now"}]);
    assert!(known.apply(seen(&beaten)).0.is_empty());
    let moved = pod("a", "10.0.0.9");
    assert_eq!(told(&known.apply(seen(&moved)).0), ["+a"]);
    assert_eq!(told(&known.delete(&seen(&moved), false)), ["-a"]);
    assert!(known.delete(&seen(&moved), false).is_empty());
    known.apply(seen(&object));
    assert_eq!(told(&known.delete(&seen(&object), true)), ["-a?"]);
}

#[test]
fn an_object_that_is_not_valid_is_as_if_it_were_not_there() {
    let mut known = known("networkpolicies");
    let valid = policy("p", &["Ingress"], "");
    assert_eq!(told(&known.apply(seen(&valid)).0), ["+p"]);
    let invalid = policy("p", &["Sideways"], "");
    let (changes, skipped) = known.apply(seen(&invalid));
    assert_eq!(told(&changes), ["-p"]);
    let skipped = skipped.expect("it is told of");
    assert_eq!(skipped.object, "NetworkPolicy shop/p");
    assert!(
        skipped.fault.to_string().contains("policyTypes"),
        "{skipped:?}"
    );
    assert_eq!(known.counts(), counts(0, 1, 0));
    // Again, in a list, and once it is gone.
    known.begin();
    assert!(known.collect(seen(&invalid)).is_some());
    assert!(known.commit().is_empty());
    assert_eq!(known.counts(), counts(0, 1, 0));
    assert!(known.delete(&seen(&invalid), false).is_empty());
    assert_eq!(known.counts(), counts(0, 0, 0));
    let (_, skipped) = known.apply(seen(&invalid));
    assert!(skipped.is_some());
    assert_eq!(told(&known.apply(seen(&valid)).0), ["+p"]);
    assert_eq!(known.counts(), counts(1, 0, 0));
    // Absurd sizes are refused, and 100,000 labels are no selector.
    let labels: serde_json::Map<_, _> = (0..100_000)
        .map(|number| (format!("label-{number}"), "x".into()))
        .collect();
    let mut large = valid.clone();
    large["spec"]["podSelector"] = json!({"matchLabels": labels});
    let (changes, skipped) = known.apply(seen(&large));
    assert_eq!(
        (told(&changes), known.counts()),
        (vec!["-p".to_owned()], counts(0, 1, 0))
    );
    assert!(
        skipped
            .expect("it is told of")
            .fault
            .to_string()
            .contains("4096")
    );
}

#[test]
fn an_address_that_is_none_is_counted_and_told_of_once() {
    let mut known = known("pods");
    let (changes, unusable) = known.apply(seen(&pod("a", "300.1.1.1")));
    assert_eq!(told(&changes), ["+a"]);
    let unusable = unusable.expect("it is told of");
    assert!(unusable.is_address);
    assert_eq!(unusable.object, "Pod shop/a");
    assert_eq!(
        unusable.fault.to_string(),
        "status.podIP: `300.1.1.1` is no IP address: it is not used"
    );
    assert_eq!(known.counts(), counts(1, 0, 1));
    // Not again while it stays so, whatever else of the pod changes, nor in a list.
    let mut labelled = pod("a", "300.1.1.1");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let (changes, unusable) = known.apply(seen(&labelled));
    assert_eq!((told(&changes), unusable), (vec!["+a".to_owned()], None));
    list(&mut known, &[labelled]);
    assert_eq!(known.counts(), counts(1, 0, 1));
    // A pod that has no address yet has no invalid one.
    known.apply(seen(&pod("a", "")));
    assert_eq!(known.counts(), counts(1, 0, 0));
    let mut both = pod("a", "10.0.0.1");
    both["status"]["podIPs"] = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::x"}]);
    both["status"]["hostIPs"] = json!([{"ip": "node"}]);
    let (changes, unusable) = known.apply(seen(&both));
    let [Change::Pod(used)] = &changes.cluster[..] else {
        panic!("{changes:?}");
    };
    assert_eq!(used.ips, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    let fault = unusable.expect("it is told of").fault.to_string();
    assert!(
        fault.starts_with("status.podIPs[1].ip: `fd00::x`"),
        "{fault}"
    );
    assert_eq!(known.counts(), counts(1, 0, 2));
    known.delete(&seen(&both), false);
    assert_eq!(known.counts(), counts(0, 0, 0));
    // Of a node some addresses are names.
    let mut known = self::known("nodes");
    let address = |kind: &str, address: &str| json!({"type": kind, "address": address});
    let node = json!({
        "metadata": {"name": "one"},
        "status": {"addresses": [
            address("Hostname", "one"), address("InternalDNS", "one.example"),
            address("InternalIP", "10.224.0.4"), address("ExternalIP", "10.224.0.400"),
        ]},
    });
    let fault = known.apply(seen(&node)).1.expect("it is told of").fault;
    assert!(
        fault
            .to_string()
            .starts_with("status.addresses[3].address: `10.224.0.400`"),
        "{fault}"
    );
    assert_eq!(known.counts(), counts(1, 0, 1));
}

#[test]
fn a_policy_is_in_force_or_proposed() {
    let mut known = known("networkpolicies");
    let proposed = policy("p", &["Ingress"], PROPOSE);
    assert_eq!(told(&known.apply(seen(&proposed)).0), ["proposed +p"]);
    let in_force = policy("p", &["Ingress"], "");
    assert_eq!(told(&known.apply(seen(&in_force)).0), ["+p", "proposed -p"]);
    let changes = list(&mut known, &[proposed]);
    assert_eq!(told(&changes), ["-p", "proposed +p"]);
    assert_eq!(told(&list(&mut known, &[])), ["proposed -p"]);
}

#[test]
fn every_kind_comes_and_goes_as_what_it_is() {
    for resource in RESOURCES {
        let mut known = Known::new(resource, resource.versions[0]);
        let spec = match resource.kind {
            "AdminNetworkPolicy" => json!({"priority": 1, "subject": {"namespaces": {}}}),
            "BaselineAdminNetworkPolicy" => json!({"subject": {"namespaces": {}}}),
            "ClusterNetworkPolicy" => {
                json!({"priority": 1, "tier": "Admin", "subject": {"namespaces": {}}})
            }
            _ => json!({"podSelector": {}}),
        };
        let is_baseline = resource.kind == "BaselineAdminNetworkPolicy";
        let name = if is_baseline { "default" } else { "one" };
        let object = json!({"metadata": {"name": name}, "spec": spec});
        let (changes, skipped) = known.apply(seen(&object));
        assert_eq!(skipped, None, "{}", resource.name);
        let count = changes.cluster.len() + changes.policies.len();
        assert_eq!(count, 1, "{}", resource.name);
        let gone = known.delete(&seen(&object), false);
        let same = match (&changes.cluster[..], &gone.cluster[..]) {
            ([Change::Namespace(_)], [Change::NamespaceGone(_)])
            | ([Change::Node(_)], [Change::NodeGone(_)])
            | ([Change::Service(_)], [Change::ServiceGone(..)])
            | ([Change::EndpointSlice(_)], [Change::EndpointSliceGone(..)])
            | ([Change::Pod(_)], [Change::PodGone(..)]) => true,
            ([], []) => match (&changes.policies[..], &gone.policies[..]) {
                ([PolicyChange::Tier(policy)], [PolicyChange::TierGone(kind, _)]) => {
                    policy.kind == *kind
                }
                ([PolicyChange::Namespaced(_)], [PolicyChange::NamespacedGone(..)]) => true,
                _ => false,
            },
            _ => false,
        };
        assert!(same, "{}: {changes:?} {gone:?}", resource.name);
    }
}
