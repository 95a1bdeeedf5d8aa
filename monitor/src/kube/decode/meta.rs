//! What all objects have: names, labels, owners; and selectors of labels.

use std::{collections::BTreeMap, sync::Arc};

use monitor_core::{
    cluster::Namespace,
    event::Labels,
    netpol::{Operator, Requirement, Selector},
    time::Timestamp,
};

use super::{
    Fault,
    field::{Field, shown},
};

/// Labels of one object, requirements of one selector: far more than any that is meant.
const MAX_LABELS: usize = 4_096;
/// Longest name of an object (RFC 1123 subdomain).
const MAX_NAME: usize = 253;
/// Longest name of a namespace, value of a label, and name in a key (RFC 1123 label).
const MAX_LABEL: usize = 63;
/// Namespace of objects that name none.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Name of an object; what its name is made from where it has none yet.
pub(super) fn name(root: &Field<'_>) -> Result<Arc<str>, Fault> {
    let metadata = root.get("metadata");
    let (name, generated) = (metadata.get("name"), metadata.get("generateName"));
    let field = if name.is_set() || !generated.is_set() {
        name
    } else {
        generated
    };
    let text = field.required()?;
    let text = if name.is_set() {
        text
    } else {
        text.trim_end_matches('-')
    };
    checked_name(&field, text, MAX_NAME)
}

/// Namespace of an object.
pub(super) fn namespace_of(root: &Field<'_>) -> Result<Arc<str>, Fault> {
    let metadata = root.get("metadata");
    let field = metadata.get("namespace");
    match field.text()? {
        None | Some("") => Ok(DEFAULT_NAMESPACE.into()),
        Some(text) => checked_name(&field, text, MAX_LABEL),
    }
}

fn checked_name(field: &Field<'_>, text: &str, longest: usize) -> Result<Arc<str>, Fault> {
    // Some names (of roles, of old objects) may have more; those that are read here may not.
    let is_name =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let has_ends = |text: &str| {
        let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        is_end(text.as_bytes().first()) && is_end(text.as_bytes().last())
    };
    if text.len() <= longest && text.bytes().all(is_name) && has_ends(text) {
        return Ok(text.into());
    }
    Err(field.fault(format!(
        "`{}` is no name: use at most {longest} lower-case letters, digits, `-` or `.`",
        shown(text)
    )))
}

/// A namespace.
pub(super) fn namespace(root: &Field<'_>) -> Result<Namespace, Fault> {
    Ok(Namespace {
        name: name(root)?,
        labels: labels(&root.get("metadata"))?,
    })
}

/// Labels in a `metadata` field.
pub(super) fn labels(metadata: &Field<'_>) -> Result<Labels, Fault> {
    label_map(&metadata.get("labels"))
}

/// Labels as a plain selector, as services have it; `None` where it is absent or empty.
pub(super) fn plain_selector(field: &Field<'_>) -> Result<Option<Labels>, Fault> {
    Ok(Some(label_map(field)?).filter(|selector| !selector.is_empty()))
}

fn label_map(field: &Field<'_>) -> Result<Labels, Fault> {
    let mut labels = BTreeMap::new();
    for (key, value) in field.entries()? {
        if labels.len() == MAX_LABELS {
            return Err(field.fault(format!("more than {MAX_LABELS} labels")));
        }
        let text = value.text()?.unwrap_or_default();
        check_key(&value, key)?;
        check_value(&value, text)?;
        labels.insert(key.to_owned(), text.to_owned());
    }
    Ok(labels.into())
}

/// Keys: an optional DNS prefix and a name.
fn check_key(field: &Field<'_>, key: &str) -> Result<(), Fault> {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("", key));
    if !name.is_empty() && is_label_text(name) && prefix.len() <= MAX_NAME && is_plain(prefix) {
        return Ok(());
    }
    Err(field.fault("no label key: use [prefix/]name, with a name of at most 63 letters, digits, `-`, `_` or `.`"))
}

