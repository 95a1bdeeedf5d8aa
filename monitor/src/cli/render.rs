//! Flow records as rows of a table.

use monitor_core::event::{Endpoint, EntityKind, FlowRecord, Outcome, TcpFlags, Traffic};

use super::{
    human,
    output::Color,
    table::{Cell, escape},
};

/// Titles of a table of flows.
pub(super) const TITLES: [&str; 9] =
    ["TIME", "POINT", "SOURCE", "DESTINATION", "PROTO", "APP", "OUTCOME", "FORWARD", "REVERSE"];
/// Titles of a wide table of flows.
pub(super) const WIDE_TITLES: [&str; 14] = [
    "TIME", "POINT", "SOURCE", "DESTINATION", "PROTO", "APP", "OUTCOME", "FORWARD", "REVERSE", "STATE",
    "INTERFACE", "RTT", "FLAGS", "RETRANSMITS",
];
/// Usual widths, for rows that are still to come.
pub(super) const WIDTHS: [usize; 9] = [13, 8, 27, 27, 5, 7, 11, 12, 12];

/// Cells of a flow.
pub(super) fn row(record: &FlowRecord, wide: bool) -> Vec<Cell> {
    let mut cells = vec![
        human::time_of_day(record.start).into(),
        record.point.name().into(),
        endpoint(&record.source).into(),
        endpoint(&record.destination).into(),
        escape(&record.protocol.to_string()).into_owned().into(),
        escape(&record.app).into_owned().into(),
        Cell::colored(record.outcome.name(), color(record.outcome)),
        traffic(record.forward).into(),
        traffic(record.reverse).into(),
    ];
    if wide {
        let tcp = record.tcp.as_ref();
        let rtt = tcp.and_then(|tcp| tcp.handshake_rtt_us).map_or_else(dash, |micros| {
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
            record.state.name().into(),
            escape(&record.interface).into_owned().into(),
            rtt.into(),
            flags.into(),
            retransmits.into(),
        ]);
    }
    cells
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
fn endpoint(end: &Endpoint) -> String {
    let name = match (&end.namespace, &end.pod) {
        (Some(namespace), Some(pod)) => Some(format!("{namespace}/{pod}")),
        _ if end.name.is_some() => end.name.as_deref().map(str::to_owned),
        _ if end.kind == EntityKind::Node => Some("node".to_owned()),
        _ => None,
    };
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

fn traffic(traffic: Traffic) -> String {
    if traffic.packets == 0 {
        return dash();
    }
    format!("{}/{}", human::count(traffic.packets), human::bytes(traffic.bytes))
}
