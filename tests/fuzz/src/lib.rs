//! Programs for libFuzzer, one for each target of [`tests::fuzz`]; built and run by `cargo xtask fuzz`.
//!
//! `regressions/TARGET` has inputs that once broke something; the test `fuzz` of the package `tests`
//! runs them.
