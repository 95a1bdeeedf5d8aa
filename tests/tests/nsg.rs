//! The daemon with declared network security groups, and a packet filter in the fabric that
//! stands in for what Azure enforces.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::lab::{self, Lab, NODE, Namespace, process, wait};

/// How soon drift has to be told of.
const SOON: Duration = Duration::from_secs(2);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn rule(name: &str, priority: u16, direction: &str, access: &str, port: u16) -> Value {
    json!({"name": name, "priority": priority, "direction": direction, "access": access,
        "protocol": "Tcp", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*",
        "destinationPortRange": port.to_string()})
}

fn document(rules: &[Value]) -> String {
    json!({"name": "subnet-nsg", "securityRules": rules}).to_string()
}

fn write(path: &Path, rules: &[Value]) {
    let new = path.with_extension("new");
    fs::write(&new, document(rules)).expect("written");
    fs::rename(&new, path).expect("renamed");
}

/// Writes it as the kubelet does a ConfigMap: the file is a link through a link to a folder, and
/// the latter is swapped.
fn swap(folder: &Path, version: &str, content: &str) {
    fs::create_dir(folder.join(version)).expect("a folder");
    fs::write(folder.join(version).join("nsg.json"), content).expect("written");
    symlink(version, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("swapped");
    if !folder.join("nsg.json").exists() {
        symlink("..data/nsg.json", folder.join("nsg.json")).expect("a link");
    }
}

/// Settings for quick timeouts.
fn settings(lab: &Lab) -> PathBuf {
    let path = lab.directory().join("nodewatch.toml");
    let document = lab.directory().join("nsg.json");
    let text = format!(
        "nsg = [\"subnet={}\"]\nvirtual_network = [\"10.224.0.0/16\"]\n[timeouts]\ntcp_unanswered = \"1s\"\n",
        document.display()
    );
    fs::write(&path, text).expect("written");
    path
}

/// A listener in a namespace; the kernel completes handshakes for it.
fn listen(namespace: &Namespace, port: u16) -> TcpListener {
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    namespace
        .run(|| TcpListener::bind(address).expect("a listener"))
        .expect("a namespace")
}

/// Whether a connection is accepted.
fn connect(from: &Namespace, to: IpAddr, port: u16) -> bool {
    let address = SocketAddr::new(to, port);
    from.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok())
        .expect("a namespace")
}

/// The first finding of a kind.
fn finding(daemon: &Daemon<'_>, kind: &str, within: Duration) -> Value {
    let found = wait::until(kind, within, || {
        let records = daemon.records(&["findings", "--all"]).expect("records");
        records.into_iter().find(|record| record["finding"] == kind)
    });
    found.unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()))
}

/// The flow to a port, once it is known.
fn flow(daemon: &Daemon<'_>, port: u16) -> Value {
    let port = port.to_string();
    let found = wait::until("the flow", PATIENCE, || {
        let mut records = daemon
            .records(&["flows", "--all", "--port", &port])
            .expect("records");
        records.pop()
    });
    found.expect("a flow")
}

fn status(daemon: &Daemon<'_>) -> Value {
    let text = daemon.tell(&["status", "-o", "json"]).expect("status");
    let status: Value = serde_json::from_str(&text).expect("JSON");
    status["nsg"].clone()
}

