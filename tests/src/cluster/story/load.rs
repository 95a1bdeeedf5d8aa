//! The limits of the manifests, under load: the kubelet and the kernel hold the agent to them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::super::objects::name;
use super::{AGENT, Story, say};
use crate::lab::{client, wait};
use crate::openmetrics::Metrics;

/// Servers on the host inside, and connections to each from the node: more than a hundred thousand at once. (What is
/// sent to a busy node may be dropped before it gets there.)
const PORTS: std::ops::Range<u16> = 7100..7130;
const FLOWS: u32 = 3_400;
const LEAST: u64 = 100_000;
/// What `deploy/base/daemonset.yaml` allows, in bytes.
const LIMIT: u64 = 256 << 20;
/// How long until all of them are told.
const TOLD: Duration = Duration::from_secs(30);

// === impl Story ===

impl Story {
    /// A hundred thousand connections of the first node at once: its agent has them all and stays within the
    /// memory that its manifest allows.
    pub fn load(&self) -> Result<()> {
        let agent = self.agent(0)?;
        let node = self.cluster.namespace(0);
        let serve = |port| client::serve(&self.inside, "udp-serve", port);
        let _servers = PORTS.map(serve).collect::<Result<Vec<_>>>()?;
        let pid = match self.cluster.nodes()[0].machine.pids_of("nodewatch")?[..] {
            [pid] => pid,
            ref pids => bail!("nodewatch runs as {pids:?}"),
        };
        let start = Instant::now();
        let (count, flows) = ((FLOWS * 2).to_string(), FLOWS.to_string());
        let mut sent = 0;
        for port in PORTS {
            let to = SocketAddr::new(self.inside.addresses.v4.into(), port).to_string();
            let udp = ["udp", "--to", &to, "--count", &count, "--size", "40"];
            let report = client::send(node, &[&udp[..], &["--flows", &flows]].concat())?;
            ensure!(report.errors == 0, "{report:?}");
            sent += report.sent;
        }
        let took = start.elapsed();
        let told = || -> Result<u64> {
            let metrics = Metrics::parse(&self.cluster_metrics(0)?)?;
            Ok(metrics.count("nodewatch_flows_active", &[]))
        };
        let all = wait::until("a hundred thousand connections", TOLD, || {
            told().ok().filter(|active| *active >= LEAST)
        });
        let active = all.with_context(|| {
            let status = self.cluster.ask(&[
                "exec",
                "-n",
                AGENT,
                "ds/nodewatch",
                "--",
                "nodewatch",
                "status",
            ]);
            let (told, memory) = (told(), memory(pid));
            format!("{sent} sent in {took:?}; {told:?}; {memory:?}; {status:?}")
        })?;
        self.account()?;
        // Nothing stopped it: it is the process, and the container, that it was.
        self.never_restarted(&self.agent(0)?)?;
        ensure!(name(&self.agent(0)?) == name(&agent), "another agent");
        let (most, limit) = memory(pid)?;
        ensure!(limit == LIMIT, "the limit is {limit} bytes");
        ensure!(most < limit, "{most} of {limit} bytes");
        say(&format!(
            "{sent} packets of new connections within {:.1} s, {active} connections at once: the container was charged \
             {:.1} MiB at most, the kernel's tables included, of {:.0} MiB that it may have",
            took.as_secs_f64(),
            mebibytes(most),
            mebibytes(limit)
        ));
        Ok(())
    }
}

/// The most memory that a process's control group has had, and what it may have, in bytes.
fn memory(pid: u32) -> Result<(u64, u64)> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).context("the agent is gone")?;
    let of = |controller: &str| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is = controllers.split(',').any(|one| one == controller);
            is.then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let first = |folder: &Path| -> Result<(u64, u64)> {
        let names = [
            ("memory.max_usage_in_bytes", "memory.limit_in_bytes"),
            ("memory.peak", "memory.max"),
        ];
        let names = names.iter().find(|(most, _)| folder.join(most).is_file());
        let (most, limit) = names.with_context(|| format!("{}: no memory", folder.display()))?;
        let read = |name: &str| -> Result<u64> {
            let text = fs::read_to_string(folder.join(name))?;
            text.trim()
                .parse()
                .with_context(|| format!("{name}: {text}"))
        };
        Ok((read(most)?, read(limit)?))
    };
    match (of("memory"), of("")) {
        (Some(path), _) => first(&Path::new("/sys/fs/cgroup/memory").join(path)),
        (None, Some(path)) => first(&PathBuf::from("/sys/fs/cgroup").join(path)),
        (None, None) => bail!("the agent is in no group: {groups}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, one digit")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
