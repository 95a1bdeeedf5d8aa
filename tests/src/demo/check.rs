//! What has to have happened for the demonstration to count as one.

use anyhow::Result;

use crate::account;
use crate::daemon::Daemon;

/// What did not happen although it had to.
pub fn essentials(shown: &[String], daemon: &Daemon) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (app, outcome) in [
        ("ssh", "established"),
        ("http", "established"),
        ("dns", "established"),
    ] {
        let wanted = |line: &&String| line.contains(app) && line.contains(outcome);
        if app != "dns" && !shown.iter().any(|line| wanted(&line)) {
            problems.push(format!("flows -f showed no {outcome} {app} flow"));
        }
        let records = daemon.records(&["flows", "--last", "10000", "--app", app])?;
        if records.is_empty() {
            problems.push(format!("the daemon has no {app} flow"));
        }
    }
    let metrics = daemon.metrics()?;
    let accounts = account::read(&metrics);
    for account in &accounts {
        if !account.balances() {
            problems.push(format!("the accounts do not balance: {account:?}"));
        }
    }
    if accounts.iter().all(|account| account.counted == 0) {
        problems.push("no packet was counted".to_owned());
    }
    Ok(problems)
}
