//! `nodewatch explain`: which rules decide a flow, step by step.

use std::{net::IpAddr, process::ExitCode};

use anyhow::bail;
use monitor_core::{
    event::Protocol,
    nsg::{Direction, Tuple},
};
use serde::Serialize;

use super::{
    nsg::NsgExplanation,
    output::{Format, Output},
};

use crate::azure::Sources;

/// Flags of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address that opens the connection
    #[arg(value_name = "SRC")]
    source: IpAddr,
    /// Address that it leads to
    #[arg(value_name = "DST")]
    destination: IpAddr,
    /// Its protocol
    #[arg(long, value_name = "NAME|NUMBER", default_value = "tcp")]
    protocol: Protocol,
    /// Port that it leads to
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Port that it comes from
    #[arg(long, value_name = "N")]
    source_port: Option<u16>,
    /// Which way it goes, seen from the rules' network card: inbound or outbound
    /// [default: outbound if only SRC is of the virtual network, else inbound]
    #[arg(long, value_name = "WAY")]
    direction: Option<Direction>,
    #[command(flatten)]
    rules: Sources,
    /// How to print: table, wide, json or jsonl
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Explanation<'a> {
    r#type: &'static str,
    version: u8,
    protocol: Protocol,
    source: End,
    destination: End,
    nsg: &'a NsgExplanation,
}

#[derive(Serialize)]
struct End {
    ip: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// Explains a flow.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.source.is_ipv4() != args.destination.is_ipv4() {
        bail!("SRC and DST are of different address families");
    }
    if args.rules.is_empty() {
        bail!("no rules: give --nsg subnet=FILE, --nsg nic=FILE or --effective FILE");
    }
    let chain = args.rules.chain()?;
    let tuple = Tuple {
        direction: args
            .direction
            .unwrap_or_else(|| chain.direction(args.source, args.destination)),
        protocol: args.protocol,
        source: args.source,
        source_port: args.source_port,
        destination: args.destination,
        destination_port: args.port,
    };
    let nsg = NsgExplanation::new(&chain, &tuple);
    let explanation = Explanation {
        r#type: "explain",
        version: 1,
        protocol: args.protocol,
        source: End {
            ip: args.source,
            port: args.source_port,
        },
        destination: End {
            ip: args.destination,
            port: args.port,
        },
        nsg: &nsg,
    };
    let mut output = Output::stdout();
    let text = match args.output {
        Format::Table | Format::Wide => nsg.text(output.color),
        Format::Json => serde_json::to_string_pretty(&explanation)? + "\n",
        Format::Jsonl => serde_json::to_string(&explanation)? + "\n",
    };
    output.write(text.as_bytes())?;
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}
