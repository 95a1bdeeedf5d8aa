//! `nodewatch nsg rules`: the daemon's rules, and how often each matched.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use monitor_core::{engine::NsgRuleStatus, time::Timestamp};
use serde::Serialize;

use crate::{
    api::client,
    cli::{
        exit::Refused,
        output::{Format, Output},
        table::{Cell, escape, table},
    },
    config::DEFAULT_SOCKET,
};

const TITLES: [&str; 9] = [
    "PLACE",
    "NSG",
    "DIRECTION",
    "PRIORITY",
    "RULE",
    "ACCESS",
    "CONNECTIONS",
    "LAST",
    "MADE BY",
];

/// Flags of `nsg rules`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only rules that never matched
    #[arg(long)]
    never_matched: bool,
    /// How to print: table, wide, json or jsonl
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    /// API socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// A rule as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    /// `nsg-rule`.
    r#type: &'static str,
    /// Of the record schema.
    version: u32,
    /// Until when matches are counted.
    time: Timestamp,
    #[serde(flatten)]
    rule: &'a NsgRuleStatus,
}

// === impl Line ===

impl<'a> Line<'a> {
    fn new(rule: &'a NsgRuleStatus, time: Timestamp) -> Self {
        Self {
            r#type: "nsg-rule",
            version: monitor_core::event::VERSION,
            time,
            rule,
        }
    }
}

/// Prints the daemon's rules.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Refused::Start)?;
    let status = runtime.block_on(client::status(&args.socket))?;
    let Some(nsg) = status.engine.nsg else {
        bail!("the daemon has no rules: start it with --nsg or --effective");
    };
    let is_wanted = |rule: &&NsgRuleStatus| !args.never_matched || rule.connections == 0;
    let rules = nsg.rules.iter().filter(is_wanted);
    let rules: Vec<_> = rules
        .map(|rule| Line::new(rule, status.engine.time))
        .collect();
    let mut output = Output::stdout();
    match args.output {
        Format::Jsonl => {
            for rule in rules {
                output.write((serde_json::to_string(&rule)? + "\n").as_bytes())?;
            }
        }
        Format::Json => output.write((serde_json::to_string_pretty(&rules)? + "\n").as_bytes())?,
        Format::Table | Format::Wide => {
            let rows: Vec<_> = rules.iter().map(|line| row(line.rule)).collect();
            output.write(table(&TITLES, &rows, output.color).as_bytes())?;
        }
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn row(rule: &NsgRuleStatus) -> Vec<Cell> {
    vec![
        escape(&rule.place).into(),
        escape(&rule.nsg).into(),
        rule.direction.name().into(),
        rule.priority.to_string().into(),
        escape(&rule.rule).into(),
        rule.access.name().into(),
        rule.connections.to_string().into(),
        rule.last
            .map_or_else(|| "never".to_owned(), |last| last.to_string())
            .into(),
        rule.made_by.map_or("-", |maker| maker.name()).into(),
    ]
}
