//! Captured sessions of real programs; see `testdata/README.md`.

use super::*;

/// HASSHes as `tshark -T fields -e ssh.kex.hassh -e ssh.kex.hasshserver` tells them.
const CHACHA_CLIENT: &str = "4d40b0b5d009b4adebb1fa0f3fbee4ff";
const GCM_CLIENT: &str = "c598c2256d873c51a10d7c1abbc0a225";
const CTR_CLIENT: &str = "03d4f8cbf3ec6686eb580b46e5a87825";
const OPENSSH_SERVER: &str = "7341b12387e70e9b19f2ff90fbe57fd2";
const DROPBEAR_SERVER: &str = "e1a0b5f8d334ec70fe937b2d5ff8d0b6";
const ASYNCSSH_SERVER: &str = "efd7813a4bf95ea50ce34dc95be6e814";

fn read(text: &str) -> Vec<Owned> {
    let segment = |line: &str| {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let side = if next() == "C" {
            Side::Client
        } else {
            Side::Server
        };
        Owned {
            side,
            sequence: next().parse().unwrap(),
            length: next().parse().unwrap(),
            is_pushed: true,
            time_ns: next().parse().unwrap(),
            bytes: next()
                .as_bytes()
                .chunks(2)
                .map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap())
                .collect(),
        }
    };
    text.lines().map(segment).collect()
}

/// A login that its sizes alone do not prove.
const UNPROVEN: Authentication = Authentication::UNKNOWN;

macro_rules! check {
    ($file:literal, $client:expr, $server:expr, $outcome:expr, $attempts:expr) => {
        let expected = Authentication {
            outcome: $outcome,
            attempts: Some($attempts),
            failures: match $outcome {
                AuthOutcome::Failure => $attempts,
                _ => 0,
            },
            basis: Basis::Sizes,
        };
        check!($file, $client, $server, expected);
    };
    ($file:literal, $client:expr, $server:expr, $expected:expr) => {
        let segments = read(include_str!(concat!("../testdata/", $file, ".txt")));
        let session = session(&segments);
        assert_eq!(session.class(), Some(Class::Ssh), $file);
        assert_eq!(session.hassh(Side::Client), Some($client), $file);
        assert_eq!(session.hassh(Side::Server), Some($server), $file);
        assert_eq!(hints(&session), [], $file);
        assert_eq!(session.authentication(true), $expected, $file);
        let is_in = $file.ends_with("success");
        assert_eq!(session.may_be_in(), is_in, $file);
    };
}

#[test]
fn openssh() {
    use AuthOutcome::{Failure, None, Success};
    check!(
        "openssh-chacha-probe",
        CHACHA_CLIENT,
        OPENSSH_SERVER,
        None,
        0
    );
    check!(
        "openssh-chacha-three-failures",
        CHACHA_CLIENT,
        OPENSSH_SERVER,
        Failure,
        3
    );
    check!(
        "openssh-gcm-success",
        GCM_CLIENT,
        OPENSSH_SERVER,
        Success,
        1
    );
}

#[test]
fn dropbear() {
    check!(
        "dropbear-chacha-success",
        CHACHA_CLIENT,
        DROPBEAR_SERVER,
        UNPROVEN
    );
}

#[test]
fn asyncssh() {
    check!(
        "asyncssh-ctr-failure",
        CTR_CLIENT,
        ASYNCSSH_SERVER,
        AuthOutcome::Failure,
        1
    );
    check!(
        "asyncssh-gcm-success",
        GCM_CLIENT,
        ASYNCSSH_SERVER,
        UNPROVEN
    );
}
