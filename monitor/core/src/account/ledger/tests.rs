use monitor_common::abi::{Counters, Hook, Reason, Uncounted};

use super::*;

fn interface(id: u32, name: &str, point: Point) -> Interface {
    Interface {
        id,
        ifindex: 100 + id,
        name: name.into(),
        point,
        attach: "tcx".into(),
        covered: true,
        reason: None,
        attached_ns: None,
    }
}

/// An account with these packets seen by hook, of which `missing` were not IP on ingress.
fn account(id: u32, seen: [u64; 2], missing: u64) -> InterfaceAccount {
    let mut uncounted = Uncounted::default();
    uncounted.packets[Hook::Ingress as usize][Reason::NotIp as usize] = missing;
    let counted = [seen[0] - missing, seen[1]];
    let bytes = counted.map(|packets| packets * 100);
    InterfaceAccount {
        id,
        counters: Counters {
            seen,
            counted,
            buffers: seen,
            bytes,
        },
        uncounted,
    }
}

fn delta(packets: [u64; 2]) -> Delta {
    Delta {
        packets,
        bytes: packets.map(|packets| packets * 100),
        ..Delta::default()
    }
}

/// All samples, as `metric labels value`, in order.
fn samples(ledger: &Ledger) -> Vec<String> {
    let mut samples = Vec::new();
    ledger.samples(&mut samples);
    samples
        .iter()
        .map(|sample| {
            let labels: Vec<_> = sample
                .labels
                .iter()
                .map(|text| match text {
                    Text::Static(text) => (*text).to_owned(),
                    Text::Shared(text) => text.to_string(),
                })
                .collect();
            let name = sample.metric.definition().name;
            format!("{name} {} {:?}", labels.join(" "), sample.value)
        })
        .collect()
}

fn seen(ledger: &Ledger) -> Vec<String> {
    let prefix = "nodewatch_packets_seen_total ";
    samples(ledger)
        .iter()
        .filter_map(|line| line.strip_prefix(prefix))
        .map(str::to_owned)
        .collect()
}

#[test]
fn removed_workload_interfaces_are_summed_up() {
    let mut ledger = Ledger::default();
    ledger.announce(interface(1, "eth0", Point::Uplink));
    ledger.announce(interface(2, "veth1", Point::Workload));
    ledger.announce(interface(3, "veth2", Point::Workload));
    ledger.account(
        &[
            account(1, [10, 1], 0),
            account(2, [20, 2], 0),
            account(3, [40, 4], 0),
        ],
        true,
    );
    // Connections keep the account until they are closed.
    ledger.opened(2);
    ledger.gone(2);
    ledger.gone(3);
    let expected = [
        "eth0 ingress  Counter(10)",
        "eth0 egress  Counter(1)",
        "removed ingress  Counter(60)",
        "removed egress  Counter(6)",
    ];
    assert_eq!(seen(&ledger), expected);
    assert!(ledger.interface(2).is_some());
    ledger.closed(2);
    assert!(ledger.interface(2).is_none());
    assert_eq!(seen(&ledger), expected);

    // An uplink that comes back under its name goes on where it was.
    ledger.gone(1);
    ledger.announce(interface(4, "eth0", Point::Uplink));
    ledger.account(&[account(4, [5, 0], 0)], true);
    assert_eq!(
        seen(&ledger)[..2],
        ["eth0 ingress  Counter(15)", "eth0 egress  Counter(1)"]
    );
    assert_eq!(ledger.totals().counters.seen, [75, 7]);
}

#[test]
fn counters_never_go_backwards() {
    let mut ledger = Ledger::default();
    ledger.announce(interface(1, "eth0", Point::Uplink));
    ledger.account(&[account(1, [10, 5], 2)], true);
    ledger.account(&[account(1, [9, 6], 0)], true);
    assert_eq!(ledger.totals().counters.seen, [10, 6]);
    assert_eq!(ledger.totals().uncounted(Hook::Ingress), 2);
}

#[test]
fn reasons_are_sampled_where_they_occur() {
    let mut ledger = Ledger::default();
    ledger.announce(interface(1, "eth0", Point::Uplink));
    ledger.announce(interface(2, "veth1", Point::Workload));
    ledger.account(&[account(2, [10, 0], 3)], true);
    let lines = samples(&ledger);
    let uncounted = |name: &str| -> Vec<&String> {
        let prefix = format!("nodewatch_packets_uncounted_total {name} ");
        lines
            .iter()
            .filter(|line| line.starts_with(&prefix))
            .collect()
    };
    assert_eq!(uncounted("eth0").len(), 2 * Reason::ALL.len());
    assert_eq!(
        uncounted("veth1"),
        ["nodewatch_packets_uncounted_total veth1 ingress not_ip Counter(3)"]
    );
}

