//! Findings about SSH: what is not as declared, and what points to an attack.

use std::{net::IpAddr, time::Duration};

use super::{super::books::Books, connection::PORT};
use crate::{
    entity::{Sight, normalise},
    event::{
        Endpoint, EntityKind, FindingKind, FindingRecord, LocalEnd, NsgRecord, Outcome, Point,
        Protocol, Severity, SshRecord, State, Target, VERSION,
    },
    flow::{FlowKey, Tracked},
    judge::{Attempt, Event, Suspicion, group},
    nsg::Access,
    ssh::{AuthOutcome, Basis, Class, Hint},
    time::Timestamp,
};

/// How long one may take to log in: OpenSSH's `LoginGraceTime`, and what it adds at random.
const MOST_MS: u64 = 125_000;
/// Packets of one direction that whoever has not logged in needs at most.
const MOST_PACKETS: u64 = 100;
/// What `ssh-from-pod` rests on.
const FROM_POD: &str = "built-in rule: SSH of nodes is not for pods";
/// Time in which one statement about a source and a destination is made once.
const ONCE: Duration = Duration::from_mins(10);

/// A statement that is made once in a while: what, how grave, about which source and destination.
pub(super) type Statement = (FindingKind, Severity, IpAddr, (IpAddr, u16));

/// What a finding is called in MITRE ATT&CK.
const fn technique(finding: FindingKind) -> Option<&'static str> {
    match finding {
        FindingKind::SshUnexpected | FindingKind::SshFromPod => Some("T1021.004"),
        FindingKind::SshBruteForce | FindingKind::SshSuccessAfterFailures => Some("T1110.001"),
        FindingKind::SshSpray => Some("T1110.003"),
        FindingKind::SshScan => Some("T1046"),
        FindingKind::SshNonstandardPort => Some("T1571"),
        FindingKind::SshExpectedBlocked
        | FindingKind::NsgDrift
        | FindingKind::NsgOverBlocked
        | FindingKind::PolicyOverBlocked
        | FindingKind::PolicyViolation
        | FindingKind::PublicAddress
        | FindingKind::PolicyWouldAllow
        | FindingKind::PolicyWouldDeny => None,
    }
}

/// How grave a finding is, unless what is known of it makes it less or more so.
pub(in super::super) const fn severity(finding: FindingKind) -> Severity {
    match finding {
        FindingKind::SshSuccessAfterFailures => Severity::Critical,
        FindingKind::SshBruteForce
        | FindingKind::SshSpray
        | FindingKind::NsgDrift
        | FindingKind::PolicyViolation => Severity::High,
        // That a server is within reach; a login is graver.
        FindingKind::SshUnexpected
        | FindingKind::SshFromPod
        | FindingKind::SshScan
        | FindingKind::SshExpectedBlocked
        | FindingKind::PublicAddress
        | FindingKind::PolicyOverBlocked => Severity::Medium,
        FindingKind::SshNonstandardPort | FindingKind::NsgOverBlocked => Severity::Low,
        FindingKind::PolicyWouldAllow | FindingKind::PolicyWouldDeny => Severity::Info,
    }
}

/// Which of the things that look the same from outside it is, as far as rules tell: a rule is
/// missing, or the rules allow it and there is no server.
fn blocked_by(expected: &NsgRecord, range: &str, local: LocalEnd) -> String {
    let rule = expected.rule.as_deref().unwrap_or("-");
    match (expected.access, local) {
        (Access::Deny, _) => format!(
            ": network security group rule {rule} denies it, a rule that allows {range} is missing"
        ),
        (Access::Allow, LocalEnd::Destination) => format!(
            ": network security group rule {rule} allows it, so SSH is disabled on the node or \
             its server refuses"
        ),
        (Access::Allow, LocalEnd::Source) | (Access::Indeterminate, _) => String::new(),
    }
}

/// What a statement about a connection rests on.
fn basis(record: &SshRecord) -> Vec<String> {
    let ident = record.client_banner.is_some() || record.server_banner.is_some();
    let kexinit = record.hassh.is_some() || record.hassh_server.is_some();
    [
        ident.then_some("ident"),
        kexinit.then_some("kexinit"),
        (record.basis != Basis::None).then(|| record.basis.name()),
    ]
    .into_iter()
    .flatten()
    .map(str::to_owned)
    .collect()
}

