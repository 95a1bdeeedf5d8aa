//! Manifests: YAML and JSON files with objects of Kubernetes, as kept in a repository or printed by
//! `kubectl get -o yaml`.
//!
//! Kinds that are not needed are ignored. What cannot be read, or would be refused by the API
//! server, is left out and told of with file and line; everything else works.

mod difference;
mod documents;
mod files;
mod locate;
pub(super) mod prune;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
};

use monitor_core::{
    cluster::{Change, Cluster, Phase, Pod, Workload},
    engine::ManifestsStatus,
    netpol::{Options, Policies, PolicyChange},
    time::Timestamp,
};
use serde_json::Value;

pub use difference::{Difference, policies_beside};
pub use files::{ManifestError, Stamp};

use super::decode::{Decoded, Fault, InvalidAddresses, Object, decode, resource, title};
use documents::{Document, Documents};

/// Diagnostics that are kept; what is beyond is only counted.
const MAX_DIAGNOSTICS: usize = 1_000;
/// Kinds that are ignored and counted one by one.
const MAX_IGNORED: usize = 1_000;
/// The annotation that says whether a policy is in force or proposed.
pub(super) const MODE: &str = "nodewatch.io/mode";
/// Its value for a policy that is proposed.
pub(super) const PROPOSE: &str = "propose";
/// Bytes that are read again to find the lines of what is wrong; beyond, the line of the document
/// is told.
const MAX_READ_AGAIN: usize = 256 << 20;
/// Lists within lists.
const MAX_LISTS: usize = 8;

/// What manifests say.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// Namespaces, nodes, services and pods; workloads stand in for pods that are not there.
    pub cluster: Vec<Change>,
    /// Policies.
    pub policies: Vec<PolicyChange>,
    /// Policies that are annotated `nodewatch.io/mode: propose`: not in force.
    pub proposed: Vec<PolicyChange>,
    /// What was left out, and what is doubtful.
    pub diagnostics: Vec<Diagnostic>,
    /// Diagnostics beyond those that are kept.
    pub more_diagnostics: u64,
    /// Documents that could not be read, and objects that the API server would refuse.
    pub left_out: u64,
    /// Whether a document or a file could not be read.
    pub is_broken: bool,
    /// Files that were read, and what of them is left out.
    pub status: ManifestsStatus,
    /// Objects of kinds that are not needed, by `apiVersion` and `kind`.
    pub ignored: BTreeMap<String, u64>,
}

/// Something about a manifest that its author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What it means.
    pub kind: DiagnosticKind,
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: Option<u64>,
    /// Kind and name of the object, where it has them.
    pub object: Option<String>,
    /// The field and what is wrong with it.
    pub message: String,
}

/// What a diagnostic means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiagnosticKind {
    /// A document or a file cannot be read.
    Broken,
    /// An object is left out.
    Skipped,
    /// An object is used, and hardly says what its author means.
    Doubtful,
}

/// What manifests say at the first reading was always so.
const START: Timestamp = Timestamp::from_nanoseconds(i64::MIN);

/// Reads files one by one.
#[derive(Default)]
struct Reader {
    manifests: Manifests,
    pods: Vec<Pod>,
    workloads: Vec<Workload>,
    /// Pods by their addresses, the first that has each.
    holders: HashMap<IpAddr, (Arc<str>, Arc<str>)>,
    /// Bytes that were read again to find lines.
    read_again: usize,
}

// === impl Diagnostic ===

impl Diagnostic {
    /// What it says where the file is said already.
    fn within_file(&self) -> String {
        let line = self.line.map(|line| format!("line {line}: "));
        let object = self.object.as_ref().map(|object| format!("{object}: "));
        let [line, object] = [line, object].map(Option::unwrap_or_default);
        format!("{line}{object}{}", self.message)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(formatter, ":{line}")?;
        }
        if let Some(object) = &self.object {
            write!(formatter, ": {object}")?;
        }
        write!(formatter, ": {}", self.message)?;
        formatter.write_str(match (self.kind, &self.object) {
            (DiagnosticKind::Broken, _) => "; left out: verdicts are as without what it declares",
            (DiagnosticKind::Skipped, Some(object)) if object.contains("Policy ") => {
                "; skipped: verdicts are as without this policy, as the API server refuses it"
            }
            (DiagnosticKind::Skipped, _) => "; skipped: verdicts are as without this object",
            (DiagnosticKind::Doubtful, _) => "",
        })
    }
}

// === impl Manifests ===

impl Manifests {
    /// Reads files, and directories with all that is in them: `.yaml`, `.yml` and `.json`. A path
    /// `-` is standard input.
    pub fn read(paths: &[PathBuf]) -> Result<Self, ManifestError> {
        let mut reader = Reader::default();
        for path in paths {
            files::each(path, &mut reader)?;
        }
        Ok(reader.finish())
    }

