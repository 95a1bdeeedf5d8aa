//! Programs by what they offer, to be held against what their banners say.

use super::Side;

/// HASSHes of programs as they come, by side: measured with the programs themselves.
const KNOWN: &[(Side, &str, &str)] = &[
    (Side::Client, "57e4cc8ee36c3d78f75c6a05acd55963", "libssh2"),
    // curl with libssh2 1.10.0.
    (Side::Client, "b4b8ae3d7241d2c1dc54b4df7e8c19d1", "libssh2"),
    (Side::Client, "742b4fd5532ca4f243aae081017fe8c5", "libssh"),
    (Side::Client, "55a77ae9728654f1d4240a29287dc296", "ncrack"),
    (Side::Client, "eeca2460550b9ded084ecf2f70a75356", "openssh"),
    // Paramiko 5.1.0.
    (Side::Client, "4c94058d5e9e31659879f79fd5b46084", "paramiko"),
    (Side::Server, "8ab61c0e42b2572fb6e55fc05f63ff41", "paramiko"),
    // AsyncSSH 2.24.1.
    (Side::Client, "c70169683f416ecb6afc5aed972ec23c", "asyncssh"),
    (Side::Server, "efd7813a4bf95ea50ce34dc95be6e814", "asyncssh"),
    // Dropbear 2022.83.
    (Side::Client, "16574631849ea8d13c926c9905839928", "dropbear"),
    (Side::Server, "e1a0b5f8d334ec70fe937b2d5ff8d0b6", "dropbear"),
];

/// Words by which banners name programs, the longer before what they begin with.
const NAMES: &[&str] = &[
    "libssh2", "libssh", "paramiko", "asyncssh", "dropbear", "openssh", "putty", "ncrack", "go",
];

/// Whether `hassh` is that of a program and `banner` names another one. A banner that names none of
/// those known here says nothing.
pub(super) fn is_mismatch(side: Side, banner: &str, hassh: &str) -> bool {
    let Some((_, _, program)) = KNOWN
        .iter()
        .find(|known| known.0 == side && known.1 == hassh)
    else {
        return false;
    };
    named(banner).is_some_and(|name| name != *program)
}

/// The program that a banner names in the words after its version.
fn named(banner: &str) -> Option<&'static str> {
    let software = banner.splitn(3, '-').nth(2)?.to_ascii_lowercase();
    let is_named = |name: &&&str| {
        software
            .strip_prefix(**name)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
    };
    NAMES.iter().find(is_named).copied()
}
