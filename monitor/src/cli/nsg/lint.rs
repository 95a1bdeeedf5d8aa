//! `nodewatch nsg lint`: rules that do nothing, or more than they should.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use monitor_core::{
    event::{Point, Record},
    filter::{Condition, FlowFilter, Term},
    nsg::{
        Chain, Tuple,
        lint::{Issue, Observed, Options, Unchecked, is_approximate, lint, unchecked},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{APPROXIMATE, flows::Flows};
use crate::{
    api::{
        Lint, List, Request,
        client::{Client, ClientError, Line as ClientLine},
    },
    azure::Sources,
    cli::{
        exit,
        output::{Format, Output, complain},
        table::{Cell, escape, table},
    },
    config::DEFAULT_SOCKET,
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
    /// API socket of the daemon: what it observed stands for --flows; without rules, its own are
    /// looked at [default without rules: /run/nodewatch/api.sock]
    #[arg(long, value_name = "PATH", conflicts_with = "flows")]
    socket: Option<PathBuf>,
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

/// An issue as it is printed, and as the daemon sends it.
#[derive(Serialize, Deserialize)]
struct Line {
    r#type: Cow<'static, str>,
    version: u8,
    #[serde(flatten)]
    issue: Issue,
}

/// A line of the daemon's answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answered {
    Issue(Line),
    Unchecked(Unchecked),
    /// Whether its rules name an Internet that is computed.
    Basis {
        approximate: bool,
    },
}

/// Looks for rules to change.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.rules.is_empty() {
        return run_daemon(args);
    }
    if args.flows.as_deref() == Some("-") && args.rules.reads_standard_input() {
        bail!("--flows -: standard input is a file of rules already");
    }
    let loaded = super::read(&args.rules)?;
    let chain = &loaded.chain;
    let observed = match (&args.flows, &args.socket) {
        (None, None) => None,
        (Some(file), _) => {
            let mut observed = Observed::default();
            let mut flows = Flows::open(file)?;
            while let Some(flow) = flows.next()? {
                if !flow.is_guess {
                    observed.add(chain, &flow.tuple, flow.outcome);
                }
            }
            Some(observed)
        }
        (None, Some(socket)) => Some(observed_by(socket, chain)?),
    };
    let options = Options {
        observed: observed.as_ref(),
        pods: args.pod_cidr.clone(),
        profile: loaded
            .profile
            .as_ref()
            .map(|profile| (profile, &loaded.names)),
    };
    let issues: Vec<_> = lint(chain, &options)
        .into_iter()
        .map(|issue| Line {
            r#type: "lint".into(),
            version: 1,
            issue,
        })
        .collect();
    super::tell(&unchecked(chain, &options));
    tell_basis(is_approximate(chain));
    finish(args, &issues)
}

/// Looks at the daemon's rules and what it observed.
fn run_daemon(args: &Args) -> anyhow::Result<ExitCode> {
    const NO_RULES: &str = "no rules: give --nsg subnet=FILE, --nsg nic=FILE or --effective FILE";
    if args.flows.is_some() || args.rules.profile.is_some() {
        bail!("{NO_RULES}");
    }
    let socket = args.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET));
    let request = Request::Lint(Lint {
        pods: args.pod_cidr.clone(),
    });
    match block_on(ask(socket, &request))? {
        Ok(lines) => {
            let (mut issues, mut unchecked, mut is_approximate) = (Vec::new(), Vec::new(), false);
            for line in lines {
                match line {
                    Answered::Issue(issue) => issues.push(issue),
                    Answered::Unchecked(one) => unchecked.push(one),
                    Answered::Basis { approximate } => is_approximate |= approximate,
                }
            }
            super::tell(&unchecked);
            tell_basis(is_approximate);
            finish(args, &issues)
        }
        // Nobody named a daemon, so it is files that are missing.
        Err(ClientError::NoDaemon { .. }) if args.socket.is_none() => {
            bail!("{NO_RULES}; and no daemon answers on {DEFAULT_SOCKET}")
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells what was taken for the Internet, where rules name it.
fn tell_basis(is_approximate: bool) {
    if is_approximate {
        complain(&format!(
            "what is said of rules for Internet rests on {APPROXIMATE}"
        ));
    }
}

/// What the daemon observed at uplinks, by these rules.
fn observed_by(socket: &Path, chain: &Chain) -> anyhow::Result<Observed> {
    let request = Request::Flows(List {
        filter: FlowFilter {
            terms: vec![Term {
                not: false,
                condition: Condition::Point(Point::Uplink),
            }],
            ..FlowFilter::default()
        },
        last: None,
        follow: false,
    });
    let records: Vec<Record> = block_on(ask(socket, &request))??;
    let mut observed = Observed::default();
    for record in records {
        if let Record::Flow(flow) = record
            && let Some(tuple) = Tuple::of(&flow)
        {
            observed.add(chain, &tuple, Some(flow.outcome));
        }
    }
    Ok(observed)
}

fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    Ok(runtime.block_on(future))
}

/// All lines of the daemon's answer.
async fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<Vec<T>, ClientError> {
    let mut client = Client::ask(socket, request).await?;
    let mut found = Vec::new();
    loop {
        let parsed = match client.next().await? {
            Some(ClientLine::Data(line)) => serde_json::from_slice(line),
            Some(ClientLine::Lost(_)) => continue,
            None => return Ok(found),
        };
        found.push(parsed.map_err(|source| client.unknown(source))?);
    }
}

fn finish(args: &Args, issues: &[Line]) -> anyhow::Result<ExitCode> {
    print(issues, args.output)?;
    Ok(if args.exit_code && !issues.is_empty() {
        exit::code(exit::FINDINGS)
    } else {
        ExitCode::SUCCESS
    })
}

fn print(lines: &[Line], format: Format) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    match format {
        Format::Jsonl => {
            for line in lines {
                let mut text = serde_json::to_vec(line)?;
                text.push(b'\n');
                output.write(&text)?;
            }
        }
        Format::Json => {
            output.write(&serde_json::to_vec_pretty(lines)?)?;
            output.write(b"\n")?;
        }
        Format::Table | Format::Wide => {
            let rows: Vec<_> = lines.iter().map(|line| row(&line.issue)).collect();
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
