//! What the agent may do: what its manifests give, nothing else, and none of it in vain.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{AGENT, ROLLOUT, SELECTOR, Story, say};
use crate::cluster::objects::name;
use crate::lab::wait;

/// The capabilities of the manifests, as in linux/capability.h.
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;
/// The same in the words of manifests.
const NAMES: [&str; 3] = ["BPF", "NET_ADMIN", "PERFMON"];
/// How the agent ends that may not do what it has to.
const REFUSED: i64 = 3;

// === impl Story ===

impl Story {
    /// The agent's processes have what the manifests give, and nothing else.
    pub fn privileges(&self) -> Result<()> {
        for node in self.cluster.nodes() {
            let pids = node.machine.pids_of("nodewatch")?;
            let [pid] = pids.as_slice() else {
                bail!(
                    "{} runs nodewatch {} times: {pids:?}",
                    node.name,
                    pids.len()
                );
            };
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.map(str::trim).unwrap_or_default().to_owned()
            };
            let bits = |name: &str| u64::from_str_radix(&field(name), 16);
            let bounding = bits("CapBnd:")?;
            ensure!(
                bounding == CAPABILITIES,
                "bounding set {bounding:x}, not {CAPABILITIES:x}"
            );
            let inherited = bits("CapInh:")? | bits("CapAmb:")?;
            ensure!(inherited & !CAPABILITIES == 0, "inherits {inherited:x}");
            let mut effective = Vec::new();
            for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
                let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
                let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
                let Some(line) = line else { continue };
                let bits = u64::from_str_radix(line.trim(), 16)?;
                ensure!(bits & !CAPABILITIES == 0, "a thread has {bits:x}");
                effective.push(format!("{bits:x}"));
            }
            effective.sort();
            effective.dedup();
            ensure!(field("NoNewPrivs:") == "1", "privileges may grow");
            ensure!(field("Seccomp:") == "2", "no seccomp filter");
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
            let read_only = mounts.lines().any(|line| {
                let mut fields = line.split(' ').skip(4);
                fields.next() == Some("/")
                    && fields
                        .next()
                        .is_some_and(|options| options.split(',').any(|o| o == "ro"))
            });
            ensure!(read_only, "the root file system can be written:\n{mounts}");
            say(&format!(
                "{}: process {pid} has NET_ADMIN, PERFMON and BPF in its bounding set and nothing else \
                 (threads: {}), no new privileges, seccomp filter, read-only root",
                node.name,
                effective.join(", ")
            ));
        }
        Ok(())
    }

    /// Without any one of the capabilities the agent ends at once and says which is missing.
    pub fn without_each_capability(&self) -> Result<()> {
        for missing in NAMES {
            let rest: Vec<&str> = NAMES.into_iter().filter(|name| *name != missing).collect();
            self.grant(&rest)?;
            let mut last = Value::Null;
            let what = format!("the agent to end without {missing}");
            let ended = wait::until(&what, ROLLOUT, || {
                last = self
                    .cluster
                    .get(&["pods", "-n", AGENT, "-l", SELECTOR])
                    .ok()?;
                let pods = last["items"].as_array()?.iter();
                let container = "/spec/containers/0/securityContext/capabilities/add";
                let mut with_rest = pods.filter(|pod| pod.pointer(container) == Some(&json!(rest)));
                with_rest.find_map(|pod| Some((name(pod).to_owned(), exit_code(pod)?)))
            });
            let (pod, code) = ended.with_context(|| format!("{last:#}"))?;
            ensure!(code == REFUSED, "without {missing} it ended with {code}");
            // Of this start, or of the one before: it is started again and again.
            let log = ["--previous=true", "--previous=false"]
                .map(|which| self.cluster.ask(&["logs", "-n", AGENT, &pod, which]));
            let says = log.iter().flatten().flat_map(|log| log.lines());
            let wanted = format!("CAP_{missing}");
            let says = says.into_iter().find(|line| line.contains(&wanted));
            let says = says.with_context(|| format!("it does not name {wanted}: {log:?}"))?;
            say(&format!("without {missing}: exit status {code}, {says}"));
        }
        self.grant(&NAMES)?;
        self.roll_out()
    }

    /// Gives the agent these capabilities instead.
    fn grant(&self, capabilities: &[&str]) -> Result<()> {
        let patch = json!([{
            "op": "replace",
            "path": "/spec/template/spec/containers/0/securityContext/capabilities/add",
            "value": capabilities,
        }]);
        let patch = patch.to_string();
        let arguments = [
            "patch",
            "ds/nodewatch",
            "-n",
            AGENT,
            "--type=json",
            "-p",
            &patch,
        ];
        self.cluster.ask(&arguments).map(drop)
    }
}

/// How a pod's container ended, if it did.
fn exit_code(pod: &Value) -> Option<i64> {
    let status = pod.pointer("/status/containerStatuses/0")?;
    let ends = [
        "/state/terminated/exitCode",
        "/lastState/terminated/exitCode",
    ];
    ends.iter().find_map(|end| status.pointer(end)?.as_i64())
}
