//! A verdict rule by rule and field by field, as Azure's NSG diagnostics answer
//! (`networkConfigurationDiagnostic`, `rulesEvaluationResult`).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    Access,
    chain::Chain,
    level::{Hit, Level, LevelKind, until_certain},
    matching::{FieldMatch, Resolved, RuleMatch},
    model::{Direction, RuleAccess},
    platform::Service,
    possible::{Otherwise, Place},
    tuple::Tuple,
};

/// What one place's rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The place: `admin`, `subnet` or `nic`.
    pub applied_to: Cow<'static, str>,
    /// The group's name.
    pub network_security_group: String,
    /// The direction of its rules, where those of both are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The rule that decides here, or may; of several that may and do the same, one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_rule: Option<MatchedRule>,
    /// What is decided here; absent where the place has nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Cow<'static, str>>,
    /// All rules in the order in which they are asked.
    pub rules_evaluation_result: Vec<ExplainedRule>,
}

/// The rule that decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MatchedRule {
    /// Its name.
    pub rule_name: String,
    /// What it does; `Indeterminate` where that depends on what nobody knows.
    pub action: Cow<'static, str>,
}

/// Whether a rule decides at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decides {
    /// It matches, and none before it may.
    Yes,
    /// It may match, and none before it does for certain; or it does, and one before it may.
    Maybe,
    /// It does not match, or one before it does.
    No,
}

/// How a rule's fields match; `null` where nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedRule {
    /// Its name.
    pub name: String,
    /// Its priority.
    pub priority: u16,
    /// What it does.
    pub access: RuleAccess,
    /// Whether it decides.
    pub decides: Decides,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Explains what each place's rules say about a flow, in the order in which they are asked.
pub fn explain(chain: &Chain, tuple: &Tuple) -> Vec<Explained> {
    let tuple = tuple.normalised();
    let levels = chain.levels(tuple.direction);
    let service = chain.service(&tuple);
    levels
        .map(|level| explained(level, &tuple, service))
        .collect()
}

/// What a place's rules say. Of a packet to a platform's service only those of groups that name its
/// tag say anything.
fn explained(level: &Level, tuple: &Tuple, service: Option<Service>) -> Explained {
    let matches = |resolved: &Resolved, fields: &RuleMatch| match service {
        Some(_) if level.kind == LevelKind::Admin => FieldMatch::No,
        Some(service) => service.matches(resolved, tuple),
        None => fields.all(),
    };
    let place = Place {
        kind: level.kind,
        rules: match service {
            Some(_) => {
                let rules = level.rules(tuple.direction).iter();
                until_certain(
                    rules.filter_map(|rule| Hit::of(rule, &matches(rule, &rule.fields(tuple)))),
                )
            }
            None => level.candidates(tuple),
        },
        otherwise: match level.kind {
            LevelKind::Subnet | LevelKind::Nic if service.is_none() => Otherwise::Unknown,
            _ => Otherwise::Next,
        },
    };
    let hit = place.hit();
    let action = |access: Option<RuleAccess>| {
        access.map_or(Access::Indeterminate.name(), |access| access.name())
    };
    // Admin rules of which none matches say nothing; a group has a rule for everything else than
    // the platform's services.
    let access = match hit {
        Some(hit) => Some(action(hit.access)),
        None if level.kind == LevelKind::Admin || service.is_some() => None,
        None => Some(Access::Indeterminate.name()),
    };
    let (mut is_closed, mut is_open) = (false, false);
    let rules = level.rules(tuple.direction).iter().map(|resolved| {
        let fields = resolved.fields(tuple);
        let result = matches(resolved, &fields);
        let decides = match (&result, is_closed, is_open) {
            (FieldMatch::No, ..) | (_, true, _) => Decides::No,
            (FieldMatch::Yes, false, false) => Decides::Yes,
            _ => Decides::Maybe,
        };
        is_closed |= result == FieldMatch::Yes;
        is_open |= matches!(result, FieldMatch::Unknown(_));
        ExplainedRule::new(resolved, &fields, &result, decides)
    });
    Explained {
        applied_to: level.kind.name().into(),
        network_security_group: level.nsg.name.to_string(),
        direction: None,
        rules_evaluation_result: rules.collect(),
        matched_rule: hit.map(|hit| MatchedRule {
            rule_name: hit.rule.rule.name.to_string(),
            action: action(hit.access).into(),
        }),
        access: access.map(Into::into),
    }
}

// === impl ExplainedRule ===

impl ExplainedRule {
    fn new(resolved: &Resolved, fields: &RuleMatch, result: &FieldMatch, decides: Decides) -> Self {
        let known = |field: &FieldMatch| match field {
            FieldMatch::Yes => Some(true),
            FieldMatch::No => Some(false),
            FieldMatch::Unknown(_) => None,
        };
        Self {
            name: resolved.rule.name.to_string(),
            priority: resolved.rule.priority,
            access: resolved.rule.access,
            decides,
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
