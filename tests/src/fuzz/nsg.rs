//! Documents with network security groups.

use std::net::IpAddr;

use monitor_core::{
    event::Protocol,
    nsg::{
        Chain, Direction, Levels, Names, Tuple, Verdict,
        explain::explain,
        lint::{Options, lint},
        read::{read, read_admin_rules, read_service_tags},
    },
};

use super::check_message;
use crate::deploy;

const DOCUMENTS: &str = "monitor/core/src/nsg/testdata";

pub(super) const WORDS: &[&[u8]] = &[
    b"\"securityRules\":[",
    b"\"priority\":100,",
    b"\"access\":\"Deny\",",
    b"\"VirtualNetwork\"",
    b"\"0.0.0.0/0\"",
    b"\"::/0\"",
    b"\"65535-1\"",
    b"\"*\"",
    b"[]",
    b"{}",
    b"null",
    b"1e999",
    b"\"\\u0000\"",
    "\u{202e}".as_bytes(),
    b"[parameters('x')]",
];

pub(super) fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = read_service_tags("tags.json", &text) {
        check_message(&error.to_string());
    }
    if let Err(error) = read_admin_rules("admin.json", &text) {
        check_message(&error.to_string());
    }
    let document = match read("nsg.json", &text) {
        Ok(document) => document,
        Err(error) => return check_message(&error.to_string()),
    };
    let mut names = Names::default();
    names.add_network(["10.224.0.0/12".parse().expect("a range")]);
    for group in document.groups.into_iter().take(4) {
        let levels = Levels {
            subnet: Some(group.nsg),
            ..Levels::default()
        };
        judge(&Chain::new(levels, &names));
    }
}

/// The quick way to judge and the plain one say the same.
fn judge(chain: &Chain) {
    let ips = ["10.224.0.4", "203.0.113.9", "2001:db8::1"];
    let ips = ips.map(|ip| ip.parse::<IpAddr>().expect("an address"));
    for source in ips {
        for destination in ips {
            for (protocol, port) in [
                (Protocol::TCP, Some(22)),
                (Protocol::UDP, Some(53)),
                (Protocol::ICMP, None),
            ] {
                for direction in Direction::ALL {
                    let tuple = Tuple {
                        direction: *direction,
                        protocol,
                        source,
                        source_port: port.map(|_| 50_000),
                        destination,
                        destination_port: port,
                    };
                    let (quick, plain) = (chain.judge(&tuple), chain.judge_linear(&tuple));
                    let said = |verdict: &Verdict<'_>| {
                        let rule = verdict.rule.map(std::ptr::from_ref);
                        (verdict.access, verdict.decided_by, rule)
                    };
                    assert_eq!(said(&quick), said(&plain), "{tuple:?}");
                }
            }
        }
    }
    let _ = explain(
        chain,
        &Tuple {
            direction: Direction::Inbound,
            protocol: Protocol::TCP,
            source: ips[1],
            source_port: None,
            destination: ips[0],
            destination_port: Some(22),
        },
    );
    for issue in lint(chain, &Options::default()) {
        check_message(&issue.why);
        check_message(&issue.suggestion);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let files = deploy::files(DOCUMENTS, ".json").expect("documents");
    let mut seeds: Vec<_> = files
        .iter()
        .map(|file| deploy::read(file).expect("a document").into_bytes())
        .collect();
    seeds.push(
        br#"[{"name":"a","properties":{"priority":100,"direction":"Inbound","access":"Deny","protocol":"*",
        "sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"10.0.0.0/8",
        "destinationPortRanges":["22","80-90"]}}]"#
            .to_vec(),
    );
    seeds
}
