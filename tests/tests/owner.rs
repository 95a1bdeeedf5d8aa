//! Connections are attributed to processes and users, with real SSH servers.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use monitor::host::owner::{Finder, Owner, Tuple, open_namespace};
use tests::daemon;
use tests::lab;
use tests::lab::namespace::Namespace;
use tests::lab::server::account::{Account, UID, USER, client_end, sessions_work};
use tests::lab::{Guard, Lab, NODE, gate, process, wait};

const PATIENCE: Duration = Duration::from_secs(10);

/// A client's end of a connection, which an SSH client speaks through.
struct Client {
    guard: Guard,
    tuple: Tuple,
}

#[test]
fn a_login_by_change_of_user() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "ssh-keygen", "mount"]) else {
        return;
    };
    let lab = Lab::new("owner").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let server = Account::sshd(lab.node(), 22, false).expect("sshd");
    for address in [IpAddr::from(NODE.v4), IpAddr::from(NODE.v6)] {
        let client = login(&server, &peer, address, USER, "client_key");
        let owner = logged_in(lab.node(), &client.tuple);
        let process = owner.process.as_ref().expect("a process");
        assert!(process.name.starts_with("sshd"), "{owner:?}");
        let executable = process.executable.as_deref().expect("a path");
        assert!(executable.contains("sshd"), "{owner:?}");
        assert_eq!((owner.listener, owner.uid), (false, 0), "{owner:?}");
        drop(client);
    }
}

#[test]
fn a_login_by_its_session() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "ssh-keygen", "mount"]) else {
        return;
    };
    if !sessions_work() {
        return gate::skip("loginuid cannot be set here");
    }
    let lab = Lab::new("session").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let server = Account::sshd(lab.node(), 22, true).expect("sshd");
    let client = login(&server, &peer, NODE.v4.into(), USER, "client_key");
    let owner = logged_in(lab.node(), &client.tuple);
    let session = owner.user.as_ref().and_then(|user| user.session);
    assert!(session.is_some(), "{owner:?}");
    drop(client);
    // Root stays root: only the session tells.
    let client = login(&server, &peer, NODE.v4.into(), "root", "client_key");
    let owner = wait_for(lab.node(), &client.tuple, |owner| {
        owner.authenticated == Some(true)
    });
    let user = owner.user.as_ref().expect("a user");
    assert_eq!(
        (user.uid, user.name.as_deref()),
        (0, Some("root")),
        "{owner:?}"
    );
    assert_ne!(user.session, session, "{owner:?}");
}

/// A connection of a peer, and its ends as the server has them.
fn connect(peer: &Namespace, to: SocketAddr) -> (TcpStream, Tuple) {
    let stream = peer
        .run(|| TcpStream::connect_timeout(&to, PATIENCE))
        .expect("the peer")
        .expect("a connection");
    let remote = stream.local_addr().expect("an address");
    (stream, Tuple { local: to, remote })
}

#[test]
fn who_has_not_logged_in_is_not_authenticated() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "ssh-keygen", "mount"]) else {
        return;
    };
    let lab = Lab::new("refused").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let with_pam = sessions_work();
    let server = Account::sshd(lab.node(), 22, with_pam).expect("sshd");
    // A client that says its version and nothing more: the server waits in its sandbox.
    let to = SocketAddr::new(NODE.v4.into(), server.port);
    let (mut stream, tuple) = connect(&peer, to);
    stream.write_all(b"SSH-2.0-lab\r\n").expect("written");
    let mut version = [0; 8];
    stream
        .read_exact(&mut version)
        .expect("the server's version");
    let owner = wait_for(lab.node(), &tuple, |owner| {
        owner.authenticated == Some(false)
    });
    let first = owner.process.as_ref().expect("a process");
    assert!(first.name.starts_with("sshd"), "{owner:?}");
    assert_eq!(owner.user, None, "{owner:?}");
    drop(stream);
    // A key that is refused, looked at as often as possible.
    let mut finder = in_node(lab.node());
    let mut seen = 0;
    for _ in 0..5 {
        let mut client = login(&server, &peer, NODE.v4.into(), USER, "wrong_key");
        while client.guard.is_running() {
            let Some(owner) = finder.find(&client.tuple).expect("an answer") else {
                continue;
            };
            assert_ne!(owner.authenticated, Some(true), "{owner:?}");
            seen += u32::from(owner.process.is_some());
        }
    }
    assert!(seen > 0, "the server's processes were never seen");
    println!("{seen} looks at refused logins, {:?}", finder.counters());
}

