//! Sessions from end to end.

mod arbitrary;
mod authentication;
mod capture;
pub(crate) mod fixture;
mod hostile;
mod identity;
mod property;
mod repeated;
mod window;

use fixture::{
    CHACHA, DROPBEAR, GCM, OPENSSH, Owned, Talk, kexinit, kexinit_payload, packet, session,
};

use super::*;

fn hints(session: &Session) -> Vec<Hint> {
    session.hints().collect()
}

/// Everything that is told.
fn told(session: &Session) -> impl PartialEq + std::fmt::Debug + use<> {
    (identity(session), session.authentication(true))
}

/// What is known but for authentication.
fn identity(session: &Session) -> impl PartialEq + std::fmt::Debug + use<> {
    let of = |side| {
        (
            session.banner(side).map(str::to_owned),
            session.hassh(side).map(str::to_owned),
        )
    };
    (
        session.class(),
        session.is_identified(),
        [Side::Client, Side::Server].map(of),
        session.cookies(),
        hints(session),
    )
}
