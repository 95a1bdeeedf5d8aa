//! What is promised of a cluster of 10,000 pods, 500 namespaces and 2,000 policies, held to it.
//!
//! Memory is judged in every build, times in optimised ones:
//! `cargo xtask figures policy`. How they vary is for
//! `cargo bench -p monitor-core --bench netpol`.

#[path = "../benches/netpol/large.rs"]
mod large;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use large::{
    NAMESPACES, PODS, POLICIES, changes, flow, labels, namespace_name, pod, policy, selector,
    sorted_pods,
};
use monitor_core::{
    cluster::{Change, Namespace},
    engine::{Config, Declarations, Engine, Input},
    netpol::{Flow, PolicyChange},
    time::Timestamp,
};

/// Of the objects, the policies, all verdicts that are kept and the engine itself, in bytes.
const MOST_MEMORY: usize = 250 << 20;
const MOST_LOAD: Duration = Duration::from_secs(2);
const MOST_CHANGE: Duration = Duration::from_millis(20);
/// Verdicts per second.
const LEAST_COLD: f64 = 100_000.0;
const LEAST_CACHED: f64 = 2_000_000.0;
/// Questions that were not asked before: many more than verdicts are kept.
const COLD: u32 = 400_000;
/// Questions that are asked again and again.
const AGAIN: usize = 10_000;
/// Changes of each kind.
const ROUNDS: u32 = 200;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: usize = digits
        .and_then(|digits| digits.parse().ok())
        .expect("a size");
    kibibytes * 1_024
}

/// Processor time of this thread so far: what others do on the machine does not count
/// (Documentation/scheduler/sched-stats.rst).
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a time");
    let first = stat.split_whitespace().next();
    Duration::from_nanos(first.and_then(|ns| ns.parse().ok()).expect("a number"))
}

/// Fails in an optimised build; else says what would fail.
fn judge(good: bool, what: &str) {
    if cfg!(debug_assertions) {
        if !good {
            println!("not judged in a debug build: {what}");
        }
    } else {
        assert!(good, "{what}");
    }
}

fn per_second(count: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(count).expect("few enough")) / took.as_secs_f64()
}

fn step(engine: &mut Engine, input: Input) {
    engine.step(input, Timestamp::from_seconds(100));
}

fn verdict(engine: &mut Engine, flow: &Flow) -> Option<bool> {
    let Declarations {
        cluster, policies, ..
    } = engine.declarations();
    policies.judge(cluster, flow).allowed
}

/// How long many changes took, each with the first verdict after it, the slowest last.
fn changed(
    engine: &mut Engine,
    asked: &Flow,
    mut change: impl FnMut(u32) -> Input,
) -> Vec<Duration> {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let change = change(round);
        let start = Instant::now();
        step(engine, change);
        black_box(verdict(engine, asked));
        times.push(start.elapsed());
    }
    times.sort();
    times
}

#[test]
fn ten_thousand_pods_and_two_thousand_policies() {
    let before = resident();
    let mut engine = Engine::new(Config::default()).expect("an engine");
    let (objects, policies) = changes();
    let start = processor_time();
    // As a watch tells them.
    step(&mut engine, Input::Policies(policies));
    step(&mut engine, Input::Cluster(objects));
    let load = processor_time().saturating_sub(start);
    println!("load: {load:?}");
    judge(load <= MOST_LOAD, &format!("loaded in {load:?}"));

    let pods = sorted_pods(engine.declarations().cluster);
    assert_eq!(pods.len(), PODS as usize);
    let flows: Vec<Flow> = (0..COLD)
        .map(|number| flow(engine.declarations().cluster, &pods, number))
        .collect();
    let start = processor_time();
    let denied = flows
        .iter()
        .filter(|flow| verdict(&mut engine, flow) == Some(false));
    let denied = denied.count();
    let cold = per_second(flows.len(), processor_time().saturating_sub(start));
    println!("cold: {cold:.0} verdicts per second, {denied} of {COLD} denied");
    judge(
        cold >= LEAST_COLD,
        &format!("{cold:.0} cold verdicts per second"),
    );
    assert!(denied > flows.len() / 10 && denied < flows.len() * 9 / 10);

    let again = &flows[..AGAIN];
    for flow in again {
        verdict(&mut engine, flow);
    }
    let start = processor_time();
    for _ in 0..100 {
        for flow in again {
            black_box(verdict(&mut engine, flow));
        }
    }
    let cached = per_second(100 * AGAIN, processor_time().saturating_sub(start));
    println!("cached: {cached:.0} verdicts per second");
    judge(
        cached >= LEAST_CACHED,
        &format!("{cached:.0} cached verdicts per second"),
    );

    // As many verdicts as are kept, and what selects every pod.
    let questions = size_of_val(&flows[..]);
    let memory = resident().saturating_sub(before + questions);
    println!("memory: {} MiB", memory >> 20);
    assert!(memory <= MOST_MEMORY, "{memory} bytes");

    let asked = &flows[1];
    let pod_changed = changed(&mut engine, asked, |round| {
        let mut changed = pod(round * 37 % PODS);
        changed.labels = labels(&[("version", round.to_string())]);
        Input::Cluster(vec![changed.into()])
    });
    let policy_changed = changed(&mut engine, asked, |round| {
        let mut changed = policy(round * 37 % POLICIES);
        changed.selector = selector("version", &round.to_string());
        Input::Policies(vec![PolicyChange::Namespaced(changed)])
    });
    let namespace_changed = changed(&mut engine, asked, |round| {
        Input::Cluster(vec![Change::Namespace(Namespace {
            name: namespace_name(round % NAMESPACES).into(),
            labels: labels(&[("team", round.to_string())]),
        })])
    });
    for (what, took) in [
        ("pod", pod_changed),
        ("policy", policy_changed),
        ("namespace", namespace_changed),
    ] {
        // The machine may have had something else to do at one or the other.
        let (most, slowest) = (took[took.len() * 19 / 20], took[took.len() - 1]);
        println!("{ROUNDS} changes of a {what}: {most:?} for 19 of 20, {slowest:?} at most");
        judge(
            most <= MOST_CHANGE,
            &format!("a {what} changed in {most:?}"),
        );
    }
}
