//! A real Prometheus over the agents, and an incident: what it raises, and that it ends.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{AGENT, IMAGE, ROLLOUT, Story, indented, overlay, say};
use crate::cluster::watch::{FACTOR, Watch};
use crate::lab::server::prometheus;
use crate::lab::wait;
use crate::openmetrics::promtool;

/// What the incident has to raise, with what causes it.
const RAISED: [&str; 3] = [
    "NodewatchNsgDrift",
    "NodewatchPolicyViolation",
    "NodewatchSshUnexpected",
];
/// How long until an alert is there: the agent tells, is scraped, rules are evaluated.
const SOON: Duration = Duration::from_secs(45);
/// How long until it is gone: what the rules look back, and as much again for a busy machine.
const WINDOW: Duration = Duration::from_secs(15 * 60 / FACTOR);
/// Resident memory of an agent, the tables of the kernel that it maps included, in MiB.
const MAX_RESIDENT: f64 = 60.0;

// === impl Story ===

impl Story {
    /// The intruder's pod is taken away, so that the agents of the next act know of no violation yet.
    pub fn calm(&self) -> Result<()> {
        self.intruders(0)?;
        say("the intruder is scaled to none: the cluster is calm");
        Ok(())
    }

    /// Starts Prometheus with what is shipped, on a host of the virtual network.
    pub fn watch(&self) -> Result<()> {
        let watch = Watch::start(&self.cluster, &self.inside)?;
        ensure!(self.watch.set(watch).is_ok(), "it is watched already");
        say(&format!(
            "Prometheus runs with deploy/prometheus/prometheus.yml and its rules, {FACTOR} times as fast: all their \
             durations are divided by that (15 minutes are {} s), nothing else is changed; promtool finds nothing \
             to say of them",
            WINDOW.as_secs()
        ));
        let nodes = self.cluster.nodes().len();
        self.until(SOON, "all agents to be scraped, and no alert", || {
            let up = prometheus::query(&self.inside, "up{job=\"nodewatch\"} == 1")?;
            // Until the first scrape no agent is there, which may be pending.
            let raised = self.raised()?;
            let firing = raised.iter().find(|alert| alert["state"] == "firing");
            ensure!(firing.is_none(), "before the incident: {firing:#?}");
            Ok((up.len() == nodes && raised.is_empty()).then_some(()))
        })?;
        say(&format!("up == 1 for {nodes} agent(s), no alert"));
        Ok(())
    }

    /// SSH from where it is not expected, a connection that a security group denies, one that a policy denies:
    /// an alert for each, and no other.
    pub fn incident(&self) -> Result<()> {
        self.ssh()?;
        let node = self.cluster.nodes()[0].address;
        let closed = SocketAddr::new(node.into(), overlay::DENIED);
        let listener = self.cluster.namespace(0).run(|| TcpListener::bind(closed));
        let _listener = listener?.context("cannot listen")?;
        self.outside
            .run(|| TcpStream::connect_timeout(&closed, ROLLOUT))?
            .context("nothing enforces the group, and still nobody answers")?;
        self.intruders(1)?;
        say(&format!(
            "the incident: SSH from outside, a connection to {closed} that the declared group denies, a pod that a \
             policy denies"
        ));
        let mut seen = BTreeSet::new();
        self.until(SOON, "the alerts of the incident", || {
            for alert in self.raised()? {
                let key = (text(&alert, "/labels/alertname"), text(&alert, "/state"));
                if seen.insert(key.clone()) {
                    say(&format!(
                        "{} is {} since {}: {}",
                        key.0,
                        key.1,
                        text(&alert, "/activeAt"),
                        text(&alert, "/annotations/summary")
                    ));
                }
            }
            let firing = |name: &&str| seen.contains(&((*name).to_owned(), "firing".to_owned()));
            Ok(RAISED.iter().all(firing).then_some(()))
        })?;
        let names: BTreeSet<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
        ensure!(
            names.iter().all(|name| RAISED.contains(name)),
            "more than was caused: {names:?}"
        );
        let arguments = ["findings", "--finding", "nsg-drift"];
        let drift = self.record(0, &arguments, "the drift", |record| {
            let rule = &record["flow"]["nsg"]["rule"];
            record["flow"]["destination"]["port"] == overlay::DENIED && rule == overlay::RULE
        })?;
        say(&format!("drift: {}", drift["reason"]));
        self.intruders(0)?;
        say("the incident ends: nobody connects any more");
        Ok(())
    }

    /// The alerts of the incident are over, and Prometheus has reached every agent all the time.
    pub fn resolved(&self) -> Result<()> {
        self.until(WINDOW + SOON, "the alerts to be resolved", || {
            let raised = self.raised()?;
            let is_left = |alert: &Value| {
                let name = text(alert, "/labels/alertname");
                RAISED.contains(&name.as_str())
            };
            Ok((!raised.iter().any(is_left)).then_some(()))
        })?;
        let watched = self.watched()?;
        for name in RAISED {
            let query = format!(
                "count_over_time((max(ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}}))[{watched}s:1s])"
            );
            let seconds = self.one(&query)?;
            say(&format!("{name} fired for {seconds:.0} s and is resolved"));
        }
        self.reached(watched)?;
        self.figures(watched)
    }

