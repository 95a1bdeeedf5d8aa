//! Flow records as rows of a table.

use monitor_core::event::{
    Endpoint, EntityKind, FlowRecord, Initiator, Outcome, Point, TcpFlags, Traffic, Translated,
};

mod ssh;

use super::{
    human,
    output::Color,
    table::{Cell, escape},
};

pub(super) use ssh::{FINDING_TITLES, FINDING_WIDTHS, SSH_WIDTHS, finding, ssh, ssh_titles};

/// Titles of a table of flows.
pub(super) const TITLES: [&str; 9] = [
    "TIME",
    "POINT",
    "SOURCE",
    "DESTINATION",
    "PROTO",
    "APP",
    "OUTCOME",
    "FORWARD",
    "REVERSE",
];
/// Titles of a wide table of flows.
pub(super) const WIDE_TITLES: [&str; 18] = [
    "TIME",
    "POINT",
    "SOURCE",
    "DESTINATION",
    "PROTO",
    "APP",
    "OUTCOME",
    "FORWARD",
    "REVERSE",
    "STATE",
    "INTERFACE",
    "RTT",
    "FLAGS",
    "RETRANSMITS",
    "TRANSLATED",
    "NSG",
    "POLICY",
    "FINDING",
];
/// Usual widths, for rows that are still to come.
pub(super) const WIDTHS: [usize; 9] = [13, 8, 27, 27, 5, 7, 11, 12, 12];

/// Cells of a flow.
pub(super) fn row(record: &FlowRecord, wide: bool) -> Vec<Cell> {
    row_as(record, wide, false)
}

/// Cells of a flow; `numeric` for addresses without names.
pub(super) fn row_as(record: &FlowRecord, wide: bool, numeric: bool) -> Vec<Cell> {
    let mut cells = vec![
        human::time_of_day(record.start).into(),
        record.point.name().into(),
        endpoint(&record.source, numeric).into(),
        endpoint(&record.destination, numeric).into(),
        escape(&record.protocol.to_string()).into_owned().into(),
        escape(&record.app).into_owned().into(),
        Cell::colored(record.outcome.name(), color(record.outcome)),
        traffic(record.forward).into(),
        traffic(record.reverse).into(),
    ];
    if wide {
        let tcp = record.tcp.as_ref();
        let rtt = tcp
            .and_then(|tcp| tcp.handshake_rtt_us)
            .map_or_else(dash, |micros| {
                human::duration(std::time::Duration::from_micros(micros))
            });
        let flags = tcp.map_or_else(dash, |tcp| {
            let text = |flags: Option<TcpFlags>| flags.map_or_else(dash, |flags| flags.to_string());
            format!("{}/{}", text(tcp.forward_flags), text(tcp.reverse_flags))
        });
        let retransmits = record
            .retransmits
            .as_ref()
            .map_or_else(dash, |count| format!("{}/{}", count.forward, count.reverse));
        cells.extend([
            if record.cut {
                "cut"
            } else {
                record.state.name()
            }
            .into(),
            escape(&record.interface).into_owned().into(),
            rtt.into(),
            flags.into(),
            retransmits.into(),
            translated(record.translated.as_ref(), numeric).into(),
            nsg(record).into(),
            policy(record).into(),
            record
                .finding
                .as_deref()
                .map_or_else(dash, |finding| escape(finding).into_owned())
                .into(),
        ]);
    }
    cells
}

/// The ends on the other side of a translation.
fn translated(translated: Option<&Translated>, numeric: bool) -> String {
    let Some(translated) = translated else {
        return dash();
    };
    let Some(ends) = translated.ends() else {
        return "unknown".to_owned();
    };
    let end = |word: &str, end: &Option<Endpoint>| {
        let end = end.as_ref()?;
        Some(format!("{word} {}", endpoint(end, numeric)))
    };
    let ends = [end("from", &ends.source), end("to", &ends.destination)];
    let ends: Vec<_> = ends.into_iter().flatten().collect();
    ends.join(" ")
}

/// What groups say, by which rule; or why they are not asked.
fn nsg(record: &FlowRecord) -> String {
    match &record.nsg {
        Some(nsg) => match &nsg.rule {
            Some(rule) => format!("{} {}", nsg.access, escape(rule)),
            None => nsg.access.to_string(),
        },
        // Elsewhere they are not asked anyway.
        None if record.point == Point::Uplink && record.initiator == Initiator::Unknown => {
            "opener unknown".to_owned()
        }
        None => dash(),
    }
}

/// What network policies say.
fn policy(record: &FlowRecord) -> String {
    let word = match record.policy.as_ref().map(|verdict| verdict.allowed) {
        Some(Some(true)) => "allowed",
        Some(Some(false)) => "denied",
        Some(None) => "not known",
        None => return dash(),
    };
    word.to_owned()
}

fn dash() -> String {
    "-".to_owned()
}

fn color(outcome: Outcome) -> Color {
    match outcome {
        Outcome::Established => Color::Green,
        Outcome::Refused | Outcome::Reset => Color::Red,
        Outcome::Unanswered => Color::Yellow,
        Outcome::OneWay | Outcome::Midstream => Color::Dim,
    }
}

