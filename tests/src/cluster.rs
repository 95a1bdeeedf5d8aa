//! A real Kubernetes cluster on this machine: nodes in network namespaces of a [`Lab`], the real programs.
//!
//! The first node is the lab's node and has the control plane, too; further ones are hosts of its virtual
//! network. Pods' networks are routed between them by the lab's fabric.
//!
//! | module | is |
//! |---|---|
//! | [`programs`] | where `cargo xtask kube` put the programs |
//! | [`machine`] | namespaces, mounts and control groups around one node |
//! | [`authority`] | keys and certificates |
//! | [`control`], [`worker`] | what runs on the nodes |
//! | [`image`] | container images without a registry |
//! | [`objects`] | what is asked of the API server, by kubectl |
//! | [`watch`] | a real Prometheus beside it, with our rules |
//! | [`story`] | the agent in it: what the demonstration shows and the test asserts |

mod authority;
mod control;
pub mod image;
pub mod machine;
pub mod objects;
pub mod programs;
pub mod story;
pub mod watch;
mod worker;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, NODE, Namespace, Peer, wait};
use authority::Authority;
use control::Control;
use image::Image;
use machine::Machine;
pub use worker::Network;
use worker::{PAUSE, Plan, Worker};

/// The image of workloads: busybox.
pub const BUSYBOX: &str = "docker.io/lab/busybox:1";

/// The programs that a cluster is made of.
pub const NEEDS: [&str; 12] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "bridge",
    "busybox",
];

/// How long a node may take to be Ready.
const READY: Duration = Duration::from_mins(1);

/// A running cluster. What is dropped first is first here.
#[derive(Debug)]
pub struct Cluster {
    control: Control,
    nodes: Vec<Node>,
    keys: Authority,
    programs: PathBuf,
    lab: Lab,
}

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    worker: Worker,
    /// What it runs on.
    pub machine: Machine,
    /// The network namespace of a node that is not the lab's own.
    peer: Option<Peer>,
}

// === impl Cluster ===

impl Cluster {
    /// Starts a cluster of one node and waits until that is Ready.
    pub fn start(name: &str, network: Network) -> Result<Self> {
        let programs = programs::directory();
        let lab = Lab::new(name)?;
        let keys = Authority::new(lab.directory().join("keys"))?;
        let machine = Machine::start(lab.node())?;
        let control = Control::start(&machine, &programs, &keys)?;
        let mut cluster = Self {
            control,
            nodes: Vec::new(),
            keys,
            programs,
            lab,
        };
        cluster.write_images()?;
        cluster.add(machine, NODE.v4, network, None)?;
        Ok(cluster)
    }

    /// Adds a node and waits until it is Ready.
    pub fn add_node(&mut self, network: Network) -> Result<()> {
        let peer = self.lab.add_inside()?;
        peer.sysctl("net.ipv4.ip_forward", "1")?;
        let address = peer.addresses.v4;
        let pods = pods(self.nodes.len());
        let route = format!("route add {pods} via {address}\n");
        self.lab.fabric().ip_batch(&route)?;
        let machine = Machine::start(&peer)?;
        self.add(machine, address, network, Some(peer))
    }

    /// The lab that it runs in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The nodes; the first has the control plane.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The network namespace of a node.
    pub fn namespace(&self, node: usize) -> &Namespace {
        match &self.nodes[node].peer {
            Some(peer) => peer,
            None => self.lab.node(),
        }
    }

    /// The administrator's kubeconfig; the server is reached from the lab's node only.
    pub fn kubeconfig(&self) -> &Path {
        &self.control.kubeconfig
    }

    /// Imports an image's archive on every node.
    pub fn import(&self, archive: &Path) -> Result<()> {
        for node in &self.nodes {
            node.worker.import(&node.machine, archive)?;
        }
        Ok(())
    }

    /// What of the cluster's own processes has ended, although nobody asked it to.
    pub fn ended(&mut self) -> Vec<String> {
        let nodes = self.nodes.iter_mut();
        let workers = nodes.filter_map(|node| node.worker.ended());
        self.control.ended().into_iter().chain(workers).collect()
    }

    fn add(
        &mut self,
        machine: Machine,
        address: Ipv4Addr,
        network: Network,
        peer: Option<Peer>,
    ) -> Result<()> {
        let name = format!("node-{}", self.nodes.len() + 1);
        let namespace = peer.as_deref().unwrap_or(self.lab.node());
        namespace.sysctl("net.bridge.bridge-nf-call-iptables", "1")?;
        let plan = Plan {
            name: &name,
            address,
            pods: &pods(self.nodes.len()),
            network,
            programs: &self.programs,
        };
        let mut worker = Worker::start(&machine, plan)?;
        for archive in self.images() {
            worker.import(&machine, &archive)?;
        }
        worker.join(&machine, &self.keys, plan)?;
        self.nodes.push(Node {
            name: name.clone(),
            address,
            worker,
            machine,
            peer,
        });
        let ready = wait::until(&format!("{name} to be Ready"), READY, || {
            self.is_ready("node", None, &name).then_some(())
        });
        ready.with_context(|| self.ended().join("\n"))
    }

    /// The images that every node has, as archives.
    fn images(&self) -> [PathBuf; 2] {
        ["pause", "busybox"].map(|name| {
            let folder = format!("image-{name}-1");
            self.lab.directory().join(folder).join("image.tar")
        })
    }

    fn write_images(&self) -> Result<()> {
        let busybox = self.programs.join("busybox");
        let mut files = vec![(busybox.clone(), "bin/busybox".to_owned())];
        Image {
            name: PAUSE,
            files: &files,
            entrypoint: &["/bin/busybox", "sleep", "2147483647"],
            arguments: &[],
        }
        .write(self.lab.directory())?;
        // Each command of busybox under its own name, which exec probes and people expect.
        for name in ["sh", "nc", "wget", "httpd", "sleep", "cat", "ls", "id"] {
            files.push((busybox.clone(), format!("bin/{name}")));
        }
        Image {
            name: BUSYBOX,
            files: &files,
            entrypoint: &[],
            arguments: &["/bin/sh"],
        }
        .write(self.lab.directory())?;
        Ok(())
    }
}

/// Where the pods of a node get their addresses from.
fn pods(index: usize) -> String {
    format!("10.244.{index}.0/24")
}
