//! The lab of the demonstration, its servers, and what the clients do.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::lab::server::dns::Dns;
use crate::lab::server::iperf::Iperf;
use crate::lab::server::nginx::Nginx;
use crate::lab::server::sshd::Sshd;
use crate::lab::{Guard, Lab, NODE, Namespace, Peer, Pod, client, process};

/// An address behind which nothing ever answers.
const BLACK_HOLE: &str = "198.51.100.7:443";

/// How long one client may take.
const CLIENT: Duration = Duration::from_secs(15);

/// A lab with servers in it.
#[derive(Debug)]
pub struct Scene {
    /// The host outside that administers the node.
    pub outside: Peer,
    /// A second host outside, a visitor.
    visitor: Peer,
    inside: Peer,
    web: Pod,
    shop: Pod,
    worker: Pod,
    node_ssh: Sshd,
    pod_ssh: Sshd,
    iperf: Iperf,
    _nginx: Nginx,
    _dns: Dns,
    _echo: Guard,
    /// Last, so that everything in it has ended before.
    pub lab: Lab,
}

// === impl Scene ===

impl Scene {
    /// Builds the lab and starts the servers.
    pub fn build() -> Result<Self> {
        let lab = Lab::new("demo")?;
        let (web, shop, worker) = (lab.add_pod()?, lab.add_pod()?, lab.add_pod()?);
        let (outside, visitor, inside) =
            (lab.add_outside()?, lab.add_outside()?, lab.add_inside()?);
        Ok(Self {
            node_ssh: Sshd::start(lab.node(), 22)?,
            pod_ssh: Sshd::start(&worker, 2222)?,
            iperf: Iperf::start(&inside, 5201)?,
            _nginx: Nginx::start(&web)?,
            _dns: Dns::start(&inside)?,
            _echo: client::serve(&inside, "udp-serve", 7000)?,
            outside,
            visitor,
            inside,
            web,
            shop,
            worker,
            lab,
        })
    }

    /// Who is where.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, address: IpAddr, namespace: &Namespace, does: &str| {
            let address = address.to_string();
            let row = format!("  {what:<14} {address:<14} {:<18} {does}", namespace.name());
            writeln!(text, "{row}").expect("a string takes everything");
        };
        let pod = |pod: &Pod| pod.host_interface.clone();
        line(
            "node",
            NODE.v4.into(),
            self.lab.node(),
            "sshd on 22, uplink eth0",
        );
        line(
            &pod(&self.web),
            self.web.addresses.v4.into(),
            &self.web,
            "pod web: nginx",
        );
        line(
            &pod(&self.shop),
            self.shop.addresses.v4.into(),
            &self.shop,
            "pod shop: clients",
        );
        let does = "pod worker: sshd on 2222, clients";
        line(
            &pod(&self.worker),
            self.worker.addresses.v4.into(),
            &self.worker,
            does,
        );
        line(
            "inside",
            self.inside.addresses.v4.into(),
            &self.inside,
            "iperf3, DNS, UDP echo",
        );
        line(
            "outside",
            self.outside.addresses.v4.into(),
            &self.outside,
            "administrator",
        );
        line(
            "outside",
            self.visitor.addresses.v4.into(),
            &self.visitor,
            "visitor",
        );
        text
    }

    /// The pods' names and IPv4 addresses.
    pub fn pods(&self) -> [(&'static str, Ipv4Addr); 3] {
        [
            ("web", &self.web),
            ("shop", &self.shop),
            ("worker", &self.worker),
        ]
        .map(|(name, pod)| (name, pod.addresses.v4))
    }

    /// The command by which the administrator logs in to the node.
    pub fn login(&self) -> Command {
        self.node_ssh.login(&self.outside, NODE.v4.into())
    }

    /// Lets the clients work in turn for a while, or until told to stop.
    pub fn act(&self, lasting: Duration, stop: &dyn Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        let seconds = lasting.as_secs().saturating_sub(3).clamp(1, 30).to_string();
        let to = SocketAddr::new(self.inside.addresses.v4.into(), self.iperf.port);
        let bulk = ["--time", &seconds, "--bitrate", "20M"];
        let mut bulk = client::iperf(&self.worker, to, &bulk);
        let _bulk = self.worker.spawn("iperf3", &mut bulk)?;
        let over = || start.elapsed() >= lasting || stop();
        let mut steps: Vec<(&str, Command)> = Vec::new();
        while !over() {
            if steps.is_empty() {
                steps = self.steps()?;
                steps.reverse();
            }
            let Some((what, mut command)) = steps.pop() else {
                break;
            };
            // Some of these have to fail: a refused port, a wrong key, the black hole.
            if let Err(error) = process::output(&mut command, CLIENT) {
                eprintln!("client {what}: {error:#}");
            }
            let pause = Duration::from_millis(150);
            std::thread::sleep(pause.min(lasting.saturating_sub(start.elapsed())));
        }
        Ok(())
    }

    fn steps(&self) -> Result<Vec<(&'static str, Command)>> {
        let web4 = IpAddr::from(self.web.addresses.v4);
        let web6 = IpAddr::from(self.web.addresses.v6);
        let inside = IpAddr::from(self.inside.addresses.v4);
        let port = |number| SocketAddr::new(inside, number).to_string();
        let get = |from: &Namespace, scheme, address, path| {
            client::curl(from, &client::url(scheme, address, path))
        };
        let mut login = self.login();
        login.args(["hostname; sleep 1"]);
        let mut wrong_key = self.node_ssh.refused_login(&self.visitor, NODE.v4.into());
        wrong_key.arg("true");
        let mut pod_login = self
            .pod_ssh
            .login(&self.shop, self.worker.addresses.v4.into());
        pod_login.arg("true");
        let mut black_hole = client::curl(&self.shop, &format!("https://{BLACK_HOLE}/"));
        black_hole.args(["--connect-timeout", "1"]);
        let inside_text = inside.to_string();
        Ok(vec![
            ("ssh to the node", login),
            ("http between pods", get(&self.shop, "http", web4, "/")),
            ("a black hole", black_hole),
            (
                "https from outside",
                get(&self.visitor, "https", web4, "/big"),
            ),
            ("http over IPv6", get(&self.visitor, "http", web6, "/")),
            (
                "DNS",
                client::traffic(
                    &self.shop,
                    &[
                        "dns",
                        "--to",
                        &port(53),
                        "--name",
                        "web.lab.test",
                        "--count",
                        "3",
                    ],
                )?,
            ),
            ("ssh with a wrong key", wrong_key),
            ("ssh to a pod's port 2222", pod_login),
            (
                "UDP echo",
                client::traffic(
                    &self.worker,
                    &["udp", "--to", &port(7000), "--count", "20", "--echo"],
                )?,
            ),
            (
                "fragments",
                client::traffic(
                    &self.worker,
                    &["fragments", "--to", &port(7000), "--count", "5", "--echo"],
                )?,
            ),
            (
                "ping",
                client::traffic(&self.shop, &["icmp", "--to", &inside_text, "--count", "3"])?,
            ),
            ("a refused port", get(&self.worker, "http", inside, "/")),
        ])
    }
}
