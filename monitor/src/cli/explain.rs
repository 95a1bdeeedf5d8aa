//! `nodewatch explain`: which rules and policies decide a flow, step by step.
//!
//! From files, or from what the daemon holds where no files are given.

use std::{
    collections::HashSet,
    fmt::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use monitor_core::{event::Protocol, netpol::Options, nsg::Direction};

use super::{
    exit, nsg,
    output::{Format, Output},
    policy,
    table::escape,
};
use crate::{
    api::{
        Request,
        client::{Client, ClientError, Line},
    },
    azure::Sources,
    config::DEFAULT_SOCKET,
    explain::{Asked, ExplainError, Explanation, World, explained, place},
    kube::manifests::Manifests,
};

/// Flags of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The end that opens the connection: an address, NAMESPACE/POD, NAMESPACE/KIND/WORKLOAD or
    /// node/NAME
    #[arg(value_name = "SRC", value_parser = place::checked)]
    source: String,
    /// The end that it leads to: an address, NAMESPACE/POD, NAMESPACE/KIND/WORKLOAD or node/NAME
    #[arg(value_name = "DST", value_parser = place::checked)]
    destination: String,
    /// Its protocol
    #[arg(long, value_name = "NAME|NUMBER", default_value = "tcp")]
    protocol: Protocol,
    /// Port that it leads to
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Port that it comes from
    #[arg(long, value_name = "N")]
    source_port: Option<u16>,
    /// Which way it goes, seen from the rules' network card: inbound or outbound [default: as the
    /// end tells that is a node, a pod or of the virtual network; where both are, rules of both
    /// directions are shown]
    #[arg(long, value_name = "WAY")]
    direction: Option<Direction>,
    #[command(flatten)]
    rules: Sources,
    /// YAML or JSON with policies, pods, nodes and workloads; a directory is read with all below
    /// (repeatable)
    #[arg(long, value_name = "FILE_OR_DIR")]
    manifests: Vec<PathBuf>,
    /// Whether an ipBlock matches addresses of pods: not so with Cilium, for one
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    ip_block_matches_pods: bool,
    /// API socket of the daemon, which is asked for what no file says [default:
    /// /run/nodewatch/api.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// How to print: table, wide, json or jsonl
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// Explains a flow.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let asked = Asked {
        source: args.source.clone(),
        destination: args.destination.clone(),
        protocol: args.protocol,
        port: args.port,
        source_port: args.source_port,
        direction: args.direction,
    };
    let ip = |text: &str| text.parse::<IpAddr>().ok();
    if let (Some(from), Some(to)) = (ip(&asked.source), ip(&asked.destination))
        && from.is_ipv4() != to.is_ipv4()
    {
        return Err(ExplainError::Families.into());
    }
    let is_dash = |path: &PathBuf| path.as_os_str() == "-";
    if args.manifests.iter().any(is_dash) && args.rules.reads_standard_input() {
        bail!("--manifests -: standard input is a file of rules already");
    }
    let loaded = (!args.rules.is_empty())
        .then(|| nsg::load(&args.rules))
        .transpose()?;
    let chain = loaded.as_ref().map(|loaded| &loaded.chain);
    let mut is_partial = false;
    let explanation = if !args.manifests.is_empty() {
        let mut manifests = Manifests::read(&args.manifests)?;
        policy::report(&manifests);
        // The answer rests on the rest only.
        is_partial = manifests.left_out > 0;
        let (cluster, mut policies) = manifests.build(Options {
            blocks_match_pods: args.ip_block_matches_pods,
        });
        let world = World {
            cluster: &cluster,
            policies: &mut policies,
            node: None,
            own: &HashSet::new(),
        };
        explained(&asked, chain, Some(world))?
    } else if chain.is_some() && args.socket.is_none() && !asked.has_names() {
        explained(&asked, chain, None)?
    } else {
        let mut explanation = ask(args, &asked)?;
        if let Some(chain) = chain {
            explanation.judge_by(&asked, chain);
        }
        explanation
    };
    let mut output = Output::stdout();
    let text = match args.output {
        Format::Table | Format::Wide => text(&asked, &explanation, output.color),
        Format::Json => serde_json::to_string_pretty(&explanation)? + "\n",
        Format::Jsonl => serde_json::to_string(&explanation)? + "\n",
    };
    output.write(text.as_bytes())?;
    output.flush()?;
    Ok(if is_partial {
        exit::code(exit::USAGE)
    } else {
        ExitCode::SUCCESS
    })
}

/// Asks the daemon.
fn ask(args: &Args, asked: &Asked) -> anyhow::Result<Explanation> {
    let socket = args.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let answer = runtime.block_on(async {
        let mut client = Client::ask(socket, &Request::Explain(asked.clone())).await?;
        let parsed = match client.next().await? {
            Some(Line::Data(line)) => serde_json::from_slice(line),
            Some(Line::Lost(_)) | None => return Err(client.stopped()),
        };
        parsed.map_err(|source| client.unknown(source))
    });
    match answer {
        Ok(explanation) => Ok(explanation),
        // Nobody named a daemon, so it is files that are missing.
        Err(ClientError::NoDaemon { .. }) if args.socket.is_none() && !asked.has_names() => bail!(
            "no rules: give --nsg subnet=FILE, --nsg nic=FILE, --effective FILE or --manifests \
             DIR; and no daemon answers on {DEFAULT_SOCKET}"
        ),
        Err(ClientError::NoDaemon { .. }) if args.socket.is_none() => bail!(
            "names need --manifests DIR, or a daemon that has them: none answers on \
             {DEFAULT_SOCKET}"
        ),
        Err(error) => Err(error.into()),
    }
}

fn text(asked: &Asked, explanation: &Explanation, color: bool) -> String {
    let mut text = String::new();
    for end in [&explanation.source, &explanation.destination] {
        if let (Some(name), Some(ip)) = (&end.name, end.ip) {
            let _ = writeln!(text, "{} is {ip}", escape(name));
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    match (&explanation.nsg, &explanation.policy) {
        (None, None) => text.push_str("nothing is declared that is about it\n"),
        (nsg, policy) => {
            if let Some(nsg) = nsg {
                text.push_str(&nsg::text(nsg, color));
            }
            if let Some(policy) = policy {
                if nsg.is_some() {
                    text.push('\n');
                }
                let explanation = monitor_core::netpol::Explanation {
                    verdict: policy.verdict.clone(),
                    steps: policy.steps.clone(),
                };
                let (from, to) = (escape(&asked.source), escape(&asked.destination));
                let policies = policy::text(&from, &to, asked.protocol, asked.port, &explanation);
                text.push_str(&policies);
            }
        }
    }
    for note in &explanation.notes {
        let _ = writeln!(text, "note: {}", escape(note));
    }
    text
}
