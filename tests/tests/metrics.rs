//! `/metrics` as real scrapers see it, and the health endpoints.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tests::account;
use tests::daemon::{self, Daemon, LISTEN};
use tests::lab::server::nginx::Nginx;
use tests::lab::{self, Guard, Lab, Namespace, Pod, Transport, client, process, wait};
use tests::openmetrics::promtool;

/// How long a scrape may take here, where there are few series.
const SCRAPE: Duration = Duration::from_millis(150);

#[test]
fn the_exposition_is_clean() {
    let Some(_permit) = lab::require_with(&["promtool", "nginx", "openssl", "curl"]) else {
        return;
    };
    let lab = Lab::new("promtool").expect("a lab");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    let _pods = some_traffic(&lab);
    wait_counted(&daemon);
    let answer = daemon.http("/metrics").expect("an answer");
    assert!(
        answer
            .head
            .to_lowercase()
            .contains("content-type: application/openmetrics-text"),
        "{}",
        answer.head
    );
    let metrics = daemon.metrics().expect("strictly right OpenMetrics");
    for (name, labels) in [
        ("nodewatch_flow_bytes_total", FLOW_LABELS),
        ("nodewatch_flow_packets_total", FLOW_LABELS),
        ("nodewatch_packets_seen_total", &["interface", "direction"]),
        (
            "nodewatch_packets_counted_total",
            &["interface", "direction"],
        ),
        ("nodewatch_flows_active", &[]),
        ("nodewatch_flows_capacity", &[]),
        ("nodewatch_interface_covered", &["interface"]),
    ] {
        let sample = metrics.samples.iter().find(|sample| sample.name == name);
        let sample = sample.unwrap_or_else(|| panic!("no {name} in:\n{}", answer.body));
        for label in labels {
            assert!(
                sample.labels.contains_key(*label),
                "{name} has no {label}: {sample}"
            );
        }
    }
    for (family, kind) in &metrics.types {
        // What every exporter tells of its own process has the names that dashboards know.
        let known = family.starts_with("nodewatch_") || family.starts_with("process_");
        assert!(known, "{family}");
        assert!(
            matches!(kind.as_str(), "counter" | "gauge" | "info" | "histogram"),
            "{family}"
        );
    }
    promtool::check(&answer.body, lab.directory()).expect("nothing to say");
}

const FLOW_LABELS: &[&str] = &[
    "point",
    "namespace",
    "workload",
    "pod",
    "port",
    "protocol",
    "direction",
    "peer",
];

#[test]
fn health_and_unknown_paths() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("health").expect("a lab");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/nothing", 404),
        ("/", 404),
    ] {
        let answer = daemon.http(path).expect("an answer");
        let fine = answer.status == status || path == "/" && answer.status == 200;
        assert!(fine, "{path}: {} {}", answer.status, answer.body);
    }
}

#[test]
fn the_sums_are_what_was_sent() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("sums").expect("a lab");
    let pod = lab.add_pod().expect("a pod");
    let inside = lab.add_inside().expect("a peer");
    let _echo = client::serve(&inside, "udp-serve", 7002).expect("a server");
    let _tcp = client::serve(&inside, "tcp-serve", 7001).expect("a server");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    let to = |port| SocketAddr::new(inside.addresses.v4.into(), port).to_string();
    let address = to(7002);
    let udp = [
        "udp", "--to", &address, "--count", "1000", "--size", "72", "--echo",
    ];
    client::send(&pod, &udp).expect("a report");
    let address = to(7001);
    let short = ["tcp-short", "--to", &address, "--count", "100"];
    client::send(&pod, &short).expect("a report");
    for point in ["uplink", "workload"] {
        for direction in ["tx", "rx"] {
            let labels = [("point", point), ("port", "7002"), ("direction", direction)];
            let read = || {
                let metrics = daemon.metrics().expect("a scrape");
                let count = |name| metrics.count(name, &labels);
                (
                    count("nodewatch_flow_packets_total"),
                    count("nodewatch_flow_bytes_total"),
                )
            };
            let wanted = (1000, 1000 * (20 + 8 + 72));
            let there = wait::until("the sums", Duration::from_secs(6), || {
                (read() == wanted).then_some(())
            });
            assert!(there.is_ok(), "{labels:?}: {:?}, not {wanted:?}", read());
        }
        let labels = [
            ("point", point),
            ("port", "7001"),
            ("outcome", "established"),
        ];
        let read = || {
            daemon
                .metrics()
                .expect("a scrape")
                .count("nodewatch_connections_total", &labels)
        };
        let there = wait::until("the connections", Duration::from_secs(6), || {
            (read() == 100).then_some(())
        });
        assert!(there.is_ok(), "{labels:?}: {} connections, not 100", read());
    }
}

