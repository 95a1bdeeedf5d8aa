//! Ways other than from outside to the node.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use tests::lab::server::account::USER;
use tests::lab::{NODE, Transport};

use super::scene::{PATIENCE, Scene, run};

/// Port of the node that is forwarded away from it.
const BACKWARDS: u16 = 9_100;

impl Scene<'_> {
    /// From the node, by its own client and by a port that its server forwards.
    pub(super) fn outwards(&mut self) {
        let away = IpAddr::from(self.out.addresses.v4);
        self.case(
            "from the node, key",
            2300,
            (Some("ssh"), Some("ssh")),
            |scene| {
                let mut ssh = scene.away.ssh(scene.lab.node(), away, USER, "client_key");
                run(ssh.arg("sleep 0.3"));
            },
        );
        let mut forward = self.pam.ssh(self.out, NODE.v4.into(), USER, "client_key");
        forward.args(["-N", "-L", &format!("127.0.0.1:9000:{away}:2300")]);
        let mut guard = None;
        self.case(
            "openssh, a forwarded port",
            22,
            (Some("ssh"), Some("sshd")),
            |scene| {
                let started = scene.out.spawn("ssh", &mut forward).expect("ssh");
                let listening = scene.out.wait_listening(Transport::Tcp, 9000, PATIENCE);
                listening.unwrap_or_else(|error| panic!("{error}: {}", started.log()));
                guard = Some(started);
            },
        );
        self.case(
            "what it forwards, wrong key",
            2300,
            (Some("ssh"), Some("sshd")),
            |scene| {
                let to = SocketAddr::new("127.0.0.1".parse().expect("an address"), 9000);
                let mut ssh = scene.away.ssh_at(scene.out, to, USER, "wrong_key");
                run(ssh.arg("-oBatchMode=yes"));
            },
        );
        drop(guard);
        self.backwards();
    }

    /// From outside to a port of the node that its server forwards out: who holds the connection has
    /// logged in, whoever speaks there has not.
    fn backwards(&mut self) {
        let away = IpAddr::from(self.out.addresses.v4);
        let mut forward = self.pam.ssh(self.out, NODE.v4.into(), USER, "client_key");
        forward.args(["-N", "-R", &format!("0.0.0.0:{BACKWARDS}:{away}:2300")]);
        let mut guard = None;
        self.case(
            "openssh, a reverse forward",
            22,
            (Some("ssh"), Some("sshd")),
            |scene| {
                let started = scene.out.spawn("ssh", &mut forward).expect("ssh");
                let node = scene.lab.node();
                let listening = node.wait_listening(Transport::Tcp, BACKWARDS, PATIENCE);
                listening.unwrap_or_else(|error| panic!("{error}: {}", started.log()));
                guard = Some(started);
            },
        );
        // Older than a server's process may be.
        thread::sleep(Duration::from_secs(4));
        self.case_of(
            "hostile, wrong key to a reverse forward",
            BACKWARDS,
            (Some("ssh"), Some("sshd")),
            Some("failure"),
            |scene| {
                let to = SocketAddr::new(NODE.v4.into(), BACKWARDS);
                let mut ssh = scene.away.ssh_at(scene.out, to, USER, "wrong_key");
                run(ssh.arg("-oBatchMode=yes"));
            },
        );
        drop(guard);
    }

    /// To a pod, and from one.
    pub(super) fn pods(&mut self) {
        let (to, away) = (self.pod.addresses.v4.into(), self.out.addresses.v4.into());
        self.case(
            "to a pod, key",
            2400,
            (Some("ssh"), Some("sshd")),
            |scene| {
                let mut ssh = scene.in_pod.ssh(scene.out, to, USER, "client_key");
                run(ssh.arg("sleep 0.3"));
            },
        );
        self.case(
            "to a pod, wrong key",
            2400,
            (Some("ssh"), Some("sshd")),
            |scene| {
                let mut ssh = scene.in_pod.ssh(scene.out, to, USER, "wrong_key");
                run(ssh.arg("-oBatchMode=yes"));
            },
        );
        self.case(
            "from a pod, key",
            2300,
            (Some("ssh"), Some("ssh")),
            |scene| {
                let mut ssh = scene.away.ssh(&scene.pod, away, USER, "client_key");
                run(ssh.arg("sleep 0.3"));
            },
        );
        self.case(
            "from a pod to the node, key",
            22,
            (Some("ssh"), Some("sshd")),
            |scene| {
                let mut ssh = scene
                    .pam
                    .ssh(&scene.pod, NODE.v4.into(), USER, "client_key");
                run(ssh.arg("sleep 0.3"));
            },
        );
    }
}
