//! Whether an answer of the size of USERAUTH_SUCCESS is one, where padding makes it as long as
//! SSH_MSG_UNIMPLEMENTED.
//!
//! That is so under AES, and wherever a server pads to 16 bytes. A client gets an UNIMPLEMENTED
//! (RFC 4253 section 11.4) for any message that the server does not know, without a key or a
//! password, as it gets failures, prompts, SERVICE_ACCEPT once more, and another key exchange. What
//! it cannot get is a message that only a client that is logged in receives, unasked: OpenSSH's
//! server sends `hostkeys-00@openssh.com` (OpenSSH PROTOCOL section 2.5), whose size follows from the
//! kinds of keys. What it can get in that size is told apart in [`super::reader`]. Without it the
//! outcome stays unknown.

use super::model::Model;

/// Payload of a `hostkeys-00@openssh.com` global request without its keys (RFC 4254 section 4).
const REQUEST: u32 = 1 + 4 + 23 + 1;
/// Length of a key's blob (RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8709 section 4).
const ED25519: u32 = 4 + 11 + 4 + 32;
const ECDSA: [u32; 3] = [ecdsa(32), ecdsa(48), ecdsa(66)];
const RSA: [u32; 3] = [rsa(2048), rsa(3072), rsa(4096)];
/// USERAUTH_PK_OK without algorithm and key (RFC 4252 section 7).
const PK_OK: u32 = 1 + 4 + 4;
/// Names of algorithms that a PK_OK repeats: `ssh-ed25519`, `ecdsa-sha2-nistp256`, `rsa-sha2-512`.
const NAMES: [u32; 3] = [11, 19, 12];
/// Payload of CHANNEL_OPEN_CONFIRMATION (RFC 4254 section 5.1), which may share a segment.
const CONFIRMATION: u32 = 1 + 4 * 4;

const fn ecdsa(coordinate: u32) -> u32 {
    4 + 19 + 4 + 8 + 4 + 1 + 2 * coordinate
}

const fn rsa(bits: u32) -> u32 {
    4 + 7 + 4 + 3 + 4 + 1 + bits / 8
}

/// Whether what the server sent may be its host keys, alone or with the confirmation of a channel,
/// and nothing that is sent before a login.
pub(super) fn is_host_keys(model: &Model, size: u32) -> bool {
    let confirmation = model.size(CONFIRMATION);
    [Some(size), size.checked_sub(confirmation)]
        .into_iter()
        .flatten()
        .any(|size| {
            !model.may_be_kexinit(size)
                && payloads().any(|payload| model.size(payload) == size)
                && !pk_oks().any(|payload| model.size(payload) == size)
        })
}

/// Payloads with at most one key of each kind, as servers are installed.
fn payloads() -> impl Iterator<Item = u32> {
    let optional = |blobs: [u32; 3]| std::iter::once(0).chain(blobs.map(|blob| blob + 4));
    let first = [0, ED25519 + 4].into_iter();
    let two = first.flat_map(move |first| optional(ECDSA).map(move |second| first + second));
    two.flat_map(move |two| optional(RSA).map(move |third| two + third))
        .filter(|keys| *keys > 0)
        .map(|keys| REQUEST + keys)
}

fn pk_oks() -> impl Iterator<Item = u32> {
    let [ed25519, ecdsa, rsa] = NAMES;
    std::iter::once(ed25519 + ED25519)
        .chain(ECDSA.map(|blob| ecdsa + blob))
        .chain(RSA.map(|blob| rsa + blob))
        .map(|key| PK_OK + key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_measured() {
        let none = Some(&b"none"[..]);
        let gcm = Model::new(b"aes128-gcm@openssh.com", None, none, "", 1_040).unwrap();
        // Ed25519, ECDSA of 256 bits and RSA of 3072: what Debian's installation makes.
        assert!(is_host_keys(&gcm, 628));
        // With the confirmation of a channel.
        assert!(is_host_keys(&gcm, 628 + 52));
        assert!(is_host_keys(&gcm, 116), "Ed25519 alone");
        // UNIMPLEMENTED, SERVICE_ACCEPT, a failure, a KEXINIT.
        for size in [36, 52, 84, 1_060] {
            assert!(!is_host_keys(&gcm, size), "{size}");
        }
        // Whoever knows a public key that is authorized gets it back.
        for payload in pk_oks() {
            assert!(!is_host_keys(&gcm, gcm.size(payload)), "{payload}");
        }
    }
}
