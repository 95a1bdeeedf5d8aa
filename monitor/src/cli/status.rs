//! `nodewatch status`: what is attached, counted, uncounted and lost.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use monitor_core::{
    account::InterfaceStatus,
    cluster::SharedAddresses,
    engine::{KubernetesStatus, ManifestsStatus},
    event::Point,
    flow::Family,
};

use super::{
    exit::Refused,
    human,
    output::{Color, Output, StatusFormat},
    table::{Cell, escape, table},
};
use crate::{
    api::{Answer, StatusAnswer, client},
    config::DEFAULT_SOCKET,
};

/// Interfaces that are not covered, of which the reason is shown.
const UNCOVERED: usize = 10;
/// Files with something left out that are shown.
const FILES: usize = 10;
/// Addresses of several pods that are shown.
const ADDRESSES: usize = 5;

/// Flags of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How to print: table, wide (the same), json, or jsonl (one line)
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: StatusFormat,
    /// API socket of the daemon
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Prints the daemon's status.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Refused::Start)?;
    let status = runtime.block_on(client::status(&args.socket))?;
    let mut output = Output::stdout();
    // As the daemon wrote it: every record has its type.
    let record = |status| Answer::Status(Box::new(status));
    let text = match args.output {
        StatusFormat::Table | StatusFormat::Wide => text(&status, output.color),
        StatusFormat::Json => serde_json::to_string_pretty(&record(status))? + "\n",
        StatusFormat::Jsonl => serde_json::to_string(&record(status))? + "\n",
    };
    output.write(text.as_bytes())?;
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn text(status: &StatusAnswer, color: bool) -> String {
    let StatusAnswer { daemon, engine, .. } = status;
    let mut text = String::new();
    let uptime = engine.time.saturating_since(daemon.started);
    let _ = writeln!(
        text,
        "nodewatch {}, pid {}, up {}",
        escape(&daemon.version),
        daemon.pid,
        human::duration(uptime)
    );
    for (family, flows) in &engine.flows {
        let _ = writeln!(
            text,
            "{} flows: {} of {}",
            title(*family),
            flows.active,
            flows.capacity
        );
    }
    let _ = writeln!(
        text,
        "connections: {}, series: {} of {}",
        engine.connections, engine.series, engine.max_series
    );
    if let Some(processes) = daemon
        .details
        .get("processes")
        .and_then(|told| told.as_str())
    {
        let _ = writeln!(text, "processes: {}", escape(processes));
    }
    if let Some(cgroups) = daemon.details.get("cgroups").and_then(|told| told.as_str()) {
        let _ = writeln!(text, "control groups: {}", escape(cgroups));
    }
    if let Some(translation) = &engine.translation {
        let told = match &translation.unavailable {
            Some(why) => format!("unknown: {why}"),
            None => format!(
                "{} of {} connections asked about, {} unknown",
                translation.translated, translation.asked, translation.unknown
            ),
        };
        let _ = writeln!(text, "translated: {}", escape(&told));
    }
    let mut losses: Vec<String> = Vec::new();
    for (stage, events) in &engine.events_lost {
        if *events > 0 {
            losses.push(format!("{} {events}", stage.name()));
        }
    }
    if engine.connections_merged > 0 {
        losses.push(format!("merged connections {}", engine.connections_merged));
    }
    let losses = if losses.is_empty() {
        "none".to_owned()
    } else {
        losses.join(", ")
    };
    let _ = writeln!(text, "lost: {losses}");
    for (point, unknown) in &engine.openers_unknown {
        let _ = writeln!(
            text,
            "openers: at {}s not known of some flows other than TCP until {}, which no rule judges: {}",
            point.name(),
            unknown.until,
            unknown.reason.why()
        );
    }
    // Nothing is lost of these: they are counted, in the row whose labels read `other`.
    let folded: Vec<String> = engine
        .series_folded
        .iter()
        .filter(|(_, folded)| **folded > 0)
        .map(|(metric, folded)| format!("{} {folded}", escape(metric)))
        .collect();
    if !folded.is_empty() {
        let _ = writeln!(
            text,
            "counted as `other`, beyond --max-series: {}",
            folded.join(", ")
        );
    }
    text += &uncovered(&engine.interfaces);
    if let Some(nsg) = &engine.nsg {
        let _ = writeln!(text, "nsg: {} rules since {}", nsg.rules.len(), nsg.since);
        if let Some(error) = &nsg.error {
            let _ = writeln!(text, "nsg: a change is refused: {}", escape(error));
        }
    }
    if let Some(policy) = &engine.policy {
        let _ = writeln!(
            text,
            "policies: {} in force, {} proposed; of {} pods here no policy selects {} for ingress, \
             {} for egress",
            policy.policies, policy.proposed, policy.pods, policy.no_ingress, policy.no_egress
        );
    }
    if let Some(cluster) = &engine.kubernetes {
        text.push_str(&cluster_text(cluster));
    }
    if let Some(manifests) = &engine.manifests {
        text.push_str(&manifests_text(manifests));
    }
    if let Some(shared) = &engine.shared_addresses {
        text.push_str(&shared_text(shared));
    }
    text.push('\n');

    let titles = [
        "INTERFACE",
        "POINT",
        "ATTACH",
        "HOOK",
        "SEEN",
        "COUNTED",
        "UNCOUNTED",
        "FLOWS",
    ];
    let mut rows = Vec::new();
    for interface in &engine.interfaces {
        for (name, hook) in [
            ("ingress", &interface.ingress),
            ("egress", &interface.egress),
        ] {
            let attach = if interface.covered {
                Cell::from(escape(&interface.attach).into_owned())
            } else {
                Cell::colored("not covered", Color::Red)
            };
            let uncounted: Vec<_> = hook
                .uncounted
                .iter()
                .filter(|(_, packets)| **packets > 0)
                .map(|(reason, packets)| format!("{} {packets}", escape(reason)))
                .collect();
            rows.push(vec![
                escape(&interface.name).into_owned().into(),
                interface.point.name().into(),
                attach,
                name.into(),
                hook.seen.to_string().into(),
                hook.counted.to_string().into(),
                if uncounted.is_empty() {
                    "0".into()
                } else {
                    uncounted.join(", ").into()
                },
                interface.flows.to_string().into(),
            ]);
        }
    }
    text + &table(&titles, &rows, color)
}

