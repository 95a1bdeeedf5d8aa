//! nodewatch: node traffic and SSH access monitor. See ARCHITECTURE.md.

pub mod source;
