//! The demonstration: a lab, real servers and clients, the daemon in the node, flows as they come.

pub mod check;
pub mod scene;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::account::{self, Account};
use crate::daemon::{self, Daemon, LISTEN};
use crate::lab::process::Guard;
use crate::lab::{interrupt, process, sweep};
use scene::Scene;

/// How long flows are shown.
const SHOW: Duration = Duration::from_secs(20);

/// How long the daemon may take to end.
const END: Duration = Duration::from_secs(2);

/// Runs the whole demonstration; an error says what essential thing did not happen.
pub fn run(keep: bool) -> Result<()> {
    let start = Instant::now();
    let scene = Scene::build()?;
    say(&format!(
        "lab and servers are up after {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    print!("{}", scene.describe());
    let daemon = Daemon::start(scene.lab.node(), &[])?;
    say(&format!(
        "nodewatch runs in the node, process {}",
        daemon.pid()
    ));
    say("flows as they happen (nodewatch flows -f):");
    let shown = show(&scene, &daemon)?;
    if interrupt::happened() {
        bail!("interrupted");
    }
    say("the daemon's own account (nodewatch status):");
    print!("{}", daemon.tell(&["status"])?);
    let metrics = daemon.metrics()?;
    say("packets by interface and direction (/metrics):");
    for account in account::read(&metrics) {
        let Account {
            interface,
            direction,
            seen,
            counted,
            uncounted,
            ..
        } = account;
        println!(
            "  {interface:<10} {direction:<8} seen {seen} = counted {counted} + uncounted {uncounted:?}"
        );
    }
    let mut problems = check::essentials(&shown, &daemon)?;
    print!("\n{}", try_it(&scene, &daemon)?);
    if keep {
        say("Ctrl-C ends the demonstration and removes the lab");
        while !interrupt::happened() {
            scene.act(Duration::from_secs(1), &interrupt::happened)?;
        }
    }
    let stopped = daemon.stop()?;
    if !stopped.status.success() || stopped.took > END {
        problems.push(format!(
            "the daemon ended with {} after {:.2} s",
            stopped.status,
            stopped.took.as_secs_f64()
        ));
    }
    drop(scene);
    problems.extend(
        sweep::leftovers()
            .into_iter()
            .map(|what| format!("left behind: {what}")),
    );
    say(&format!(
        "everything is removed; {:.1} s in all",
        start.elapsed().as_secs_f64()
    ));
    if problems.is_empty() {
        Ok(())
    } else {
        bail!("{}", problems.join("; "))
    }
}

/// Lets the clients work while a `flows -f` prints, and returns the lines it printed.
fn show(scene: &Scene, daemon: &Daemon) -> Result<Vec<String>> {
    let mut command = daemon.cli(&["flows", "-f"])?;
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut follower = Guard::start("nodewatch flows -f", &mut command)?;
    let output = follower.take_stdout().context("no output to read")?;
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            println!("  {line}");
            lines.push(line);
        }
        lines
    });
    scene.act(SHOW, &interrupt::happened)?;
    if !follower.is_running() && !interrupt::happened() {
        bail!("nodewatch flows -f ended before it was told to");
    }
    follower.kill();
    reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reading thread panicked"))
}

fn try_it(scene: &Scene, daemon: &Daemon) -> Result<String> {
    let binary = daemon::binary()?.display();
    let socket = daemon.socket().display();
    let node = scene.lab.node();
    let curl = node.shell_line(&format!("curl -s http://{LISTEN}/metrics"));
    Ok(format!(
        "To try, while it runs (--keep):\n  \
         {binary} flows -f --socket {socket}\n  \
         {binary} flows --app ssh -o wide --socket {socket}\n  \
         {binary} status --socket {socket}\n  \
         {curl}\n  \
         {}\n  \
         {}\n",
        node.shell_line("bash"),
        process::show(&scene.login()).replacen("ssh", &scene.outside.shell_line("ssh"), 1),
    ))
}

fn say(text: &str) {
    println!("==> {text}");
}
