//! Servers, clients and what they do, one case after the other.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use monitor_core::time::Timestamp;
use tests::lab::server::account::{Account, PASSWORD, PYTHON, USER, sessions_work};
use tests::lab::{self, Lab, NODE, Namespace, Peer, Pod, process};

/// How long a client may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A case: what it is, and the connection that it makes.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// Port that it goes to.
    pub(super) port: u16,
    pub(super) class: Option<&'static str>,
    /// Of the server's process, if it is on the node.
    pub(super) process: Option<&'static str>,
    /// What came of it, where no server of the scene is asked.
    pub(super) truth: Option<&'static str>,
}

/// Everything that takes part.
pub(super) struct Scene<'lab> {
    pub(super) lab: &'lab Lab,
    /// A client.
    pub(super) out: &'lab Peer,
    /// A client whose segments, and those to it, carry 76 bytes.
    tiny: &'lab Peer,
    pub(super) pam: Account,
    plain: Account,
    dropbear: Account,
    asyncssh: Account,
    pub(super) pod: Pod,
    pub(super) in_pod: Account,
    /// Not on the node.
    pub(super) away: Account,
    pub(super) cases: Vec<Case>,
}

// === impl Case ===

impl Case {
    /// Whether not to be deceived is enough.
    pub(super) fn is_hostile(&self) -> bool {
        self.name.starts_with("hostile")
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ns = since.expect("a time after 1970").as_nanos();
    Timestamp::from_nanoseconds(i64::try_from(ns).expect("a time before 2262"))
}

/// Relays each connection to a port of the same namespace, and says something first. It ends with
/// the process.
fn serve_with_lines(namespace: &Namespace, port: u16, to: u16) {
    let listener = namespace.run(|| TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.expect("a namespace").expect("a listener");
    let name = namespace.path();
    thread::spawn(move || {
        let file = std::fs::File::open(name).expect("a namespace");
        // Of this thread alone; those that it starts inherit it.
        lab::namespace::enter(&file).expect("the namespace");
        for stream in listener.incoming() {
            let mut down = stream.expect("a connection");
            let up = TcpStream::connect(("127.0.0.1", to)).expect("a server");
            let lines = b"Welcome to the lab.\r\nAll that you do is written down.\r\n";
            down.write_all(lines).expect("lines");
            let pump = |mut from: TcpStream, mut to: TcpStream| {
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                })
            };
            pump(
                up.try_clone().expect("a stream"),
                down.try_clone().expect("a stream"),
            );
            pump(down, up);
        }
    });
}

// === impl Scene ===

impl<'lab> Scene<'lab> {
    pub(super) fn new(lab: &'lab Lab, out: &'lab Peer, tiny: &'lab Peer) -> Self {
        let node = lab.node();
        let route = |of: &Namespace, to: IpAddr, by: &str| {
            let to = to.to_string();
            of.ip(&["route", "add", &to, "via", by, "advmss", "88"])
                .expect("a route");
        };
        route(tiny, NODE.v4.into(), "203.0.113.1");
        route(node, tiny.addresses.v4.into(), "10.224.0.1");
        let pod = lab.add_pod().expect("a pod");
        let scene = Self {
            in_pod: Account::sshd(&pod, 2400, false).expect("sshd"),
            pod,
            lab,
            out,
            tiny,
            pam: Account::sshd(node, 22, sessions_work()).expect("sshd"),
            plain: Account::sshd(node, 443, false).expect("sshd"),
            dropbear: Account::dropbear(node, 2222).expect("dropbear"),
            asyncssh: Account::asyncssh(node, 8022).expect("asyncssh"),
            away: Account::sshd(out, 2300, false).expect("sshd"),
            cases: Vec::new(),
        };
        serve_with_lines(node, 2200, 22);
        scene
    }

    /// Runs one case after the other, so that their times tell them apart.
    pub(super) fn case(
        &mut self,
        name: &'static str,
        port: u16,
        expected: (Option<&'static str>, Option<&'static str>),
        run: impl FnOnce(&Self),
    ) {
        self.case_of(name, port, expected, None, run);
    }

    /// A case to a port where none of the servers listens.
    pub(super) fn case_of(
        &mut self,
        name: &'static str,
        port: u16,
        expected: (Option<&'static str>, Option<&'static str>),
        truth: Option<&'static str>,
        run: impl FnOnce(&Self),
    ) {
        let from = now();
        run(self);
        let (class, process) = expected;
        self.cases.push(Case {
            name,
            from,
            until: now(),
            port,
            class,
            process,
            truth,
        });
        thread::sleep(Duration::from_millis(50));
    }

