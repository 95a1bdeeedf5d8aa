//! The network security groups' part of `nodewatch explain`: rule by rule, field by field.

use std::fmt::Write as _;

use monitor_core::nsg::{
    DecidedBy,
    explain::{Decides, Explained, ExplainedRule},
};

use crate::{
    cli::table::{Cell, escape, table},
    explain::NsgExplanation,
};

use super::APPROXIMATE;

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
    let is_platform = explanation.nsg == DecidedBy::Platform.name();
    for Explained {
        applied_to,
        network_security_group: name,
        matched_rule,
        access,
        direction,
        rules_evaluation_result: rules,
    } in &explanation.evaluated
    {
        let access = access.as_deref().unwrap_or(if is_platform {
            "rules do not apply"
        } else {
            "no rule matches"
        });
        if let Some(direction) = direction {
            let _ = write!(text, "{direction}, ");
        }
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
    if explanation.approximate {
        let _ = writeln!(text, "note: the verdict rests on {APPROXIMATE}");
    }
    let direction = explanation
        .direction
        .map_or("Inbound or outbound", |direction| direction.name());
    let _ = write!(
        text,
        "{direction}: {}, decided by {}",
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
