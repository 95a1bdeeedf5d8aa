//! `nodewatch nsg`: what network security groups say about flows.

mod eval;
mod explain;
mod flows;
mod lint;
mod profile;
mod rules;

use std::process::ExitCode;

pub(super) use explain::text;

use monitor_core::nsg::lint::Unchecked;

use crate::{
    azure::{Loaded, Sources},
    cli::output::complain,
};

/// What some verdicts rest on.
const APPROXIMATE: &str = "an Internet computed from VirtualNetwork, which approximates Azure's own \
                           list; effective rules (--effective) have that list";

/// Flags of `nsg`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Judge flows from a file: which rule decides each, and what it says
    Eval(Box<eval::Args>),
    /// The daemon's rules, how often each matched and when
    Rules(rules::Args),
    /// Rules that do nothing, or more than they should
    Lint(Box<lint::Args>),
    /// What a platform needs from the rules: the file behind --profile
    Profile(profile::Args),
}

/// Runs the command that the arguments ask for.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Eval(args) => eval::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Profile(args) => profile::run(&args),
    }
}

/// Reads rules to judge flows by, and tells what is doubtful about them and what verdicts leave out.
pub(super) fn load(rules: &Sources) -> anyhow::Result<Loaded> {
    let loaded = read(rules)?;
    tell(&loaded.chain.needs().unchecked);
    // Before the verdicts: whoever follows a stream of them reads it in time.
    if !rules.has_groups() {
        complain(
            "no network security group is given: whatever admin rules do not deny is allowed, as \
             in Azure where there is none (--nsg subnet=FILE, --nsg nic=FILE or --effective FILE)",
        );
    } else if !rules.has_admin_rules(&loaded.chain) {
        complain(
            "no admin rules given: the verdicts hold where Virtual Network Manager has none \
             (--admin-rules)",
        );
    }
    Ok(loaded)
}

/// Reads rules.
fn read(rules: &Sources) -> anyhow::Result<Loaded> {
    let loaded = rules.load()?;
    for warning in &loaded.warnings {
        complain(&format!("warning: {warning}"));
    }
    Ok(loaded)
}

/// Tells what cannot be checked, and what is missing.
fn tell(unchecked: &[Unchecked]) {
    for sentence in Unchecked::sentences(unchecked) {
        complain(&sentence);
    }
}
