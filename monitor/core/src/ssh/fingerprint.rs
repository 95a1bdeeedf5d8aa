//! Programs by what they offer, to be held against what their banners say.

use super::Side;

/// HASSHes of libraries as they come, by side: measured with the programs themselves.
const KNOWN: &[(Side, &str, &str)] = &[
    (Side::Client, "57e4cc8ee36c3d78f75c6a05acd55963", "libssh2"),
    (Side::Client, "742b4fd5532ca4f243aae081017fe8c5", "libssh"),
    (Side::Client, "55a77ae9728654f1d4240a29287dc296", "ncrack"),
    (Side::Client, "eeca2460550b9ded084ecf2f70a75356", "openssh"),
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
