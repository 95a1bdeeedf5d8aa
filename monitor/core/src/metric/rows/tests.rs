use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    event::{Outcome, Point},
    flow::Delta,
    metric::{ALL, FlowTexts, SeriesId, Store},
};

fn texts<'a>(blank: &'a Arc<str>, peer: &'a Arc<str>, port: u16) -> FlowTexts<'a> {
    FlowTexts {
        point: Point::Uplink,
        namespace: blank,
        workload: blank,
        pod: blank,
        port: (port != 0).then_some(port),
        protocol: Protocol::TCP,
        peer,
    }
}

/// Samples of a metric: labels joined by commas, to values.
fn samples(rows: &Rows, metric: Metric) -> BTreeMap<String, Value> {
    let names = metric.definition().labels;
    let mut samples = BTreeMap::new();
    rows.samples(metric, |labels, value| {
        let found: Vec<_> = labels.iter().map(|(name, _)| *name).collect();
        assert_eq!(found, names);
        let values: Vec<_> = labels.iter().map(|(_, value)| *value).collect();
        assert!(
            samples.insert(values.join(","), value).is_none(),
            "{values:?} twice"
        );
        Ok::<_, Infallible>(())
    })
    .unwrap();
    samples
}

#[test]
fn traffic_is_sampled_by_direction() {
    let (blank, peer) = ("".into(), "internet".into());
    let mut store = Store::new(100);
    let series = store.flow(&texts(&blank, &peer, 443));
    store.add(
        series,
        &Delta {
            packets: [1, 2],
            bytes: [30, 40],
            ..Delta::default()
        },
    );
    store.add_connection(series, true, Outcome::OneWay);
    let rows = Rows::new(&store, Vec::new());
    assert_eq!(
        samples(&rows, Metric::FlowBytes),
        [
            (
                "uplink,,,,443,TCP,tx,internet".to_owned(),
                Value::Counter(30)
            ),
            (
                "uplink,,,,443,TCP,rx,internet".to_owned(),
                Value::Counter(40)
            ),
        ]
        .into()
    );
    assert_eq!(
        samples(&rows, Metric::Connections),
        [(
            "uplink,,,,443,TCP,inbound,internet,one-way".to_owned(),
            Value::Counter(1)
        )]
        .into()
    );
    assert_eq!(rows.sum(Metric::FlowPackets), 3);
}

#[test]
fn label_sets_beyond_the_cap_are_folded() {
    let (blank, peer) = ("".into(), "internet".into());
    let mut store = Store::new(5);
    let delta = Delta {
        packets: [1, 2],
        bytes: [30, 40],
        ..Delta::default()
    };
    for port in [1, 2, 3, 1] {
        let series = store.flow(&texts(&blank, &peer, port));
        assert_eq!(series == SeriesId::OTHER, port != 1);
        store.add(series, &delta);
        store.add_connection(series, false, Outcome::Established);
        store.add_connection(series, true, Outcome::Established);
    }
    assert_eq!(
        (store.used(), store.folded().map(|(_, count)| count)),
        (5, [2, 2, 6])
    );
    let rows = Rows::new(&store, Vec::new());
    let packets = samples(&rows, Metric::FlowPackets);
    assert_eq!(
        packets["other,other,other,other,other,other,other,other"],
        Value::Counter(6)
    );
    assert_eq!(packets.len(), 3);
    let connections = samples(&rows, Metric::Connections);
    let other = "other,other,other,other,other,other,other,other,other";
    assert_eq!(connections[other], Value::Counter(6));
    assert_eq!(connections.len(), 2);
    assert_eq!(rows.sum(Metric::FlowBytes), 4 * 70);
}

#[test]
fn numbers_print_in_decimal() {
    for number in [0, 7, 10, 443, 9_999, 10_000, u16::MAX] {
        assert_eq!(Digits::new(number).as_str(), number.to_string());
    }
}

#[test]
fn a_failing_encoder_ends_the_samples() {
    let (blank, peer) = ("".into(), "internet".into());
    let mut store = Store::new(100);
    store.flow(&texts(&blank, &peer, 443));
    let rows = Rows::new(&store, Vec::new());
    let mut calls = 0;
    let result = rows.samples(Metric::FlowBytes, |_, _| {
        calls += 1;
        Err("full")
    });
    assert_eq!((result, calls), (Err("full"), 1));
}

proptest! {
    #[test]
    fn folding_keeps_sums(
        max in 0..60_usize,
        flows in prop::collection::vec((0..20_u16, 0..4_u8, 0..1_000_u64, any::<bool>()), 0..60),
    ) {
        let blank = "".into();
        let mut store = Store::new(max);
        let (mut packets, mut connections) = (0, 0);
        for (port, peer, count, is_inbound) in flows {
            let peer = format!("range:{peer}").into();
            let series = store.flow(&texts(&blank, &peer, port));
            store.add(series, &Delta { packets: [count, 1], bytes: [10 * count, 10], ..Delta::default() });
            store.add_connection(series, is_inbound, Outcome::Established);
            packets += count + 1;
            connections += 1;
        }
        let rows = Rows::new(&store, Vec::new());
        prop_assert_eq!(rows.sum(Metric::FlowPackets), packets);
        prop_assert_eq!(rows.sum(Metric::FlowBytes), 10 * packets);
        prop_assert_eq!(rows.sum(Metric::Connections), connections);
        let count: usize = ALL
            .iter()
            .filter(|definition| definition.is_capped)
            .map(|definition| samples(&rows, definition.metric).len())
            .sum();
        // One row `other` for each metric is beyond the cap.
        prop_assert!(count <= max + 3, "{count} samples");
    }
}