#[test]
fn without_a_reading_before_the_flows_only_quiet_interfaces_are_judged() {
    let mut ledger = Ledger::default();
    ledger.announce(interface(1, "eth0", Point::Uplink));
    let difference = |ledger: &Ledger| ledger.status()[0].difference;

    // Packets pass: no judgement.
    ledger.account(&[account(1, [10, 5], 2)], true);
    assert_eq!(difference(&ledger), None);
    // Quiet, but a flow is not understood yet.
    ledger.account(&[account(1, [10, 5], 2)], false);
    assert_eq!(difference(&ledger), None);
    // Quiet: the flows have 3 of 13 packets.
    ledger.opened(1);
    ledger.advanced(1, &delta([2, 1]));
    ledger.account(&[account(1, [10, 5], 2)], true);
    let found = Difference {
        flow_packets: 10,
        flow_bytes: 1_000,
        ..Difference::default()
    };
    assert_eq!(difference(&ledger), Some(found));
    // The rest came.
    ledger.advanced(1, &delta([10, 0]));
    ledger.account(&[account(1, [10, 5], 2)], true);
    assert!(difference(&ledger).unwrap().is_none());
    // Packets pass again: the last judgement stands.
    ledger.account(&[account(1, [99, 5], 2)], true);
    assert!(difference(&ledger).unwrap().is_none());
    let lines = samples(&ledger);
    let line = "nodewatch_accounting_difference_packets eth0 both flows Gauge(0)";
    assert!(lines.iter().any(|found| found == line), "{lines:#?}");
}

/// A busy interface: 100 packets pass while the maps are read, of which the flows have some.
#[test]
fn what_is_missing_is_found_on_a_busy_interface() {
    let mut ledger = Ledger::default();
    ledger.announce(interface(1, "eth0", Point::Uplink));
    ledger.opened(1);
    let mut counted = 0;
    // Each pass: what the flows advance by, and what becomes of the judgement.
    let mut pass = |advance: u64| {
        let accounts = |seen| [account(1, [seen, 0], 0)];
        ledger.account_begins(&accounts(counted));
        ledger.advanced(1, &delta([advance, 0]));
        counted += 100;
        ledger.account(&accounts(counted), true);
        let difference = ledger.status()[0].difference;
        difference.map(|found| (found.flow_packets, found.flow_bytes))
    };
    assert_eq!(pass(50), None, "one check is not enough");
    for advance in [100, 150, 50, 100] {
        assert_eq!(pass(advance), Some((0, 0)), "as it should be");
    }
    // One reading does not fit: a packet was on its way.
    assert_eq!(pass(151), Some((0, 0)));
    assert_eq!(pass(99), Some((0, 0)));
    // From here on the flows do not get all.
    let found: Vec<_> = [50, 50, 50, 50].map(&mut pass).into();
    assert_eq!(found[1], Some((0, 0)), "it may be on its way: {found:?}");
    assert!(
        found[3].is_some_and(|(packets, _)| packets > 0),
        "{found:?}"
    );
    // All of it again: what is lost stays lost.
    let lost = pass(100).expect("a judgement");
    assert!(lost.0 > 0 && lost.1 == lost.0 * 100, "{lost:?}");
    assert_eq!(pass(100), Some(lost));
    // Packets that are nobody's.
    let found: Vec<_> = [300, 300, 300].map(&mut pass).into();
    assert!(
        found[2].is_some_and(|(packets, _)| packets < 0),
        "{found:?}"
    );
}

#[test]
fn reasons_that_are_read_later_are_no_difference() {
    let mut ledger = Ledger::default();
    ledger.announce(interface(1, "eth0", Point::Uplink));
    for pass in 0..4 {
        let before = account(1, [pass * 100, 0], pass * 10);
        let mut after = account(1, [pass * 100 + 50, 0], pass * 10 + 5);
        // Three packets without a flow came between both readings.
        after.uncounted.packets[Hook::Ingress as usize][Reason::NotIp as usize] += 3;
        ledger.account_begins(&[before]);
        ledger.account(&[after], true);
    }
    let found = ledger.status()[0].difference.expect("a judgement");
    assert_eq!((found.ingress, found.egress), (0, 0));
}

#[test]
fn uncovered_interfaces_say_so() {
    let mut ledger = Ledger::default();
    let covered = interface(1, "eth0", Point::Uplink);
    ledger.announce(Interface {
        covered: false,
        attach: "none".into(),
        ..covered.clone()
    });
    let line = |covered: &str| format!("nodewatch_interface_covered eth0 uplink {covered}");
    assert!(samples(&ledger).contains(&line("none Gauge(0)")));
    ledger.announce(covered);
    assert!(samples(&ledger).contains(&line("tcx Gauge(1)")));
    ledger.gone(1);
    assert!(!samples(&ledger).iter().any(|line| line.contains("covered")));
}

#[test]
fn packets_of_unknown_interfaces_are_accounted_for() {
    let mut ledger = Ledger::default();
    // The slot for interfaces without one is expected, any other unknown account is not.
    assert_eq!(
        ledger.account(&[account(0, [3, 0], 3), account(9, [1, 0], 0)], true),
        1
    );
    assert_eq!(ledger.totals().counters.seen, [4, 0]);
    assert_eq!(seen(&ledger)[0], "unknown ingress  Counter(4)");
    let (_, is_gone, is_known) = ledger.opened(10);
    assert_eq!((is_gone, is_known), (false, false));
}