    pub(super) fn openssh(&mut self) {
        let sshd = (Some("ssh"), Some("sshd"));
        let node = IpAddr::from(NODE.v4);
        let key = |scene: &Self, extra: &[&str], command: &[&str]| {
            let mut ssh = scene.pam.ssh(scene.out, node, USER, "client_key");
            // What is after the address belongs to the command, but for options.
            run(ssh.args(extra).args(command));
        };
        self.case("openssh, key", 22, sshd, |scene| {
            key(scene, &[], &["sleep 0.3"]);
        });
        self.case("openssh, key, short", 22, sshd, |scene| {
            key(scene, &[], &["true"]);
        });
        self.case("openssh, aes128-gcm", 22, sshd, |scene| {
            key(scene, &["-c", "aes128-gcm@openssh.com"], &["true"]);
        });
        self.case("openssh, aes256-ctr, etm", 22, sshd, |scene| {
            let mac = "hmac-sha2-256-etm@openssh.com";
            key(scene, &["-c", "aes256-ctr", "-m", mac], &["true"]);
        });
        self.case("openssh, aes128-ctr, no etm", 22, sshd, |scene| {
            let mac = "hmac-sha2-256";
            key(scene, &["-c", "aes128-ctr", "-m", mac], &["true"]);
        });
        self.case("openssh, compression", 22, sshd, |scene| {
            key(scene, &["-o", "Compression=yes"], &["true"]);
        });
        self.case("openssh, IPv6", 22, sshd, |scene| {
            let to = NODE.v6.into();
            run(scene.pam.ssh(scene.out, to, USER, "client_key").arg("true"));
        });
        self.case("openssh, IPv6, wrong key", 22, sshd, |scene| {
            let mut ssh = scene.pam.ssh(scene.out, NODE.v6.into(), USER, "wrong_key");
            run(ssh.arg("-oBatchMode=yes"));
        });
        // Nothing to do, and no terminal.
        self.case("openssh, empty session", 22, sshd, |scene| {
            run(&mut scene.pam.ssh(scene.out, node, USER, "client_key"));
        });
        self.case("openssh, root", 22, sshd, |scene| {
            run(scene
                .pam
                .ssh(scene.out, node, "root", "client_key")
                .arg("true"));
        });
        self.case("openssh, wrong key", 22, sshd, |scene| {
            run(scene
                .pam
                .ssh(scene.out, node, USER, "wrong_key")
                .arg("-oBatchMode=yes"));
        });
        self.case("openssh, wrong password, PAM", 22, sshd, |scene| {
            let ssh = scene.pam.ssh_password(scene.out, node, "wrong");
            run(&mut ssh.expect("ssh"));
        });
        self.case("openssh, wrong password", 443, sshd, |scene| {
            let ssh = scene.plain.ssh_password(scene.out, node, "wrong");
            run(&mut ssh.expect("ssh"));
        });
        self.case("openssh, password", 443, sshd, |scene| {
            let ssh = scene.plain.ssh_password(scene.out, node, PASSWORD);
            run(ssh.expect("ssh").arg("true"));
        });
        self.case("openssh, no such user", 443, sshd, |scene| {
            run(scene
                .plain
                .ssh(scene.out, node, "nobody-here", "wrong_key")
                .arg("-oBatchMode=yes"));
        });
        self.case("openssh, scp", 22, sshd, |scene| {
            let mut scp = scene.out.command("scp");
            scp.args(["-F", "/dev/null", "-P", "22", "-i"])
                .arg(scene.pam.file("client_key"))
                .args(["-o", "StrictHostKeyChecking=no", "-o", "IdentityAgent=none"])
                .args(["-o", "UserKnownHostsFile=/dev/null"])
                .arg(scene.pam.file("passwd"))
                .arg(format!("{USER}@{node}:copy"));
            run(&mut scp);
        });
        self.case("openssh, MSS 88", 22, sshd, |scene| {
            let mut ssh = scene.pam.ssh(scene.tiny, node, USER, "client_key");
            run(ssh.arg("sleep 1.5"));
        });
        self.case_of(
            "lines before the banner",
            2200,
            (Some("ssh"), None),
            Some("success"),
            |scene| {
                let to = SocketAddr::new(node, 2200);
                let mut ssh = scene.pam.ssh_at(scene.out, to, USER, "client_key");
                run(ssh.arg("true"));
            },
        );
    }

