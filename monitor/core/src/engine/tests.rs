use monitor_common::abi::flag::{ACCEPTS, ACK, DATA, FIN, FIRST, OPENS, PSH, RST, SYN};
use monitor_common::classify::App;

use super::*;
use crate::{
    event::{Initiator, Outcome, Point, Protocol, State},
    filter::{Condition, FlowFilter, Term},
    fixture::{SECOND, clock, key4, value},
    metric::Metric,
};

fn interface(id: u32, name: &str, point: Point) -> Interface {
    Interface {
        id,
        ifindex: 100 + id,
        name: name.into(),
        point,
        attach: "tcx".into(),
        covered: true,
        reason: None,
        attached_ns: Some(SECOND),
    }
}

/// An engine with an uplink (1) and a workload interface (2), at second 100.
fn engine_with(config: Config) -> Engine {
    let mut engine = Engine::new(config).unwrap();
    for input in [
        Input::Clock(clock(100)),
        Input::Interface(interface(1, "eth0", Point::Uplink)),
        Input::Interface(interface(2, "veth1", Point::Workload)),
    ] {
        step(&mut engine, input);
    }
    engine
}

fn engine() -> Engine {
    engine_with(Config {
        capacity: Capacity {
            ipv4: 1_000,
            ipv6: 10,
        },
        ..Config::default()
    })
}

fn step(engine: &mut Engine, input: Input) -> Outputs {
    engine.step(input, Timestamp::from_seconds(100))
}

/// A connection that began in this second.
fn reading(first_seen: u64, packets: [u64; 2], flags: [u16; 2]) -> FlowValue {
    FlowValue {
        first_seen_ns: first_seen * SECOND,
        last_seen_ticks: u32::try_from(first_seen).unwrap(),
        flags,
        ..value(packets)
    }
}

const A: u16 = OPENS | FIRST | SYN | ACK | PSH | DATA;
const B: u16 = ACCEPTS | SYN | ACK | PSH | DATA;

fn tcp(port: u16) -> FlowKey {
    key4(1, Protocol::TCP, 40_000, port)
}

/// State and outcome of each record.
fn told(outputs: &Outputs) -> Vec<(State, Outcome)> {
    outputs
        .records
        .iter()
        .map(|record| match record {
            Record::Flow(flow) => (flow.state, flow.outcome),
            Record::Summary(_) | Record::Ssh(_) | Record::Finding(_) => {
                panic!("no summary is made by a step")
            }
        })
        .collect()
}

fn connections(engine: &Engine) -> Vec<String> {
    let mut lines = Vec::new();
    let rows = engine.snapshot().rows;
    rows.samples(Metric::Connections, |labels, value| {
        let labels: Vec<_> = labels.iter().map(|(_, value)| *value).collect();
        lines.push(format!("{} {value:?}", labels.join(",")));
        Ok::<_, ()>(())
    })
    .unwrap();
    lines.sort();
    lines
}

#[test]
fn a_connection_is_recorded_when_decided_and_when_closed() {
    let mut engine = engine();
    let (opened, closed) = (
        reading(50, [1, 0], [OPENS | FIRST | SYN, 0]),
        [A | FIN, B | FIN],
    );
    assert_eq!(
        step(&mut engine, Input::Flows(vec![(tcp(443), opened)])),
        Outputs::default()
    );
    let outputs = step(
        &mut engine,
        Input::Flows(vec![(tcp(443), reading(50, [3, 2], [A, B]))]),
    );
    assert_eq!(told(&outputs), [(State::Open, Outcome::Established)]);
    let outputs = step(
        &mut engine,
        Input::Flows(vec![(tcp(443), reading(50, [4, 4], closed))]),
    );
    assert_eq!(outputs, Outputs::default());
    let last = FlowValue {
        last_seen_ticks: 97,
        ..reading(50, [5, 5], closed)
    };
    assert_eq!(step(&mut engine, Input::Tick).expire, [tcp(443)]);
    let outputs = step(&mut engine, Input::Removed(vec![(tcp(443), last)]));
    assert_eq!(told(&outputs), [(State::Closed, Outcome::Established)]);
    let Record::Flow(flow) = &outputs.records[0] else {
        panic!("{outputs:?}")
    };
    assert_eq!((flow.forward.packets, flow.reverse.bytes), (5, 500));
    assert_eq!(
        (flow.start, flow.end),
        (Timestamp::from_seconds(50), Timestamp::from_seconds(97))
    );
    assert_eq!(flow.tcp.unwrap().forward_flags.unwrap().to_string(), "SAPF");
    assert_eq!(
        connections(&engine),
        ["uplink,,,,443,TCP,outbound,internet,established Counter(1)"]
    );
    assert_eq!(engine.snapshot().rows.sum(Metric::FlowPackets), 10);
    assert!(step(&mut engine, Input::Tick).expire.is_empty());
}

