//! `nodewatch flows`: who talks to whom.

use std::process::ExitCode;

use monitor_core::event::Record;

use super::{
    list::{self, ListArgs, Shape},
    render,
};
use crate::api::Request;

/// Prints flows.
pub(super) fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let shape = Shape {
        request: Request::Flows,
        what: "flows",
        forgotten: |forgotten| forgotten.flows,
        titles: |wide| {
            if wide {
                &render::WIDE_TITLES
            } else {
                &render::TITLES
            }
        },
        widths: &render::WIDTHS,
        row: |record, wide, numeric| match record {
            Record::Flow(record) => Some(render::row_as(record, wide, numeric)),
            _ => None,
        },
    };
    list::run(args, &shape)?;
    Ok(ExitCode::SUCCESS)
}
