//! Interfaces that are renamed, moved, replaced, or cannot be attached to.

use std::collections::BTreeSet;
use std::time::Duration;

use tests::account::{self, COVERED};
use tests::daemon::Daemon;
use tests::foreign::{self, Direction};
use tests::held::Held;
use tests::lab::{self, Lab, NODE, Namespace, UPLINK, client, process, wait};

/// How long the daemon may take to tell a change.
const TOLD: Duration = Duration::from_secs(4);

/// A network plugin makes the pair under other names, moves one end and renames the other.
#[test]
fn renamed_and_moved_interfaces_are_followed() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("rename").expect("a lab");
    let node = lab.node();
    let daemon = Daemon::start(node, &[]).expect("the daemon");
    let peer = lab.add_inside().expect("a namespace for the other end");
    // Both names while they are new: one that is a workload's, one that is not.
    node.ip(&[
        "link",
        "add",
        "tmp0",
        "type",
        "veth",
        "peer",
        "name",
        "vethmoved",
    ])
    .expect("a pair");
    wait_names(&daemon, &[UPLINK, "vethmoved"]);
    node.ip(&[
        "link",
        "set",
        "vethmoved",
        "netns",
        peer.name(),
        "name",
        "eth9",
    ])
    .expect("moved");
    wait_names(&daemon, &[UPLINK]);
    node.ip(&["link", "set", "tmp0", "name", "vethnew"])
        .expect("renamed");
    wait_names(&daemon, &[UPLINK, "vethnew"]);
    node.ip(&["link", "set", "vethnew", "name", "other"])
        .expect("renamed");
    wait_names(&daemon, &[UPLINK]);
    let there = programs(node, "other");
    assert_eq!(
        there, 0,
        "programs on an interface that is no longer watched"
    );
    node.ip(&["link", "set", "other", "name", "vethagain"])
        .expect("renamed");
    wait_names(&daemon, &[UPLINK, "vethagain"]);
    node.ip(&["link", "delete", "vethagain"]).expect("deleted");
    wait_names(&daemon, &[UPLINK]);
    let held = Held::by(daemon.pid()).expect("the daemon runs");
    assert_eq!(
        held.slots_in_use("INTERFACES").expect("slots"),
        1,
        "slots in use"
    );
    assert!(
        daemon.stop().expect("an end").status.success(),
        "an orderly end"
    );
}

#[test]
fn the_uplink_follows_the_default_route() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("route").expect("a lab");
    let node = lab.node();
    let daemon = Daemon::start(node, &[]).expect("the daemon");
    wait_names(&daemon, &[UPLINK]);
    node.ip_batch(
        "link add eth1 type veth peer name far1\n\
         link set eth1 up\n\
         link set far1 up\n\
         addr add 10.99.0.1/24 dev eth1\n\
         route replace default via 10.99.0.2 dev eth1\n\
         route del default via fd00:224::1\n",
    )
    .expect("another default route");
    wait_names(&daemon, &["eth1"]);
    assert_eq!(programs(node, UPLINK), 0, "programs on the former uplink");
    node.ip_batch("route replace default via 10.224.0.1\n")
        .expect("the first route");
    wait_names(&daemon, &[UPLINK]);
    let gateway = ["icmp", "--to", "10.224.0.1", "--count", "5"];
    assert_eq!(client::send(node, &gateway).expect("a report").received, 5);
    let counted = wait::until("packets", TOLD, || {
        let accounts = account::read(&daemon.metrics().expect("a scrape"));
        let mut uplink = accounts
            .iter()
            .filter(|account| account.interface == UPLINK);
        uplink
            .all(|account| account.counted >= 5 && account.balances())
            .then_some(())
    });
    assert!(
        counted.is_ok(),
        "{:?}",
        daemon.metrics().map(|metrics| account::read(&metrics))
    );
}

