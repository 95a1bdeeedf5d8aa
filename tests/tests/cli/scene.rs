//! Servers and clients for the command-line tests.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tests::daemon::Daemon;
use tests::lab::server::dns::Dns;
use tests::lab::server::nginx::Nginx;
use tests::lab::server::sshd::Sshd;
use tests::lab::{self, Guard, Lab, NODE, Peer, Pod, client, process, wait};

/// How long until traffic has to show.
pub(crate) const SHOW: Duration = Duration::from_secs(8);

pub(crate) struct Scene {
    _nginx: Nginx,
    _dns: Dns,
    _echo: Guard,
    ssh: Sshd,
    pub(crate) web: Pod,
    pub(crate) pod: Pod,
    pub(crate) outside: Peer,
    pub(crate) inside: Peer,
    pub(crate) lab: Lab,
}

// === impl Scene ===

impl Scene {
    pub(crate) fn new(name: &str) -> Self {
        let lab = Lab::new(name).expect("a lab");
        let (web, pod) = (lab.add_pod().expect("a pod"), lab.add_pod().expect("a pod"));
        let outside = lab.add_outside().expect("a peer");
        let inside = lab.add_inside().expect("a peer");
        Self {
            _nginx: Nginx::start(&web).expect("nginx"),
            _dns: Dns::start(&inside).expect("a DNS server"),
            _echo: client::serve(&inside, "udp-serve", 7002).expect("an echo server"),
            ssh: Sshd::start(lab.node(), 22).expect("sshd"),
            web,
            pod,
            outside,
            inside,
            lab,
        }
    }

    /// ssh, http over both IP versions, https, DNS, UDP, a refused port, a black hole.
    pub(crate) fn traffic(&self) {
        let mut login = self.ssh.login(&self.outside, NODE.v4.into());
        process::checked(login.arg("true")).expect("a login");
        for (scheme, address) in [
            ("http", IpAddr::from(self.web.addresses.v4)),
            ("http", IpAddr::from(self.web.addresses.v6)),
            ("https", IpAddr::from(self.web.addresses.v4)),
        ] {
            let url = client::url(scheme, address, "/");
            process::checked(&mut client::curl(&self.pod, &url)).expect("curl");
        }
        let inside = |port| SocketAddr::new(self.inside.addresses.v4.into(), port).to_string();
        let to = inside(53);
        let dns = ["dns", "--to", &to, "--name", "web.lab.test", "--count", "2"];
        client::send(&self.pod, &dns).expect("a report");
        let to = inside(7002);
        let udp = [
            "udp", "--to", &to, "--count", "10", "--size", "100", "--echo",
        ];
        client::send(&self.pod, &udp).expect("a report");
        let url = format!("http://{}:81/", self.inside.addresses.v4);
        let refused = process::output(&mut client::curl(&self.pod, &url), SHOW).expect("an end");
        assert_eq!(refused.status.code(), Some(7), "{refused:?}");
        let mut hole = client::curl(&self.pod, "http://198.51.100.7/");
        process::output(hole.args(["--connect-timeout", "1"]), SHOW).expect("an end");
    }

    pub(crate) fn wait_shown(&self, daemon: &Daemon) {
        let shown = |arguments: &[&str]| {
            let all = [&["flows", "--last", "100000"], arguments].concat();
            !daemon.records(&all).expect("records").is_empty()
        };
        let pod = self.pod.addresses.v4.to_string();
        let all = wait::until("every flow to show", SHOW, || {
            let yes = shown(&["--app", "ssh"])
                && shown(&["--app", "tls"])
                && shown(&["--app", "dns"])
                && shown(&["--outcome", "refused"])
                && shown(&["--ip", &pod, "--port", "7002"]);
            yes.then_some(())
        });
        assert!(
            all.is_ok(),
            "{:?}\n{}",
            daemon.tell(&["flows"]),
            daemon.log()
        );
    }
}

pub(crate) fn permit() -> Option<lab::Permit> {
    lab::require_with(&["sshd", "ssh", "ssh-keygen", "nginx", "openssl", "curl"])
}
