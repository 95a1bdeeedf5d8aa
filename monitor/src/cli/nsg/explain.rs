//! The network security groups' part of `nodewatch explain`: rule by rule, field by field.

use std::fmt::Write as _;

use monitor_core::nsg::{
    Chain, Direction, Tuple,
    explain::{Explained, ExplainedRule, explain},
};
use serde::Serialize;

use crate::cli::table::{Cell, escape, table};

const TITLES: [&str; 8] = [
    "PRIORITY",
    "RULE",
    "ACCESS",
    "PROTOCOL",
    "SOURCE",
    "SOURCE PORT",
    "DESTINATION",
    "PORT",
];

/// What the groups say about a flow.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct NsgExplanation {
    direction: Direction,
    access: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    nsg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(rename = "evaluatedNetworkSecurityGroups")]
    evaluated: Vec<Explained>,
}

// === impl NsgExplanation ===

impl NsgExplanation {
    /// Asks the groups.
    pub(in crate::cli) fn new(chain: &Chain, tuple: &Tuple) -> Self {
        let verdict = chain.judge(tuple);
        Self {
            direction: tuple.direction,
            access: verdict.access.name(),
            rule: verdict.rule.map(|rule| rule.name.to_string()),
            nsg: verdict.decided_by.name(),
            reason: verdict.reason(),
            evaluated: explain(chain, tuple),
        }
    }

    /// For people.
    pub(in crate::cli) fn text(&self, color: bool) -> String {
        let mut text = String::new();
        for Explained {
            applied_to,
            network_security_group: name,
            matched_rule,
            access,
            rules_evaluation_result: rules,
        } in &self.evaluated
        {
            let access = access.unwrap_or("no rule matches");
            let _ = write!(text, "{applied_to} {}: {access}", escape(name));
            if let Some(rule) = matched_rule {
                let _ = write!(text, " by {}", escape(rule));
            }
            let rows: Vec<_> = rules.iter().map(row).collect();
            let _ = write!(text, "\n{}\n", table(&TITLES, &rows, color));
        }
        let _ = write!(
            text,
            "{}: {}, decided by {}",
            self.direction, self.access, self.nsg
        );
        if let Some(rule) = &self.rule {
            let _ = write!(text, " rule {}", escape(rule));
        }
        if let Some(reason) = &self.reason {
            let _ = write!(text, ": {}", escape(reason));
        }
        text.push('\n');
        text
    }
}

fn row(rule: &ExplainedRule) -> Vec<Cell> {
    let cell = |is_match: Option<bool>| match is_match {
        Some(true) => Cell::from("yes"),
        Some(false) => Cell::from("no"),
        None => Cell::from("?"),
    };
    vec![
        rule.priority.to_string().into(),
        escape(&rule.name).into(),
        rule.access.name().into(),
        cell(rule.protocol_matched),
        cell(rule.source_matched),
        cell(rule.source_port_matched),
        cell(rule.destination_matched),
        cell(rule.destination_port_matched),
    ]
}
