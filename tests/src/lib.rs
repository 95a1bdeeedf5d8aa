//! Network labs, real servers and a daemon under test.
//!
//! Everything here happens inside network namespaces that a [`lab::Lab`] made itself, under a
//! name prefix of its own. The machine's interfaces, sysctls and processes are never touched,
//! and a lab leaves nothing behind, also when the test that made it panics.

pub mod account;
pub mod bpf;
pub mod cluster;
pub mod daemon;
pub mod demo;
pub mod deploy;
pub mod foreign;
pub mod frames;
pub mod fuzz;
pub mod held;
pub mod lab;
pub mod large;
pub mod openmetrics;
pub mod traffic;
pub mod tshark;