/// Behind a filter of priority 1 a clsact filter sees nothing, and an `ingress` qdisc keeps clsact
/// out: nothing is attached, nothing is displaced, and the metrics say so.
#[test]
fn where_there_is_no_room_nothing_is_attached() {
    let Some(_permit) = lab::require_with(&["tc"]) else {
        return;
    };
    for obstacle in ["priority 1", "ingress qdisc"] {
        let lab = Lab::new("room").expect("a lab");
        let node = lab.node();
        let pod = lab.add_pod().expect("a pod");
        let link = pod.host_interface.as_str();
        if obstacle == "priority 1" {
            foreign::add_filters(node, link, 1).expect("filters");
        } else {
            let qdisc = ["qdisc", "add", "dev", link, "ingress"];
            process::checked(node.command("tc").args(qdisc)).expect("a qdisc");
        }
        let before = foreign::show_filters(node, link).expect("tc");
        let daemon = Daemon::start(node, &["--attach", "clsact"]).expect("the daemon");
        let told = wait::until("metrics of both interfaces", TOLD, || {
            let metrics = daemon.metrics().expect("a scrape");
            let covered = |name| {
                metrics
                    .select(COVERED, &[("interface", name)])
                    .next()
                    .cloned()
            };
            Some((covered(UPLINK)?.value, covered(link)?.value))
        });
        assert_eq!(told.ok(), Some((1.0, 0.0)), "{obstacle}: {}", daemon.log());
        assert!(
            daemon.log().contains(link),
            "{obstacle}: no word of {link}: {}",
            daemon.log()
        );
        let node4 = NODE.v4.to_string();
        let report = client::send(&pod, &["icmp", "--to", &node4, "--count", "5"]);
        assert_eq!(
            report.expect("a report").received,
            5,
            "{obstacle}: traffic goes on"
        );
        assert_eq!(
            foreign::show_filters(node, link).expect("tc"),
            before,
            "{obstacle}: while it runs"
        );
        assert!(
            daemon.stop().expect("an end").status.success(),
            "an orderly end"
        );
        assert_eq!(
            foreign::show_filters(node, link).expect("tc"),
            before,
            "{obstacle}: after it"
        );
    }
}

#[test]
fn chosen_interfaces_replace_the_default() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("chosen").expect("a lab");
    let pods = [lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod")];
    let [first, second] = pods.each_ref().map(|pod| pod.host_interface.as_str());
    let daemon = Daemon::start(lab.node(), &["--uplink", first, "--workload", "none*"]);
    let daemon = daemon.expect("the daemon");
    wait_names(&daemon, &[first]);
    assert_eq!(programs(lab.node(), second), 0, "{second} was not chosen");
    let metrics = daemon.metrics().expect("a scrape");
    let labels = [("interface", first), ("point", "uplink")];
    assert!(metrics.sum(COVERED, &labels) > 0.5, "{first} is no uplink");
}

/// An interface sits in one of four slots, by its index: of five whose indices are 1024 apart, one
/// has to wait until another goes.
#[test]
fn a_slot_that_becomes_free_goes_to_an_interface_that_found_none() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("slots").expect("a lab");
    let node = lab.node();
    let names: Vec<_> = (0..5).map(|number| format!("vethslot{number}")).collect();
    for (number, name) in (0_u32..).zip(&names) {
        let index = (3_000 + 1_024 * number).to_string();
        let other = format!("far{number}");
        let pair = ["type", "veth", "peer", "name", &other];
        node.ip(&[&["link", "add", name, "index", &index][..], &pair].concat())
            .expect("a pair");
    }
    let daemon = Daemon::start(node, &[]).expect("the daemon");
    let uncovered = || -> Vec<String> {
        let metrics = daemon.metrics().expect("a scrape");
        let samples = metrics
            .select(COVERED, &[])
            .filter(|sample| sample.value < 0.5);
        samples
            .map(|sample| sample.labels["interface"].clone())
            .collect()
    };
    let waiting = uncovered();
    assert_eq!(waiting.len(), 1, "{waiting:?} are not covered");
    let waiting = waiting[0].as_str();
    let status = daemon.tell(&["status"]).expect("a status");
    let told = format!("not covered: {waiting}: no free slot");
    assert!(status.contains(&told), "{told}:\n{status}");
    let goes = names.iter().find(|name| *name != waiting).expect("four");
    node.ip(&["link", "delete", goes]).expect("deleted");
    let rest = names.iter().filter(|name| *name != goes);
    let wanted: Vec<&str> = rest.map(String::as_str).chain([UPLINK]).collect();
    wait_names(&daemon, &wanted);
    let status = daemon.tell(&["status"]).expect("a status");
    assert!(!status.contains("not covered"), "{status}");
}

