//! Where what was observed goes: Prometheus.

#[cfg(test)]
mod docs;
pub mod http;
mod process;
mod prometheus;
