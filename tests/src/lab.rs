//! A small network in namespaces: a node with pods, its virtual network, and the world outside.
//!
//! ```text
//!   pod 1 eth0 ─ veth1 ┐                       ┌ br0  10.224.0.1  ─ inside peer 10.224.0.9
//!   pod 2 eth0 ─ veth2 ┼ node ─ eth0 ═ uplink ─┤ fabric (routes)
//!   pod 3 eth0 ─ veth3 ┘  10.224.0.4           └ br1  203.0.113.1 ─ outside peers 203.0.113.10 …
//! ```
//!
//! The fabric silently drops what goes to 198.51.100.0/24 and `fd00:51::/64`.
//!
//! Pods are routed: the node has one host route per pod and version, as most cloud CNIs do. There
//! is no address translation unless [`Lab::masquerade`] asks for the one of an overlay network.

pub mod api_server;
pub mod capture;
pub mod cgroup;
pub mod client;
pub mod gate;
pub mod hierarchy;
pub mod interrupt;
pub mod namespace;
pub mod pod;
pub mod process;
pub mod server;
pub mod sweep;
pub mod vlan;
pub mod wait;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

pub use gate::{Permit, require, require_with};
pub use namespace::{Counters, Namespace, Transport};
pub use pod::Pod;
pub use process::Guard;

/// The node's addresses at its uplink.
pub const NODE: Addresses = Addresses {
    v4: Ipv4Addr::new(10, 224, 0, 4),
    v6: ula(0x224, 4),
};

/// The network that pod addresses come from.
pub const POD_NETWORK: &str = "10.244.0.0/16";

/// The virtual network that the node's uplink is in.
pub const VIRTUAL_NETWORK: &str = "10.224.0.0/16";

/// The node's uplink interface.
pub const UPLINK: &str = "eth0";

/// An IPv4 and an IPv6 address of one end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// A network; everything in it is gone when this is dropped.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    pods: AtomicU16,
    outside: AtomicU16,
    inside: AtomicU16,
    node: Namespace,
    fabric: Namespace,
    directory: tempfile::TempDir,
}

/// A host that is no part of the node: inside the virtual network or outside.
#[derive(Debug)]
pub struct Peer {
    /// Its addresses, on `eth0`.
    pub addresses: Addresses,
    namespace: Namespace,
}

// === impl Lab ===

impl Lab {
    /// Builds the node, its uplink and the fabric. `name` shows in the names of what is made.
    pub fn new(name: &str) -> Result<Self> {
        sweep::stale();
        let prefix = sweep::new_prefix();
        let directory = tempfile::Builder::new()
            .prefix(&format!("{prefix}-{name}-"))
            .tempdir()
            .context("cannot make the lab's directory")?;
        let fabric = Namespace::create(&format!("{prefix}-fabric"), directory.path())?;
        let node = Namespace::create(&format!("{prefix}-node"), directory.path())?;
        for namespace in [&fabric, &node] {
            namespace.sysctl("net.ipv4.ip_forward", "1")?;
            namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        }
        bridges_without_filters(&fabric);
        fabric.ip_batch(
            "link add br0 type bridge forward_delay 0 mcast_snooping 0\n\
             link add br1 type bridge forward_delay 0 mcast_snooping 0\n\
             addr add 10.224.0.1/16 dev br0\n\
             addr add fd00:224::1/64 dev br0 nodad\n\
             addr add 203.0.113.1/24 dev br1\n\
             addr add fd00:113::1/64 dev br1 nodad\n\
             link set br0 up\n\
             link set br1 up\n",
        )?;
        let lab = Self {
            prefix,
            pods: AtomicU16::new(0),
            outside: AtomicU16::new(0),
            inside: AtomicU16::new(0),
            node,
            fabric,
            directory,
        };
        lab.plug(&lab.node, "node", "br0", NODE, 16)?;
        lab.fabric.ip_batch(
            "route add 10.244.0.0/16 via 10.224.0.4\n\
             route add fd00:244::/64 via fd00:224::4\n\
             route add blackhole 198.51.100.0/24\n\
             route add blackhole fd00:51::/64\n",
        )?;
        Ok(lab)
    }

    /// What every name of this lab starts with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A directory that goes with the lab.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The node: uplink `eth0`, one `veth…` per pod.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The network between the node and its peers.
    pub fn fabric(&self) -> &Namespace {
        &self.fabric
    }

