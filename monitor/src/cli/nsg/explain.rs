//! The network security groups' part of `nodewatch explain`: rule by rule, field by field.

use std::fmt::Write as _;

use monitor_core::nsg::explain::{Decides, Explained, ExplainedRule};

use crate::{
    cli::table::{Cell, escape, table},
    explain::NsgExplanation,
};

const TITLES: [&str; 9] = [
    "PRIORITY",
    "RULE",
    "ACCESS",
    "PROTOCOL",
    "SOURCE",
    "SOURCE PORT",
    "DESTINATION",
    "PORT",
    "DECIDES",
];

/// What groups say, for people.
pub(in crate::cli) fn text(explanation: &NsgExplanation, color: bool) -> String {
    let mut text = String::new();
    for Explained {
        applied_to,
        network_security_group: name,
        matched_rule,
        access,
        rules_evaluation_result: rules,
    } in &explanation.evaluated
    {
        let access = access.as_deref().unwrap_or("no rule matches");
        let _ = write!(
            text,
            "{} {}: {}",
            escape(applied_to),
            escape(name),
            escape(access)
        );
        if let Some(rule) = matched_rule {
            let _ = write!(text, " by {}", escape(&rule.rule_name));
        }
        let rows: Vec<_> = rules.iter().map(row).collect();
        let _ = write!(text, "\n{}\n", table(&TITLES, &rows, color));
    }
    let _ = write!(
        text,
        "{}: {}, decided by {}",
        explanation.direction,
        escape(&explanation.access),
        escape(&explanation.nsg)
    );
    if let Some(rule) = &explanation.rule {
        let _ = write!(text, " rule {}", escape(rule));
    }
    if let Some(reason) = &explanation.reason {
        let _ = write!(text, ": {}", escape(reason));
    }
    text.push('\n');
    if let Some(need) = &explanation.need {
        let _ = writeln!(text, "the profile needs it: {}", escape(need));
    }
    text
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
        match rule.decides {
            Decides::Yes => "yes",
            Decides::Maybe => "maybe",
            Decides::No => "-",
        }
        .into(),
    ]
}
