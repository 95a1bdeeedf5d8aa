//! `nodewatch doctor`: can this node run the daemon, and what to do if not.

mod manifests;

use std::{fmt::Write as _, path::Path, process::ExitCode};

use monitor_common::abi::{Counters, FlowKey4, FlowKey6, Place, SLOTS, split};
use monitor_core::event::Point;
use serde::Serialize;

use super::{
    exit::{self, Refused},
    human,
    output::{Color, Output, StatusFormat},
    run::Options,
    table::{Cell, escape, table},
};
use crate::{
    api::client::{self, ClientError},
    config::Config,
    host::{
        self,
        cgroups::{self, Cgroups},
        conntrack::Conntrack,
        owner::{self, Finder},
    },
    source::{
        ebpf::{self, Neighbours},
        links::Watcher,
        select::Selection,
    },
};

/// Interfaces whose neighbours are shown.
const SHOWN: usize = 8;

/// Flags of `doctor`: those of `run`, since it checks what `run` would do.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How to print: table, wide (the same), json, or jsonl (one line per check)
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: StatusFormat,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    #[serde(rename = "check")]
    subject: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// Prints the checks; status 3 if one fails.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.options.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Refused::Start)?;
    let checks = runtime.block_on(checks(&config));
    let mut output = Output::stdout();
    let text = match args.output {
        StatusFormat::Json => serde_json::to_string_pretty(&checks)? + "\n",
        StatusFormat::Jsonl => {
            let mut lines = String::new();
            for check in &checks {
                lines += &(serde_json::to_string(check)? + "\n");
            }
            lines
        }
        StatusFormat::Table | StatusFormat::Wide => text(&checks, output.color),
    };
    output.write(text.as_bytes())?;
    output.flush()?;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed {
        exit::code(exit::REFUSED)
    } else {
        ExitCode::SUCCESS
    })
}

fn text(checks: &[Check], color: bool) -> String {
    let rows: Vec<_> = checks
        .iter()
        .map(|check| {
            let (word, color) = match check.verdict {
                Verdict::Ok => ("ok", Color::Green),
                Verdict::Warn => ("warn", Color::Yellow),
                Verdict::Fail => ("FAIL", Color::Red),
            };
            vec![
                Cell::colored(word, color),
                check.subject.into(),
                escape(&check.found).into_owned().into(),
                check.advice.clone().unwrap_or_default().into(),
            ]
        })
        .collect();
    table(&["VERDICT", "CHECK", "FOUND", "WHAT TO DO"], &rows, color)
}

async fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![
        kernel(),
        capabilities(),
        processes(),
        translation(),
        control_groups(),
        program(config),
        memory(config),
        jit(),
    ];
    checks.push(mount(
        "bpffs",
        "/sys/fs/bpf",
        "not needed: nothing is pinned",
    ));
    checks.push(mount(
        "tracefs",
        "/sys/kernel/tracing",
        "not needed: no tracepoint is used",
    ));
    checks.push(btf());
    checks.extend(interfaces(config).await);
    checks.extend(manifests::check(config));
    checks.push(daemon(config).await);
    checks
}

fn ok(subject: &'static str, found: impl Into<String>) -> Check {
    Check {
        subject,
        verdict: Verdict::Ok,
        found: found.into(),
        advice: None,
    }
}

