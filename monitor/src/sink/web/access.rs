//! Passwords and bearer tokens.
//!
//! A password is held against a bcrypt hash, which takes a tenth of a second of a processor by design.
//! So one is computed at a time, failures hold up the next, and what was right once is remembered by
//! its digest: a scraper costs one computation, a guesser no more than part of one processor.

use std::{
    collections::BTreeMap,
    str::FromStr as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bcrypt::HashParts;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Costs beyond take seconds of a processor for each password.
pub(super) const MOST_COST: u32 = 14;
/// Less is no bcrypt.
pub(super) const LEAST_COST: u32 = 4;
/// Shorter tokens are guessed.
pub(super) const SHORTEST_TOKEN: usize = 16;
/// Longer credentials are none.
const LONGEST: usize = 4096;
/// Right passwords that are remembered. Of more than one for a user all but one have the same first 72
/// bytes.
const MOST_KNOWN: usize = 256;
/// How long a wrong password holds up the next computation.
const PENALTY: Duration = Duration::from_millis(200);

/// Digest of a credential; compared in constant time.
type Sum = [u8; 32];

/// Who may read.
#[derive(Debug, Default)]
pub(in crate::sink) struct Access {
    /// Names to bcrypt hashes.
    users: BTreeMap<String, String>,
    /// Held against the password of a name that there is not, so that both take the same time.
    nobody: Option<String>,
    /// Digests of bearer tokens.
    tokens: Vec<Sum>,
    /// Digests of names and passwords that were right.
    known: Mutex<Vec<Sum>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Whether a request may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sink) enum Verdict {
    /// It may.
    Allowed,
    /// It has no credentials, or wrong ones.
    Denied,
}

// === impl Access ===

impl Access {
    /// Adds a user; the error says what is wrong with the hash.
    pub(super) fn add_user(&mut self, name: &str, hash: &str) -> Result<(), String> {
        if name.is_empty() || name.contains(':') {
            return Err("a name is not empty and has no `:`".to_owned());
        }
        let parts = HashParts::from_str(hash).map_err(|_| {
            "is no bcrypt hash; `htpasswd -nBC 10 USER` prints one after the name".to_owned()
        })?;
        let cost = parts.get_cost();
        if !(LEAST_COST..=MOST_COST).contains(&cost) {
            return Err(format!(
                "has cost {cost}, not one of {LEAST_COST} to {MOST_COST}: each password would be \
                 checked for {}",
                if cost < LEAST_COST {
                    "too short a time"
                } else {
                    "seconds"
                }
            ));
        }
        // The dearest, so that a name that there is not takes no less.
        let is_dearer = self
            .nobody
            .as_deref()
            .and_then(|nobody| HashParts::from_str(nobody).ok())
            .is_none_or(|nobody| nobody.get_cost() < cost);
        if is_dearer {
            self.nobody = Some(hash.to_owned());
        }
        self.users.insert(name.to_owned(), hash.to_owned());
        Ok(())
    }

    /// Adds a bearer token.
    pub(super) fn add_token(&mut self, token: &str) -> Result<(), String> {
        if token.len() < SHORTEST_TOKEN {
            return Err(format!(
                "the token has {} characters, at least {SHORTEST_TOKEN} are needed; `openssl rand \
                 -hex 32` prints one",
                token.len()
            ));
        }
        if token.len() > LONGEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "the token is not one line of at most {LONGEST} printable ASCII characters without \
                 blanks"
            ));
        }
        self.tokens.push(Sha256::digest(token).into());
        Ok(())
    }

    /// Adds a bearer token by its SHA-256 in 64 hexadecimal digits.
    pub(super) fn add_sum(&mut self, hex: &str) -> Result<(), String> {
        let sum = parse_sum(hex).ok_or_else(|| {
            "is no SHA-256 in 64 hexadecimal digits; `printf %s TOKEN | sha256sum` prints one"
                .to_owned()
        })?;
        self.tokens.push(sum);
        Ok(())
    }

    /// Whether there is anybody to be told from others.
    pub(in crate::sink) fn is_open(&self) -> bool {
        self.users.is_empty() && self.tokens.is_empty()
    }

    /// What a reader may show, for people.
    pub(super) fn words(&self) -> impl Iterator<Item = &'static str> {
        let basic = (!self.users.is_empty()).then_some("basic authentication");
        let bearer = (!self.tokens.is_empty()).then_some("bearer token");
        basic.into_iter().chain(bearer)
    }

    /// What a reader may show, as the header `WWW-Authenticate` tells it (RFC 9110, 11.6.1).
    pub(in crate::sink) fn challenges(&self) -> impl Iterator<Item = &'static str> {
        let basic = (!self.users.is_empty()).then_some("Basic realm=\"nodewatch\"");
        let bearer = (!self.tokens.is_empty()).then_some("Bearer realm=\"nodewatch\"");
        basic.into_iter().chain(bearer)
    }

    /// Judges the value of a request's header `Authorization`.
    pub(in crate::sink) async fn judge(&self, authorization: Option<&[u8]>) -> Verdict {
        if self.is_open() {
            return Verdict::Allowed;
        }
        let is_allowed = match authorization.and_then(split) {
            Some(("bearer", token)) => self.has_token(token),
            Some(("basic", encoded)) => match decode(encoded) {
                Some((name, password)) => self.has_password(&name, password).await,
                None => false,
            },
            _ => false,
        };
        if is_allowed {
            Verdict::Allowed
        } else {
            Verdict::Denied
        }
    }

    fn has_token(&self, token: &str) -> bool {
        let sum: Sum = Sha256::digest(token).into();
        contains(&self.tokens, &sum)
    }

    async fn has_password(&self, name: &str, password: Vec<u8>) -> bool {
        let Some(nobody) = &self.nobody else {
            return false;
        };
        let mut digest = Sha256::new();
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update(&password);
        let sum: Sum = digest.finalize().into();
        if self.is_known(&sum) {
            return true;
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        // Another request may have computed it meanwhile.
        if self.is_known(&sum) {
            return true;
        }
        let hash = self.users.get(name);
        let is_user = hash.is_some();
        let hash = hash.unwrap_or(nobody).clone();
        let checked = tokio::task::spawn_blocking(move || {
            bcrypt::verify(&password, &hash).is_ok_and(|is_right| is_right)
        });
        let is_right = checked.await.unwrap_or(false) && is_user;
        if is_right {
            let mut known = self.known();
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
            known.push(sum);
        } else {
            // The next waits, this one is told at once.
            tokio::spawn(async move {
                tokio::time::sleep(PENALTY).await;
                drop(turn);
            });
        }
        is_right
    }

    fn is_known(&self, sum: &Sum) -> bool {
        contains(&self.known(), sum)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<Sum>> {
        self.known
            .lock()
            .expect("no code panics while it holds this")
    }
}

/// Whether a list has a digest; takes the same time whichever it is.
fn contains(sums: &[Sum], wanted: &Sum) -> bool {
    sums.iter()
        .fold(subtle::Choice::from(0), |found, sum| {
            found | sum.ct_eq(wanted)
        })
        .into()
}

/// Scheme in lower case, and what follows.
fn split(authorization: &[u8]) -> Option<(&'static str, &str)> {
    if authorization.len() > LONGEST {
        return None;
    }
    let text = std::str::from_utf8(authorization).ok()?;
    let (scheme, rest) = text.trim().split_once(' ')?;
    let scheme = ["basic", "bearer"]
        .into_iter()
        .find(|known| scheme.eq_ignore_ascii_case(known))?;
    Some((scheme, rest.trim()))
}

/// Name and password (RFC 7617).
fn decode(encoded: &str) -> Option<(String, Vec<u8>)> {
    let bytes = STANDARD.decode(encoded).ok()?;
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(bytes[..colon].to_vec()).ok()?;
    // bcrypt takes a password to end at a zero, which none of a person has.
    let password = bytes[colon + 1..].to_vec();
    (!password.contains(&0)).then_some((name, password))
}

fn parse_sum(hex: &str) -> Option<Sum> {
    let mut sum = [0; 32];
    if hex.len() != 2 * sum.len() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in sum.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()?;
    }
    Some(sum)
}