/// `[namespace/pod | node | range]/address:port`, IPv6 addresses in brackets where a port follows.
pub(super) fn endpoint(end: &Endpoint, numeric: bool) -> String {
    let name = match (&end.namespace, &end.pod) {
        (Some(namespace), Some(pod)) => Some(format!("{namespace}/{pod}")),
        _ if end.name.is_some() => end.name.as_deref().map(str::to_owned),
        _ if end.kind == EntityKind::Node => Some("node".to_owned()),
        _ => None,
    };
    let name = name.filter(|_| !numeric);
    let address = match (end.ip, end.port) {
        (std::net::IpAddr::V6(ip), Some(port)) => format!("[{ip}]:{port}"),
        (ip, Some(port)) => format!("{ip}:{port}"),
        (ip, None) => ip.to_string(),
    };
    match name {
        Some(name) => format!("{}/{address}", escape(&name)),
        None => address,
    }
}

pub(super) fn traffic(traffic: Traffic) -> String {
    if traffic.packets == 0 {
        return dash();
    }
    format!(
        "{}/{}",
        human::count(traffic.packets),
        human::bytes(traffic.bytes)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::table::table;

    fn flow(change: &Value) -> FlowRecord {
        let mut json = json!({
            "version": 1, "time": "2026-11-24T10:00:01Z", "start": "2026-11-24T09:58:00Z",
            "end": "2026-11-24T10:00:01.5Z", "state": "open", "point": "uplink",
            "interface": "eth0", "protocol": "TCP",
            "source": {"ip": "198.51.100.7", "port": 50123, "kind": "range", "name": "office"},
            "destination": {"ip": "10.224.0.4", "port": 22, "kind": "node"},
            "local": "destination", "initiator": "source", "app": "ssh",
            "forward": {"packets": 12, "bytes": 1833}, "reverse": {"packets": 10, "bytes": 9120},
            "tcp": {"forward_flags": "SAPF", "reverse_flags": "SAPF", "handshake_rtt_us": 212},
            "retransmits": {"forward": 1, "reverse": 0}, "outcome": "established",
        });
        for (key, value) in change.as_object().expect("changes") {
            json[key] = value.clone();
        }
        serde_json::from_value(json).expect("a flow record")
    }

    fn printed(wide: bool, numeric: bool) -> String {
        let titles: &[&str] = if wide { &WIDE_TITLES } else { &TITLES };
        let flows = [
            flow(&json!({
                "nsg": {"access": "Deny", "direction": "Inbound", "rule": "Deny\u{1b}Ssh"},
                "finding": "nsg-drift",
            })),
            flow(&json!({
                "point": "workload", "interface": "veth\u{1b}1", "app": "unknown",
                "source": {"ip": "fd00::7", "port": 40000, "kind": "unknown"},
                "destination": {"ip": "2001:db8::1", "port": 443, "kind": "internet"},
                "reverse": {"packets": 0, "bytes": 0}, "tcp": {"forward_flags": "S"},
                "outcome": "unanswered", "state": "closed", "translated": "unknown",
                "policy": {"allowed": false, "egress": {"by": [], "basis": "no-pod"}, "ingress": {"by": [], "basis": "network-policy"}},
            })),
            flow(&json!({
                "protocol": "UDP", "initiator": "unknown", "app": "dns", "tcp": null, "retransmits": null,
                "source": {"ip": "10.244.1.7", "port": 4, "kind": "pod", "namespace": "shop", "pod": "cart-0"},
                "destination": {"ip": "ff02::1", "kind": "unknown"}, "outcome": "one-way",
                "translated": {"destination": {"ip": "10.244.2.3", "port": 53, "kind": "pod", "namespace": "db", "pod": "pg-0"}},
            })),
        ];
        let rows: Vec<_> = flows
            .iter()
            .map(|flow| row_as(flow, wide, numeric))
            .collect();
        table(titles, &rows, false)
    }

    #[test]
    fn rows_are_for_people() {
        expect_test::expect![[r"
            TIME            POINT      SOURCE                      DESTINATION          PROTO   APP       OUTCOME       FORWARD    REVERSE
            09:58:00.000Z   uplink     office/198.51.100.7:50123   node/10.224.0.4:22   TCP     ssh       established   12/1.7Ki   10/8.9Ki
            09:58:00.000Z   workload   [fd00::7]:40000             [2001:db8::1]:443    TCP     unknown   unanswered    12/1.7Ki   -
            09:58:00.000Z   uplink     shop/cart-0/10.244.1.7:4    ff02::1              UDP     dns       one-way       12/1.7Ki   10/8.9Ki
        "]].assert_eq(&printed(false, false));
    }

    #[test]
    fn wide_rows_have_more_and_numeric_ones_no_names() {
        expect_test::expect![[r"
            TIME            POINT      SOURCE               DESTINATION         PROTO   APP       OUTCOME       FORWARD    REVERSE    STATE    INTERFACE     RTT     FLAGS       RETRANSMITS   TRANSLATED         NSG                  POLICY   FINDING
            09:58:00.000Z   uplink     198.51.100.7:50123   10.224.0.4:22       TCP     ssh       established   12/1.7Ki   10/8.9Ki   open     eth0          212us   SAPF/SAPF   1/0           -                  Deny Deny\u{1b}Ssh   -        nsg-drift
            09:58:00.000Z   workload   [fd00::7]:40000      [2001:db8::1]:443   TCP     unknown   unanswered    12/1.7Ki   -          closed   veth\u{1b}1   -       S/-         1/0           unknown            -                    denied   -
            09:58:00.000Z   uplink     10.244.1.7:4         ff02::1             UDP     dns       one-way       12/1.7Ki   10/8.9Ki   open     eth0          -       -           -             to 10.244.2.3:53   opener unknown       -        -
        "]].assert_eq(&printed(true, true));
    }
}
