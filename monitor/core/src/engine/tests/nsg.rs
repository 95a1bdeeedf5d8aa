//! Connections held against network security groups.

use super::*;
use crate::{
    event::{FindingKind, FlowRecord},
    nsg::{Access, Chain, Direction, LevelKind, Levels, Names, read},
};

/// A group on the subnet with these rules in JSON.
pub(super) fn chain(rules: &str) -> Arc<Chain> {
    chain_with("", rules)
}

/// The same, with more about the group.
pub(super) fn chain_with(more: &str, rules: &str) -> Arc<Chain> {
    let text = format!("{{{more}\"name\":\"g\",\"securityRules\":[{rules}]}}");
    let document = read::read("g.json", &text).unwrap();
    let levels = Levels {
        subnet: Some(document.choose(None, LevelKind::Subnet).unwrap()),
        ..Levels::default()
    };
    let mut names = Names::default();
    names.add_network(["10.224.0.0/12".parse().unwrap()]);
    Arc::new(Chain::new(levels, &names))
}

pub(super) fn rule(name: &str, direction: &str, access: &str, port: u16) -> String {
    format!(
        "{{\"name\":\"{name}\",\"priority\":100,\"direction\":\"{direction}\",\
         \"access\":\"{access}\",\"protocol\":\"Tcp\",\"sourceAddressPrefix\":\"*\",\
         \"destinationAddressPrefix\":\"*\",\"destinationPortRange\":\"{port}\"}}"
    )
}

/// From this second on, these rules stand.
pub(super) fn declare(engine: &mut Engine, seconds: u64, chain: Arc<Chain>) {
    let now = Timestamp::from_seconds(i64::try_from(seconds).unwrap());
    engine.step(Input::Clock(clock(seconds)), now);
    engine.step(Input::Nsg(Some(chain)), now);
}

/// An engine with a group on the subnet with these rules.
pub(super) fn engine_under(rules: &str) -> Engine {
    let mut engine = engine();
    step(&mut engine, Input::Nsg(Some(chain(rules))));
    engine
}

/// A connection from this node, or to it.
pub(super) fn flow(is_inbound: bool, port: u16) -> FlowKey {
    if is_inbound {
        key4(1, Protocol::TCP, port, 40_000)
    } else {
        key4(1, Protocol::TCP, 40_000, port)
    }
}

/// What the opener and the other end sent, by the hook's direction.
pub(super) fn sent(is_inbound: bool, other: u16) -> FlowValue {
    let opener = if other == B { A } else { SYN_ONLY };
    let (flags, packets) = if is_inbound {
        ([other, opener], [u64::from(other != 0), 1])
    } else {
        ([opener, other], [1, u64::from(other != 0)])
    };
    reading(50, packets, flags)
}

const SYN_ONLY: u16 = OPENS | FIRST | SYN;

/// Opens a connection and closes it; its last record, and findings with their reasons.
pub(super) fn run(
    engine: &mut Engine,
    key: FlowKey,
    value: FlowValue,
) -> (FlowRecord, Vec<(FindingKind, String)>) {
    let mut records = step(engine, Input::Flows(vec![(key, value)])).records;
    records.extend(step(engine, Input::Removed(vec![(key, value)])).records);
    let (mut last, mut findings) = (None, Vec::new());
    for record in records {
        match record {
            Record::Flow(record) => last = Some(*record),
            Record::Finding(record) => {
                let flow = record.flow.as_ref().unwrap();
                assert_eq!(flow.finding.as_deref(), Some(record.finding.name()));
                findings.push((record.finding, record.reason));
            }
            other => panic!("{other:?}"),
        }
    }
    (last.unwrap(), findings)
}

#[test]
fn an_inbound_packet_that_is_denied_is_drift_whatever_becomes_of_it() {
    for other in [0, B, RST | ACK] {
        let mut engine = engine_under(&rule("DenySsh", "Inbound", "Deny", 22));
        let (record, findings) = run(&mut engine, flow(true, 22), sent(true, other));
        let expected = record.nsg.as_ref().unwrap();
        assert_eq!(
            (
                expected.access,
                expected.direction,
                expected.rule.as_deref(),
                expected.nsg.as_deref()
            ),
            (
                Access::Deny,
                Some(Direction::Inbound),
                Some("DenySsh"),
                Some("g")
            )
        );
        assert_eq!(record.finding.as_deref(), Some("nsg-drift"));
        assert_eq!(
            findings,
            [(
                FindingKind::NsgDrift,
                "rule DenySsh denies TCP from 203.0.113.9 to 10.244.1.7 port 22, and its packets \
                 arrive"
                    .to_owned()
            )]
        );
    }
}