fn check_value(field: &Field<'_>, value: &str) -> Result<(), Fault> {
    if is_label_text(value) {
        return Ok(());
    }
    Err(field.fault(format!(
        "`{}` is no label value: use at most 63 letters, digits, `-`, `_` or `.`",
        shown(value)
    )))
}

fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_label_text(text: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= MAX_LABEL && is_plain(text) && is_end(bytes.first()) && is_end(bytes.last())
}

/// A selector of labels; `None` where it is absent, which is not the same as an empty one.
pub(super) fn selector(
    field: &Field<'_>,
    faults: &mut Vec<Fault>,
) -> Result<Option<Selector>, Fault> {
    if !field.is_set() {
        return Ok(None);
    }
    let mut requirements = Vec::new();
    let (labels, expressions) = (field.get("matchLabels"), field.get("matchExpressions"));
    unknown_fields(field, &["matchLabels", "matchExpressions"], faults)?;
    for (key, value) in labels.entries()? {
        let text = value.text()?.unwrap_or_default();
        check_key(&value, key)?;
        check_value(&value, text)?;
        requirements.push(Requirement {
            key: key.into(),
            operator: Operator::In(vec![text.into()]),
        });
    }
    for expression in expressions.items()? {
        requirements.push(requirement(&expression)?);
    }
    if requirements.len() > MAX_LABELS {
        return Err(field.fault(format!("more than {MAX_LABELS} requirements")));
    }
    Ok(Some(Selector { requirements }))
}

fn requirement(expression: &Field<'_>) -> Result<Requirement, Fault> {
    let (key, operator, list) = (
        expression.get("key"),
        expression.get("operator"),
        expression.get("values"),
    );
    let mut values: Vec<Arc<str>> = Vec::new();
    for value in list.items()? {
        let text = value.text()?.unwrap_or_default();
        check_value(&value, text)?;
        values.push(text.into());
    }
    let some = |values: Vec<Arc<str>>| {
        if values.is_empty() {
            return Err(list.fault("missing: operators In and NotIn need values"));
        }
        Ok(values)
    };
    let text = key.required()?;
    check_key(&key, text)?;
    let operator = match operator.required()? {
        "In" => Operator::In(some(values)?),
        "NotIn" => Operator::NotIn(some(values)?),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            return Err(list.fault("operators Exists and DoesNotExist take no values"));
        }
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            return Err(operator.fault(format!(
                "`{}` is no operator: use In, NotIn, Exists or DoesNotExist",
                shown(other)
            )));
        }
    };
    Ok(Requirement {
        key: text.into(),
        operator,
    })
}

/// Tells of fields that the API server would drop.
pub(super) fn unknown_fields(
    field: &Field<'_>,
    known: &[&str],
    faults: &mut Vec<Fault>,
) -> Result<(), Fault> {
    for (key, field) in field.entries()? {
        if field.is_set() && !known.contains(&key) {
            let known = known.join(", ");
            faults.push(field.fault(format!("unknown field, ignored: known are {known}")));
        }
    }
    Ok(())
}

/// The controller that made an object.
pub(super) struct Controller {
    pub(super) kind: String,
    pub(super) name: Arc<str>,
}

/// The controller that made an object, if there is one.
pub(super) fn controller(root: &Field<'_>) -> Result<Option<Controller>, Fault> {
    let metadata = root.get("metadata");
    let owners = metadata.get("ownerReferences");
    for owner in owners.items()? {
        if owner.get("controller").flag()? {
            let (kind, name) = (owner.get("kind"), owner.get("name"));
            let name = checked_name(&name, name.required()?, MAX_NAME)?;
            let kind = shown(kind.required()?);
            return Ok(Some(Controller { kind, name }));
        }
    }
    Ok(None)
}

/// A time; `None` where it is absent or no time.
pub(super) fn time(field: &Field<'_>) -> Result<Option<Timestamp>, Fault> {
    Ok(field.text()?.and_then(|text| text.parse().ok()))
}
