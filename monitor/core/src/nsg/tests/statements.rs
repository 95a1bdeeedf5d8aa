//! Statements of the documentation, one test each.

mod aks;
mod fields;
mod names;
mod order;
mod platform;
