//! The API: a Unix socket on which the daemon answers the other commands.
//!
//! A client sends one line, a JSON object ([`Request`]); the daemon answers with lines, JSON
//! objects whose `type` tells what they are, and closes the connection at the end: records
//! (`flow`, …), `status`, `lost` (records that this client did not get) and `error`.

pub mod client;
mod listener;
mod pause;
mod server;
mod wire;

use ipnet::IpNet;
use monitor_core::{engine::Status, event::VERSION, filter::FlowFilter, time::Timestamp};
use serde::{Deserialize, Serialize};

use crate::explain::Asked;

pub use listener::{BindError, Listener};
pub use server::serve;
pub use wire::write_line;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Flows: active and recent ones, then, if asked for, those to come.
    Flows(List),
    /// SSH connections: open and recent ones, then, if asked for, those to come.
    Ssh(List),
    /// Findings: recent ones, then, if asked for, those to come.
    Findings(List),
    /// What is attached, counted, uncounted, lost.
    Status {},
    /// Which rules and policies decide a flow.
    Explain(Asked),
    /// Rules that do nothing, or more than was observed.
    Lint(Lint),
}

/// What to look at besides the daemon's rules and flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lint {
    /// Addresses of pods, where they are not of the virtual network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<IpNet>,
}

/// Which records a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Which.
    #[serde(default)]
    pub filter: FlowFilter,
    /// At most so many of those that there are; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
    /// Whether to go on with those to come.
    #[serde(default)]
    pub follow: bool,
}

/// What the daemon says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonInfo {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// What else is worth knowing: name to value.
    #[serde(flatten)]
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// The answer to [`Request::Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// [`VERSION`] of the record schema.
    pub version: u32,
    /// The daemon.
    pub daemon: DaemonInfo,
    /// Its engine.
    #[serde(flatten)]
    pub engine: Status,
}

/// What the daemon answers besides records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<StatusAnswer>),
    /// This client was too slow for some records.
    Lost {
        /// How many.
        records: u64,
    },
    /// The request cannot be answered.
    Error {
        /// Why.
        message: String,
    },
}

// === impl DaemonInfo ===

impl DaemonInfo {
    /// This process, started now.
    pub fn new(started: Timestamp) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started,
            details: serde_json::Map::new(),
        }
    }
}

// === impl StatusAnswer ===

impl StatusAnswer {
    /// The answer of a daemon whose engine is in this state.
    pub fn new(daemon: DaemonInfo, engine: Status) -> Self {
        Self {
            version: VERSION,
            daemon,
            engine,
        }
    }
}

#[cfg(test)]
mod tests;