/// How far a cluster is known, and what of it is not.
fn cluster_text(cluster: &KubernetesStatus) -> String {
    let mut text = String::new();
    let known: Vec<String> = ["pods", "services", "networkpolicies"]
        .into_iter()
        .filter_map(|name| {
            let resource = cluster.resources.iter().find(|one| one.resource == name)?;
            Some(format!("{} {name}", resource.objects))
        })
        .collect();
    let _ = writeln!(
        text,
        "cluster: {}, {}",
        escape(&cluster.server),
        known.join(", ")
    );
    for resource in &cluster.resources {
        let name = escape(&resource.resource);
        if !resource.state.is_in_sync() {
            let message = resource.message.as_deref().unwrap_or("no answer yet");
            let state = resource.state.name();
            let _ = writeln!(text, "cluster: {name}: {state}: {}", escape(message));
        }
        if resource.skipped > 0 {
            let skipped = resource.skipped;
            let _ = writeln!(
                text,
                "cluster: {name}: {skipped} are not valid and left out"
            );
        }
        if resource.invalid_addresses > 0 {
            let invalid = resource.invalid_addresses;
            let _ = writeln!(
                text,
                "cluster: {name}: {invalid} addresses are none and not used"
            );
        }
        if let Some(unusable) = &resource.unusable {
            let _ = writeln!(text, "cluster: {name}: the last: {}", escape(unusable));
        }
    }
    text
}

/// What of the files that declare the cluster is left out, and why.
fn manifests_text(manifests: &ManifestsStatus) -> String {
    let mut text = String::new();
    if let Some(error) = &manifests.error {
        let _ = writeln!(text, "manifests: stay as they were: {}", escape(error));
    }
    let mut more = manifests.skipped_elsewhere;
    for (index, file) in manifests.skipped_in.iter().enumerate() {
        if index >= FILES {
            more += file.skipped;
            continue;
        }
        let (name, last) = (escape(&file.file), escape(&file.last));
        let _ = match file.skipped {
            1 => writeln!(text, "manifests: {name}: left out: {last}"),
            skipped => writeln!(
                text,
                "manifests: {name}: {skipped} left out, the last: {last}"
            ),
        };
    }
    if more > 0 {
        let _ = writeln!(text, "manifests: {more} more left out of further files");
    }
    let invalid: u64 = manifests.invalid_addresses.values().sum();
    if let Some(last) = &manifests.last_invalid_address {
        let last = escape(last);
        let _ = writeln!(
            text,
            "manifests: {invalid} addresses are none and not used, the last: {last}"
        );
    }
    text
}

/// Addresses that several pods have.
fn shared_text(shared: &SharedAddresses) -> String {
    let mut text = String::new();
    for address in shared.first.iter().take(ADDRESSES) {
        let others = address.others.join(", ");
        let _ = writeln!(
            text,
            "{} is of several pods: its flows are those of {}, not of {}",
            address.ip,
            escape(&address.pod),
            escape(&others)
        );
    }
    let shown = shared.first.len().min(ADDRESSES) as u64;
    if shared.count > shown {
        let more = shared.count - shown;
        let _ = writeln!(text, "{more} more addresses are of several pods");
    }
    text
}

/// What is not watched, and why.
fn uncovered(interfaces: &[InterfaceStatus]) -> String {
    let mut text = String::new();
    // The slot for packets of interfaces that have none is no interface.
    let interfaces = || interfaces.iter().filter(|interface| interface.ifindex != 0);
    if !interfaces().any(|interface| interface.point == Point::Uplink) {
        text.push_str("no uplink: the traffic of the node is not watched\n");
    }
    let uncovered = interfaces().filter(|interface| !interface.covered);
    let (mut shown, mut more) = (0, 0);
    for interface in uncovered {
        if shown == UNCOVERED {
            more += 1;
            continue;
        }
        shown += 1;
        let reason = interface.reason.as_deref().unwrap_or("not yet attached to");
        let _ = writeln!(
            text,
            "not covered: {}: {}",
            escape(&interface.name),
            escape(reason)
        );
    }
    if more > 0 {
        let _ = writeln!(text, "not covered: {more} more");
    }
    text
}

/// The family's name as people write it.
fn title(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}
