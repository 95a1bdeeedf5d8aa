//! What makes a machine a node: containerd with CNI, kubelet, kube-proxy.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::authority::Authority;
use super::control::{self, ended, flag};
use super::machine::Machine;
use crate::lab::process::{self, Guard};
use crate::lab::{POD_NETWORK, wait};

/// The image that holds a pod's namespaces.
pub(super) const PAUSE: &str = "docker.io/lab/pause:1";
/// How long a start may take.
const START: Duration = Duration::from_mins(1);

/// How a node connects its pods.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Network {
    /// A bridge with a port for each pod, as kubenet.
    Bridge,
    /// A route and a pair of interfaces for each pod, as most clouds' networks.
    Routed,
}

/// What a node is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    /// The node's name.
    pub(super) name: &'a str,
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// Where its pods' addresses come from.
    pub(super) pods: &'a str,
    pub(super) network: Network,
    pub(super) programs: &'a Path,
}

/// The running services of a node.
#[derive(Debug)]
pub(super) struct Worker {
    guards: Vec<Guard>,
    ctr: PathBuf,
    socket: PathBuf,
}

// === impl Worker ===

impl Worker {
    /// Starts containerd and waits until it answers.
    pub(super) fn start(machine: &Machine, plan: Plan) -> Result<Self> {
        let base = machine.base();
        machine.write("cni/10-pods.conflist", &network(machine, plan).to_string())?;
        let config = machine.write("containerd.toml", &containerd(machine, plan.programs))?;
        let socket = base.join("containerd/containerd.sock");
        let mut command = machine.command(plan.programs.join("containerd"));
        command
            .arg("--config")
            .arg(config)
            .env("PATH", path(plan.programs)?);
        let guard = machine.spawn("containerd", &mut command)?;
        let mut worker = Self {
            guards: vec![guard],
            ctr: plan.programs.join("ctr"),
            socket,
        };
        wait::until("containerd to answer", START, || {
            let mut command = worker.ctr(machine);
            let answer = process::output(command.arg("version"), process::PATIENCE);
            let yes = answer.is_ok_and(|answer| answer.status.success());
            (yes || worker.ended().is_some()).then_some(())
        })?;
        match worker.ended() {
            Some(ended) => bail!("{ended}"),
            None => Ok(worker),
        }
    }

    /// Imports an image's archive.
    pub(super) fn import(&self, machine: &Machine, archive: &Path) -> Result<()> {
        let mut command = self.ctr(machine);
        command.args(["images", "import"]).arg(archive);
        process::checked(&mut command).map(drop)
    }

    /// Starts kubelet and kube-proxy; the node appears in the cluster by itself.
    pub(super) fn join(&mut self, machine: &Machine, keys: &Authority, plan: Plan) -> Result<()> {
        let server = control::url();
        let name = plan.name;
        let user = format!("/O=system:nodes/CN=system:node:{name}");
        let kubeconfig = keys.kubeconfig(name, &user, &server)?;
        let config = kubelet(machine, keys).to_string();
        let config = machine.write("kubelet.json", &config)?;
        let mut command = machine.command(plan.programs.join("kubelet"));
        command.arg(flag("--config", &config));
        command.arg(flag("--kubeconfig", &kubeconfig));
        command.arg(flag("--root-dir", &machine.base().join("kubelet")));
        command.arg(flag("--cert-dir", &machine.base().join("kubelet-keys")));
        command.args(["--container-runtime=remote", "--container-runtime-endpoint"]);
        command.arg(format!("unix://{}", self.socket.display()));
        command.arg(format!("--hostname-override={name}"));
        command.arg(format!("--node-ip={}", plan.address));
        command.env("PATH", path(plan.programs)?);
        self.guards.push(machine.spawn("kubelet", &mut command)?);

        let user = "/CN=system:kube-proxy";
        let kubeconfig = keys.kubeconfig(&format!("{name}-proxy"), user, &server)?;
        let mut command = machine.command(plan.programs.join("kube-proxy"));
        command.arg(flag("--kubeconfig", &kubeconfig));
        command.arg(format!("--cluster-cidr={POD_NETWORK}"));
        command.arg(format!("--hostname-override={name}"));
        command.args(["--proxy-mode=iptables", "--oom-score-adj=0"]);
        // Limits of the whole machine stay as they are.
        command.args(["--conntrack-max-per-core=0", "--conntrack-min=0"]);
        command.args(["--conntrack-tcp-timeout-established=0s"]);
        command.args(["--conntrack-tcp-timeout-close-wait=0s"]);
        self.guards.push(machine.spawn("kube-proxy", &mut command)?);
        Ok(())
    }

    /// The first of its processes that has ended, with the end of its log.
    pub(super) fn ended(&mut self) -> Option<String> {
        self.guards.iter_mut().find_map(ended)
    }

    /// containerd's own client, for the images and containers that kubelet uses.
    pub(super) fn ctr(&self, machine: &Machine) -> Command {
        let mut command = machine.command(&self.ctr);
        command.arg("--address").arg(&self.socket);
        command.args(["--namespace", "k8s.io"]);
        command
    }
}

/// Our programs before the machine's own.
fn path(programs: &Path) -> Result<std::ffi::OsString> {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let all = std::iter::once(programs.to_path_buf())
        .chain(std::env::split_paths(&own))
        .chain(system);
    std::env::join_paths(all).context("the path of the programs has a colon")
}

fn containerd(machine: &Machine, programs: &Path) -> String {
    let base = machine.base().display();
    let programs = programs.display();
    let mut text = format!(
        "version = 2\nroot = '{base}/containerd/root'\nstate = '{base}/containerd/state'\n\
         disabled_plugins = ['io.containerd.internal.v1.opt']\n\
         [grpc]\naddress = '{base}/containerd/containerd.sock'\n"
    );
    let cri = "plugins.'io.containerd.grpc.v1.cri'";
    // Lab machines may have no CAP_SYS_RESOURCE, which lowering a score takes, and no AppArmor.
    let _ = write!(
        text,
        "[{cri}]\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
         sandbox_image = '{PAUSE}'\nstream_server_address = '127.0.0.1'\n\
         [{cri}.cni]\nbin_dir = '{programs}'\nconf_dir = '{base}/cni'\n\
         [{cri}.containerd]\nsnapshotter = 'overlayfs'\n\
         [{cri}.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
         [{cri}.containerd.runtimes.runc.options]\nBinaryName = '{programs}/runc'\n"
    );
    text
}

fn network(machine: &Machine, plan: Plan) -> serde_json::Value {
    let ipam = serde_json::json!({
        "type": "host-local",
        "dataDir": machine.base().join("addresses"),
        "ranges": [[{"subnet": plan.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let plugin = match plan.network {
        Network::Bridge => serde_json::json!({
            "type": "bridge", "bridge": "cbr0", "isGateway": true, "ipMasq": false,
            "hairpinMode": true, "ipam": ipam,
        }),
        Network::Routed => serde_json::json!({"type": "ptp", "ipMasq": false, "ipam": ipam}),
    };
    serde_json::json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]})
}

fn kubelet(machine: &Machine, keys: &Authority) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": keys.certificate()},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", machine.name()),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": ["pods"],
        "evictionHard": {"memory.available": "10Mi"},
        "imageGCHighThresholdPercent": 100,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "resolvConf": "",
        "clusterDomain": "cluster.local",
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "2s",
        "volumePluginDir": machine.base().join("volume-plugins"),
    })
}
