//! `nodewatch policy`: Kubernetes network policies in manifests, offline.

mod eval;
mod explain;

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Subcommand;
use monitor_core::{
    cluster::Cluster,
    netpol::{Options, Policies, PolicyChange},
};

pub(super) use explain::text;

use super::{exit, output::complain};
use crate::kube::manifests::Manifests;

/// Diagnostics that are printed.
const SHOWN: usize = 50;

/// Flags of `policy`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge flows from a file against the policies in manifests
    Eval(eval::Args),
    /// Which policies decide a flow, step by step
    Explain(explain::Args),
}

/// Where policies and pods come from.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// YAML or JSON with policies, pods and workloads; a directory is read with all below; `-` for
    /// standard input (repeatable)
    #[arg(long, value_name = "FILE_OR_DIR", required = true)]
    manifests: Vec<PathBuf>,
    /// Policies that are proposed: they take the place of those of the same names, beside the others;
    /// eval and explain tell both verdicts (repeatable)
    #[arg(long, value_name = "FILE_OR_DIR")]
    proposed: Vec<PathBuf>,
    /// Whether an ipBlock matches addresses of pods: not so with Cilium, for one
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    ip_block_matches_pods: bool,
}

/// Policies and the cluster that they are about.
pub(super) struct Declared {
    pub(super) cluster: Cluster,
    pub(super) policies: Policies,
    /// The policies as they would be, where some are proposed.
    pub(super) proposed: Option<Policies>,
    /// Whether a part of the manifests was left out: not read, or as the API server refuses it.
    pub(super) is_partial: bool,
}

/// Runs the sub-command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Eval(args) => eval::run(args),
        Command::Explain(args) => explain::run(&args),
    }
}

// === impl Source ===

impl Source {
    /// Reads the manifests and tells what is wrong with them.
    pub(super) fn read(&self) -> anyhow::Result<Declared> {
        let mut manifests = Manifests::read(&self.manifests)?;
        report(&manifests);
        if manifests.is_broken && manifests.cluster.is_empty() && manifests.policies.is_empty() {
            bail!("the manifests have nothing that can be read");
        }
        let proposed = proposed(&self.proposed, &mut manifests)?;
        let options = Options {
            blocks_match_pods: self.ip_block_matches_pods,
        };
        let proposed = proposed.map(|changes| {
            let mut policies = Policies::new(options);
            // Of one name, the later counts.
            for change in manifests.policies.iter().cloned().chain(changes) {
                policies.apply(change);
            }
            policies
        });
        let (cluster, policies) = manifests.build(options);
        Ok(Declared {
            cluster,
            policies,
            proposed,
            is_partial: manifests.left_out > 0,
        })
    }

    /// Whether standard input is among the manifests.
    fn uses_stdin(&self) -> bool {
        self.manifests.iter().any(|path| path.as_os_str() == "-")
    }
}

/// Reads what is proposed, and takes what `manifests` say is.
pub(super) fn proposed(
    paths: &[PathBuf],
    manifests: &mut Manifests,
) -> anyhow::Result<Option<Vec<PolicyChange>>> {
    let proposed = if paths.is_empty() {
        None
    } else {
        let proposed = Manifests::read(paths)?;
        report(&proposed);
        manifests.is_broken |= proposed.is_broken;
        manifests.left_out += proposed.left_out;
        Some(proposed)
    };
    Ok(manifests.take_proposed(proposed))
}

/// Tells what is wrong with manifests.
pub(super) fn report(manifests: &Manifests) {
    for diagnostic in manifests.diagnostics.iter().take(SHOWN) {
        complain(&diagnostic.to_string());
    }
    let kept = u64::try_from(manifests.diagnostics.len()).unwrap_or(u64::MAX);
    let shown = kept.min(u64::try_from(SHOWN).unwrap_or(u64::MAX));
    let more = (kept - shown).saturating_add(manifests.more_diagnostics);
    if more > 0 {
        complain(&format!("{more} more like these"));
    }
    if manifests.left_out > 0 {
        complain(&format!(
            "{} documents and objects left out of the manifests",
            manifests.left_out
        ));
    }
}

// === impl Declared ===

impl Declared {
    /// Status after everything else went well: invalid input where a part was left out, so that a
    /// script that goes by the verdicts does not take them for those of all manifests.
    pub(super) fn status(&self) -> ExitCode {
        if self.is_partial {
            exit::code(exit::USAGE)
        } else {
            ExitCode::SUCCESS
        }
    }
}
