//! Verdicts by policies in a large cluster: 10,000 pods in 500 namespaces with 2,000 policies.
//!
//! `monitor/core/tests/policy_scale.rs` holds the same cluster to what is promised of it.

#[path = "netpol/large.rs"]
mod large;

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use large::{
    PODS, POLICIES, changes, flow, labels, namespace_name, pod, policy, selector, sorted_pods,
};
use monitor_core::{
    cluster::{Change, Cluster, KnownPod, Namespace},
    netpol::{Flow, Options, Policies, PolicyChange},
    time::Timestamp,
};

/// Nearly as many verdicts as are kept.
const KEPT: usize = 65_000;
/// Flows that are asked about again and again.
const FLOWS: usize = 10_000;

fn load(
    (cluster_changes, policy_changes): (Vec<Change>, Vec<PolicyChange>),
) -> (Cluster, Policies) {
    let (mut cluster, mut policies) = (Cluster::new(), Policies::new(Options::default()));
    for change in cluster_changes {
        cluster.apply(change, Timestamp::UNIX_EPOCH);
    }
    for change in policy_changes {
        policies.apply(change);
    }
    (cluster, policies)
}

fn netpol(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("netpol");
    group.sample_size(20);
    group.bench_function("load", |bencher| {
        bencher.iter_batched(changes, load, BatchSize::LargeInput);
    });

    let (mut cluster, mut policies) = load(changes());
    let pods: Vec<Arc<KnownPod>> = sorted_pods(&cluster);
    let mut next = 0_u32;
    let flows: Vec<Flow> = (0..2_000_000)
        .map(|number| flow(&cluster, &pods, number))
        .collect();

    group.throughput(Throughput::Elements(1));
    // Every question is new: nearly 2,000,000 of them before the first comes again, of which only the
    // last 65,536 are kept.
    group.bench_function("cold", |bencher| {
        bencher.iter(|| {
            next = next.wrapping_add(1);
            black_box(policies.judge(&cluster, &flows[next as usize % flows.len()]))
        });
    });
    let mut denied = 0;
    for flow in &flows[..FLOWS] {
        denied += usize::from(policies.judge(&cluster, flow).allowed == Some(false));
    }
    assert!(
        denied > FLOWS / 10 && denied < FLOWS * 9 / 10,
        "{denied} of {FLOWS} denied"
    );
    group.bench_function("cached", |bencher| {
        bencher.iter(|| {
            next = next.wrapping_add(1);
            black_box(policies.judge(&cluster, &flows[next as usize % FLOWS]))
        });
    });

    // A change, with the first verdict after it.
    let first = flows[1].clone();
    group.bench_function("pod changed", |bencher| {
        bencher.iter(|| {
            next = next.wrapping_add(1);
            let mut changed = pod(next % PODS);
            changed.labels = labels(&[("version", next.to_string())]);
            cluster.apply(changed.into(), Timestamp::UNIX_EPOCH);
            black_box(policies.judge(&cluster, &first))
        });
    });
    group.bench_function("policy changed", |bencher| {
        bencher.iter(|| {
            next = next.wrapping_add(1);
            let mut changed = policy(next % POLICIES);
            changed.selector = selector("version", &next.to_string());
            policies.apply(PolicyChange::Namespaced(changed));
            black_box(policies.judge(&cluster, &first))
        });
    });
    // The same while as many verdicts are kept as there may be.
    group.bench_function("policy changed, much known", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                for flow in &flows[..KEPT] {
                    policies.judge(&cluster, flow);
                }
                next = next.wrapping_add(1);
                let mut changed = policy(next % POLICIES);
                changed.selector = selector("version", &next.to_string());
                let start = Instant::now();
                policies.apply(PolicyChange::Namespaced(changed));
                black_box(policies.judge(&cluster, &first));
                spent += start.elapsed();
            }
            spent
        });
    });
    group.bench_function("namespace changed", |bencher| {
        bencher.iter(|| {
            next = next.wrapping_add(1);
            let changed = Namespace {
                name: namespace_name(next).into(),
                labels: labels(&[("team", next.to_string())]),
            };
            cluster.apply(Change::Namespace(changed), Timestamp::UNIX_EPOCH);
            black_box(policies.judge(&cluster, &first))
        });
    });
    group.finish();
}

criterion_group!(benches, netpol);
criterion_main!(benches);