#[test]
fn outcomes_are_counted_once_when_decided() {
    let mut engine = engine();
    let refused = reading(50, [1, 1], [OPENS | FIRST | SYN, RST | ACK]);
    let unanswered = reading(50, [2, 0], [OPENS | FIRST | SYN, 0]);
    let midstream = reading(50, [1, 1], [ACK, ACK]);
    let flows = vec![
        (tcp(1), refused),
        (tcp(2), unanswered),
        (tcp(3), midstream),
        (
            key4(1, Protocol::UDP, 53, 40_001),
            reading(50, [0, 1], [0, FIRST]),
        ),
        (
            key4(2, Protocol::ICMP, 7, 0x800),
            reading(50, [1, 0], [FIRST, 0]),
        ),
    ];
    let outputs = step(&mut engine, Input::Flows(flows.clone()));
    let open = |outcome| (State::Open, outcome);
    assert_eq!(
        told(&outputs),
        [open(Outcome::Refused), open(Outcome::Midstream)]
    );
    assert_eq!(connections(&engine).len(), 2);
    step(&mut engine, Input::Flows(flows));
    let outputs = engine.finish(Timestamp::from_seconds(200));
    assert_eq!(outputs.records.len(), 5);
    assert_eq!(
        connections(&engine),
        [
            "uplink,,,,1,TCP,outbound,internet,refused Counter(1)",
            "uplink,,,,2,TCP,outbound,internet,unanswered Counter(1)",
            "uplink,,,,3,TCP,outbound,internet,midstream Counter(1)",
            "uplink,,,,53,UDP,inbound,internet,one-way Counter(1)",
            "workload,,,,,ICMP,outbound,internet,unanswered Counter(1)",
        ]
    );
    assert!(
        engine
            .finish(Timestamp::from_seconds(201))
            .records
            .is_empty()
    );
}

