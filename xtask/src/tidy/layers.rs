//! Which package may depend on which: `monitor-common <- monitor-core <- monitor <- tests`.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::tidy::Finding;
use crate::workspace::Workspace;

/// Packages of this repository, and those of them that each may depend on.
const LAYERS: [(&str, &[&str]); 7] = [
    ("monitor-common", &[]),
    ("monitor-ebpf", &["monitor-common"]),
    ("monitor-core", &["monitor-common"]),
    ("monitor", &["monitor-common", "monitor-core"]),
    ("tests", &["monitor-common", "monitor-core", "monitor"]),
    ("fuzz", &["tests"]),
    ("xtask", &[]),
];
/// Beginnings of names of packages that do what the core must not: I/O, a runtime, the kernel, a clock.
const NOT_IN_CORE: [&str; 12] = [
    "aya",
    "async-",
    "hyper",
    "k8s-openapi",
    "kube",
    "libc",
    "mio",
    "netlink",
    "nix",
    "rtnetlink",
    "rustix",
    "tokio",
];

/// Reads the manifests of both workspaces and checks them.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for manifest in ["Cargo.toml", "monitor-ebpf/Cargo.toml"] {
        findings.extend(packages(&Workspace::metadata_of(&root.join(manifest))?));
    }
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// Checks the packages that `cargo metadata` describes.
fn packages(metadata: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            // null is a normal dependency; tests may use more
            let normal = dependency["kind"].is_null();
            if let Some(message) = forbidden(name, on, normal) {
                findings.push(Finding::new(name, 1, message));
            }
        }
    }
    findings
}

fn forbidden(name: &str, on: &str, normal: bool) -> Option<String> {
    let Some((_, allowed)) = LAYERS.iter().find(|(package, _)| *package == name) else {
        return Some(format!(
            "package {name} has no place in tidy's list of layers"
        ));
    };
    if LAYERS.iter().any(|(package, _)| *package == on) {
        return (!allowed.contains(&on)).then(|| format!("{name} must not depend on {on}"));
    }
    match name {
        "monitor-common" if normal => Some(format!("{name} has no dependencies, not even {on}")),
        "monitor-core" if normal && NOT_IN_CORE.iter().any(|begin| on.starts_with(begin)) => {
            Some(format!("{name} is pure: it must not depend on {on}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_point_one_way() {
        assert!(forbidden("monitor-core", "monitor", true).is_some());
        assert!(forbidden("monitor-common", "monitor-core", false).is_some());
        assert!(forbidden("monitor", "tests", false).is_some());
        assert!(forbidden("tests", "monitor", true).is_none());
        assert!(forbidden("newcomer", "serde", true).is_some());
    }

    #[test]
    fn the_core_stays_pure_and_the_shared_crate_bare() {
        assert!(forbidden("monitor-core", "tokio", true).is_some());
        assert!(forbidden("monitor-core", "aya-obj", true).is_some());
        assert!(forbidden("monitor-core", "serde", true).is_none());
        assert!(forbidden("monitor-common", "zerocopy", true).is_some());
        assert!(forbidden("monitor-common", "etherparse", false).is_none());
    }

    #[test]
    fn metadata_is_understood() {
        let metadata = serde_json::json!({"packages": [
            {"name": "monitor-core", "dependencies": [
                {"name": "kube", "kind": null}, {"name": "kube", "kind": "dev"}, {"name": "monitor-common", "kind": null},
            ]},
        ]});
        assert_eq!(packages(&metadata).len(), 1);
    }
}
