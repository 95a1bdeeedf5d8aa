//! Answers about what is declared: which rules decide a flow, and which rules do nothing.

use std::{collections::HashSet, io, sync::Arc};

use monitor_core::{
    engine::NsgRuleStatus,
    event::{FlowRecord, Point},
    filter::{Condition, FlowFilter, Term},
    nsg::{
        Chain, Direction, Tuple,
        lint::{Check, Issue, Observed, Options, Unchecked, is_approximate, lint, unchecked},
    },
};
use serde::Serialize;

use super::{Client, EngineHandle};
use crate::{
    api::{Answer, Lint},
    explain::Asked,
};

/// An issue as it is sent.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    version: u32,
    #[serde(flatten)]
    issue: &'a Issue,
}

/// What was not looked for, as it is sent.
#[derive(Serialize)]
struct UncheckedLine<'a> {
    r#type: &'static str,
    version: u32,
    #[serde(flatten)]
    unchecked: &'a Unchecked,
}

/// What the answer rests on, as it is sent.
#[derive(Serialize)]
struct Basis {
    r#type: &'static str,
    version: u32,
    /// Whether rules name an Internet that is computed.
    approximate: bool,
}

/// A rule that matched since the daemon began: direction, place, group, rule.
type Matched = (Direction, String, String, String);

impl Client {
    pub(super) async fn explain(&mut self, handle: &EngineHandle, asked: Asked) -> io::Result<()> {
        let message = match handle.explain(asked).await {
            Ok(Ok(explanation)) => {
                self.push(&explanation)?;
                return self.flush().await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(stopped) => stopped.to_string(),
        };
        self.send(&Answer::Error { message }).await
    }

    pub(super) async fn lint(&mut self, handle: &EngineHandle, asked: Lint) -> io::Result<()> {
        let (issues, unchecked, approximate) = match issues(handle, asked).await {
            Ok(found) => found,
            Err(message) => return self.send(&Answer::Error { message }).await,
        };
        for unchecked in &unchecked {
            self.push(&UncheckedLine {
                r#type: "lint-unchecked",
                version: monitor_core::event::VERSION,
                unchecked,
            })?;
        }
        self.push(&Basis {
            r#type: "lint-basis",
            version: monitor_core::event::VERSION,
            approximate,
        })?;
        for issue in &issues {
            self.push(&Line {
                r#type: "lint",
                version: monitor_core::event::VERSION,
                issue,
            })?;
        }
        self.flush().await
    }
}

async fn issues(
    handle: &EngineHandle,
    asked: Lint,
) -> Result<(Vec<Issue>, Vec<Unchecked>, bool), String> {
    let chain = handle
        .chain()
        .await
        .map_err(|stopped| stopped.to_string())?;
    let Some(chain) = chain else {
        return Err("it has no rules: start it with --nsg or --effective".to_owned());
    };
    let uplink = FlowFilter {
        terms: vec![Term {
            not: false,
            condition: Condition::Point(Point::Uplink),
        }],
        ..FlowFilter::default()
    };
    let flows = handle.query(uplink, None).await;
    let flows = flows.map_err(|stopped| stopped.to_string())?;
    let status = handle.snapshot().status.nsg.clone();
    let matched = status.map(|status| matched(&status.rules));
    // With many rules and flows it takes a while, and others wait for answers.
    let found = move || found(&chain, &flows, &asked, &matched.unwrap_or_default());
    let found = tokio::task::spawn_blocking(found).await;
    found.map_err(|error| error.to_string())
}

fn matched(rules: &[NsgRuleStatus]) -> HashSet<Matched> {
    let used = rules.iter().filter(|rule| rule.connections > 0);
    used.map(|rule| {
        let place = rule.place.clone().into_owned();
        (
            rule.direction,
            place,
            rule.nsg.to_string(),
            rule.rule.to_string(),
        )
    })
    .collect()
}

fn found(
    chain: &Arc<Chain>,
    flows: &[FlowRecord],
    asked: &Lint,
    matched: &HashSet<Matched>,
) -> (Vec<Issue>, Vec<Unchecked>, bool) {
    let mut observed = Observed::default();
    for record in flows {
        if let Some(tuple) = Tuple::of(record) {
            observed.add(chain, &tuple, Some(record.outcome));
        }
    }
    let options = Options {
        observed: Some(&observed),
        pods: asked.pods.clone(),
        profile: None,
    };
    let mut issues = lint(chain, &options);
    // Flows are forgotten after a while, and what rules matched is not.
    issues.retain(|issue| {
        let rule = (
            issue.direction,
            issue.nsg.to_string(),
            issue.name.clone(),
            issue.rule.clone(),
        );
        let is_about_idle = matches!(issue.check, Check::Unused | Check::SshRangeUnused);
        !(is_about_idle && matched.contains(&rule))
    });
    (issues, unchecked(chain, &options), is_approximate(chain))
}
