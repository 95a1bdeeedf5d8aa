//! iperf3's server.

use anyhow::{Context, Result};

use super::START;
use crate::lab::namespace::{Namespace, Transport};
use crate::lab::process::Guard;

/// A running iperf3 server.
#[derive(Debug)]
pub struct Iperf {
    /// The process.
    pub guard: Guard,
    /// Its port.
    pub port: u16,
}

impl Iperf {
    /// Starts iperf3 on a port of a namespace.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let mut command = namespace.command("iperf3");
        command.args(["--server", "--forceflush", "--port", &port.to_string()]);
        let guard = namespace.spawn("iperf3", &mut command)?;
        namespace
            .wait_listening(Transport::Tcp, port, START)
            .with_context(|| format!("iperf3: {}", guard.log()))?;
        Ok(Self { guard, port })
    }
}
