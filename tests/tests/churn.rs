//! Pods come and go: each is covered at once, and nothing of them stays.

use std::time::{Duration, Instant};

use tests::account::{self, COVERED};
use tests::daemon::Daemon;
use tests::foreign::{self, Direction};
use tests::held::Held;
use tests::lab::{self, Lab, NODE, Pod, UPLINK, client, wait};
use tests::openmetrics::Metrics;

/// Within what time from link-up an interface has to be covered.
const COVER: Duration = Duration::from_millis(200);

/// Pods in all.
const PODS: usize = 100;

/// Pods before anything is measured.
const WARM_UP: usize = 3;

/// How long the daemon may take to forget what is gone.
const FORGET: Duration = Duration::from_secs(40);

#[test]
fn a_hundred_pods_are_covered_at_once_and_forgotten() {
    churn("churn", "tcx");
}

#[test]
fn a_hundred_pods_by_clsact() {
    churn("churn-clsact", "clsact");
}

#[test]
fn twenty_pods_at_once() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("burst").expect("a lab");
    if !foreign::has_tcx(lab.node(), UPLINK) {
        return eprintln!("this kernel has no TCX");
    }
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    let pods: Vec<_> = (0..20).map(|_| lab.start_pod().expect("a pod")).collect();
    let last = pods.last().expect("twenty pods").up_at;
    for pod in &pods {
        wait_covered(&lab, pod, "tcx");
    }
    let took = last.elapsed();
    assert!(
        took <= COVER * 2,
        "the last of 20 pods was covered {took:?} after its link-up"
    );
    let told = || {
        daemon
            .metrics()
            .expect("a scrape")
            .sum(COVERED, &[("attach", "tcx")])
    };
    let all = wait::until("metrics of 21 interfaces", COVER * 10, || {
        (told() > 20.5).then_some(())
    });
    assert!(all.is_ok(), "{COVERED} adds up to {}, not 21", told());
    drop(pods);
    let covered = || {
        daemon
            .metrics()
            .expect("a scrape")
            .label_values(COVERED, "interface")
            .len()
    };
    let gone = wait::until("20 interfaces to go", FORGET, || {
        (covered() == 1).then_some(())
    });
    assert!(
        gone.is_ok(),
        "{} interfaces are still listed\n{}",
        covered(),
        daemon.log()
    );
}

fn churn(name: &str, mode: &str) {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new(name).expect("a lab");
    let daemon = Daemon::start(lab.node(), &["--attach", mode]).expect("the daemon");
    // What is made once and kept, such as a thread's first descriptor, shall not count as a leak.
    for _ in 0..WARM_UP {
        one_pod(&lab, mode);
    }
    let before = settled(&daemon, &lab);
    let mut times: Vec<_> = (0..PODS).map(|_| one_pod(&lab, mode)).collect();
    times.sort();
    println!(
        "{name}: {PODS} pods covered after {:?} (median), {:?} (95 %), {:?} (slowest)",
        times[PODS / 2],
        times[PODS * 95 / 100],
        times[PODS - 1]
    );
    let slow = times.iter().filter(|time| **time > COVER).count();
    assert_eq!(
        slow,
        0,
        "of {PODS} pods, {slow} were covered late: {times:?}\n{}",
        daemon.log()
    );
    let after = settled(&daemon, &lab);
    assert_eq!(after.links, before.links, "BPF links");
    assert_eq!(
        after.files.len(),
        before.files.len(),
        "descriptors: {before:?}\nnow {after:?}"
    );
    assert_eq!(after.maps.len(), before.maps.len(), "maps");
    assert_eq!(after.programs.len(), before.programs.len(), "programs");
    assert_eq!(
        after.slots_in_use("INTERFACES").expect("slots"),
        1,
        "interface slots in use"
    );
    flows_are_forgotten(&after);
    let scrape = || daemon.metrics().expect("a scrape");
    let listed = || scrape().label_values("nodewatch_packets_seen_total", "interface");
    let known = ["eth0", "removed"].map(str::to_owned);
    // The engine hears of the last flows after the kernel has given them up.
    let known = wait::until("series of interfaces to end", FORGET, || {
        listed()
            .iter()
            .all(|name| known.contains(name))
            .then_some(())
    });
    assert!(known.is_ok(), "series of interfaces: {:?}", listed());
    nothing_is_lost(&scrape());
    let stopped = daemon.stop().expect("an end");
    assert!(stopped.status.success(), "{stopped:?}");
}