/// Whether a pod reaches a node.
fn is_from_pod(record: &SshRecord) -> bool {
    let is_pod = record.source.kind == EntityKind::Pod
        || record.point == Point::Workload && record.local == LocalEnd::Source;
    is_pod && record.target == Target::Node
}

/// What a source is counted as. Addresses of the cluster are hosts, those of others may be as many as
/// a host likes.
fn source_group(source: &Endpoint) -> IpAddr {
    match source.kind {
        EntityKind::Pod | EntityKind::Node | EntityKind::Service => normalise(source.ip),
        _ => group(source.ip),
    }
}

/// A connection as brute force and the like are judged by. `failures`: attempts that the server
/// refused before a login.
pub(super) fn attempt(record: &SshRecord, failures: u32) -> Attempt<'_> {
    let outcome = record.authentication;
    let packets = [record.forward, record.reverse].map(|traffic| traffic.map(|sum| sum.packets));
    let is_short = record.duration_ms <= MOST_MS
        && packets
            .iter()
            .flatten()
            .all(|packets| *packets <= MOST_PACKETS);
    Attempt {
        source: record.source.ip,
        group: source_group(&record.source),
        target: (record.destination.ip, record.destination.port.unwrap_or(0)),
        hassh: record.hassh.as_deref(),
        event: if record.hints.contains(&Hint::Refused) {
            Event::Refused
        } else {
            Event::of(outcome, is_short)
        },
        failures: match outcome {
            AuthOutcome::Failure => record.attempts.unwrap_or(1).max(1),
            AuthOutcome::Success => failures,
            AuthOutcome::Unknown | AuthOutcome::None => 0,
        },
        at_ns: nanoseconds(record.end),
    }
}

fn nanoseconds(at: Timestamp) -> u64 {
    u64::try_from(at.nanoseconds()).unwrap_or(0)
}

impl Books {
    /// Judges a connection of which a record is made for the first time, or which was taken for less
    /// `before`; the gravest finding.
    pub(super) fn judge_opened(
        &mut self,
        record: &SshRecord,
        before: Option<Class>,
    ) -> Option<FindingKind> {
        // A client alone reaches no SSH server.
        if record.class == Some(Class::ClientOnly) {
            return None;
        }
        let (source, port) = (record.source.ip, record.destination.port.unwrap_or(0));
        let target = format!("{} {}", record.target, record.destination.ip);
        let mut gravest = None;
        let mut found = Vec::new();
        // A server that was reached was judged by where from, whatever the client said.
        let is_new = before != Some(Class::ServerOnly);
        if is_new && record.expected == Some(false) {
            found.push((
                FindingKind::SshUnexpected,
                format!("SSH to {target} port {port} from {source}, which is in no expected range"),
                self.ssh_declaration(record.target),
            ));
        }
        if is_new && is_from_pod(record) {
            found.push((
                FindingKind::SshFromPod,
                format!("the pod at {source} reaches SSH on {target} port {port}"),
                FROM_POD.to_owned(),
            ));
        }
        if record.class == Some(Class::Ssh) && !record.standard_port {
            found.push((
                FindingKind::SshNonstandardPort,
                format!("SSH to {target} on port {port}"),
                "built-in rule: SSH is on port 22".to_owned(),
            ));
        }
        for (kind, reason, declared_by) in found {
            gravest = gravest.max(Some(kind));
            self.report_once(kind, severity(kind), reason, declared_by, record);
        }
        gravest
    }

    /// Judges a connection on which someone has logged in.
    pub(super) fn judge_login(&mut self, record: &SshRecord) {
        let (source, port) = (record.source.ip, record.destination.port.unwrap_or(0));
        let target = format!("{} {}", record.target, record.destination.ip);
        let by = record.user.as_ref();
        let by = by.map_or_else(String::new, |user| format!(" as {user}"));
        if record.expected == Some(false) {
            let reason = format!(
                "login{by} to {target} port {port} from {source}, which is in no expected range"
            );
            let declared_by = self.ssh_declaration(record.target);
            let kind = FindingKind::SshUnexpected;
            self.report_once(kind, Severity::High, reason, declared_by, record);
        }
        if is_from_pod(record) {
            let reason = format!("the pod at {source} logged in{by} to {target} port {port}");
            let kind = FindingKind::SshFromPod;
            self.report_once(kind, Severity::High, reason, FROM_POD.to_owned(), record);
        }
    }

