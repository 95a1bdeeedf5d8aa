//! The control plane: etcd, the API server, the controllers, the scheduler, on the first machine.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::authority::Authority;
use super::machine::Machine;
use crate::lab::process::{self, Guard};
use crate::lab::{NODE, wait};

/// The port of the API server.
pub(super) const PORT: u16 = 6443;
/// What services get their addresses from.
const SERVICES: &str = "10.96.0.0/16";
/// The first of these is the API server's own service.
const API_SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
/// How long a start may take.
const START: Duration = Duration::from_secs(90);

/// The running control plane.
#[derive(Debug)]
pub(super) struct Control {
    /// Lets an administrator in.
    pub(super) kubeconfig: PathBuf,
    guards: Vec<Guard>,
}

// === impl Control ===

impl Control {
    /// Starts it and waits until the API server is ready.
    pub(super) fn start(machine: &Machine, programs: &Path, keys: &Authority) -> Result<Self> {
        let server = url();
        let kubeconfig = keys.kubeconfig("admin", "/O=system:masters/CN=admin", &server)?;
        let mut control = Self {
            kubeconfig,
            guards: Vec::new(),
        };
        let mut etcd = machine.command(programs.join("etcd"));
        etcd.arg("--data-dir").arg(machine.base().join("etcd"));
        etcd.args(["--listen-client-urls", "http://127.0.0.1:2379"]);
        etcd.args(["--advertise-client-urls", "http://127.0.0.1:2379"]);
        etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        control.guards.push(machine.spawn("etcd", &mut etcd)?);
        let signing = keys.signing_key()?;
        let mut api = api_server(machine, programs, keys)?;
        api.arg(flag("--service-account-key-file", &signing.certificate));
        api.arg(flag("--service-account-signing-key-file", &signing.key));
        control
            .guards
            .push(machine.spawn("kube-apiserver", &mut api)?);
        control.wait_ready(machine)?;

        let user = "/CN=system:kube-controller-manager";
        let config = keys.kubeconfig("controller-manager", user, &server)?;
        let mut manager = machine.command(programs.join("kube-controller-manager"));
        manager.args(["--port=0", "--leader-elect=false"]);
        manager.args(["--use-service-account-credentials", "--controllers=*"]);
        manager.arg(flag("--kubeconfig", &config));
        manager.arg(flag("--root-ca-file", &keys.certificate()));
        manager.arg(flag("--service-account-private-key-file", &signing.key));
        // A node that does not answer loses its pods as soon as in a test.
        manager.args(["--node-monitor-grace-period=20s"]);
        let guard = machine.spawn("kube-controller-manager", &mut manager)?;
        control.guards.push(guard);

        let user = "/CN=system:kube-scheduler";
        let config = keys.kubeconfig("scheduler", user, &server)?;
        let mut scheduler = machine.command(programs.join("kube-scheduler"));
        scheduler.args(["--port=0", "--leader-elect=false"]);
        scheduler.arg(flag("--kubeconfig", &config));
        let guard = machine.spawn("kube-scheduler", &mut scheduler)?;
        control.guards.push(guard);
        Ok(control)
    }

    /// The first of its processes that has ended, with the end of its log.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.guards.iter_mut().find_map(ended)
    }

    fn wait_ready(&mut self, machine: &Machine) -> Result<()> {
        let kubeconfig = self.kubeconfig.clone();
        let ready = wait::until("the API server to be ready", START, || {
            if let Some(ended) = self.ended() {
                return Some(Err(ended));
            }
            let mut ask = machine.command("kubectl");
            ask.arg(flag("--kubeconfig", &kubeconfig));
            ask.args(["get", "--raw", "/readyz"]);
            let answer = process::output(&mut ask, process::PATIENCE).ok()?;
            (answer.status.success() && answer.stdout == b"ok").then_some(Ok(()))
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ended)) => bail!("{ended}"),
            Err(error) => {
                let log = self.guards.last().map(Guard::log).unwrap_or_default();
                Err(error).with_context(|| format!("log:\n{log}"))
            }
        }
    }
}

/// Where clients find the API server.
pub(super) fn url() -> String {
    format!("https://{}:{PORT}", NODE.v4)
}

/// `--name=path`.
pub(super) fn flag(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// What to say of a process that should run and does not.
pub(super) fn ended(guard: &mut Guard) -> Option<String> {
    if guard.is_running() {
        return None;
    }
    let log = guard.log();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(15)..].join("\n");
    Some(format!(
        "{} ended; its log ends with:\n{tail}",
        guard.label()
    ))
}

fn api_server(machine: &Machine, programs: &Path, keys: &Authority) -> Result<Command> {
    let addresses = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        NODE.v4.into(),
        API_SERVICE,
    ];
    let server = keys.server("kube-apiserver", &addresses)?;
    let kubelet = keys.client("apiserver-kubelet", "/O=system:masters/CN=apiserver")?;
    let mut api = machine.command(programs.join("kube-apiserver"));
    api.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
    ]);
    api.arg(format!("--secure-port={PORT}"));
    api.arg(format!("--advertise-address={}", NODE.v4));
    api.arg(format!("--service-cluster-ip-range={SERVICES}"));
    api.arg(flag("--client-ca-file", &keys.certificate()));
    api.arg(flag("--tls-cert-file", &server.certificate));
    api.arg(flag("--tls-private-key-file", &server.key));
    api.arg(flag("--kubelet-client-certificate", &kubelet.certificate));
    api.arg(flag("--kubelet-client-key", &kubelet.key));
    // Nodes' names are in no DNS.
    api.arg("--kubelet-preferred-address-types=InternalIP");
    api.args(["--authorization-mode=Node,RBAC", "--anonymous-auth=false"]);
    api.args([
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]);
    api.args(["--service-account-issuer=https://kubernetes.default.svc"]);
    api.arg(flag("--cert-dir", &machine.base().join("apiserver")));
    Ok(api)
}
