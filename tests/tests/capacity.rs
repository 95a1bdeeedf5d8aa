//! More connections than the maps can hold: every packet is still accounted for, and room returns.

use std::net::SocketAddr;
use std::time::Duration;

use tests::account;
use tests::daemon::Daemon;
use tests::held::Held;
use tests::lab::{self, Lab, UPLINK, client, wait};

/// What the IPv4 map is to hold.
const CAPACITY: u64 = 1_000;

/// How long until the accounts are told.
const TOLD: Duration = Duration::from_secs(6);

#[test]
fn a_full_map_loses_nothing_silently() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("full").expect("a lab");
    let peer = lab.add_inside().expect("a peer");
    let _echo = client::serve(&peer, "udp-serve", 7002).expect("a server");
    lab.node()
        .set_offloads(UPLINK, false)
        .expect("offloads off");
    let base = lab.quiet(&[UPLINK]).expect("quiet")[0];
    let flows = CAPACITY.to_string();
    let daemon = Daemon::start(lab.node(), &["--max-flows4", &flows]).expect("the daemon");
    let capacity = [("family", "ipv4")];
    let told = daemon
        .metrics()
        .expect("a scrape")
        .count("nodewatch_flows_capacity", &capacity);
    assert_eq!(told, CAPACITY, "the capacity that was asked for");
    let to = SocketAddr::new(peer.addresses.v4.into(), 7002).to_string();
    let udp = [
        "udp", "--to", &to, "--count", "20000", "--size", "40", "--flows", "4000",
    ];
    let report = client::send(lab.node(), &[&udp[..], &["--rate", "20000"]].concat());
    assert_eq!(report.expect("a report").sent, 20_000);
    let mut table = String::new();
    let right = wait::until("the accounts", TOLD, || {
        let moved = lab.quiet(&[UPLINK]).expect("quiet")[0] - base;
        let metrics = daemon.metrics().expect("a scrape");
        let rows = account::compare(&metrics, &[(UPLINK, moved)]);
        table = account::table(&rows);
        let exact = rows.iter().all(|row| {
            row.account.balances() && row.account.seen == row.interface_packets + row.dropped
        });
        (rows.len() == 2 && exact).then_some(rows)
    });
    println!("{table}");
    let rows = right.unwrap_or_else(|error| panic!("{error:#}\n{table}{}", daemon.log()));
    for row in rows {
        let full = row
            .account
            .uncounted
            .get("table_full")
            .copied()
            .unwrap_or(0);
        assert!(
            full > 1_000,
            "hardly a packet found the table full\n{table}"
        );
        assert!(
            row.account.counted > CAPACITY / 2,
            "hardly a packet was counted\n{table}"
        );
    }
    let status = daemon.tell(&["status"]).expect("a status");
    assert!(
        status.contains("table_full"),
        "the loss is not told:\n{status}"
    );
    // Idle flows leave sooner while it is full, and new ones find room.
    let room = wait::until("room in the map", Duration::from_mins(1), || {
        let held = Held::by(daemon.pid()).expect("the daemon runs");
        let entries = held.slots_in_use("PLACES4").expect("places") as u64;
        (entries < CAPACITY * 9 / 10).then_some(entries)
    });
    assert!(
        room.is_ok(),
        "the map stays full for a minute:\n{}",
        daemon.tell(&["status"]).expect("one")
    );
    let arguments = [
        "udp", "--to", &to, "--count", "10", "--size", "41", "--echo",
    ];
    assert_eq!(
        client::send(lab.node(), &arguments)
            .expect("a report")
            .received,
        10
    );
    let shown = wait::until("the new flow", TOLD, || {
        let records = daemon
            .records(&["flows", "--last", "100000"])
            .expect("records");
        let bytes = 10 * (20 + 8 + 41);
        records
            .into_iter()
            .find(|record| record["forward"]["bytes"] == bytes)
    });
    assert!(shown.is_ok(), "a flow after the flood is not counted");
}

#[test]
fn thousands_of_flows_are_told_one_by_one() {
    let Some(_permit) = lab::require() else {
        return;
    };
    let lab = Lab::new("many").expect("a lab");
    let peer = lab.add_inside().expect("a peer");
    let _echo = client::serve(&peer, "udp-serve", 7002).expect("a server");
    let daemon = Daemon::start(lab.node(), &[]).expect("the daemon");
    for address in [peer.addresses.v4.into(), peer.addresses.v6.into()] {
        let to = SocketAddr::new(address, 7002).to_string();
        let udp = [
            "udp", "--to", &to, "--count", "12000", "--size", "40", "--flows", "4000",
        ];
        let report = client::send(lab.node(), &[&udp[..], &["--echo"]].concat());
        let report = report.expect("a report");
        assert_eq!(
            (report.received, report.mismatches),
            (12_000, 0),
            "{report:?}"
        );
    }
    let mut found = (0, 0);
    let all = wait::until("8000 flows", TOLD * 2, || {
        let all = ["flows", "--last", "100000", "--port", "7002"];
        let records = daemon.records(&all).expect("records");
        let whole = records.iter().filter(|record| {
            record["forward"]["packets"] == 3 && record["reverse"]["packets"] == 3
        });
        found = (records.len(), whole.count());
        (found == (8_000, 8_000)).then_some(())
    });
    assert!(
        all.is_ok(),
        "{} flows, {} with 3 packets each way, not 8000",
        found.0,
        found.1
    );
}
