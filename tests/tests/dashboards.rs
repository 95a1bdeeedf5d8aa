//! Dashboards: every panel's query returns data from a real Prometheus that scraped the lab.

#[path = "dashboards/declared.rs"]
mod declared;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use monitor_core::metric;
use serde_json::Value;
use tests::daemon::{Daemon, LISTEN};
use tests::demo::scene::Scene;
use tests::deploy::{files, is_metric, metrics_in, read, rules_in, yaml};
use tests::lab::api_server::{self, ApiServer};
use tests::lab::gate::{self, find_tool};
use tests::lab::server::prometheus::Prometheus;
use tests::lab::wait;

const FOLDER: &str = "deploy/grafana";

/// Dashboards that an installation is promised.
const PROMISED: [&str; 6] = ["fleet", "flows", "nsg", "policy", "ssh", "health"];

/// How long the lab's clients work.
const TRAFFIC: Duration = Duration::from_secs(12);

/// How long until every panel has data.
const DATA: Duration = Duration::from_mins(1);

fn boards() -> BTreeMap<String, Value> {
    let mut boards = BTreeMap::new();
    for file in files(FOLDER, ".json").expect("dashboards") {
        let board = serde_json::from_str(&read(&file).expect("a file")).expect("JSON");
        boards.insert(file, board);
    }
    boards
}

/// Queries of a dashboard by panel: those of its panels, then those of its variables.
fn queries(board: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in board["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            queries.push((title.to_owned(), query.to_owned()));
        }
    }
    for variable in board["templating"]["list"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        let Some(query) = variable["query"]["query"].as_str() else {
            continue;
        };
        let arguments = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) = arguments
            .and_then(|both| both.split_once(", "))
            .unwrap_or_else(|| panic!("{name}: {query}"));
        queries.push((
            format!("variable {name}"),
            format!("count by ({label}) ({metric})"),
        ));
    }
    queries
}

/// A query as Grafana sends it when everything is chosen.
fn filled(query: &str) -> String {
    let mut query = query
        .replace("$__rate_interval", "30s")
        .replace("$__range", "60s")
        .replace("$point", "workload");
    for variable in ["$instance", "$namespace", "$nsg"] {
        query = query.replace(variable, ".*");
    }
    assert!(
        !query.contains('$'),
        "a variable that nobody fills: {query}"
    );
    query
}

#[test]
fn dashboards_are_whole() {
    let boards = boards();
    let mut uids = BTreeSet::new();
    for (file, board) in &boards {
        let uid = board["uid"].as_str().expect("a uid");
        assert!(uids.insert(uid), "{file}: {uid} twice");
        assert!(
            board["title"]
                .as_str()
                .is_some_and(|title| title.starts_with("nodewatch / "))
        );
        let mut ids = BTreeSet::new();
        let mut places = BTreeSet::new();
        for panel in board["panels"].as_array().expect("panels") {
            let title = panel["title"].as_str().expect("a title");
            assert!(ids.insert(panel["id"].as_u64()), "{file}: {title}");
            assert_eq!(
                panel["datasource"]["uid"], "${datasource}",
                "{file}: {title}"
            );
            let at = |field: &str| panel["gridPos"][field].as_u64().expect("a number");
            assert!(at("x") + at("w") <= 24, "{file}: {title} is too wide");
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(places.insert((x, y)), "{file}: {title} overlaps");
                }
            }
        }
    }
    for name in PROMISED {
        let file = format!("{FOLDER}/{name}.json");
        let board = boards.get(&file).unwrap_or_else(|| panic!("no {file}"));
        assert!(queries(board).len() > 5, "{file}");
    }
}

#[test]
fn panels_ask_only_for_what_is_there() {
    let mut recorded = BTreeSet::new();
    for document in
        yaml(&read("deploy/prometheus/recording.rules.yml").expect("a file")).expect("YAML")
    {
        for group in document["groups"].as_array().expect("groups") {
            for rule in group["rules"].as_array().expect("rules") {
                recorded.extend(rule["record"].as_str().map(str::to_owned));
            }
        }
    }
    let mut asked = BTreeSet::new();
    for (file, board) in boards() {
        for (panel, query) in queries(&board) {
            // Every metric at once.
            let query = query.replace("nodewatch_.+", "");
            for metric in metrics_in(&query) {
                assert!(
                    is_metric(&metric),
                    "{file}: {panel}: nobody serves {metric}"
                );
                asked.insert(metric);
            }
            for rule in rules_in(&query) {
                assert!(recorded.contains(&rule), "{file}: {panel}: no rule {rule}");
            }
        }
    }
    // What nobody looks at needs no metric. Counted in the kernel's unit, one is for comparisons only.
    for definition in metric::ALL {
        let is_shown = asked.contains(definition.name);
        assert!(
            is_shown
                || definition.name == "nodewatch_socket_buffers_total"
                || definition.name == "nodewatch_flows_capacity",
            "{} is on no dashboard",
            definition.name
        );
    }
}

