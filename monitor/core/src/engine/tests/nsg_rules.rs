//! Rules over time: which of them judge a connection, and how often each matched.

use super::{
    nsg::{chain, chain_with, declare, engine_under, flow, rule, run, sent},
    *,
};
use crate::nsg::{Access, Chain, Direction, LevelKind, Levels, Names, read};

#[test]
fn the_rules_that_stood_when_it_opened_judge_a_connection() {
    let mut engine = engine_under(&rule("AllowSsh", "Inbound", "Allow", 22));
    let (key, value) = (flow(true, 22), sent(true, B));
    step(&mut engine, Input::Flows(vec![(key, value)]));
    declare(
        &mut engine,
        200,
        chain(&rule("DenySsh", "Inbound", "Deny", 22)),
    );
    let outputs = step(&mut engine, Input::Removed(vec![(key, value)]));
    let [Record::Flow(record)] = &outputs.records[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(
        record.nsg.as_ref().unwrap().rule.as_deref(),
        Some("AllowSsh")
    );
    let mut rule_of = |first_seen| {
        let (record, findings) = run(&mut engine, key, reading(first_seen, [1, 1], [B, A]));
        (
            record.nsg.unwrap().rule.unwrap().to_string(),
            findings.len(),
        )
    };
    // It was read after the rules changed, and opened before.
    assert_eq!(rule_of(199), ("AllowSsh".to_owned(), 0));
    assert_eq!(rule_of(200), ("DenySsh".to_owned(), 1));

    // Also where no connection was known when they changed.
    let mut engine = engine_under(&rule("AllowSsh", "Inbound", "Allow", 22));
    declare(
        &mut engine,
        200,
        chain(&rule("DenySsh", "Inbound", "Deny", 22)),
    );
    let (record, _) = run(&mut engine, key, reading(199, [1, 1], [B, A]));
    assert_eq!(record.nsg.unwrap().rule.as_deref(), Some("AllowSsh"));
}

#[test]
fn however_often_rules_change_a_connection_keeps_its_own() {
    let mut engine = engine_under(&rule("AllowSsh", "Inbound", "Allow", 22));
    let (key, value) = (flow(true, 22), sent(true, B));
    step(&mut engine, Input::Flows(vec![(key, value)]));
    for second in 200..300 {
        declare(
            &mut engine,
            second,
            chain(&rule("DenySsh", "Inbound", "Deny", 22)),
        );
    }
    let records = engine.query(&FlowFilter::default(), None);
    assert_eq!(
        records[0].nsg.as_ref().unwrap().rule.as_deref(),
        Some("AllowSsh")
    );
    // Of sets of rules with connections of their own, only so many are kept.
    for second in 300..400 {
        let other = reading(second, [1, 1], [B, A]);
        declare(
            &mut engine,
            second,
            chain(&rule("DenySsh", "Inbound", "Deny", 22)),
        );
        let port = u16::try_from(second).unwrap();
        let key = key4(1, Protocol::TCP, 22, port);
        step(&mut engine, Input::Flows(vec![(key, other)]));
    }
    let outputs = step(&mut engine, Input::Removed(vec![(key, value)]));
    let [Record::Flow(record)] = &outputs.records[..] else {
        panic!("{outputs:?}")
    };
    let expected = record.nsg.as_ref().unwrap();
    assert_eq!(
        (expected.access, expected.rule.as_ref()),
        (Access::Indeterminate, None)
    );
    assert_eq!(expected.direction, Some(Direction::Inbound));
    let reason = expected.reason.as_deref().unwrap();
    assert!(reason.contains("no longer kept"), "{reason}");
    assert_eq!(record.finding, None);
}

#[test]
fn the_same_rules_again_are_no_new_ones_and_end_a_refusal() {
    let mut engine = engine();
    let rules = chain(&rule("AllowSsh", "Inbound", "Allow", 22));
    declare(&mut engine, 200, Arc::clone(&rules));
    let (key, value) = (flow(true, 22), sent(true, B));
    step(&mut engine, Input::Flows(vec![(key, value)]));
    for second in 201..401 {
        let error = "g.json:3: no".to_owned();
        step(&mut engine, Input::NsgRefused { error });
        declare(&mut engine, second, Arc::clone(&rules));
        // A connection of its own for every set of rules that there might be.
        let port = u16::try_from(second).unwrap();
        let key = key4(1, Protocol::TCP, 22, port);
        let other = reading(second, [1, 1], [B, A]);
        step(&mut engine, Input::Flows(vec![(key, other)]));
    }
    let status = engine.status().nsg.unwrap();
    assert_eq!(status.since, Timestamp::from_seconds(200));
    assert_eq!((status.refused, status.error), (200, None));
    let outputs = step(&mut engine, Input::Removed(vec![(key, value)]));
    let [Record::Flow(record)] = &outputs.records[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(
        record.nsg.as_ref().unwrap().rule.as_deref(),
        Some("AllowSsh")
    );
}

#[test]
fn flows_that_no_rule_is_for_keep_none() {
    let mut engine = engine_under(&rule("AllowSsh", "Inbound", "Allow", 22));
    let (key, value) = (flow(true, 22), sent(true, B));
    step(&mut engine, Input::Flows(vec![(key, value)]));
    for second in 200..300 {
        let deny = rule("DenySsh", "Inbound", "Deny", 22);
        declare(&mut engine, second, chain(&deny));
        let port = u16::try_from(second).unwrap();
        let pods = key4(2, Protocol::TCP, 22, port);
        let other = reading(second, [1, 1], [B, A]);
        step(&mut engine, Input::Flows(vec![(pods, other)]));
    }
    let outputs = step(&mut engine, Input::Removed(vec![(key, value)]));
    let [Record::Flow(record)] = &outputs.records[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(
        record.nsg.as_ref().unwrap().rule.as_deref(),
        Some("AllowSsh")
    );
}

#[test]
fn with_flush_connection_changed_rules_hold_for_open_connections() {
    for (flush, expected) in [("true", 1), ("false", 0)] {
        let mut engine = engine_under(&rule("AllowSsh", "Inbound", "Allow", 22));
        let key = flow(true, 22);
        let at = |last_seen, packets| FlowValue {
            last_seen_ticks: last_seen,
            ..reading(50, packets, [B, A])
        };
        step(&mut engine, Input::Flows(vec![(key, at(60, [3, 3]))]));
        let deny = rule("DenySsh", "Inbound", "Deny", 22);
        let changed = chain_with(&format!("\"flushConnection\":{flush},"), &deny);
        declare(&mut engine, 200, changed);
        step(&mut engine, Input::Clock(clock(300)));
        let mut found = |value| {
            let records = step(&mut engine, Input::Flows(vec![(key, value)])).records;
            records
                .iter()
                .filter(|record| matches!(record, Record::Finding(_)))
                .count()
        };
        // Nothing arrived since; only this node sent something; something arrived.
        assert_eq!(found(at(199, [3, 4])), 0, "{flush}");
        assert_eq!(found(at(201, [4, 4])), 0, "{flush}");
        assert_eq!(found(at(202, [4, 5])), expected, "{flush}");
        assert_eq!(found(at(203, [4, 6])), 0, "told once");
    }
}

#[test]
fn what_arrived_before_rules_changed_is_not_held_against_them() {
    let mut engine = engine_under(&rule("AllowSsh", "Inbound", "Allow", 22));
    let key = flow(true, 22);
    let at = |last_seen, packets| FlowValue {
        last_seen_ticks: last_seen,
        ..reading(50, packets, [B, A])
    };
    step(&mut engine, Input::Flows(vec![(key, at(60, [3, 3]))]));
    let deny = rule("DenySsh", "Inbound", "Deny", 22);
    declare(
        &mut engine,
        200,
        chain_with("\"flushConnection\":true,", &deny),
    );
    step(&mut engine, Input::Clock(clock(300)));
    // One reading: a packet received before the change, and one sent after it.
    let outputs = step(&mut engine, Input::Flows(vec![(key, at(201, [4, 4]))]));
    assert!(outputs.records.is_empty(), "{outputs:?}");
    let records = engine.query(&FlowFilter::default(), None);
    let judged = records[0].nsg.as_ref().unwrap();
    assert_eq!(judged.rule.as_deref(), Some("AllowSsh"));
}

#[test]
fn a_group_that_does_not_flush_keeps_its_connections() {
    let levels = |flushes: [Option<&str>; 2]| {
        let group = |flushes: Option<&str>| {
            let text = format!(
                "{{\"name\":\"g\",\"flushConnection\":{},\"securityRules\":[]}}",
                flushes?
            );
            let document = read::read("g.json", &text).unwrap();
            Some(document.choose(None, LevelKind::Subnet).unwrap())
        };
        let [subnet, nic] = flushes.map(group);
        let admin = None;
        Chain::new(Levels { admin, subnet, nic }, &Names::default()).flushes()
    };
    let (yes, no) = (Some("true"), Some("false"));
    assert!(levels([yes, yes]) && levels([yes, None]) && levels([None, yes]));
    assert!(!levels([yes, no]) && !levels([no, yes]) && !levels([None, None]));
}

/// What is said of a connection that is read for the first time.
fn first_said(engine: &mut Engine, port: u16, opened: u64) -> (Option<String>, Option<String>) {
    let key = key4(1, Protocol::TCP, 22, port);
    let (record, _) = run(engine, key, reading(opened, [1, 1], [B, A]));
    let judged = record.nsg.unwrap();
    (judged.rule.map(|rule| rule.to_string()), judged.reason)
}

#[test]
fn older_connections_are_not_judged_by_rules_that_came_later() {
    let mut engine = engine_with(Config {
        recent: 0,
        ..Config::default()
    });
    for second in [200, 300, 400, 500] {
        let name = format!("At{second}");
        let rules = chain(&rule(&name, "Inbound", "Deny", 22));
        declare(&mut engine, second, rules);
        if second == 200 {
            // Before the first ones it is taken to have been the same.
            let key = key4(1, Protocol::TCP, 22, 40_000);
            let value = reading(150, [1, 1], [B, A]);
            step(&mut engine, Input::Flows(vec![(key, value)]));
        }
    }
    step(&mut engine, Input::Clock(clock(600)));
    // Those of second 300 had no connection, and made room.
    let (judge, reason) = first_said(&mut engine, 40_001, 350);
    assert_eq!(judge, None);
    assert!(reason.unwrap().contains("no longer kept"));
    for (opened, expected) in [(150, "At200"), (299, "At200"), (450, "At400")] {
        let (judge, _) = first_said(&mut engine, 40_001, opened);
        assert_eq!(judge.as_deref(), Some(expected), "{opened}");
    }

    // Nor by the oldest that are kept, where the first ones are gone.
    let mut engine = engine_with(Config::default());
    for second in [200, 300, 400] {
        let rules = chain(&rule(&format!("At{second}"), "Inbound", "Deny", 22));
        declare(&mut engine, second, rules);
    }
    step(&mut engine, Input::Clock(clock(600)));
    let (judge, reason) = first_said(&mut engine, 40_001, 250);
    assert_eq!(judge, None);
    assert!(reason.unwrap().contains("no longer kept"));
    let (judge, _) = first_said(&mut engine, 40_001, 350);
    assert_eq!(judge.as_deref(), Some("At300"));
}

#[test]
fn long_lists_count_for_what_past_rules_may_take() {
    const MOST_BYTES: usize = 64 << 20;
    let list: Vec<_> = (0..10_000_u32)
        .map(|number| {
            format!(
                "\"{}\"",
                std::net::Ipv4Addr::from_bits(0x0b00_0000 + 2 * number)
            )
        })
        .collect();
    let long = |name: &str| {
        let rule = rule(name, "Inbound", "Deny", 22).replace(
            "\"sourceAddressPrefix\":\"*\"",
            &format!("\"sourceAddressPrefixes\":[{}]", list.join(",")),
        );
        chain(&rule)
    };
    let rules = [long("A"), long("B")];
    let sets = MOST_BYTES / rules[0].kept_bytes() + 2;
    assert!(sets < 60, "{sets}: the number of sets would do");
    let mut engine = engine_under("");
    let mut opened = Vec::new();
    for (set, number) in (0..sets).zip(0_u16..) {
        let second = 200 + u64::from(number);
        declare(&mut engine, second, Arc::clone(&rules[set % 2]));
        let key = key4(1, Protocol::TCP, 22, 40_000 + number);
        let value = reading(second, [1, 1], [B, A]);
        step(&mut engine, Input::Flows(vec![(key, value)]));
        opened.push((key, value));
    }
    let outputs = step(&mut engine, Input::Removed(vec![opened[0]]));
    let Some(Record::Flow(record)) = outputs.records.last() else {
        panic!("{outputs:?}")
    };
    let reason = record.nsg.as_ref().unwrap().reason.as_deref();
    assert!(
        reason.unwrap_or("").contains("no longer kept"),
        "{reason:?}"
    );
}

#[test]
fn connections_are_counted_by_rule() {
    let mut engine = engine_under(&rule("DenySsh", "Inbound", "Deny", 22));
    run(&mut engine, flow(true, 22), sent(true, B));
    run(&mut engine, flow(false, 443), sent(false, B));
    let samples = |metric| rows(&engine, metric);
    assert_eq!(
        samples(Metric::NsgConnections),
        [
            "g,AllowInternetOutBound,Allow,outbound,established Counter(1)",
            "g,DenySsh,Deny,inbound,established Counter(1)",
        ]
    );
    assert_eq!(
        samples(Metric::NsgRuleLastMatch),
        ["g,AllowInternetOutBound Gauge(50)", "g,DenySsh Gauge(50)"]
    );
    assert_eq!(
        samples(Metric::NsgRuleMatches),
        [
            "g,AllowAzureLoadBalancerInBound Counter(0)",
            "g,AllowInternetOutBound Counter(1)",
            "g,AllowVnetInBound Counter(0)",
            "g,AllowVnetOutBound Counter(0)",
            "g,DenyAllInBound Counter(0)",
            "g,DenyAllOutBound Counter(0)",
            "g,DenySsh Counter(1)",
        ],
        "rules that never matched have a row, too"
    );
}

/// Labels and values of a metric.
fn rows(engine: &Engine, metric: Metric) -> Vec<String> {
    let mut lines = Vec::new();
    let rows = engine.snapshot().rows;
    rows.samples(metric, |labels, value| {
        let labels: Vec<_> = labels.iter().map(|(_, value)| *value).collect();
        lines.push(format!("{} {value:?}", labels.join(",")));
        Ok::<_, ()>(())
    })
    .unwrap();
    lines
}

#[test]
fn rows_of_rules_end_with_the_rules() {
    let mut engine = engine_with(Config {
        recent: 0,
        ..Config::default()
    });
    // As load balancer rules of AKS do, whose names change with every Service.
    for number in 0..20 {
        let name = format!("R{number}");
        declare(
            &mut engine,
            100 + number,
            chain(&rule(&name, "Inbound", "Allow", 22)),
        );
        run(
            &mut engine,
            flow(true, 22),
            reading(100 + number, [1, 1], [B, A]),
        );
    }
    assert_eq!(
        rows(&engine, Metric::NsgConnections),
        [
            "g,R18,Allow,inbound,established Counter(1)",
            "g,R19,Allow,inbound,established Counter(1)",
        ],
        "of the rules in force and of those before"
    );
    assert_eq!(rows(&engine, Metric::NsgRuleMatches).len(), 8);
    assert_eq!(rows(&engine, Metric::NsgRuleLastMatch).len(), 2);
}

#[test]
fn refused_documents_leave_the_rules_in_force_and_status_says_so() {
    let mut engine = engine();
    let refused = || Input::NsgRefused {
        error: "g.json:3: no".to_owned(),
    };
    step(&mut engine, refused());
    assert_eq!(engine.status().nsg, None, "nothing is declared");
    step(
        &mut engine,
        Input::Nsg(Some(chain(&rule("DenySsh", "Inbound", "Deny", 22)))),
    );
    run(&mut engine, flow(true, 22), sent(true, B));
    step(&mut engine, refused());
    let status = engine.status().nsg.unwrap();
    assert_eq!(
        (status.refused, status.error.as_deref()),
        (2, Some("g.json:3: no"))
    );
    assert_eq!(status.since, Timestamp::from_seconds(100));
    assert_eq!(status.rules.len(), 7);
    let first = &status.rules[0];
    assert_eq!(
        (&*first.place, &*first.rule, first.priority),
        ("subnet", "DenySsh", 100)
    );
    assert_eq!(
        (first.connections, first.last),
        (1, Some(Timestamp::from_seconds(50)))
    );
    assert_eq!(
        (status.rules[1].connections, status.rules[1].last),
        (0, None)
    );
    let (record, _) = run(&mut engine, flow(true, 22), reading(60, [1, 1], [B, A]));
    assert_eq!(
        record.nsg.unwrap().rule.as_deref(),
        Some("DenySsh"),
        "still in force"
    );
    step(&mut engine, Input::Nsg(Some(chain(""))));
    assert_eq!(engine.status().nsg.unwrap().error, None);
}
