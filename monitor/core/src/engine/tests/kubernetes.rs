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
