//! What was declared, held against what was seen.

mod brute;
mod expect;

pub use brute::Thresholds;
pub use expect::Expectations;

pub(crate) use brute::{Attempt, Suspicion, Watch};
