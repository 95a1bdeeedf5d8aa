//! The few template expressions whose value is written in the template itself.
//!
//! `parameters` with a literal default, `variables`, `concat`, `format` and `resourceId`
//! (Azure Resource Manager, "ARM template functions"). What depends on a deployment stays as it is.

use serde_json::{Map, Value};

/// How deep an expression may lead.
const MOST_DEPTH: usize = 16;
/// The longest text that an expression may make.
const MOST_TEXT: usize = 4096;

/// A template's parameters and variables.
pub(super) struct Template<'a> {
    parameters: Option<&'a Map<String, Value>>,
    variables: Option<&'a Map<String, Value>>,
}

/// What is left of an expression.
struct Parser<'a, 't> {
    template: &'t Template<'a>,
    rest: &'t str,
    depth: usize,
}

// === impl Template ===

impl<'a> Template<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        let object = |name: &str| member(root.as_object()?, name)?.as_object();
        Self {
            parameters: object("parameters"),
            variables: object("variables"),
        }
    }

    /// A value with the expressions in it replaced where that is possible.
    pub(super) fn resolve(&self, value: &Value) -> Value {
        self.resolve_at(value, 0)
    }

    fn resolve_at(&self, value: &Value, depth: usize) -> Value {
        match value {
            Value::String(text) => {
                let result = self.evaluate(text, depth);
                result.unwrap_or_else(|| value.clone())
            }
            Value::Array(items) => {
                let items = items.iter().map(|item| self.resolve_at(item, depth));
                items.collect()
            }
            Value::Object(members) => {
                let members = members.iter();
                members
                    .map(|(key, value)| (key.clone(), self.resolve_at(value, depth)))
                    .collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// The value of an expression; `None` where it is not one, or not known.
    fn evaluate(&self, text: &str, depth: usize) -> Option<Value> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        if inner.starts_with('[') || depth >= MOST_DEPTH {
            return None;
        }
        let mut parser = Parser {
            template: self,
            rest: inner,
            depth,
        };
        let value = parser.value()?;
        parser.blanks();
        parser.rest.is_empty().then_some(value)
    }

    fn parameter(&self, name: &str, depth: usize) -> Option<Value> {
        let parameter = member(self.parameters?, name)?.as_object()?;
        self.literal(member(parameter, "defaultValue")?, depth)
    }

    fn variable(&self, name: &str, depth: usize) -> Option<Value> {
        self.literal(member(self.variables?, name)?, depth)
    }

    /// A value that has no expression left in it.
    fn literal(&self, value: &Value, depth: usize) -> Option<Value> {
        if depth >= MOST_DEPTH {
            return None;
        }
        let value = self.resolve_at(value, depth + 1);
        is_literal(&value).then_some(value)
    }
}

fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let is_it = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case(name);
    object.iter().find(is_it).map(|(_, value)| value)
}

fn is_literal(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.starts_with('['),
        Value::Array(items) => items.iter().all(is_literal),
        Value::Object(members) => members.values().all(is_literal),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

// === impl Parser ===

impl Parser<'_, '_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, begin: char) -> Option<()> {
        self.blanks();
        self.rest = self.rest.strip_prefix(begin)?;
        Some(())
    }

    /// A text in quotes, a number, or a call.
    fn value(&mut self) -> Option<Value> {
        self.blanks();
        if self.rest.starts_with('\'') {
            return self.quoted().map(Value::String);
        }
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Ok(number) = word.parse::<i64>() {
            return Some(number.into());
        }
        self.call(word)
    }

    /// A text in quotes; two of them in it are one.
    fn quoted(&mut self) -> Option<String> {
        self.take('\'')?;
        let mut text = String::new();
        loop {
            let end = self.rest.find('\'')?;
            text.push_str(&self.rest[..end]);
            self.rest = &self.rest[end + 1..];
            match self.rest.strip_prefix('\'') {
                Some(rest) => {
                    text.push('\'');
                    self.rest = rest;
                }
                None => return Some(text),
            }
        }
    }

    fn call(&mut self, function: &str) -> Option<Value> {
        self.take('(')?;
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return None;
        }
        let mut arguments = Vec::new();
        self.blanks();
        if !self.rest.starts_with(')') {
            loop {
                arguments.push(self.value()?);
                self.blanks();
                if self.take(',').is_none() {
                    break;
                }
            }
        }
        self.take(')')?;
        self.depth -= 1;
        self.apply(function, &arguments)
    }

    fn apply(&self, function: &str, arguments: &[Value]) -> Option<Value> {
        let is = |name: &str| name.eq_ignore_ascii_case(function);
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let texts = || arguments.iter().map(text).collect::<Option<Vec<_>>>();
        let made = match arguments {
            [Value::String(name)] if is("parameters") => {
                return self.template.parameter(name, self.depth);
            }
            [Value::String(name)] if is("variables") => {
                return self.template.variable(name, self.depth);
            }
            [_, ..] if is("concat") => texts()?.concat(),
            // Only the name at the end of an id is read.
            [_, _, ..] if is("resourceId") => texts()?.join("/"),
            [Value::String(form), values @ ..] if is("format") => {
                let mut made = form.clone();
                for (index, value) in values.iter().enumerate() {
                    made = made.replace(&format!("{{{index}}}"), &text(value)?);
                    if made.len() > MOST_TEXT {
                        return None;
                    }
                }
                made
            }
            _ => return None,
        };
        (made.len() <= MOST_TEXT).then_some(Value::String(made))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_in_the_template_is_known() {
        let root = json!({
            "parameters": {
                "cidr": {"type": "string", "defaultValue": "10.1.0.0/16"},
                "where": {"type": "string", "defaultValue": "[resourceGroup().location]"},
                "open": {"type": "string"},
                "ports": {"type": "array", "defaultValue": ["22", "[variables('port')]"]},
                "loop": {"type": "string", "defaultValue": "[parameters('loop')]"},
            },
            "variables": {"port": "443", "name": "[concat('nsg-', 'a')]"},
        });
        let template = Template::new(&root);
        let check = |text: &str, expected: Value| {
            assert_eq!(template.resolve(&json!(text)), expected, "{text}");
        };
        check("[parameters('cidr')]", json!("10.1.0.0/16"));
        check("[ PARAMETERS( 'CIDR' ) ]", json!("10.1.0.0/16"));
        check("[variables('name')]", json!("nsg-a"));
        check("[parameters('ports')]", json!(["22", "443"]));
        check(
            "[format('{0}/{1}', variables('name'), 'it''s')]",
            json!("nsg-a/it's"),
        );
        check("[resourceId('T/asg', 'web')]", json!("T/asg/web"));
        for unknown in [
            "[parameters('where')]",
            "[parameters('open')]",
            "[parameters('loop')]",
            "[parameters('cidr'), 'x']",
            "[concat('a', uniqueString('b'))]",
            "[['not an expression']",
            "[concat('a'",
            "[]",
            "plain",
        ] {
            check(unknown, json!(unknown));
        }
        let deep = format!("[{}'x'{}]", "concat(".repeat(500), ")".repeat(500));
        check(&deep, json!(deep));
    }
}
