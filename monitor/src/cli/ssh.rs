//! `nodewatch ssh`: who opens SSH, on any port.

use std::process::ExitCode;

use monitor_core::event::Record;

use super::{
    list::{self, ListArgs, Shape},
    render,
};
use crate::api::Request;

/// Prints SSH connections.
pub(super) fn run(args: ListArgs) -> anyhow::Result<ExitCode> {
    let shape = Shape {
        request: Request::Ssh,
        what: "SSH connections",
        forgotten: |forgotten| forgotten.ssh,
        titles: render::ssh_titles,
        widths: &render::SSH_WIDTHS,
        row: |record, wide, numeric| match record {
            Record::Ssh(record) => Some(render::ssh(record, wide, numeric)),
            _ => None,
        },
    };
    list::run(args, &shape)?;
    Ok(ExitCode::SUCCESS)
}
