use expect_test::{Expect, expect};

use super::*;

fn endpoint(ip: &str, port: Option<u16>, kind: EntityKind) -> Endpoint {
    Endpoint {
        ip: ip.parse().unwrap(),
        port,
        kind,
        name: None,
        namespace: None,
        pod: None,
        workload: None,
        labels: None,
        host_network: false,
        cgroup: None,
        container: None,
        process: None,
    }
}

fn flow() -> FlowRecord {
    let start = Timestamp::from_seconds(1_795_514_400);
    FlowRecord {
        version: VERSION,
        time: start,
        start,
        end: start,
        state: State::Closed,
        cut: false,
        point: Point::Workload,
        interface: "veth1a2b".into(),
        protocol: Protocol::TCP,
        source: Endpoint {
            namespace: Some("shop".into()),
            pod: Some("cart-0".into()),
            workload: Some("StatefulSet/cart".into()),
            labels: Some(Arc::new(BTreeMap::from([("app".into(), "cart".into())]))),
            ..endpoint("10.244.1.7", Some(51_844), EntityKind::Pod)
        },
        destination: Endpoint {
            name: Some("office".into()),
            ..endpoint("2001:db8::9", Some(22), EntityKind::Range)
        },
        local: LocalEnd::Source,
        initiator: Initiator::Source,
        app: "ssh".into(),
        forward: Traffic {
            packets: 12,
            bytes: 1_833,
        },
        reverse: Traffic {
            packets: 10,
            bytes: 9_120,
        },
        tcp: Some(TcpRecord {
            forward_flags: Some(TcpFlags(0x1b)),
            reverse_flags: None,
            handshake_rtt_us: Some(212),
        }),
        icmp: None,
        retransmits: Some(Retransmits {
            forward: 1,
            reverse: 0,
        }),
        outcome: Outcome::OneWay,
        cgroup_id: Some(4_711),
        translated: None,
        policy: None,
        proposed: None,
        nsg: None,
        finding: None,
    }
}

fn check(record: &Record, expected: &Expect) {
    expected.assert_eq(&serde_json::to_string_pretty(record).unwrap());
    let json = serde_json::to_string(record).unwrap();
    assert_eq!(&serde_json::from_str::<Record>(&json).unwrap(), record);
}

#[test]
fn flow_records_follow_the_contract() {
    check(
        &flow().into(),
        &expect![[r#"
        {
          "type": "flow",
          "version": 1,
          "time": "2026-11-24T10:00:00.000000000Z",
          "start": "2026-11-24T10:00:00.000000000Z",
          "end": "2026-11-24T10:00:00.000000000Z",
          "state": "closed",
          "point": "workload",
          "interface": "veth1a2b",
          "protocol": "TCP",
          "source": {
            "ip": "10.244.1.7",
            "port": 51844,
            "kind": "pod",
            "namespace": "shop",
            "pod": "cart-0",
            "workload": "StatefulSet/cart",
            "labels": {
              "app": "cart"
            }
          },
          "destination": {
            "ip": "2001:db8::9",
            "port": 22,
            "kind": "range",
            "name": "office"
          },
          "local": "source",
          "initiator": "source",
          "app": "ssh",
          "forward": {
            "packets": 12,
            "bytes": 1833
          },
          "reverse": {
            "packets": 10,
            "bytes": 9120
          },
          "tcp": {
            "forward_flags": "SAPF",
            "handshake_rtt_us": 212
          },
          "retransmits": {
            "forward": 1,
            "reverse": 0
          },
          "outcome": "one-way",
          "cgroup_id": 4711
        }"#]],
    );
}

#[test]
fn unknown_values_are_absent() {
    let record = FlowRecord {
        source: endpoint("10.244.1.7", None, EntityKind::Unknown),
        destination: endpoint("203.0.113.9", None, EntityKind::Internet),
        protocol: Protocol::ICMP,
        tcp: None,
        retransmits: None,
        icmp: Some(IcmpRecord {
            kind: 8,
            code: 0,
            id: Some(7),
        }),
        cgroup_id: None,
        ..flow()
    };
    check(
        &record.into(),
        &expect![[r#"
        {
          "type": "flow",
          "version": 1,
          "time": "2026-11-24T10:00:00.000000000Z",
          "start": "2026-11-24T10:00:00.000000000Z",
          "end": "2026-11-24T10:00:00.000000000Z",
          "state": "closed",
          "point": "workload",
          "interface": "veth1a2b",
          "protocol": "ICMP",
          "source": {
            "ip": "10.244.1.7",
            "kind": "unknown"
          },
          "destination": {
            "ip": "203.0.113.9",
            "kind": "internet"
          },
          "local": "source",
          "initiator": "source",
          "app": "ssh",
          "forward": {
            "packets": 12,
            "bytes": 1833
          },
          "reverse": {
            "packets": 10,
            "bytes": 9120
          },
          "icmp": {
            "type": 8,
            "code": 0,
            "id": 7
          },
          "outcome": "one-way"
        }"#]],
    );
}

#[test]
fn summaries_follow_the_contract() {
    let summary = SummaryRecord {
        version: VERSION,
        time: Timestamp::UNIX_EPOCH,
        files: vec!["a.pcap".into()],
        interfaces: 1,
        packets_seen: 10,
        packets_counted: 7,
        packets_uncounted: 3,
        uncounted: BTreeMap::from([("not_ip".into(), 3)]),
        bytes_counted: 700,
        flows: 2,
        ssh_connections: 0,
        findings: 0,
        wall_time_ms: 5,
    };
    check(
        &summary.into(),
        &expect![[r#"
        {
          "type": "summary",
          "version": 1,
          "time": "1970-01-01T00:00:00.000000000Z",
          "files": [
            "a.pcap"
          ],
          "interfaces": 1,
          "packets_seen": 10,
          "packets_counted": 7,
          "packets_uncounted": 3,
          "uncounted": {
            "not_ip": 3
          },
          "bytes_counted": 700,
          "flows": 2,
          "ssh_connections": 0,
          "findings": 0,
          "wall_time_ms": 5
        }"#]],
    );
}

#[test]
fn records_of_a_later_program_are_read() {
    let mut json = serde_json::to_value(Record::from(flow())).unwrap();
    json["brand_new"] = 1.into();
    assert_eq!(
        serde_json::from_value::<Record>(json).unwrap(),
        flow().into()
    );
}
