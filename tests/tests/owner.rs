//! Connections are attributed to processes and users, with real SSH servers.
//!
//! Each server runs in a mount namespace of its own, where `/etc/passwd`, `/etc/shadow` and the
//! home directory are the test's: no account of the machine is used or changed.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use monitor::host::owner::{Finder, Owner, Tuple, open_namespace};
use tests::lab;
use tests::lab::namespace::{Namespace, Transport};
use tests::lab::{Guard, Lab, NODE, gate, process, wait};

const USER: &str = "nwalice";
const UID: u32 = 31_337;
const PATIENCE: Duration = Duration::from_secs(10);

/// A server with one user of its own.
struct Server {
    _guard: Guard,
    directory: PathBuf,
    port: u16,
}

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
    let server = Server::sshd(lab.node(), 22, false).expect("sshd");
    for address in [IpAddr::from(NODE.v4), IpAddr::from(NODE.v6)] {
        let client = server.login(&peer, address, USER, "client_key");
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
    if !loginuid_works() {
        return gate::skip("loginuid cannot be set here");
    }
    let lab = Lab::new("session").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let server = Server::sshd(lab.node(), 22, true).expect("sshd");
    let client = server.login(&peer, NODE.v4.into(), USER, "client_key");
    let owner = logged_in(lab.node(), &client.tuple);
    let session = owner.user.as_ref().and_then(|user| user.session);
    assert!(session.is_some(), "{owner:?}");
    drop(client);
    // Root stays root: only the session tells.
    let client = server.login(&peer, NODE.v4.into(), "root", "client_key");
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

#[test]
fn who_has_not_logged_in_is_not_authenticated() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "ssh-keygen", "mount"]) else {
        return;
    };
    let lab = Lab::new("refused").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let with_pam = loginuid_works();
    let server = Server::sshd(lab.node(), 22, with_pam).expect("sshd");
    // A client that says its version and nothing more: the server waits in its sandbox.
    let to = SocketAddr::new(NODE.v4.into(), server.port);
    let mut stream = peer
        .run(|| TcpStream::connect_timeout(&to, PATIENCE))
        .expect("the peer")
        .expect("a connection");
    let tuple = Tuple {
        local: to,
        remote: stream.local_addr().expect("an address"),
    };
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
        let mut client = server.login(&peer, NODE.v4.into(), USER, "wrong_key");
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