/// Programs named and parted as OpenSSH's are since 9.8 and 10.0: `sshd` starts an `sshd-session` of root for
/// each connection, that an `sshd-auth` of the server's user for the time before a login, and then one more
/// `sshd-session` of the user. They are copies of another program, since no such version is installed.
#[test]
fn a_login_to_a_server_in_three_programs() {
    let Some(_permit) = lab::require_with(&["perl"]) else {
        return;
    };
    let lab = Lab::new("apart").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let program = |name: &str| {
        let path = lab.directory().join(name);
        fs::copy("/usr/bin/perl", &path).expect("a copy");
        path
    };
    let [sshd, session, auth] = ["sshd", "sshd-session", "sshd-auth"].map(program);
    let port = 2222;
    let mut server = lab.node().command(&sshd);
    server.args(["-e", include_str!("owner/sshd.pl"), &port.to_string()]);
    server.arg(session).arg(auth);
    // Neither is the server's own user, so that only their programs tell.
    server.args([&(UID + 1).to_string(), &UID.to_string()]);
    let server = lab.node().spawn("sshd", &mut server).expect("a server");
    lab.node()
        .wait_listening(lab::Transport::Tcp, port, PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}: {}", server.log()));
    let to = SocketAddr::new(NODE.v4.into(), port);
    let (mut stream, tuple) = connect(&peer, to);
    let before = wait_for(lab.node(), &tuple, |owner| {
        owner.authenticated == Some(false)
    });
    let name = |owner: &Owner| owner.process.as_ref().map(|process| process.name.clone());
    assert_eq!(name(&before).as_deref(), Some("sshd-session"), "{before:?}");
    assert_eq!(before.user, None, "{before:?}");
    // Which the server takes for a login.
    stream.write_all(b"!").expect("written");
    let after = wait_for(lab.node(), &tuple, |owner| {
        owner.authenticated == Some(true)
    });
    assert_eq!(name(&after).as_deref(), Some("sshd-session"), "{after:?}");
    let uid = after.user.as_ref().map(|user| user.uid);
    assert_eq!(uid, Some(UID), "{after:?}");
}

#[test]
fn a_connection_in_a_pod() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "ssh-keygen", "mount"]) else {
        return;
    };
    let lab = Lab::new("pod").expect("a lab");
    let pod = lab.add_pod().expect("a pod");
    let peer = lab.add_inside().expect("a peer");
    let server = Account::sshd(&pod, 22, false).expect("sshd");
    let client = login(&server, &peer, pod.addresses.v4.into(), USER, "client_key");
    logged_in(&pod, &client.tuple);
    let mut finder = Finder::new().expect("a finder");
    let before = fs::read_link("/proc/thread-self/ns/net").expect("a link");
    assert_eq!(finder.find(&client.tuple).expect("an answer"), None);
    let namespace = open_namespace(&pod.path()).expect("a namespace");
    let owner = finder
        .find_in(namespace.as_fd(), &client.tuple)
        .expect("an answer")
        .expect("an owner");
    assert_eq!(owner.authenticated, Some(true), "{owner:?}");
    // The client's end, in the peer's namespace.
    let other = Tuple {
        local: client.tuple.remote,
        remote: client.tuple.local,
    };
    let namespace = open_namespace(&peer.path()).expect("a namespace");
    let owner = finder
        .find_in(namespace.as_fd(), &other)
        .expect("an answer")
        .expect("an owner");
    let process = owner.process.as_ref().expect("a process");
    assert_eq!(process.name, "ssh", "{owner:?}");
    assert_eq!(owner.authenticated, None, "{owner:?}");
    // What is no namespace is refused, and this thread has stayed where it was.
    let file = fs::File::open("/dev/null").expect("a file");
    assert!(finder.find_in(file.as_fd(), &other).is_err());
    let after = fs::read_link("/proc/thread-self/ns/net").expect("a link");
    assert_eq!(before, after);
    // The node has no such socket, and no listener that would match.
    let mut node = in_node(lab.node());
    assert_eq!(node.find(&client.tuple).expect("an answer"), None);
}