    /// Reads one text.
    pub fn parse(file: &str, text: &str) -> Self {
        let mut reader = Reader::default();
        reader.text(file, text);
        reader.finish()
    }

    /// Policies that are proposed: those of `proposed` whatever they say, and those of these
    /// manifests that say so; nothing if there are none and none were asked for.
    pub fn take_proposed(&mut self, proposed: Option<Self>) -> Option<Vec<PolicyChange>> {
        let mut changes = std::mem::take(&mut self.proposed);
        let is_asked_for = proposed.is_some();
        if let Some(other) = proposed {
            changes.extend(other.policies);
            changes.extend(other.proposed);
        }
        (is_asked_for || !changes.is_empty()).then_some(changes)
    }

    /// The cluster and the policies that the manifests describe.
    pub fn build(&mut self, options: Options) -> (Cluster, Policies) {
        let mut cluster = Cluster::new();
        let mut policies = Policies::new(options);
        for change in self.cluster.drain(..) {
            cluster.apply(change, START);
        }
        for change in self.policies.drain(..) {
            policies.apply(change);
        }
        (cluster, policies)
    }
}

// === impl Reader ===

impl Reader {
    fn text(&mut self, file: &str, text: &str) {
        self.manifests.status.files += 1;
        for document in Documents::new(text) {
            match document.parse() {
                Ok(values) => {
                    for value in &values {
                        self.value(file, &document, value, &mut Vec::new());
                    }
                }
                Err(error) => self.broken(file, Some(error.line), error.message),
            }
        }
    }

    fn broken(&mut self, file: &str, line: Option<u64>, message: String) {
        self.manifests.is_broken = true;
        let diagnostic = Diagnostic {
            kind: DiagnosticKind::Broken,
            file: file.to_owned(),
            line,
            object: None,
            message,
        };
        self.leave_out(ManifestsStatus::DOCUMENTS, &diagnostic);
        self.tell(diagnostic);
    }

    fn leave_out(&mut self, resource: &'static str, diagnostic: &Diagnostic) {
        self.manifests.left_out += 1;
        let (file, last) = (&diagnostic.file, diagnostic.within_file());
        self.manifests.status.skip(resource, file, last);
    }

    /// A directory without manifests: more likely the wrong one than meant so.
    fn empty(&mut self, path: &str) {
        self.tell(Diagnostic {
            kind: DiagnosticKind::Doubtful,
            file: path.to_owned(),
            line: None,
            object: None,
            message: "nothing here ends in .yaml, .yml or .json: nothing is declared".to_owned(),
        });
    }

    fn tell(&mut self, diagnostic: Diagnostic) {
        if self.manifests.diagnostics.len() < MAX_DIAGNOSTICS {
            self.manifests.diagnostics.push(diagnostic);
        } else {
            self.manifests.more_diagnostics += 1;
        }
    }

    /// What is wrong with an object at a place within its document.
    fn fault(
        &mut self,
        kind: DiagnosticKind,
        file: &str,
        document: &Document<'_>,
        value: &Value,
        place: &[super::decode::Segment],
        fault: &Fault,
    ) -> Diagnostic {
        let way: Vec<_> = place.iter().chain(&fault.path).cloned().collect();
        let cost = document.cost_of(&way);
        let line = if self.read_again.saturating_add(cost) <= MAX_READ_AGAIN {
            self.read_again += cost;
            document.line_of(&way)
        } else {
            document.line_of(&[])
        };
        Diagnostic {
            kind,
            file: file.to_owned(),
            line: Some(line),
            object: Some(title(value)),
            message: fault.to_string(),
        }
    }

