//! Findings about SSH: what is not as declared, and what points to an attack.

use super::super::{books::Books, record};
use crate::{
    entity::Sight,
    event::{
        EntityKind, FindingKind, FindingRecord, LocalEnd, NsgRecord, Outcome, Point, Protocol,
        Severity, SshRecord, State, Target, VERSION,
    },
    flow::{FlowKey, Tracked},
    judge::Suspicion,
    nsg::Access,
    ssh::{Basis, Class},
};

/// Port of SSH (RFC 4253 section 4).
const PORT: u16 = 22;
/// Time in which a blocked source and destination are told of once.
const BLOCKED_NS: u64 = 600_000_000_000;
/// Sources and destinations of which that is remembered.
const BLOCKED: usize = 4_096;

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

pub(in super::super) const fn severity(finding: FindingKind) -> Severity {
    match finding {
        FindingKind::SshSuccessAfterFailures => Severity::Critical,
        FindingKind::SshUnexpected
        | FindingKind::SshBruteForce
        | FindingKind::SshSpray
        | FindingKind::NsgDrift
        | FindingKind::PolicyViolation => Severity::High,
        FindingKind::SshFromPod
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
        let is_pod = record.source.kind == EntityKind::Pod
            || record.point == Point::Workload && record.local == LocalEnd::Source;
        if is_new && is_pod && record.target == Target::Node {
            found.push((
                FindingKind::SshFromPod,
                format!("the pod at {source} reaches SSH on {target} port {port}"),
                "built-in rule: SSH of nodes is not for pods".to_owned(),
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
            self.report(kind, reason, declared_by, record);
        }
        gravest
    }

    pub(super) fn report_suspicion(&mut self, suspicion: Suspicion, record: &SshRecord) {
        let declared_by = format!("built-in rule: {}", suspicion.rule);
        self.report(suspicion.kind, suspicion.reason, declared_by, record);
    }

    fn report(&mut self, kind: FindingKind, reason: String, declared_by: String, ssh: &SshRecord) {
        let mut ssh = ssh.clone();
        ssh.finding = Some(kind);
        self.push_finding(FindingRecord {
            version: VERSION,
            time: self.now,
            finding: kind,
            severity: severity(kind),
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
                point: interface.point,
                at: flow.start,
            })
            .kind;
        let target = self.ssh_target(interface.point, local, kind);
        let expected = self.ssh.expectations.judge(target, source);
        let Some((name, net)) = expected.and_then(|expected| expected.range) else {
            return;
        };
        let at_ns = u64::try_from(flow.end().nanoseconds()).unwrap_or(0);
        let is_told = self
            .ssh
            .blocked
            .get(&(source, destination))
            .is_some_and(|last| at_ns.saturating_sub(*last) < BLOCKED_NS);
        if is_told {
            return;
        }
        if self.ssh.blocked.len() >= BLOCKED {
            self.ssh.blocked.clear();
        }
        self.ssh.blocked.insert((source, destination), at_ns);
        let record = record::of(
            &self.names,
            &self.nsg,
            key,
            flow,
            interface,
            State::Closed,
            self.now,
        );
        let finding = FindingKind::SshExpectedBlocked;
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
