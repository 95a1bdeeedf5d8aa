//! `nodewatch nsg profile`: what a platform needs from the rules, as a file to read and to change.

use std::process::ExitCode;

use clap::ValueEnum;
use monitor_core::nsg::profile::AKS;

use crate::cli::output::Output;

/// Flags of `nsg profile`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which
    #[arg(value_name = "NAME", value_enum, default_value_t)]
    name: Name,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Azure Kubernetes Service
    #[default]
    Aks,
}

/// Prints a profile.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = match args.name {
        Name::Aks => AKS,
    };
    let mut output = Output::stdout();
    output.write(text.as_bytes())?;
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}
