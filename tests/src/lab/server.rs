//! Real servers, each with its own configuration in the lab's directory.

pub mod account;
pub mod dns;
pub mod iperf;
pub mod nginx;
pub mod prometheus;
pub mod sshd;

use std::time::Duration;

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(10);