    /// Judges a connection that the server refused in place of a banner: maintenance has to work.
    pub(super) fn judge_refused(&mut self, record: &SshRecord) {
        let Some(range) = record.range.as_ref() else {
            return;
        };
        if !record.hints.contains(&Hint::Refused) {
            return;
        }
        let reason = format!(
            "SSH to {} {} from {}, in the expected range {range}, is refused by the server: it \
             penalizes the source, or too many connections are about to log in",
            record.target, record.destination.ip, record.source.ip
        );
        let declared_by = self.ssh_declaration(record.target);
        let kind = FindingKind::SshExpectedBlocked;
        self.report_once(kind, severity(kind), reason, declared_by, record);
    }

    pub(super) fn report_suspicion(&mut self, suspicion: Suspicion, record: &SshRecord) {
        let declared_by = format!("built-in rule: {}", suspicion.rule);
        let Suspicion {
            kind,
            severity,
            reason,
            ..
        } = suspicion;
        self.report(kind, severity, reason, declared_by, record);
    }

    /// Reports unless the same was said of this source and destination a while ago.
    fn report_once(
        &mut self,
        kind: FindingKind,
        severity: Severity,
        reason: String,
        declared_by: String,
        ssh: &SshRecord,
    ) {
        let destination = (ssh.destination.ip, ssh.destination.port.unwrap_or(0));
        let statement = (kind, severity, source_group(&ssh.source), destination);
        if self.ssh.told.is_due(statement, nanoseconds(ssh.end), ONCE) {
            self.report(kind, severity, reason, declared_by, ssh);
        }
    }

    fn report(
        &mut self,
        kind: FindingKind,
        severity: Severity,
        reason: String,
        declared_by: String,
        ssh: &SshRecord,
    ) {
        let mut ssh = ssh.clone();
        ssh.finding = Some(kind);
        self.push_finding(FindingRecord {
            version: VERSION,
            time: self.now,
            finding: kind,
            severity,
            reason,
            declared_by,
            technique: technique(kind).map(Into::into),
            basis: basis(&ssh),
            source: ssh.source.ip,
            ssh: Some(Box::new(ssh)),
            flow: None,
        });
    }

    pub(in super::super) fn push_finding(&mut self, record: FindingRecord) {
        if let Some(records) = &mut self.records {
            records.push(record.clone().into());
        }
        self.ssh.keep_finding(record);
    }

    /// Judges a connection that closed without getting through: maintenance has to work.
    pub(in super::super) fn judge_blocked(&mut self, key: &FlowKey, flow: &Tracked) {
        let orientation = flow.orientation(key);
        let outcome = flow.outcome(key);
        if key.protocol() != Protocol::TCP
            || !orientation.is_known
            || orientation.service_port(key) != Some(PORT)
            || !matches!(outcome, Outcome::Refused | Outcome::Unanswered)
        {
            return;
        }
        let Some(interface) = self.ledger.interface(key.interface_id()) else {
            return;
        };
        let (source, destination, local) = if orientation.source_is_local {
            (key.local(), key.remote(), LocalEnd::Source)
        } else {
            (key.remote(), key.local(), LocalEnd::Destination)
        };
        let kind = self
            .names
            .resolve(&Sight {
                ip: destination,
                port: flow
                    .orientation(key)
                    .service_port(key)
                    .map(|port| (key.protocol(), port)),
                point: interface.point,
                at: flow.start,
            })
            .kind;
        let target = self.ssh_target(interface.point, local, kind);
        let expected = self.ssh.expectations.judge(target, source);
        let Some((name, net)) = expected.and_then(|expected| expected.range) else {
            return;
        };
        let finding = FindingKind::SshExpectedBlocked;
        let statement = (finding, severity(finding), source, (destination, PORT));
        if !self
            .ssh
            .told
            .is_due(statement, nanoseconds(flow.end()), ONCE)
        {
            return;
        }
        let record = self.record(key, flow, interface, State::Closed);
        let cause = record
            .nsg
            .as_ref()
            .map_or_else(String::new, |expected| blocked_by(expected, &name, local));
        self.push_finding(FindingRecord {
            version: VERSION,
            time: self.now,
            finding,
            severity: severity(finding),
            reason: format!(
                "SSH to {target} {destination} from {source}, in the expected range {name}, is {outcome}{cause}"
            ),
            declared_by: format!(
                "{} {name}={net}",
                crate::judge::Expectations::declared_by(target)
            ),
            technique: None,
            basis: vec!["flow".to_owned()],
            source: record.source.ip,
            ssh: None,
            flow: Some(Box::new(record)),
        });
    }
}