#[test]
fn declared_and_enforced_are_held_against_each_other() {
    let Some(_permit) = lab::require_with(&["nft"]) else {
        return;
    };
    let lab = Lab::new("nsg").expect("a lab");
    let outside = lab.add_outside().expect("a peer");
    let enforced = "add table inet nsg; \
                    add chain inet nsg forward { type filter hook forward priority 0; }; \
                    add rule inet nsg forward tcp dport { 8443, 8025 } drop";
    process::checked(lab.fabric().command("nft").arg(enforced)).expect("a filter");
    write(
        &lab.directory().join("nsg.json"),
        &[
            rule("DenyAdmin", 100, "Inbound", "Deny", 8022),
            rule("AllowApp", 110, "Inbound", "Allow", 8080),
            rule("AllowWeb", 100, "Outbound", "Allow", 8443),
            rule("DenyMail", 110, "Outbound", "Deny", 8025),
        ],
    );
    let config = settings(&lab);
    let config = config.to_str().expect("UTF-8");
    let daemon = Daemon::start(lab.node(), &["--config", config]).expect("the daemon");
    // What came before the hooks settled has no known opener.
    std::thread::sleep(Duration::from_millis(1_500));
    let _listeners = [8022, 8080].map(|port| listen(lab.node(), port));
    let (node, peer) = (IpAddr::from(NODE.v4), IpAddr::from(outside.addresses.v4));

    // As declared.
    assert!(connect(&outside, node, 8080));
    let app = flow(&daemon, 8080);
    assert_eq!(
        app["nsg"],
        json!({"access": "Allow", "direction": "Inbound", "rule": "AllowApp", "nsg": "subnet-nsg"})
    );
    assert!(app.get("finding").is_none(), "{app}");
    // Declared and enforced: nothing to tell.
    assert!(!connect(lab.node(), peer, 8025));
    // Declared to be denied, but it arrives.
    let start = Instant::now();
    assert!(connect(&outside, node, 8022));
    let drift = finding(&daemon, "nsg-drift", SOON);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert_eq!(
        drift["declared_by"],
        "network security group subnet-nsg, rule DenyAdmin"
    );
    assert_eq!(drift["flow"]["nsg"]["access"], "Deny");
    // Declared to be allowed, but something drops it.
    assert!(!connect(lab.node(), peer, 8443));
    let blocked = finding(&daemon, "nsg-over-blocked", PATIENCE);
    assert_eq!(
        blocked["declared_by"],
        "network security group subnet-nsg, rule AllowWeb"
    );
    let mail = flow(&daemon, 8025);
    assert_eq!(mail["nsg"]["rule"], "DenyMail");
    // A router's answer that a port is closed is an inbound packet that no rule allows, and no drift.
    lab.node()
        .run(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("a socket");
            socket
                .send_to(b"?", SocketAddr::new(peer, 9))
                .expect("sent");
        })
        .expect("a namespace");
    let error = wait::until("the error", PATIENCE, || {
        let flows = daemon.records(&["flows", "--all", "--protocol", "icmp"]);
        flows.expect("records").pop()
    })
    .expect("an ICMP error");
    assert_eq!(error["initiator"], "unknown", "{error}");
    assert!(error.get("nsg").is_none(), "{error}");
    let all = daemon.records(&["findings", "--all"]).expect("records");
    assert_eq!(all.len(), 2, "{all:#?}");

    // What is told of rules is a second old at most.
    let counted = wait::until("the counts", PATIENCE, || {
        let rules = daemon.records(&["nsg", "rules"]).expect("rules");
        let is_counted = |name: &str| {
            let mut rules = rules.iter();
            rules.any(|rule| rule["rule"] == name && rule["connections"] == 1)
        };
        let names = ["DenyAdmin", "AllowApp", "AllowWeb", "DenyMail"];
        names.into_iter().all(is_counted).then_some(())
    });
    assert!(
        counted.is_ok(),
        "{}",
        daemon.tell(&["nsg", "rules"]).expect("rules")
    );
    let never = daemon
        .tell(&["nsg", "rules", "--never-matched"])
        .expect("rules");
    assert!(never.contains("AllowAzureLoadBalancerInBound"), "{never}");
    assert!(!never.contains("DenyAdmin"), "{never}");
    let metrics = daemon.http("/metrics").expect("metrics").body;
    for (rule, matches) in [("DenyAdmin", 1), ("AllowAzureLoadBalancerInBound", 0)] {
        let line = format!(
            "nodewatch_nsg_rule_matches_total{{nsg=\"subnet-nsg\",rule=\"{rule}\"}} {matches}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[test]
fn changed_documents_come_into_force_and_invalid_ones_are_refused() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("nsg-load").expect("a lab");
    let outside = lab.add_outside().expect("a peer");
    let folder = lab.directory();
    let first = document(&[rule("First", 100, "Inbound", "Allow", 8080)]);
    swap(folder, "..1", &first);
    let config = settings(&lab);
    let config = config.to_str().expect("UTF-8");
    let daemon = Daemon::start(lab.node(), &["--config", config]).expect("the daemon");
    std::thread::sleep(Duration::from_millis(1_500));
    let _listeners = [8080, 8081].map(|port| listen(lab.node(), port));
    let node = IpAddr::from(NODE.v4);

    swap(folder, "..2", "{\"securityRules\": [{\"name\": \"R\"}]}");
    let refused = wait::until("the refusal", PATIENCE, || {
        let status = status(&daemon);
        status["error"].is_string().then_some(status)
    });
    let refused = refused.expect("a refusal");
    let error = refused["error"].as_str().expect("a text");
    assert!(
        error.contains("nsg.json:1: rule `R`: field `direction`: is missing"),
        "{error}"
    );
    assert_eq!(refused["refused"], 1);
    assert!(
        daemon
            .log()
            .contains("are refused, the old ones stay in force"),
        "{}",
        daemon.log()
    );
    let metrics = daemon.http("/metrics").expect("metrics").body;
    assert!(
        metrics.contains("nodewatch_nsg_loads_total{result=\"refused\"} 1"),
        "{metrics}"
    );
    assert!(connect(&outside, node, 8080));
    assert_eq!(
        flow(&daemon, 8080)["nsg"]["rule"],
        "First",
        "still in force"
    );

    let second = document(&[rule("Second", 100, "Inbound", "Allow", 8081)]);
    swap(folder, "..3", &second);
    wait::until("the new rules", PATIENCE, || {
        let status = status(&daemon);
        (status["rules"][0]["rule"] == "Second").then_some(())
    })
    .expect("new rules");
    assert!(status(&daemon).get("error").is_none());
    assert!(connect(&outside, node, 8081));
    assert_eq!(flow(&daemon, 8081)["nsg"]["rule"], "Second");
    assert_eq!(
        flow(&daemon, 8080)["nsg"]["rule"],
        "First",
        "it opened under the old ones"
    );
}

#[test]
fn rules_that_cannot_be_used_are_refused_at_the_start() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("nsg-bad").expect("a lab");
    let document = lab.directory().join("nsg.json");
    let twice = [
        rule("A", 100, "Inbound", "Allow", 1),
        rule("B", 100, "Inbound", "Allow", 2),
    ];
    write(&document, &twice);
    let flag = format!("subnet={}", document.display());
    let mut command =
        tests::daemon::command(lab.node(), &["run", "--nsg", &flag]).expect("a command");
    let output = process::output(&mut command, PATIENCE).expect("it ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("rule `B`: field `priority`: 100 is also the priority of rule `A`"),
        "{error}"
    );
}

