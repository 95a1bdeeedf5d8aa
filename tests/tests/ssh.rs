//! SSH with real servers and clients: found on any port, told apart, judged, and by a replay alike.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tests::daemon::{self, Daemon};
use tests::lab::server::{account::PYTHON, sshd::Sshd};
use tests::lab::{self, Lab, NODE, Namespace, UPLINK, client, process, wait};
use tests::tshark;

/// How long until a closed connection is told of.
const TOLD: Duration = Duration::from_secs(15);

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a command, whatever its exit status; its local port by the order of connections is not
/// known, so that scenarios use one port each.
fn run(command: &mut Command) {
    process::output(command, PATIENCE).expect("a client");
}

/// Talks to a server from a namespace: sends `pieces` one by one, then reads until nothing comes.
fn talk(from: &Namespace, to: SocketAddr, pieces: &[&[u8]]) -> u16 {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let limit = Some(Duration::from_millis(300));
        stream.set_read_timeout(limit).expect("a limit");
        let port = stream.local_addr().expect("an address").port();
        for piece in pieces {
            stream.write_all(piece).expect("a write");
            std::thread::sleep(Duration::from_millis(3));
        }
        let mut buffer = [0; 4_096];
        while let Ok(1..) = stream.read(&mut buffer) {}
        port
    })
    .expect("a namespace")
}

/// Reads what the server says first, and then says something.
fn talk_late(from: &Namespace, to: SocketAddr, request: &[u8]) {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut buffer = [0; 4_096];
        assert!(stream.read(&mut buffer).expect("lines") > 0);
        stream.write_all(request).expect("a write");
        // The server ends.
        while let Ok(1..) = stream.read(&mut buffer) {}
    })
    .expect("a namespace");
}

/// Says these lines to whoever comes, and ends once the client has said something or has gone.
fn serve_lines(namespace: &Namespace, port: u16, lines: &'static [u8]) {
    let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.expect("a namespace").expect("a listener");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            stream.write_all(lines).expect("lines");
            stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
            let _ = stream.read(&mut [0; 4_096]);
        }
    });
}

/// Closed SSH connections, once there are so many.
fn closed(daemon: &Daemon<'_>, expected: usize) -> Vec<Value> {
    let mut last = Vec::new();
    let all = wait::until("the SSH connections", TOLD, || {
        last = daemon.records(&["ssh", "--all"]).expect("records");
        let is_closed = |record: &&Value| record["state"] == "closed";
        (last.iter().filter(is_closed).count() >= expected).then_some(())
    });
    assert!(all.is_ok(), "{last:#?}\n{}", daemon.log());
    last
}

/// What must be the same live and in a replay.
fn essence(record: &Value) -> (String, Value) {
    let end = |end: &Value| format!("{}:{}", end["ip"], end["port"]);
    let key = format!("{} {}", end(&record["source"]), end(&record["destination"]));
    let fields = [
        "class",
        "client_banner",
        "server_banner",
        "hassh",
        "hassh_server",
        "authentication",
        "attempts",
        "basis",
        "forward",
        "reverse",
        "hints",
    ];
    let essence = fields.map(|field| (field.to_owned(), record[field].clone()));
    (key, Value::Object(essence.into_iter().collect()))
}

