//! What happens in the demonstration and in the test: our manifests as a user applies them, workloads,
//! policies, SSH, an update, a drain. Each act says what it saw and fails when that is not what it should be.

mod alarm;
mod load;
mod look;
mod overlay;
mod privileges;
mod shop;

use std::cell::OnceCell;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Cluster;
use super::objects::name;
use super::watch::Watch;
use crate::deploy;
use crate::lab::server::sshd::Sshd;
use crate::lab::{Peer, process, wait};

/// Environment variable with the archive of the agent's image, as it is released.
pub const IMAGE: &str = "NODEWATCH_IMAGE";
/// The agent's namespace.
const AGENT: &str = "nodewatch";
/// Finds its pods.
const SELECTOR: &str = "app.kubernetes.io/name=nodewatch";
/// How long pods may take to start, and an update to roll out.
const ROLLOUT: Duration = Duration::from_secs(90);
/// A roll-out that takes longer is looked into.
const SLOW: Duration = Duration::from_secs(30);
/// How long until what happened is told of, the grace after changes of policies and pods included.
const TOLD: Duration = Duration::from_secs(45);

/// A cluster with the agent, workloads and an SSH server.
#[derive(Debug)]
pub struct Story {
    /// Who scrapes the agents, on the host inside.
    watch: OnceCell<Watch>,
    /// Inside the virtual network: SSH from here is expected.
    inside: Peer,
    /// Outside of it.
    outside: Peer,
    sshd: Sshd,
    /// The cluster.
    pub cluster: Cluster,
}

// === impl Story ===

impl Story {
    /// Prepares the stage: the agent's image on every node, an SSH server on the first.
    pub fn new(cluster: Cluster, image: &std::path::Path) -> Result<Self> {
        cluster.import(image)?;
        let lab = cluster.lab();
        Ok(Self {
            watch: OnceCell::new(),
            inside: lab.add_inside()?,
            outside: lab.add_outside()?,
            sshd: Sshd::start(lab.node(), 22)?,
            cluster,
        })
    }

