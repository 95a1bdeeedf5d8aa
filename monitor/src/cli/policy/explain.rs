//! `nodewatch policy explain`: which policies decide a flow, step by step.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::bail;
use clap::ValueEnum;
use monitor_core::{
    event::Protocol,
    netpol::{Basis, Direction, Explanation, Part},
};

use super::Source;
use crate::{
    cli::{output::Output, table::escape},
    explain::{
        flow_between,
        place::{self, Place},
    },
};

/// Flags of `policy explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The end that opens the connection: an address, NAMESPACE/POD, NAMESPACE/KIND/WORKLOAD or
    /// node/NAME
    #[arg(value_name = "SRC", value_parser = place::checked)]
    from: String,
    /// The end that it leads to: an address, NAMESPACE/POD, NAMESPACE/KIND/WORKLOAD or node/NAME
    #[arg(value_name = "DST", value_parser = place::checked)]
    to: String,
    /// IP protocol
    #[arg(long, value_name = "PROTOCOL", default_value_t = Protocol::TCP)]
    protocol: Protocol,
    /// Port of the destination; of the Service, where its address is the destination
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    #[command(flatten)]
    source: Source,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Explains a flow.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.protocol.has_ports() && args.port.is_none() {
        bail!("--port is needed for {}", args.protocol);
    }
    let mut declared = args.source.read()?;
    let port = args.port.unwrap_or(0);
    let wanted = |text: &str| text.parse::<Place>()?.wanted(&declared.cluster);
    let (from, to) = (wanted(&args.from)?, wanted(&args.to)?);
    let flow = flow_between(&declared.cluster, &from, &to, args.protocol, port)?;
    let explanation = declared.policies.explain(&declared.cluster, &flow);
    let proposed = declared
        .proposed
        .as_mut()
        .map(|proposed| proposed.explain(&declared.cluster, &flow));
    let text = match args.output {
        Format::Text => {
            let text = |explanation: &Explanation| {
                let (from, to) = (escape(&args.from), escape(&args.to));
                text(&from, &to, args.protocol, args.port, explanation)
            };
            let proposed =
                proposed.map(|proposed| format!("\nwith what is proposed:\n{}", text(&proposed)));
            text(&explanation) + &proposed.unwrap_or_default()
        }
        Format::Json => {
            let mut value = serde_json::to_value(&explanation.verdict)?;
            value["steps"] = serde_json::to_value(&explanation.steps)?;
            if let Some(proposed) = proposed {
                let mut verdict = serde_json::to_value(&proposed.verdict)?;
                verdict["steps"] = serde_json::to_value(&proposed.steps)?;
                value["proposed"] = verdict;
            }
            format!("{value}\n")
        }
    };
    let mut output = Output::stdout();
    output.write(text.as_bytes())?;
    output.flush()?;
    Ok(declared.status())
}

/// What policies say about a flow, for people.
pub(in crate::cli) fn text(
    from: &str,
    to: &str,
    protocol: Protocol,
    port: Option<u16>,
    explanation: &Explanation,
) -> String {
    let Explanation { verdict, steps } = explanation;
    let port = port.map(|port| format!(" {port}")).unwrap_or_default();
    let mut text = format!(
        "{from} -> {to} {protocol}{port}: {}\n",
        word(verdict.allowed)
    );
    if let Some(service) = &verdict.service {
        let _ = writeln!(
            text,
            "{to} is service {service}; judged is each pod behind it"
        );
    }
    for (direction, part, whose) in [
        (Direction::Egress, &verdict.egress, from),
        (Direction::Ingress, &verdict.ingress, to),
    ] {
        let _ = writeln!(text, "{direction} of {whose}: {}", describe(part));
        for step in steps
            .iter()
            .filter(|step| step.direction == direction.name())
        {
            let _ = writeln!(text, "  {:<15} {}", step.stage, step.text);
        }
    }
    text
}

fn word(allowed: Option<bool>) -> &'static str {
    match allowed {
        Some(true) => "allowed",
        Some(false) => "denied",
        None => "cannot be told",
    }
}

/// A part of a verdict in one line.
fn describe(part: &Part) -> String {
    let mut text = word(part.allowed).to_owned();
    match (part.basis, part.allowed) {
        (Basis::NoPod, _) => text.push_str(", policies select pods only"),
        (Basis::Default, _) => text.push_str(", no policy decides"),
        (Basis::Itself, _) => text.push_str(", a pod reaches itself"),
        (Basis::OwnNode, _) => text.push_str(", the pod's own node"),
        (Basis::Undecided, _) => {
            let _ = write!(text, ": {}", part.reason.as_deref().unwrap_or_default());
        }
        (Basis::Admin | Basis::NetworkPolicy | Basis::Baseline, _) => {}
    }
    if !part.by.is_empty() {
        let _ = write!(text, " by {}", part.by.join(", "));
    }
    if part.plugin_dependent {
        text.push_str(" (depends on the network plugin)");
    }
    text
}
