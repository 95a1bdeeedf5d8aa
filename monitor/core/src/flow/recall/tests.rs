use monitor_common::abi::{FlowValue, flag::FIRST};

use super::*;
use crate::fixture::{SECOND, key4, tracked, value};

const UPLINK: Point = Point::Uplink;
const UDP: Protocol = Protocol::UDP;

/// An interface that was attached to then.
fn interface(point: Point, attached_ns: Option<u64>) -> Interface {
    Interface {
        id: 1,
        ifindex: 2,
        name: "eth0".into(),
        point,
        attach: "tcx".into(),
        covered: attached_ns.is_some(),
        reason: None,
        attached_ns,
    }
}

/// A flow whose first packet came then, in this direction.
fn flow(seconds: u64, first: usize, packets: [u64; 2]) -> Tracked {
    let mut flags = [0; 2];
    flags[first] = FIRST;
    tracked(&FlowValue {
        first_seen_ns: seconds * SECOND,
        flags,
        ..value(packets)
    })
}

/// The protocol, the ports, and whether a first packet received then may be of an older flow.
#[track_caller]
fn check(recall: &Recall, protocol: Protocol, ports: [u16; 2], seconds: u64, expected: bool) {
    let key = key4(1, protocol, ports[0], ports[1]);
    let watched = interface(Point::Uplink, Some(SECOND));
    let found = recall.may_be_older(&key, &flow(seconds, RX, [0, 1]), &watched);
    assert_eq!(found, expected, "{protocol} {ports:?} at {seconds}");
}

#[test]
fn what_a_client_sends_first_opens_a_flow_at_once() {
    let recall = Recall::default();
    for ports in [[53, 40_000], [1_023, 32_768], [53, 1_024]] {
        check(&recall, UDP, ports, 2, false);
    }
    // A TCP connection is told by its SYN, an echo by its type.
    check(&recall, Protocol::TCP, [40_000, 443], 2, false);
    check(&recall, Protocol::ICMP, [7, 0x800], 2, false);
}

#[test]
fn what_may_be_an_answer_opens_a_flow_once_an_older_one_would_be_forgotten() {
    let recall = Recall::default();
    for ports in [
        [40_000, 53],
        [40_000, 8_801],
        [4_000, 53],
        [51_820, 51_820],
        [123, 123],
        [4_500, 4_501],
        // Of a kernel that gives out lower ports, to a service that has a higher one.
        [20_000, 51_820],
        [32_767, 32_768],
        [1_024, 40_000],
    ] {
        check(&recall, UDP, ports, 300, true);
        check(&recall, UDP, ports, 301, false);
    }
    check(&recall, Protocol(50), [0, 0], 300, true);
    check(&recall, Protocol(50), [0, 0], 301, false);
}

#[test]
fn at_a_pods_interface_a_clients_port_tells_at_once() {
    let watched = interface(Point::Workload, Some(SECOND));
    for (ports, expected) in [([8_801, 40_000], false), ([40_000, 8_801], true)] {
        let key = key4(1, UDP, ports[0], ports[1]);
        let found = Recall::default().may_be_older(&key, &flow(2, RX, [0, 1]), &watched);
        assert_eq!(found, expected, "{ports:?}");
    }
}

#[test]
fn an_error_and_a_reply_of_icmp_open_nothing() {
    let recall = Recall::default();
    for kind in [3_u16, 4, 5, 11, 12, 14, 16, 18] {
        check(&recall, Protocol::ICMP, [0, kind << 8], 9_999, true);
    }
    for kind in [1_u16, 2, 3, 4, 127] {
        check(&recall, Protocol::ICMPV6, [0, kind << 8], 9_999, true);
    }
    // A question, and a neighbour that solicits.
    check(&recall, Protocol::ICMP, [0, 13 << 8], 9_999, false);
    check(&recall, Protocol::ICMPV6, [0, 135 << 8], 9_999, false);
}

#[test]
fn where_nobody_knows_since_when_answers_remain_guesses() {
    let recall = Recall::default();
    let at = |ports: [u16; 2]| {
        let key = key4(1, UDP, ports[0], ports[1]);
        let watched = interface(Point::Uplink, None);
        recall.may_be_older(&key, &flow(9_999, RX, [0, 1]), &watched)
    };
    assert!(at([40_000, 53]));
    assert!(!at([123, 123]));
    assert!(!at([53, 40_000]));
    assert!(!at([20_000, 51_820]));
}

