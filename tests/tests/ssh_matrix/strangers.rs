//! Whoever is no client of SSH, or a hostile one.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::Duration,
};

use tests::lab::server::account::PYTHON;
use tests::lab::{NODE, Namespace, Transport, process};

use super::scene::{PATIENCE, Scene};

/// Sends some bytes, and reads until nothing comes for a while.
fn talk(from: &Namespace, to: SocketAddr, bytes: &[u8]) {
    talk_in(from, to, [bytes]);
}

/// The same in segments.
fn talk_in<'a>(
    from: &Namespace,
    to: SocketAddr,
    pieces: impl IntoIterator<Item = &'a [u8]> + Send,
) {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).expect("a connection");
        let limit = Some(Duration::from_millis(400));
        stream.set_read_timeout(limit).expect("a limit");
        stream.set_nodelay(true).expect("no delay");
        for bytes in pieces {
            stream.write_all(bytes).expect("a write");
            thread::sleep(Duration::from_millis(2));
        }
        let mut buffer = [0; 4_096];
        while let Ok(1..) = stream.read(&mut buffer) {}
    })
    .expect("a namespace");
}

/// A TLS 1.2 ClientHello (RFC 5246 section 7.4.1.2) with one cipher suite.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xC0, 0x2F, 1, 0]);
    let length = u8::try_from(hello.len()).expect("a short one");
    let mut bytes = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    bytes.extend(hello);
    bytes
}

