//! Azure network security groups: what a node's rules say about a flow.
//!
//! - [`Nsg`], [`Rule`]: rules as Azure evaluates them, whatever document they came from.
//! - [`read`]: documents of every shape Azure's tools print, service tags, admin rules.
//! - [`Names`]: what tags and application security groups stand for.
//! - [`Chain`]: admin rules, the subnet's group and the network card's, compiled; judges a
//!   [`Tuple`].
//! - [`explain`]: the same judgement rule by rule, field by field.
//! - [`profile`]: what a platform needs from the rules.
//! - [`lint`]: rules that do nothing, or more than they should.
//!
//! The rules of evaluation, the sources they rest on and the tests that hold them are listed in
//! `docs/nsg.md`.
//!
//! What cannot be known is never taken for "no match": a rule with a tag or a group that nobody
//! has defined *may* match, and a verdict that would depend on it is [`Access::Indeterminate`].

mod address;
mod chain;
mod compiled;
mod defaults;
pub mod explain;
mod interval;
mod level;
pub mod lint;
mod matching;
mod memory;
mod model;
mod names;
mod platform;
mod possible;
pub mod profile;
pub mod read;
mod tuple;
mod verdict;
mod way;

#[cfg(test)]
mod tests;

pub use address::{Address, Ports};
pub use chain::{Chain, Levels};
pub use level::{Level, LevelKind};
pub use matching::{FieldMatch, Why};
pub use model::{Direction, Maker, Nsg, Origin, Rule, RuleAccess, RuleProtocol};
pub use names::{Names, NamesError};
pub use read::ReadError;
pub use tuple::Tuple;
pub use verdict::{Access, DecidedBy, Step, Verdict};
pub use way::{Standing, Unclear};