#[test]
fn on_a_new_pods_interface_no_flow_is_older() {
    for (point, announced, is_refused, expected) in [
        (Point::Workload, 130, false, false),
        // With the others at the start; not watched at first; a card that got the default route.
        (Point::Workload, 129, false, true),
        (Point::Workload, 130, true, true),
        (Point::Uplink, 130, false, true),
    ] {
        let mut recall = Recall::default();
        let other = interface(Point::Uplink, None);
        recall.announced(&Interface { id: 9, ..other }, Timestamp::from_seconds(100));
        let now = Timestamp::from_seconds(announced);
        recall.announced(&interface(point, None), now);
        if is_refused {
            let reason = Some("no room".into());
            let refused = interface(point, None);
            recall.announced(&Interface { reason, ..refused }, now);
        }
        let watched = interface(point, Some(131 * SECOND));
        recall.announced(&watched, now);
        let key = key4(1, UDP, 40_000, 8_801);
        let mut value = flow(140, RX, [0, 1]);
        let found = recall.may_be_older(&key, &value, &watched);
        assert_eq!(found, expected, "{point} {announced} {is_refused}");
        // What was forgotten is remembered there, too.
        value.packets = [1, 1];
        recall.closed(&key, &value, point, value.last_seen_ns);
        assert!(recall.may_be_older(&key, &flow(200, RX, [0, 1]), &watched));
    }
}

#[test]
fn a_flow_that_was_forgotten_may_go_on_for_five_minutes() {
    let mut recall = Recall::default();
    let key = key4(1, UDP, 40_000, 8_801);
    let mut old = flow(1_000, TX, [3, 2]);
    old.last_seen_ns = 1_100 * SECOND + 5;
    recall.closed(&key, &old, UPLINK, old.last_seen_ns);
    check(&recall, UDP, [40_000, 8_801], 1_400, true);
    check(&recall, UDP, [40_000, 8_801], 1_401, false);
    // Another flow is not.
    check(&recall, UDP, [40_001, 8_801], 1_200, false);
}

#[test]
fn who_opened_it_counts_more_than_ports() {
    // A kernel that gives out ports from 1024 on, and a service at a higher one.
    let key = key4(1, UDP, 20_000, 51_820);
    let mut recall = Recall::default();
    let mut old = flow(1_000, TX, [3, 2]);
    old.last_seen_ns = 1_100 * SECOND;
    recall.closed(&key, &old, UPLINK, old.last_seen_ns);
    check(&recall, UDP, [20_000, 51_820], 1_300, true);
    check(&recall, UDP, [20_000, 51_820], 1_401, false);
    // Also where nothing answered yet.
    let mut recall = Recall::default();
    recall.closed(&key, &flow(1_000, TX, [3, 0]), UPLINK, 1_000 * SECOND);
    check(&recall, UDP, [20_000, 51_820], 1_200, true);
    // That keepalive belongs to the same flow, and so does the next one.
    let mut later = flow(1_200, RX, [0, 1]);
    later.set(Mark::Unsettled, true);
    recall.closed(&key, &later, UPLINK, later.last_seen_ns);
    check(&recall, UDP, [20_000, 51_820], 1_400, true);
    check(&recall, UDP, [20_000, 51_820], 1_502, false);
    // Where the other end did open it, it opens the next one, too.
    let mut recall = Recall::default();
    recall.closed(&key, &flow(1_000, RX, [2, 3]), UPLINK, 1_000 * SECOND);
    check(&recall, UDP, [20_000, 51_820], 1_200, false);
    // A service below 1024 that was the first to send.
    let mut recall = Recall::default();
    let key = key4(1, UDP, 500, 40_000);
    recall.closed(&key, &flow(1_000, TX, [3, 2]), UPLINK, 1_000 * SECOND);
    check(&recall, UDP, [500, 40_000], 1_200, true);
}

#[test]
fn what_only_a_server_sent_has_no_client_to_answer() {
    let mut recall = Recall::default();
    let key = key4(1, UDP, 40_000, 8_801);
    recall.closed(&key, &flow(1_000, RX, [0, 5]), UPLINK, 1_000 * SECOND);
    check(&recall, UDP, [40_000, 8_801], 1_100, false);
    // Unless it may have gone on from before.
    let mut unsettled = flow(1_000, RX, [0, 5]);
    unsettled.set(Mark::Unsettled, true);
    recall.closed(&key, &unsettled, UPLINK, unsettled.last_seen_ns);
    check(&recall, UDP, [40_000, 8_801], 1_100, true);
}

#[test]
fn while_packets_find_no_room_nothing_is_known() {
    let mut recall = Recall::default();
    recall.refused(0, 1_000 * SECOND);
    check(&recall, UDP, [40_000, 53], 1_001, false);
    recall.refused(7, 1_000 * SECOND);
    check(&recall, UDP, [40_000, 53], 1_299, true);
    check(&recall, UDP, [53, 40_000], 1_001, false);
    // The same count again is no new packet.
    recall.refused(7, 1_200 * SECOND);
    check(&recall, UDP, [40_000, 53], 1_300, false);
}

