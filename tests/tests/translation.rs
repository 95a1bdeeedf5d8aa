//! Connections that the node translates, with real nftables: tied to their pods.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use monitor::host::conntrack::Conntrack;
use monitor_core::event::Protocol;
use serde_json::Value;
use tests::daemon::Daemon;
use tests::lab::{
    self, Lab, NODE, Namespace, Pod, process,
    server::account::{Account, USER},
    wait,
};

/// How long until a decided connection is told of: a reading of the maps, and some.
const TOLD: Duration = Duration::from_secs(3);
/// Questions of which the time is taken.
const QUESTIONS: u32 = 10_000;
/// After that long it is believed who opens a connection without a SYN.
const SETTLE: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(10);

/// A service, its port, and the port of the pod behind it.
const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const SERVICE_PORT: u16 = 80;
const POD_PORT: u16 = 8080;
/// A port of the node that leads to the same.
const NODE_PORT: u16 = 30_080;
/// A port of the node that leads to the pod's SSH server.
const NODE_SSH: u16 = 30_022;
/// Where someone listens outside.
const OUTSIDE_PORT: u16 = 9_000;

/// What kube-proxy and an overlay network would do on the node.
fn translate(lab: &Lab, backend: &Pod) {
    let rules = |family: &str, service: &str, pod: IpAddr, node: IpAddr, pods: &str, to: &str| {
        format!(
            "table {family} lab {{
                chain pre {{
                    type nat hook prerouting priority -100;
                    {family} daddr {service} tcp dport {SERVICE_PORT} dnat to {to}
                    {family} daddr {service} udp dport {SERVICE_PORT} dnat to {to}
                    {family} daddr {node} tcp dport {NODE_PORT} dnat to {to}
                    {family} daddr {node} tcp dport {NODE_SSH} dnat to {pod}
                }}
                chain post {{
                    type nat hook postrouting priority 100;
                    {family} saddr {pods} {family} daddr != {pods} oifname eth0 masquerade
                    {family} daddr {pod} tcp dport 22 {family} saddr != {pods} masquerade
                }}
            }}\n"
        )
    };
    let (v4, v6) = (backend.addresses.v4, backend.addresses.v6);
    let text = [
        rules(
            "ip",
            SERVICE[0],
            v4.into(),
            NODE.v4.into(),
            "10.244.0.0/16",
            &format!("{v4}:{POD_PORT}"),
        ),
        rules(
            "ip6",
            SERVICE[1],
            v6.into(),
            NODE.v6.into(),
            "fd00:244::/64",
            &format!("[{v6}]:{POD_PORT}"),
        )
        // Of a pod's SSH server by IPv6 only the pod's port is meant.
        .replace(&format!("dnat to {v6}\n"), &format!("dnat to [{v6}]:22\n")),
    ]
    .concat()
    .replace(&format!("dnat to {v4}\n"), &format!("dnat to {v4}:22\n"));
    let file = lab.directory().join("rules.nft");
    fs::write(&file, text).expect("a file");
    let mut nft: Command = lab.node().command("nft");
    process::checked(nft.arg("-f").arg(&file)).expect("nft");
}

/// Two pods, the service in front of the second, and what may not reach the second.
fn manifests(lab: &Lab, client: &Pod, server: &Pod) -> String {
    let (a, b) = (client.addresses, server.addresses);
    let text = format!(
        "
{{apiVersion: v1, kind: Pod, metadata: {{name: cart-0, namespace: shop}},
  status: {{phase: Running, podIPs: [{{ip: {}}}, {{ip: '{}'}}]}}}}
---
{{apiVersion: v1, kind: Pod, metadata: {{name: pg-0, namespace: db}},
  status: {{phase: Running, podIPs: [{{ip: {}}}, {{ip: '{}'}}]}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: pg, namespace: db}},
  spec: {{clusterIPs: ['{}', '{}'], ports: [{{port: {SERVICE_PORT}, targetPort: {POD_PORT}}}]}}}}
---
{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: closed, namespace: db}},
  spec: {{podSelector: {{}}, policyTypes: [Ingress]}}}}
