//! Configuration files.

use std::path::Path;

use monitor::{
    config::{Config, Settings},
    sink::web::Web,
};

use super::check_message;
use crate::deploy;

pub(super) const WORDS: &[&[u8]] = &[
    b"= ",
    b"[timeouts]\n",
    b"[ssh]\n",
    b"[[x]]\n",
    b"\"\"\"",
    b"1h30m",
    b"99999999999999999999s",
    b"10.0.0.0/33",
    b"tls_server_config:\n",
    b"basic_auth_users: {",
    b"bearer_token_sha256: [",
    b"cert: |\n  -----BEGIN CERTIFICATE-----\n",
    b"&a ",
    b"*a",
    b"'''",
    "\u{202e}".as_bytes(),
];

pub(super) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Settings::parse(&text) {
        Ok(settings) => {
            if let Err(error) = Config::new(Settings::default(), Some(settings)) {
                check_message(&error.to_string());
            }
        }
        Err((line, message)) => {
            check_message(&message);
            assert!(
                (1..=text.lines().count() + 1).contains(&line),
                "line {line}"
            );
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let files = [
        "deploy/base/config/nodewatch.toml",
        "deploy/overlays/aks/nodewatch.toml",
    ];
    let mut seeds: Vec<_> = files
        .iter()
        .map(|file| deploy::read(file).expect("a configuration").into_bytes())
        .collect();
    seeds.push(
        b"uplink = [\"eth0\"]\nlisten = \"none\"\nmax_flows4 = 1024\nattach = \"clsact\"\nrange = [\n\"a=10.0.0.0/8\",\n]\n\
          labels = \"workload\"\n[timeouts]\ntcp_closed = \"10s\"\n[ssh]\nwindow = \"5m\"\nscan_targets = 7\n"
            .to_vec(),
    );
    seeds
}

pub(super) fn run_web(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Devices may be named, and are read: some never end, some wait.
    if text.contains("/dev") || text.contains("/proc") {
        return;
    }
    match Web::parse(Path::new("/nowhere/web.yml"), &text) {
        Ok(web) => check_message(&web.words()),
        Err(error) => check_message(&error.to_string()),
    }
}

pub(super) fn web_seeds() -> Vec<Vec<u8>> {
    let hash = "$2y$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu";
    let sum = "4bf0b9dde8b0cbf1a7a9ae0e4d9fc42ac2cbd6c3c9b3ab4f8ab2d7f5d0a3c1e2";
    [
        format!("basic_auth_users:\n  prometheus: {hash}\nbearer_token_sha256: [{sum}]\n"),
        "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n  client_auth_type: RequireAndVerifyClientCert\n  \
         min_version: TLS13\n  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  curve_preferences: [X25519]\n"
            .to_owned(),
        "tls_server_config:\n  cert: |\n    -----BEGIN CERTIFICATE-----\n    MIIB\n    -----END CERTIFICATE-----\n  key: x\n\
         http_server_config:\n  http2: false\n"
            .to_owned(),
    ]
    .map(String::into_bytes)
    .into()
}
