//! Rights that are missing, and a server that is not there.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tests::daemon::{self, Daemon};
use tests::lab::api_server::{self, AGENT, ApiServer, LIMITED};
use tests::lab::{Lab, process, wait};

use super::{SOON, namespace, pod, resource, until_objects, until_resource};

/// For the daemon to find that it was given a right.
const GRANTED: Duration = Duration::from_secs(90);

#[test]
fn a_right_that_is_missing_costs_only_its_kind() {
    let Some(_permit) = api_server::require() else {
        return;
    };
    let lab = Lab::new("rights").expect("a lab");
    let api = ApiServer::start(lab.node()).expect("an API server");
    let few = [
        "pods",
        "namespaces",
        "nodes",
        "endpointslices",
        "adminnetworkpolicies",
        "baselineadminnetworkpolicies",
        "clusternetworkpolicies",
    ];
    api.write(async |cluster| cluster.create(namespace("shop")).await)
        .expect("a namespace");
    let kubeconfig = api.kubeconfig(LIMITED).expect("a file");
    let kubeconfig = kubeconfig.to_str().expect("a path");
    let daemon = Daemon::start(lab.node(), &["--kubeconfig", kubeconfig]).expect("the daemon");

    // Without any right each kind is named, with what the server says.
    let told = daemon.tell(&["status"]).expect("a status");
    for kind in monitor::kube::live::RESOURCES {
        let refused = resource(&daemon, kind.name);
        assert_eq!(refused["state"], "refused", "{refused:#}");
        let said = format!("cluster: {}: refused: {}", kind.name, kind.name);
        assert!(told.contains(&said), "{said}: {told}");
    }

    // Rights that come are used, and those that are missing cost only their kinds.
    api.write(async |cluster| {
        cluster.create(role(&few)).await?;
        cluster.create(role_binding()).await
    })
    .expect("objects");
    for name in few {
        until_resource(&daemon, name, GRANTED, |resource| {
            resource["state"] == "synced" || resource["state"] == "absent"
        });
    }
    for name in ["services", "networkpolicies"] {
        let refused = resource(&daemon, name);
        assert_eq!(refused["state"], "refused", "{refused:#}");
        let message = refused["message"].as_str().expect("why");
        assert!(
            message.contains(name) && message.contains(LIMITED),
            "{message}"
        );
        let labels = [("resource", name)];
        let metrics = daemon.metrics().expect("metrics");
        assert_eq!(metrics.count("nodewatch_kubernetes_synced", &labels), 0);
        let labels = [("resource", name), ("reason", "refused")];
        assert!(metrics.count("nodewatch_kubernetes_errors_total", &labels) > 0);
    }
    let ready = daemon.http("/readyz").expect("an answer");
    assert_eq!(
        ready.body,
        "ok\ncluster: services refused\ncluster: networkpolicies refused\n"
    );
    let told = daemon.tell(&["status"]).expect("a status");
    assert!(told.contains("services: refused"), "{told}");
    // The other kinds work.
    let address = "10.244.9.9"
        .parse::<std::net::IpAddr>()
        .expect("an address");
    api.write(async |cluster| cluster.create(pod("late", address)).await)
        .expect("a pod");
    until_objects(&daemon, "pods", 1);
    // What is granted later is used, without a restart.
    let more = [&few[..], &["services", "networkpolicies"]].concat();
    api.write(async |cluster| cluster.patch(role(&more)).await)
        .expect("a right");
    for name in ["services", "networkpolicies"] {
        until_resource(&daemon, name, GRANTED, |resource| {
            resource["state"] == "synced"
        });
    }
    assert_eq!(daemon.http("/readyz").expect("an answer").body, "ok\n");
    daemon.stop().expect("it ends");
}

/// What the user with few rights may list and watch.
fn role(resources: &[&str]) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "limited"},
        "rules": [{
            "apiGroups": [
                "", "discovery.k8s.io", "networking.k8s.io", "policy.networking.k8s.io",
            ],
            "resources": resources, "verbs": ["get", "list", "watch"],
        }],
    })
}