",
        a.v4, a.v6, b.v4, b.v6, SERVICE[0], SERVICE[1]
    );
    let file = lab.directory().join("cluster.yaml");
    fs::write(&file, text).expect("a file");
    file.to_str().expect("a path").to_owned()
}

/// Answers everything that comes to a port, by TCP and UDP; for as long as the test runs.
fn serve(at: &Namespace, port: u16) {
    let any = SocketAddr::new("::".parse().expect("an address"), port);
    let (tcp, udp) = at
        .run(|| {
            (
                TcpListener::bind(any).expect("a listener"),
                UdpSocket::bind(any).expect("a socket"),
            )
        })
        .expect("a namespace");
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(b"hello");
        }
    });
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((length, from)) = udp.recv_from(&mut bytes) {
            let _ = udp.send_to(&bytes[..length], from);
        }
    });
}

/// Connects, reads what comes and closes: over before the maps are read. The port used.
fn tcp(from: &Namespace, to: SocketAddr) -> u16 {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).expect("a connection");
        let port = stream.local_addr().expect("an address").port();
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert_eq!(text, "hello");
        port
    })
    .expect("a namespace")
}

/// Sends a datagram and waits for the answer. The port used.
fn udp(from: &Namespace, to: SocketAddr) -> u16 {
    from.run(|| {
        let any: IpAddr = if to.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            "::".parse().expect("an address")
        };
        let socket = UdpSocket::bind((any, 0)).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.connect(to).expect("a destination");
        socket.send(b"question").expect("sent");
        socket.recv(&mut [0; 64]).expect("an answer");
        socket.local_addr().expect("an address").port()
    })
    .expect("a namespace")
}

