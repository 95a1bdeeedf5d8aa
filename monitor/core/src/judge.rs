//! What was declared, held against what was seen.

mod brute;
mod expect;
mod nsg;
mod told;

pub use brute::Thresholds;
pub use expect::Expectations;

pub(crate) use nsg::nsg_finding;

pub(crate) use brute::{Attempt, Event, Suspicion, Watch, group};
pub(crate) use told::Told;