fn role_binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "limited"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "limited",
        },
        "subjects": [{"kind": "User", "name": LIMITED}],
    })
}

#[test]
fn what_depends_on_namespaces_that_may_not_be_listed_is_not_told() {
    let Some(_permit) = api_server::require() else {
        return;
    };
    let lab = Lab::new("unlabelled").expect("a lab");
    let (client, server) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let api = ApiServer::start(lab.node()).expect("an API server");
    // From namespaces of a team, from one by its name, and nothing else.
    let (by_label, by_name, closed) = (8080, 8081, 8082);
    let from = |port: u16, labels: Value| {
        json!({
            "from": [{"namespaceSelector": {"matchLabels": labels}}],
            "ports": [{"port": port}],
        })
    };
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "team", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "pg-0"}}, "policyTypes": ["Ingress"],
            "ingress": [
                from(by_label, json!({"team": "web"})),
                from(by_name, json!({"kubernetes.io/metadata.name": "shop"})),
            ],
        },
    });
    let others: Vec<&str> = monitor::kube::live::RESOURCES
        .iter()
        .map(|resource| resource.name)
        .filter(|name| *name != "namespaces")
        .collect();
    api.write(async |cluster| {
        let mut shop = namespace("shop");
        shop["metadata"]["labels"] = json!({"team": "web"});
        cluster.create(shop).await?;
        cluster.create(role(&others)).await?;
        cluster.create(role_binding()).await?;
        cluster.create(policy).await?;
        cluster.create(pod("cart", client.addresses.v4)).await?;
        cluster.create(pod("pg-0", server.addresses.v4)).await
    })
    .expect("objects");
    let kubeconfig = api.kubeconfig(LIMITED).expect("a file");
    let kubeconfig = kubeconfig.to_str().expect("a path");
    let daemon = Daemon::start(lab.node(), &["--kubeconfig", kubeconfig]).expect("the daemon");
    until_objects(&daemon, "pods", 2);
    until_objects(&daemon, "networkpolicies", 1);
    assert_eq!(resource(&daemon, "namespaces")["state"], "refused");
    // Nobody listens there: a connection is judged all the same.
    let verdict = |port: u16, wanted: fn(&Value) -> bool| {
        let to = SocketAddr::new(server.addresses.v4.into(), port);
        let connected = client.run(|| TcpStream::connect_timeout(&to, SOON).is_ok());
        assert!(!connected.expect("a namespace"), "nobody listens");
        let mut last = Vec::new();
        let found = wait::until("a verdict", SOON, || {
            let arguments = ["flows", "--point", "workload", "--protocol", "tcp"];
            last = daemon.records(&arguments).expect("records");
            let is_it = |record: &&Value| {
                record["destination"]["port"] == port
                    && record["policy"].is_object()
                    && wanted(&record["policy"])
            };
            last.iter()
                .rev()
                .find(is_it)
                .map(|record| record["policy"].clone())
        });
        found.unwrap_or_else(|error| panic!("{error:#}: {last:#?}\n{}", daemon.log()))
    };
    let any = |_: &Value| true;
    let told = verdict(by_label, any);
    assert!(told["allowed"].is_null(), "{told:#}");
    let reason = told["ingress"]["reason"].as_str().expect("why");
    assert!(reason.contains("labels of a namespace"), "{reason}");
    assert_eq!(told["ingress"]["by"], json!(["NetworkPolicy shop/team"]));
    assert_eq!(verdict(by_name, any)["allowed"], true);
    assert_eq!(verdict(closed, any)["allowed"], false);
    let explained = || {
        let port = by_label.to_string();
        let arguments = ["explain", "shop/cart", "shop/pg-0", "--port", &port];
        daemon.tell(&arguments).expect("an explanation")
    };
    let text = explained();
    assert!(
        text.contains(reason) && text.contains("cannot be told"),
        "{text}"
    );

    // With the right it is told, without a restart.
    let all = [&others[..], &["namespaces"]].concat();
    api.write(async |cluster| cluster.patch(role(&all)).await)
        .expect("a right");
    until_resource(&daemon, "namespaces", GRANTED, |resource| {
        resource["state"] == "synced"
    });
    let told = verdict(by_label, |policy| !policy["allowed"].is_null());
    assert_eq!(told["allowed"], true, "{told:#}");
    let text = explained();
    assert!(!text.contains("cannot be told"), "{text}");
    daemon.stop().expect("it ends");
}

