//! Connections that are translated on this node, through the engine.

use std::net::{Ipv4Addr, SocketAddr};

use monitor_common::abi::{FlowKey4, scope};

use super::{
    policy::{findings, flows},
    ssh::{CLIENT, SERVER, offer, segment, ssh_of},
    *,
};
use crate::{
    cluster::{Change, Pod, Service},
    engine::{Lookup, Pair, Translation, TranslationAnswer, TranslationQuestion},
    event::{EntityKind, FindingKind, SshRecord, Target, Translated},
    netpol::{NetworkPolicy, PolicyChange, Selector},
};

/// Interfaces and addresses.
pub(super) const UPLINK: u32 = 1;
pub(super) const VETH: u32 = 2;
pub(super) const NODE: &str = "10.224.0.4";
pub(super) const CART: &str = "10.244.1.7";
pub(super) const DB: &str = "10.244.2.3";
pub(super) const SERVICE: &str = "10.96.0.10";
pub(super) const OUTSIDE: &str = "203.0.113.9";

pub(super) fn end(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn pair(source: SocketAddr, destination: SocketAddr) -> Pair {
    Pair {
        source,
        destination,
    }
}

pub(super) fn flow_key(
    interface: u32,
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
) -> FlowKey {
    let bits = |end: SocketAddr| end.ip().to_string().parse::<Ipv4Addr>().unwrap().to_bits();
    FlowKey::V4(FlowKey4 {
        local: bits(local),
        remote: bits(remote),
        local_port: local.port(),
        remote_port: remote.port(),
        scope: scope(interface, protocol.0),
    })
}

fn pod(namespace: &str, name: &str, ip: &str) -> Change {
    Pod {
        ips: vec![ip.parse().unwrap()],
        ..Pod::new(namespace, name)
    }
    .into()
}

/// A node with two pods and a service; nothing may enter the namespace `db`.
pub(super) fn node() -> Engine {
    let mut engine = engine_with(Config {
        translations: true,
        owners: true,
        ..Config::default()
    });
    let net = format!("{NODE}/16").parse().unwrap();
    step(&mut engine, Input::Addresses(vec![net]));
    let service = Service {
        namespace: "db".into(),
        name: "pg".into(),
        ips: vec![SERVICE.parse().unwrap()],
        selector: None,
        ports: Vec::new(),
    };
    let objects = vec![
        pod("shop", "cart-0", CART),
        pod("db", "pg-0", DB),
        Change::Service(service),
    ];
    let closed = PolicyChange::Namespaced(NetworkPolicy {
        namespace: "db".into(),
        name: "closed".into(),
        selector: Selector::default(),
        ingress: Some(Vec::new()),
        egress: None,
    });
    engine.declare(objects, vec![closed]);
    engine
}

pub(super) fn opened_by(local: bool) -> [u16; 2] {
    if local { [A, B] } else { [B, A] }
}

/// Reads a connection that began in second 99; what came of it.
pub(super) fn read(engine: &mut Engine, key: FlowKey, flags: [u16; 2]) -> Outputs {
    let value = reading(99, [3, 3], flags);
    step(engine, Input::Flows(vec![(key, value)]))
}

pub(super) fn answer(engine: &mut Engine, question: TranslationQuestion, found: Lookup) -> Outputs {
    let answer = TranslationAnswer { question, found };
    step(engine, Input::Translations(vec![answer]))
}

pub(super) fn to_service() -> (FlowKey, Translation) {
    let (client, service) = (end(CART, 40_000), end(SERVICE, 80));
    let translation = Translation {
        original: pair(client, service),
        reached: pair(client, end(DB, 5432)),
    };
    let key = flow_key(VETH, Protocol::TCP, client, service);
    (key, translation)
}

#[test]
fn a_service_is_judged_and_told_by_the_pod_that_was_chosen() {
    let mut engine = node();
    let (key, translation) = to_service();
    let outputs = read(&mut engine, key, opened_by(true));
    assert_eq!(outputs.records, [], "not before it is known");
    let [question] = outputs.translations[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(question.source, translation.original.source);
    assert_eq!(question.destination, translation.original.destination);
    // More packets ask no second time.
    let more = reading(99, [4, 4], opened_by(true));
    let again = step(&mut engine, Input::Flows(vec![(key, more)]));
    assert_eq!(again, Outputs::default());
    let outputs = answer(&mut engine, question, Lookup::Found(translation));
    let [flow] = flows(&outputs.records)[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(flow.destination.kind, EntityKind::Service);
    assert_eq!(flow.destination.name.as_deref(), Some("pg"));
    let ends = flow.translated.as_ref().and_then(Translated::ends).unwrap();
    assert_eq!(ends.source, None, "the source stays");
    let chosen = ends.destination.as_ref().unwrap();
    assert_eq!(
        (chosen.pod.as_deref(), chosen.port),
        (Some("pg-0"), Some(5432))
    );
    assert_eq!(flow.policy.as_ref().unwrap().allowed, Some(false));
    assert_eq!(flow.finding.as_deref(), Some("policy-violation"));
    let [finding] = findings(&outputs.records)[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(
        finding.reason,
        "TCP 5432 from shop/cart-0 to db/pg-0 by service pg is denied by policy, and established"
    );
    // The other pod's interface shows the same connection: it is no second finding.
    let other = flow_key(3, Protocol::TCP, end(DB, 5432), end(CART, 40_000));
    step(
        &mut engine,
        Input::Interface(interface(3, "veth2", Point::Workload)),
    );
    let outputs = read(&mut engine, other, opened_by(false));
    assert_eq!(outputs.translations, []);
    let [flow] = flows(&outputs.records)[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(flow.finding.as_deref(), Some("policy-violation"));
    assert_eq!(
        (flow.translated.as_ref(), findings(&outputs.records).len()),
        (None, 0)
    );
    // What was known stays with the record of the closed connection, and goes with it.
    let value = reading(99, [5, 5], opened_by(true));
    let outputs = step(&mut engine, Input::Removed(vec![(key, value)]));
    assert!(flows(&outputs.records)[0].translated.is_some());
    let kept = engine.query(&FlowFilter::default(), None);
    let kept = kept.iter().find(|flow| flow.state == State::Closed);
    // It is found by the pod that was chosen.
    let of_pod = FlowFilter {
        terms: vec![Condition::Pod("db/pg-0".parse().unwrap()).into()],
        ..FlowFilter::default()
    };
    let found = engine.query(&of_pod, None);
    assert!(found.iter().any(|flow| Some(flow) == kept), "{found:?}");
    assert_eq!(
        kept.unwrap().translated,
        flows(&outputs.records)[0].translated
    );
    let status = engine.status().translation.unwrap();
    assert_eq!((status.asked, status.translated, status.unknown), (1, 1, 0));
}

#[test]
fn what_the_uplink_shows_as_the_nodes_is_tied_to_the_pod() {
    let mut engine = node();
    let (node, outside) = (end(NODE, 61_000), end(OUTSIDE, 443));
    let key = flow_key(UPLINK, Protocol::TCP, node, outside);
    let outputs = read(&mut engine, key, opened_by(true));
    let [question] = outputs.translations[..] else {
        panic!("{outputs:?}");
    };
    // What comes in by the uplink is the answer, to the node.
    assert_eq!((question.source, question.destination), (outside, node));
    let translation = Translation {
        original: pair(end(CART, 40_000), outside),
        reached: pair(node, outside),
    };
    let outputs = answer(&mut engine, question, Lookup::Found(translation));
    let [flow] = flows(&outputs.records)[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(flow.source.kind, EntityKind::Node);
    let ends = flow.translated.as_ref().and_then(Translated::ends).unwrap();
    let pod = ends.source.as_ref().unwrap();
    assert_eq!(
        (pod.pod.as_deref(), pod.port),
        (Some("cart-0"), Some(40_000))
    );
    assert_eq!(ends.destination, None);
    // A port of the node that leads to a pod, UDP.
    let (node, outside) = (end(NODE, 30_053), end(OUTSIDE, 5_353));
    let key = flow_key(UPLINK, Protocol::UDP, node, outside);
    let value = reading(99, [1, 1], [0, FIRST]);
    let outputs = step(&mut engine, Input::Flows(vec![(key, value)]));
    let [question] = outputs.translations[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!((question.source, question.destination), (outside, node));
    let translation = Translation {
        original: pair(outside, node),
        reached: pair(outside, end(DB, 53)),
    };
    let outputs = answer(&mut engine, question, Lookup::Found(translation));
    let ends = flows(&outputs.records)[0]
        .translated
        .as_ref()
        .unwrap()
        .ends()
        .unwrap();
    let pod = ends.destination.as_ref().unwrap();
    assert_eq!((pod.pod.as_deref(), pod.port), (Some("pg-0"), Some(53)));
}

#[test]
fn only_what_depends_on_it_is_asked_about() {
    let mut engine = node();
    let mut asked = |interface, local: SocketAddr, remote: SocketAddr, flags, cgroup_id| {
        let key = flow_key(interface, Protocol::TCP, local, remote);
        let value = FlowValue {
            cgroup_id,
            ..reading(99, [3, 3], flags)
        };
        let outputs = step(&mut engine, Input::Flows(vec![(key, value)]));
        assert_eq!(
            outputs.records.is_empty(),
            !outputs.translations.is_empty() || flags == [0, OPENS | FIRST | SYN]
        );
        !outputs.translations.is_empty()
    };
    let (cart, node) = (|port| end(CART, port), |port| end(NODE, port));
    let mine = opened_by(true);
    let theirs = opened_by(false);
    // A pod to a service, a port of the node, an address that may be a service's.
    assert!(asked(VETH, cart(1), end(SERVICE, 80), mine, 0));
    assert!(asked(VETH, cart(2), node(30_080), mine, 0));
    assert!(asked(VETH, cart(3), end("10.0.0.10", 80), mine, 0));
    // To a pod, to the Internet.
    assert!(!asked(VETH, cart(4), end(DB, 80), mine, 0));
    assert!(!asked(VETH, cart(5), end(OUTSIDE, 80), mine, 0));
    // From the node, behind whose address may be others; from outside.
    assert!(asked(VETH, cart(80), node(40_000), theirs, 0));
    assert!(!asked(VETH, cart(80), end(OUTSIDE, 40_001), theirs, 0));
    // Out by the uplink: what no socket of the node sent, if it has the node's address.
    assert!(asked(UPLINK, node(1), end(OUTSIDE, 443), mine, 0));
    assert!(!asked(UPLINK, node(2), end(OUTSIDE, 443), mine, 77));
    assert!(!asked(UPLINK, cart(6), end(OUTSIDE, 443), mine, 0));
    // In by the uplink: once it is answered, unless it is for a pod by its address.
    assert!(asked(UPLINK, node(22), end(OUTSIDE, 1), theirs, 0));
    assert!(asked(
        UPLINK,
        end("20.0.0.1", 80),
        end(OUTSIDE, 2),
        theirs,
        0
    ));
    assert!(!asked(UPLINK, cart(22), end(OUTSIDE, 3), theirs, 0));
    assert!(!asked(UPLINK, node(24), end(OUTSIDE, 5), theirs, 77));
    let scan = [0, OPENS | FIRST | SYN];
    assert!(!asked(UPLINK, node(23), end(OUTSIDE, 4), scan, 0));
}

#[test]
fn what_is_not_answered_is_unknown_after_two_seconds() {
    let mut engine = node();
    let (key, translation) = to_service();
    let outputs = read(&mut engine, key, opened_by(true));
    let question = outputs.translations[0];
    let tick =
        |engine: &mut Engine, second| engine.step(Input::Tick, Timestamp::from_seconds(second));
    assert_eq!(tick(&mut engine, 101).records, []);
    let outputs = tick(&mut engine, 102);
    let [flow] = flows(&outputs.records)[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(flow.translated, Some(Translated::UNKNOWN));
    let text = serde_json::to_string(&outputs.records[0]).unwrap();
    assert!(text.contains(r#""translated":"unknown""#), "{text}");
    assert_eq!(
        serde_json::from_str::<Record>(&text).unwrap(),
        outputs.records[0]
    );
    assert_eq!(
        flow.policy.as_ref().unwrap().allowed,
        None,
        "nor is a verdict"
    );
    let late = answer(&mut engine, question, Lookup::Found(translation));
    assert_eq!(late, Outputs::default());
    // An answer that it is not known.
    for (port, found) in [(1, Lookup::Missing), (2, Lookup::Failed)] {
        let key = flow_key(VETH, Protocol::TCP, end(CART, port), end(SERVICE, 80));
        let question = read(&mut engine, key, opened_by(true)).translations[0];
        let outputs = answer(&mut engine, question, found);
        assert_eq!(
            flows(&outputs.records)[0].translated,
            Some(Translated::UNKNOWN)
        );
    }
    // One that is over before it could be asked about.
    let key = flow_key(VETH, Protocol::TCP, end(CART, 3), end(SERVICE, 80));
    let value = reading(99, [3, 3], opened_by(true));
    let outputs = step(&mut engine, Input::FlowEnded { key, value });
    assert_eq!(outputs.translations, []);
    assert_eq!(
        flows(&outputs.records)[0].translated,
        Some(Translated::UNKNOWN)
    );
    assert_eq!(engine.status().translation.unwrap().unknown, 4);
}

#[test]
fn a_direct_connection_says_nothing_of_translation() {
    let mut engine = node();
    let (node, outside) = (end(NODE, 22), end(OUTSIDE, 50_000));
    let key = flow_key(UPLINK, Protocol::TCP, node, outside);
    let question = read(&mut engine, key, opened_by(false)).translations[0];
    let both = pair(outside, node);
    let direct = Translation {
        original: both,
        reached: both,
    };
    let outputs = answer(&mut engine, question, Lookup::Found(direct));
    assert_eq!(flows(&outputs.records)[0].translated, None);
    let more = reading(99, [4, 4], opened_by(false));
    let outputs = step(&mut engine, Input::Flows(vec![(key, more)]));
    assert_eq!(outputs, Outputs::default(), "asked once");
    // No more wait than may be asked about.
    let mut asked = 0;
    for port in 1..=8_200 {
        let key = flow_key(VETH, Protocol::TCP, end(CART, port), end(SERVICE, 80));
        let outputs = read(&mut engine, key, opened_by(true));
        asked += outputs.translations.len();
        for flow in flows(&outputs.records) {
            assert_eq!(flow.translated, Some(Translated::UNKNOWN));
        }
    }
    assert_eq!(asked, 8_192);
    assert_eq!(engine.status().translation.unwrap().unknown, 8);
}

#[test]
fn a_connection_that_has_the_ports_of_another_is_not_taken_for_it() {
    let mut engine = node();
    let (key, translation) = to_service();
    let value = |first| reading(first, [3, 3], opened_by(true));
    let read = |engine: &mut Engine, first| {
        let outputs = step(engine, Input::Flows(vec![(key, value(first))]));
        outputs.translations[0]
    };
    let first = read(&mut engine, 98);
    let outputs = step(&mut engine, Input::Removed(vec![(key, value(98))]));
    assert_eq!(
        flows(&outputs.records).last().unwrap().translated,
        Some(Translated::UNKNOWN)
    );
    // The same entry anew, while the answer about the first is on its way.
    let second = read(&mut engine, 99);
    let late = answer(&mut engine, first, Lookup::Missing);
    assert_eq!(late, Outputs::default());
    let outputs = answer(&mut engine, second, Lookup::Found(translation));
    assert!(
        flows(&outputs.records)[0]
            .translated
            .as_ref()
            .unwrap()
            .ends()
            .is_some()
    );
    // What is remembered of the first is its own.
    let all = engine.query(&FlowFilter::default(), None);
    let closed = all.iter().find(|flow| flow.state == State::Closed);
    assert_eq!(closed.unwrap().translated, Some(Translated::UNKNOWN));
}

/// Banners and algorithms of an SSH connection whose local end is the server; what came of them.
fn banners(engine: &mut Engine, key: FlowKey) -> [Outputs; 2] {
    [
        segment(key, true, &offer(SERVER, 1), App::Ssh),
        segment(key, false, &offer(CLIENT, 2), App::Ssh),
    ]
    .map(|input| step(engine, input))
}

#[test]
fn ssh_by_a_port_of_the_node_is_ssh_to_the_pod_and_told_once() {
    let mut engine = node();
    engine.books.ssh.expectations.pod = vec!["admin=198.51.100.0/24".parse().unwrap()];
    let outside = end(OUTSIDE, 50_000);
    let key = flow_key(UPLINK, Protocol::TCP, end(NODE, 30_022), outside);
    let outputs = banners(&mut engine, key);
    assert_eq!(
        ssh_of(&outputs),
        [],
        "not before it is known where it leads"
    );
    let question = outputs[0].translations[0];
    // The node's side of the translation: the pod sees the node.
    let between = end(NODE, 61_000);
    let translation = Translation {
        original: pair(outside, end(NODE, 30_022)),
        reached: pair(between, end(DB, 22)),
    };
    let found = answer(&mut engine, question, Lookup::Found(translation));
    let told = ssh_of(std::slice::from_ref(&found));
    let [
        SshRecord {
            source,
            destination,
            target: Target::Pod,
            translated,
            ..
        },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(SocketAddr::new(source.ip, source.port.unwrap()), outside);
    assert_eq!(destination.pod.as_deref(), Some("pg-0"));
    let ends = translated.as_ref().and_then(Translated::ends).unwrap();
    assert_eq!(ends.source.as_ref().unwrap().port, Some(61_000));
    assert_eq!(ends.destination.as_ref().unwrap().port, Some(30_022));
    let [finding] = findings(&found.records)[..] else {
        panic!("{found:?}");
    };
    assert_eq!(finding.finding, FindingKind::SshUnexpected);
    // The server's process is looked for where the pod is.
    let [owner] = found.owners[..] else {
        panic!("{found:?}");
    };
    assert!(owner.is_pod);
    assert_eq!((owner.local, owner.remote), (end(DB, 22), between));
    // The pod's own interface shows the same connection.
    let veth = flow_key(VETH, Protocol::TCP, end(DB, 22), between);
    let outputs = banners(&mut engine, veth);
    let question = outputs[0].translations[0];
    let shadow = answer(&mut engine, question, Lookup::Found(translation));
    assert_eq!(ssh_of(&[shadow]), [], "told already");
}