fn bad(
    subject: &'static str,
    verdict: Verdict,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> Check {
    Check {
        subject,
        verdict,
        found: found.into(),
        advice: Some(advice.into()),
    }
}

fn kernel() -> Check {
    let release = host::kernel_release();
    match host::check_kernel() {
        Ok(()) => ok("kernel", release),
        Err(error) => bad("kernel", Verdict::Fail, release, error.to_string()),
    }
}

fn capabilities() -> Check {
    match host::missing_capabilities() {
        missing if missing.is_empty() => ok("capabilities", "all that are needed"),
        missing => bad(
            "capabilities",
            Verdict::Fail,
            format!("without {}", missing.join(", ")),
            "run as root, or grant them",
        ),
    }
}

/// Whether the daemon can tell processes and users; it does without.
fn processes() -> Check {
    let missing = Finder::new().err();
    let found = owner::words(missing.as_ref());
    let advice = match missing {
        // Without those of pods, too: that takes a privilege that is not asked for.
        None if owner::sees_all_processes() => return ok("processes", found),
        None => {
            "a pod: hostPID: true; another container: the host's PID namespace (docker: --pid=host)"
        }
        Some(_) => "run as root, or grant CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
    };
    bad("processes", Verdict::Warn, found, advice)
}

/// Whether the daemon can tell how connections are translated; it does without.
fn translation() -> Check {
    match Conntrack::new() {
        Ok(_) => ok("address translation", "known from connection tracking"),
        Err(error) => bad(
            "address translation",
            Verdict::Warn,
            format!("unknown: {error}"),
            "needed only where the node translates addresses: kube-proxy loads nf_conntrack",
        ),
    }
}

/// Whether the daemon can name pods that use the node's network; it does without.
fn control_groups() -> Check {
    let cgroups = Cgroups::new();
    let found = cgroups::words(&cgroups);
    let advice = match cgroups {
        Ok(cgroups) if cgroups.is_whole() => return ok("control groups", found),
        Ok(_) => "run with hostPID: true and CAP_SYS_PTRACE, or mount the node's /sys/fs/cgroup",
        Err(_) => "pods that use the node's network are told as the node",
    };
    bad("control groups", Verdict::Warn, found, advice)
}

/// Loads the program and throws it away: the only sure way to know.
fn program(config: &Config) -> Check {
    let options = ebpf::LoadOptions {
        max_flows4: 1024,
        max_flows6: 1024,
        event_ring_bytes: 65_536,
        log_level: config.kernel_log.level(),
    };
    match ebpf::Kernel::load(&options) {
        Ok(kernel) => {
            let count = kernel.verified_instructions(monitor_common::abi::Hook::Ingress);
            ok(
                "kernel program",
                match count {
                    Some(count) => format!("loads, {count} instructions verified"),
                    None => "loads".to_owned(),
                },
            )
        }
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().to_owned();
            bad(
                "kernel program",
                Verdict::Fail,
                first,
                "see `nodewatch run` for the whole message",
            )
        }
    }
}

fn memory(config: &Config) -> Check {
    // A place; for a spare one an element of a preallocated hash (a header of 48 bytes, key and
    // number; 16 per bucket) and a word on the stack.
    let bytes = |flows: u32, place: usize, key: usize| {
        u64::from(flows) * place as u64 + u64::from(split(flows).1) * (48 + key + 8 + 16 + 4) as u64
    };
    let flows = bytes(
        config.max_flows4,
        size_of::<Place<FlowKey4>>(),
        size_of::<FlowKey4>(),
    ) + bytes(
        config.max_flows6,
        size_of::<Place<FlowKey6>>(),
        size_of::<FlowKey6>(),
    );
    let mut found = format!("{} for flow tables", human::bytes(flows));
    if let Some(cpus) = host::possible_cpus() {
        let counters = (cpus * size_of::<Counters>()) as u64 * u64::from(SLOTS + 1);
        let counters = human::bytes(counters);
        let _ = write!(found, ", {counters} for counters of {cpus} possible CPUs");
    }
    ok("kernel memory", found)
}

fn jit() -> Check {
    match std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(value) if value.trim() == "0" => bad(
            "BPF JIT",
            Verdict::Warn,
            "off: each packet costs several times more",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Ok(_) => ok("BPF JIT", "on"),
        Err(_) => ok("BPF JIT", "not told (always on in many kernels)"),
    }
}

fn mount(check: &'static str, path: &'static str, note: &'static str) -> Check {
    let is_there = Path::new(path)
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some());
    ok(
        check,
        if is_there {
            format!("at {path}, {note}")
        } else {
            format!("absent, {note}")
        },
    )
}

fn btf() -> Check {
    let found = if Path::new("/sys/kernel/btf/vmlinux").exists() {
        "present"
    } else {
        "absent"
    };
    ok(
        "kernel BTF",
        format!("{found}, not needed: no kernel structure is read"),
    )
}

