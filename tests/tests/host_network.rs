//! Pods that use the node's network, named by the control groups of their sockets.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use serde_json::Value;
use tests::daemon::Daemon;
use tests::lab::{self, Lab, NODE, Namespace, cgroup::Cgroup, gate, wait};

/// How long until a decided connection is told of: a reading of the maps, who has it, and some.
const TOLD: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(10);

/// Where someone listens outside, and where a pod of the node's network does.
const OUTSIDE_PORT: u16 = 9_000;
const NODE_PORT: u16 = 10_250;

const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const LATER: &str = "1f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const HASH: &str = "dddddddddddddddddddddddddddddddd";
const CONTAINER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn manifests(lab: &Lab) -> String {
    let pod = |name: &str, metadata: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: kube-system, {metadata}}},
  spec: {{hostNetwork: true, nodeName: node-1}},
  status: {{phase: Running, podIP: {ip}, hostIP: {ip}}}}}\n",
            ip = NODE.v4
        )
    };
    let text = [
        pod("agent-x", &format!("uid: {UID}")),
        pod("late-x", &format!("uid: {LATER}")),
        pod(
            "etcd-node-1",
            &format!("uid: other, annotations: {{kubernetes.io/config.mirror: {HASH}}}"),
        ),
    ]
    .concat();
    let file = lab.directory().join("pods.yaml");
    fs::write(&file, text).expect("a file");
    file.to_str().expect("a path").to_owned()
}

/// Says hello to whoever connects, for as long as the test runs.
fn serve(at: &Namespace, port: u16) {
    let any = SocketAddr::new("::".parse().expect("an address"), port);
    let listener = at.run(|| TcpListener::bind(any).expect("a listener"));
    let listener = listener.expect("a namespace");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"hello\n");
        }
    });
}

/// A line of bash that connects there again and again.
fn connects(to: IpAddr) -> String {
    format!("while true; do cat < /dev/tcp/{to}/{OUTSIDE_PORT}; sleep 0.3; done")
}

/// A flow by the uplink, once there is one that is wanted.
fn flow(daemon: &Daemon<'_>, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Vec::new();
    let found = wait::until("a flow", TOLD, || {
        let flows = daemon.records(&["flows", "--last", "200", "--point", "uplink"]);
        last = flows.expect("records");
        last.iter().find(|flow| wanted(flow)).cloned()
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last:#?}\n{}", daemon.log()))
}

fn of_pod(flow: &Value, end: &str, pod: &str) -> bool {
    flow[end]["pod"] == pod
}

#[test]
fn pods_of_the_nodes_network_are_named_by_their_control_groups() {
    let Some(_permit) = lab::require_with(&["bash", "python3"]) else {
        return;
    };
    if lab::cgroup::unified().is_none() {
        return gate::skip("no unified hierarchy of control groups is mounted");
    }
    let lab = Lab::new("hostnet").expect("a lab");
    let outside = lab.add_outside().expect("a peer");
    serve(&outside, OUTSIDE_PORT);
    let [v4, v6] = [
        IpAddr::from(outside.addresses.v4),
        IpAddr::from(outside.addresses.v6),
    ];
    let manifests = manifests(&lab);
    // As the kubelet and containerd with systemd name it.
    let slice = "kubepods.slice/kubepods-burstable.slice";
    let uid = UID.replace('-', "_");
    let scope =
        format!("{slice}/kubepods-burstable-pod{uid}.slice/cri-containerd-{CONTAINER}.scope");
    let agent = Cgroup::new(&lab, &scope).expect("a group");
    let talk = agent.bash(lab.node(), &connects(v4)).expect("a process");
    let daemon = Daemon::start(lab.node(), &["--manifests", &manifests]).expect("the daemon");

    let told = flow(&daemon, |flow| of_pod(flow, "source", "agent-x"));
    let source = &told["source"];
    assert_eq!(source["kind"], "pod", "{told:#}");
    assert_eq!(source["namespace"], "kube-system", "{told:#}");
    assert_eq!(source["host_network"], true, "{told:#}");
    assert_eq!(source["ip"], NODE.v4.to_string(), "{told:#}");
    assert_eq!(source["container"], CONTAINER, "{told:#}");
    let cgroup = source["cgroup"].as_str().expect("a path");
    assert!(cgroup.ends_with(&scope), "{told:#}");
    assert_eq!(told["translated"], Value::Null, "{told:#}");
    let metrics = daemon.metrics().expect("metrics");
    let counted = metrics.count(
        "nodewatch_connections_total",
        &[
            ("point", "uplink"),
            ("pod", "agent-x"),
            ("outcome", "established"),
        ],
    );
    assert!(counted > 0);
    drop(talk);

    // A group that is made while the daemon runs, of the driver without systemd, by IPv6.
    let late = Cgroup::new(&lab, &format!("kubepods/pod{LATER}/{CONTAINER}")).expect("a group");
    let talk = late.bash(lab.node(), &connects(v6)).expect("a process");
    let told = flow(&daemon, |flow| of_pod(flow, "source", "late-x"));
    assert_eq!(told["source"]["ip"], NODE.v6.to_string(), "{told:#}");
    drop(talk);

    // A static pod, which its kubelet knows by another uid, and which serves.
    let etcd = Cgroup::new(&lab, &format!("kubepods/burstable/pod{HASH}/{CONTAINER}"));
    let etcd = etcd.expect("a group");
    let script = format!(
        "exec python3 -c 'import socket,sys
s = socket.create_server((\"\", {NODE_PORT}))
while True: s.accept()[0].close()'"
    );
    {
        let server = etcd.bash(lab.node(), &script).expect("a process");
        let to = SocketAddr::new(NODE.v4.into(), NODE_PORT);
        let connect = || outside.run(|| TcpStream::connect_timeout(&to, PATIENCE));
        wait::until("the server", PATIENCE, || {
            connect().expect("a namespace").ok()
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", server.log()));
        let told = flow(&daemon, |flow| {
            of_pod(flow, "destination", "etcd-node-1") && flow["outcome"] == "established"
        });
        assert_eq!(told["destination"]["host_network"], true, "{told:#}");
        // The node's own sockets have answered: there is nothing to ask about.
        assert_eq!(told["translated"], Value::Null, "{told:#}");
    }

    // What is no pod's: the group and its only process; never a pod, whatever the address.
    let service = Cgroup::new(&lab, "lab.service").expect("a group");
    // A shell that waits for itself, without another process.
    let line =
        format!("exec 3<>/dev/tcp/{v4}/{OUTSIDE_PORT}; while true; do read -r -t 1 _ <&3; done");
    let talk = service.bash(lab.node(), &line).expect("a process");
    let told = flow(&daemon, |flow| {
        let cgroup = flow["source"]["cgroup"].as_str();
        cgroup.is_some_and(|cgroup| cgroup.ends_with("lab.service"))
    });
    assert_eq!(told["source"]["kind"], "node", "{told:#}");
    assert_eq!(told["source"]["pod"], Value::Null, "{told:#}");
    assert_eq!(told["source"]["process"]["name"], "bash", "{told:#}");
    assert_eq!(told["source"]["process"]["pid"], talk.pid(), "{told:#}");
    drop(talk);
}
