//! SSH to nodes: why it does not work, or whether it is open for nobody.
//!
//! AKS can disable SSH on nodes (`az aks update --ssh-access disabled`), rules can lack, and rules
//! can stand that nobody needs any more. All look the same to whoever tries, and differ in what to
//! do.

use std::sync::Arc;

use super::{Check, Issue, list, observed::Observed};
use crate::nsg::{
    level::Level,
    model::{Direction, Origin, Rule, RuleAccess, RuleProtocol},
};

/// The port of SSH.
const PORT: u16 = 22;

/// Tells the cases apart, of one place's inbound rules.
pub(super) fn report(level: &Level, observed: &Observed, issues: &mut Vec<Issue>) {
    let ssh = &observed.ssh;
    for resolved in level.rules(Direction::Inbound) {
        let rule = &resolved.rule;
        let key = (level.kind, Arc::clone(&rule.name));
        if let Some(sources) = ssh.denied.get(&key) {
            let sources: Vec<_> = sources.iter().collect();
            let why = format!(
                "SSH (TCP 22) from {} was tried, and no rule allows it",
                list(&sources)
            );
            let suggestion = "if they should get in, allow them before this rule; else it is as \
                              declared"
                .to_owned();
            issues.push(Issue::new(
                Check::SshRuleMissing,
                level,
                rule,
                why,
                suggestion,
            ));
        }
        match ssh.allowed.get(&key) {
            Some((tried, 0)) if ssh.has_outcomes => {
                let why = format!(
                    "allows SSH (TCP 22), and none of {tried} observed connections was answered: \
                     SSH is disabled on the nodes, or refuses"
                );
                let suggestion = "look at the node pool's SSH access (az aks nodepool show, \
                                  securityProfile.sshAccess) and at sshd; if it is to remain \
                                  disabled, remove the rule"
                    .to_owned();
                issues.push(Issue::new(
                    Check::SshNotServed,
                    level,
                    rule,
                    why,
                    suggestion,
                ));
            }
            None if is_for_ssh(rule) => {
                let sources = &rule.source;
                let why = format!(
                    "allows SSH (TCP 22) from {}, and none of {} observed flows used it",
                    list(sources),
                    observed.flows()
                );
                let suggestion = "remove it if nothing rare needs it".to_owned();
                issues.push(Issue::new(
                    Check::SshRangeUnused,
                    level,
                    rule,
                    why,
                    suggestion,
                ));
            }
            Some(_) | None => {}
        }
    }
}

/// Whether a user's rule allows SSH by its port, not among all ports.
pub(super) fn is_for_ssh(rule: &Rule) -> bool {
    let is_tcp = matches!(rule.protocol, RuleProtocol::Tcp | RuleProtocol::Any);
    rule.origin == Origin::User
        && rule.access == RuleAccess::Allow
        && is_tcp
        && !rule.destination_ports.is_any()
        && rule.destination_ports.contains(PORT)
}
