//! What a user sees over `kubectl exec`: the distroless image has the command line in it.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{AGENT, Story, TOLD, indented, say};
use crate::lab::wait;

/// How many lines of what is followed are shown.
const SHOWN: usize = 10;

// === impl Story ===

impl Story {
    /// `kubectl exec` into the agent, as a user looks.
    pub fn look(&self) -> Result<()> {
        for command in [
            &["flows", "--last", "12"][..],
            &["findings", "--last", "6"],
            &["ssh"],
            &["status"],
        ] {
            let shown = [
                &["exec", "-n", AGENT, "ds/nodewatch", "--", "nodewatch"],
                command,
            ]
            .concat();
            say(&format!("kubectl {}", shown.join(" ")));
            print!("{}", indented(&self.cluster.ask(&shown)?));
        }
        Ok(())
    }

    /// `kubectl exec -it ds/nodewatch -- nodewatch flows -f`: records come as connections do, and ^C ends it, in the
    /// container, too.
    pub fn follow(&self) -> Result<()> {
        let arguments = ["exec", "-it", "-n", AGENT, "ds/nodewatch", "--"];
        let arguments = [&arguments[..], &["nodewatch", "flows", "-f"]].concat();
        let kubectl = self.cluster.kubectl(&arguments);
        let words = std::iter::once(kubectl.get_program()).chain(kubectl.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        // A terminal, at which somebody types ^C once enough is shown.
        let enough = self.cluster.lab().directory().join("enough");
        let script = "(until [ -e \"$1\" ]; do sleep 0.1; done; printf '\\003'; sleep 30) | \
                      script --quiet --command \"$2\" /dev/null";
        let mut terminal = self.cluster.lab().node().command("sh");
        terminal.args(["-c", script, "sh"]);
        terminal.arg(&enough).arg(words.join(" "));
        let guard = self.cluster.lab().node().spawn("terminal", &mut terminal)?;
        // A line of titles, and some records.
        let told = wait::until("records of `flows -f`", TOLD, || {
            (guard.log().lines().count() > SHOWN).then_some(())
        });
        ensure!(told.is_ok(), "{}", guard.log());
        fs::write(&enough, "").context("cannot say that it is enough")?;
        for node in self.cluster.nodes() {
            wait::until("the command in the container to end", TOLD, || {
                (node.machine.pids_of("nodewatch").ok()?.len() == 1).then_some(())
            })?;
        }
        say(&format!("kubectl {}, until ^C", arguments.join(" ")));
        let shown: Vec<String> = guard.log().lines().take(SHOWN).map(str::to_owned).collect();
        print!("{}", indented(&shown.join("\n")));
        Ok(())
    }
}
