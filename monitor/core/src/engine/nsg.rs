//! Connections at the uplink, held against the network security groups that stood when they
//! opened.

mod declared;
mod hits;

use std::{net::IpAddr, sync::Arc};

use monitor_common::abi::RX;

use super::books::Books;
use crate::{
    event::{
        Endpoint, FindingKind, FindingRecord, FlowRecord, Outcome, Protocol, Severity, State,
        Translated, VERSION,
    },
    flow::{Delta, FlowKey, Mark, Tracked},
    judge::nsg_finding,
    nsg::{Access, Direction, Maker, Origin, Step},
};

pub use declared::{NsgRuleStatus, NsgStatus};

pub(super) use declared::Declared;

use hits::{Labels, Matched};

/// What a finding is about: source, destination, its protocol and port. Findings of another kind,
/// which may be graver, are not hidden by it.
pub(super) type Told = (FindingKind, IpAddr, IpAddr, Protocol, u16);

// === impl Books ===

impl Books {
    /// Gives a connection the rules that stood when it opened.
    pub(super) fn nsg_opened(&mut self, flow: &mut Tracked) {
        self.nsg.opened(flow);
    }

    /// Holds an open connection against rules that changed, where Azure does so, too: once a packet
    /// of it arrives. When within a reading it arrived nobody knows, so the last packet before must
    /// have come after the change already.
    pub(super) fn nsg_advanced(&mut self, key: &FlowKey, flow: &mut Tracked, delta: &Delta) {
        if delta.packets[RX] == 0 || !self.nsg.renewed(flow, flow.wall(delta.after_ns)) {
            return;
        }
        flow.set(Mark::NsgTold, false);
        if flow.has(Mark::Counted) && self.judge_nsg(key, flow, State::Open) {
            flow.set(Mark::NsgTold, true);
        }
    }

    /// Counts a connection whose outcome is decided for the rule that should decide it.
    pub(super) fn nsg_counted(&mut self, key: &FlowKey, flow: &Tracked, outcome: Outcome) {
        if flow.nsg_epoch == 0 {
            return;
        }
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return;
        };
        let Some((verdict, direction)) = self.nsg.verdict(&self.names, key, flow, interface) else {
            return;
        };
        let name = |name: Option<&Arc<str>>| name.map_or_else(|| "".into(), Arc::clone);
        let labels = Labels {
            nsg: name(verdict.level().map(|level| &level.nsg.name)),
            rule: name(verdict.rule.map(|rule| &rule.name)),
            access: verdict.access,
            direction,
            outcome,
        };
        let certain = verdict.steps().filter(Step::is_certain);
        let mut rules: Vec<_> = certain
            .map(|step| {
                (
                    Arc::clone(&step.level.nsg.name),
                    Arc::clone(&step.rule().name),
                )
            })
            .collect();
        // One group may be both the subnet's and the network card's.
        rules.dedup();
        let at = flow.start.nanoseconds() / 1_000_000_000;
        self.nsg.count(Matched { labels, rules, at });
    }

    /// Reports a connection that is not as declared; whether it was.
    pub(super) fn judge_nsg(&mut self, key: &FlowKey, flow: &Tracked, state: State) -> bool {
        if flow.nsg_epoch == 0 || flow.has(Mark::NsgTold) {
            return false;
        }
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return false;
        };
        // Most connections are as declared: no record is made of those.
        let Some((verdict, direction)) = self.nsg.verdict(&self.names, key, flow, interface) else {
            return false;
        };
        let is_final = state == State::Closed;
        let outcome = flow.outcome(key);
        let Some(finding) = nsg_finding(verdict.access, direction, outcome, is_final) else {
            return false;
        };
        let is_default = verdict
            .rule
            .is_some_and(|rule| rule.origin == Origin::Default);
        let Some(expected) = self.nsg.expect(&self.names, key, flow, interface) else {
            return false;
        };
        let mut record = self.record(key, flow, interface, state);
        record.finding = Some(finding.name().into());
        let port = record.destination.port.unwrap_or(0);
        let (source, destination) = (record.source.ip, record.destination.ip);
        let about = (finding, source, destination, record.protocol, port);
        if !self.nsg.tells(about, flow.end()) {
            return true;
        }
        let severity = match finding {
            FindingKind::NsgDrift => Severity::High,
            _ if expected.need.is_some() => Severity::Medium,
            _ => Severity::Low,
        };
        let says = match (finding, direction) {
            (FindingKind::NsgDrift, Direction::Inbound) => "and its packets arrive",
            (FindingKind::NsgDrift, Direction::Outbound) => "and it is answered",
            (_, Direction::Inbound) => "but nothing on this node answers it",
            (_, Direction::Outbound) => "but it is not answered: something else may block it",
        };
        let is_ssh = record.protocol == Protocol::TCP && record.destination.port == Some(22);
        let cause = match (finding, direction) {
            (FindingKind::NsgDrift, Direction::Inbound) if is_ssh && is_default => {
                ": no rule is about SSH from there, one is missing in the documents or was added \
                 since"
            }
            (FindingKind::NsgOverBlocked, Direction::Inbound) if is_ssh => {
                ": SSH is disabled on the node, or something on it drops it"
            }
            _ => "",
        };
        let needed = expected.need.as_ref().map_or_else(String::new, |need| {
            format!("; the profile needs it (`{need}`)")
        });
        let maker = match expected.made_by {
            Some(Maker::AksLoadBalancer) => " (which AKS writes for a load balancer)",
            None => "",
        };
        let protocol = record.protocol;
        let behind = pods_behind(&record);
        let verb = match expected.access {
            Access::Deny => "denies",
            Access::Allow | Access::Indeterminate => "allows",
        };
        let group = expected.nsg.as_deref().unwrap_or("-");
        let (by, declared_by) = match expected.rule.as_deref() {
            Some(rule) => (
                format!("rule {rule} {verb}"),
                format!("network security group {group}, rule {rule}{maker}"),
            ),
            // What Azure serves itself needs none, and nothing that is given may match.
            None => ("no rule denies".to_owned(), "no rule denies it".to_owned()),
        };
        let to = match record.destination.port {
            Some(port) => format!("{destination} port {port}"),
            None => destination.to_string(),
        };
        self.push_finding(FindingRecord {
            version: VERSION,
            time: self.now,
            finding,
            severity,
            reason: format!("{by} {protocol} from {source} to {to}{behind}, {says}{cause}{needed}"),
            declared_by,
            technique: None,
            basis: vec!["flow".to_owned()],
            source,
            ssh: None,
            flow: Some(Box::new(record)),
        });
        true
    }
}

/// The pods behind the addresses that the network card sees, where these are the node's.
fn pods_behind(record: &FlowRecord) -> String {
    let Some(ends) = record.translated.as_ref().and_then(Translated::ends) else {
        return String::new();
    };
    let pod = |end: &Option<Endpoint>, word: &str| {
        let end = end.as_ref()?;
        let (namespace, pod) = (end.namespace.as_ref()?, end.pod.as_ref()?);
        Some(format!("{word} pod {namespace}/{pod}"))
    };
    let pods = [pod(&ends.source, "from"), pod(&ends.destination, "to")];
    let pods: Vec<_> = pods.into_iter().flatten().collect();
    if pods.is_empty() {
        return String::new();
    }
    format!(" ({})", pods.join(", "))
}