/// Adds a pod, waits until it is covered, moves packets, removes it; says how long covering took.
fn one_pod(lab: &Lab, mode: &str) -> Duration {
    let pod = lab.start_pod().expect("a pod");
    let covered = wait_covered(lab, &pod, mode);
    pod.wait_up(UPLINK).expect("a link");
    lab.node().wait_up(&pod.host_interface).expect("a link");
    let node = NODE.v4.to_string();
    let report = client::send(&pod, &["icmp", "--to", &node, "--count", "2"]).expect("a report");
    assert_eq!(report.received, 2, "{}: {report:?}", pod.host_interface);
    let took = covered.duration_since(pod.up_at);
    pod.remove().expect("removed");
    took
}

/// Waits until both hooks of a pod's interface run the daemon's programs, by the kernel's own word:
/// `/metrics` tells it with the next snapshot, up to a second later.
fn wait_covered(lab: &Lab, pod: &Pod, mode: &str) -> Instant {
    let link = pod.host_interface.as_str();
    let deadline = pod.up_at + Duration::from_secs(5);
    loop {
        let covered = if mode == "tcx" {
            Direction::BOTH.into_iter().all(|direction| {
                let ids = foreign::tcx_programs(lab.node(), link, direction).expect("a query");
                ids.is_some_and(|ids| !ids.is_empty())
            })
        } else {
            let filters = foreign::show_filters(lab.node(), link).expect("tc");
            filters.contains("nodewatch_in") && filters.contains("nodewatch_out")
        };
        if covered {
            return Instant::now();
        }
        assert!(Instant::now() < deadline, "{link} is not covered after 5 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the daemon holds once the last pod is forgotten.
fn settled(daemon: &Daemon, lab: &Lab) -> Held {
    wait::until("the last pod to be forgotten", FORGET, || {
        let held = Held::by(daemon.pid()).expect("the daemon runs");
        (held.slots_in_use("INTERFACES").expect("slots") == 1).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}; {:?}\n{}", lab.node().interfaces(), daemon.log()));
    wait::until_stable("descriptors", Duration::from_millis(500), FORGET, || {
        Held::by(daemon.pid())
    })
    .expect("a stable set of descriptors")
}

/// Flows of interfaces that are gone leave the kernel's maps.
fn flows_are_forgotten(held: &Held) {
    for map in ["PLACES4", "PLACES6"] {
        let count = || held.slots_in_use(map).expect("places");
        let gone = wait::until("flows to be forgotten", FORGET, || {
            (count() <= 4).then_some(())
        });
        assert!(
            gone.is_ok(),
            "{map} still holds {} flows of pods that are gone",
            count()
        );
    }
}

/// However short a pod lived, its two requests and two answers are in the sums.
fn nothing_is_lost(metrics: &Metrics) {
    let labels = [("point", "workload"), ("protocol", "ICMP")];
    let packets = metrics.count("nodewatch_flow_packets_total", &labels);
    assert_eq!(
        packets,
        4 * (PODS + WARM_UP) as u64,
        "ICMP packets of all pods"
    );
    for account in account::read(metrics) {
        assert!(account.balances(), "{account:?}");
    }
    let odd: Vec<_> = metrics.select("nodewatch_anomalies_total", &[]).collect();
    assert!(odd.iter().all(|sample| sample.value == 0.0), "{odd:?}");
}
