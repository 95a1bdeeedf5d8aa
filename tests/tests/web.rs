//! TLS and authentication of `/metrics`, with real clients: curl, openssl, Prometheus.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::daemon::{self, Daemon, LISTEN};
use tests::lab::{self, Guard, Lab, Namespace, Transport, process, wait};

#[path = "web/scene.rs"]
mod scene;

use scene::{
    Authority, HASH, PASSWORD, PATIENCE, TOKEN, TOOLS, count, curl, server_section, start,
};

#[test]
fn credentials_are_asked_for_where_they_are_declared() {
    let Some(_permit) = lab::require_with(TOOLS) else {
        return;
    };
    let lab = Lab::new("web").expect("a lab");
    let node = lab.node();
    let authority = Authority::new(&node.directory().join("authority"));
    authority.sign("server", "serverAuth");
    let toolkit = format!(
        "{}basic_auth_users:\n  prometheus: {HASH}\n",
        server_section(&authority)
    );
    // What Prometheus' own tool accepts is accepted here.
    let sample = node.directory().join("toolkit.yml");
    fs::write(&sample, &toolkit).expect("written");
    let mut check = Command::new("promtool");
    process::checked(check.args(["check", "web-config"]).arg(&sample)).expect("promtool");

    fs::write(node.directory().join("token"), format!("{TOKEN}\n")).expect("written");
    let (daemon, _) = start(node, &format!("{toolkit}bearer_token_files: [token]\n"));
    let ca = authority.text("ca.crt");
    let ask = |path: &str, more: &[&str]| curl(node, path, &[&["--cacert", &ca], more].concat());

    for (arguments, status) in [
        (vec![], 401),
        (vec!["--user", "prometheus:wrong"], 401),
        (vec!["--user", "nobody:correct horse"], 401),
        (
            vec!["--oauth2-bearer", "b8a1c5f0e3d24a7fb8a1c5f0e3d24a70"],
            401,
        ),
        (vec!["--user", "prometheus:correct horse"], 200),
        (vec!["--oauth2-bearer", TOKEN], 200),
    ] {
        let answer = ask("/metrics", &arguments);
        assert_eq!(answer.status, status, "{arguments:?}: {answer:?}");
        if status == 401 {
            for scheme in ["basic", "bearer"] {
                let header = format!("www-authenticate: {scheme} realm=\"nodewatch\"");
                assert!(answer.head.contains(&header), "{answer:?}");
            }
            assert!(!answer.body.contains("nodewatch_"), "{answer:?}");
        }
    }
    assert_eq!(ask("/", &[]).status, 401);
    assert_eq!(ask("/nowhere", &[]).status, 401);
    // The kubelet has neither credentials nor the authority.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(curl(node, path, &["--insecure"]).status, 200);
    }
    for (arguments, version) in [
        (["--tls-max", "1.2"], "1.2"),
        (["--tlsv1.3", "--no-progress-meter"], "1.3"),
    ] {
        let answer = ask("/healthz", &arguments);
        assert_eq!(answer.status, 200, "TLS {version}: {answer:?}");
    }
    // An answer that says what is wrong, not a torn connection.
    let plain = curl(node, &format!("http://{LISTEN}/metrics"), &[]);
    assert_eq!(plain.status, 400, "{plain:?}");
    assert!(plain.body.contains("https://"), "{plain:?}");

    let metrics = ask("/metrics", &["--oauth2-bearer", TOKEN]);
    let refused = |why: &str| {
        let sample = format!("nodewatch_http_refused_total{{reason=\"{why}\"}}");
        count(&metrics, &sample)
    };
    assert_eq!((refused("credentials"), refused("plaintext")), (6, 1));
    let log = daemon.log();
    for secret in [TOKEN, PASSWORD, "2y$10"] {
        assert!(!log.contains(secret), "{log}");
    }
    daemon.stop().expect("it stops");
}