    pub(super) fn others(&mut self) {
        let node = IpAddr::from(NODE.v4);
        let text = node.to_string();
        let dropbear = (Some("ssh"), Some("dropbear"));
        self.case("openssh to dropbear, key", 2222, dropbear, |scene| {
            run(scene
                .dropbear
                .ssh(scene.out, node, USER, "client_key")
                .arg("sleep 0.3"));
        });
        self.case("openssh to dropbear, aes256-ctr", 2222, dropbear, |scene| {
            let mut ssh = scene.dropbear.ssh(scene.out, node, USER, "client_key");
            run(ssh.args(["-c", "aes256-ctr", "sleep 0.3"]));
        });
        self.case("openssh to dropbear, IPv6, key", 2222, dropbear, |scene| {
            let to = NODE.v6.into();
            let mut ssh = scene.dropbear.ssh(scene.out, to, USER, "client_key");
            run(ssh.arg("sleep 0.3"));
        });
        self.case("openssh to dropbear, wrong key", 2222, dropbear, |scene| {
            run(scene
                .dropbear
                .ssh(scene.out, node, USER, "wrong_key")
                .arg("-oBatchMode=yes"));
        });
        self.case(
            "openssh to dropbear, wrong password",
            2222,
            dropbear,
            |scene| {
                let ssh = scene.dropbear.ssh_password(scene.out, node, "wrong");
                run(&mut ssh.expect("ssh"));
            },
        );
        let dbclient = |scene: &Self, server: &Account, key: &str| {
            let converted = server.file("dropbear_key");
            let mut convert = Command::new("dropbearconvert");
            convert.args(["openssh", "dropbear"]).arg(server.file(key));
            process::checked(convert.arg(&converted)).expect("a key");
            let mut client = scene.out.command("dbclient");
            client
                .env("HOME", scene.lab.directory())
                .args(["-y", "-y", "-T", "-i"]);
            client
                .arg(converted)
                .args(["-p", &server.port.to_string(), "-l", USER]);
            run(client.args([&text, "sleep 0.3"]));
        };
        self.case("dbclient to dropbear, key", 2222, dropbear, |scene| {
            dbclient(scene, &scene.dropbear, "client_key");
        });
        self.case(
            "dbclient to openssh, key",
            22,
            (Some("ssh"), Some("sshd")),
            |scene| {
                dbclient(scene, &scene.pam, "client_key");
            },
        );
        self.case(
            "dbclient to openssh, wrong key",
            22,
            (Some("ssh"), Some("sshd")),
            |scene| {
                dbclient(scene, &scene.pam, "wrong_key");
            },
        );
        for (name, script, server, port, key, password) in [
            ("paramiko to openssh, key", "paramiko", 0, 22, true, "-"),
            (
                "paramiko to openssh, wrong password",
                "paramiko",
                0,
                443,
                false,
                "wrong",
            ),
            ("paramiko to dropbear, key", "paramiko", 1, 2222, true, "-"),
            ("asyncssh to openssh, key", "asyncssh", 0, 22, true, "-"),
            (
                "asyncssh to openssh, password",
                "asyncssh",
                0,
                443,
                false,
                PASSWORD,
            ),
            ("asyncssh to asyncssh, key", "asyncssh", 2, 8022, true, "-"),
            (
                "asyncssh to asyncssh, wrong password",
                "asyncssh",
                2,
                8022,
                false,
                "wrong",
            ),
        ] {
            let process = ["sshd", "dropbear", "python3"][server];
            self.case(name, port, (Some("ssh"), Some(process)), |scene| {
                let server = scene.server(port).expect("a server");
                let key = if key {
                    server.file("client_key")
                } else {
                    PathBuf::from("-")
                };
                let path = scene.lab.directory().join(format!("{script}_client.py"));
                let mut python = scene.out.command(PYTHON);
                python
                    .arg(path)
                    .args([&text, &port.to_string(), USER])
                    .arg(key);
                run(python.arg(password));
            });
        }
        self.case(
            "openssh to asyncssh, wrong key",
            8022,
            (Some("ssh"), Some("python3")),
            |scene| {
                run(scene
                    .asyncssh
                    .ssh(scene.out, node, USER, "wrong_key")
                    .arg("-oBatchMode=yes"));
            },
        );
    }

    /// Ports of the servers, and of what is before or behind one.
    pub(super) fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.cases.iter().map(|case| case.port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    pub(super) fn server(&self, port: u16) -> Option<&Account> {
        let all = [
            &self.pam,
            &self.plain,
            &self.dropbear,
            &self.asyncssh,
            &self.away,
            &self.in_pod,
        ];
        all.into_iter().find(|server| server.port == port)
    }
}

/// Runs a client, whatever its exit status.
pub(super) fn run(command: &mut Command) {
    process::output(command, PATIENCE).expect("a client");
}