    /// Every agent answered every scrape.
    fn reached(&self, watched: u64) -> Result<()> {
        let nodes = self.cluster.nodes().len();
        let least = format!("min_over_time(up{{job=\"nodewatch\"}}[{watched}s])");
        let up = prometheus::query(&self.inside, &least)?;
        ensure!(
            up.len() == nodes && up.iter().all(|sample| value(sample) == Some(1.0)),
            "an agent was down: {up:#?}"
        );
        let scrapes = self.one(&format!(
            "min(count_over_time(up{{job=\"nodewatch\"}}[{watched}s]))"
        ))?;
        // One a second; a busy machine may be late for some.
        let wanted = Duration::from_secs(watched).as_secs_f64() * 0.8;
        ensure!(scrapes >= wanted, "{scrapes} scrapes in {watched} s");
        say(&format!(
            "up == 1 in all of {scrapes:.0} scrapes in {watched} s, through a drain"
        ));
        Ok(())
    }

    /// What the agents cost, as Prometheus saw it.
    fn figures(&self, watched: u64) -> Result<()> {
        let largest = |metric: &str| self.one(&format!("max(max_over_time({metric}[{watched}s]))"));
        let resident = largest("nodewatch_process_resident_memory_bytes")? / 1024.0 / 1024.0;
        say(&format!(
            "an agent had {resident:.1} MiB resident at most, the kernel's tables that it maps included; a scrape \
             took {:.0} ms at most, with {:.0} series",
            largest("scrape_duration_seconds{job=\"nodewatch\"}")? * 1e3,
            largest("scrape_samples_scraped{job=\"nodewatch\"}")?
        ));
        // A program that is not optimised is in no image: its file alone has as much.
        if std::env::var_os(IMAGE).is_some() {
            ensure!(resident <= MAX_RESIDENT, "{resident:.1} MiB");
        } else {
            say("not judged: that is a debug build");
        }
        for node in 0..self.cluster.nodes().len() {
            let metrics = self.cluster_metrics(node)?;
            promtool::check(&metrics, self.cluster.lab().directory())?;
        }
        say("promtool check metrics finds nothing to say");
        Ok(())
    }

    /// An agent that is gone: its alert waits, then fires.
    pub fn agent_down(&self) -> Result<()> {
        const NAME: &str = "NodewatchAgentDown";
        self.until(SOON, "NodewatchAgentDown to fire", || {
            let raised = self.raised()?;
            let is_down = |alert: &Value| {
                text(alert, "/labels/alertname") == NAME && text(alert, "/state") == "firing"
            };
            Ok(raised.iter().any(is_down).then_some(()))
        })?;
        // Asked of Prometheus's memory: it waits while the agent is still being removed.
        let waited = self.one(&format!(
            "count_over_time((max(ALERTS{{alertname=\"{NAME}\", alertstate=\"pending\"}}))[2m:1s])"
        ))?;
        say(&format!(
            "without its agent {NAME} is pending for {waited:.0} s, then firing"
        ));
        Ok(())
    }

    /// Scales the intruder.
    fn intruders(&self, count: usize) -> Result<()> {
        let replicas = format!("--replicas={count}");
        self.cluster
            .ask(&["scale", "deployment/intruder", "-n", "shop", &replicas])?;
        wait::until("the intruder to be as wanted", ROLLOUT, || {
            let pods = ["pods", "-n", "shop", "-l", "app=intruder"];
            let pods = self.cluster.get(&pods).ok()?;
            (pods["items"].as_array()?.len() == count).then_some(())
        })
    }

    /// What Prometheus has of our alerts, pending and firing.
    fn raised(&self) -> Result<Vec<Value>> {
        prometheus::alerts(&self.inside)
    }

    /// The only number that a query gives.
    fn one(&self, query: &str) -> Result<f64> {
        let samples = prometheus::query(&self.inside, query)?;
        let [sample] = samples.as_slice() else {
            anyhow::bail!("{query}: {samples:?}");
        };
        value(sample).with_context(|| format!("{query}: {sample}"))
    }

    /// For how long Prometheus has watched, in seconds.
    fn watched(&self) -> Result<u64> {
        let watch = self.watch.get().context("nobody watches")?;
        Ok(watch.since().elapsed().as_secs())
    }

    /// Waits for something that Prometheus says; the error has its alerts and its log.
    fn until<T>(
        &self,
        within: Duration,
        what: &str,
        mut condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let found = wait::until(what, within, || {
            // Not as often as could be: it has others to answer.
            std::thread::sleep(Duration::from_millis(200));
            condition().transpose()
        });
        found.and_then(|found| found).with_context(|| {
            let log = self.watch.get().map(Watch::log).unwrap_or_default();
            let events = ["logs", "-n", AGENT, "ds/nodewatch", "--tail=20"];
            format!(
                "alerts: {:#?}\nPrometheus:\n{}\nagent:\n{}",
                self.raised().unwrap_or_default(),
                indented(&log),
                indented(&self.cluster.ask(&events).unwrap_or_default())
            )
        })
    }
}

fn text(value: &Value, pointer: &str) -> String {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// The number of a sample.
fn value(sample: &Value) -> Option<f64> {
    sample["value"][1].as_str()?.parse().ok()
}
