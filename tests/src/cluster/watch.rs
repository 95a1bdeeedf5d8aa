//! A real Prometheus beside the cluster, with the configuration and the rules of `deploy/prometheus`.
//!
//! It finds the agents as in any cluster, by the name of their Service. What answers for that name is dnsmasq,
//! from the endpoints that the API server has: the cluster has no DNS of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Cluster;
use crate::deploy::{self, hurry::hurry};
use crate::lab::namespace::{Namespace, Transport};
use crate::lab::process::{self, Guard};
use crate::lab::server::prometheus;

/// What all durations of configuration and rules are divided by: fifteen minutes are thirty seconds.
pub const FACTOR: u64 = 30;
/// How far back Prometheus looks for a sample unless told otherwise, in seconds.
const LOOKBACK: u64 = 300;
/// The name in the shipped configuration.
const SERVICE: &str = "nodewatch.nodewatch.svc.cluster.local";
/// How long the DNS server may take to start.
const START: Duration = Duration::from_secs(10);

/// A Prometheus that scrapes the agents; it ends with this value.
#[derive(Debug)]
pub struct Watch {
    since: Instant,
    prometheus: Guard,
    _dns: Guard,
}

// === impl Watch ===

impl Watch {
    /// Starts it on a host, for the agents whose Service the API server knows.
    pub fn start(cluster: &Cluster, host: &Namespace) -> Result<Self> {
        let directory = cluster.lab().directory().join("prometheus");
        fs::create_dir(&directory).context("cannot make a directory")?;
        let dns = dns(host, &directory, &addresses(cluster)?)?;
        let config = files(&directory)?;
        for check in [
            &["check", "config", "prometheus.yml"][..],
            &["check", "rules", "recording.rules.yml", "alerts.rules.yml"],
        ] {
            process::checked(Command::new("promtool").args(check).current_dir(&directory))?;
        }
        // Names are asked of the DNS server on this host, by this process alone.
        let resolv = directory.join("resolv.conf");
        fs::write(&resolv, "nameserver 127.0.0.1\n").context("cannot write")?;
        let script = "mount --bind \"$1\" /etc/resolv.conf && shift && exec \"$@\"";
        let mut command = host.command("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        command.arg(resolv).arg("prometheus");
        command.arg(format!("--query.lookback-delta={}s", LOOKBACK / FACTOR));
        let prometheus = prometheus::launch(host, command, &config)?;
        Ok(Self {
            since: Instant::now(),
            prometheus,
            _dns: dns,
        })
    }

    /// Since when it runs.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        self.prometheus.log()
    }
}

/// The addresses of the Service's endpoints, once every node has one.
fn addresses(cluster: &Cluster) -> Result<Vec<String>> {
    let endpoints = cluster.get(&["endpoints", "nodewatch", "-n", "nodewatch"])?;
    let ready = endpoints.pointer("/subsets/0/addresses");
    let ready = ready.and_then(Value::as_array).into_iter().flatten();
    let addresses: Vec<String> = ready
        .filter_map(|address| address["ip"].as_str().map(str::to_owned))
        .collect();
    ensure!(
        addresses.len() == cluster.nodes().len(),
        "the Service has not every agent: {endpoints:#}"
    );
    Ok(addresses)
}

fn dns(host: &Namespace, directory: &Path, addresses: &[String]) -> Result<Guard> {
    let mut text = String::new();
    for address in addresses {
        writeln!(text, "{address} {SERVICE}")?;
    }
    let hosts = directory.join("hosts");
    fs::write(&hosts, text).context("cannot write the names")?;
    let mut command = host.command("dnsmasq");
    command.args(["--keep-in-foreground", "--no-daemon", "--no-resolv"]);
    command.args(["--no-hosts", "--conf-file=/dev/null", "--pid-file="]);
    command.args(["--user=root", "--group=root"]);
    command.arg(format!("--addn-hosts={}", hosts.display()));
    let guard = host.spawn("dns", &mut command)?;
    host.wait_listening(Transport::Udp, 53, START)
        .with_context(|| format!("DNS server: {}", guard.log()))?;
    Ok(guard)
}

/// Writes what is shipped, with shorter durations; tells where the configuration is.
fn files(directory: &Path) -> Result<PathBuf> {
    let name = |file: &str| file.rsplit('/').next().map(str::to_owned);
    let shipped = "deploy/prometheus/prometheus.yml";
    let mut all = deploy::files("deploy/prometheus", ".rules.yml")?;
    all.push(shipped.to_owned());
    for file in all {
        let text = hurry(&deploy::read(&file)?, FACTOR).with_context(|| file.clone())?;
        fs::write(directory.join(name(&file).context("a name")?), text)?;
    }
    Ok(directory.join(name(shipped).context("a name")?))
}
