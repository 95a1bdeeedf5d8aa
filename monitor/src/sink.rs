//! Where what was observed goes: Prometheus.

pub mod http;
mod process;
mod prometheus;
