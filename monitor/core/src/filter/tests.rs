use proptest::prelude::*;

use super::*;
use crate::event::{Endpoint, EntityKind, Initiator, LocalEnd, State, Traffic, VERSION};

fn endpoint(ip: &str, port: u16, pod: Option<(&str, &str)>) -> Endpoint {
    Endpoint {
        ip: ip.parse().unwrap(),
        port: Some(port),
        kind: EntityKind::Unknown,
        name: None,
        namespace: pod.map(|(namespace, _)| namespace.into()),
        pod: pod.map(|(_, name)| name.into()),
        workload: None,
        labels: None,
        host_network: false,
        cgroup: None,
        container: None,
        process: None,
    }
}

fn record() -> FlowRecord {
    FlowRecord {
        version: VERSION,
        time: Timestamp::from_seconds(20),
        start: Timestamp::from_seconds(10),
        end: Timestamp::from_seconds(20),
        state: State::Open,
        cut: false,
        point: Point::Uplink,
        interface: "eth0".into(),
        protocol: Protocol::TCP,
        source: endpoint("10.244.1.7", 51_844, Some(("shop", "cart-0"))),
        destination: endpoint("2001:db8::9", 443, None),
        local: LocalEnd::Source,
        initiator: Initiator::Source,
        app: "tls".into(),
        forward: Traffic::default(),
        reverse: Traffic::default(),
        tcp: None,
        icmp: None,
        retransmits: None,
        outcome: Outcome::Established,
        cgroup_id: None,
        translated: None,
        policy: None,
        proposed: None,
        nsg: None,
        finding: Some("nsg-drift".into()),
    }
}

/// Reads `kind:value`, negated by a leading `!`.
fn term(text: &str) -> Term {
    let (not, text) = text
        .strip_prefix('!')
        .map_or((false, text), |text| (true, text));
    let (kind, value) = text.split_once('=').unwrap();
    let condition = match kind {
        "namespace" => Condition::Namespace(value.to_owned()),
        "pod" => Condition::Pod(value.parse().unwrap()),
        "ip" => Condition::ip(value).unwrap(),
        "port" => Condition::Port(value.parse().unwrap()),
        "protocol" => Condition::Protocol(value.parse().unwrap()),
        "app" => Condition::App(value.to_owned()),
        "point" => Condition::Point(value.parse().unwrap()),
        "outcome" => Condition::Outcome(value.parse().unwrap()),
        "finding" => Condition::Finding(value.to_owned()),
        _ => panic!("{kind}"),
    };
    Term { not, condition }
}

fn filter(texts: &[&str]) -> FlowFilter {
    FlowFilter {
        terms: texts.iter().map(|text| term(text)).collect(),
        ..FlowFilter::default()
    }
}

#[test]
fn terms_combine_by_kind() {
    let check = |texts: &[&str], expected: bool| {
        assert_eq!(filter(texts).matches(&record()), expected, "{texts:?}");
    };
    check(&[], true);
    // Each kind, either end.
    check(&["namespace=shop"], true);
    check(&["namespace=sho"], false);
    check(&["pod=shop/cart-0"], true);
    check(&["pod=db/cart-0"], false);
    check(&["ip=10.244.0.0/16"], true);
    check(&["ip=2001:db8::9"], true);
    check(&["ip=10.245.0.0/16"], false);
    check(&["port=443"], true);
    check(&["port=51844"], true);
    check(&["port=22"], false);
    check(&["protocol=tcp"], true);
    check(&["protocol=udp"], false);
    check(&["app=TLS"], true);
    check(&["point=workload"], false);
    check(&["outcome=established"], true);
    check(&["finding=nsg-drift"], true);
    check(&["finding=ssh-unexpected"], false);
    // The same kind: either. Different kinds: both.
    check(&["port=22", "port=443"], true);
    check(&["port=443", "protocol=udp"], false);
    check(
        &["port=22", "port=443", "protocol=tcp", "namespace=shop"],
        true,
    );
    // Negated: not this, whatever the others say.
    check(&["!port=22"], true);
    check(&["!port=443"], false);
    check(&["!port=22", "!port=80"], true);
    check(&["!port=22", "!port=443"], false);
    check(&["port=443", "!port=51844"], false);
    check(&["port=443", "!port=22", "!namespace=kube-system"], true);
}

