//! nodewatch: node traffic and SSH access monitor. See ARCHITECTURE.md.

pub mod api;
pub mod azure;
pub mod cli;
pub mod config;
pub mod explain;
pub mod host;
pub mod kube;
pub mod runtime;
pub mod sink;
pub mod source;
mod stdin;
