//! `nodewatch nsg lint`: rules that do nothing, or more than they should.

use std::process::ExitCode;

use anyhow::bail;
use ipnet::IpNet;
use monitor_core::nsg::lint::{Issue, Observed, Options, lint};
use serde::Serialize;

use super::flows::Flows;
use crate::{
    azure::Sources,
    cli::{
        exit,
        output::{Format, Output},
        table::{Cell, escape, table},
    },
};

const TITLES: [&str; 5] = ["CHECK", "NSG", "RULE", "WHY", "SUGGESTION"];

/// Flags of `nsg lint`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    rules: Sources,
    /// Flows that were observed, to find rules that are wider: as for `nsg eval`, or
    /// `nodewatch flows --all --point uplink -o jsonl`; `-` for standard input
    #[arg(long, value_name = "FILE")]
    flows: Option<String>,
    /// Addresses of pods, where they are not of the virtual network (repeatable)
    #[arg(long, value_name = "CIDR")]
    pod_cidr: Vec<IpNet>,
    /// Exit with 1 if there is something to change
    #[arg(long)]
    exit_code: bool,
    /// How to print: table, wide, json or jsonl
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// An issue as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    version: u8,
    #[serde(flatten)]
    issue: &'a Issue,
}

/// Looks for rules to change.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.rules.is_empty() {
        bail!("no rules: give --nsg subnet=FILE, --nsg nic=FILE or --effective FILE");
    }
    if args.flows.as_deref() == Some("-") && args.rules.reads_standard_input() {
        bail!("--flows -: standard input is a file of rules already");
    }
    let chain = args.rules.chain()?;
    let observed = match &args.flows {
        None => None,
        Some(file) => {
            let mut observed = Observed::default();
            let mut flows = Flows::open(file)?;
            while let Some(flow) = flows.next()? {
                observed.add(&chain, &flow.tuple);
            }
            Some(observed)
        }
    };
    let options = Options {
        observed: observed.as_ref(),
        pods: args.pod_cidr.clone(),
    };
    let issues = lint(&chain, &options);
    print(&issues, args.output)?;
    Ok(if args.exit_code && !issues.is_empty() {
        exit::code(exit::FINDINGS)
    } else {
        ExitCode::SUCCESS
    })
}

fn print(issues: &[Issue], format: Format) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    let lines: Vec<_> = issues
        .iter()
        .map(|issue| Line {
            r#type: "lint",
            version: 1,
            issue,
        })
        .collect();
    match format {
        Format::Jsonl => {
            for line in lines {
                let mut text = serde_json::to_vec(&line)?;
                text.push(b'\n');
                output.write(&text)?;
            }
        }
        Format::Json => {
            output.write(&serde_json::to_vec_pretty(&lines)?)?;
            output.write(b"\n")?;
        }
        Format::Table | Format::Wide => {
            let rows: Vec<_> = issues.iter().map(row).collect();
            output.write(table(&TITLES, &rows, output.color).as_bytes())?;
        }
    }
    output.flush()
}

fn row(issue: &Issue) -> Vec<Cell> {
    let cell = |text: &str| Cell::from(escape(text));
    vec![
        cell(issue.check.name()),
        cell(&format!("{} {}", issue.nsg, issue.name)),
        cell(&format!(
            "{} ({} {})",
            issue.rule, issue.direction, issue.priority
        )),
        cell(&issue.why),
        cell(&issue.suggestion),
    ]
}
