//! What `deploy` holds: its files, YAML as JSON values, names of metrics in queries.

pub mod hurry;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use monitor_core::metric;
use serde_json::Value;

use crate::lab::gate;

/// What the daemon tells of its own process.
pub const PROCESS: &[&str] = &[
    "nodewatch_build_info",
    "nodewatch_process_cpu_seconds_total",
    "nodewatch_process_resident_memory_bytes",
    "nodewatch_process_open_fds",
    "nodewatch_http_refused_total",
    "nodewatch_web_config_loads_total",
    "nodewatch_node_reboot_required",
];

/// A path below the root of the repository.
pub fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(below)
}

/// A program on `PATH`, or among those that the set-up fetched.
pub fn tool(name: &str) -> Option<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = variable("NODEWATCH_CACHE").or_else(|| {
        let home = || variable("HOME").map(|home| home.join(".cache"));
        let caches = variable("XDG_CACHE_HOME").or_else(home)?;
        Some(caches.join("nodewatch"))
    });
    let fetched = cache.into_iter().flat_map(|cache| {
        ["tools/bin", "tools/python/bin"].map(|folder| cache.join(folder).join(name))
    });
    gate::find_tool(name).or_else(|| fetched.into_iter().find(|path| path.is_file()))
}

/// The text of a file of the repository.
pub fn read(below: &str) -> Result<String> {
    fs::read_to_string(path(below)).with_context(|| format!("cannot read {below}"))
}

/// Files of a folder of the repository whose names end so, as paths below the root, sorted.
pub fn files(folder: &str, end: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path(folder)).with_context(|| format!("cannot list {folder}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(end) {
            found.push(format!("{folder}/{name}"));
        }
    }
    found.sort();
    Ok(found)
}

/// All documents of a YAML text; empty ones are left out.
pub fn yaml(text: &str) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    // A line of three dashes separates; none of ours has one in a block of text.
    let mut one = String::new();
    for line in text.lines().chain(["---"]) {
        if line.trim_end() != "---" {
            one.push_str(line);
            one.push('\n');
            continue;
        }
        let document: Value =
            serde_saphyr::from_str(&one).with_context(|| format!("not YAML:\n{one}"))?;
        if !document.is_null() {
            documents.push(document);
        }
        one.clear();
    }
    Ok(documents)
}

/// Names in a query that begin with `nodewatch_`, those of recording rules (`level:nodewatch_…`) left out.
pub fn metrics_in(query: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    query
        .split(|c: char| !is_part(c))
        .filter(|word| word.starts_with("nodewatch_"))
        .map(str::to_owned)
        .collect()
}

/// Names of recording rules in a query.
pub fn rules_in(query: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    query
        .split(|c: char| !is_part(c))
        .filter(|word| word.contains(":nodewatch_"))
        .map(str::to_owned)
        .collect()
}

/// Whether the daemon serves a metric of this name.
pub fn is_metric(name: &str) -> bool {
    metric::ALL.iter().any(|definition| definition.name == name) || PROCESS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_queries() {
        let query = "sum(rate(nodewatch_a_total{x=\"nodewatch\"}[5m])) / level:nodewatch_b:rate5m";
        assert_eq!(metrics_in(query), ["nodewatch_a_total".to_owned()].into());
        assert_eq!(
            rules_in(query),
            ["level:nodewatch_b:rate5m".to_owned()].into()
        );
    }

    #[test]
    fn documents_are_told_apart() {
        let documents = yaml("a: 1\n---\n# none\n---\nb: [x]\n").expect("YAML");
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1]["b"][0], "x");
        assert!(yaml("a: [").is_err());
    }

    #[test]
    fn metrics_that_nobody_serves_are_told() {
        assert!(is_metric("nodewatch_flow_bytes_total"));
        assert!(!is_metric("nodewatch_flow_bytes"));
    }
}
