//! A real Prometheus, with the rules of this repository.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
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
        let mut command = namespace.command("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                namespace.directory().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={LISTEN}"))
            .arg("--log.level=warn");
        let guard = namespace.spawn("prometheus", &mut command)?;
        let mut started = Self { guard, namespace };
        let ready = wait::until("Prometheus to be ready", START, || {
            let answer = daemon::http(namespace, LISTEN, "/-/ready");
            let yes = answer.is_ok_and(|answer| answer.status == 200);
            (yes || !started.guard.is_running()).then_some(yes)
        });
        match ready {
            Ok(true) => Ok(started),
            _ => bail!("Prometheus did not start:\n{}", started.guard.log()),
        }
    }

    /// The samples that a query gives now; an error names what is wrong with it.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in query.bytes() {
            write!(path, "%{byte:02x}")?;
        }
        let answer = daemon::http(self.namespace, LISTEN, &path)?;
        let value: Value = serde_json::from_str(&answer.body).context("no JSON")?;
        if value["status"] != "success" {
            bail!("{query}: {}", value["error"]);
        }
        match &value["data"]["result"] {
            Value::Array(samples) => Ok(samples.clone()),
            other => bail!("{query}: {other}"),
        }
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        self.guard.log()
    }
}

/// Serves a text at every path until the process ends.
pub fn exporter(namespace: &Namespace, address: SocketAddr, text: String) -> Result<()> {
    let listener = namespace.run(|| TcpListener::bind(address))??;
    std::thread::Builder::new()
        .name("exporter".to_owned())
        .spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
                     Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
                    text.len()
                );
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}
