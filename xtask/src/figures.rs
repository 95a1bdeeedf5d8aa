//! The figures that the documents state, measured anew and held to what is promised.
//!
//! They are tests that judge times and sizes in optimised builds only, some of them ignored
//! elsewhere because they load the machine. Run them on one that does nothing else. What a packet
//! costs is for `cargo xtask bench`.

use anyhow::{Result, bail};

use crate::build::{self, Profile};
use crate::kube::{self, PROGRAMS, Part};
use crate::programs::DAEMON;
use crate::setup::{self, Group};
use crate::shell::{loud_step, visible};
use crate::workspace::Workspace;

/// Cargo's profile for them: optimised, and linked in seconds.
const PROFILE: &str = "measure";

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these; all of them when none is named
    #[arg(value_enum)]
    topics: Vec<Topic>,
}

/// Which document the figures are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Topic {
    /// Verdicts, reloads and memory of security rules (docs/nsg.md)
    Nsg,
    /// Verdicts, changes and memory of policies in a large cluster (docs/networkpolicy.md)
    Policy,
    /// SSH connections under load, and a look at many processes (docs/ssh.md)
    Ssh,
    /// Many flows and many series (docs/cost.md)
    Scale,
    /// Series, memory and processor time by pods of a node (docs/cost.md)
    Cost,
}

/// Package, which of its tests, and which of those.
type Tests = (&'static str, &'static [&'static str], &'static str);

// === impl Topic ===

impl Topic {
    const ALL: [Self; 5] = [Self::Nsg, Self::Policy, Self::Ssh, Self::Scale, Self::Cost];

    fn tests(self) -> &'static [Tests] {
        match self {
            Self::Nsg => &[
                ("monitor-core", &["--test", "nsg_figures"], ""),
                ("monitor-core", &["--lib"], "a_million_verdicts_agree"),
            ],
            Self::Policy => &[
                ("monitor-core", &["--test", "policy_scale"], ""),
                ("monitor-core", &["--test", "netpol"], ""),
                ("monitor", &["--test", "policy_eval"], ""),
                ("tests", &["--test", "policy_scale"], ""),
            ],
            Self::Ssh => &[
                ("monitor", &["--lib"], "two_thousand"),
                ("tests", &["--test", "ssh_load"], ""),
            ],
            Self::Scale => &[("tests", &["--test", "scale"], "")],
            Self::Cost => &[("tests", &["--test", "cost"], "")],
        }
    }
}

/// Measures one topic after the other; fails at the end if a figure is not what is promised.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::ensure(workspace, &[Group::Build, Group::Test])?;
    let topics = match options.topics.as_slice() {
        [] => &Topic::ALL,
        topics => topics,
    };
    if topics.contains(&Topic::Policy)
        && let Err(error) = kube::ensure(&[Part::Server])
    {
        eprintln!("no real API server for the figures of policies: {error:#}");
    }
    // The very program that is released.
    let daemon = build::daemon(workspace, Profile::Release)?;
    let mut failed = Vec::new();
    for (package, targets, filter) in topics.iter().flat_map(|topic| topic.tests()) {
        let name = format!("{package} {} {filter}", targets.join(" "));
        let name = name.trim_end();
        let measured = loud_step(name, || {
            let mut cargo = workspace.cargo("test");
            cargo.args(["--profile", PROFILE, "--package", package]);
            cargo.args(*targets).args(["--quiet", "--"]);
            if !filter.is_empty() {
                cargo.arg(filter);
            }
            cargo.args(["--include-ignored", "--nocapture", "--test-threads=1"]);
            visible(cargo.env(DAEMON, &daemon).env(PROGRAMS, kube::folder()))
        });
        if measured.is_err() {
            failed.push(name.to_owned());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not as promised: {}", failed.join("; "))
}
