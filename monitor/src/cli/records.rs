//! `nodewatch ssh` and `nodewatch findings`: lists of records, recent and live.

mod rows;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use monitor_core::{event::Record, time::Timestamp};

use super::{
    exit,
    filter::FilterArgs,
    flows::since,
    output::{Format, Output, complain},
    table::{Cell, Columns, table},
};
use crate::{
    api::{
        List, Request,
        client::{Client, Line},
    },
    config::DEFAULT_SOCKET,
};

pub(super) use rows::{FINDING_TITLES, SSH_TITLES};
pub(super) use rows::{finding as finding_row, ssh as ssh_row};

/// Records without a wish for another number.
const LAST: usize = 20;

/// Flags of `ssh`.
#[derive(Debug, clap::Args)]
pub(super) struct SshArgs {
    #[command(flatten)]
    list: ListArgs,
}

/// Flags of `findings`.
#[derive(Debug, clap::Args)]
pub(super) struct FindingsArgs {
    #[command(flatten)]
    list: ListArgs,
    /// Exit with 1 if there are any
    #[arg(long)]
    exit_code: bool,
}

/// Flags of both.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Go on with new ones as they come
    #[arg(short, long)]
    follow: bool,
    /// The newest N [default: 20, or all with --since]
    #[arg(long, value_name = "N", conflicts_with = "all")]
    last: Option<usize>,
    /// All that the daemon knows
    #[arg(long)]
    all: bool,
    /// Those since: `5m`, or a time such as 2026-11-24T10:00:00Z
    #[arg(long, value_name = "DURATION|TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// How to print: table, wide, json or jsonl
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// Addresses without names, in tables
    #[arg(long)]
    numeric: bool,
    /// API socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(flatten)]
    filter: FilterArgs,
}

/// How records become rows.
struct Shape {
    titles: fn(wide: bool) -> &'static [&'static str],
    row: fn(record: &Record, wide: bool, numeric: bool) -> Option<Vec<Cell>>,
}

/// Prints SSH connections.
pub(super) fn ssh(args: SshArgs) -> anyhow::Result<ExitCode> {
    let shape = Shape {
        titles: rows::ssh_titles,
        row: |record, wide, numeric| match record {
            Record::Ssh(record) => Some(rows::ssh(record, wide, numeric)),
            _ => None,
        },
    };
    list(args.list, Request::Ssh, &shape)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints findings.
pub(super) fn findings(args: FindingsArgs) -> anyhow::Result<ExitCode> {
    let shape = Shape {
        titles: |_| &FINDING_TITLES,
        row: |record, _, numeric| match record {
            Record::Finding(record) => Some(rows::finding(record, numeric)),
            _ => None,
        },
    };
    let printed = list(args.list, Request::Findings, &shape)?;
    Ok(if args.exit_code && printed > 0 {
        exit::code(exit::FINDINGS)
    } else {
        ExitCode::SUCCESS
    })
}

/// Prints records; how many.
fn list(args: ListArgs, request: fn(List) -> Request, shape: &Shape) -> anyhow::Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(print(args, request, shape))
}

async fn print(
    args: ListArgs,
    request: fn(List) -> Request,
    shape: &Shape,
) -> anyhow::Result<usize> {
    // Whoever asks for a time wants all since then.
    let all = args.all || args.since.is_some();
    let mut filter = args.filter.0;
    filter.since = args.since;
    let request = request(List {
        filter,
        last: args.last.or((!all).then_some(LAST)),
        follow: args.follow,
    });
    let mut client = Client::ask(&args.socket, &request).await?;
    let mut printer = Printer::new(args.output, args.numeric, args.follow, shape);
    let mut lost = 0;
    let interrupt = tokio::signal::ctrl_c();
    let mut interrupt = std::pin::pin!(interrupt);
    loop {
        let line = tokio::select! {
            line = client.next() => line?,
            _ = &mut interrupt => break,
        };
        match line {
            Some(Line::Data(line)) => printer.print(line).context("answer of the daemon")?,
            Some(Line::Lost(records)) => lost += records,
            None if args.follow => {
                printer.finish()?;
                return Err(client.stopped().into());
            }
            None => break,
        }
    }
    printer.finish()?;
    if lost > 0 {
        complain(&format!(
            "{lost} records skipped, this command was too slow"
        ));
    }
    Ok(printer.printed)
}

/// Prints records in a format, as they come or at the end.
struct Printer<'a> {
    output: Output,
    format: Format,
    numeric: bool,
    follow: bool,
    shape: &'a Shape,
    columns: Columns,
    rows: Vec<Vec<Cell>>,
    printed: usize,
}

// === impl Printer ===

impl<'a> Printer<'a> {
    fn new(format: Format, numeric: bool, follow: bool, shape: &'a Shape) -> Self {
        let output = Output::stdout();
        let mut columns = Columns::new((shape.titles)(format == Format::Wide), output.color);
        columns.expect(&rows::WIDTHS);
        Self {
            output,
            format,
            numeric,
            follow,
            shape,
            columns,
            rows: Vec::new(),
            printed: 0,
        }
    }

    fn print(&mut self, line: &[u8]) -> anyhow::Result<()> {
        match self.format {
            Format::Jsonl => {
                self.output.write(line)?;
                self.output.write(b"\n")?;
            }
            Format::Json => {
                let begin: &[u8] = if self.printed == 0 {
                    b"[\n  "
                } else {
                    b",\n  "
                };
                self.output.write(begin)?;
                self.output.write(line)?;
            }
            Format::Table | Format::Wide => {
                let record = serde_json::from_slice(line)?;
                let wide = self.format == Format::Wide;
                let Some(cells) = (self.shape.row)(&record, wide, self.numeric) else {
                    return Ok(());
                };
                self.row(cells)?;
            }
        }
        self.printed += 1;
        if self.follow {
            self.output.flush()
        } else {
            Ok(())
        }
    }

    fn row(&mut self, cells: Vec<Cell>) -> anyhow::Result<()> {
        if !self.follow {
            self.rows.push(cells);
            return Ok(());
        }
        let mut text = String::new();
        if self.printed == 0 {
            self.columns.header(&mut text);
        }
        self.columns.row(&mut text, &cells);
        self.output.write(text.as_bytes())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        match self.format {
            Format::Json => {
                let end: &[u8] = if self.printed == 0 { b"[]\n" } else { b"\n]\n" };
                self.output.write(end)?;
            }
            Format::Table | Format::Wide if !self.follow => {
                let titles = (self.shape.titles)(self.format == Format::Wide);
                let text = table(titles, &self.rows, self.output.color);
                self.output.write(text.as_bytes())?;
            }
            Format::Jsonl | Format::Table | Format::Wide => {}
        }
        self.output.flush()
    }
}
