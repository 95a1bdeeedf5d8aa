//! Nodes and pods that answer on public addresses.
//!
//! Nodes of AKS have private addresses, and what the Internet is to reach is a Service whose rules
//! AKS writes. A node that answers on a public address, or that answers the Internet though no
//! rule of a user lets it in (a default route makes VirtualNetwork everything), is open in a way
//! that nobody asked for.

use super::{books::Books, nsg::Declared};
use crate::{
    account::Interface,
    entity::{Names, Sight, is_public, normalise},
    event::{EntityKind, FindingKind, FindingRecord, Outcome, Severity, State, VERSION},
    flow::{FlowKey, Tracked},
    nsg::{Access, Direction, Origin},
};

/// Whether a connection is of that kind, where groups are declared.
pub(super) fn finding(
    names: &Names,
    nsg: &Declared,
    key: &FlowKey,
    flow: &Tracked,
    interface: &Interface,
    outcome: Outcome,
) -> Option<FindingKind> {
    // Most connections are none of that: they are not judged again.
    if !matches!(outcome, Outcome::Established | Outcome::Reset)
        || !(is_public(key.local()) || is_public(key.remote()))
    {
        return None;
    }
    let (verdict, direction) = nsg.verdict(names, key, flow, interface)?;
    let (source, destination) = (verdict.tuple().source, verdict.tuple().destination);
    let is_at_public = is_public(destination);
    if direction == Direction::Outbound
        || verdict.access == Access::Deny
        || !(is_at_public || is_public(source))
        || verdict.rule.is_some_and(|rule| rule.made_by().is_some())
    {
        return None;
    }
    let is_asked_for = verdict.rule.is_some_and(|rule| rule.origin == Origin::User);
    if !is_at_public && is_asked_for {
        return None;
    }
    let kind = |ip| {
        let sight = Sight {
            ip,
            port: None,
            point: interface.point,
            at: flow.start,
        };
        names.resolve(&sight).kind
    };
    // A range that has a name is not just anybody, and a Service's address is meant to be public.
    let is_known = kind(destination) == EntityKind::Service
        || (!is_at_public && kind(source) != EntityKind::Internet);
    (!is_known).then_some(FindingKind::PublicAddress)
}

impl Books {
    /// Reports a connection of that kind, each address and port once in ten minutes.
    pub(super) fn judge_public(&mut self, key: &FlowKey, flow: &Tracked, state: State) {
        if flow.nsg_epoch == 0 {
            return;
        }
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return;
        };
        let outcome = flow.outcome(key);
        let found = finding(&self.names, &self.nsg, key, flow, interface, outcome);
        let Some(finding) = found else { return };
        let record = self.record(key, flow, interface, state);
        if record.finding.as_deref() != Some(finding.name()) {
            return;
        }
        let Some(expected) = record.nsg.clone() else {
            return;
        };
        let (source, end) = (record.source.ip, &record.destination);
        let port = end.port.unwrap_or(0);
        let about = (finding, end.ip, end.ip, record.protocol, port);
        if !self.nsg.tells(about, flow.end()) {
            return;
        }
        let who = match (end.kind, &end.namespace, &end.pod, &end.name) {
            (EntityKind::Pod, Some(namespace), Some(pod), _) => format!("pod {namespace}/{pod}"),
            (EntityKind::Node, _, _, Some(name)) => format!("node {name}"),
            (EntityKind::Node, ..) => "this node".to_owned(),
            _ => "an address of this node or of a pod on it".to_owned(),
        };
        let to = match end.port {
            Some(port) => format!("{} port {port}", end.ip),
            None => end.ip.to_string(),
        };
        let rule = expected.rule.as_deref().unwrap_or("-");
        let group = expected.nsg.as_deref().unwrap_or("-");
        let protocol = record.protocol;
        let reason = if is_public(normalise(end.ip)) {
            format!("{who} answers {protocol} on the public address {to}, here {source}")
        } else {
            format!(
                "{who} answers {protocol} from {source} on the Internet, at {to}: no rule of a user lets it in"
            )
        };
        self.push_finding(FindingRecord {
            version: VERSION,
            time: self.now,
            finding,
            severity: Severity::Medium,
            reason,
            declared_by: format!("network security group {group}, rule {rule}"),
            technique: None,
            basis: vec!["flow".to_owned()],
            source,
            ssh: None,
            flow: Some(Box::new(record)),
        });
    }
}
