//! nodewatch: node traffic and SSH access monitor. See ARCHITECTURE.md.

pub mod runtime;
pub mod source;