    /// Adds a pod, as a CNI would, and waits until its link passes packets.
    pub fn add_pod(&self) -> Result<Pod> {
        let pod = self.start_pod()?;
        pod.wait_up(UPLINK)?;
        self.node.wait_up(&pod.host_interface)?;
        Ok(pod)
    }

    /// Adds a pod and does not wait for its link.
    pub fn start_pod(&self) -> Result<Pod> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed) + 1;
        Pod::create(self, number)
    }

    /// Adds a host beyond the virtual network: 203.0.113.10, .11, …
    pub fn add_outside(&self) -> Result<Peer> {
        let number = self.outside.fetch_add(1, Ordering::Relaxed) + 10;
        let host = u8::try_from(number).context("too many outside peers")?;
        let v4 = Ipv4Addr::new(203, 0, 113, host);
        let addresses = Addresses {
            v4,
            v6: ula(0x113, number),
        };
        self.add_peer(&format!("out{number}"), "br1", addresses, 24)
    }

    /// Adds a host in the node's virtual network: 10.224.0.9, .10, …
    pub fn add_inside(&self) -> Result<Peer> {
        let number = self.inside.fetch_add(1, Ordering::Relaxed) + 9;
        let host = u8::try_from(number).context("too many inside peers")?;
        let v4 = Ipv4Addr::new(10, 224, 0, host);
        let addresses = Addresses {
            v4,
            v6: ula(0x224, number),
        };
        self.add_peer(&format!("in{number}"), "br0", addresses, 16)
    }

    /// Makes pods leave the virtual network with the node's address, as in an overlay network.
    pub fn masquerade(&self) -> Result<()> {
        let rules = format!(
            "add table ip lab; \
             add chain ip lab post {{ type nat hook postrouting priority 100; }}; \
             add rule ip lab post ip saddr {POD_NETWORK} \
             ip daddr != {{ {POD_NETWORK}, {VIRTUAL_NETWORK} }} oifname {UPLINK} masquerade"
        );
        process::checked(self.node.command("nft").arg(rules)).map(drop)
    }

    /// Waits until none of the node's interfaces has moved a packet for a while, and returns their
    /// counters by name.
    pub fn quiet(&self, interfaces: &[&str]) -> Result<Vec<Counters>> {
        let (calm, within) = (Duration::from_millis(600), Duration::from_secs(20));
        wait::until_stable("the node's traffic", calm, within, || {
            interfaces
                .iter()
                .map(|interface| self.node.stats(interface))
                .collect()
        })
    }

    fn add_peer(&self, name: &str, bridge: &str, addresses: Addresses, prefix: u8) -> Result<Peer> {
        let name_in_full = format!("{}-{name}", self.prefix);
        let namespace = Namespace::create(&name_in_full, self.directory())?;
        self.plug(&namespace, name, bridge, addresses, prefix)?;
        Ok(Peer {
            addresses,
            namespace,
        })
    }

    /// Gives a namespace an `eth0` on one of the fabric's bridges, and a default route by it.
    fn plug(
        &self,
        namespace: &Namespace,
        name: &str,
        bridge: &str,
        Addresses { v4, v6 }: Addresses,
        prefix: u8,
    ) -> Result<()> {
        let port = format!("port-{name}");
        self.fabric.ip_batch(&format!(
            "link add {port} type veth peer name eth0 netns {}\n\
             link set {port} master {bridge}\n\
             link set {port} up\n",
            namespace.name()
        ))?;
        let (gateway, gateway6) = match bridge {
            "br0" => ("10.224.0.1", "fd00:224::1"),
            _ => ("203.0.113.1", "fd00:113::1"),
        };
        namespace.ip_batch(&format!(
            "addr add {v4}/{prefix} dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via {gateway}\n\
             route add default via {gateway6}\n"
        ))?;
        self.fabric.wait_up(&port)?;
        namespace.wait_up(UPLINK)
    }
}

// === impl Peer ===

impl std::ops::Deref for Peer {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// A unique local address: `fd00:<network>::<host>`.
const fn ula(network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, network, 0, 0, 0, 0, 0, host)
}

/// Bridged packets shall not pass the fabric's netfilter hooks (absent where there is no module).
fn bridges_without_filters(fabric: &Namespace) {
    for table in ["iptables", "ip6tables", "arptables"] {
        let _ = fabric.sysctl(&format!("net.bridge.bridge-nf-call-{table}"), "0");
    }
}