#[test]
fn memory_is_bounded_and_what_does_not_fit_is_not_taken_for_known() {
    let mut recall = Recall::default();
    let close = |recall: &mut Recall, number: u32, at: u64| {
        let [high, low] = [number >> 14, number & 0x3fff];
        let port = |part: u32, base| u16::try_from(part).unwrap() + base;
        let key = key4(1, UDP, port(low, 40_000), port(high, 8_000));
        recall.closed(&key, &flow(at, TX, [1, 0]), UPLINK, at * SECOND);
    };
    let most = u32::try_from(MOST).unwrap();
    for number in 0..most {
        close(&mut recall, number, 1_000);
    }
    assert_eq!(recall.memories[UPLINK as usize].forgotten.len(), MOST);
    // Old ones make room.
    close(&mut recall, most, 2_000);
    assert_eq!(
        (
            recall.memories[UPLINK as usize].forgotten.len(),
            recall.memories[UPLINK as usize].blind_until_ns
        ),
        (1, 0)
    );
    assert_eq!(recall.given_up(), 0, "they were over");
    for number in 0..=most {
        close(&mut recall, number, 2_000);
    }
    assert!(recall.memories[UPLINK as usize].forgotten.len() < MOST);
    assert_eq!(recall.given_up(), u64::from(most));
    // A second that has begun is not over.
    check(&recall, UDP, [1_024, 53], 2_300, true);
    check(&recall, UDP, [1_024, 53], 2_301, false);
    // Workloads' interfaces are another matter.
    let others = &recall.memories[Point::Workload as usize];
    assert_eq!(others.blind_until_ns, 0);
    let told = |point, at| recall.blind_until_ns(point, [].iter(), at * SECOND);
    let blind = Some((2_301 * SECOND, Blinded::Forgotten));
    assert_eq!(told(UPLINK, 2_300), blind);
    assert_eq!(told(UPLINK, 2_301), None);
    assert_eq!(told(Point::Workload, 2_300), None);
}

#[test]
fn no_flow_that_made_room_is_forgotten_before_its_time() {
    // Flows are given up after a while without packets; which one finds no room is a matter of luck.
    let number = |number: usize| u16::try_from(number).unwrap();
    let close = |recall: &mut Recall, index: usize, last_seen: u64, now: u64| {
        let ports = [number(index & 0x3fff) + 40_000, number(index >> 14) + 8_000];
        let key = key4(1, UDP, ports[0], ports[1]);
        recall.closed(&key, &flow(last_seen, TX, [1, 0]), UPLINK, now * SECOND);
    };
    for idle in [0, 20, 120] {
        let mut recall = Recall::default();
        for index in 0..MOST {
            close(&mut recall, index, 1_120 - 100 * (index % 2) as u64, 1_120);
        }
        close(&mut recall, MOST, 1_120 - idle, 1_120);
        assert_eq!(recall.given_up(), MOST as u64);
        check(&recall, UDP, [1_024, 53], 1_420, true);
        check(&recall, UDP, [1_024, 53], 1_421, false);
    }
    // What is over by now makes room, however long ago the flow that needs it was heard of.
    let mut recall = Recall::default();
    for index in 0..MOST {
        close(&mut recall, index, 1_000, 1_120);
    }
    close(&mut recall, MOST, 1_290, 1_310);
    assert_eq!(recall.given_up(), 0);
    assert_eq!(recall.memories[UPLINK as usize].forgotten.len(), 1);
}

#[test]
fn it_is_told_why_and_until_when_first_packets_tell_little() {
    let mut recall = Recall::default();
    let watched = [
        interface(UPLINK, Some(100 * SECOND)),
        interface(UPLINK, Some(SECOND)),
        interface(Point::Workload, None),
    ];
    let told =
        |recall: &Recall, point, at| recall.blind_until_ns(point, watched.iter(), at * SECOND);
    let attached = Some((400 * SECOND, Blinded::Attached));
    assert_eq!(told(&recall, UPLINK, 200), attached);
    assert_eq!(told(&recall, UPLINK, 400), None);
    // A replay takes its capture for complete.
    assert_eq!(told(&recall, Point::Workload, 200), None);
    // What lasts longer is told, as long as it does.
    recall.refused(7, 200 * SECOND);
    let refused = Some((500 * SECOND, Blinded::Refused));
    for point in [UPLINK, Point::Workload] {
        assert_eq!(told(&recall, point, 250), refused);
        assert_eq!(told(&recall, point, 500), None);
    }
}
#[test]
fn what_others_send_to_an_uplink_takes_no_room() {
    let mut recall = Recall::default();
    let key = key4(1, UDP, 8_801, 40_000);
    for (point, kept) in [(UPLINK, 0), (Point::Workload, 1)] {
        recall.closed(&key, &flow(1_000, RX, [0, 5]), point, 1_000 * SECOND);
        assert_eq!(recall.memories[point as usize].forgotten.len(), kept);
    }
    recall.closed(&key, &flow(1_000, RX, [1, 5]), UPLINK, 1_000 * SECOND);
    assert_eq!(recall.memories[UPLINK as usize].forgotten.len(), 1);
}

#[test]
fn a_late_answer_of_dns_opens_nothing() {
    let mut recall = Recall::default();
    let key = key4(1, UDP, 40_000, 53);
    let mut query = flow(1_000, TX, [2, 1]);
    query.app = App::Dns as u8;
    recall.closed(&key, &query, UPLINK, query.last_seen_ns);
    check(&recall, UDP, [40_000, 53], 1_030, true);
    check(&recall, UDP, [40_000, 53], 1_031, false);
}