#[test]
fn prometheus_scrapes_with_password_token_and_certificate() {
    let Some(_permit) = lab::require_with(TOOLS) else {
        return;
    };
    let lab = Lab::new("webprom").expect("a lab");
    let node = lab.node();
    let authority = Authority::new(&node.directory().join("authority"));
    authority.sign("server", "serverAuth");
    let text = format!(
        "{}basic_auth_users:\n  prometheus: {HASH}\nbearer_token_sha256:\n- {}\n",
        server_section(&authority),
        sum(TOKEN)
    );
    let (daemon, _) = start(node, &text);
    let tls = format!("{{ca_file: {}}}", authority.text("ca.crt"));
    let jobs = [
        (
            "basic",
            format!("{{username: prometheus, password: {PASSWORD}}}"),
            "",
        ),
        (
            "wrong",
            "{username: prometheus, password: guess}".to_owned(),
            "",
        ),
        ("bearer", String::new(), TOKEN),
    ];
    let jobs = jobs.map(|(job, basic, token)| {
        let credentials = if token.is_empty() {
            format!("basic_auth: {basic}")
        } else {
            format!("authorization: {{type: Bearer, credentials: {token}}}")
        };
        format!(
            "- job_name: {job}\n  scheme: https\n  tls_config: {tls}\n  {credentials}\n  \
             static_configs: [{{targets: ['{LISTEN}']}}]\n"
        )
    });
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{}",
        jobs.concat()
    );
    let prometheus = prometheus(node, &config);
    for (job, up) in [("basic", "1"), ("bearer", "1"), ("wrong", "0")] {
        let query = format!("up%7Bjob%3D%22{job}%22%7D");
        let found = wait::until("a scrape", PATIENCE, || {
            let value = value(node, &query)?;
            (value == up).then_some(())
        });
        let log = prometheus.log();
        assert!(found.is_ok(), "{job}: {:?}\n{log}", value(node, &query));
    }
    let address = SocketAddr::from(([127, 0, 0, 1], 9090));
    let targets = daemon::http(node, address, "/api/v1/targets").expect("targets");
    assert!(
        targets.body.contains("401 Unauthorized"),
        "{}",
        targets.body
    );
    drop(prometheus);
    daemon.stop().expect("it stops");
}

