//! A real Kubernetes cluster on this machine, and nodewatch in it as a user installs it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use tests::cluster::story::{Act, IMAGE, Story, say};
use tests::cluster::{Cluster, NEEDS, Network, image, programs};
use tests::daemon;
use tests::lab::{gate, interrupt, sweep, wait};

/// What `up` left for `down`.
const STATE: &str = "/run/nodewatch-cluster.json";
/// How long a start and an end may take.
const START: Duration = Duration::from_mins(5);
const END: Duration = Duration::from_mins(1);

#[derive(Parser)]
#[command(about = "A real Kubernetes cluster on this machine, with nodewatch in it")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cluster in the background, with nodewatch, workloads and an SSH server
    Up(Size),
    /// Show the whole story in a cluster of its own, which is removed
    Demo(Size),
    /// Remove what `up` started
    Down,
    /// What `up` starts in the background
    #[command(hide = true)]
    Hold(Size),
}

#[derive(Args, Clone, Copy)]
struct Size {
    /// Nodes: the first has its pods on a bridge, others have them routed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    nodes: u8,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let action = Arguments::parse().action;
    if let Some(reason) = gate::obstacle() {
        bail!("{reason}");
    }
    if let Some(reason) = programs::missing(&NEEDS) {
        bail!("{reason}");
    }
    match action {
        Action::Up(size) => up(size),
        Action::Demo(size) => {
            interrupt::prepare();
            demo(size)
        }
        Action::Down => down(),
        Action::Hold(size) => {
            interrupt::prepare();
            hold(size)
        }
    }
}

/// Builds the cluster with the agent and the shop in it.
fn build(size: Size) -> Result<Story> {
    let start = Instant::now();
    let mut cluster = Cluster::start("cluster", Network::Bridge)?;
    for _ in 1..size.nodes {
        cluster.add_node(Network::Routed)?;
    }
    say(&format!(
        "{} node(s) of Kubernetes are Ready after {:.1} s",
        size.nodes,
        start.elapsed().as_secs_f64()
    ));
    // Without one it is made of the binary.
    let image = match std::env::var_os(IMAGE) {
        Some(archive) => PathBuf::from(archive),
        None => image::agent(cluster.lab().directory(), daemon::binary()?)?,
    };
    Story::new(cluster, &image)
}

fn demo(size: Size) -> Result<()> {
    let start = Instant::now();
    let story = build(size)?;
    let told = tell(&story);
    drop(story);
    let left = sweep::leftovers();
    say(&format!(
        "everything is removed; {:.1} s in all",
        start.elapsed().as_secs_f64()
    ));
    told?;
    if !left.is_empty() {
        bail!("left behind: {}", left.join(", "));
    }
    Ok(())
}

fn tell(story: &Story) -> Result<()> {
    let acts: [(&str, Act); 19] = [
        (
            "kubectl apply -k deploy/overlays/minimal",
            Story::apply_as_it_is,
        ),
        ("privileges of the agent", Story::privileges),
        (
            "every overlay and component, by the API server",
            Story::dry_run,
        ),
        (
            "workloads and a NetworkPolicy that nothing enforces",
            Story::workloads,
        ),
        ("names of both ends", Story::names),
        ("a policy violation", Story::violation),
        ("calm before the incident", Story::calm),
        (
            "a configuration: SSH, a security group, metrics for a Prometheus",
            Story::configure,
        ),
        ("a pod on the host's network", Story::host_pods),
        ("a real Prometheus", Story::watch),
        ("an incident", Story::incident),
        ("what a user sees", Story::look),
        ("connections as they happen", Story::follow),
        ("drain and uncordon under traffic", Story::drain),
        ("the alerts are resolved", Story::resolved),
        ("a hundred thousand connections at once", Story::load),
        (
            "without each of the capabilities",
            Story::without_each_capability,
        ),
        ("kubectl delete -k", Story::remove),
        ("a node without its agent", Story::agent_down),
    ];
    for (what, act) in acts {
        if interrupt::happened() {
            bail!("interrupted");
        }
        println!("\n--- {what}");
        act(story).with_context(|| what.to_owned())?;
    }
    Ok(())
}

fn hold(size: Size) -> Result<()> {
    let story = build(size)?;
    story.apply_as_it_is()?;
    story.configure()?;
    story.workloads()?;
    let node = story.cluster.lab().node();
    let state = json!({
        "pid": std::process::id(),
        "started": started(std::process::id()),
        "kubeconfig": story.cluster.kubeconfig(),
        "enter": node.shell_line(""),
    });
    fs::write(STATE, state.to_string()).with_context(|| format!("cannot write {STATE}"))?;
    interrupt::wait(Duration::from_hours(24 * 7));
    drop(story);
    fs::remove_file(STATE).with_context(|| format!("cannot remove {STATE}"))
}

fn up(size: Size) -> Result<()> {
    if running()?.is_some() {
        bail!("a cluster is up already; `cargo xtask cluster down` removes it");
    }
    sweep::stale();
    let log = std::env::temp_dir().join("nodewatch-cluster.log");
    let output =
        fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["hold", "--nodes", &size.nodes.to_string()])
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Ctrl-C at the terminal is not meant for it.
        .process_group(0)
        .spawn()
        .context("cannot start in the background")?;
    let ready = wait::until("the cluster", START, || match child.try_wait() {
        Ok(None) => running().ok()?.map(Some),
        _ => Some(None),
    });
    let Some(state) = ready? else {
        bail!(
            "it ended:\n{}",
            fs::read_to_string(&log).unwrap_or_default()
        );
    };
    print!("{}", fs::read_to_string(&log).unwrap_or_default());
    let enter = state["enter"].as_str().unwrap_or_default();
    let kubeconfig = state["kubeconfig"].as_str().unwrap_or_default();
    println!(
        "\nTo try:\n  export KUBECONFIG={kubeconfig}\n  \
         {enter}kubectl get pods -A -o wide\n  \
         {enter}kubectl -n nodewatch exec -it ds/nodewatch -- nodewatch flows -f\n  \
         {enter}kubectl -n nodewatch exec ds/nodewatch -- nodewatch findings --all\n\n\
         `cargo xtask cluster down` removes it."
    );
    Ok(())
}

fn down() -> Result<()> {
    if let Some(state) = running()? {
        let pid = state["pid"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.with_context(|| format!("{STATE} names no process"))?;
        // SAFETY: kill takes plain integers; that the process is the one of `up` was just checked.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        wait::until("the cluster to end", END, || {
            (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        })?;
    }
    let _ = fs::remove_file(STATE);
    // For one that was killed.
    sweep::stale();
    println!("nothing is left of the cluster");
    Ok(())
}

/// What `up` wrote, if its process still runs and is the same.
fn running() -> Result<Option<Value>> {
    let text = match fs::read_to_string(STATE) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {STATE}")),
    };
    let state: Value =
        serde_json::from_str(&text).with_context(|| format!("{STATE} is damaged"))?;
    let pid = state["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok());
    let same = pid.is_some_and(|pid| started(pid).is_some_and(|then| state["started"] == then));
    Ok(same.then_some(state))
}

/// When a process was started, in ticks since the boot: tells it from a later one of the same number.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}