async fn interfaces(config: &Config) -> Vec<Check> {
    let names = async {
        let selection =
            Selection::new(&config.uplink, &config.workload).map_err(|error| error.to_string())?;
        let watcher = Watcher::new().map_err(|error| error.to_string())?;
        let defaults = watcher
            .default_route_links()
            .await
            .map_err(|error| error.to_string())?;
        let links = watcher.links().await.map_err(|error| error.to_string())?;
        let is_there = |name: &&String| links.iter().any(|link| link.name == **name);
        let absent = config.uplink.iter().filter(|name| !is_there(name));
        let absent: Vec<String> = absent.cloned().collect();
        let (mut uplinks, mut workloads) = (Vec::new(), Vec::new());
        let mut others = Others::default();
        for link in links {
            match selection.point(&link.name, defaults.contains(&link.ifindex)) {
                Some(Point::Uplink) => uplinks.push(link.name.clone()),
                Some(Point::Workload) => workloads.push(link.name.clone()),
                None => continue,
            }
            let found = ebpf::neighbours(&watcher, link.ifindex, &link.name).await;
            others.add(link.name, &found);
        }
        Ok::<_, String>((uplinks, absent, workloads, others))
    };
    match names.await {
        Err(error) => {
            vec![bad(
                "interfaces",
                Verdict::Fail,
                error,
                "run in a network namespace that allows it",
            )]
        }
        Ok((uplinks, absent, workloads, others)) => {
            let uplink = if !absent.is_empty() {
                let found = format!("there is no interface {}", absent.join(", "));
                let advice = format!("see {}; `ip link` lists interfaces", config.uplink_origin);
                bad("uplink", Verdict::Fail, found, advice)
            } else if uplinks.is_empty() {
                let advice = "name one with --uplink";
                bad(
                    "uplink",
                    Verdict::Warn,
                    "no default route leads to an interface",
                    advice,
                )
            } else {
                ok("uplink", uplinks.join(", "))
            };
            vec![
                uplink,
                ok("workload interfaces", format!("{} found", workloads.len())),
                others.check(),
            ]
        }
    }
}

/// What others have on our interfaces.
#[derive(Default)]
struct Others {
    lines: Vec<String>,
    more: usize,
    /// Interfaces where nothing can be attached in front of them.
    full: Vec<String>,
}

// === impl Others ===

impl Others {
    fn add(&mut self, interface: String, found: &Neighbours) {
        if found.programs.is_empty() {
            return;
        }
        if self.lines.len() < SHOWN {
            let programs: Vec<_> = found.programs.iter().map(ToString::to_string).collect();
            self.lines
                .push(format!("{interface}: {}", programs.join(", ")));
        } else {
            self.more += 1;
        }
        if found.is_full() {
            self.full.push(interface);
        }
    }

    fn check(mut self) -> Check {
        const SUBJECT: &str = "neighbours";
        if self.lines.is_empty() {
            return ok(SUBJECT, "no other programs on the hooks of our interfaces");
        }
        if self.more > 0 {
            self.lines.push(format!("{} more interfaces", self.more));
        }
        let found = self.lines.join("; ");
        if self.full.is_empty() {
            return ok(SUBJECT, found);
        }
        self.full.truncate(SHOWN);
        let advice = format!(
            "a filter of priority 1 leaves no room in front of it: {} will not be covered",
            self.full.join(", ")
        );
        bad(SUBJECT, Verdict::Warn, found, advice)
    }
}

async fn daemon(config: &Config) -> Check {
    match client::status(&config.socket).await {
        Ok(status) => ok("daemon", format!("runs, pid {}", status.daemon.pid)),
        Err(error @ ClientError::Permission { .. }) => {
            let advice = "run as root to learn whether one runs";
            bad("daemon", Verdict::Warn, error.to_string(), advice)
        }
        Err(_) => ok(
            "daemon",
            format!("none answers on {}", config.socket.display()),
        ),
    }
}
