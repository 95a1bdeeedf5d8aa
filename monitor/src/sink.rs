//! Where what was observed goes: Prometheus, the event log.

#[cfg(test)]
mod docs;
pub mod events;
pub mod http;
mod process;
mod prometheus;
pub mod web;
