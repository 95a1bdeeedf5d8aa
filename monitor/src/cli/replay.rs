//! `nodewatch replay`: the same analysis of a capture.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use monitor_core::{
    engine::{self, Capacity, Config, Engine},
    entity::{NamedRange, parse_net},
    event::{Record, State},
    filter::FlowFilter,
    judge::Expectations,
    time::Timestamp,
};

use super::{
    exit,
    filter::FilterArgs,
    interrupt::{Input, Interrupted},
    output::{Format, Output, complain},
    policy, render,
    table::{Cell, Columns, table},
};
use crate::{
    azure::Sources,
    kube::manifests::Manifests,
    runtime::now,
    source::replay::{Notes, ReplayOptions, STEP_BACK_NS, replay_noting},
};

/// Rows of a table that are kept until their columns' widths are known.
const ROWS: usize = 10_000;

/// Flags of `replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The capture, pcap or pcapng; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Addresses that are local: they are the local end of their flows (repeatable). Without any,
    /// groups judge flows of which the ends tell which is at the network card
    #[arg(long, value_name = "CIDR", value_parser = local)]
    local: Vec<IpNet>,
    /// Name a range of addresses (repeatable)
    #[arg(long, value_name = "NAME=CIDR")]
    range: Vec<NamedRange>,
    /// SSH to nodes is expected from this range (repeatable)
    #[arg(long, value_name = "NAME=CIDR")]
    expect_ssh: Vec<NamedRange>,
    /// SSH to pods is expected from this range (repeatable)
    #[arg(long, value_name = "NAME=CIDR")]
    expect_ssh_pod: Vec<NamedRange>,
    /// YAML or JSON with Kubernetes objects: pods are named, and flows judged by network policies; a
    /// directory is read with all below (repeatable)
    #[arg(long, value_name = "FILE_OR_DIR")]
    manifests: Vec<PathBuf>,
    /// Policies that are proposed: judged in place of those of the same names, beside the others; what
    /// they would change is a finding (repeatable)
    #[arg(long, value_name = "FILE_OR_DIR")]
    proposed: Vec<PathBuf>,
    /// Whether an ipBlock matches addresses of pods: not so with Cilium, for one
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    ip_block_matches_pods: bool,
    #[command(flatten)]
    rules: Sources,
    /// Print flows and SSH connections also when they open, not only when they close
    #[arg(long)]
    open: bool,
    /// The most metric series; as for `run`
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    max_series: usize,
    /// The most flows of each family at a time; packets beyond are counted as uncounted
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_flows: usize,
    /// How to print: table, wide, json or jsonl [default: table on a terminal, else jsonl]
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Format>,
    /// Records to print; all packets are analysed and summed up
    #[command(flatten)]
    filter: FilterArgs,
}

fn local(text: &str) -> Result<IpNet, String> {
    parse_net(text).ok_or_else(|| "not an address or address range such as 192.0.2.0/24".to_owned())
}

