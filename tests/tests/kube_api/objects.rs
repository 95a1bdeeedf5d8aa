//! Objects that the server takes and that cannot be used, policies that are proposed, addresses of
//! pods that have ended.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tests::daemon::Daemon;
use tests::lab::api_server::{self, AGENT, ApiServer};
use tests::lab::{Lab, Namespace, wait};

use super::names::admin_policies;
use super::{SOON, flow, namespace, pod, resource, until_objects, until_resource};

const PORT: u16 = 8080;
/// Far more labels than any object has, and as many as the server takes in one request.
const LABELS: u32 = 20_000;

/// An AdminNetworkPolicy as the server takes it without the kind's schema.
fn admin(name: &str, egress: &Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"priority": 10, "subject": {"namespaces": {}}, "egress": [egress]},
    })
}

fn connect(from: &Namespace, to: SocketAddr) -> u16 {
    from.run(|| {
        let stream = TcpStream::connect_timeout(&to, SOON).expect("a connection");
        stream.local_addr().expect("an address").port()
    })
    .expect("a namespace")
}

#[test]
fn what_cannot_be_used_is_left_out_and_proposals_are_judged_beside() {
    let Some(_permit) = api_server::require() else {
        return;
    };
    let lab = Lab::new("objects").expect("a lab");
    let (client, server) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let (from, to) = (client.addresses.v4, server.addresses.v4);
    let api = ApiServer::start(lab.node()).expect("an API server");
    let labels: Map<String, Value> = (0..LABELS)
        .map(|number| (format!("label-{number}"), "x".into()))
        .collect();
    let mut large = pod(
        "large",
        "10.244.9.9".parse::<std::net::IpAddr>().expect("one"),
    );
    large["metadata"]["labels"] = labels.into();
    // Over, and still with the address that another has now.
    let mut ended = pod("report-0", from);
    ended["status"]["phase"] = "Succeeded".into();
    ended["status"]["startTime"] = "2026-01-01T00:00:00Z".into();
    let deny = |to: Value| json!({"action": "Deny", "to": to});
    api.write(async |cluster| {
        cluster.deploy("deploy/base/rbac.yaml").await?;
        cluster.create(namespace("shop")).await?;
        cluster.install(admin_policies()).await?;
        cluster.create(ended).await?;
        cluster.create(pod("cart-0", from)).await?;
        cluster.create(pod("pg-0", to)).await?;
        cluster.create(large).await?;
        let networks = json!([{"networks": ["10.0.0.0/99"]}]);
        cluster.create(admin("no-range", &deny(networks))).await?;
        let expression = json!({"key": "a", "operator": "Like", "values": ["b"]});
        let selector = json!([{"namespaces": {"matchExpressions": [expression]}}]);
        cluster
            .create(admin("no-selector", &deny(selector)))
            .await?;
        let valid = json!([{"networks": ["203.0.113.0/24"]}]);
        cluster.create(admin("valid", &deny(valid))).await
    })
    .expect("objects");
    let kubeconfig = api.kubeconfig(AGENT).expect("a file");
    let kubeconfig = kubeconfig.to_str().expect("a path");
    let daemon = Daemon::start(lab.node(), &["--kubeconfig", kubeconfig]).expect("the daemon");

    // Left out, counted and told of, with the field; everything else works.
    let admins = resource(&daemon, "adminnetworkpolicies");
    assert_eq!(
        (&admins["objects"], &admins["skipped"]),
        (&1.into(), &2.into())
    );
    let pods = resource(&daemon, "pods");
    assert_eq!((&pods["objects"], &pods["skipped"]), (&3.into(), &1.into()));
    let metrics = daemon.metrics().expect("metrics");
    for (resource, count) in [("adminnetworkpolicies", 2), ("pods", 1)] {
        let labels = [("resource", resource)];
        let skipped = metrics.count("nodewatch_kubernetes_objects_skipped", &labels);
        assert_eq!(skipped, count, "{resource}");
    }
    let told = daemon.tell(&["status"]).expect("a status");
    assert!(
        told.contains("adminnetworkpolicies: 2 are not valid and left out"),
        "{told}"
    );
    let log = daemon.log();
    for words in [
        "AdminNetworkPolicy no-range: spec.egress[0].to[0].networks[0]: `10.0.0.0/99`",
        "AdminNetworkPolicy no-selector: spec.egress[0].to[0].namespaces.matchExpressions[0].operator",
        "Pod shop/large: metadata.labels: more than 4096 labels",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }

    let listener = server
        .run(|| TcpListener::bind(SocketAddr::new(to.into(), PORT)))
        .expect("a namespace")
        .expect("a listener");
    let to = SocketAddr::new(to.into(), PORT);
    let port = connect(&client, to);
    let record = flow(&daemon, port, |record| !record["policy"].is_null());
    // Of the pod that runs, not of the one that has ended.
    assert_eq!(record["source"]["pod"], "cart-0", "{record:#}");
    assert_eq!(record["policy"]["allowed"], true, "{record:#}");
    assert!(record["proposed"].is_null(), "{record:#}");

    // A policy that says it is proposed is judged beside what is in force.
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {
            "name": "later", "namespace": "shop", "annotations": {"nodewatch.io/mode": "propose"},
        },
        "spec": {"podSelector": {"matchLabels": {"app": "pg-0"}}, "policyTypes": ["Ingress"]},
    });
    api.write(async |cluster| cluster.create(policy).await)
        .expect("a policy");
    until_objects(&daemon, "networkpolicies", 1);
    let port = connect(&client, to);
    let record = flow(&daemon, port, |record| !record["proposed"].is_null());
    assert_eq!(record["policy"]["allowed"], true, "{record:#}");
    assert_eq!(record["proposed"]["allowed"], false, "{record:#}");
    let told = wait::until("what would be denied", SOON, || {
        let told = daemon
            .records(&["findings", "--proposed"])
            .expect("records");
        told.into_iter()
            .find(|one| one["finding"] == "policy-would-deny")
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    assert_eq!(told["declared_by"], "NetworkPolicy shop/later", "{told:#}");
    assert_eq!(daemon.records(&["findings"]).expect("records").len(), 0);

    // Without the annotation it is in force.
    let events = resource(&daemon, "networkpolicies")["events"].clone();
    let in_force = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {
            "name": "later", "namespace": "shop", "annotations": {"nodewatch.io/mode": null},
        },
    });
    api.write(async |cluster| cluster.patch(in_force).await)
        .expect("a change");
    until_resource(&daemon, "networkpolicies", SOON, |it| {
        it["events"] != events
    });
    std::thread::sleep(Duration::from_millis(200));
    let port = connect(&client, to);
    let record = flow(&daemon, port, |record| !record["policy"].is_null());
    assert_eq!(record["policy"]["allowed"], false, "{record:#}");
    assert!(record["proposed"].is_null(), "{record:#}");
    drop(listener);
    daemon.stop().expect("it ends");
}
