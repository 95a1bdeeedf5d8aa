//! SSH connections and findings as rows of a table.

use monitor_core::{
    event::{FindingRecord, Severity, SshRecord},
    ssh::AuthOutcome,
};

use super::{endpoint, traffic};
use crate::cli::{
    human,
    output::Color,
    table::{Cell, escape},
};

/// How many of the titles a table of SSH connections has.
const NARROW: usize = 10;
/// Titles of a wide table of SSH connections.
const TITLES: [&str; 21] = [
    "TIME",
    "STATE",
    "SOURCE",
    "DESTINATION",
    "CLASS",
    "AUTH",
    "EXPECTED",
    "USER",
    "CLIENT",
    "FINDING",
    "POINT",
    "INTERFACE",
    "ATTEMPTS",
    "BASIS",
    "DURATION",
    "FORWARD",
    "REVERSE",
    "SERVER",
    "HASSH",
    "HASSHSERVER",
    "PROCESS",
];
/// Titles of a table of findings.
pub(in crate::cli) const FINDING_TITLES: [&str; 5] =
    ["TIME", "SEVERITY", "FINDING", "REASON", "DECLARED BY"];
/// Usual widths of SSH connections, for rows that are still to come.
pub(in crate::cli) const SSH_WIDTHS: [usize; 10] = [13, 6, 27, 27, 11, 7, 8, 6, 24, 14];
/// Usual widths of findings.
pub(in crate::cli) const FINDING_WIDTHS: [usize; 3] = [13, 8, 26];

pub(in crate::cli) fn ssh_titles(wide: bool) -> &'static [&'static str] {
    let (narrow, _) = TITLES.split_at(NARROW);
    if wide { &TITLES } else { narrow }
}

fn dash() -> String {
    "-".to_owned()
}

fn text(value: Option<&str>) -> Cell {
    value
        .map_or_else(dash, |value| escape(value).into_owned())
        .into()
}

/// Cells of an SSH connection.
pub(in crate::cli) fn ssh(record: &SshRecord, wide: bool, numeric: bool) -> Vec<Cell> {
    let auth = record.authentication;
    let color = match auth {
        AuthOutcome::Success => Color::Green,
        AuthOutcome::Failure => Color::Red,
        AuthOutcome::Unknown | AuthOutcome::None => Color::Dim,
    };
    let expected: Cell = match (record.expected, &record.range) {
        (Some(true), Some(range)) => escape(range).into_owned().into(),
        (Some(true), None) => "yes".into(),
        (Some(false), _) => Cell::colored("no", Color::Red),
        (None, _) => dash().into(),
    };
    let finding = record.finding.map_or_else(
        || Cell::from(dash()),
        |finding| Cell::colored(finding.name(), Color::Red),
    );
    let mut cells = vec![
        human::time_of_day(record.start).into(),
        record.state.name().into(),
        endpoint(&record.source, numeric).into(),
        endpoint(&record.destination, numeric).into(),
        record.class.map_or("-", |class| class.name()).into(),
        Cell::colored(auth.name(), color),
        expected,
        text(record.user.as_deref()),
        text(record.client_banner.as_deref()),
        finding,
    ];
    if wide {
        let of = |traffic_of| Option::map_or_else(traffic_of, dash, traffic);
        let process = record.process.as_ref();
        cells.extend([
            record.point.name().into(),
            text(Some(&record.interface)),
            record
                .attempts
                .map_or_else(dash, |attempts| attempts.to_string())
                .into(),
            record.basis.name().into(),
            human::duration(std::time::Duration::from_millis(record.duration_ms)).into(),
            of(record.forward).into(),
            of(record.reverse).into(),
            text(record.server_banner.as_deref()),
            text(record.hassh.as_deref()),
            text(record.hassh_server.as_deref()),
            process
                .map_or_else(dash, |process| {
                    format!("{}/{}", escape(&process.name), process.pid)
                })
                .into(),
        ]);
    }
    cells
}

/// Cells of a finding.
pub(in crate::cli) fn finding(record: &FindingRecord) -> Vec<Cell> {
    let color = match record.severity {
        Severity::Critical | Severity::High => Color::Red,
        Severity::Medium => Color::Yellow,
        Severity::Low | Severity::Info => Color::Dim,
    };
    vec![
        human::time_of_day(record.time).into(),
        Cell::colored(record.severity.name(), color),
        record.finding.name().into(),
        text(Some(&record.reason)),
        text(Some(&record.declared_by)),
    ]
}
