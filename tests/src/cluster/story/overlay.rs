//! An overlay as a user writes it: from where SSH is expected, a security group, metrics at the node's address.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use serde_json::json;

use super::Story;
use crate::deploy;
use crate::lab::process;

/// The port that the declared security group denies, and the rule that does.
pub(super) const DENIED: u16 = 8022;
pub(super) const RULE: &str = "DenyAdmin";

const KUSTOMIZATION: &str = "\
resources: [../minimal]
components: [../../components/host-pods, ../../components/scrape]
configMapGenerator:
- {name: nodewatch-config, namespace: nodewatch, behavior: merge, files: [nodewatch.toml]}
- {name: nodewatch-nsg, namespace: nodewatch, behavior: merge, files: [subnet.json]}
";

const CONFIGURATION: &str = "\
log_format = \"json\"
event_log = \"-\"
expect_ssh = [\"admin=10.224.0.0/16\"]
range = [\"office=203.0.113.0/24\"]
nsg = [\"subnet=/etc/nodewatch-nsg/subnet.json\"]
virtual_network = [\"10.224.0.0/16\", \"10.244.0.0/16\"]
";

// === impl Story ===

impl Story {
    /// A copy of the manifests with an overlay of this cluster.
    pub(super) fn overlay(&self) -> Result<PathBuf> {
        let copy = self.cluster.lab().directory().join("deploy");
        let from = deploy::path("deploy");
        process::checked(Command::new("cp").arg("-r").arg(from).arg(&copy))?;
        let overlay = copy.join("overlays/lab");
        fs::create_dir(&overlay)?;
        fs::write(overlay.join("kustomization.yaml"), KUSTOMIZATION)?;
        fs::write(overlay.join("nodewatch.toml"), CONFIGURATION)?;
        fs::write(overlay.join("subnet.json"), group().to_string())?;
        Ok(overlay)
    }
}

/// As `az network nsg show` prints it. Nothing enforces it here: what it denies comes through.
fn group() -> serde_json::Value {
    let rule = |name: &str, priority: u16, access: &str, port: u16| {
        json!({
            "name": name, "priority": priority, "direction": "Inbound", "access": access,
            "protocol": "Tcp", "sourceAddressPrefix": "*", "sourcePortRange": "*",
            "destinationAddressPrefix": "*", "destinationPortRange": port.to_string(),
        })
    };
    json!({
        "name": "aks-subnet-nsg",
        "securityRules": [
            rule("AllowSsh", 100, "Allow", 22),
            rule(RULE, 110, "Deny", DENIED),
        ],
    })
}
