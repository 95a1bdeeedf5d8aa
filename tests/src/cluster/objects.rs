//! What is asked of the API server, by kubectl, as an administrator does.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Cluster;
use crate::lab::{process, wait};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_mins(1);

// === impl Cluster ===

impl Cluster {
    /// A kubectl command that is not started.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab().node().command("kubectl");
        command.arg(format!("--kubeconfig={}", self.kubeconfig().display()));
        // What a command line has cached of other clusters is no help here.
        command.arg(format!(
            "--cache-dir={}",
            self.lab().directory().join("kubectl").display()
        ));
        command.args(arguments);
        command
    }

    /// Runs kubectl, which has to succeed, and returns what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        process::checked_within(&mut self.kubectl(arguments), PATIENCE)
    }

    /// Runs `kubectl get … -o json`.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.ask(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Applies objects, as YAML or JSON.
    pub fn apply(&self, name: &str, text: &str) -> Result<()> {
        let file = self.lab().directory().join(format!("{name}.yaml"));
        fs::write(&file, text).context("cannot write the manifest")?;
        let file = file.display().to_string();
        self.ask(&["apply", "--validate=false", "-f", &file])
            .map(drop)
    }

    /// Whether an object's condition `Ready` is true.
    pub fn is_ready(&self, kind: &str, namespace: Option<&str>, name: &str) -> bool {
        let mut arguments = vec![kind, name];
        arguments.extend(namespace.map(|_| "-n"));
        arguments.extend(namespace);
        self.get(&arguments).is_ok_and(|object| ready(&object))
    }

    /// Waits until all pods that a selector finds, and at least so many, are Ready; returns them.
    pub fn wait_pods(
        &self,
        namespace: &str,
        selector: &str,
        count: usize,
        within: Duration,
    ) -> Result<Vec<Value>> {
        let what = format!("{count} pods {selector} in {namespace} to be Ready");
        let mut last = Value::Null;
        let found = wait::until(&what, within, || {
            last = self.get(&["pods", "-n", namespace, "-l", selector]).ok()?;
            let pods = last["items"].as_array()?;
            (pods.len() >= count && pods.iter().all(ready)).then(|| pods.clone())
        });
        found.map_err(|error| {
            let events = self.ask(&["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"]);
            let states = last["items"].as_array().into_iter().flatten();
            let states: Vec<String> = states.map(|pod| pod["status"].to_string()).collect();
            error.context(format!(
                "pods: {}\nevents:\n{}",
                states.join("\n"),
                events.unwrap_or_else(|error| format!("{error:#}"))
            ))
        })
    }

    /// Runs a command in a pod's container and returns what it printed.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
        self.ask(&[&["exec", "-n", namespace, pod, "--"], command].concat())
    }

    /// The name of the only pod that a selector finds on a node.
    pub fn pod_on(&self, node: &str, namespace: &str, selector: &str) -> Result<Value> {
        let field = format!("spec.nodeName={node}");
        let list = self.get(&[
            "pods",
            "-n",
            namespace,
            "-l",
            selector,
            "--field-selector",
            &field,
        ])?;
        match list["items"].as_array().map(Vec::as_slice) {
            Some([pod]) => Ok(pod.clone()),
            other => bail!("{node} has {other:?} as {selector} in {namespace}"),
        }
    }
}

/// The name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether the condition `Ready` is true, and the object is not about to go.
fn ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    ready && object["metadata"]["deletionTimestamp"].is_null()
}