/// What stood in the way of attaching goes: the interface is watched without being touched.
#[test]
fn an_interface_is_watched_once_there_is_room() {
    let Some(_permit) = lab::require_with(&["tc"]) else {
        return;
    };
    let lab = Lab::new("later").expect("a lab");
    let node = lab.node();
    let pod = lab.add_pod().expect("a pod");
    let link = pod.host_interface.as_str();
    foreign::add_filters(node, link, 1).expect("filters");
    let daemon = Daemon::start(node, &["--attach", "clsact"]).expect("the daemon");
    let told = format!("not covered: {link}: a filter with priority 1 is on ingress of {link}");
    let status = daemon.tell(&["status"]).expect("a status");
    assert!(status.contains(&told), "{told}:\n{status}");
    let delete = ["qdisc", "del", "dev", link, "clsact"];
    process::checked(node.command("tc").args(delete)).expect("deleted");
    let covered = wait::until("coverage", Duration::from_secs(15), || {
        let metrics = daemon.metrics().expect("a scrape");
        (metrics.sum(COVERED, &[("interface", link)]) > 0.5).then_some(())
    });
    assert!(covered.is_ok(), "{}", daemon.log());
    assert!(programs(node, link) >= 2, "no programs on {link}");
    let warned = daemon.log().matches("not watched").count();
    assert_eq!(warned, 1, "told again and again:\n{}", daemon.log());
}

/// Ready means that the traffic of the node is watched.
#[test]
fn without_an_uplink_it_is_not_ready() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("ready").expect("a lab");
    let node = lab.node();
    let routes = "route del default via 10.224.0.1\nroute del default via fd00:224::1\n";
    let add = "route add default via 10.224.0.1\n";
    node.ip_batch(routes).expect("no default route");
    let mut daemon = Daemon::launch(node, &[]).expect("the daemon");
    let warned = |times: usize| {
        let there = wait::until("a warning", TOLD * 3, || {
            (daemon.log().matches("no uplink").count() == times).then_some(())
        });
        assert!(there.is_ok(), "not {times} warnings:\n{}", daemon.log());
    };
    warned(1);
    let unready = wait::until("an answer", TOLD, || {
        let answer = daemon.http("/readyz").expect("an answer");
        answer.body.contains("no uplink").then_some(answer.status)
    });
    assert_eq!(unready.ok(), Some(503), "{}", daemon.log());
    assert_eq!(daemon.http("/healthz").expect("an answer").status, 200);
    let status = daemon.tell(&["status"]).expect("a status");
    assert!(status.contains("no uplink"), "{status}");
    node.ip_batch(add).expect("a default route");
    daemon.wait_ready(TOLD).expect("ready with an uplink");
    node.ip_batch("route del default via 10.224.0.1\n")
        .expect("no default route");
    let gone = wait::until("it to notice", TOLD, || {
        let status = daemon.http("/readyz").expect("an answer").status;
        (status == 503).then_some(())
    });
    assert!(gone.is_ok(), "{}", daemon.log());
    let times = daemon.log().matches("no uplink").count();
    assert_eq!(times, 2, "one warning each time:\n{}", daemon.log());
}

/// Waits until exactly these interfaces are said to be covered, and the kernel agrees.
fn wait_names(daemon: &Daemon, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let names = || -> BTreeSet<String> {
        let metrics = daemon.metrics().expect("a scrape");
        let samples = metrics
            .select(COVERED, &[])
            .filter(|sample| sample.value > 0.5);
        samples
            .map(|sample| sample.labels["interface"].clone())
            .collect()
    };
    let there = wait::until("interfaces", TOLD, || (names() == wanted).then_some(()));
    assert!(
        there.is_ok(),
        "covered: {:?}, not {wanted:?}\n{}",
        names(),
        daemon.log()
    );
    for name in &wanted {
        let programs = programs(daemon.namespace(), name);
        assert!(
            programs >= 2,
            "{name} is said to be covered and has {programs} programs"
        );
    }
}

/// How many of the daemon's programs are on an interface, by either way of attaching.
fn programs(node: &Namespace, interface: &str) -> usize {
    let tcx = Direction::BOTH.into_iter().map(|direction| {
        let ids = foreign::tcx_programs(node, interface, direction).expect("a query");
        ids.unwrap_or_default().len()
    });
    let filters = foreign::show_filters(node, interface).expect("tc");
    tcx.sum::<usize>() + filters.matches("nodewatch_").count()
}