#[test]
fn every_connection_is_found_on_any_port_and_replayed_alike() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "tcpdump", "tshark"]) else {
        return;
    };
    let lab = Lab::new("ssh").expect("a lab");
    let outside = lab.add_outside().expect("a peer");
    // A capture does not tell how many segments a buffer stands for: no end may make such.
    for end in [lab.node(), &outside] {
        end.set_offloads(UPLINK, false).expect("offloads off");
    }
    let servers = [22, 2222, 443].map(|port| Sshd::start(lab.node(), port).expect("an sshd"));
    let _echo = client::serve(lab.node(), "tcp-serve", 7003).expect("an echo server");
    let path = lab.directory().join("ssh.pcap");
    let capture = lab.node().capture(UPLINK, &path).expect("a capture");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");

    let addresses: [IpAddr; 2] = [NODE.v4.into(), NODE.v6.into()];
    // (server port, family, what is expected), in order of the connections to each.
    let mut expected: BTreeMap<(u16, bool), Vec<(&str, &str)>> = BTreeMap::new();
    for server in &servers {
        for to in addresses {
            let mut login = server.login(&outside, to);
            run(login.arg("true"));
            let mut long = server.login(&outside, to);
            run(long.arg("head -c 300000 /dev/zero"));
            run(server.refused_login(&outside, to).arg("true"));
            let to = SocketAddr::new(to, server.port);
            // A scanner that only reads the banner, and one that sends one.
            talk(&outside, to, &[]);
            talk(&outside, to, &[b"SSH-2.0-scanner\r\n"]);
            // Another protocol.
            talk(&outside, to, &[b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"]);
            expected.insert(
                (server.port, to.is_ipv6()),
                vec![
                    ("ssh", "success"),
                    ("ssh", "success"),
                    ("ssh", "failure"),
                    ("server_only", "none"),
                    ("ssh", "none"),
                    ("server_only", "none"),
                ],
            );
        }
    }
    // A server with lines before its banner, and a client that speaks something else, or nothing.
    let lines = b"Welcome.\r\nAll that you do is written down.\r\nSSH-2.0-lab\r\n";
    serve_lines(lab.node(), 2201, lines);
    let to = SocketAddr::new(addresses[0], 2201);
    talk(&outside, to, &[]);
    talk_late(&outside, to, b"GET / HTTP/1.1\r\nHost: node\r\n\r\n");
    expected.insert((2201, false), vec![("server_only", "none"); 2]);
    // A client that talks to what is no SSH server, byte by byte.
    let banner: Vec<[u8; 1]> = b"SSH-2.0-bytewise_1.0\r\n".map(|byte| [byte]).into();
    let mut pieces: Vec<&[u8]> = banner.iter().map(|byte| &byte[..]).collect();
    // A KEXINIT with empty lists: its cookie comes back.
    let mut kexinit = vec![0, 0, 0, 68, 5, 20];
    kexinit.extend([7; 16]);
    kexinit.resize(72, 0);
    pieces.push(&kexinit);
    talk(&outside, SocketAddr::new(addresses[0], 7003), &pieces);
    expected.insert((7003, false), vec![("client_only", "none")]);
    // Data that only mentions SSH.
    let decoy = [&b"POST / HTTP/1.1\r\n\r\nSSH-2.0-decoy\r\n"[..]];
    talk(&outside, SocketAddr::new(addresses[0], 7003), &decoy);

    let total = expected.values().map(Vec::len).sum();
    let records = closed(&daemon, total);
    assert_eq!(records.len(), total, "{records:#?}");
    let mut by_server: BTreeMap<(u16, bool), Vec<&Value>> = BTreeMap::new();
    for record in &records {
        let port = record["destination"]["port"].as_u64().expect("a port");
        let is_v6 = record["destination"]["ip"]
            .as_str()
            .expect("an address")
            .contains(':');
        let port = u16::try_from(port).expect("a port");
        by_server.entry((port, is_v6)).or_default().push(record);
    }
    for (server, expected) in &expected {
        let mut found = by_server.remove(server).unwrap_or_default();
        found.sort_by_key(|record| record["start"].as_str().map(str::to_owned));
        let told: Vec<_> = found
            .iter()
            .map(|record| {
                let word = |field: &str| record[field].as_str().unwrap_or("-");
                (word("class"), word("authentication"))
            })
            .collect();
        assert_eq!(&told, expected, "{server:?} {found:#?}");
    }
    // Software and algorithms, as tshark reads them.
    let captured = capture.stop().expect("a capture");
    assert_eq!(captured.dropped, 0);
    let theirs = tshark::hasshes(&captured.path, &[22, 2222, 443]).expect("HASSHes");
    let mut hasshes = 0;
    for record in &records {
        let port = |end: &str| record[end]["port"].as_u64().expect("a port");
        let ports = (port("source"), port("destination"));
        for field in ["hassh", "hassh_server"] {
            let own = record[field].as_str();
            let other = theirs.get(&(ports, field));
            if let Some(other) = other {
                assert_eq!(own, Some(other.as_str()), "{field} {record:#}");
            }
            // On the port of the echo server tshark looks for none.
            hasshes += usize::from(own.is_some() && record["class"] != "client_only");
        }
        if record["class"] != "client_only" {
            let banner = record["server_banner"].as_str().unwrap_or("-");
            let is_lab = record["destination"]["port"] == 2201 && banner == "SSH-2.0-lab";
            assert!(
                is_lab || banner.starts_with("SSH-2.0-OpenSSH_"),
                "{record:#}"
            );
        }
    }
    assert_eq!(hasshes, theirs.len(), "{theirs:#?}");

    // The capture tells the same, offline.
    let path = captured.path.display().to_string();
    let mut replay = daemon::command(
        lab.node(),
        &[
            "replay",
            &path,
            "--local",
            "10.224.0.4/32",
            "--local",
            "fd00:224::4/128",
            "-o",
            "jsonl",
        ],
    )
    .expect("a command");
    let output = process::output(&mut replay, PATIENCE).expect("a replay");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let replayed: BTreeMap<_, _> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|record| record["type"] == "ssh")
        .map(|record| essence(&record))
        .collect();
    let live: BTreeMap<_, _> = records.iter().map(essence).collect();
    assert_eq!(live, replayed);
    let metrics = daemon.metrics().expect("a scrape");
    let of = |labels: &[(&str, &str)]| metrics.count("nodewatch_ssh_connections_total", labels);
    assert_eq!(of(&[]), total as u64);
    assert_eq!(
        of(&[("standard_port", "true"), ("authentication", "success")]),
        4
    );
    assert_eq!(of(&[("authentication", "failure"), ("target", "node")]), 6);
}

