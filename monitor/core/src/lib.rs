//! The domain of nodewatch: flows, names, metrics and records.
//!
//! - [`engine`]: [`engine::Engine::step`] takes what was observed and returns what to do about it.
//! - [`flow`]: connections from cumulative kernel counters; outcome, initiator, expiry.
//! - [`entity`]: whose an address is.
//! - [`cluster`]: Kubernetes objects that name addresses and decide verdicts.
//! - [`netpol`]: network policies: model, verdicts, explanations.
//! - [`account`]: packets seen, counted and uncounted, and the check that nothing is missing.
//! - [`metric`]: names and labels of every metric, capped series, rows for a scrape.
//! - [`event`]: the public record schema.
//! - [`filter`]: which flows a user asks for.
//! - [`nsg`]: what the rules of network security groups say about a flow.
//! - [`ssh`]: SSH on the wire: who talks, and whether a login succeeded.
//! - [`time`]: wall-clock times and the kernel clocks they come from.
//!
//! Pure: inputs in, outputs out, time as an argument. Nothing here reads a clock, a file, a socket
//! or an environment variable, so that live monitoring, replay and tests drive the same code.

#![forbid(unsafe_code)]

pub mod account;
pub mod cluster;
pub mod engine;
pub mod entity;
pub mod event;
pub mod filter;
pub mod flow;
pub mod judge;
pub mod metric;
pub mod netpol;
pub mod nsg;
pub mod ssh;
pub mod time;

mod words;

#[cfg(test)]
mod fixture;