#[test]
fn all_namespaces_lifts_namespaces_only() {
    let lifted = |texts: &[&str]| {
        FlowFilter {
            all_namespaces: true,
            ..filter(texts)
        }
        .matches(&record())
    };
    assert!(lifted(&["namespace=db"]));
    assert!(!lifted(&["!namespace=shop"]));
    assert!(!lifted(&["namespace=db", "port=22"]));
}

#[test]
fn since_is_about_the_last_packet() {
    let since = |seconds| FlowFilter {
        since: Some(Timestamp::from_seconds(seconds)),
        ..FlowFilter::default()
    };
    assert!(since(20).matches(&record()));
    assert!(!since(21).matches(&record()));
}

#[test]
fn filters_travel_as_json() {
    let filter = FlowFilter {
        since: Some(Timestamp::from_seconds(20)),
        ..filter(&[
            "!port=22",
            "pod=shop/cart-0",
            "ip=10.0.0.0/8",
            "outcome=one-way",
        ])
    };
    let json = serde_json::to_string(&filter).unwrap();
    expect_test::expect![[r#"{"terms":[{"not":true,"port":22},{"pod":{"namespace":"shop","name":"cart-0"}},{"ip":"10.0.0.0/8"},{"outcome":"one-way"}],"since":"1970-01-01T00:00:20.000000000Z"}"#]].assert_eq(&json);
    assert_eq!(serde_json::from_str::<FlowFilter>(&json).unwrap(), filter);
    assert!(serde_json::from_str::<FlowFilter>(r#"{"term":[]}"#).is_err());
    assert_eq!(
        serde_json::from_str::<FlowFilter>("{}").unwrap(),
        FlowFilter::default()
    );
}

#[test]
fn what_cannot_be_read_is_refused() {
    for text in ["cart-0", "/cart-0", "shop/", "a/b/c", ""] {
        assert!(text.parse::<PodName>().is_err(), "{text}");
    }
    assert!(Condition::ip("10.0.0.0/33").is_err());
    assert_eq!(
        Condition::ip("::ffff:10.1.2.3").unwrap(),
        Condition::ip("10.1.2.3").unwrap()
    );
}

fn any_term() -> impl Strategy<Value = Term> {
    prop::sample::select(vec![
        "namespace=shop",
        "namespace=db",
        "pod=shop/cart-0",
        "ip=10.244.0.0/16",
        "ip=192.0.2.1",
        "port=443",
        "port=22",
        "protocol=tcp",
        "protocol=udp",
        "app=tls",
        "app=ssh",
        "point=uplink",
        "outcome=reset",
        "finding=nsg-drift",
    ])
    .prop_map(term)
}

proptest! {
    #[test]
    fn negation_negates_one_term(condition in any_term()) {
        let with = |term: Term| FlowFilter { terms: vec![term], ..FlowFilter::default() };
        let plain = with(condition.clone()).matches(&record());
        let negated = with(!condition).matches(&record());
        prop_assert_ne!(plain, negated);
    }

    #[test]
    fn what_matches_may_match(terms in prop::collection::vec((any_term(), any::<bool>()), 0..6)) {
        let terms = terms.into_iter().map(|(term, not)| Term { not, ..term }).collect();
        let filter = FlowFilter { terms, ..FlowFilter::default() };
        let record = record();
        let may_match = filter.may_match(&Facts::of(&record));
        if filter.needs_names() {
            prop_assert!(may_match || !filter.matches(&record));
        } else {
            prop_assert_eq!(may_match, filter.matches(&record));
        }
    }

    #[test]
    fn the_order_of_terms_does_not_matter(
        terms in prop::collection::vec((any_term(), any::<bool>()), 0..6),
    ) {
        let mut terms: Vec<Term> =
            terms.into_iter().map(|(term, not)| Term { not, ..term }).collect();
        let forwards = FlowFilter { terms: terms.clone(), ..FlowFilter::default() };
        terms.reverse();
        let backwards = FlowFilter { terms, ..FlowFilter::default() };
        prop_assert_eq!(forwards.matches(&record()), backwards.matches(&record()));
    }
}
