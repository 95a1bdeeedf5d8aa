//! Connections of a node that tracks none: no rule asks for it, or nobody can be asked.

use super::{
    policy::flows,
    translate::{
        CART, NODE, OUTSIDE, SERVICE, UPLINK, VETH, answer, end, flow_key, node, opened_by, read,
        to_service,
    },
    *,
};
use crate::{cluster::Change, engine::Lookup, event::Translated};

/// What is told of a connection that was asked about where nothing is tracked.
fn told(
    engine: &mut Engine,
    interface: u32,
    local: (&str, u16),
    remote: (&str, u16),
    is_ours: bool,
) -> Option<Translated> {
    let (local, remote) = (end(local.0, local.1), end(remote.0, remote.1));
    let key = flow_key(interface, Protocol::TCP, local, remote);
    let question = read(engine, key, opened_by(is_ours)).translations[0];
    let outputs = answer(engine, question, Lookup::Idle);
    let [flow] = flows(&outputs.records)[..] else {
        panic!("{outputs:?}");
    };
    if interface == VETH {
        let verdict = flow.policy.as_ref().expect("it is judged at once");
        assert_eq!(verdict.allowed.is_none(), flow.translated.is_some());
    }
    flow.translated.clone()
}

#[test]
fn a_pods_connections_are_as_they_are_seen_but_those_to_services() {
    let mut engine = node();
    for (port, to) in [(1, ("10.0.0.10", 5432)), (2, (NODE, 30_080))] {
        let found = told(&mut engine, VETH, (CART, port), to, true);
        assert_eq!(found, None, "{to:?}");
    }
    assert_eq!(
        told(&mut engine, VETH, (CART, 80), (NODE, 4_000), false),
        None
    );
    // Somebody has to translate these, and what the node forwards with its own address.
    let found = told(&mut engine, VETH, (CART, 3), (SERVICE, 80), true);
    assert_eq!(found, Some(Translated::UNKNOWN));
    let found = told(&mut engine, UPLINK, (NODE, 4), (OUTSIDE, 443), true);
    assert_eq!(found, Some(Translated::UNKNOWN));
    let status = engine.status().translation.unwrap();
    assert_eq!((status.asked, status.translated, status.unknown), (5, 0, 2));
}

#[test]
fn without_services_nothing_has_to_be_translated() {
    let mut engine = node();
    let gone = Change::ServiceGone("db".into(), "pg".into());
    step(&mut engine, Input::Cluster(vec![gone]));
    assert_eq!(
        told(&mut engine, UPLINK, (NODE, 4), (OUTSIDE, 443), true),
        None
    );
    assert_eq!(
        told(&mut engine, UPLINK, (NODE, 53), (OUTSIDE, 5), false),
        None
    );
    assert_eq!(engine.status().translation.unwrap().unknown, 0);
}

#[test]
fn where_nobody_can_be_asked_it_is_unknown_at_once() {
    let mut engine = node();
    step(
        &mut engine,
        Input::Conntrack(Err("no such thing".to_owned())),
    );
    let (key, _) = to_service();
    let outputs = read(&mut engine, key, opened_by(true));
    assert_eq!(outputs.translations, []);
    assert_eq!(
        flows(&outputs.records)[0].translated,
        Some(Translated::UNKNOWN)
    );
    let status = engine.status().translation.unwrap();
    assert_eq!(status.unavailable.as_deref(), Some("no such thing"));
    // So it stays when it is over.
    let value = reading(99, [3, 3], opened_by(true));
    step(&mut engine, Input::Removed(vec![(key, value)]));
    let closed = engine.query(&FlowFilter::default(), None);
    assert_eq!(closed[0].translated, Some(Translated::UNKNOWN));
    // It is there later.
    step(&mut engine, Input::Conntrack(Ok(())));
    let key = flow_key(VETH, Protocol::TCP, end(CART, 2), end(SERVICE, 80));
    assert_eq!(
        read(&mut engine, key, opened_by(true)).translations.len(),
        1
    );
    // A replay does not ask, and says nothing.
    let mut engine = engine_with(Config::default());
    let outputs = read(&mut engine, to_service().0, opened_by(true));
    assert_eq!(flows(&outputs.records)[0].translated, None);
    assert_eq!(engine.status().translation, None);
}
