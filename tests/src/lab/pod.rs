//! A pod: a namespace with `eth0`, routed through a veth on the node.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use super::namespace::Namespace;
use super::{Addresses, Lab, NODE, process, ula};

/// The address that pods have as their gateway; every veth of the node answers for it.
const GATEWAY: &str = "169.254.1.1";

/// A pod; it is removed when this is dropped.
#[derive(Debug)]
pub struct Pod {
    /// Its addresses, on `eth0`.
    pub addresses: Addresses,
    /// The name of the node's side of its veth pair.
    pub host_interface: String,
    /// When its link was set up: just before the kernel was told to.
    pub up_at: Instant,
    namespace: Namespace,
    node: String,
}

impl Pod {
    pub(super) fn create(lab: &Lab, number: u16) -> Result<Self> {
        let name = format!("{}-pod{number}", lab.prefix());
        let namespace = Namespace::create(&name, lab.directory())?;
        let [high, low] = number.to_be_bytes();
        let v4 = Ipv4Addr::new(10, 244, high, low);
        let v6 = ula(0x244, number);
        let host_interface = format!("veth{number}");
        lab.node().ip_batch(&format!(
            "link add {host_interface} type veth peer name eth0 netns {name}\n\
             link set {host_interface} addrgenmode none\n"
        ))?;
        namespace.ip_batch(&format!(
            "link set eth0 up\n\
             addr add {v4}/32 dev eth0\n\
             addr add {v6}/128 dev eth0 nodad\n\
             route add {GATEWAY} dev eth0 scope link\n\
             route add default via {GATEWAY}\n\
             route add default via fe80::1 dev eth0\n"
        ))?;
        let up_at = Instant::now();
        lab.node().ip_batch(&format!(
            "link set {host_interface} up\n\
             addr add {GATEWAY}/32 dev {host_interface} scope link\n\
             addr add fe80::1/64 dev {host_interface} nodad\n\
             route add {v4} dev {host_interface} src {}\n\
             route add {v6} dev {host_interface} src {}\n",
            NODE.v4, NODE.v6
        ))?;
        Ok(Self {
            addresses: Addresses { v4, v6 },
            host_interface,
            up_at,
            namespace,
            node: lab.node().name().to_owned(),
        })
    }

    /// Deletes the pod's link first, as a CNI does, then the rest.
    pub fn remove(self) -> Result<()> {
        let link = &self.host_interface;
        process::checked(Command::new("ip").args(["-n", &self.node, "link", "delete", link]))?;
        Ok(())
    }
}

impl std::ops::Deref for Pod {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}
