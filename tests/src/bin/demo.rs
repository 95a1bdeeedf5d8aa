//! Shows nodewatch at work on real servers and clients in a lab.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use tests::lab::{gate, interrupt};

#[derive(Parser)]
#[command(about = "A lab with real servers, the daemon in its node, and flows as they happen")]
struct Arguments {
    /// Keep the lab until Ctrl-C, to try commands in it
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(reason) = gate::obstacle() {
        bail!("{reason}");
    }
    for tool in [
        "sshd",
        "ssh",
        "ssh-keygen",
        "nginx",
        "openssl",
        "iperf3",
        "curl",
    ] {
        if gate::find_tool(tool).is_none() {
            bail!("program {tool} is not installed (cargo xtask setup installs it)");
        }
    }
    interrupt::prepare();
    tests::demo::run(arguments.keep)
}
