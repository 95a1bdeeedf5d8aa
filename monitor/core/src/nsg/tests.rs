//! What the documentation says, as tests; and that compiled rules judge like linear ones.
//!
//! `docs/nsg.md` lists the statements with their sources and these tests.

pub(super) mod fixture;
mod hostile;
mod lint;
mod property;
mod scale;
mod shapes;
mod slips;
mod statements;