    /// `kubectl apply -k deploy/overlays/minimal`, unchanged.
    pub fn apply_as_it_is(&self) -> Result<()> {
        let start = Instant::now();
        let overlay = deploy::path("deploy/overlays/minimal");
        let overlay = overlay.display().to_string();
        // The server is older than what kubectl checks with.
        let printed = self
            .cluster
            .ask(&["apply", "--validate=false", "-k", &overlay])?;
        print!("{}", indented(&printed));
        let nodes = self.cluster.nodes().len();
        self.cluster.wait_pods(AGENT, SELECTOR, nodes, ROLLOUT)?;
        say(&format!(
            "applied; the agent is Ready on {nodes} node(s) after {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Says from where SSH is expected, as a user does: an overlay with a configuration. The agent is
    /// replaced, while traffic flows.
    pub fn configure(&self) -> Result<()> {
        let before = self.agent(0)?;
        let overlay = self.overlay()?;
        let start = Instant::now();
        let printed = self.cluster.ask(&[
            "apply",
            "--validate=false",
            "-k",
            &overlay.display().to_string(),
        ])?;
        print!("{}", indented(&printed));
        self.roll_out()?;
        let after = self.agent(0)?;
        ensure!(
            name(&before) != name(&after),
            "a change of the configuration did not replace the agent"
        );
        self.never_restarted(&after)?;
        if start.elapsed() > SLOW {
            print!("{}", indented(&self.why_slow()?));
        }
        say(&format!(
            "a change of the configuration rolled out in {:.1} s: {} -> {}",
            start.elapsed().as_secs_f64(),
            name(&before),
            name(&after)
        ));
        Ok(())
    }

    /// The API server accepts every component with the base, and the overlay for AKS.
    pub fn dry_run(&self) -> Result<()> {
        let copy = self.cluster.lab().directory().join("dry-run");
        process::checked(
            Command::new("cp")
                .arg("-r")
                .arg(deploy::path("deploy"))
                .arg(&copy),
        )?;
        let mut overlays = vec![copy.join("overlays/aks")];
        for component in fs::read_dir(copy.join("components"))?.flatten() {
            let component = component.file_name().to_string_lossy().into_owned();
            // Its kind is the Prometheus operator's, which is not here.
            if component == "podmonitor" {
                continue;
            }
            let overlay = copy.join("overlays").join(format!("with-{component}"));
            fs::create_dir(&overlay)?;
            let text =
                format!("resources: [../minimal]\ncomponents: [../../components/{component}]\n");
            fs::write(overlay.join("kustomization.yaml"), text)?;
            overlays.push(overlay);
        }
        for overlay in &overlays {
            let overlay = overlay.display().to_string();
            self.cluster
                .ask(&[
                    "apply",
                    "--validate=false",
                    "--dry-run=server",
                    "-k",
                    &overlay,
                ])
                .with_context(|| overlay.clone())?;
        }
        say(&format!(
            "the API server accepts {} overlays (--dry-run=server)",
            overlays.len()
        ));
        Ok(())
    }

    /// Workloads, a policy that nothing enforces, and clients that it allows and denies.
    pub fn workloads(&self) -> Result<()> {
        self.cluster.apply("shop", &shop::manifest())?;
        let pods = self
            .cluster
            .wait_pods("shop", "shop", shop::PODS, ROLLOUT)?;
        for pod in &pods {
            say(&format!(
                "pod {} {} on {}",
                name(pod),
                pod["status"]["podIP"],
                pod["spec"]["nodeName"]
            ));
        }
        Ok(())
    }

    /// Both ends of flows have names: pods that are there now, at the service and behind it.
    pub fn names(&self) -> Result<()> {
        let customer = self.pod("customer")?;
        let web = self.pod("web")?;
        let node = self.node_of(&customer)?;
        let flow = self.record(node, &["flows", "--all"], "a pod's flow", |flow| {
            is_end(&flow["source"], &customer) && flow["destination"]["ip"] == shop::WEB
        })?;
        ensure!(
            flow["destination"]["name"] == "web" && flow["destination"]["namespace"] == "shop",
            "{flow:#}"
        );
        say(&format!("a pod and a service: {}", ends(&flow)));
        let node = self.node_of(&web)?;
        let flow = self.record(node, &["flows", "--all"], "a server's flow", |flow| {
            is_end(&flow["source"], &customer) && is_end(&flow["destination"], &web)
        })?;
        ensure!(
            flow["source"]["workload"] == "Deployment/customer"
                && flow["destination"]["labels"]["app"] == "web",
            "{flow:#}"
        );
        say(&format!("the pod behind it: {}", ends(&flow)));
        Ok(())
    }

    /// A pod on the host's network is named, although its address is the node's: by the component `host-pods`.
    pub fn host_pods(&self) -> Result<()> {
        let (host, web) = (self.pod("host")?, self.pod("web")?);
        let node = self.node_of(&host)?;
        let flow = self.record(node, &["flows", "--all"], "a host pod's flow", |flow| {
            is_end(&flow["source"], &host) && is_end(&flow["destination"], &web)
        })?;
        say(&format!("a pod on the host's network: {}", ends(&flow)));
        Ok(())
    }

    /// What a policy denies and passes is reported, with both pods and the policy.
    pub fn violation(&self) -> Result<()> {
        let (intruder, web) = (self.pod("intruder")?, self.pod("web")?);
        let customer = self.pod("customer")?;
        let node = self.node_of(&web)?;
        let violation = |record: &Value, source: &Value| {
            record["finding"] == "policy-violation" && is_end(&record["flow"]["source"], source)
        };
        let arguments = ["findings", "--all"];
        let record = self.record(node, &arguments, "a policy violation", |record| {
            violation(record, &intruder) && is_end(&record["flow"]["destination"], &web)
        })?;
        ensure!(
            record["declared_by"] == "NetworkPolicy shop/web",
            "{record:#}"
        );
        say(&format!("policy violation: {}", record["reason"]));
        let all = self.records(node, &arguments)?;
        let wrong = all.iter().find(|record| violation(record, &customer));
        ensure!(wrong.is_none(), "the policy allows this: {wrong:#?}");
        Ok(())
    }

    /// SSH from inside is expected, from outside it is reported.
    pub fn ssh(&self) -> Result<()> {
        let node = IpAddr::V4(self.cluster.nodes()[0].address);
        for peer in [&self.inside, &self.outside] {
            process::checked(self.sshd.login(peer, node).arg("true")).context("no login")?;
        }
        let outside = self.outside.addresses.v4.to_string();
        let inside = self.inside.addresses.v4.to_string();
        let record = self.record(0, &["findings", "--all"], "an unexpected SSH", |record| {
            record["finding"] == "ssh-unexpected" && record.to_string().contains(&outside)
        })?;
        say(&format!(
            "unexpected SSH from {outside}: {}",
            record["reason"]
        ));
        let findings = self.records(0, &["findings", "--all"])?;
        let wrong = findings.iter().find(|record| {
            record["finding"] == "ssh-unexpected" && record.to_string().contains(&inside)
        });
        ensure!(wrong.is_none(), "SSH from {inside} is expected: {wrong:#?}");
        Ok(())
    }

    /// `kubectl drain` and `uncordon` while clients run: the agent stays, its account is right, and the
    /// pods that come back are named by their new addresses.
    pub fn drain(&self) -> Result<()> {
        let before = self.agent(0)?;
        let node = self.cluster.nodes()[0].name.clone();
        let start = Instant::now();
        let printed = self.cluster.ask(&[
            "drain",
            &node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--timeout=60s",
        ])?;
        print!("{}", indented(&printed));
        let after = self.agent(0)?;
        ensure!(name(&before) == name(&after), "drain replaced the agent");
        self.never_restarted(&after)?;
        self.account()?;
        self.cluster.ask(&["uncordon", &node])?;
        // All but the intruder, which is gone by then.
        self.cluster
            .wait_pods("shop", "shop", shop::PODS - 1, ROLLOUT)?;
        say(&format!(
            "drained and uncordoned in {:.1} s; the agent stayed, and its account is right",
            start.elapsed().as_secs_f64()
        ));
        self.names()
    }

    /// Packets seen are packets counted and uncounted, on every node.
    pub fn account(&self) -> Result<()> {
        for (index, node) in self.cluster.nodes().iter().enumerate() {
            let metrics = self.cluster_metrics(index)?;
            let mut off: Vec<&str> = metrics
                .lines()
                .filter(|line| line.starts_with("nodewatch_accounting_difference_packets{"))
                .collect();
            // What is not told is not right.
            ensure!(!off.is_empty(), "{}: no account in {metrics}", node.name);
            off.retain(|line| !line.ends_with(" 0"));
            ensure!(off.is_empty(), "{}: {off:?}", node.name);
        }
        Ok(())
    }

    /// Deletes what was applied; nothing of the agent stays.
    pub fn remove(&self) -> Result<()> {
        let overlay = deploy::path("deploy/overlays/minimal");
        let overlay = overlay.display().to_string();
        self.cluster
            .ask(&["delete", "--ignore-not-found", "--wait", "-k", &overlay])?;
        for node in self.cluster.nodes() {
            wait::until("the agent to end", ROLLOUT, || {
                node.machine
                    .pids_of("nodewatch")
                    .ok()?
                    .is_empty()
                    .then_some(())
            })?;
        }
        Ok(())
    }

    fn cluster_metrics(&self, node: usize) -> Result<String> {
        // The component scrape: at the node's address.
        let address = self.cluster.nodes()[node].address;
        let address = SocketAddr::new(address.into(), crate::daemon::LISTEN.port());
        Ok(crate::daemon::http(&self.inside, address, "/metrics")?.body)
    }

    fn roll_out(&self) -> Result<()> {
        let mut command = self.cluster.kubectl(&[
            "rollout",
            "status",
            "ds/nodewatch",
            "-n",
            AGENT,
            "--timeout=90s",
        ]);
        process::checked_within(&mut command, ROLLOUT + Duration::from_secs(10))?;
        let nodes = self.cluster.nodes().len();
        self.cluster
            .wait_pods(AGENT, SELECTOR, nodes, ROLLOUT)
            .map(drop)
    }

    /// What the cluster and the agent say of their start.
    fn why_slow(&self) -> Result<String> {
        let events = ["get", "events", "-n", AGENT, "--sort-by=.lastTimestamp"];
        let log = ["logs", "-n", AGENT, "ds/nodewatch", "--timestamps"];
        Ok(self.cluster.ask(&events)? + &self.cluster.ask(&log)?)
    }

    /// The agent's container is the one that was started first.
    fn never_restarted(&self, agent: &Value) -> Result<()> {
        let status = agent.pointer("/status/containerStatuses/0");
        let status = status.context("no container")?;
        if status["restartCount"] == 0 {
            return Ok(());
        }
        let log = self
            .cluster
            .ask(&["logs", "-n", AGENT, name(agent), "--previous"]);
        bail!(
            "the agent restarted: {status:#}\n{}",
            log.unwrap_or_default()
        );
    }

    /// The pod of a workload of the shop.
    fn pod(&self, app: &str) -> Result<Value> {
        let selector = format!("app={app}");
        let pods = self.cluster.wait_pods("shop", &selector, 1, ROLLOUT)?;
        pods.into_iter().next().context("no pod")
    }

    /// The number of the node that a pod runs on.
    fn node_of(&self, pod: &Value) -> Result<usize> {
        let nodes = self.cluster.nodes().iter();
        let mut names = nodes.map(|node| pod["spec"]["nodeName"] == node.name);
        names
            .position(|is| is)
            .context("a node that is none of ours")
    }

    fn agent(&self, node: usize) -> Result<Value> {
        let node = &self.cluster.nodes()[node].name;
        self.cluster.pod_on(node, AGENT, SELECTOR)
    }

    /// Records that the agent of a node gives over `kubectl exec`.
    fn records(&self, node: usize, arguments: &[&str]) -> Result<Vec<Value>> {
        let agent = self.agent(node)?;
        let command = [&["nodewatch"], arguments, &["-o", "jsonl"]].concat();
        let text = self.cluster.exec(AGENT, name(&agent), &command)?;
        let parse = |line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
        text.lines().map(parse).collect()
    }

    /// A record, once there is one that is wanted.
    fn record(
        &self,
        node: usize,
        arguments: &[&str],
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Ok(Vec::new());
        let found = wait::until(what, TOLD, || {
            last = self.records(node, arguments);
            let records = last.as_ref().ok()?;
            records.iter().find(|record| wanted(record)).cloned()
        });
        found.with_context(|| match last {
            Ok(last) => {
                let lines = last.iter().rev().take(20).map(Value::to_string);
                let lines: Vec<String> = lines.collect();
                format!("the agent tells only of\n{}", lines.join("\n"))
            }
            Err(error) => format!("the agent tells nothing: {error:#}"),
        })
    }
}

/// Something that happens, and fails when it is not as it should be.
pub type Act = fn(&Story) -> Result<()>;

/// Prints a line of the story.
pub fn say(text: &str) {
    println!("==> {text}");
}

fn indented(text: &str) -> String {
    let lines: Vec<&str> = text.lines().flat_map(|line| ["    ", line, "\n"]).collect();
    lines.concat()
}

/// Whether an end of a flow is this pod.
fn is_end(end: &Value, pod: &Value) -> bool {
    end["pod"] == pod["metadata"]["name"] && end["namespace"] == pod["metadata"]["namespace"]
}

/// Both ends of a flow, for people.
fn ends(flow: &Value) -> String {
    let end = |end: &Value| {
        let name = end["pod"].as_str().or_else(|| end["name"].as_str());
        match (end["namespace"].as_str(), name) {
            (Some(namespace), Some(name)) => format!("{} {namespace}/{name}", end["kind"]),
            _ => end.to_string(),
        }
    };
    format!("{} -> {}", end(&flow["source"]), end(&flow["destination"]))
}