#[test]
fn drift_is_told_with_the_first_packet() {
    let mut engine = engine_under(&rule("DenySsh", "Inbound", "Deny", 22));
    let value = sent(true, 0);
    let outputs = step(&mut engine, Input::Flows(vec![(flow(true, 22), value)]));
    let [Record::Finding(finding)] = &outputs.records[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(
        finding.declared_by,
        "network security group g, rule DenySsh"
    );
}

#[test]
fn outbound_the_answer_decides() {
    let rules = rule("DenyWeb", "Outbound", "Deny", 443);
    for (other, expected) in [(B, Some("nsg-drift")), (0, None), (RST | ACK, None)] {
        let mut engine = engine_under(&rules);
        let value = sent(false, other);
        let (record, findings) = run(&mut engine, flow(false, 443), value);
        assert_eq!(record.finding.as_deref(), expected, "{:?}", record.outcome);
        assert_eq!(findings.len(), usize::from(expected.is_some()));
    }
}

#[test]
fn a_late_answer_to_what_was_refused_first_is_told_of_while_it_is_open() {
    let mut engine = engine_under(&rule("DenyWeb", "Outbound", "Deny", 443));
    let key = flow(false, 443);
    let mut findings = |flags| {
        let value = reading(50, [2, 1], flags);
        let records = step(&mut engine, Input::Flows(vec![(key, value)])).records;
        let findings = records.iter().filter_map(|record| match record {
            Record::Finding(finding) => Some(finding.finding),
            _ => None,
        });
        findings.collect::<Vec<_>>()
    };
    // One of two routers has no way; the SYN that is sent again takes the other.
    let refused = monitor_common::abi::flag::UNREACHABLE;
    assert_eq!(findings([SYN_ONLY | refused, 0]), []);
    assert_eq!(findings([A | refused, B]), [FindingKind::NsgDrift]);
    assert_eq!(findings([A | refused | DATA, B]), [], "told once");
}

#[test]
fn what_is_allowed_and_not_answered_may_be_over_blocked() {
    let mut engine = engine_under(&rule("AllowWeb", "Outbound", "Allow", 443));
    let (record, findings) = run(&mut engine, flow(false, 443), sent(false, 0));
    assert_eq!(record.finding.as_deref(), Some("nsg-over-blocked"));
    assert_eq!(findings[0].0, FindingKind::NsgOverBlocked);
    let (record, findings) = run(&mut engine, flow(false, 443), sent(false, B));
    assert_eq!((record.finding, findings), (None, Vec::new()));
}

#[test]
fn the_same_ends_are_told_of_once_but_every_record_says_it() {
    let mut engine = engine_under(&rule("DenySsh", "Inbound", "Deny", 22));
    let mut told = 0;
    for first_seen in 50..55 {
        let value = reading(first_seen, [0, 1], [0, SYN_ONLY]);
        let (record, findings) = run(&mut engine, flow(true, 22), value);
        assert_eq!(record.finding.as_deref(), Some("nsg-drift"));
        told += findings.len();
    }
    assert_eq!(told, 1);
}

#[test]
fn only_the_uplink_is_judged_and_never_a_guessed_direction() {
    let mut engine = engine_under(&rule("DenySsh", "Inbound", "Deny", 22));
    let workload = key4(2, Protocol::TCP, 22, 40_000);
    let (record, findings) = run(&mut engine, workload, sent(true, B));
    assert_eq!(
        (record.nsg, record.finding, findings),
        (None, None, Vec::new())
    );
    let midstream = reading(50, [1, 1], [ACK | PSH | DATA, ACK | PSH | DATA]);
    let (record, findings) = run(&mut engine, flow(true, 22), midstream);
    assert_eq!(
        (record.nsg, record.finding, findings),
        (None, None, Vec::new())
    );
}

#[test]
fn without_groups_nothing_is_said() {
    let mut engine = engine();
    let (record, findings) = run(&mut engine, flow(true, 22), sent(true, B));
    assert_eq!(
        (record.nsg, record.finding, findings),
        (None, None, Vec::new())
    );
    let mut engine = engine_under(&rule("DenySsh", "Inbound", "Deny", 22));
    step(&mut engine, Input::Nsg(None));
    step(&mut engine, Input::Clock(clock(200)));
    let later = reading(150, [1, 1], [B, A]);
    let (record, _) = run(&mut engine, flow(true, 22), later);
    assert_eq!(record.nsg, None);
}

#[test]
fn what_is_told_of_hides_no_other_kind_and_no_other_protocol() {
    let any = |access| rule("Port443", "Outbound", access, 443).replace("\"Tcp\"", "\"*\"");
    let kinds = |found: (FlowRecord, Vec<(FindingKind, String)>)| {
        let kinds = found.1.into_iter().map(|(kind, _)| kind);
        kinds.collect::<Vec<_>>()
    };
    let (over, drift) = ([FindingKind::NsgOverBlocked], [FindingKind::NsgDrift]);
    let udp = key4(1, Protocol::UDP, 40_000, 443);
    let mut engine = engine_under(&any("Allow"));
    assert_eq!(
        kinds(run(&mut engine, flow(false, 443), sent(false, 0))),
        over
    );
    assert_eq!(
        kinds(run(&mut engine, flow(false, 443), sent(false, 0))),
        []
    );
    declare(&mut engine, 200, chain(&any("Deny")));
    let sent_udp = || reading(250, [1, 1], [FIRST, 0]);
    let answered = || reading(250, [1, 1], [A, B]);
    assert_eq!(kinds(run(&mut engine, udp, sent_udp())), drift);
    assert_eq!(kinds(run(&mut engine, flow(false, 443), answered())), drift);
    assert_eq!(kinds(run(&mut engine, udp, sent_udp())), []);
    assert_eq!(kinds(run(&mut engine, flow(false, 443), answered())), []);
}

/// Everything inbound is denied.
fn denied() -> String {
    rule("DenyAll", "Inbound", "Deny", 0)
        .replace("\"Tcp\"", "\"*\"")
        .replace("PortRange\":\"0\"", "PortRange\":\"*\"")
}

#[test]
fn a_servers_datagram_is_judged_unless_it_may_go_on_with_an_older_flow() {
    let mut engine = engine_under(&denied());
    let received = |first_seen| reading(first_seen, [0, 1], [0, FIRST]);
    let to = |local, remote| key4(1, Protocol::UDP, local, remote);
    // The interface has been watched since second 1: it may be of a flow from before.
    let (record, findings) = run(&mut engine, to(40_000, 8_801), received(50));
    assert_eq!((record.nsg, record.finding, findings), (None, None, vec![]));
    assert_eq!(record.source.port, Some(40_000));
    let (record, findings) = run(&mut engine, to(20_000, 51_820), received(50));
    assert_eq!((record.nsg, record.finding, findings), (None, None, vec![]));
    // What a client sends to a service is judged as ever.
    let (record, _) = run(&mut engine, to(53, 40_000), received(50));
    assert_eq!(record.finding.as_deref(), Some("nsg-drift"));

    // Later, nobody but the server can have begun it.
    step(&mut engine, Input::Clock(clock(1_000)));
    let (record, findings) = run(&mut engine, to(40_001, 53), received(900));
    assert_eq!(record.finding.as_deref(), Some("nsg-drift"));
    assert_eq!((record.source.port, findings.len()), (Some(53), 1));

    // Of a kernel that gives out ports from 1024 on, to WireGuard: the peer's keepalive.
    run(
        &mut engine,
        to(20_000, 51_820),
        reading(901, [2, 2], [FIRST, 0]),
    );
    let (record, findings) = run(&mut engine, to(20_000, 51_820), received(950));
    assert_eq!((record.nsg, record.finding, findings), (None, None, vec![]));

    // A keepalive, after the flow was forgotten.
    run(
        &mut engine,
        to(40_002, 53),
        reading(901, [2, 2], [FIRST, 0]),
    );
    let (record, findings) = run(&mut engine, to(40_002, 53), received(950));
    assert_eq!((record.nsg, record.finding, findings), (None, None, vec![]));

    // While the kernel's table was full nobody knows.
    let mut uncounted = monitor_common::abi::Uncounted::default();
    uncounted.packets[0][monitor_common::abi::Reason::TableFull as usize] = 1;
    let account = InterfaceAccount {
        id: 1,
        uncounted,
        ..InterfaceAccount::default()
    };
    step(&mut engine, Input::AccountingBegins(vec![account]));
    let (record, _) = run(&mut engine, to(40_003, 53), received(990));
    assert_eq!((record.nsg, record.finding), (None, None));
}

#[test]
fn an_icmp_error_from_a_router_is_no_drift() {
    let mut engine = engine_under(&denied());
    let received = reading(50, [0, 1], [0, FIRST]);
    // Port unreachable, time exceeded.
    for kind in [0x0303, 0x0b00] {
        let key = key4(1, Protocol::ICMP, 0, kind);
        let (record, findings) = run(&mut engine, key, received);
        assert_eq!((record.nsg, record.finding, findings), (None, None, vec![]));
    }
    // An echo request is.
    let (record, findings) = run(&mut engine, key4(1, Protocol::ICMP, 7, 0x0800), received);
    assert_eq!(record.finding.as_deref(), Some("nsg-drift"));
    assert_eq!(findings.len(), 1);
}