/// The flow at a point that satisfies a condition, once it is there.
fn flow(daemon: &Daemon<'_>, point: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Vec::new();
    let found = wait::until("a flow", TOLD, || {
        let flows = daemon.records(&["flows", "--last", "200", "--point", point]);
        last = flows.expect("records");
        last.iter()
            .find(|flow| wanted(flow) && flow["outcome"] == "established")
            .cloned()
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last:#?}\n{}", daemon.log()))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn translated_connections_are_tied_to_their_pods() {
    let tools = ["nft", "sshd", "ssh", "ssh-keygen", "mount"];
    let Some(_permit) = lab::require_with(&tools) else {
        return;
    };
    let lab = Lab::new("translation").expect("a lab");
    let (client, server) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let outside = lab.add_outside().expect("a peer");
    translate(&lab, &server);
    let manifests = manifests(&lab, &client, &server);
    serve(&server, POD_PORT);
    serve(&outside, OUTSIDE_PORT);
    let daemon = Daemon::start(lab.node(), &["--manifests", &manifests]).expect("the daemon");
    // Who sends first within a second of an interface's first packet may answer.
    thread::sleep(SETTLE);

    // Through the service: the pod's interface shows the service, and the pod that was chosen.
    for service in SERVICE.map(ip) {
        let to = SocketAddr::new(service, SERVICE_PORT);
        for (protocol, port) in [("TCP", tcp(&client, to)), ("UDP", udp(&client, to))] {
            let flow = flow(&daemon, "workload", |flow| {
                flow["source"]["port"] == port
                    && flow["protocol"] == protocol
                    && flow["destination"]["ip"] == service.to_string()
                    && !flow["translated"].is_null()
            });
            assert_eq!(flow["source"]["pod"], "cart-0", "{flow:#}");
            assert_eq!(flow["destination"]["kind"], "service", "{flow:#}");
            assert_eq!(flow["destination"]["name"], "pg", "{flow:#}");
            let chosen = &flow["translated"]["destination"];
            assert_eq!(chosen["pod"], "pg-0", "{flow:#}");
            assert_eq!(chosen["port"], POD_PORT, "{flow:#}");
            assert_eq!(flow["translated"]["source"], Value::Null, "{flow:#}");
            // By the policies of the pod behind it.
            assert_eq!(flow["policy"]["allowed"], false, "{flow:#}");
            assert_eq!(flow["finding"], "policy-violation", "{flow:#}");
        }
    }
    // Both interfaces show each connection, and four are told once each: two families would be two
    // findings if addresses counted, but the ends are pods.
    let findings = daemon.records(&["findings"]).expect("records");
    let about: Vec<_> = findings.iter().map(|finding| &finding["reason"]).collect();
    assert_eq!(findings.len(), 2, "TCP and UDP: {about:#?}");
    let reason = about[0].as_str().expect("a sentence");
    assert!(reason.contains("from shop/cart-0 to db/pg-0"), "{about:#?}");

    // Out by the uplink: the node's address, and the pod behind it.
    for address in [
        IpAddr::from(outside.addresses.v4),
        IpAddr::from(outside.addresses.v6),
    ] {
        let to = SocketAddr::new(address, OUTSIDE_PORT);
        for (protocol, port) in [("TCP", tcp(&client, to)), ("UDP", udp(&client, to))] {
            let flow = flow(&daemon, "uplink", |flow| {
                flow["translated"]["source"]["port"] == port && flow["protocol"] == protocol
            });
            assert_eq!(flow["source"]["kind"], "node", "{flow:#}");
            assert_eq!(flow["translated"]["source"]["pod"], "cart-0", "{flow:#}");
            assert_eq!(flow["destination"]["ip"], address.to_string(), "{flow:#}");
        }
    }
    // In by a port of the node.
    for node in [IpAddr::from(NODE.v4), IpAddr::from(NODE.v6)] {
        let port = tcp(&outside, SocketAddr::new(node, NODE_PORT));
        let flow = flow(&daemon, "uplink", |flow| {
            flow["source"]["port"] == port
                && flow["destination"]["port"] == NODE_PORT
                && !flow["translated"].is_null()
        });
        let chosen = &flow["translated"]["destination"];
        assert_eq!(flow["destination"]["kind"], "node", "{flow:#}");
        assert_eq!(chosen["pod"], "pg-0", "{flow:#}");
        assert_eq!(chosen["port"], POD_PORT, "{flow:#}");
    }
    // What the node itself opens needs no question and is as it is.
    let port = tcp(
        lab.node(),
        SocketAddr::new(outside.addresses.v4.into(), OUTSIDE_PORT),
    );
    let own = flow(&daemon, "uplink", |flow| flow["source"]["port"] == port);
    assert_eq!(own["translated"], Value::Null, "{own:#}");

    // Found by the pod, whichever point shows it.
    let of_pod = ["flows", "--pod", "db/pg-0", "--point", "uplink"];
    let of_pod = daemon.records(&of_pod).expect("records");
    assert_eq!(of_pod.len(), 2, "by a port of the node: {of_pod:#?}");

    ssh_in(&daemon, &server, &outside);
    ssh_out(&daemon, &client, &outside);

    let status = daemon.tell(&["status", "-o", "json"]).expect("status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let translation = &status["translation"];
    assert_eq!(translation["unavailable"], Value::Null, "{translation:#}");
    assert_eq!(translation["unknown"], 0, "{translation:#}");
    let metrics = daemon.metrics().expect("metrics");
    let translated = metrics.count("nodewatch_translations_total", &[("result", "translated")]);
    assert_eq!(translation["translated"], translated, "{translation:#}");
    assert!(translated >= 11, "{translation:#}");
}

/// SSH to a pod by a port of the node, behind whose address the client is for the pod: told once,
/// by who opened it and who answers.
fn ssh_in(daemon: &Daemon<'_>, server: &Pod, outside: &lab::Peer) {
    let account = Account::sshd(server, 22, false).expect("sshd");
    let to = SocketAddr::new(NODE.v4.into(), NODE_SSH);
    let mut login = account.ssh_at(outside, to, USER, "client_key");
    process::checked(login.arg("true")).expect("a login");
    let record = &closed_ssh(daemon, 1)[0];
    let client = outside.addresses.v4.to_string();
    assert_eq!(record["source"]["ip"], client, "{record:#}");
    assert_eq!(record["destination"]["pod"], "pg-0", "{record:#}");
    assert_eq!(record["destination"]["port"], 22, "{record:#}");
    assert_eq!(record["target"], "pod", "{record:#}");
    let between = &record["translated"];
    assert_eq!(between["destination"]["port"], NODE_SSH, "{record:#}");
    assert_eq!(between["source"]["kind"], "node", "{record:#}");
    assert_eq!(record["authentication"], "success", "{record:#}");
}

/// SSH from a pod to outside, where it comes from the node: told once, with the pod.
fn ssh_out(daemon: &Daemon<'_>, client: &Pod, outside: &lab::Peer) {
    let account = Account::sshd(outside, 22, false).expect("sshd");
    let to = SocketAddr::new(outside.addresses.v4.into(), 22);
    let mut login = account.ssh_at(client, to, USER, "client_key");
    process::checked(login.arg("true")).expect("a login");
    let told = closed_ssh(daemon, 2);
    let record = told
        .iter()
        .find(|record| record["destination"]["ip"] == to.ip().to_string())
        .expect("a record");
    assert_eq!(record["source"]["pod"], "cart-0", "{record:#}");
    assert_eq!(record["target"], "external", "{record:#}");
    assert_eq!(record["authentication"], "success", "{record:#}");
}

/// The SSH connections so far, once so many are closed: each is told of once.
fn closed_ssh(daemon: &Daemon<'_>, count: usize) -> Vec<Value> {
    let mut told = Vec::new();
    wait::until("the end of SSH", Duration::from_secs(20), || {
        told = daemon.records(&["ssh"]).expect("records");
        let closed = told.iter().filter(|record| record["state"] == "closed");
        (closed.count() >= count).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {told:#?}"));
    assert_eq!(told.len(), count, "told once: {told:#?}");
    told
}

#[test]
fn a_question_costs_little() {
    let Some(_permit) = lab::require_with(&["nft"]) else {
        return;
    };
    let lab = Lab::new("asked").expect("a lab");
    let (client, server) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    translate(&lab, &server);
    serve(&server, POD_PORT);
    let to = SocketAddr::new(ip(SERVICE[0]), SERVICE_PORT);
    let from = SocketAddr::new(client.addresses.v4.into(), tcp(&client, to));
    let ask = || {
        let mut conntrack = Conntrack::new().expect("connection tracking");
        let start = Instant::now();
        for _ in 0..QUESTIONS {
            let found = conntrack.find(Protocol::TCP, from, to).expect("an answer");
            let reached = found.expect("the connection").reached.destination;
            assert_eq!(reached.port(), POD_PORT);
        }
        start.elapsed() / QUESTIONS
    };
    let each = lab.node().run(ask).expect("a namespace");
    println!("a question takes {each:?}");
    // Some microseconds; a hundred times that would be a dump of the table.
    assert!(each < Duration::from_millis(1), "{each:?}");
}

#[test]
fn without_connection_tracking_translations_are_unknown() {
    let Some(_permit) = lab::require_with(&["nft", "unshare", "mount"]) else {
        return;
    };
    let lab = Lab::new("untracked").expect("a lab");
    let (client, server) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    translate(&lab, &server);
    let manifests = manifests(&lab, &client, &server);
    serve(&server, POD_PORT);
    // As on a node without the module: nothing is there to ask.
    let socket = lab.node().directory().join("untracked.sock");
    let script = "mount -t tmpfs none /proc/sys/net/netfilter && exec \"$@\"";
    let run = [
        "run",
        "--listen",
        "127.0.0.1:9469",
        "--manifests",
        &manifests,
        "--socket",
        socket.to_str().expect("a path"),
    ];
    let mut hidden = lab.node().command("unshare");
    hidden
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(tests::daemon::binary().expect("the binary"))
        .args(run);
    let guard = lab.node().spawn("nodewatch", &mut hidden).expect("spawned");
    let ask = |arguments: &[&str]| {
        let mut command = tests::daemon::command(lab.node(), arguments).expect("a command");
        process::checked(command.arg("--socket").arg(&socket))
    };
    wait::until("the daemon", PATIENCE, || {
        ask(&["status"])
            .ok()
            .filter(|status| status.contains("veth2"))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", guard.log()));
    tcp(&client, SocketAddr::new(ip(SERVICE[0]), SERVICE_PORT));
    let mut last = String::new();
    let told = wait::until("a flow", TOLD, || {
        last = ask(&["flows", "-o", "jsonl"]).expect("flows");
        last.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .find(|flow| flow["destination"]["kind"] == "service")
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}"));
    assert_eq!(told["translated"], "unknown", "{told:#}");
    let status = ask(&["status"]).expect("status");
    let said = "translated: unknown: this node does not track connections";
    assert!(status.contains(said), "{status}");
    // Said once, and no more for each connection.
    let log = guard.log();
    assert_eq!(log.matches("addresses are translated").count(), 1, "{log}");
}

#[test]
fn where_nothing_is_tracked_connections_are_as_they_are_seen() {
    let Some(_permit) = lab::require_with(&["nft"]) else {
        return;
    };
    // Connection tracking is loaded, and no rule of this node asks for it: as on a node whose
    // network translates nothing, or not by netfilter.
    let lab = Lab::new("idle").expect("a lab");
    let elsewhere =
        "add table ip lab; add chain ip lab post { type nat hook postrouting priority 100; }";
    process::checked(lab.fabric().command("nft").arg(elsewhere)).expect("nft");
    let (client, server) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let inside = lab.add_inside().expect("a peer");
    serve(&inside, OUTSIDE_PORT);
    let manifests = manifests(&lab, &client, &server);
    let daemon = Daemon::start(lab.node(), &["--manifests", &manifests]).expect("the daemon");
    thread::sleep(SETTLE);
    // To a private address that is no pod's.
    for to in [
        IpAddr::from(inside.addresses.v4),
        IpAddr::from(inside.addresses.v6),
    ] {
        let to = SocketAddr::new(to, OUTSIDE_PORT);
        for (protocol, port) in [("TCP", tcp(&client, to)), ("UDP", udp(&client, to))] {
            let flow = flow(&daemon, "workload", |flow| {
                flow["source"]["port"] == port && flow["protocol"] == protocol
                    // A verdict comes once it is known that nothing is tracked.
                    && flow["policy"] != Value::Null
            });
            assert_eq!(flow["translated"], Value::Null, "{flow:#}");
            assert_eq!(flow["source"]["pod"], "cart-0", "{flow:#}");
            assert_eq!(flow["policy"]["allowed"], true, "{flow:#}");
        }
    }
    let status = daemon.tell(&["status", "-o", "json"]).expect("status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    let translation = &status["translation"];
    assert!(translation["asked"].as_u64() >= Some(4), "{translation:#}");
    assert_eq!(translation["unknown"], 0, "{translation:#}");
    // Somebody has to translate the address of a service: who is not known, nor where it leads.
    let service = SocketAddr::new(ip(SERVICE[0]), SERVICE_PORT);
    client
        .run(|| TcpStream::connect_timeout(&service, Duration::from_millis(300)).is_ok())
        .expect("a namespace");
    let mut last = Vec::new();
    wait::until("a flow to the service", TOLD, || {
        let flows = daemon.records(&["flows", "--last", "200", "--point", "workload"]);
        last = flows.expect("records");
        let mut flows = last.iter();
        flows
            .any(|flow| flow["destination"]["kind"] == "service" && flow["translated"] == "unknown")
            .then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last:#?}"));
}
