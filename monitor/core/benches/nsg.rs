//! Verdicts per second, and how long new rules take to come into force.
//!
//! `cargo bench -p monitor-core --bench nsg`.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "nsg/group.rs"]
mod group;

use group::{FLOWS, document, flows, load, tag_file};

fn bench(criterion: &mut Criterion) {
    let (document, tags, flows) = (document(), tag_file(), flows());
    let chain = load(&document, &tags);
    let mut verdicts = criterion.benchmark_group("verdicts");
    verdicts.throughput(Throughput::Elements(FLOWS));
    verdicts.bench_function("compiled", |bencher| {
        bencher.iter(|| {
            for tuple in &flows {
                black_box(chain.judge(black_box(tuple)).access);
            }
        });
    });
    verdicts
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    verdicts.throughput(Throughput::Elements(64));
    verdicts.bench_function("linear", |bencher| {
        bencher.iter(|| {
            for tuple in &flows[..64] {
                black_box(chain.judge_linear(black_box(tuple)).access);
            }
        });
    });
    verdicts.finish();
    let mut reload = criterion.benchmark_group("reload");
    reload.sample_size(10);
    reload.bench_function("1000 rules, 100000 prefixes", |bencher| {
        bencher.iter(|| load(black_box(&document), black_box(&tags)));
    });
    reload.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
