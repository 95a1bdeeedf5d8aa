//! What the engine tells of itself.

use monitor_common::abi::Counters;

use super::*;

#[test]
fn status_and_summary_tell_the_totals() {
    let mut engine = engine();
    let mut account = InterfaceAccount {
        id: 1,
        counters: Counters {
            seen: [5, 3],
            counted: [4, 3],
            buffers: [5, 3],
            bytes: [400, 300],
        },
        ..InterfaceAccount::default()
    };
    account.uncounted.packets[0][0] = 1;
    step(
        &mut engine,
        Input::Flows(vec![(tcp(443), reading(50, [3, 4], [A, B]))]),
    );
    step(&mut engine, Input::Accounting(vec![account]));
    step(&mut engine, Input::Accounting(vec![account]));
    step(
        &mut engine,
        Input::Lost(Lost {
            ring_full: 3,
            merged_connections: 2,
        }),
    );
    step(
        &mut engine,
        Input::EventsLost {
            stage: LossStage::Follower,
            total: 9,
        },
    );
    step(&mut engine, Input::Tick);
    step(&mut engine, Input::Missing(vec![tcp(443), tcp(444)]));

    let status = engine.status();
    expect_test::expect![[r#"
        {
          "time": "1970-01-01T00:01:40.000000000Z",
          "flows": {
            "ipv4": {
              "active": 0,
              "capacity": 1000
            },
            "ipv6": {
              "active": 0,
              "capacity": 10
            }
          },
          "recent": 1,
          "connections": 1,
          "interfaces": [
            {
              "name": "eth0",
              "ifindex": 101,
              "point": "uplink",
              "attach": "tcx",
              "covered": true,
              "flows": 0,
              "ingress": {
                "seen": 5,
                "counted": 4,
                "bytes": 400,
                "buffers": 5,
                "uncounted": {
                  "not_ip": 1
                }
              },
              "egress": {
                "seen": 3,
                "counted": 3,
                "bytes": 300,
                "buffers": 3,
                "uncounted": {}
              },
              "difference": {
                "ingress": 0,
                "egress": 0,
                "flow_packets": 0,
                "flow_bytes": 0
              }
            },
            {
              "name": "veth1",
              "ifindex": 102,
              "point": "workload",
              "attach": "tcx",
              "covered": true,
              "flows": 0,
              "ingress": {
                "seen": 0,
                "counted": 0,
                "bytes": 0,
                "buffers": 0,
                "uncounted": {}
              },
              "egress": {
                "seen": 0,
                "counted": 0,
                "bytes": 0,
                "buffers": 0,
                "uncounted": {}
              }
            }
          ],
          "events_lost": {
            "kernel_ring": 3,
            "channel": 0,
            "ssh_connections": 0,
            "ssh_pending": 0,
            "ssh_histories": 0,
            "flow_histories": 0,
            "owner": 0,
            "translation": 0,
            "pod_names": 0,
            "cgroup": 0,
            "process_scan": 0,
            "follower": 9,
            "event_log": 0
          },
          "openers_unknown": {
            "uplink": {
              "until": "1970-01-01T00:05:01.000000000Z",
              "reason": "attached"
            },
            "workload": {
              "until": "1970-01-01T00:05:01.000000000Z",
              "reason": "attached"
            }
          },
          "connections_merged": 2,
          "anomalies": {
            "entry_vanished": 1
          },
          "series": 5,
          "max_series": 20000,
          "series_folded": {
            "nodewatch_connections_total": 0,
            "nodewatch_flow_bytes_total": 0,
            "nodewatch_flow_packets_total": 0,
            "nodewatch_policy_connections_total": 0,
            "nodewatch_policy_proposed_connections_total": 0
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&status).unwrap());
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);

    let summary = engine.summary();
    assert_eq!((summary.packets_seen, summary.packets_counted), (8, 7));
    assert_eq!(
        (summary.packets_uncounted, summary.uncounted["not_ip"]),
        (1, 1)
    );
    assert_eq!(
        (summary.flows, summary.interfaces, summary.bytes_counted),
        (1, 1, 700)
    );
}

#[test]
fn every_metric_has_a_sample() {
    let mut engine = nsg::engine_under("");
    step(
        &mut engine,
        Input::Flows(vec![(tcp(443), reading(50, [3, 4], [A, B]))]),
    );
    step(
        &mut engine,
        Input::Accounting(vec![InterfaceAccount {
            id: 1,
            ..Default::default()
        }]),
    );
    ssh::refused_from_anywhere(&mut engine);
    policy::one_is_judged(&mut engine);
    kubernetes::watched(&mut engine);
    let rows = engine.snapshot().rows;
    for definition in crate::metric::ALL {
        let mut count = 0;
        rows.samples(definition.metric, |labels, _| {
            assert!(labels.iter().map(|(name, _)| name).eq(definition.labels));
            count += 1;
            Ok::<_, ()>(())
        })
        .unwrap();
        assert!(count > 0, "{}", definition.name);
    }
}
