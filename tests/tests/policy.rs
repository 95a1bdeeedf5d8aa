//! Pods named by manifests, and real connections against the policies in them.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::daemon::Daemon;
use tests::lab::{self, Lab, Namespace, process, wait};

/// How long until a decided connection is told of: a reading of the maps, and some.
const TOLD: Duration = Duration::from_secs(2);
/// How long until an unanswered connection is closed and told of, or a changed file is read.
const LATER: Duration = Duration::from_mins(1);
/// How long a change has its grace.
const GRACE: Duration = Duration::from_secs(10);

const PORT: u16 = 8080;
const CLOSED: u16 = 8081;

/// Manifests of two pods and what may reach the second.
fn manifests(directory: &Path, name: &str, client: IpAddr, server: IpAddr) {
    let text = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: cart}}}}
status: {{phase: Running, podIP: {client}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: pg-0, namespace: db}}
status: {{phase: Running, podIP: {server}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: pg-default-deny, namespace: db}}
spec: {{podSelector: {{}}, policyTypes: [Ingress]}}
"
    );
    fs::write(directory.join("lab.yaml"), text).expect("a file");
}

/// Connects, and says whether that worked.
fn connect(from: &Namespace, to: SocketAddr, within: Duration) -> bool {
    from.run(|| TcpStream::connect_timeout(&to, within).is_ok())
        .expect("a namespace")
}

