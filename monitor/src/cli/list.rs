//! Lists of records from the daemon, recent and live: what `flows`, `ssh` and `findings` share.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use monitor_core::{
    engine::Forgotten,
    event::{FindingKind, Record},
    filter::{Condition, Term},
    time::Timestamp,
};

use tokio::signal::unix::{SignalKind, signal};

use super::{
    exit::Refused,
    filter::FilterArgs,
    interrupt::Interrupted,
    lost::{self, Wanted},
    output::{Format, Output, complain, end_unless_read},
    table::{Cell, Columns, table},
};
use crate::{
    api::{
        List, Request,
        client::{self, Client, Line},
    },
    config::{DEFAULT_SOCKET, parse_duration},
};

/// Records without a wish for another number.
const LAST: usize = 20;
/// Whoever follows and reads nothing for so long is taken to be gone.
const UNREAD: Duration = Duration::from_mins(10);

/// Flags of every list.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Go on with new ones as they come: when they become known, and when they close
    #[arg(short, long)]
    follow: bool,
    /// The newest N [default: 20, or all with --since]
    #[arg(long, value_name = "N", conflicts_with = "all")]
    last: Option<usize>,
    /// All that the daemon knows: active, and recently closed
    #[arg(long)]
    all: bool,
    /// Those that were active since: `5m`, or a time such as 2026-11-24T10:00:00Z
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

/// How records of a kind are asked for, and how they become rows.
pub(super) struct Shape {
    pub(super) request: fn(List) -> Request,
    /// What the records are about, in the plural.
    pub(super) what: &'static str,
    /// Up to when they may be forgotten.
    pub(super) forgotten: fn(&Forgotten) -> Option<Timestamp>,
    pub(super) titles: fn(wide: bool) -> &'static [&'static str],
    /// Usual widths, for rows that are still to come.
    pub(super) widths: &'static [usize],
    pub(super) row: fn(record: &Record, wide: bool, numeric: bool) -> Option<Vec<Cell>>,
}

// === impl ListArgs ===

impl ListArgs {
    /// Findings of proposed policies only, or none of them unless they are asked for by name.
    pub(super) fn select_proposed(&mut self, only: bool) {
        let terms = &mut self.filter.0.terms;
        let names =
            [FindingKind::PolicyWouldDeny, FindingKind::PolicyWouldAllow].map(FindingKind::name);
        let is_named = |term: &Term| matches!(&term.condition, Condition::Finding(name) if names.contains(&&**name));
        if only || !terms.iter().any(is_named) {
            terms.extend(names.map(|name| Term {
                not: !only,
                condition: Condition::Finding(name.to_owned()),
            }));
        }
    }

    /// At most how many of those that there are.
    fn last(&self) -> Option<usize> {
        // Whoever asks for a time wants all since then.
        let all = self.all || self.since.is_some();
        self.last.or((!all).then_some(LAST))
    }
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago: Duration = parse_duration(text).map_err(|error| error.to_string())?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let since = now.saturating_sub(ago).as_nanos();
    Ok(Timestamp::from_nanoseconds(
        i64::try_from(since).unwrap_or(i64::MAX),
    ))
}

/// Prints records; how many.
pub(super) fn run(args: ListArgs, shape: &Shape) -> anyhow::Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Refused::Start)?;
    runtime.block_on(print(args, shape))
}

async fn print(args: ListArgs, shape: &Shape) -> anyhow::Result<usize> {
    let last = args.last();
    let mut filter = args.filter.0;
    filter.since = args.since;
    let request = (shape.request)(List {
        filter,
        last,
        follow: args.follow,
    });
    // Of what is followed nothing is forgotten.
    let before = if args.follow {
        client::status(&args.socket).await.ok()
    } else {
        None
    };
    let mut client = Client::ask(&args.socket, &request).await?;
    let mut printer = Printer::new(args.output, args.numeric, args.follow, shape);
    let mut skipped = 0;
    // Also where nobody reads what is printed, and this thread waits for that.
    if args.follow {
        Interrupted::watch();
    }
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Refused::Start)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Refused::Start)?;
    loop {
        let line = tokio::select! {
            line = client.next() => line,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
        // Whatever happened: what was printed so far is complete.
        match line {
            Ok(Some(Line::Data(line))) => printer.print(line)?,
            Ok(Some(Line::Lost(records))) => skipped += records,
            Ok(None) if args.follow => {
                printer.finish()?;
                return Err(client.stopped().into());
            }
            Ok(None) => break,
            Err(error) => {
                printer.finish()?;
                return Err(error.into());
            }
        }
    }
    printer.finish()?;
    let status = client::status(&args.socket).await.ok();
    let at_answer = if args.follow { &before } else { &status };
    let has_fewer = args.last.is_some_and(|last| printer.printed < last);
    let wanted = Wanted {
        what: shape.what,
        forgotten: at_answer
            .as_ref()
            .and_then(|status| (shape.forgotten)(&status.engine.forgotten)),
        since: args.since,
        all: args.all || has_fewer && !args.follow,
    };
    if let Some(summary) = lost::summary(status.as_ref(), &wanted, skipped) {
        complain(&summary);
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
        columns.expect(shape.widths);
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
                let record = serde_json::from_slice(line).map_err(Refused::Answer)?;
                let wide = self.format == Format::Wide;
                let Some(cells) = (self.shape.row)(&record, wide, self.numeric) else {
                    return Ok(());
                };
                self.row(cells)?;
            }
        }
        self.printed += 1;
        if self.follow {
            end_unless_read(UNREAD);
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct List {
        #[command(flatten)]
        args: ListArgs,
    }

    #[test]
    fn a_wish_for_a_number_holds_whatever_else_is_asked() {
        for (line, last) in [
            ("", Some(20)),
            ("-f", Some(20)),
            ("--last 5", Some(5)),
            ("--since 5m", None),
            ("--since 5m --last 5", Some(5)),
            ("--all", None),
        ] {
            let line = std::iter::once("list").chain(line.split_whitespace());
            let list = List::try_parse_from(line.clone()).expect("valid flags");
            assert_eq!(list.args.last(), last, "{:?}", line.collect::<Vec<_>>());
        }
        assert!(List::try_parse_from(["list", "--all", "--last", "5"]).is_err());
        assert!(List::try_parse_from(["list", "--since", "yesterday"]).is_err());
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        list: ListArgs,
    }

    #[test]
    fn findings_of_proposals_are_listed_apart() {
        let terms = |line: &[&str], only: bool| {
            let line = ["findings"].iter().chain(line);
            let mut list = Line::try_parse_from(line).unwrap().list;
            list.select_proposed(only);
            let terms = list.filter.0.terms.into_iter();
            terms
                .map(|term| match term.condition {
                    Condition::Finding(name) => (term.not, name),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        let both = |not: bool| {
            ["policy-would-deny", "policy-would-allow"].map(|name| (not, name.to_owned()))
        };
        assert_eq!(terms(&[], false), both(true));
        assert_eq!(terms(&[], true), both(false));
        let named = ("policy-would-deny", false);
        let line = ["--finding", named.0];
        assert_eq!(terms(&line, false), [(named.1, named.0.to_owned())]);
    }
}