#[test]
fn without_the_privileges_the_daemon_says_so_and_works() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "ssh-keygen", "mount", "setpriv"])
    else {
        return;
    };
    let lab = Lab::new("bare").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let server = Account::sshd(lab.node(), 22, false).expect("sshd");
    let socket = lab.directory().join("bare.sock");
    let bare = |arguments: &[&str]| {
        let mut command = lab.node().command("setpriv");
        command.args(["--bounding-set", "-sys_ptrace"]);
        command.arg(daemon::binary().expect("a binary"));
        command.args(arguments).arg("--socket").arg(&socket);
        command
    };
    let mut run = bare(&["run", "--listen", "none"]);
    let guard = lab.node().spawn("nodewatch", &mut run).expect("a daemon");
    let ask = |arguments: &[&str]| {
        let mut command = daemon::command(lab.node(), arguments).expect("a command");
        process::checked(command.arg("--socket").arg(&socket)).ok()
    };
    let status = wait::until("the daemon", PATIENCE, || {
        // Before it is ready, a connection is one of before.
        guard.log().contains("ready").then(|| ask(&["status"]))?
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", guard.log()));
    let told = "processes and users of SSH connections are not told: run as root, or grant \
                CAP_SYS_PTRACE";
    assert!(status.contains(told), "{status}");
    let client = login(&server, &peer, NODE.v4.into(), USER, "client_key");
    let record = wait::until("the login", PATIENCE, || {
        let text = ask(&["ssh", "-o", "jsonl"])?;
        let record: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
        (record["authentication"] == "success").then_some(record)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", guard.log()));
    assert_eq!(record["basis"], "sizes", "{record:#}");
    assert!(record.get("process").is_none() && record.get("user").is_none());
    drop(client);
    assert_eq!(guard.log().matches(told).count(), 1, "{}", guard.log());
    let doctor = process::output(&mut bare(&["doctor"]), PATIENCE).expect("doctor");
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("processes"));
    assert!(
        line.is_some_and(|line| line.starts_with("warn") && line.contains("CAP_SYS_PTRACE")),
        "{text}"
    );
}

#[test]
fn sessions_of_before_the_daemon_are_told_by_their_processes() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "ssh-keygen", "mount"]) else {
        return;
    };
    // Built while nobody waits: the sessions do not last for ever.
    daemon::binary().expect("a binary");
    let lab = Lab::new("before").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let server = Account::sshd(lab.node(), 22, false).expect("sshd");
    let away = Account::sshd(&peer, 2300, false).expect("sshd");
    // Each says something now and then; the first forwards a port, which is in use.
    let session = |server: &Account, from: &Namespace, to: IpAddr, more: &[&str]| {
        let mut command = server.ssh(from, to, USER, "client_key");
        command.args(["-o", "BatchMode=yes", "-o", "ServerAliveInterval=1"]);
        command.args(more).args(["sleep", "60"]);
        let guard = from.spawn("ssh", &mut command).expect("ssh");
        let to = SocketAddr::new(to, server.port);
        let end = wait::until("the client's connection", PATIENCE, || {
            client_end(guard.pid(), to)
        })
        .unwrap_or_else(|error| panic!("{error:#}: {}", guard.log()));
        (guard, end)
    };
    let node = IpAddr::from(NODE.v4);
    let forward = format!("0.0.0.0:9100:{}:2300", peer.addresses.v4);
    let (into, inbound) = session(&server, &peer, node, &["-R", &forward]);
    let (out, outbound) = session(&away, lab.node(), peer.addresses.v4.into(), &[]);
    let tuple = Tuple {
        local: SocketAddr::new(node, 22),
        remote: inbound,
    };
    logged_in(lab.node(), &tuple);
    let forwarded = wait::until("the forwarded port", PATIENCE, || {
        let to = SocketAddr::new(node, 9100);
        let stream = peer.run(|| TcpStream::connect_timeout(&to, PATIENCE));
        stream.expect("the peer").ok()
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", into.log()));

    let daemon = daemon::Daemon::start(lab.node(), &[]).expect("the daemon");
    let mut told = Vec::new();
    let found = wait::until("both sessions", PATIENCE, || {
        told = daemon.records(&["ssh"]).expect("records");
        (told.len() >= 2).then_some(())
    });
    assert!(found.is_ok(), "{told:#?}\n{}", daemon.log());
    assert_eq!(told.len(), 2, "{told:#?}");
    for (end, is_inbound) in [(inbound, true), (outbound, false)] {
        let record = told
            .iter()
            .find(|record| record["source"]["port"] == end.port())
            .unwrap_or_else(|| panic!("{end} in {told:#?}"));
        assert_eq!(record["hints"], serde_json::json!(["midstream"]));
        assert_eq!(record["state"], "open");
        let process = record["process"]["name"].as_str().expect("a process");
        if is_inbound {
            assert_eq!(record["authentication"], "success", "{record:#}");
            assert_eq!(record["basis"], "process");
            assert_eq!(record["user"], USER);
            assert_eq!(record["target"], "node");
            assert!(process.starts_with("sshd"), "{record:#}");
        } else {
            // What came of it the other server knows.
            assert_eq!(record["authentication"], "unknown", "{record:#}");
            assert_eq!(process, "ssh");
        }
    }
    drop((forwarded, out, into));
}

#[test]
fn without_a_look_into_pods_the_daemon_says_so_and_works() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "ssh-keygen", "mount", "setpriv"])
    else {
        return;
    };
    let lab = Lab::new("nopods").expect("a lab");
    let pod = lab.add_pod().expect("a pod");
    let peer = lab.add_outside().expect("a peer");
    let server = Account::sshd(&pod, 22, false).expect("sshd");
    let socket = lab.directory().join("nopods.sock");
    let bare = |arguments: &[&str]| {
        let mut command = lab.node().command("setpriv");
        command.args(["--bounding-set", "-sys_admin"]);
        command.arg(daemon::binary().expect("a binary"));
        command.args(arguments).arg("--socket").arg(&socket);
        command
    };
    let mut run = bare(&["run", "--listen", "none"]);
    let guard = lab.node().spawn("nodewatch", &mut run).expect("a daemon");
    let ask = |arguments: &[&str]| {
        let mut command = daemon::command(lab.node(), arguments).expect("a command");
        process::checked(command.arg("--socket").arg(&socket)).ok()
    };
    let status = wait::until("the daemon", PATIENCE, || {
        // Before it is ready, a connection is one of before.
        guard.log().contains("ready").then(|| ask(&["status"]))?
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", guard.log()));
    let told = "not of its pods, whose network namespaces only CAP_SYS_ADMIN may enter";
    assert!(status.contains(told), "{status}");
    let client = login(&server, &peer, pod.addresses.v4.into(), USER, "client_key");
    let mut last = String::new();
    let record = wait::until("the login", PATIENCE, || {
        last = ask(&["ssh", "-o", "jsonl"])?;
        let record: serde_json::Value = serde_json::from_str(last.lines().next()?).ok()?;
        (record["authentication"] == "success").then_some(record)
    });
    let record = record.unwrap_or_else(|error| panic!("{error:#}: {last}\n{}", guard.log()));
    assert_eq!(record["basis"], "sizes", "{record:#}");
    assert!(record.get("process").is_none(), "{record:#}");
    drop(client);
    assert_eq!(
        guard.log().matches("CAP_SYS_ADMIN").count(),
        1,
        "{}",
        guard.log()
    );
    let doctor = process::output(&mut bare(&["doctor"]), PATIENCE).expect("doctor");
    let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("processes"));
    assert!(line.is_some_and(|line| line.contains(told)), "{text}");
}

