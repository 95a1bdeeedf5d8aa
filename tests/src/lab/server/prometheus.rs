//! A real Prometheus, with the rules of this repository.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::super::{Guard, Namespace, wait};
use crate::{daemon, deploy};

/// Where it serves.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// How long a start may take.
const START: Duration = Duration::from_secs(30);

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus<'lab> {
    guard: Guard,
    namespace: &'lab Namespace,
}

// === impl Prometheus ===

impl<'lab> Prometheus<'lab> {
    /// Starts it in a namespace; scrapes each job's address once a second and evaluates the rules as often.
    pub fn start(namespace: &'lab Namespace, jobs: &[(&str, SocketAddr)]) -> Result<Self> {
        let mut text = "global: {scrape_interval: 1s, evaluation_interval: 1s}\n".to_owned();
        text.push_str("rule_files:\n");
        for file in deploy::files("deploy/prometheus", ".rules.yml")? {
            // In the rules an interval suits a fleet; here it suits a test.
            let rules = deploy::read(&file)?.replace("interval: 30s", "interval: 1s");
            let name = file.rsplit('/').next().context("a name")?;
            fs::write(namespace.directory().join(name), rules)?;
            writeln!(text, "- {name}")?;
        }
        text.push_str("scrape_configs:\n");
        for (job, target) in jobs {
            writeln!(
                text,
                "- {{job_name: {job}, static_configs: [{{targets: ['{target}']}}]}}"
            )?;
        }
        let config = namespace.directory().join("prometheus.yml");
        fs::write(&config, text).context("cannot write the configuration")?;
        let guard = launch(namespace, namespace.command("prometheus"), &config)?;
        Ok(Self { guard, namespace })
    }

    /// The samples that a query gives now; an error names what is wrong with it.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        self::query(self.namespace, query)
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        self.guard.log()
    }
}

/// Starts Prometheus with a configuration and waits until it is ready; `command` is the program in the
/// namespace, with arguments of its own.
pub fn launch(namespace: &Namespace, mut command: Command, config: &Path) -> Result<Guard> {
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            namespace.directory().join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={LISTEN}"))
        .arg("--log.level=warn");
    let mut guard = namespace.spawn("prometheus", &mut command)?;
    let ready = wait::until("Prometheus to be ready", START, || {
        let answer = daemon::http(namespace, LISTEN, "/-/ready");
        let yes = answer.is_ok_and(|answer| answer.status == 200);
        (yes || !guard.is_running()).then_some(yes)
    });
    match ready {
        Ok(true) => Ok(guard),
        _ => bail!("Prometheus did not start:\n{}", guard.log()),
    }
}

/// The samples that a query gives now to the Prometheus of a namespace; an error names what is wrong with it.
pub fn query(namespace: &Namespace, query: &str) -> Result<Vec<Value>> {
    let mut path = "/api/v1/query?query=".to_owned();
    for byte in query.bytes() {
        write!(path, "%{byte:02x}")?;
    }
    match &data(namespace, &path).context(query.to_owned())?["result"] {
        Value::Array(samples) => Ok(samples.clone()),
        other => bail!("{query}: {other}"),
    }
}

/// The alerts that the Prometheus of a namespace has now: labels, annotations, `state` (pending or firing) and
/// since when.
pub fn alerts(namespace: &Namespace) -> Result<Vec<Value>> {
    match &data(namespace, "/api/v1/alerts")?["alerts"] {
        Value::Array(alerts) => Ok(alerts.clone()),
        other => bail!("alerts: {other}"),
    }
}

fn data(namespace: &Namespace, path: &str) -> Result<Value> {
    let answer = daemon::http(namespace, LISTEN, path)?;
    let mut value: Value = serde_json::from_str(&answer.body).context("no JSON")?;
    if value["status"] != "success" {
        bail!("{}", value["error"]);
    }
    Ok(value["data"].take())
}