#[test]
fn prometheus_scrapes_it() {
    let Some(_permit) = lab::require_with(&["prometheus", "nginx", "openssl", "curl"]) else {
        return;
    };
    let lab = Lab::new("prometheus").expect("a lab");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    let _prometheus = prometheus(lab.node());
    let _pods = some_traffic(&lab);
    let seen = "sum(nodewatch_packets_seen_total)";
    let enough = wait::until("Prometheus to have counts", Duration::from_secs(15), || {
        query(lab.node(), seen).filter(|value| *value > 100.0)
    });
    assert!(
        enough.is_ok(),
        "{seen} is {:?}\n{}",
        query(lab.node(), seen),
        daemon.log()
    );
    assert_eq!(query(lab.node(), "up{job=\"nodewatch\"}"), Some(1.0));
    let duration = query(lab.node(), "scrape_duration_seconds").expect("a value");
    assert!(
        duration < SCRAPE.as_secs_f64(),
        "a scrape takes {duration} s"
    );
    let series = query(lab.node(), "scrape_samples_scraped").expect("a value");
    let own = daemon.metrics().expect("a scrape").samples.len();
    #[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
    let own = own as f64;
    assert!(
        series > 10.0 && (series - own).abs() < 60.0,
        "{series} samples there, {own} here"
    );
    let balance = "sum(nodewatch_packets_seen_total) - sum(nodewatch_packets_counted_total) - \
                   sum(nodewatch_packets_uncounted_total)";
    assert_eq!(
        query(lab.node(), balance),
        Some(0.0),
        "seen less counted less uncounted"
    );
}

#[test]
fn a_small_series_cap_keeps_the_sums() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("cap").expect("a lab");
    let pod = lab.add_pod().expect("a pod");
    let inside = lab.add_inside().expect("a peer");
    let daemon = Daemon::start(lab.node(), &["--max-series", "40"]).expect("the daemon");
    for port in 9000..9060 {
        let to = SocketAddr::new(inside.addresses.v4.into(), port).to_string();
        let arguments = ["udp", "--to", &to, "--count", "5", "--size", "72"];
        client::send(&pod, &arguments).expect("a report");
    }
    let labels = [
        ("point", "workload"),
        ("protocol", "UDP"),
        ("direction", "tx"),
    ];
    let name = "nodewatch_flow_packets_total";
    let folded = [("point", "other"), ("port", "other")];
    let there = wait::until("the folded row", Duration::from_secs(6), || {
        let metrics = daemon.metrics().expect("a scrape");
        let sum = metrics.sum(name, &[]);
        (metrics.sum(name, &folded) > 0.0 && sum >= 600.0).then_some(metrics)
    });
    let metrics = there.unwrap_or_else(|error| {
        panic!(
            "{error:#}: {:?}",
            daemon.http("/metrics").map(|answer| answer.body)
        )
    });
    let total: u64 = account::read(&metrics)
        .iter()
        .map(|account| account.counted)
        .sum();
    let rows: u64 = metrics.count(name, &[]);
    // Accounts may be some packets ahead of the flows; both rest now.
    assert_eq!(rows, total, "flow packets and counted packets; {labels:?}");
    assert!(metrics.sum("nodewatch_series_folded_total", &[]) > 0.0);
    let series = metrics.samples.iter().filter(|sample| {
        sample.name.starts_with("nodewatch_flow_") || sample.name.starts_with("nodewatch_conn")
    });
    let series = series.count();
    assert!(series <= 40 + 8, "{series} series over a cap of 40");
}

/// Two pods, one of which serves the other; they live as long as what is returned.
fn some_traffic(lab: &Lab) -> (Nginx, [Pod; 2]) {
    let (pod, web) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let nginx = Nginx::start(&web).expect("nginx");
    for path in ["/", "/big"] {
        let url = client::url("http", web.addresses.v4.into(), path);
        process::checked(&mut client::curl(&pod, &url)).expect("curl");
        let url = client::url("https", web.addresses.v6.into(), path);
        process::checked(&mut client::curl(&pod, &url)).expect("curl");
    }
    (nginx, [pod, web])
}

fn wait_counted(daemon: &Daemon) {
    let counted = || {
        daemon
            .metrics()
            .expect("a scrape")
            .has("nodewatch_flow_bytes_total")
    };
    wait::until("flow metrics", Duration::from_secs(6), || {
        counted().then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
}

fn prometheus(node: &Namespace) -> Guard {
    let directory = node.directory().join("prometheus");
    fs::create_dir(&directory).expect("a directory");
    let config = format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\nscrape_configs:\n  - job_name: nodewatch\n    \
         static_configs:\n      - targets: ['{LISTEN}']\n"
    );
    fs::write(directory.join("prometheus.yml"), config).expect("a file");
    let mut command = node.command("prometheus");
    command.arg(format!(
        "--config.file={}/prometheus.yml",
        directory.display()
    ));
    command.arg(format!("--storage.tsdb.path={}/data", directory.display()));
    command
        .arg("--web.listen-address=127.0.0.1:9090")
        .current_dir(&directory);
    let guard = node.spawn("prometheus", &mut command).expect("prometheus");
    let start = Instant::now();
    node.wait_listening(Transport::Tcp, 9090, Duration::from_secs(20))
        .unwrap_or_else(|error| panic!("{error:#}: {}", guard.log()));
    println!("prometheus listens after {:?}", start.elapsed());
    guard
}

/// The first value that Prometheus gives for an expression.
fn query(node: &Namespace, expression: &str) -> Option<f64> {
    let address = SocketAddr::from(([127, 0, 0, 1], 9090));
    let encoded: String = expression
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let answer = daemon::http(node, address, &format!("/api/v1/query?query={encoded}")).ok()?;
    let answer: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    answer["data"]["result"][0]["value"][1]
        .as_str()?
        .parse()
        .ok()
}
