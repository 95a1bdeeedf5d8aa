//! `nodewatch nsg eval`: one verdict for each line of flows, as they come.

use std::process::ExitCode;

use anyhow::bail;
use monitor_core::nsg::{Chain, Step, Verdict};
use serde::Serialize;
use serde_json::Value;

use super::{APPROXIMATE, flows::Flows};
use crate::{
    azure::Sources,
    cli::output::{Output, complain},
};

/// Flags of `nsg eval`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    rules: Sources,
    /// Flows to judge, one JSON object a line; `-` for standard input
    #[arg(long, value_name = "FILE")]
    flows: String,
}

/// A verdict as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    access: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    nsg: &'static str,
    evaluated: Vec<Evaluated<'a>>,
    /// What the profile needs it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    need: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What one place's rules say.
#[derive(Serialize)]
struct Evaluated<'a> {
    nsg: &'static str,
    name: &'a str,
    rule: &'a str,
    priority: u16,
    access: &'static str,
}

/// Judges flows.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.flows == "-" && args.rules.reads_standard_input() {
        bail!("--flows -: standard input is a file of rules already");
    }
    let chain = super::load(&args.rules)?.chain;
    let mut flows = Flows::open(&args.flows)?;
    let mut output = Output::stdout();
    let mut approximate = 0_u64;
    let result = judge(&chain, &mut flows, &mut output, &mut approximate);
    // What was judged before a bad line is shown.
    output.flush()?;
    if approximate > 0 {
        complain(&format!("{approximate} verdicts rest on {APPROXIMATE}"));
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn judge(
    chain: &Chain,
    flows: &mut Flows,
    output: &mut Output,
    approximate: &mut u64,
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    while let Some(flow) = flows.next()? {
        let verdict = chain.judge(&flow.tuple);
        *approximate += u64::from(verdict.is_approximate());
        line.clear();
        serde_json::to_writer(&mut line, &Line::new(flow.id, &verdict, chain))?;
        line.push(b'\n');
        output.write(&line)?;
        if flows.may_wait() {
            output.flush()?;
        }
    }
    Ok(())
}

// === impl Line ===

impl<'a> Line<'a> {
    fn new(id: Option<Value>, verdict: &Verdict<'a>, chain: &'a Chain) -> Self {
        Self {
            id,
            access: verdict.access.name(),
            rule: verdict.rule.map(|rule| &*rule.name),
            nsg: verdict.decided_by.name(),
            evaluated: verdict.steps().map(Evaluated::from).collect(),
            need: chain.needs().of(verdict.tuple()).map(|need| &*need.name),
            reason: verdict.reason(),
        }
    }
}

impl<'a> From<Step<'a>> for Evaluated<'a> {
    fn from(step: Step<'a>) -> Self {
        let rule = step.rule();
        Self {
            nsg: step.level.kind.name(),
            name: &step.level.nsg.name,
            rule: &rule.name,
            priority: rule.priority,
            access: step
                .access()
                .map_or("Indeterminate", |access| access.name()),
        }
    }
}