#[test]
fn a_connection_in_a_pod() {
    let Some(_permit) = lab::require_with(&["sshd", "ssh", "ssh-keygen", "mount"]) else {
        return;
    };
    let lab = Lab::new("pod").expect("a lab");
    let pod = lab.add_pod().expect("a pod");
    let peer = lab.add_inside().expect("a peer");
    let server = Server::sshd(&pod, 22, false).expect("sshd");
    let client = server.login(&peer, pod.addresses.v4.into(), USER, "client_key");
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
fn a_login_to_dropbear() {
    let tools = ["dropbear", "dropbearkey", "ssh", "ssh-keygen", "mount"];
    let Some(_permit) = lab::require_with(&tools) else {
        return;
    };
    let lab = Lab::new("dropbear").expect("a lab");
    let peer = lab.add_outside().expect("a peer");
    let server = Server::dropbear(lab.node(), 2222).expect("dropbear");
    let mut finder = in_node(lab.node());
    for _ in 0..3 {
        let mut client = server.login(&peer, NODE.v4.into(), USER, "wrong_key");
        while client.guard.is_running() {
            let owner = finder.find(&client.tuple).expect("an answer");
            let authenticated = owner.as_ref().and_then(|owner| owner.authenticated);
            assert_ne!(authenticated, Some(true), "{owner:?}");
        }
    }
    let client = server.login(&peer, NODE.v4.into(), USER, "client_key");
    let owner = logged_in(lab.node(), &client.tuple);
    let process = owner.process.as_ref().expect("a process");
    assert_eq!(process.name, "dropbear", "{owner:?}");
}

// === impl Server ===

impl Server {
    fn sshd(namespace: &Namespace, port: u16, with_pam: bool) -> anyhow::Result<Self> {
        let directory = prepare(namespace, port)?;
        keygen(&directory.join("host_key"))?;
        let pam = if with_pam { "yes" } else { "no" };
        let shown = directory.display();
        let config = format!(
            "Port {port}\nListenAddress 0.0.0.0\nListenAddress ::\nHostKey {shown}/host_key\n\
             AuthorizedKeysFile {shown}/authorized_keys\nPidFile none\nStrictModes no\n\
             UsePAM {pam}\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPrintMotd no\nPrintLastLog no\nUseDNS no\n"
        );
        fs::write(directory.join("sshd_config"), config)?;
        // What PAM does beyond setting the session is not wanted here.
        fs::write(
            directory.join("pam_sshd"),
            "auth required pam_deny.so\naccount required pam_permit.so\n\
             password required pam_deny.so\nsession required pam_loginuid.so\n",
        )?;
        let sshd = gate::find_tool("sshd").expect("asked for");
        let config = directory.join("sshd_config").display().to_string();
        let arguments = [&*sshd.to_string_lossy(), "-D", "-e", "-f", &config].map(str::to_owned);
        Self::start(namespace, directory, port, &arguments)
    }

    fn dropbear(namespace: &Namespace, port: u16) -> anyhow::Result<Self> {
        let directory = prepare(namespace, port)?;
        let host_key = directory.join("host_key").display().to_string();
        process::checked(Command::new("dropbearkey").args(["-t", "ed25519", "-f", &host_key]))?;
        let dropbear = gate::find_tool("dropbear").expect("asked for");
        let port_text = port.to_string();
        let program = dropbear.to_string_lossy();
        let arguments = [
            &*program, "-F", "-E", "-s", "-r", &host_key, "-p", &port_text,
        ];
        Self::start(namespace, directory, port, &arguments.map(str::to_owned))
    }

    fn start(
        namespace: &Namespace,
        directory: PathBuf,
        port: u16,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let script = "mount -t tmpfs lab /run && mkdir -m 755 /run/sshd && \
                      mount -t tmpfs lab /var/log && mount -t tmpfs lab /home && \
                      mkdir -m 755 /home/user && mkdir -m 700 /home/user/.ssh && \
                      cp \"$1/authorized_keys\" /home/user/.ssh/ && chown -R \"$2\" /home/user && \
                      mount --bind \"$1/passwd\" /etc/passwd && \
                      mount --bind \"$1/shadow\" /etc/shadow && \
                      { test ! -e \"$1/pam_sshd\" || test ! -e /etc/pam.d/sshd || \
                        mount --bind \"$1/pam_sshd\" /etc/pam.d/sshd; } && \
                      shift 2 && exec \"$@\"";
        let mut command = namespace.command("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        command
            .arg(&directory)
            .arg(format!("{UID}:{UID}"))
            .args(arguments);
        let guard = namespace.spawn("server", &mut command)?;
        namespace
            .wait_listening(Transport::Tcp, port, PATIENCE)
            .map_err(|error| error.context(guard.log()))?;
        Ok(Self {
            _guard: guard,
            directory,
            port,
        })
    }

    /// A login that lasts until it is dropped, or until the server refuses it.
    fn login(&self, from: &Namespace, to: IpAddr, user: &str, key: &str) -> Client {
        let to = SocketAddr::new(to, self.port);
        let mut command = from.command("ssh");
        command
            .args(["-F", "/dev/null", "-T", "-i"])
            .arg(self.directory.join(key));
        for option in [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "LogLevel=ERROR",
            "ConnectTimeout=10",
        ] {
            command.args(["-o", option]);
        }
        let (address, port) = (to.ip().to_string(), to.port().to_string());
        command.args(["-p", &port, "-l", user, &address, "sleep", "60"]);
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
}

/// Keys and accounts of a server.
fn prepare(namespace: &Namespace, port: u16) -> anyhow::Result<PathBuf> {
    let name = format!("{}-owner-{port}", namespace.name());
    let directory = namespace.directory().join(name);
    fs::create_dir(&directory)?;
    // The user has to read the keys that are authorized.
    for path in [namespace.directory(), &directory] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    for key in ["client_key", "wrong_key"] {
        keygen(&directory.join(key))?;
    }
    fs::copy(
        directory.join("client_key.pub"),
        directory.join("authorized_keys"),
    )?;
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:31336:65534::/run/sshd:/usr/sbin/nologin\n\
         {USER}:x:{UID}:{UID}::/home/user:/bin/sh\n"
    );
    fs::write(directory.join("passwd"), passwd)?;
    let shadow = directory.join("shadow");
    let entry = |user| format!("{user}:*:19000:0:99999:7:::\n");
    fs::write(&shadow, ["root", "sshd", USER].map(entry).concat())?;
    fs::set_permissions(&shadow, fs::Permissions::from_mode(0o600))?;
    Ok(directory)
}

fn keygen(path: &Path) -> anyhow::Result<()> {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]);
    process::checked(keygen.arg(path)).map(drop)
}

/// Whether a process without a login session may start one.
fn loginuid_works() -> bool {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "echo 1 > /proc/self/loginuid && cat /proc/self/loginuid",
    ]);
    process::checked(&mut shell).is_ok_and(|text| text.trim() == "1")
}

/// The own end of the connection to an address, in the network namespace of a process.
fn client_end(pid: u32, to: SocketAddr) -> Option<SocketAddr> {
    let table = if to.is_ipv4() { "tcp" } else { "tcp6" };
    let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok()?;
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let is_established = fields.get(3) == Some(&"01");
        let matches = is_established && address(fields.get(2)?)? == to;
        matches.then(|| address(fields.get(1)?))?
    })
}

/// An address as in `/proc/net/tcp`: words in the order of the host.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..words.len()).step_by(8) {
        let word = u32::from_str_radix(words.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from);
    Some(SocketAddr::new(v4.or(v6).ok()?, port))
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