#[test]
fn connections_are_judged_by_where_they_come_from() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh"]) else {
        return;
    };
    let lab = Lab::new("judge").expect("a lab");
    let outside = lab.add_outside().expect("a peer");
    let inside = lab.add_inside().expect("a peer");
    let pod = lab.start_pod().expect("a pod");
    let server = Sshd::start(lab.node(), 22).expect("an sshd");
    let outside_range = format!("admin={}", outside.addresses.v4);
    let daemon = Daemon::start(lab.node(), &["--expect-ssh", &outside_range]).expect("the daemon");
    let to: IpAddr = NODE.v4.into();
    run(server.login(&outside, to).arg("true"));
    run(server.login(&pod, to).arg("true"));
    for _ in 0..5 {
        run(server.refused_login(&inside, to).arg("true"));
    }
    run(server.login(&inside, to).arg("true"));
    // The range that is expected finds the port closed.
    drop(server);
    run(Command::new("true").arg("once"));
    let refused = outside.run(|| TcpStream::connect_timeout(&SocketAddr::new(to, 22), PATIENCE));
    assert!(refused.expect("a namespace").is_err());

    let records = closed(&daemon, 8);
    let of = |ip: IpAddr| -> Vec<&Value> {
        let from = records.iter();
        from.filter(|record| record["source"]["ip"] == ip.to_string())
            .collect()
    };
    let admin = of(outside.addresses.v4.into());
    assert_eq!(admin.len(), 1, "{records:#?}");
    assert_eq!(
        (&admin[0]["expected"], &admin[0]["range"]),
        (&true.into(), &"admin".into())
    );
    let of_pod = of(pod.addresses.v4.into());
    assert_eq!(
        of_pod.len(),
        1,
        "once, whatever interfaces it crosses: {records:#?}"
    );
    assert_eq!(
        (&of_pod[0]["target"], &of_pod[0]["point"]),
        (&"node".into(), &"workload".into())
    );

    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let told = wait::until("the findings", TOLD, || {
        kinds.clear();
        for finding in daemon.records(&["findings", "--all"]).expect("records") {
            assert!(
                finding["declared_by"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty())
            );
            assert!(
                finding["reason"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty())
            );
            let kind = finding["finding"].as_str().expect("a kind").to_owned();
            *kinds.entry(kind).or_default() += 1;
        }
        kinds.contains_key("ssh-expected-blocked").then_some(())
    });
    let expected = [
        ("ssh-brute-force", 1),
        ("ssh-expected-blocked", 1),
        // It reached the node, and logged in.
        ("ssh-from-pod", 2),
        ("ssh-success-after-failures", 1),
        // The pod and the peer inside likewise, each once however often it comes.
        ("ssh-unexpected", 4),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(kind, n)| (kind.to_owned(), n)).into();
    assert_eq!(kinds, expected, "{told:?}");
    let asked = daemon.ask(&["findings", "--exit-code"]).expect("an answer");
    assert_eq!(asked.status.code(), Some(1));
    let table = daemon.tell(&["ssh"]).expect("a table");
    assert!(table.contains("ssh-unexpected"), "{table}");
    println!("{table}\n{}", daemon.tell(&["findings"]).expect("a table"));
    let metrics = daemon.metrics().expect("a scrape");
    for (severity, count) in [("medium", 2), ("high", 2)] {
        let unexpected = [("finding", "ssh-unexpected"), ("severity", severity)];
        let told = metrics.count("nodewatch_findings_total", &unexpected);
        assert_eq!(told, count, "{severity}");
    }
}

