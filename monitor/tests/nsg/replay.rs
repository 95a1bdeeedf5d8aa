//! `nodewatch replay --nsg`: a capture held against declared rules.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{lines, run};

/// A capture of one TCP connection with its handshake, answered or not (libpcap file format).
fn capture(source: [u8; 4], destination: [u8; 4], port: u16, is_answered: bool) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(word.to_le_bytes());
    }
    let mut packet = |at: u32, from: [u8; 4], to: [u8; 4], ports: [u16; 2], flags: u8| {
        let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
        bytes.extend(from.iter().chain(&to));
        bytes.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        for word in [1_700_000_000 + at, 0, 40, 40] {
            file.extend(word.to_le_bytes());
        }
        file.extend(bytes);
    };
    packet(0, source, destination, [50_000, port], 0x02);
    if is_answered {
        packet(0, destination, source, [port, 50_000], 0x12);
        packet(0, source, destination, [50_000, port], 0x10);
    }
    file
}

const NODE: [u8; 4] = [10, 224, 0, 5];
const OUTSIDE: [u8; 4] = [203, 0, 113, 9];

/// Replays a capture under rules for port 22 inbound and 25 outbound.
fn replay(capture: &[u8], arguments: &[&str]) -> Vec<Value> {
    replay_with(capture, arguments, "").0
}

/// The same, with objects on standard input where the arguments say so; and what was said on
/// standard error.
fn replay_with(capture: &[u8], arguments: &[&str], input: &str) -> (Vec<Value>, String) {
    let folder = TempDir::new().expect("a folder");
    let (file, rules) = (folder.path().join("c.pcap"), folder.path().join("nsg.json"));
    fs::write(&file, capture).expect("written");
    let rule = |name: &str, direction: &str, port: &str| {
        json!({"name": name, "priority": 100, "direction": direction, "access": "Deny", "protocol": "Tcp",
            "sourceAddressPrefix": "*", "destinationAddressPrefix": "*", "destinationPortRange": port})
    };
    let document = json!({"name": "g",
        "securityRules": [rule("DenySsh", "Inbound", "22"), rule("DenyMail", "Outbound", "25")]});
    fs::write(&rules, document.to_string()).expect("written");
    let nsg = format!("subnet={}", rules.display());
    let file = file.to_str().expect("UTF-8");
    let given = [
        "replay",
        file,
        "--nsg",
        &nsg,
        "--virtual-network",
        "10.224.0.0/12",
        "-o",
        "jsonl",
    ];
    let output = run(&[&given, arguments].concat(), input);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    (lines(&output), error)
}

fn of<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records
        .iter()
        .filter(|record| record["type"] == kind)
        .collect()
}

#[test]
fn flows_carry_what_the_rules_say() {
    for local in [&["--local", "10.224.0.5/32"][..], &[]] {
        let records = replay(&capture(NODE, OUTSIDE, 443, true), local);
        assert_eq!(
            of(&records, "flow")[0]["nsg"],
            json!({"access": "Allow", "direction": "Outbound", "rule": "AllowInternetOutBound", "nsg": "g"})
        );
        assert!(of(&records, "finding").is_empty());
    }
}

#[test]
fn drift_and_over_blocking_are_found() {
    for local in [&["--local", "10.224.0.5/32"][..], &[]] {
        for (source, destination, port, is_answered, finding, rule) in [
            (OUTSIDE, NODE, 22, true, "nsg-drift", "DenySsh"),
            (OUTSIDE, NODE, 22, false, "nsg-drift", "DenySsh"),
            (NODE, OUTSIDE, 25, true, "nsg-drift", "DenyMail"),
            (
                NODE,
                OUTSIDE,
                443,
                false,
                "nsg-over-blocked",
                "AllowInternetOutBound",
            ),
        ] {
            let records = replay(&capture(source, destination, port, is_answered), local);
            let found = of(&records, "finding");
            assert_eq!(found.len(), 1, "{records:?}");
            assert_eq!(found[0]["finding"], finding);
            let declared = format!("network security group g, rule {rule}");
            assert_eq!(found[0]["declared_by"], declared.as_str());
            let flows = of(&records, "flow");
            assert_eq!(flows.last().expect("a flow")["finding"], finding);
            assert_eq!(of(&records, "summary")[0]["findings"], 1);
        }
        let records = replay(&capture(NODE, OUTSIDE, 25, false), local);
        assert!(
            of(&records, "finding").is_empty(),
            "blocked as declared: {records:?}"
        );
    }
}

#[test]
fn without_local_addresses_the_direction_is_not_guessed() {
    const PEER: [u8; 4] = [10, 224, 0, 9];
    const OVERLAY: [u8; 4] = [10, 244, 1, 7];
    let pod = "{kind: Pod, apiVersion: v1, metadata: {name: web, namespace: shop}, status: {podIP: \
               10.244.1.7}}";
    let manifests = ["--manifests", "-"];
    let check = |ends: [[u8; 4]; 2], arguments: &[&str], input: &str, direction, access| {
        let [from, to] = ends;
        let (records, error) = replay_with(&capture(from, to, 22, true), arguments, input);
        let flow = of(&records, "flow").last().copied().expect("a flow");
        let found = (&flow["nsg"]["direction"], &flow["nsg"]["access"]);
        assert_eq!(
            found,
            (&direction, &json!(access)),
            "{ends:?} {arguments:?}"
        );
        let is_drift = access == "Deny";
        assert_eq!(of(&records, "finding").len(), usize::from(is_drift));
        let is_told = error.contains("c.pcap: of 1 flows the network security groups cannot tell");
        assert_eq!(is_told, direction == Value::Null, "{error}");
    };
    let both = [PEER, NODE];
    check(both, &[], "", Value::Null, "Indeterminate");
    check(
        both,
        &["--local", "10.224.0.5"],
        "",
        json!("Inbound"),
        "Deny",
    );
    check(
        both,
        &["--local", "10.224.0.9"],
        "",
        json!("Outbound"),
        "Allow",
    );
    // Not of the virtual network, and a pod.
    check([OVERLAY, OUTSIDE], &[], "", Value::Null, "Indeterminate");
    check(
        [OVERLAY, OUTSIDE],
        &manifests,
        pod,
        json!("Outbound"),
        "Allow",
    );
    check(
        [OUTSIDE, OVERLAY],
        &manifests,
        pod,
        json!("Inbound"),
        "Deny",
    );
    // The host's address is in VirtualNetwork, and no card's.
    let host = [168, 63, 129, 16];
    check([NODE, host], &[], "", json!("Outbound"), "Allow");
}

#[test]
fn rules_that_cannot_be_used_stop_a_replay_before_it_begins() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("c.pcap");
    fs::write(&file, capture(NODE, OUTSIDE, 443, true)).expect("written");
    let file = file.to_str().expect("UTF-8");
    let output = run(&["replay", file, "--nsg", "subnet=/nonexistent.json"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}
