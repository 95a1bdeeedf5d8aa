//! A DNS server: dnsmasq where it is installed, else the lab's own responder.

use anyhow::{Context, Result};

use super::START;
use crate::lab::client::traffic;
use crate::lab::gate;
use crate::lab::namespace::{Namespace, Transport};
use crate::lab::process::Guard;

/// The domain it answers for, with everything below it.
pub const DOMAIN: &str = "lab.test";

/// A running DNS server on port 53.
#[derive(Debug)]
pub struct Dns {
    /// The process.
    pub guard: Guard,
}

impl Dns {
    /// Starts a server that answers 203.0.113.10 and `fd00:113::a` for [`DOMAIN`].
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let mut command = if let Some(dnsmasq) = gate::find_tool("dnsmasq") {
            let mut command = namespace.command(dnsmasq);
            command.args([
                "--keep-in-foreground",
                "--no-resolv",
                "--no-hosts",
                "--no-daemon",
            ]);
            command.args([
                "--conf-file=/dev/null",
                "--pid-file=",
                "--user=root",
                "--group=root",
            ]);
            command.args([
                format!("--address=/{DOMAIN}/203.0.113.10"),
                format!("--address=/{DOMAIN}/fd00:113::a"),
            ]);
            command
        } else {
            traffic(namespace, &["dns-serve", "--listen", "[::]:53"])?
        };
        let guard = namespace.spawn("dns", &mut command)?;
        namespace
            .wait_listening(Transport::Udp, 53, START)
            .with_context(|| format!("DNS server: {}", guard.log()))?;
        Ok(Self { guard })
    }
}
