//! Labels of pods, and series of pods that are gone.

use super::*;
use crate::cluster::{Change, Pod};

fn pod(name: &str, ip: &str) -> Change {
    Pod {
        ips: vec![ip.parse().unwrap()],
        workload: Some("Deployment/cart".into()),
        ..Pod::new("shop", name)
    }
    .into()
}

/// A connection of the pod 10.244.1.7 that comes and goes.
fn connection(engine: &mut Engine) {
    let key = key4(2, Protocol::TCP, 40_000, 443);
    let value = reading(50, [3, 3], [A | FIN, B | FIN]);
    step(engine, Input::Flows(vec![(key, value)]));
    step(engine, Input::Removed(vec![(key, value)]));
}

fn ticks(engine: &mut Engine, seconds: impl Iterator<Item = i64>) {
    for second in seconds {
        engine.step(Input::Tick, Timestamp::from_seconds(second));
    }
}

fn ended(engine: &Engine) -> u64 {
    engine.snapshot().rows.sum(Metric::SeriesEnded)
}

#[test]
fn series_of_a_pod_that_is_gone_end_and_those_of_others_stay() {
    let mut engine = engine();
    engine.declare(vec![pod("cart-0", "10.244.1.7")], Vec::new());
    connection(&mut engine);
    let label = "workload,shop,Deployment/cart,cart-0,443,TCP,outbound";
    assert!(
        connections(&engine)[0].starts_with(label),
        "{:?}",
        connections(&engine)
    );
    ticks(&mut engine, (200..20_000).step_by(100));
    assert_eq!(connections(&engine).len(), 1, "the pod is there");
    let gone = Change::PodGone("shop".into(), "cart-0".into());
    engine.step(Input::Cluster(vec![gone]), Timestamp::from_seconds(20_000));
    ticks(&mut engine, (20_001..23_590).step_by(100));
    assert_eq!((connections(&engine).len(), ended(&engine)), (1, 0));
    ticks(&mut engine, (23_600..23_700).step_by(10));
    assert_eq!((connections(&engine).len(), ended(&engine)), (0, 1));
    assert_eq!(engine.status().series, 0);
}

#[test]
fn pods_are_told_apart_or_not() {
    let mut engine = engine_with(Config {
        by_workload: true,
        ..Config::default()
    });
    let two = vec![pod("cart-0", "10.244.1.7"), pod("cart-1", "10.244.1.8")];
    engine.declare(two, Vec::new());
    connection(&mut engine);
    let label = "workload,shop,Deployment/cart,,443,TCP,outbound";
    assert!(
        connections(&engine)[0].starts_with(label),
        "{:?}",
        connections(&engine)
    );
    let gone = |name: &str| Change::PodGone("shop".into(), name.into());
    // The workload has another pod.
    let now = Timestamp::from_seconds(200);
    engine.step(Input::Cluster(vec![gone("cart-0")]), now);
    ticks(&mut engine, (200..10_000).step_by(100));
    assert_eq!(connections(&engine).len(), 1);
    let now = Timestamp::from_seconds(10_000);
    engine.step(Input::Cluster(vec![gone("cart-1")]), now);
    ticks(&mut engine, (10_000..14_000).step_by(100));
    assert_eq!((connections(&engine).len(), ended(&engine)), (0, 1));
}
