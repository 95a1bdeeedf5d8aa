//! Rows of pods that are gone.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::metric::{Rows, Value};

const TTL: Duration = Duration::from_secs(100);

fn texts<'a>(blank: &'a Arc<str>, pod: &'a Arc<str>, port: u16) -> FlowTexts<'a> {
    FlowTexts {
        point: Point::Workload,
        namespace: blank,
        workload: blank,
        pod,
        port: Some(port),
        protocol: Protocol::TCP,
        peer: blank,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_seconds(second)
}

fn delta(packets: u64) -> Delta {
    Delta {
        packets: [packets, 0],
        bytes: [packets, 0],
        ..Delta::default()
    }
}

/// Packets sent, by pod and port.
fn sent(store: &Store) -> BTreeMap<(String, String), u64> {
    let mut sent = BTreeMap::new();
    let rows = Rows::new(store, Vec::new());
    rows.samples(Metric::FlowPackets, |labels, value| {
        let label = |name| {
            let found = labels.iter().find(|(label, _)| *label == name);
            found.map(|(_, value)| (*value).to_owned()).unwrap()
        };
        let Value::Counter(value) = value else {
            panic!("no counter")
        };
        if label("direction") != "rx" {
            let earlier = sent.insert((label("pod"), label("port")), value);
            assert!(earlier.is_none(), "{labels:?} twice");
        }
        Ok::<_, std::convert::Infallible>(())
    })
    .unwrap();
    sent
}

#[test]
fn a_row_ends_when_its_pod_is_gone_for_long_and_nothing_is_open() {
    let (blank, pod): (Arc<str>, Arc<str>) = ("".into(), "cart-0".into());
    let mut store = Store::new(100);
    let nobody = store.flow(&texts(&blank, &blank, 22));
    store.release(nobody);
    let series = store.flow(&texts(&blank, &pod, 443));
    store.add(series, &delta(5));
    store.add_connection(series, false, Outcome::Established);
    let is_present = |subject: &Subject<'_>| subject.pod.is_empty();
    store.sweep(at(0), TTL, is_present);
    store.sweep(at(1_000), TTL, is_present);
    assert_eq!(sent(&store).len(), 2, "a flow is open");
    store.release(series);
    store.sweep(at(1_000), TTL, is_present);
    store.sweep(at(1_099), TTL, is_present);
    assert_eq!((sent(&store).len(), store.used()), (2, 9));
    // It comes back in time: the count goes on, and so does the time that it is kept.
    store.sweep(at(1_099), TTL, |_| true);
    store.sweep(at(1_150), TTL, is_present);
    store.sweep(at(1_200), TTL, is_present);
    assert_eq!(sent(&store)[&("cart-0".to_owned(), "443".to_owned())], 5);
    store.sweep(at(1_250), TTL, is_present);
    assert_eq!((sent(&store).len(), store.used(), store.ended()), (1, 4, 1));
    let rows = Rows::new(&store, Vec::new());
    assert_eq!(
        (rows.sum(Metric::Connections), rows.sum(Metric::FlowPackets)),
        (0, 0)
    );
    // It comes back too late: another row, from zero.
    let series = store.flow(&texts(&blank, &pod, 443));
    store.add(series, &delta(2));
    store.add_connection(series, false, Outcome::Refused);
    assert_eq!(sent(&store)[&("cart-0".to_owned(), "443".to_owned())], 2);
    assert_eq!(store.used(), 9);
}

#[test]
fn room_of_ended_rows_is_used_again_and_other_keeps_its_sum() {
    let blank: Arc<str> = "".into();
    let mut store = Store::new(4);
    for round in 0..200_u64 {
        let pod: Arc<str> = format!("job-{round}").into();
        let series = store.flow(&texts(&blank, &pod, 443));
        store.add(series, &delta(1));
        let beyond = store.flow(&texts(&blank, &pod, 444));
        assert_eq!(beyond, SeriesId::OTHER);
        store.add(beyond, &delta(1));
        store.release(beyond);
        store.release(series);
        let second = i64::try_from(round).unwrap() * 1_000;
        store.sweep(at(second), TTL, |_| false);
        store.sweep(at(second + 100), TTL, |_| false);
        let other = sent(&store)[&("other".to_owned(), "other".to_owned())];
        assert_eq!((sent(&store).len(), other), (1, round + 1));
    }
    assert!(store.symbols.texts().len() < 100, "texts are forgotten");
    assert_eq!(store.ended(), 200);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Open { pod: u8, port: u16 },
    Count { flow: usize, packets: u64 },
    Close { flow: usize },
    Pod { pod: u8, is_present: bool },
    Pass { seconds: i64 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8, 1..4_u16).prop_map(|(pod, port)| Step::Open { pod, port }),
        4 => (any::<usize>(), 1..9_u64).prop_map(|(flow, packets)| Step::Count { flow, packets }),
        3 => any::<usize>().prop_map(|flow| Step::Close { flow }),
        2 => (0..6_u8, any::<bool>()).prop_map(|(pod, is_present)| Step::Pod { pod, is_present }),
        3 => (1..80_i64).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

proptest! {
    /// Beside a model: rows by name, each with what keeps it.
    #[test]
    fn rows_are_those_of_a_model(steps in prop::collection::vec(any_step(), 0..120), max in 0..60_usize) {
        #[derive(Default)]
        struct Row { packets: u64, open: u32, gone: Option<i64> }
        let blank: Arc<str> = "".into();
        let name = |pod: u8| format!("pod-{pod}");
        let mut store = Store::new(max);
        let mut model: BTreeMap<(String, String), Row> = BTreeMap::new();
        let (mut other, mut now, mut present) = (None, 0, [true; 6]);
        let mut open: Vec<(SeriesId, Option<(String, String)>)> = Vec::new();
        for step in steps {
            match step {
                Step::Open { pod, port } => {
                    let series = store.flow(&texts(&blank, &name(pod).into(), port));
                    let row = (name(pod), port.to_string());
                    let is_known = model.contains_key(&row);
                    let has_room = (model.len() + 1) * FLOW_SERIES <= max;
                    prop_assert_eq!(series != SeriesId::OTHER, is_known || has_room);
                    if series == SeriesId::OTHER {
                        other.get_or_insert(0);
                        open.push((series, None));
                    } else {
                        let kept = model.entry(row.clone()).or_default();
                        (kept.open, kept.gone) = (kept.open + 1, None);
                        open.push((series, Some(row)));
                    }
                }
                Step::Count { flow, packets } if !open.is_empty() => {
                    let (series, row) = &open[flow % open.len()];
                    store.add(*series, &delta(packets));
                    match row {
                        Some(row) => model.get_mut(row).unwrap().packets += packets,
                        None => *other.as_mut().unwrap() += packets,
                    }
                }
                Step::Close { flow } if !open.is_empty() => {
                    let (series, row) = open.swap_remove(flow % open.len());
                    store.release(series);
                    if let Some(row) = row {
                        model.get_mut(&row).unwrap().open -= 1;
                    }
                }
                Step::Count { .. } | Step::Close { .. } => {}
                Step::Pod { pod, is_present } => present[usize::from(pod)] = is_present,
                Step::Pass { seconds } => {
                    now += seconds;
                    let is_present = |pod: &str| (0..6).any(|n| name(n) == pod && present[usize::from(n)]);
                    store.sweep(at(now), TTL, |subject| is_present(subject.pod));
                    model.retain(|(pod, _), row| {
                        if row.open > 0 || is_present(pod) {
                            row.gone = None;
                            return true;
                        }
                        now - *row.gone.get_or_insert(now) < 100
                    });
                }
            }
        }
        let mut expected: BTreeMap<_, _> = model.into_iter().map(|(row, kept)| (row, kept.packets)).collect();
        prop_assert_eq!(store.used(), expected.len() * FLOW_SERIES);
        if let Some(other) = other {
            expected.insert(("other".to_owned(), "other".to_owned()), other);
        }
        prop_assert_eq!(sent(&store), expected);
    }
}