/// Findings, once there are some that are wanted.
fn finding(daemon: &Daemon<'_>, within: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Vec::new();
    let found = wait::until("a finding", within, || {
        last = daemon.records(&["findings"]).expect("records");
        last.iter().find(|record| wanted(record)).cloned()
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last:#?}\n{}", daemon.log()))
}

#[test]
fn what_policies_deny_and_passes_is_a_violation_and_what_is_dropped_is_none() {
    let Some(_permit) = lab::require_with(&["nft"]) else {
        return;
    };
    let lab = Lab::new("policy").expect("a lab");
    let (client, server) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let (from, to) = (
        IpAddr::from(client.addresses.v4),
        IpAddr::from(server.addresses.v4),
    );
    let directory = tempfile::tempdir().expect("a directory");
    manifests(directory.path(), "cart-0", from, to);
    let path = directory.path().to_str().expect("a path");
    let config = lab.node().directory().join("policy.toml");
    let text = format!("manifests = [\"{path}\"]\n[timeouts]\ntcp_unanswered = \"3s\"\n");
    fs::write(&config, text).expect("a file");
    let config = config.to_str().expect("a path");
    let daemon = Daemon::start(lab.node(), &["--config", config]).expect("the daemon");
    let listener = server
        .run(|| TcpListener::bind(SocketAddr::new(to, PORT)))
        .expect("a namespace")
        .expect("a listener");

    // Nothing enforces the policy: the connection works, and is told of with both pods.
    assert!(connect(&client, SocketAddr::new(to, PORT), TOLD));
    let since = Instant::now();
    let record = finding(&daemon, TOLD, |record| {
        record["finding"] == "policy-violation"
    });
    println!("told after {:?}", since.elapsed());
    assert_eq!(
        record["declared_by"], "NetworkPolicy db/pg-default-deny",
        "{record:#}"
    );
    let flow = &record["flow"];
    assert_eq!(flow["point"], "workload");
    assert_eq!(flow["source"]["pod"], "cart-0");
    assert_eq!(flow["source"]["labels"]["app"], "cart");
    assert_eq!(flow["destination"]["namespace"], "db");
    assert_eq!(flow["destination"]["pod"], "pg-0");
    assert_eq!(flow["policy"]["ingress"]["allowed"], false);
    // Seen at the veths of both.
    for (namespace, direction) in [("shop", "egress"), ("db", "ingress")] {
        let labels = [
            ("namespace", namespace),
            ("direction", direction),
            ("allowed", "false"),
            ("outcome", "established"),
        ];
        let denied = || {
            let metrics = daemon.metrics().expect("metrics");
            metrics.count("nodewatch_policy_connections_total", &labels)
        };
        wait::until("the count", TOLD, || (denied() > 0).then_some(())).expect(namespace);
        assert_eq!(denied(), 1, "{namespace}");
    }

    // Enforced by dropping: the attempt is counted, and no finding.
    let drop_all = "add table inet lab; add chain inet lab forward { type filter hook forward priority 0; }; \
         add rule inet lab forward tcp dport 8081 drop";
    let mut nft: Command = lab.node().command("nft");
    process::checked(nft.arg(drop_all)).expect("nft");
    assert!(!connect(&client, SocketAddr::new(to, CLOSED), TOLD));
    wait::until("the attempt", LATER, || {
        let metrics = daemon.metrics().expect("metrics");
        let attempts = metrics.count(
            "nodewatch_policy_connections_total",
            &[
                ("namespace", "shop"),
                ("allowed", "false"),
                ("policy", "NetworkPolicy db/pg-default-deny"),
                ("outcome", "unanswered"),
            ],
        );
        (attempts == 1).then_some(())
    })
    .expect("an attempt");
    let findings = daemon.records(&["findings"]).expect("records");
    assert_eq!(findings.len(), 1, "{findings:#?}");

    // The address passes to another pod: what began before keeps its name, also where it goes on.
    let lasting = client
        .run(|| TcpStream::connect_timeout(&SocketAddr::new(to, PORT), TOLD))
        .expect("a namespace")
        .expect("a connection");
    let lasting_port = lasting.local_addr().expect("an address").port();
    std::thread::sleep(TOLD);
    manifests(directory.path(), "web-0", from, to);
    let named = |name: &str| {
        let flows = daemon.records(&["flows", "--pod", name]).expect("records");
        flows.len()
    };
    wait::until("the other pod", LATER, || {
        assert!(connect(&client, SocketAddr::new(to, PORT), TOLD));
        (named("shop/web-0") > 0).then_some(())
    })
    .expect("its name");
    assert!(named("shop/cart-0") > 0);
    (&lasting).write_all(b"still here").expect("written");
    let of_lasting = || {
        let flows = daemon.records(&["flows", "--port", &lasting_port.to_string()]);
        flows.expect("records")
    };
    wait::until("what was written", TOLD, || {
        let flows = of_lasting();
        let is_counted = |flow: &Value| flow["forward"]["packets"].as_u64() > Some(2);
        (!flows.is_empty() && flows.iter().all(is_counted)).then_some(())
    })
    .expect("a count");
    for flow in of_lasting() {
        assert_eq!(flow["source"]["pod"], "cart-0", "{flow:#}");
    }
    drop(lasting);
    // Within the grace period of the change there is no finding; after it there is.
    std::thread::sleep(GRACE);
    assert!(connect(&client, SocketAddr::new(to, PORT), TOLD));
    let record = finding(&daemon, TOLD, |record| {
        record["flow"]["source"]["pod"] == "web-0"
    });
    assert_eq!(record["finding"], "policy-violation");
    drop(listener);
}

/// The metric of connections that what is proposed would change.
fn proposed_connections(daemon: &Daemon<'_>, namespace: &str, change: &str) -> u64 {
    daemon.metrics().expect("metrics").count(
        "nodewatch_policy_proposed_connections_total",
        &[("namespace", namespace), ("change", change)],
    )
}

#[test]
fn what_is_proposed_is_told_and_counted_and_enforces_nothing() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("proposed").expect("a lab");
    let (client, server) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
    let (from, to) = (client.addresses.v4, server.addresses.v4);
    let directory = tempfile::tempdir().expect("a directory");
    let [declared, proposed] = ["declared", "proposed"].map(|name| directory.path().join(name));
    for path in [&declared, &proposed] {
        fs::create_dir(path).expect("a directory");
    }
    let pods = format!(
        "
{{apiVersion: v1, kind: Pod, metadata: {{name: cart-0, namespace: shop}}, status: {{phase: Running, podIP: {from}}}}}
---
{{apiVersion: v1, kind: Pod, metadata: {{name: pg-0, namespace: db}}, status: {{phase: Running, podIP: {to}}}}}
"
    );
    let policy = |annotations: &str, ingress: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,
  metadata: {{name: pg, namespace: db, annotations: {{{annotations}}}}},
  spec: {{podSelector: {{}}, policyTypes: [Ingress], ingress: {ingress}}}}}\n"
        )
    };
    fs::write(declared.join("pods.yaml"), pods).expect("a file");
    fs::write(proposed.join("pg.yaml"), policy("", "[]")).expect("a file");
    let [declared_path, proposed_path] =
        [&declared, &proposed].map(|path| path.to_str().expect("a path"));
    let arguments = ["--manifests", declared_path, "--proposed", proposed_path];
    let daemon = Daemon::start(lab.node(), &arguments).expect("the daemon");
    let listener = server
        .run(|| TcpListener::bind(SocketAddr::new(to.into(), PORT)))
        .expect("a namespace")
        .expect("a listener");
    let proposals = |kind: &str| {
        let told = daemon
            .records(&["findings", "--proposed"])
            .expect("records");
        let of_kind = told.into_iter().filter(|record| record["finding"] == kind);
        of_kind.collect::<Vec<_>>()
    };

    // No policy is in force; the proposed one would deny.
    let since = Instant::now();
    for _ in 0..3 {
        assert!(connect(&client, SocketAddr::new(to.into(), PORT), TOLD));
    }
    let told = wait::until("what would be denied", LATER, || {
        proposals("policy-would-deny").pop()
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    println!("told after {:?}", since.elapsed());
    assert_eq!(told["declared_by"], "NetworkPolicy db/pg", "{told:#}");
    let flow = &told["flow"];
    assert_eq!(flow["policy"]["allowed"], true, "{told:#}");
    assert_eq!(flow["proposed"]["allowed"], false, "{told:#}");
    assert_eq!(flow["source"]["pod"], "cart-0", "{told:#}");
    assert_eq!(flow["destination"]["pod"], "pg-0", "{told:#}");
    assert!(flow["finding"].is_null(), "nothing is violated: {told:#}");
    // Told once, counted each time, at the interfaces of both pods.
    assert_eq!(proposals("policy-would-deny").len(), 1);
    for namespace in ["shop", "db"] {
        wait::until("the count", LATER, || {
            (proposed_connections(&daemon, namespace, "policy-would-deny") == 3).then_some(())
        })
        .expect(namespace);
    }
    assert_eq!(daemon.records(&["findings"]).expect("records").len(), 0);
    let metrics = daemon.metrics().expect("metrics");
    let none = [("namespace", "db"), ("policy", "policy-none")];
    assert_eq!(
        metrics.count("nodewatch_policy_connections_total", &none),
        3
    );

    // Of no pod is anything said: looked at every ten seconds.
    let uncovered = |direction: &str| {
        let labels = [("direction", direction), ("coverage", "policy-none")];
        let metrics = daemon.metrics().expect("metrics");
        metrics.count("nodewatch_policy_pods", &labels)
    };
    wait::until("coverage", LATER, || {
        (uncovered("ingress") == 2 && uncovered("egress") == 2).then_some(())
    })
    .expect("two pods without a policy");

    // In force it denies; proposed is one that allows, by an annotation among what is declared.
    fs::write(declared.join("pg.yaml"), policy("", "[]")).expect("a file");
    fs::remove_file(proposed.join("pg.yaml")).expect("removed");
    let annotated = policy("nodewatch.io/mode: propose", "[{}]");
    fs::write(declared.join("later.yaml"), annotated).expect("a file");
    wait::until("what would be allowed", LATER, || {
        assert!(connect(&client, SocketAddr::new(to.into(), PORT), TOLD));
        proposals("policy-would-allow").pop()
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    assert!(proposed_connections(&daemon, "db", "policy-would-allow") > 0);
    wait::until("coverage", LATER, || {
        (uncovered("ingress") == 1 && uncovered("egress") == 2).then_some(())
    })
    .expect("one pod without a policy for ingress");
    let status = daemon.tell(&["status"]).expect("a status");
    let said = "policies: 1 in force, 1 proposed; of 2 pods here no policy selects 1 for ingress";
    assert!(status.contains(said), "{status}");
    drop(listener);
    daemon.stop().expect("it ends");
}

#[test]
fn what_of_the_files_cannot_be_used_is_told_and_counted() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("leftout").expect("a lab");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("a path");
    let write = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).expect("a file");
    };
    let pod = |name: &str, ip: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop}}, \
             status: {{phase: Running, podIP: \"{ip}\"}}}}\n"
        )
    };
    let pods = [pod("one", "10.0.0.1"), pod("two", "10.0.0.1")].concat();
    write("pods.yaml", &(pods + &pod("three", "300.1.1.1")));
    write("broken.yaml", "a: b\n---\nkind: [\n");
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: bad, \
                  namespace: shop}\nspec:\n  policyTypes: [Sideways]\n";
    write("policy.yaml", policy);
    let daemon = Daemon::start(lab.node(), &["--manifests", path]).expect("the daemon");
    let told = daemon.tell(&["status"]).expect("a status");
    for line in [
        format!("manifests: {path}/broken.yaml: left out: line 3: is no YAML"),
        format!(
            "manifests: {path}/policy.yaml: left out: line 5: NetworkPolicy shop/bad: spec.policyTypes[0]"
        ),
        format!(
            "manifests: 1 addresses are none and not used, the last: {path}/pods.yaml:6: Pod shop/three: status.podIP: `300.1.1.1` is no IP address"
        ),
        "10.0.0.1 is of several pods: its flows are those of shop/two, not of shop/one".to_owned(),
    ] {
        assert!(told.contains(&line), "{line}: {told}");
    }
    let skipped = |resource: &str| {
        let metrics = daemon.metrics().expect("metrics");
        let labels = [("resource", resource)];
        metrics.count("nodewatch_kubernetes_objects_skipped", &labels)
    };
    assert_eq!((skipped("documents"), skipped("networkpolicies")), (1, 1));
    let doubtful = |reason: &str| {
        let metrics = daemon.metrics().expect("metrics");
        let labels = [("resource", "pods"), ("reason", reason)];
        metrics.count("nodewatch_kubernetes_addresses_doubtful", &labels)
    };
    assert_eq!((doubtful("invalid"), doubtful("shared")), (1, 1));
    wait::until("a line in the log", LATER, || {
        let log = daemon.log();
        log.contains("10.0.0.1 is the address of several pods")
            .then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    // What is mended is no longer told.
    write(
        "pods.yaml",
        &[pod("one", "10.0.0.1"), pod("two", "10.0.0.2")].concat(),
    );
    write("broken.yaml", "");
    write("policy.yaml", &policy.replace("Sideways", "Ingress"));
    let mended = || {
        let told = daemon.tell(&["status"]).expect("a status");
        let is_told = told.contains("manifests: ") || told.contains("several pods");
        (!is_told && told.contains("policies: 1 in force")).then_some(())
    };
    wait::until("the mended files", LATER, mended).expect("they are read");
    assert_eq!((skipped("documents"), doubtful("shared")), (0, 0));
}
