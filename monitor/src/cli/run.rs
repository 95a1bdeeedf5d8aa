//! `nodewatch run`: the daemon.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, ConfigError, LogFormat, Settings},
    runtime,
};

/// Flags of the daemon.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
}

/// Flags and file that make a [`Config`].
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Read settings from this TOML file; its keys are the flags' names with `_` for `-`, flags override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the daemon until it is told to stop.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.options.config()?;
    start_log(config.log_format);
    runtime::run(&config)?;
    Ok(ExitCode::SUCCESS)
}

// === impl Options ===

impl Options {
    /// Reads the file and checks everything.
    pub(super) fn config(self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?;
        Config::new(self.settings, file)
    }
}

/// What is logged if nothing is chosen: libraries tell of failures that the daemon tells of itself.
const LOG: &str = "info,kube_client=error,tower=error";

/// Logs to standard error from here on; `RUST_LOG` chooses what, by default from `info` on.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let started = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        super::output::complain(&format!("cannot start the log: {error}"));
    }
}