#[test]
fn ends_are_named_by_range_and_address() {
    let mut engine = engine_with(Config {
        ranges: vec!["office=203.0.113.0/24".parse().unwrap()],
        ..Config::default()
    });
    step(
        &mut engine,
        Input::Addresses(vec!["10.244.1.7/24".parse().unwrap()]),
    );
    let inbound = key4(1, Protocol::TCP, 22, 50_000);
    let mut value = reading(50, [2, 3], [B, A]);
    value.app = App::Ssh as u8;
    value.handshake_rtt_ns = 211_001;
    value.cgroup_id = 7;
    value.retransmits = [1, 2];
    let outputs = step(&mut engine, Input::Flows(vec![(inbound, value)]));
    expect_test::expect![[r#"{"type":"flow","version":1,"time":"1970-01-01T00:01:40.000000000Z","start":"1970-01-01T00:00:50.000000000Z","end":"1970-01-01T00:00:50.000000000Z","state":"open","point":"uplink","interface":"eth0","protocol":"TCP","source":{"ip":"203.0.113.9","port":50000,"kind":"range","name":"office"},"destination":{"ip":"10.244.1.7","port":22,"kind":"node"},"local":"destination","initiator":"source","app":"ssh","forward":{"packets":3,"bytes":300},"reverse":{"packets":2,"bytes":200},"tcp":{"forward_flags":"SAP","reverse_flags":"SAP","handshake_rtt_us":212},"retransmits":{"forward":2,"reverse":1},"outcome":"established","cgroup_id":7}"#]].assert_eq(&serde_json::to_string(&outputs.records[0]).unwrap());
    assert_eq!(
        connections(&engine),
        ["uplink,,,,22,TCP,inbound,range:office,established Counter(1)"]
    );
}

#[test]
fn flows_that_may_be_older_than_the_attachment_have_no_known_initiator() {
    let mut engine = engine();
    let key = |port| key4(1, Protocol::UDP, 40_000, port);
    let flows = vec![
        (
            key(900),
            FlowValue {
                first_seen_ns: 2 * SECOND - 1,
                ..reading(0, [1, 1], [FIRST, 0])
            },
        ),
        (
            key(901),
            FlowValue {
                first_seen_ns: 2 * SECOND,
                ..reading(0, [1, 1], [FIRST, 0])
            },
        ),
    ];
    step(&mut engine, Input::Flows(flows));
    let initiators: Vec<_> = engine
        .query(&FlowFilter::default(), None)
        .iter()
        .map(|record| (record.destination.port, record.initiator))
        .collect();
    assert_eq!(
        initiators,
        [
            (Some(900), Initiator::Unknown),
            (Some(901), Initiator::Source)
        ]
    );
}

#[test]
fn a_late_syn_moves_the_service_port() {
    let mut engine = engine();
    let key = key4(1, Protocol::TCP, 50_000, 443);
    step(
        &mut engine,
        Input::Flows(vec![(key, reading(50, [1, 0], [FIRST, 0]))]),
    );
    step(
        &mut engine,
        Input::Flows(vec![(key, reading(50, [1, 2], [FIRST, OPENS | SYN]))]),
    );
    let mut ports = BTreeMap::new();
    let rows = engine.snapshot().rows;
    rows.samples(Metric::FlowPackets, |labels, value| {
        if value != crate::metric::Value::Counter(0) {
            ports.insert((labels[4].1.to_owned(), labels[6].1.to_owned()), value);
        }
        Ok::<_, ()>(())
    })
    .unwrap();
    let ports: Vec<_> = ports.into_keys().collect();
    let expected = [("443", "tx"), ("50000", "rx")];
    assert_eq!(
        ports,
        expected.map(|(port, direction)| (port.to_owned(), direction.to_owned()))
    );
}

#[test]
fn queries_answer_with_the_newest_last() {
    let mut engine = engine_with(Config {
        recent: 2,
        ..Config::default()
    });
    for port in 1..=4 {
        let value = reading(u64::from(port), [3, 3], [A, B]);
        step(&mut engine, Input::Flows(vec![(tcp(port), value)]));
        // All but the last are closed, all but the first are remembered.
        if port < 4 {
            step(&mut engine, Input::Removed(vec![(tcp(port), value)]));
        }
    }
    let ports = |filter: FlowFilter, last| -> Vec<u16> {
        let records = engine.query(&filter, last);
        records
            .iter()
            .filter_map(|record| record.destination.port)
            .collect()
    };
    let only = |condition: Condition| FlowFilter {
        terms: vec![condition.into()],
        ..FlowFilter::default()
    };
    assert_eq!(ports(FlowFilter::default(), None), [2, 3, 4]);
    let forgotten = engine.status().forgotten;
    assert_eq!((forgotten.ssh, forgotten.findings), (None, None));
    let first = engine_with(Config::default());
    assert_eq!(first.status().forgotten, Forgotten::default());
    assert!(
        forgotten
            .flows
            .is_some_and(|until| until < engine.query(&FlowFilter::default(), None)[0].end)
    );
    assert_eq!(ports(FlowFilter::default(), Some(2)), [3, 4]);
    assert_eq!(ports(FlowFilter::default(), Some(0)), [0_u16; 0]);
    assert_eq!(ports(only(Condition::Port(3)), None), [3]);
    assert_eq!(
        ports(only(Condition::Namespace("shop".into())), Some(1)),
        [0_u16; 0]
    );
    let not_shop = FlowFilter {
        terms: vec![!Term::from(Condition::Namespace("shop".into()))],
        ..FlowFilter::default()
    };
    assert_eq!(ports(not_shop, Some(1)), [4]);
    let since = FlowFilter {
        since: Some(Timestamp::from_seconds(3)),
        ..FlowFilter::default()
    };
    assert_eq!(ports(since, None), [3, 4]);
    let states: Vec<_> = engine
        .query(&FlowFilter::default(), None)
        .iter()
        .map(|record| record.state)
        .collect();
    assert_eq!(states, [State::Closed, State::Closed, State::Open]);
}

#[test]
fn a_gone_interface_takes_its_connections_along() {
    let mut engine = engine();
    let key = |port| key4(2, Protocol::TCP, 40_000, port);
    let value = reading(99, [3, 3], [A, B]);
    step(&mut engine, Input::Flows(vec![(key(1), value)]));
    step(&mut engine, Input::InterfaceGone { id: 2 });
    // One that no pass over the map had seen before.
    step(&mut engine, Input::Flows(vec![(key(2), value)]));
    let mut expire = step(&mut engine, Input::Tick).expire;
    expire.sort_unstable();
    assert_eq!(expire, [key(1), key(2)]);
    let removed = Input::Removed(expire.iter().map(|key| (*key, value)).collect());
    let outputs = step(&mut engine, removed);
    assert_eq!(told(&outputs), [(State::Closed, Outcome::Established); 2]);
    // The records of closed connections still name the interface.
    let records = engine.query(&FlowFilter::default(), None);
    assert!(records.iter().all(|record| &*record.interface == "veth1"));
    assert_eq!(engine.status().interfaces.len(), 1);
    assert!(engine.status().anomalies.is_empty());
}

#[test]
fn without_readers_no_records_are_made() {
    let mut engine = engine_with(Config {
        records: false,
        ..Config::default()
    });
    let flows = |port| Input::Flows(vec![(tcp(port), reading(50, [3, 3], [A, B]))]);
    assert!(step(&mut engine, flows(1)).records.is_empty());
    engine.set_records(true);
    assert_eq!(step(&mut engine, flows(2)).records.len(), 1);
}

mod aks;
mod cgroup;
mod idle;
mod kubernetes;
mod nsg;
mod nsg_rules;
mod owner;
mod policy;
mod property;
mod series;
mod ssh;
mod ssh_judged;
mod status;
mod translate;
