//! What is told of the watches on a cluster.

use super::*;
use crate::metric::Value;

/// Pods are in sync, services refused.
pub(super) fn watched(engine: &mut Engine) -> KubernetesStatus {
    let mut pods = ResourceStatus::new("pods");
    let mut services = ResourceStatus::new("services");
    let mut status = KubernetesStatus {
        server: "https://192.0.2.1".into(),
        resources: vec![pods.clone(), services.clone()],
    };
    assert!(!status.is_settled());
    pods.state = WatchState::Synced;
    (pods.objects, pods.skipped, pods.events, pods.lists) = (7, 1, 9, 2);
    pods.last_event = Some(Timestamp::from_seconds(90));
    services.state = WatchState::Refused;
    services.errors.insert(WatchError::Refused, 3);
    services.message = Some("no".into());
    status.resources = vec![pods, services];
    assert!(status.is_settled());
    step(engine, Input::Kubernetes(status.clone()));
    status
}

fn skipped(engine: &Engine) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let rows = engine.snapshot().rows;
    let told = rows.samples(Metric::KubernetesObjectsSkipped, |labels, value| {
        found.push((labels[0].1.to_owned(), value));
        Ok::<_, std::convert::Infallible>(())
    });
    told.unwrap();
    found
}

#[test]
fn what_files_leave_out_is_counted_with_what_a_cluster_does() {
    let mut engine = engine();
    assert_eq!(skipped(&engine), []);
    let count = |name: &str, count| (name.to_owned(), Value::Gauge(count));
    let mut declared = ManifestsStatus {
        files: 40,
        ..ManifestsStatus::default()
    };
    step(&mut engine, Input::Manifests(declared.clone()));
    assert_eq!(skipped(&engine), [count("documents", 0)]);
    for file in 0..40 {
        for line in 0..2 {
            let (file, last) = (format!("{file}.yaml"), format!("line {line}"));
            declared.skip("pods", &file, last);
        }
    }
    let mut proposed = ManifestsStatus::default();
    proposed.skip("networkpolicies", "p.yaml", "line 3".into());
    proposed.skip(ManifestsStatus::DOCUMENTS, "p.yaml", "line 9".into());
    let status = declared.and(proposed);
    step(&mut engine, Input::Manifests(status.clone()));
    // Of a live cluster, one pod is left out.
    watched(&mut engine);
    assert_eq!(
        skipped(&engine),
        [
            count("documents", 1),
            count("networkpolicies", 1),
            count("pods", 81),
            count("services", 0),
        ]
    );
    assert_eq!(engine.status().manifests.as_ref(), Some(&status));
    // So many files by name, and all that is left out is counted.
    let named: u64 = status.skipped_in.iter().map(|file| file.skipped).sum();
    assert_eq!((status.skipped_in.len(), named), (32, 64));
    assert_eq!(status.skipped_elsewhere, 8 * 2 + 2);
    assert_eq!(status.skipped_in[31].file, "31.yaml");
    assert_eq!(status.skipped_in[31].last, "line 1");
}

#[test]
fn addresses_that_are_not_used_as_they_stand_are_counted() {
    let mut engine = engine();
    let count = |engine: &Engine| {
        let mut found = Vec::new();
        let rows = engine.snapshot().rows;
        let told = rows.samples(Metric::KubernetesAddressesDoubtful, |labels, value| {
            let labels: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
            found.push((labels.join(" "), value));
            Ok::<_, std::convert::Infallible>(())
        });
        told.unwrap();
        found
    };
    assert_eq!(count(&engine), []);
    let rows = |nodes, pods, shared| {
        [
            ("nodes invalid".to_owned(), Value::Gauge(nodes)),
            ("pods invalid".to_owned(), Value::Gauge(pods)),
            ("pods shared".to_owned(), Value::Gauge(shared)),
        ]
    };
    let mut status = watched(&mut engine);
    assert_eq!(count(&engine), rows(0, 0, 0));
    status.resources[0].invalid_addresses = 3;
    step(&mut engine, Input::Kubernetes(status));
    let files = ManifestsStatus {
        invalid_addresses: [("pods".into(), 2), ("nodes".into(), 1)].into(),
        ..ManifestsStatus::default()
    };
    step(&mut engine, Input::Manifests(files));
    assert_eq!(engine.status().shared_addresses, None);
    let pods = ["a", "b"].map(|name| {
        let mut pod = crate::cluster::Pod::new("shop", name);
        pod.ips = vec![[10, 0, 0, 1].into()];
        pod.into()
    });
    step(&mut engine, Input::Cluster(pods.into()));
    assert_eq!(count(&engine), rows(1, 5, 1));
    let shared = engine.status().shared_addresses.expect("they are told of");
    assert_eq!((shared.count, &*shared.first[0].pod), (1, "shop/b"));
}

#[test]
fn watches_are_in_status_and_metrics() {
    let mut engine = engine();
    assert_eq!(engine.status().kubernetes, None);
    let status = watched(&mut engine);
    let snapshot = engine.snapshot();
    assert_eq!(snapshot.status.kubernetes, Some(status));
    let mut found = Vec::new();
    for metric in [
        Metric::KubernetesSynced,
        Metric::KubernetesObjects,
        Metric::KubernetesObjectsSkipped,
        Metric::KubernetesEvents,
        Metric::KubernetesLastEvent,
        Metric::KubernetesLists,
        Metric::KubernetesErrors,
    ] {
        let told = snapshot.rows.samples(metric, |labels, value| {
            let labels: Vec<&str> = labels.iter().map(|(_, value)| *value).collect();
            found.push((labels.join(" "), value));
            Ok::<_, std::convert::Infallible>(())
        });
        told.unwrap();
    }
    let (gauge, counter) = (Value::Gauge, Value::Counter);
    let pods = |value| ("pods".to_owned(), value);
    let services = |value| ("services".to_owned(), value);
    assert_eq!(
        found,
        [
            pods(gauge(1)),
            services(gauge(0)),
            pods(gauge(7)),
            services(gauge(0)),
            pods(gauge(1)),
            services(gauge(0)),
            pods(counter(9)),
            services(counter(0)),
            pods(gauge(90)),
            pods(counter(2)),
            services(counter(0)),
            ("services refused".to_owned(), counter(3)),
        ]
    );
}
