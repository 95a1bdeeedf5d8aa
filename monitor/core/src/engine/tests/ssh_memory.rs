//! How much memory SSH takes, whoever does what.

use std::net::Ipv4Addr;

use monitor_common::abi::FlowKey4;

use super::{owner::*, ssh::*, *};
use crate::{
    engine::ssh::connections,
    event::ProcessRecord,
    judge::{Attempt, Event},
};

/// What ARCHITECTURE.md says, in bytes.
const MOST: usize = 120 << 20;
/// Histories of sources, servers and HASSHes, and connections of each.
const HISTORIES: u32 = 4_096;
const EVENTS: u64 = 64;
/// Closed connections and findings that are remembered.
const RECENT: u32 = 4_096;

/// Resident memory of this process, which runs this test only, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    digits
        .and_then(|digits| digits.parse::<usize>().ok())
        .expect("a size")
        * 1_024
}

/// The server at port 22 of the local end, a client of its own address for each number.
fn client(number: u32) -> FlowKey {
    match key(50_000) {
        FlowKey::V4(key) => FlowKey::V4(FlowKey4 {
            remote: Ipv4Addr::new(198, 18, 0, 0).to_bits() + number,
            ..key
        }),
        other => other,
    }
}

/// As long a banner as there may be, all of it escaped, and a KEXINIT that does not end.
fn attack(engine: &mut Engine, key: FlowKey) {
    for sent in [true, false] {
        let line = [&b"SSH-2.0-"[..], &[0x1B; 250], b"\r\n"].concat();
        let mut bytes = [&line[..], &35_000_u32.to_be_bytes(), &[5, 20]].concat();
        bytes.resize(8_000, b'x');
        let owners = step(engine, segment(key, sent, &bytes, App::Ssh)).owners;
        for question in owners {
            let process = ProcessRecord {
                pid: 1,
                name: "n".repeat(64),
                executable: Some("e".repeat(256)),
                container: Some("c".repeat(64)),
            };
            let owner = crate::engine::Owner {
                user: Some("u".repeat(64)),
                process: Some(process),
                authenticated: Some(true),
            };
            answer(engine, question, owner);
        }
        assert!(engine.books.ssh.held <= connections::BYTES);
    }
}

#[test]
fn all_of_it_is_within_what_is_promised() {
    let mut engine = asking();
    engine.books.ssh.expectations.node = vec!["admin=192.0.2.0/24".parse().unwrap()];
    let before = resident();
    // Closed ones, each with a finding of its own.
    for number in 0..RECENT {
        attack(&mut engine, client(number));
        close_of(&mut engine, client(number));
    }
    let tables = resident() - before;
    let open = u32::try_from(connections::CONNECTIONS).unwrap();
    for number in 0..open + 1_000 {
        attack(&mut engine, client(number));
    }
    let ssh = &mut engine.books.ssh;
    assert_eq!(ssh.live.len(), connections::CONNECTIONS);
    assert_eq!(ssh.recent().count(), 4_096);
    assert_eq!(ssh.recent_findings().count(), 4_096);
    // As many histories as there may be, each full.
    let before_histories = resident();
    for source in 0..HISTORIES {
        for at_ns in 0..EVENTS {
            let source = Ipv4Addr::from_bits(source).into();
            ssh.watch.ended(&Attempt {
                source,
                group: source,
                target: (source, 22),
                hassh: None,
                event: Event::Unknown,
                failures: 0,
                at_ns,
            });
        }
    }
    let all = resident() - before;
    println!(
        "{} KiB, of which {} KiB are of closed connections and findings, {} KiB histories",
        all >> 10,
        tables >> 10,
        (resident() - before_histories) >> 10
    );
    assert!(all <= MOST, "{all} bytes");
}
