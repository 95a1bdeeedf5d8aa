//! The command line: one file per sub-command.

mod doctor;
mod exit;
mod explain;
mod filter;
mod findings;
mod flows;
mod human;
mod interrupt;
mod list;
mod lost;
mod nsg;
mod output;
mod policy;
mod render;
mod replay;
mod run;
mod ssh;
mod status;
mod table;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

/// Watch who talks to what on this node, and who opens SSH.
#[derive(Debug, Parser)]
#[command(name = "nodewatch", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon: watch this node's traffic, serve metrics and the API socket
    Run(Box<run::Args>),
    /// Flows of the daemon: recent ones, or live with --follow
    Flows(list::ListArgs),
    /// SSH connections on any port: recent ones, or live with --follow
    Ssh(list::ListArgs),
    /// What is not as declared, or points to an attack: recent, or live with --follow
    Findings(findings::Args),
    /// What is attached, counted, uncounted and lost
    Status(status::Args),
    /// Whether this node can run the daemon, and what to do if not
    Doctor(Box<doctor::Args>),
    /// Which rules decide a flow, step by step
    Explain(Box<explain::Args>),
    /// What network security groups say about flows, and what is wrong with their rules
    Nsg(nsg::Args),
    /// The same analysis of a capture file; needs no privileges and no daemon
    Replay(Box<replay::Args>),
    /// Kubernetes network policies in manifests: judge flows, explain verdicts
    Policy(policy::Args),
}

/// Runs the command that the arguments ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, which may be closed.
            let _ = error.print();
            return exit::code(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(*args),
        Command::Flows(args) => flows::run(args),
        Command::Ssh(args) => ssh::run(args),
        Command::Findings(args) => findings::run(args),
        Command::Status(args) => status::run(&args),
        Command::Doctor(args) => doctor::run(*args),
        Command::Explain(args) => explain::run(&args),
        Command::Nsg(args) => nsg::run(args),
        Command::Replay(args) => replay::run(*args),
        Command::Policy(args) => policy::run(args),
    };
    result.unwrap_or_else(|error| exit::report(&error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_of_every_command_agree() {
        Cli::command().debug_assert();
    }
}
