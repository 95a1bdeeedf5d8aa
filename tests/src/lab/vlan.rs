//! A VLAN across the fabric, by the kernel's own VLAN devices.
//!
//! Where the kernel has none (it is a module that not every kernel is built with), tests send
//! tagged frames by a packet socket instead: see [`crate::traffic`].

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::{Addresses, Namespace, UPLINK, ula};

/// One VLAN interface on top of an interface.
#[derive(Debug)]
pub struct Vlan {
    /// The interface's name, such as `eth0.100`.
    pub interface: String,
    /// Its addresses.
    pub addresses: Addresses,
}

/// Adds VLAN `id` to a namespace's `eth0` with host number `host`: 172.16.`id`.`host`/24 and
/// `fd00:<id>::<host>`/64.
pub fn add(namespace: &Namespace, id: u8, host: u8) -> Result<Vlan> {
    let interface = format!("{UPLINK}.{id}");
    let addresses = Addresses {
        v4: Ipv4Addr::new(172, 16, id, host),
        v6: ula(0x1000 + u16::from(id), u16::from(host)),
    };
    let number = id.to_string();
    let link = [
        "link", "add", "link", UPLINK, "name", &interface, "type", "vlan", "id", &number,
    ];
    namespace
        .ip(&link)
        .context("this kernel may have no VLAN devices (8021q)")?;
    namespace.ip_batch(&format!(
        "addr add {}/24 dev {interface}\n\
         addr add {}/64 dev {interface} nodad\n\
         link set {interface} up\n",
        addresses.v4, addresses.v6
    ))?;
    Ok(Vlan {
        interface,
        addresses,
    })
}
