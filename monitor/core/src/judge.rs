//! What was declared, held against what was seen.

mod brute;
mod expect;
mod nsg;

pub use brute::Thresholds;
pub use expect::Expectations;

pub(crate) use nsg::nsg_finding;

pub(crate) use brute::{Attempt, Suspicion, Watch};