/// Replays a capture.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let name = args.file.display().to_string();
    let format = args.output.unwrap_or_else(|| {
        if io::stdout().is_terminal() {
            Format::Table
        } else {
            Format::Jsonl
        }
    });
    let is_stdin = |path: &PathBuf| path.as_os_str() == "-";
    if name == "-" && args.manifests.iter().any(is_stdin) {
        bail!("the capture and --manifests cannot both be standard input");
    }
    let input: Box<dyn Read> = if name == "-" {
        Box::new(crate::stdin::take().with_context(|| name.clone())?)
    } else {
        let file = File::open(&args.file).with_context(|| name.clone())?;
        if file.metadata().with_context(|| name.clone())?.is_dir() {
            bail!("{name}: is a directory");
        }
        Box::new(file)
    };
    let mut manifests = Manifests::read(&args.manifests)?;
    policy::report(&manifests);
    let proposed = policy::proposed(&args.proposed, &mut manifests)?;
    // Rules that cannot be used are refused before anything is printed.
    let rules = (!args.rules.is_empty())
        .then(|| super::nsg::load(&args.rules))
        .transpose()?
        .map(|loaded| loaded.chain);
    let start = Instant::now();
    let mut engine = Engine::new(Config {
        max_series: args.max_series,
        capacity: Capacity::each(u64::try_from(args.max_flows).unwrap_or(u64::MAX)),
        // Nobody asks for closed flows later: they are printed.
        recent: 0,
        ranges: args.range,
        expectations: Expectations {
            node: args.expect_ssh,
            pod: args.expect_ssh_pod,
        },
        is_all_local: args.local.is_empty(),
        policy_options: monitor_core::netpol::Options {
            blocks_match_pods: args.ip_block_matches_pods,
        },
        // A capture does not tell what kind of interface it is of.
        policy_everywhere: true,
        ..Config::default()
    })?;
    if let Some(proposed) = proposed {
        engine.propose(proposed);
    }
    engine.declare(manifests.cluster, manifests.policies);
    if let Some(chain) = rules {
        let input = engine::Input::Nsg(Some(Arc::new(chain)));
        engine.step(input, Timestamp::UNIX_EPOCH);
    }
    let options = ReplayOptions {
        local: args.local,
        max_flows: args.max_flows,
    };
    let mut printer = Printer::new(format, args.open, args.filter.0);
    let interrupted = Interrupted::watch();
    let input = Input {
        reader: input,
        interrupted: &interrupted,
    };
    let mut notes = Notes::default();
    let mut undirected = 0_u64;
    let outcome = replay_noting(input, &options, &mut engine, &mut notes, |record| {
        undirected += u64::from(is_undirected(&record));
        printer.record(&record)
    })?;
    if undirected > 0 {
        complain(&format!(
            "{name}: of {undirected} flows the network security groups cannot tell which end is at \
             their network card, so they are not judged: --local CIDR says which addresses are"
        ));
    }
    if notes.names_no_interface {
        complain(&format!(
            "{name}: cooked packets (LINUX_SLL) name no interface: if all interfaces were captured, a \
             packet that crossed two of them counts twice; `tcpdump -i any -y LINUX_SLL2` tells them apart"
        ));
    }
    if notes.steps_back_ns > STEP_BACK_NS {
        complain(&format!(
            "{name}: times step back by up to {} s: until the latest one is reached again, time stands \
             still and flows do not end; a time is wrong, or captures were joined out of order (`mergecap` \
             and `reordercap` sort packets)",
            notes.steps_back_ns / 1_000_000_000
        ));
    }
    let mut summary = engine.summary();
    if summary.packets_seen == 0 {
        // Without a packet there is no time of the capture: the record has that of its making.
        summary.time = now();
    }
    summary.files.push(name.clone());
    summary.wall_time_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let uncounted = summary.packets_uncounted;
    let reasons: Vec<_> = summary
        .uncounted
        .iter()
        .map(|(reason, packets)| format!("{reason} {packets}"))
        .collect();
    printer.summary(summary)?;
    if uncounted > 0 {
        complain(&format!(
            "{uncounted} packets uncounted ({})",
            reasons.join(", ")
        ));
    }
    match outcome {
        _ if interrupted.is_set() => {
            complain(&format!(
                "{name}: interrupted, this is what was read so far"
            ));
            Ok(ExitCode::SUCCESS)
        }
        Ok(()) if manifests.left_out > 0 => Ok(exit::code(exit::USAGE)),
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            complain(&format!("{name}: {error}"));
            Ok(exit::code(exit::USAGE))
        }
    }
}

/// Whether groups do not judge a flow since nobody knows which way it goes.
fn is_undirected(record: &Record) -> bool {
    let Record::Flow(flow) = record else {
        return false;
    };
    let nsg = flow.nsg.as_ref();
    flow.state == State::Closed && nsg.is_some_and(|nsg| nsg.direction.is_none())
}

/// Prints records in a format.
struct Printer {
    output: Output,
    format: Format,
    open: bool,
    filter: FlowFilter,
    columns: Columns,
    rows: Vec<Vec<Cell>>,
    ssh: Vec<Vec<Cell>>,
    findings: Vec<Vec<Cell>>,
    has_header: bool,
    printed: usize,
    line: Vec<u8>,
}