#[test]
fn a_login_to_dropbear() {
    let tools = ["dropbear", "dropbearkey", "ssh", "ssh-keygen", "mount"];
    let Some(_permit) = lab::require_with(&tools) else {
        return;
    };
    let lab = Lab::new("dropbear").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let server = Account::dropbear(lab.node(), 2222).expect("dropbear");
    let mut finder = in_node(lab.node());
    for _ in 0..3 {
        let mut client = login(&server, &peer, NODE.v4.into(), USER, "wrong_key");
        while client.guard.is_running() {
            let owner = finder.find(&client.tuple).expect("an answer");
            let authenticated = owner.as_ref().and_then(|owner| owner.authenticated);
            assert_ne!(authenticated, Some(true), "{owner:?}");
        }
    }
    let client = login(&server, &peer, NODE.v4.into(), USER, "client_key");
    let owner = logged_in(lab.node(), &client.tuple);
    let process = owner.process.as_ref().expect("a process");
    assert_eq!(process.name, "dropbear", "{owner:?}");
}

/// A login that lasts until it is dropped, or until the server refuses it.
fn login(server: &Account, from: &Namespace, to: IpAddr, user: &str, key: &str) -> Client {
    let mut command = server.ssh(from, to, user, key);
    command.args(["-o", "BatchMode=yes", "sleep", "60"]);
    let to = SocketAddr::new(to, server.port);
    let guard = from.spawn("ssh", &mut command).expect("ssh");
    let remote = wait::until("the client's connection", PATIENCE, || {
        client_end(guard.pid(), to)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {}", guard.log()));
    Client {
        guard,
        tuple: Tuple { local: to, remote },
    }
}

fn in_node(namespace: &Namespace) -> Finder {
    let finder = namespace.run(Finder::new).expect("the namespace");
    finder.expect("a finder")
}

/// Finds the connection once, and then looks at its processes until they are as they have to be.
fn wait_for(namespace: &Namespace, tuple: &Tuple, wanted: impl Fn(&Owner) -> bool) -> Owner {
    let mut finder = in_node(namespace);
    let mut last = wait::until("a process of the connection", PATIENCE, || {
        let owner = finder.find(tuple).expect("an answer")?;
        owner.process.is_some().then_some(owner)
    })
    .expect("an owner");
    let found = wait::until("the login", PATIENCE, || {
        if !wanted(&last) {
            last = finder.refresh(&last)?;
        }
        wanted(&last).then(|| last.clone())
    });
    println!("{:?}", finder.counters());
    found.unwrap_or_else(|error| panic!("{error:#}: {last:?}"))
}

fn logged_in(namespace: &Namespace, tuple: &Tuple) -> Owner {
    let owner = wait_for(namespace, tuple, |owner| owner.authenticated == Some(true));
    let user = owner.user.as_ref().expect("a user");
    assert_eq!(
        (user.uid, user.name.as_deref()),
        (UID, Some(USER)),
        "{owner:?}"
    );
    println!("{owner:?}");
    owner
}