/// OpenSSH's own refusal, of whichever version is installed.
#[test]
fn whoever_is_refused_in_place_of_a_banner_is_told() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh"]) else {
        return;
    };
    let lab = Lab::new("refuse").expect("a lab");
    let outside = lab.add_outside().expect("a peer");
    let server = Sshd::start_for(lab.node(), 22, 1).expect("an sshd");
    let range = format!("admin={}", outside.addresses.v4);
    let daemon = Daemon::start(lab.node(), &["--expect-ssh", &range]).expect("the daemon");
    let to = SocketAddr::new(NODE.v4.into(), 22);
    // One that does not go on: there is no room for another.
    let idle = outside.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).expect("a connection");
        stream.write_all(b"SSH-2.0-idle\r\n").expect("a write");
        let mut banner = [0; 8];
        stream.read_exact(&mut banner).expect("a banner");
        stream
    });
    let idle = idle.expect("a namespace");
    run(server.login(&outside, to.ip()).arg("true"));
    let records = closed(&daemon, 1);
    let refused: Vec<_> = records
        .iter()
        .filter(|record| record["state"] == "closed")
        .collect();
    assert_eq!(refused.len(), 1, "{records:#?}");
    assert_eq!(
        refused[0]["hints"],
        serde_json::json!(["refused"]),
        "{records:#?}"
    );
    assert_eq!(refused[0]["authentication"], "none");
    assert_eq!(refused[0]["class"], "client_only");
    let mut findings = Vec::new();
    let told = wait::until("the finding", TOLD, || {
        findings = daemon.records(&["findings", "--all"]).expect("records");
        (!findings.is_empty()).then_some(())
    });
    assert!(told.is_ok(), "{}", daemon.log());
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["finding"], "ssh-expected-blocked");
    let reason = findings[0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("refused by the server"), "{reason}");
    drop(idle);
}

/// Sends an empty TCP segment with a sequence number that no end expects: flags, and both ends.
const STRAY: &str = r#"
import socket, struct, sys
flags, own, own_port, to, port = sys.argv[1:]
header = struct.pack("!HHIIBBHHH", int(own_port), int(port), 1, 0, 5 << 4, int(flags), 1024, 0, 0)
text = socket.inet_aton(own) + socket.inet_aton(to) + struct.pack("!HH", 6, 20) + header
total = sum(struct.unpack("!16H", text))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
header = header[:16] + struct.pack("!H", ~total & 0xFFFF) + header[18:]
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP).sendto(header, (to, 0))
"#;

/// An RST and a SYN that the server ignores end no connection (RFC 5961 sections 3.2 and 4.2).
#[test]
fn what_the_server_ignores_hides_nothing() {
    let Some(_permit) = lab::require_with(&["sshd"]) else {
        return;
    };
    let lab = Lab::new("stray").expect("a lab");
    let outside = lab.add_outside().expect("a peer");
    let _server = Sshd::start(lab.node(), 22).expect("an sshd");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    let to = SocketAddr::new(NODE.v4.into(), 22);
    for (index, flags) in ["4", "2"].into_iter().enumerate() {
        let before = index * 2;
        let mut stream = outside
            .run(|| TcpStream::connect_timeout(&to, PATIENCE))
            .expect("a namespace")
            .expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream.write_all(b"SSH-2.0-stray_1\r\n").expect("a write");
        stream.read_exact(&mut [0; 8]).expect("a banner");
        let port = stream.local_addr().expect("an address").port();
        let open = wait::until("the connection", TOLD, || {
            let records = daemon.records(&["ssh"]).expect("records");
            let mut own = records.iter();
            own.any(|record| record["source"]["port"] == port)
                .then_some(())
        });
        assert!(open.is_ok(), "{}", daemon.log());
        let mut stray = outside.command(PYTHON);
        stray.args(["-c", STRAY, flags, &outside.addresses.v4.to_string()]);
        stray.args([&port.to_string(), &NODE.v4.to_string(), "22"]);
        process::checked(&mut stray).expect("a stray segment");
        closed(&daemon, before + 1);
        // Which the server takes in, and then ends.
        stream.write_all(&[0xA5; 64]).expect("a write");
        stream.shutdown(std::net::Shutdown::Write).expect("an end");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        drop(stream);
        let records = closed(&daemon, before + 2);
        let own: Vec<_> = records
            .iter()
            .filter(|record| record["source"]["port"] == port)
            .collect();
        assert_eq!(own.len(), 2, "{records:#?}");
        let is_midstream = |record: &&&Value| record["hints"] == serde_json::json!(["midstream"]);
        assert_eq!(own.iter().filter(is_midstream).count(), 1, "{own:#?}");
        for record in own {
            assert_eq!(record["class"], "ssh", "{record:#?}");
            assert_eq!(record["client_banner"], "SSH-2.0-stray_1");
            assert_eq!(record["destination"]["port"], 22);
        }
    }
}