#[test]
fn every_panel_has_data_and_an_incident_raises_its_alert() {
    let tools = [
        "prometheus",
        "nginx",
        "openssl",
        "curl",
        "sshd",
        "ssh",
        "iperf3",
        "dnsmasq",
    ];
    if let Some(tool) = tools.into_iter().find(|tool| find_tool(tool).is_none()) {
        gate::skip(&format!("program {tool} is not installed"));
        return;
    }
    let Some(_permit) = api_server::require() else {
        return;
    };
    let scene = Scene::build().expect("a lab");
    let node = scene.lab.node();
    let mut api = ApiServer::start(node).expect("an API server");
    declared::objects(&scene, &api).expect("objects");
    let arguments = declared::arguments(&scene, &api).expect("arguments");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let daemon = Daemon::start(node, &arguments).expect("the daemon");
    let prometheus = Prometheus::start(node, &[("nodewatch", LISTEN)]).expect("Prometheus");
    // Requests fail while it is away.
    api.kill();
    api.run(api_server::PORT).expect("the API server again");
    scene.act(TRAFFIC, &|| false).expect("traffic");
    let mut session = scene.login();
    session.arg("sleep 100");
    let _session = scene.outside.spawn("ssh", &mut session).expect("a session");

    let mut waiting: BTreeMap<(String, String, String), String> = BTreeMap::new();
    for (file, board) in boards() {
        for (panel, query) in queries(&board) {
            let filled = filled(&query);
            waiting.insert((file.clone(), panel, query), filled);
        }
    }
    let total = waiting.len();
    let all = wait::until("data in every panel", DATA, || {
        waiting.retain(|(file, panel, _), query| match prometheus.query(query) {
            Ok(samples) => samples.is_empty(),
            Err(error) => panic!("{file}: {panel}: {error:#}"),
        });
        waiting.is_empty().then_some(())
    });
    assert!(
        all.is_ok(),
        "{} of {total} have no data: {waiting:#?}\n{}",
        waiting.len(),
        prometheus.log()
    );

    // The sums are those of the daemon.
    let served = daemon.metrics().expect("a scrape");
    let name = "nodewatch_ssh_connections_total";
    let labels = [("expected", "false"), ("authentication", "success")];
    let seen = prometheus
        .query(&format!(
            "sum({name}{{expected=\"false\", authentication=\"success\"}})"
        ))
        .expect("a sum");
    let count = seen[0]["value"][1]
        .as_str()
        .and_then(|text| text.parse().ok());
    assert!(served.count(name, &labels) > 0);
    assert!(
        count <= Some(served.count(name, &labels)) && count > Some(0),
        "{seen:?}"
    );

    // The incident: SSH that nobody expected, what the group and the policy deny.
    let mut missing = vec![
        "NodewatchSshUnexpected",
        "NodewatchNsgDrift",
        "NodewatchPolicyViolation",
    ];
    let fired = wait::until("the alerts", DATA, || {
        missing.retain(|alert| {
            let query = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
            prometheus.query(&query).expect("a query").is_empty()
        });
        missing.is_empty().then_some(())
    });
    assert!(
        fired.is_ok(),
        "{missing:?} did not fire\n{}",
        prometheus.log()
    );
    // Where all is well, nothing else does.
    let others = prometheus
        .query(
            "ALERTS{alertstate=\"firing\", \
             alertname!~\"NodewatchSsh.*|NodewatchNsgDrift|NodewatchPolicyViolation\"}",
        )
        .expect("a query");
    assert!(others.is_empty(), "{others:#?}");
    let down = prometheus.query("up == 0").expect("a query");
    assert!(down.is_empty(), "{down:#?}");
}