// === impl Printer ===

impl Printer {
    fn new(format: Format, open: bool, filter: FlowFilter) -> Self {
        let output = Output::stdout();
        let titles: &[&str] = if format == Format::Wide {
            &render::WIDE_TITLES
        } else {
            &render::TITLES
        };
        Self {
            columns: Columns::new(titles, output.color),
            output,
            format,
            open,
            filter,
            rows: Vec::new(),
            ssh: Vec::new(),
            findings: Vec::new(),
            has_header: false,
            printed: 0,
            line: Vec::new(),
        }
    }

    fn record(&mut self, record: &Record) -> anyhow::Result<()> {
        let state = match record {
            Record::Flow(flow) => flow.state,
            Record::Ssh(ssh) => ssh.state,
            Record::Finding(_) | Record::Summary(_) => State::Closed,
        };
        if state == State::Open && !self.open {
            return Ok(());
        }
        let is_wanted = match record {
            Record::Flow(flow) => self.filter.matches(flow),
            Record::Ssh(ssh) => self.filter.matches_ssh(ssh),
            Record::Finding(finding) => self.filter.matches_finding(finding),
            Record::Summary(_) => true,
        };
        if !is_wanted {
            return Ok(());
        }
        match (self.format, record) {
            (Format::Jsonl | Format::Json, _) => self.json(record),
            (Format::Table | Format::Wide, Record::Ssh(ssh)) => {
                self.ssh
                    .push(render::ssh(ssh, self.format == Format::Wide, false));
                Ok(())
            }
            (Format::Table | Format::Wide, Record::Finding(finding)) => {
                self.findings.push(render::finding(finding));
                Ok(())
            }
            (Format::Table | Format::Wide, Record::Summary(_)) => Ok(()),
            (Format::Table | Format::Wide, Record::Flow(flow)) => {
                self.rows
                    .push(render::row(flow, self.format == Format::Wide));
                if self.rows.len() >= ROWS {
                    self.table()?;
                }
                Ok(())
            }
        }
    }

    fn json(&mut self, record: &Record) -> anyhow::Result<()> {
        self.line.clear();
        if self.format == Format::Json {
            self.line.extend(if self.printed == 0 {
                b"[\n  "
            } else {
                b",\n  "
            });
        }
        serde_json::to_writer(&mut self.line, record)?;
        if self.format == Format::Jsonl {
            self.line.push(b'\n');
        }
        self.printed += 1;
        self.output.write(&self.line)
    }

    /// Prints the rows so far.
    fn table(&mut self) -> anyhow::Result<()> {
        let mut text = String::new();
        self.columns.fit(&self.rows);
        if !self.has_header {
            self.columns.header(&mut text);
            self.has_header = true;
        }
        for row in self.rows.drain(..) {
            self.columns.row(&mut text, &row);
        }
        self.output.write(text.as_bytes())
    }

    fn summary(&mut self, summary: monitor_core::event::SummaryRecord) -> anyhow::Result<()> {
        match self.format {
            Format::Jsonl => self.json(&Record::from(summary))?,
            Format::Json => {
                self.json(&Record::from(summary))?;
                self.output.write(b"\n]\n")?;
            }
            Format::Table | Format::Wide => {
                self.table()?;
                for (titles, rows) in [
                    (render::ssh_titles(self.format == Format::Wide), &self.ssh),
                    (&render::FINDING_TITLES[..], &self.findings),
                ] {
                    if !rows.is_empty() {
                        let text = format!("\n{}", table(titles, rows, self.output.color));
                        self.output.write(text.as_bytes())?;
                    }
                }
                let text = format!(
                    "\n{} packets: {} counted in {} flows, {} uncounted; {} SSH connections, {} findings; {} ms\n",
                    summary.packets_seen,
                    summary.packets_counted,
                    summary.flows,
                    summary.packets_uncounted,
                    summary.ssh_connections,
                    summary.findings,
                    summary.wall_time_ms
                );
                self.output.write(text.as_bytes())?;
            }
        }
        self.output.flush()
    }
}
