//! Label selectors (Kubernetes API reference, `meta/v1` LabelSelector).

use std::{fmt, sync::Arc};

use crate::{cluster::NAME_LABEL, event::Labels};

/// Requirements on labels, all of which must hold. None of them: everything is selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// The requirements: `matchLabels` and `matchExpressions` alike.
    pub requirements: Vec<Requirement>,
}

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Key of the label.
    pub key: Arc<str>,
    /// What must be true of it.
    pub operator: Operator,
}

/// What must be true of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It is there, with one of these values.
    In(Vec<Arc<str>>),
    /// It is not there, or has none of these values.
    NotIn(Vec<Arc<str>>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

// === impl Selector ===

impl Selector {
    /// Whether labels meet all requirements.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }

    /// Whether a namespace meets all requirements; `None` where that depends on labels that are not
    /// known: of some namespaces it is the name only ([`NAME_LABEL`]).
    pub(crate) fn matches_namespace(&self, labels: &Labels, is_whole: bool) -> Option<bool> {
        if is_whole {
            return Some(self.matches(labels));
        }
        let by_name = |requirement: &&Requirement| &*requirement.key == NAME_LABEL;
        let mut known = self.requirements.iter().filter(by_name);
        if known.any(|requirement| !requirement.matches(labels)) {
            return Some(false);
        }
        self.requirements
            .iter()
            .all(|requirement| by_name(&requirement))
            .then_some(true)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return formatter.write_str("all");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                formatter.write_str(",")?;
            }
            requirement.fmt(formatter)?;
        }
        Ok(())
    }
}

// === impl Requirement ===

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&*self.key);
        let is_in = |values: &[Arc<str>]| {
            value.is_some_and(|value| values.iter().any(|wanted| **wanted == **value))
        };
        match &self.operator {
            Operator::In(values) => is_in(values),
            Operator::NotIn(values) => !is_in(values),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(formatter, "{key}={}", values[0]),
            Operator::In(values) => write!(formatter, "{key} in ({})", values.join(",")),
            Operator::NotIn(values) => write!(formatter, "{key} notin ({})", values.join(",")),
            Operator::Exists => formatter.write_str(key),
            Operator::DoesNotExist => write!(formatter, "!{key}"),
        }
    }
}