impl Scene<'_> {
    /// Clients that call for answers of the size of a success.
    pub(super) fn hostile(&mut self) {
        let (ctr, etm) = ("hmac-sha2-256", "hmac-sha2-256-etm@openssh.com");
        for (name, port, mac, program, mode) in [
            (
                "hostile to openssh, aes128-ctr",
                443,
                ctr,
                "sshd",
                "answers",
            ),
            (
                "hostile to openssh, aes128-ctr, etm",
                443,
                etm,
                "sshd",
                "answers",
            ),
            (
                "hostile to dropbear, aes128-ctr",
                2222,
                ctr,
                "dropbear",
                "answers",
            ),
            ("hostile, a long name, etm", 443, etm, "sshd", "disconnect"),
            ("hostile, two names, etm", 443, etm, "sshd", "names"),
        ] {
            self.case(name, port, (Some("ssh"), Some(program)), |scene| {
                let path = scene.lab.directory().join("hostile_client.py");
                let mut python = scene.out.command(PYTHON);
                python.arg(path).arg(NODE.v4.to_string());
                python.args([&port.to_string(), "aes128-ctr", mac, mode]);
                let output = process::output(&mut python, PATIENCE).expect("a client");
                // Else it has deceived nobody because it did not try.
                let told = String::from_utf8_lossy(&output.stdout);
                let errors = String::from_utf8_lossy(&output.stderr);
                let is_done = mode == "answers" || told.contains("disconnected");
                assert!(is_done, "{told}{errors}");
            });
        }
    }

    /// Clients with a TCP of their own, which have answers cut so that a login would look like that. To a
    /// server away from here no process says otherwise, to one of the node it does.
    pub(super) fn windows(&mut self) {
        let (node, away) = (NODE.v4, self.out.addresses.v4);
        for (namespace, mark) in [
            (&**self.out, "45000-45099"),
            (self.lab.node(), "45100-45199"),
        ] {
            // The kernel's resets for these ports are lost, those of the client itself are marked.
            let lost: &[&str] = &[
                "rule",
                "add",
                "prio",
                "101",
                "ipproto",
                "tcp",
                "sport",
                mark,
                "blackhole",
            ];
            for rule in [
                &[
                    "rule", "add", "prio", "100", "fwmark", "7", "lookup", "main",
                ][..],
                lost,
            ] {
                namespace.ip(rule).expect("a rule");
            }
        }
        let modes = ["beginning", "end", "keys", "steps", "accept"];
        let ways = [(45_000, 443, Some("sshd")), (45_100, 2300, None)];
        let names = [
            [
                "hostile window of a beginning, here",
                "hostile window of an end, here",
                "hostile window of host keys, here",
                "hostile window in steps, here",
                "hostile window of an acceptance, here",
            ],
            [
                "hostile window of a beginning, away",
                "hostile window of an end, away",
                "hostile window of host keys, away",
                "hostile window in steps, away",
                "hostile window of an acceptance, away",
            ],
        ];
        for ((first, port, process), names) in ways.into_iter().zip(names) {
            for (index, (mode, name)) in modes.into_iter().zip(names).enumerate() {
                self.case(name, port, (Some("ssh"), process), |scene| {
                    let is_here = port == 443;
                    let (from, own, to) = if is_here {
                        (&**scene.out, away, node)
                    } else {
                        (scene.lab.node(), node, away)
                    };
                    let own_port = (first + index).to_string();
                    let path = scene.lab.directory().join("hostile_window.py");
                    let mut python = from.command(PYTHON);
                    python.arg(path).args([to.to_string(), port.to_string()]);
                    python.args([&own.to_string(), &own_port, mode]);
                    let output = process::output(&mut python, PATIENCE).expect("a client");
                    let told = String::from_utf8_lossy(&output.stdout).into_owned();
                    let errors = String::from_utf8_lossy(&output.stderr);
                    // Else it has deceived nobody because it did not try.
                    assert!(
                        output.status.success() && told.contains("cut at"),
                        "{told}{errors}"
                    );
                });
            }
        }
    }

    pub(super) fn strangers(&mut self) {
        let sshd = SocketAddr::new(NODE.v4.into(), 22);
        let probe = (Some("server_only"), None);
        self.case("banner only", 22, probe, |scene| talk(scene.out, sshd, b""));
        self.case("HTTP to sshd", 22, probe, |scene| {
            talk(scene.out, sshd, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        });
        self.case("TLS on port 22", 22, (None, None), Self::talk_tls);
        self.case("HTTP on port 22", 22, (None, None), |scene| {
            let mut server = scene.out.command(PYTHON);
            server.args(["-m", "http.server", "22"]);
            let _server = scene.out.spawn("http", &mut server).expect("a server");
            scene
                .out
                .wait_listening(Transport::Tcp, 22, PATIENCE)
                .expect("a server");
            let to = SocketAddr::new(scene.out.addresses.v4.into(), 22);
            talk(scene.lab.node(), to, b"GET / HTTP/1.0\r\n\r\n");
        });
        self.case("TLS to sshd", 22, probe, |scene| {
            talk(scene.out, sshd, &client_hello());
        });
        self.case(
            "a banner and no more",
            22,
            (Some("ssh"), Some("sshd")),
            |scene| {
                talk(scene.out, sshd, b"SSH-2.0-scanner_1\r\n");
            },
        );
        self.case(
            "a banner byte by byte",
            22,
            (Some("ssh"), Some("sshd")),
            |scene| talk_in(scene.out, sshd, b"SSH-2.0-bytewise_1\r\n".chunks(1)),
        );
    }

    /// A TLS server on port 22 of another host, and a client on the node.
    fn talk_tls(&self) {
        let directory = self.lab.directory();
        let path = |name: &str| directory.join(name).display().to_string();
        let (key, certificate) = (path("tls.key"), path("tls.crt"));
        let mut make = Command::new("openssl");
        make.args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lab",
        ]);
        process::checked(make.args(["-keyout", &key, "-out", &certificate])).expect("a key");
        let mut server = self.out.command("openssl");
        server.args([
            "s_server",
            "-accept",
            "22",
            "-key",
            &key,
            "-cert",
            &certificate,
        ]);
        let server = self.out.spawn("tls", server.arg("-www")).expect("a server");
        let listening = self.out.wait_listening(Transport::Tcp, 22, PATIENCE);
        listening.unwrap_or_else(|error| panic!("{error}: {}", server.log()));
        let mut client = self.lab.node().command("openssl");
        let to = format!("{}:22", self.out.addresses.v4);
        let output = process::output(client.args(["s_client", "-connect", &to]), PATIENCE);
        let output = output.expect("a client");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("BEGIN CERTIFICATE"), "{text}");
    }
}