/// What the daemon is told to know: a pod, the node, a policy.
const MANIFESTS: &str = "
kind: Node
apiVersion: v1
metadata: {name: aks-1}
status: {addresses: [{type: InternalIP, address: 10.224.0.4}]}
---
kind: Pod
apiVersion: v1
metadata: {name: cart-0, namespace: shop}
spec: {nodeName: aks-1}
status: {podIP: 10.244.0.77, podIPs: [{ip: 10.244.0.77}]}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

#[test]
fn a_running_daemon_explains_and_lints_what_it_holds_and_notices_public_addresses() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("nsg-aks").expect("a lab");
    let outside = lab.add_outside().expect("a peer");
    let (node, peer) = (IpAddr::from(NODE.v4), IpAddr::from(outside.addresses.v4));
    let public: IpAddr = "20.61.10.5".parse().expect("an address");
    lab.node()
        .ip(&["address", "add", "20.61.10.5/32", "dev", "lo"])
        .expect("an address");
    lab.fabric()
        .ip(&["route", "add", "20.61.10.5/32", "via", &node.to_string()])
        .expect("a route");
    fs::write(lab.directory().join("cluster.yaml"), MANIFESTS).expect("written");
    write(
        &lab.directory().join("nsg.json"),
        &[
            rule("Web", 100, "Inbound", "Allow", 8080),
            rule("Ssh", 110, "Inbound", "Allow", 22),
            rule("Idle", 120, "Inbound", "Allow", 8081),
        ],
    );
    let path = settings(&lab);
    let text = fs::read_to_string(&path).expect("settings");
    let more = format!(
        "profile = \"aks\"\ntag = [\"ApiServer={peer}\"]\nmanifests = [\"{}\"]\n",
        lab.directory().join("cluster.yaml").display()
    );
    fs::write(&path, more + &text).expect("written");
    let config = path.to_str().expect("UTF-8");
    let daemon = Daemon::start(lab.node(), &["--config", config]).expect("the daemon");
    // What came before the hooks settled has no known opener.
    std::thread::sleep(Duration::from_millis(1_500));
    let _listener = listen(lab.node(), 8080);

    // As a rule of the user says; then the same port on a public address.
    assert!(connect(&outside, node, 8080));
    assert!(connect(&outside, public, 8080));
    let found = finding(&daemon, "public-address", PATIENCE);
    assert_eq!(found["flow"]["destination"]["ip"], "20.61.10.5", "{found}");
    assert_eq!(
        found["declared_by"],
        "network security group subnet-nsg, rule Web"
    );
    // Nobody serves SSH here; and the API server does not answer.
    assert!(!connect(&outside, node, 22));
    assert!(!connect(lab.node(), peer, 443));
    let api = flow(&daemon, 443);
    assert_eq!(api["nsg"]["need"], "api-server", "{api}");

    // The daemon's rules against what it saw.
    flow(&daemon, 22);
    let is_there = |issues: &[Value], check: &str, rule: &str| {
        let mut issues = issues.iter();
        issues.any(|issue| issue["check"] == check && issue["rule"] == rule)
    };
    let issues = daemon.records(&["nsg", "lint"]).expect("issues");
    for (check, rule) in [
        ("unused", "Idle"),
        ("wider-than-observed", "Web"),
        ("ssh-not-served", "Ssh"),
    ] {
        assert!(
            is_there(&issues, check, rule),
            "{check} {rule}: {issues:#?}"
        );
    }
    assert!(!is_there(&issues, "unused", "Web"), "{issues:#?}");
    // The daemon knows the network and this profile, and no addresses of pods.
    let output = daemon.ask(&["nsg", "lint"]).expect("an answer");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("nodes-blocked: checked within VirtualNetwork only"),
        "{error}"
    );
    // What came before the daemon may go on for a while, and that is said.
    let status = daemon.tell(&["status"]).expect("a status");
    assert!(
        status.contains("openers: at uplinks not known of some flows other than TCP until "),
        "{status}"
    );
    let metrics = daemon.metrics().expect("metrics");
    let uplink = [("point", "uplink")];
    assert_eq!(metrics.count("nodewatch_openers_unknown", &uplink), 1);
    for rule in daemon.records(&["nsg", "rules"]).expect("rules") {
        assert_eq!(
            (&rule["type"], &rule["version"]),
            (&json!("nsg-rule"), &json!(1)),
            "{rule}"
        );
        assert!(rule["time"].is_string(), "{rule}");
    }
    // Other rules against what it saw.
    let other = lab.directory().join("other.json");
    write(&other, &[rule("Wide", 100, "Inbound", "Allow", 8080)]);
    let file = format!("subnet={}", other.display());
    let issues = daemon
        .records(&["nsg", "lint", "--nsg", &file])
        .expect("issues");
    assert!(
        is_there(&issues, "wider-than-observed", "Wide"),
        "{issues:#?}"
    );

    // What it holds explains flows, by name too.
    let explain = |arguments: &[&str]| {
        let mut found = daemon
            .records(&[&["explain"], arguments].concat())
            .expect("an explanation");
        found.pop().expect("one")
    };
    let found = explain(&["203.0.113.77", "node/aks-1", "--port", "8080"]);
    assert_eq!(found["destination"]["ip"], "10.224.0.4", "{found}");
    assert_eq!(found["nsg"]["rule"], "Web", "{found}");
    let found = explain(&["10.224.0.9", "shop/cart-0", "--port", "5432"]);
    assert_eq!(found["policy"]["allowed"], false, "{found}");
    assert_eq!(
        found["policy"]["ingress"]["by"],
        json!(["NetworkPolicy shop/closed"])
    );
    // Names of the daemon, rules of a file.
    let found = explain(&[
        "203.0.113.77",
        "node/aks-1",
        "--port",
        "8080",
        "--nsg",
        &file,
    ]);
    assert_eq!(found["nsg"]["rule"], "Wide", "{found}");
    let refused = daemon
        .ask(&["explain", "10.0.0.1", "shop/none"])
        .expect("an answer");
    assert_eq!(refused.status.code(), Some(3));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("pod shop/none"), "{error}");
}
