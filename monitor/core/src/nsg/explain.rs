//! A verdict rule by rule and field by field, as Azure's NSG diagnostics answer
//! (`networkConfigurationDiagnostic`, `rulesEvaluationResult`).

use serde::Serialize;

use super::{
    chain::Chain,
    level::LevelKind,
    matching::{FieldMatch, RuleMatch},
    model::RuleAccess,
    tuple::Tuple,
};

/// What one place's rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The place: `admin`, `subnet` or `nic`.
    pub applied_to: &'static str,
    /// The group's name.
    pub network_security_group: String,
    /// The rule that decides here, or may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched_rule: Option<String>,
    /// What is decided here; absent where the place has nothing to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<&'static str>,
    /// The rules in order, up to the one that decides.
    pub rules_evaluation_result: Vec<ExplainedRule>,
}

/// How a rule's fields match; `null` where nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedRule {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: u16,
    /// What it does.
    pub access: RuleAccess,
    /// Whether its protocol holds the packet's.
    pub protocol_matched: Option<bool>,
    /// Whether its source does.
    pub source_matched: Option<bool>,
    /// Whether its source ports do.
    pub source_port_matched: Option<bool>,
    /// Whether its destination does.
    pub destination_matched: Option<bool>,
    /// Whether its destination ports do.
    pub destination_port_matched: Option<bool>,
    /// Why nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Explains what each place's rules say about a flow, in the order in which they are asked.
pub fn explain(chain: &Chain, tuple: &Tuple) -> Vec<Explained> {
    let tuple = tuple.normalised();
    let levels = chain.levels(tuple.direction);
    let explained = levels.map(|level| {
        let mut rules = Vec::new();
        let (mut matched, mut access) = (None, None);
        for resolved in level.rules(tuple.direction) {
            let fields = resolved.fields(&tuple);
            let result = fields.all();
            rules.push(ExplainedRule::new(resolved, &fields, &result));
            // The first that may match decides, or leaves it open.
            if result != FieldMatch::No {
                matched = Some(resolved.rule.name.to_string());
                access = Some(match result {
                    FieldMatch::Yes => resolved.rule.access.name(),
                    _ => super::Access::Indeterminate.name(),
                });
                break;
            }
        }
        if matched.is_none() && level.kind != LevelKind::Admin {
            access = Some(super::Access::Indeterminate.name());
        }
        Explained {
            applied_to: level.kind.name(),
            network_security_group: level.nsg.name.to_string(),
            matched_rule: matched,
            access,
            rules_evaluation_result: rules,
        }
    });
    explained.collect()
}

// === impl ExplainedRule ===

impl ExplainedRule {
    fn new(resolved: &super::matching::Resolved, fields: &RuleMatch, result: &FieldMatch) -> Self {
        let known = |field: &FieldMatch| match field {
            FieldMatch::Yes => Some(true),
            FieldMatch::No => Some(false),
            FieldMatch::Unknown(_) => None,
        };
        Self {
            name: resolved.rule.name.to_string(),
            priority: resolved.rule.priority,
            access: resolved.rule.access,
            protocol_matched: known(&fields.protocol),
            source_matched: known(&fields.source),
            source_port_matched: known(&fields.source_port),
            destination_matched: known(&fields.destination),
            destination_port_matched: known(&fields.destination_port),
            reason: match result {
                FieldMatch::Unknown(why) => Some(why.to_string()),
                FieldMatch::Yes | FieldMatch::No => None,
            },
        }
    }
}