#[test]
fn metrics_may_need_a_client_certificate() {
    let Some(_permit) = lab::require_with(TOOLS) else {
        return;
    };
    let lab = Lab::new("webmtls").expect("a lab");
    let node = lab.node();
    let authority = Authority::new(&node.directory().join("authority"));
    authority.sign("server", "serverAuth");
    authority.sign("client", "clientAuth");
    let other = Authority::new(&node.directory().join("other"));
    other.sign("client", "clientAuth");
    let text = format!(
        "{}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {}\n  min_version: TLS13\n",
        server_section(&authority),
        authority.text("ca.crt")
    );
    let (daemon, _) = start(node, &text);
    let ca = authority.text("ca.crt");
    let ask = |path: &str, of: Option<&Authority>| {
        let mut arguments = vec!["--cacert".to_owned(), ca.clone()];
        if let Some(of) = of {
            let (crt, key) = (of.text("client.crt"), of.text("client.key"));
            arguments.extend(["--cert".to_owned(), crt, "--key".to_owned(), key]);
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        curl(node, path, &arguments)
    };
    assert_eq!(ask("/metrics", Some(&authority)).status, 200);
    assert_eq!(ask("/healthz", None).status, 200);
    assert_eq!(ask("/readyz", None).status, 200);
    let without = ask("/metrics", None);
    assert_eq!(without.status, 403, "{without:?}");
    assert!(without.body.contains("client certificate"), "{without:?}");
    let foreign = ask("/metrics", Some(&other));
    assert_eq!(foreign.status, 0, "{foreign:?}");
    assert!(!foreign.error.is_empty());
    let old = curl(node, "/healthz", &["--cacert", &ca, "--tls-max", "1.2"]);
    assert_eq!(old.status, 0, "min_version: {old:?}");
    let metrics = ask("/metrics", Some(&authority));
    let refused = |why: &str| {
        count(
            &metrics,
            &format!("nodewatch_http_refused_total{{reason=\"{why}\"}}"),
        )
    };
    assert_eq!((refused("certificate"), refused("handshake")), (1, 2));
    daemon.stop().expect("it stops");
}

#[test]
fn a_renewed_certificate_comes_into_force() {
    let Some(_permit) = lab::require_with(TOOLS) else {
        return;
    };
    let lab = Lab::new("webreload").expect("a lab");
    let node = lab.node();
    // As the kubelet mounts a Secret: files are links into a folder that a link names, which is swapped.
    let mount = node.directory().join("secret");
    let authorities = ["first", "second"].map(|name| {
        let authority = Authority::new(&mount.join(name));
        authority.sign("server", "serverAuth");
        authority
    });
    symlink("first", mount.join("..data")).expect("a link");
    for file in ["server.crt", "server.key"] {
        symlink(format!("..data/{file}"), mount.join(file)).expect("a link");
    }
    let text = format!(
        "tls_server_config: {{cert_file: {0}/server.crt, key_file: {0}/server.key}}\n",
        mount.display()
    );
    let (daemon, path) = start(node, &text);
    let trusts = |authority: &Authority| {
        curl(node, "/metrics", &["--cacert", &authority.text("ca.crt")]).status == 200
    };
    let [first, second] = &authorities;
    assert!(trusts(first) && !trusts(second));
    symlink("second", mount.join("..next")).expect("a link");
    fs::rename(mount.join("..next"), mount.join("..data")).expect("swapped");
    wait::until("the second certificate", PATIENCE, || {
        trusts(second).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    assert!(!trusts(first));
    // What cannot be used changes nothing but a counter.
    fs::write(&path, format!("{text}nonsense: 1\n")).expect("written");
    let loads = |result: &str| {
        let answer = curl(node, "/metrics", &["--cacert", &second.text("ca.crt")]);
        count(
            &answer,
            &format!("nodewatch_web_config_loads_total{{result=\"{result}\"}}"),
        )
    };
    wait::until("the refusal", PATIENCE, || {
        (loads("refused") == 1).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    assert_eq!(loads("applied"), 1);
    let log = daemon.log();
    assert!(log.contains("web.yml:2: unknown field `nonsense`"), "{log}");
    // Put right, it is in force again; a key of another certificate is not.
    fs::write(&path, &text).expect("written");
    wait::until("the configuration", PATIENCE, || {
        (loads("applied") == 2).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    fs::copy(first.path("server.key"), second.path("server.key")).expect("copied");
    wait::until("the refusal", PATIENCE, || {
        (loads("refused") == 2).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", daemon.log()));
    assert!(
        daemon.log().contains("is not the key of the certificate"),
        "{}",
        daemon.log()
    );
    daemon.stop().expect("it stops");
}

#[test]
fn silent_clients_keep_nobody_out() {
    let Some(_permit) = lab::require_with(TOOLS) else {
        return;
    };
    let lab = Lab::new("webslow").expect("a lab");
    let node = lab.node();
    let authority = Authority::new(&node.directory().join("authority"));
    authority.sign("server", "serverAuth");
    let (daemon, _) = start(node, &server_section(&authority));
    let silent: Vec<TcpStream> = node
        .run(|| {
            (0..60)
                .filter_map(|number| {
                    let mut stream = TcpStream::connect(LISTEN).ok()?;
                    // Some say nothing, some begin a handshake and go no further.
                    if number % 2 == 0 {
                        stream.write_all(&[0x16, 3, 1]).ok()?;
                    }
                    Some(stream)
                })
                .collect()
        })
        .expect("in the namespace");
    assert_eq!(silent.len(), 60);
    let begin = Instant::now();
    let ca = authority.text("ca.crt");
    // Another address is answered at once.
    let other = curl(
        node,
        "/metrics",
        &["--cacert", &ca, "--interface", "127.0.0.2"],
    );
    assert_eq!(other.status, 200, "{other:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    // And all that are silent are told to go.
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut rest = Vec::new();
        // An end or a reset; not the timeout.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    assert!(
        begin.elapsed() < Duration::from_secs(12),
        "{:?}",
        begin.elapsed()
    );
    let metrics = curl(node, "/metrics", &["--cacert", &ca]);
    let refused = |why: &str| {
        count(
            &metrics,
            &format!("nodewatch_http_refused_total{{reason=\"{why}\"}}"),
        )
    };
    assert_eq!(refused("crowd") + refused("handshake"), 60);
    assert!(refused("crowd") >= 40, "{}", metrics.body);
    daemon.stop().expect("it stops");
}

#[test]
fn no_crowd_of_its_own_address_keeps_a_probe_out() {
    let Some(_permit) = lab::require_with(TOOLS) else {
        return;
    };
    let lab = Lab::new("webprobe").expect("a lab");
    let node = lab.node();
    let daemon = Daemon::start(node, &[]).expect("the daemon");
    let connect = || TcpStream::connect(LISTEN).expect("a connection");
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..5 {
        node.run(|| crowd.extend((0..40).map(|_| connect())))
            .expect("in the namespace");
        // Some ask again and again, some begin and go no further; what was closed does not matter.
        for (number, stream) in crowd.iter_mut().enumerate() {
            let _ = stream.write_all(match number % 3 {
                0 => b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
                1 => b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
                _ => b"GET /heal",
            });
        }
        let begin = Instant::now();
        let probe = daemon.http("/healthz").expect("an answer to the probe");
        let took = begin.elapsed();
        assert_eq!(probe.status, 200);
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    // One that has shown nothing does not keep its connection.
    let mut stream = node.run(connect).expect("in the namespace");
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an end in time");
    assert!(answer.contains("connection: close"), "{answer}");
    daemon.stop().expect("it stops");
}

#[test]
fn a_configuration_that_cannot_be_used_is_named_before_anything_is_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.yml");
    fs::write(
        &path,
        "# TLS\ntls_server_config:\n  cert_file: no.crt\n  key_file: no.key\n",
    )
    .expect("written");
    let binary = daemon::binary().expect("a binary");
    let mut command = Command::new(binary);
    command
        .args(["run", "--listen", "none", "--web-config"])
        .arg(&path);
    let output = process::output(&mut command, PATIENCE).expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let place = format!(
        "{}:3: tls_server_config.cert_file: cannot read",
        path.display()
    );
    assert!(
        daemon::mentions(&output, &[&place, "--web-config"]),
        "{output:?}"
    );
}

/// SHA-256 in hexadecimal digits.
fn sum(text: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-r"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("text");
    fs::write(&file, text).expect("written");
    let printed = process::checked(command.arg(file)).expect("openssl");
    printed.split(' ').next().expect("a sum").to_owned()
}

fn prometheus(node: &Namespace, config: &str) -> Guard {
    let directory = node.directory().join("prometheus");
    fs::create_dir(&directory).expect("a directory");
    let file = directory.join("prometheus.yml");
    fs::write(&file, config).expect("a file");
    let mut check = Command::new("promtool");
    process::checked(check.args(["check", "config"]).arg(&file)).expect("promtool");
    let mut command = node.command("prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}/data", directory.display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .current_dir(&directory);
    let guard = node.spawn("prometheus", &mut command).expect("prometheus");
    node.wait_listening(Transport::Tcp, 9090, Duration::from_secs(30))
        .unwrap_or_else(|error| panic!("{error:#}: {}", guard.log()));
    guard
}

/// The value of a query, as Prometheus prints it.
fn value(node: &Namespace, query: &str) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9090));
    let path = format!("/api/v1/query?query={query}");
    let answer = daemon::http(node, address, &path).ok()?;
    let answer: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    let value = answer["data"]["result"][0]["value"][1].as_str()?;
    Some(value.to_owned())
}
