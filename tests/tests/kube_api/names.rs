//! Names and verdicts by a live cluster.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::lab::api_server::{self, ADMIN, AGENT, ApiServer};
use tests::lab::{Lab, Namespace, wait};

use super::{SOON, flow, namespace, pod, resource, until_objects, until_resource};

/// How long a change of policies or pods has its grace.
const GRACE: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;
const DENIED: u16 = 8081;

/// Sends one datagram from a port.
fn send(from: &Namespace, port: u16, to: SocketAddr) {
    from.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a socket");
        socket.send_to(b"hello", to).expect("sent");
    })
    .expect("a namespace");
}

#[test]
fn pods_services_and_policies_come_from_the_cluster() {
    let Some(_permit) = api_server::require() else {
        return;
    };
    let lab = Lab::new("kube").expect("a lab");
    let (client, server) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let (from, to) = (client.addresses.v4, server.addresses.v4);
    let api = ApiServer::start(lab.node()).expect("an API server");
    api.write(async |cluster| {
        // What the DaemonSet has, and no more.
        cluster.deploy("deploy/base/rbac.yaml").await?;
        cluster.create(namespace("shop")).await?;
        cluster.create(node(lab_node())).await?;
        let owner = json!([{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cart", "uid": "1-2-3",
            "controller": true,
        }]);
        let mut cart = pod("cart-0", from);
        cart["metadata"]["ownerReferences"] = owner;
        cluster.create(cart).await?;
        cluster.create(pod("pg-0", to)).await?;
        cluster.create(service()).await?;
        cluster.install(admin_policies()).await?;
        cluster.create(no_denied_port()).await
    })
    .expect("objects");
    let kubeconfig = api.kubeconfig(AGENT).expect("a file");
    let kubeconfig = kubeconfig.to_str().expect("a path");
    let daemon = Daemon::start(lab.node(), &["--kubeconfig", kubeconfig]).expect("the daemon");
    for name in ["namespaces", "nodes", "services", "networkpolicies", "pods"] {
        assert_eq!(resource(&daemon, name)["state"], "synced", "{name}");
    }
    // This server has them as a beta version only, and streams no lists.
    assert_eq!(resource(&daemon, "endpointslices")["state"], "synced");
    // They are no part of Kubernetes itself: one was installed.
    let admin = resource(&daemon, "adminnetworkpolicies");
    assert_eq!(
        (&admin["state"], &admin["objects"]),
        (&"synced".into(), &1.into())
    );
    let cluster = resource(&daemon, "clusternetworkpolicies");
    assert_eq!(cluster["state"], "absent");
    assert_eq!(daemon.http("/readyz").expect("an answer").body, "ok\n");

    // A pod, its owner and labels; a service by its address.
    send(&client, 20_001, SocketAddr::new(to.into(), PORT));
    let record = flow(&daemon, 20_001, |_| true);
    assert_eq!(record["source"]["pod"], "cart-0", "{record:#}");
    assert_eq!(record["source"]["workload"], "StatefulSet/cart");
    assert_eq!(record["source"]["labels"]["app"], "cart-0");
    assert_eq!(record["destination"]["namespace"], "shop");
    assert_eq!(record["destination"]["pod"], "pg-0");
    send(
        &client,
        20_002,
        "10.96.0.80:80".parse().expect("an address"),
    );
    let record = flow(&daemon, 20_002, |_| true);
    assert_eq!(record["destination"]["kind"], "service", "{record:#}");
    assert_eq!(record["destination"]["name"], "pg");
    send(&client, 20_003, SocketAddr::new(IpAddr::V4(lab_node()), 9));
    let record = flow(&daemon, 20_003, |_| true);
    assert_eq!(record["destination"]["name"], "node-1", "{record:#}");

    // A policy that comes denies what goes on, and a label that goes takes it away.
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "pg-0"}}, "policyTypes": ["Ingress"]},
    });
    api.write(async |cluster| cluster.create(policy).await)
        .expect("a policy");
    until_objects(&daemon, "networkpolicies", 1);
    std::thread::sleep(GRACE);
    let listener = server
        .run(|| TcpListener::bind(SocketAddr::new(to.into(), PORT)))
        .expect("a namespace")
        .expect("a listener");
    connect(&client, SocketAddr::new(to.into(), PORT));
    let since = Instant::now();
    let finding = wait::until("a violation", SOON, || {
        let findings = daemon.records(&["findings"]).expect("records");
        findings
            .into_iter()
            .find(|record| record["finding"] == "policy-violation")
    });
    let finding = finding.unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    println!("told after {:?}", since.elapsed());
    assert_eq!(finding["declared_by"], "NetworkPolicy shop/deny");
    assert_eq!(finding["flow"]["source"]["pod"], "cart-0", "{finding:#}");
    assert_eq!(finding["flow"]["destination"]["pod"], "pg-0");
    let changed = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "pg-0", "namespace": "shop", "labels": {"app": "open"}},
    });
    let events = resource(&daemon, "pods")["events"].clone();
    api.write(async |cluster| cluster.patch(changed).await)
        .expect("a label");
    until_resource(&daemon, "pods", SOON, |pods| pods["events"] != events);
    let port = connect(&client, SocketAddr::new(to.into(), PORT));
    let record = flow(&daemon, port, |record| !record["policy"].is_null());
    assert_eq!(record["policy"]["allowed"], true, "{record:#}");
    drop(listener);
    // The policy of a kind that was installed denies a port.
    let listener = server
        .run(|| TcpListener::bind(SocketAddr::new(to.into(), DENIED)))
        .expect("a namespace")
        .expect("a listener");
    let port = connect(&client, SocketAddr::new(to.into(), DENIED));
    let record = flow(&daemon, port, |record| !record["policy"].is_null());
    let egress = &record["policy"]["egress"];
    assert_eq!(egress["allowed"], false, "{record:#}");
    assert_eq!(egress["by"], json!(["AdminNetworkPolicy no-denied-port"]));
    drop(listener);
    daemon.stop().expect("it ends");
}

