//! `nodewatch findings`: what is not as declared, or points to an attack.

use std::process::ExitCode;

use monitor_core::event::Record;

use super::{
    exit,
    list::{self, ListArgs, Shape},
    render,
};
use crate::api::Request;

/// Flags of `findings`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    list: ListArgs,
    /// Those of proposed policies only: which connections they would deny or allow
    #[arg(long)]
    proposed: bool,
    /// Exit with 1 if there are any
    #[arg(long)]
    exit_code: bool,
}

/// Prints findings.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shape = Shape {
        request: Request::Findings,
        what: "findings",
        forgotten: if args.proposed {
            |forgotten| forgotten.proposed
        } else {
            |forgotten| forgotten.findings
        },
        titles: |_| &render::FINDING_TITLES,
        widths: &render::FINDING_WIDTHS,
        row: |record, _, _| match record {
            Record::Finding(record) => Some(render::finding(record)),
            _ => None,
        },
    };
    let mut list = args.list;
    list.select_proposed(args.proposed);
    let printed = list::run(list, &shape)?;
    Ok(if args.exit_code && printed > 0 {
        exit::code(exit::FINDINGS)
    } else {
        ExitCode::SUCCESS
    })
}
