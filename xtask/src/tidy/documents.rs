//! What users see must be written down: metrics in `docs/metrics.md`, reasons where they are declared.

use std::collections::BTreeSet;

use crate::tidy::{Finding, Source, files};

/// Where metrics are listed.
const METRICS: &str = "docs/metrics.md";
/// Where reasons for uncounted packets are declared.
const REASONS: &str = "monitor-ebpf/common/src/abi";
/// What every metric begins with.
const PREFIX: &str = "nodewatch_";

/// Checks the documentation against the sources.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let text = |source: &Source| String::from_utf8_lossy(&source.bytes).into_owned();
    let mut findings = Vec::new();
    let declared: BTreeSet<String> = sources
        .iter()
        .filter(|source| is_metric_source(&source.path))
        .flat_map(|source| metric_literals(&text(source)))
        .collect();
    if let Some(document) = sources.iter().find(|source| source.path == METRICS) {
        findings.extend(metrics(&declared, &text(document)));
    }
    for source in sources
        .iter()
        .filter(|source| source.path.starts_with(REASONS))
    {
        findings.extend(reasons(&source.path, &text(source)));
    }
    findings
}

fn is_metric_source(path: &str) -> bool {
    let declares = ["monitor/core/src/metric", "monitor/src/sink/process.rs"];
    declares.iter().any(|start| path.starts_with(start))
        && files::is_rust(path)
        && !path.ends_with("tests.rs")
}

/// Metric names among the string literals of a source.
fn metric_literals(text: &str) -> BTreeSet<String> {
    // every second piece of the text lies between quotes; quotes inside literals only hide names
    let is_name = |piece: &&str| {
        piece.len() > PREFIX.len()
            && piece.starts_with(PREFIX)
            && piece
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    text.split('"').filter(is_name).map(str::to_owned).collect()
}

/// Metrics that the document does not list, and listed ones that no longer exist.
fn metrics(declared: &BTreeSet<String>, document: &str) -> Vec<Finding> {
    let listed: BTreeSet<&str> = document
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.len() > PREFIX.len() && word.starts_with(PREFIX))
        .collect();
    let missing = declared
        .iter()
        .filter(|name| !listed.contains(name.as_str()));
    let gone = listed.iter().filter(|name| !declared.contains(**name));
    missing
        .map(|name| Finding::new(METRICS, 1, format!("{name} is not listed")))
        .chain(gone.map(|name| Finding::new(METRICS, 1, format!("{name} does not exist"))))
        .collect()
}

/// Variants of `enum Reason` without a sentence above them.
fn reasons(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut inside = false;
    let mut documented = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.contains("enum Reason") {
            inside = true;
        } else if inside && line == "}" {
            inside = false;
        } else if inside && line.starts_with("///") {
            documented = true;
        } else if inside && !line.is_empty() && !line.starts_with("#[") && !line.starts_with("//") {
            if !documented {
                let name = line.trim_end_matches(',');
                findings.push(Finding::new(
                    path,
                    index + 1,
                    format!("reason {name} says nothing"),
                ));
            }
            documented = false;
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            bytes: text.as_bytes().to_vec(),
        }
    }

    #[test]
    fn every_metric_is_listed() {
        let code = source(
            "monitor/core/src/metric/name.rs",
            "const A: &str = \"nodewatch_flow_bytes_total\";\nconst B: &str = \"nodewatch_new\";",
        );
        let document = source(
            METRICS,
            "| `nodewatch_flow_bytes_total` | bytes |\n`nodewatch_gone`",
        );
        let messages: Vec<String> = check(&[code, document])
            .into_iter()
            .map(|finding| finding.message)
            .collect();
        assert_eq!(
            messages,
            [
                "nodewatch_new is not listed",
                "nodewatch_gone does not exist"
            ]
        );
    }

    #[test]
    fn no_document_no_check() {
        assert_eq!(
            check(&[source("monitor/core/src/metric.rs", "\"nodewatch_new\"")]),
            []
        );
    }

    #[test]
    fn every_reason_is_explained() {
        let good =
            "pub enum Reason {\n    /// Not IP.\n    NotIp = 0,\n}\nenum Other {\n    A,\n}\n";
        assert_eq!(reasons("abi.rs", good), []);
        let bad = "pub enum Reason {\n    /// Not IP.\n    NotIp = 0,\n    Full = 1,\n}\n";
        assert_eq!(reasons("abi.rs", bad).len(), 1);
    }
}