/// Connects, and tells the port that it came from.
fn connect(from: &Namespace, to: SocketAddr) -> u16 {
    from.run(|| {
        let stream = TcpStream::connect_timeout(&to, SOON).expect("a connection");
        stream.local_addr().expect("an address").port()
    })
    .expect("a namespace")
}

fn lab_node() -> Ipv4Addr {
    tests::lab::NODE.v4
}

fn node(ip: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
        "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
    })
}

/// The kind AdminNetworkPolicy, without its schema.
pub(super) fn admin_policies() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "adminnetworkpolicies.policy.networking.k8s.io",
            // Names of this group are kept for Kubernetes itself.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
        },
        "spec": {
            "group": "policy.networking.k8s.io", "scope": "Cluster",
            "names": {"kind": "AdminNetworkPolicy", "plural": "adminnetworkpolicies"},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}

fn no_denied_port() -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
        "metadata": {"name": "no-denied-port"},
        "spec": {
            "priority": 10, "subject": {"namespaces": {}},
            "egress": [{
                "action": "Deny", "to": [{"namespaces": {}}],
                "ports": [{"portNumber": {"protocol": "TCP", "port": DENIED}}],
            }],
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "pg", "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.80", "selector": {"app": "pg-0"}, "ports": [{"port": 80}],
        },
    })
}

#[test]
fn in_a_pod_it_starts_by_itself_and_follows_a_new_token() {
    let Some(_permit) = api_server::require() else {
        return;
    };
    let lab = Lab::new("pod").expect("a lab");
    let api = ApiServer::start(lab.node()).expect("an API server");
    api.write(async |cluster| cluster.deploy("deploy/base/rbac.yaml").await)
        .expect("rights");
    // As the kubelet mounts it, with nothing else of the pod.
    let by = lab.node().command("unshare");
    let launch = |mut by: Command, user: &str| {
        by.args(["--mount", "sh", "-ec"]);
        by.arg(
            "mount -t tmpfs none /run; d=/run/secrets/kubernetes.io/serviceaccount; mkdir -p $d; \
             cp \"$AUTHORITY\" $d/ca.crt; printf %s nodewatch > $d/namespace; \
             printf %s \"$TOKEN\" > $d/token; exec \"$0\" \"$@\"",
        );
        by.env("AUTHORITY", api.authority())
            .env("TOKEN", api_server::token(user))
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", api_server::PORT.to_string());
        Daemon::launch_by(lab.node(), by, &[]).expect("the daemon")
    };
    let mut daemon = launch(by, AGENT);
    daemon.wait_ready(SOON).expect("it is ready");
    assert_eq!(resource(&daemon, "pods")["state"], "synced");
    daemon.stop().expect("it ends");

    // A token that is not accepted is told of, and the daemon works without names.
    let mut daemon = launch(lab.node().command("unshare"), "stranger");
    daemon
        .guard
        .wait_log("Unauthorized", SOON)
        .expect("it is told of");
    let pods = until_resource(&daemon, "pods", SOON, |pods| {
        !pods["errors"]["unauthorized"].is_null()
    });
    assert_eq!(pods["state"], "pending");
    assert_eq!(daemon.http("/readyz").expect("an answer").status, 503);
    assert_eq!(daemon.http("/healthz").expect("an answer").status, 200);
    // The kubelet replaces the token; the daemon takes the new one without a restart.
    let its_root = Path::new("/proc")
        .join(daemon.pid().to_string())
        .join("root");
    let token = its_root.join("run/secrets/kubernetes.io/serviceaccount/token");
    std::fs::write(token, api_server::token(ADMIN)).expect("a token");
    daemon
        .wait_ready(Duration::from_mins(3))
        .expect("it is ready");
    daemon.stop().expect("it ends");
}