#[test]
fn a_server_that_is_not_there_holds_up_readiness_and_nothing_else() {
    let Some(_permit) = api_server::require() else {
        return;
    };
    let lab = Lab::new("absent").expect("a lab");
    let pod = lab.add_pod().expect("a pod");
    let mut api = ApiServer::start(lab.node()).expect("an API server");
    api.write(async |cluster| {
        cluster.deploy("deploy/base/rbac.yaml").await?;
        cluster.create(namespace("shop")).await?;
        cluster.create(super::pod("one", pod.addresses.v4)).await
    })
    .expect("objects");
    api.kill();
    let kubeconfig = api.kubeconfig(AGENT).expect("a file");
    let kubeconfig = kubeconfig.to_str().expect("a path");
    let mut daemon = Daemon::launch(lab.node(), &["--kubeconfig", kubeconfig]).expect("a daemon");
    daemon.guard.wait_log("ready", SOON).expect("it watches");
    let pods = until_resource(&daemon, "pods", SOON, |pods| {
        pods["errors"]["unreachable"].as_u64() >= Some(2)
    });
    assert_eq!(pods["state"], "pending", "{pods:#}");
    let ready = daemon.http("/readyz").expect("an answer");
    assert_eq!(ready.status, 503);
    assert!(
        ready.body.contains("cluster: pods pending"),
        "{}",
        ready.body
    );
    // It counts.
    let to = std::net::SocketAddr::new(tests::lab::NODE.v4.into(), 9);
    pod.run(|| {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", 20_001)).expect("a socket");
        socket.send_to(b"hello", to).expect("sent");
    })
    .expect("a namespace");
    let record = super::flow(&daemon, 20_001, |_| true);
    assert!(record["source"]["pod"].is_null(), "{record:#}");
    // Later it is there: names come, also for what was before.
    api.run(api_server::PORT).expect("an API server");
    daemon
        .wait_ready(Duration::from_mins(1))
        .expect("it is ready");
    let record = super::flow(&daemon, 20_001, |_| true);
    assert_eq!(record["source"]["pod"], "one", "{record:#}");
    daemon.stop().expect("it ends");
}

#[test]
fn what_cannot_be_used_is_refused_at_once() {
    let Some(_permit) = tests::lab::require() else {
        return;
    };
    let lab = Lab::new("refused").expect("a lab");
    let directory = lab.node().directory();
    let broken = directory.join("broken");
    std::fs::write(&broken, "clusters: [").expect("a file");
    let broken = broken.to_str().expect("a path");
    for (arguments, words) in [
        (
            &["--kubeconfig", "/nowhere/config"][..],
            &["--kubeconfig", "/nowhere/config"][..],
        ),
        (&["--kubeconfig", broken], &["--kubeconfig", broken]),
        (&["--kubernetes", "maybe"], &["auto, on or off"]),
        (
            &["--kubeconfig", broken, "--manifests", broken],
            &["--manifests", "--kubeconfig", "not from both"],
        ),
    ] {
        let mut command = daemon::command(lab.node(), &["run"]).expect("a command");
        command.args(arguments);
        let output = process::output(&mut command, SOON).expect("it ends");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(
            daemon::mentions(&output, words),
            "{arguments:?}: {output:?}"
        );
    }
}