    /// Takes a value in that is at a place within its document.
    fn value(
        &mut self,
        file: &str,
        document: &Document<'_>,
        value: &Value,
        place: &mut Vec<super::decode::Segment>,
    ) {
        use super::decode::Segment;
        let (items, is_list) = match value {
            Value::Array(items) => (Some(items), false),
            Value::Object(_) if is_list(value) => (value["items"].as_array(), true),
            _ => (None, false),
        };
        if let Some(items) = items.filter(|_| place.len() < 2 * MAX_LISTS) {
            if is_list {
                place.push(Segment::Key("items".to_owned()));
            }
            for (index, item) in items.iter().enumerate() {
                place.push(Segment::Index(index));
                match with_kind(value, item) {
                    Some(item) => self.value(file, document, &item, place),
                    None => self.value(file, document, item, place),
                }
                place.pop();
            }
            if is_list {
                place.pop();
            }
            return;
        }
        match decode(value) {
            Ok(Decoded::Object(object, doubts)) => {
                let invalid = doubts.addresses;
                if invalid.count > 0 {
                    self.invalid_addresses(file, document, value, place, &invalid);
                }
                let shared = match &object {
                    Object::Pod(pod) => self.shared_address(pod),
                    _ => None,
                };
                for fault in doubts.faults.into_iter().chain(shared) {
                    let kind = DiagnosticKind::Doubtful;
                    let diagnostic = self.fault(kind, file, document, value, place, &fault);
                    self.tell(diagnostic);
                }
                let is_proposed = value["metadata"]["annotations"][MODE] == PROPOSE;
                self.object(object, is_proposed);
            }
            Ok(Decoded::Other(kind)) => {
                let ignored = &mut self.manifests.ignored;
                let kind = if ignored.len() < MAX_IGNORED || ignored.contains_key(&kind) {
                    kind
                } else {
                    "others".to_owned()
                };
                *ignored.entry(kind).or_default() += 1;
            }
            Ok(Decoded::Foreign) => {}
            Err(fault) => {
                let kind = DiagnosticKind::Skipped;
                let diagnostic = self.fault(kind, file, document, value, place, &fault);
                self.leave_out(resource(value), &diagnostic);
                self.tell(diagnostic);
            }
        }
    }

    /// Tells of addresses that are none, and counts them.
    fn invalid_addresses(
        &mut self,
        file: &str,
        document: &Document<'_>,
        value: &Value,
        place: &[super::decode::Segment],
        invalid: &InvalidAddresses,
    ) {
        let kind = DiagnosticKind::Doubtful;
        for fault in &invalid.faults {
            let diagnostic = self.fault(kind, file, document, value, place, fault);
            self.manifests.status.last_invalid_address = Some(diagnostic.to_string());
            self.tell(diagnostic);
        }
        let counts = &mut self.manifests.status.invalid_addresses;
        *counts.entry(resource(value).into()).or_default() += invalid.count;
    }

    /// What is wrong with a pod that has an address which another has, too.
    fn shared_address(&mut self, pod: &Pod) -> Option<Fault> {
        if pod.host_network || pod.phase == Phase::Ended {
            return None;
        }
        let name = (Arc::clone(&pod.namespace), Arc::clone(&pod.name));
        let mut others = pod.ips.iter().filter_map(|ip| {
            let other = self.holders.entry(*ip).or_insert_with(|| name.clone());
            (*other != name).then(|| (*ip, other.clone()))
        });
        let (ip, (namespace, other)) = others.next()?;
        Some(Fault {
            path: ["status", "podIP"]
                .map(|key| super::decode::Segment::Key(key.to_owned()))
                .into(),
            message: format!(
                "{ip} is the address of pod {namespace}/{other}, too, and neither has ended: its \
                 flows are those of the pod that began last"
            ),
        })
    }

    fn object(&mut self, object: Object, is_proposed: bool) {
        let Manifests {
            cluster,
            policies,
            proposed,
            ..
        } = &mut self.manifests;
        let policies = if is_proposed { proposed } else { policies };
        match object {
            Object::Namespace(namespace) => cluster.push(Change::Namespace(namespace)),
            Object::Node(node) => cluster.push(Change::Node(node)),
            Object::Service(service) => cluster.push(Change::Service(service)),
            Object::EndpointSlice(slice) => cluster.push(Change::EndpointSlice(slice)),
            Object::Pod(pod) => self.pods.push(*pod),
            Object::Workload(workload) => self.workloads.push(*workload),
            Object::NetworkPolicy(policy) => policies.push(PolicyChange::Namespaced(policy)),
            Object::TierPolicy(policy) => policies.push(PolicyChange::Tier(policy)),
        }
    }

    fn finish(mut self) -> Manifests {
        let stand_ins = Workload::stand_ins(self.workloads, &self.pods);
        let pods = self.pods.into_iter().chain(stand_ins);
        self.manifests.cluster.extend(pods.map(Change::from));
        self.manifests
    }
}

/// Whether an object is a list of objects: `List`, `PodList` and so on.
fn is_list(value: &Value) -> bool {
    value["kind"]
        .as_str()
        .is_some_and(|kind| kind.ends_with("List"))
        && value["items"].is_array()
}

/// An item of a list of one kind, which leaves out its own.
fn with_kind(list: &Value, item: &Value) -> Option<Value> {
    let kind = list["kind"].as_str()?.strip_suffix("List")?;
    if kind.is_empty() || item.get("kind").is_some() || !item.is_object() {
        return None;
    }
    let mut item = item.clone();
    item["kind"] = kind.into();
    item["apiVersion"] = list["apiVersion"].clone();
    Some(item)
}

#[cfg(test)]
mod tests;
