//! A lab to look around in: `lab up` builds one and waits, `lab sweep` removes stale ones.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tests::lab::server::{nginx::Nginx, sshd::Sshd};
use tests::lab::{Lab, Namespace, client, gate, interrupt, sweep};

#[derive(Parser)]
#[command(about = "A node with pods and peers in network namespaces")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build a lab, say how to enter it, and wait for Ctrl-C
    Up {
        /// Pods on the node
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=200))]
        pods: u16,
        /// Outside peers
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=100))]
        peers: u16,
        /// Translate what leaves the virtual network to the node's address, as overlays do
        #[arg(long)]
        masquerade: bool,
    },
    /// Remove what labs of dead processes left behind
    Sweep,
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let action = Arguments::parse().action;
    if let Some(reason) = gate::obstacle() {
        bail!("{reason}");
    }
    interrupt::prepare();
    match action {
        Action::Up {
            pods,
            peers,
            masquerade,
        } => up(pods, peers, masquerade),
        Action::Sweep => {
            sweep::stale();
            Ok(())
        }
    }
}

fn up(pods: u16, peers: u16, masquerade: bool) -> Result<()> {
    let lab = Lab::new("lab")?;
    let pods = (0..pods)
        .map(|_| lab.add_pod())
        .collect::<Result<Vec<_>>>()?;
    let outside = (0..peers)
        .map(|_| lab.add_outside())
        .collect::<Result<Vec<_>>>()?;
    let inside = lab.add_inside()?;
    if masquerade {
        lab.masquerade()?;
    }
    let sshd = Sshd::start(lab.node(), 22)?;
    let web = pods.first().map(|pod| Nginx::start(pod)).transpose()?;
    let line = |what: &str, address: IpAddr, namespace: &Namespace| {
        println!("{what:<12} {address:<14} {}", namespace.shell_line("bash"));
    };
    line("node", tests::lab::NODE.v4.into(), lab.node());
    for pod in &pods {
        line(
            &format!("pod {}", pod.host_interface),
            pod.addresses.v4.into(),
            pod,
        );
    }
    for peer in &outside {
        line("outside", peer.addresses.v4.into(), peer);
    }
    line("inside", inside.addresses.v4.into(), &inside);
    println!(
        "\nThe node runs sshd; log in as root with the key {}",
        sshd.key.display()
    );
    if let (Some(_), Some(pod), Some(peer)) = (&web, pods.first(), outside.first()) {
        let url = client::url("http", pod.addresses.v4.into(), "/");
        println!(
            "The first pod runs nginx: {}",
            peer.shell_line(&format!("curl {url}"))
        );
    }
    println!("Ctrl-C ends the lab and removes everything.");
    interrupt::wait(Duration::from_hours(24));
    Ok(())
}
