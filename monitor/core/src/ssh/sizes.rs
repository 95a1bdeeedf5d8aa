//! Whether a login succeeded, from the sizes of the server's encrypted packets.
//!
//! Cipher and MAC are known from the KEXINITs, hence the size of every message whose payload is
//! known (RFC 4253 section 6): SERVICE_ACCEPT for `ssh-userauth`, after which each burst of the
//! server answers an attempt, and USERAUTH_SUCCESS, the shortest message there is. The burst that
//! begins with one of that size is the success, if nothing else can be so short; where padding
//! makes other messages as short, which anyone may call for, [more](proof) has to follow. Where the
//! rule is in doubt it says unknown.

mod judge;
mod model;
mod pending;
mod proof;
mod reader;

pub(super) use judge::{Client, Judgement, judge};
pub(super) use model::{Model, Records};
