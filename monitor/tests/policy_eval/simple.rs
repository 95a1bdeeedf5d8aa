//! Verdicts from JSON, the slow way: every object is looked at for every question.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::ports::{is_port, is_tier_port};

/// What is to come out of one direction.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) allowed: Option<bool>,
    /// Sorted. Of NetworkPolicies that allow, all that do so somewhere.
    pub(crate) by: Vec<String>,
    pub(crate) is_by_namespaced: bool,
    pub(crate) basis: &'static str,
}

/// One end of a question.
#[derive(Clone, Copy)]
struct End<'a> {
    /// A pod with an address of its own.
    pod: Option<&'a Value>,
    ip: IpAddr,
    /// A pod of its node's network.
    host: Option<&'a Value>,
}

/// A question.
pub(super) struct Question<'a> {
    source: End<'a>,
    destination: End<'a>,
    pub(super) protocol: &'a str,
    pub(super) port: u64,
}

/// All objects.
pub(crate) struct World<'a> {
    objects: &'a [Value],
    blocks_match_pods: bool,
}

/// What a question and its answer have that a comparison should have met.
pub(crate) fn traits(flow: &Value, parts: &[Part; 2]) -> [(&'static str, bool); 5] {
    let has_colon = |end: &Value| end["ip"].as_str().is_some_and(|ip| ip.contains(':'));
    [
        ("IPv6", has_colon(&flow["src"])),
        ("SCTP", flow["protocol"] == "SCTP"),
        ("UDP", flow["protocol"] == "UDP"),
        ("ICMP", flow["protocol"] == "ICMP"),
        (
            "decided by both ends",
            parts.iter().all(|part| !part.by.is_empty()),
        ),
    ]
}

fn part(allowed: Option<bool>, basis: &'static str, mut by: Vec<String>) -> Part {
    by.sort();
    by.dedup();
    Part {
        allowed,
        by,
        is_by_namespaced: false,
        basis,
    }
}

/// Elements of a list; none where it is absent or null.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether a selector that is there selects something with these labels.
fn selects(selector: &Value, labels: &Map<String, Value>) -> bool {
    let has = |key: &str| labels.contains_key(key);
    let is_one_of = |key: &str, values: &[Value]| {
        let value = labels.get(key);
        value.is_some_and(|value| values.contains(value))
    };
    if let Some(wanted) = selector["matchLabels"].as_object() {
        for (key, value) in wanted {
            if labels.get(key) != Some(value) {
                return false;
            }
        }
    }
    items(&selector["matchExpressions"]).iter().all(|one| {
        let (key, values) = (text(&one["key"]), items(&one["values"]));
        match text(&one["operator"]) {
            "In" => is_one_of(key, values),
            "NotIn" => !is_one_of(key, values),
            "Exists" => has(key),
            "DoesNotExist" => !has(key),
            other => panic!("{other}"),
        }
    })
}

fn labels(object: &Value) -> Map<String, Value> {
    object["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default()
}

/// Whether an address is in a range, by their leading bits.
fn contains(net: &str, ip: IpAddr) -> bool {
    let (base, length) = net.split_once('/').expect("a range");
    let (base, length): (IpAddr, u32) = (
        base.parse().expect("an address"),
        length.parse().expect("a length"),
    );
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => format!("{:032b}", u32::from(ip)),
        IpAddr::V6(ip) => format!("{:0128b}", u128::from(ip)),
    };
    let (base, ip) = (bits(base), bits(ip));
    let length = usize::try_from(length).expect("small");
    base.len() == ip.len() && base[..length] == ip[..length]
}

fn is_ended(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

fn is_host(pod: &Value) -> bool {
    pod["spec"]["hostNetwork"] == true
}

fn has_address(pod: &Value, ip: IpAddr) -> bool {
    let status = &pod["status"];
    let all = items(&status["podIPs"]).iter().map(|item| &item["ip"]);
    all.chain([&status["podIP"]])
        .any(|text| text.as_str().and_then(|text| text.parse().ok()) == Some(ip))
}

// === impl Question ===

impl<'a> Question<'a> {
    /// The pod that it goes to, which names its ports.
    pub(super) fn pod(&self) -> Option<&'a Value> {
        self.destination.pod
    }
}

// === impl World ===

impl<'a> World<'a> {
    pub(crate) fn new(objects: &'a [Value], blocks_match_pods: bool) -> Self {
        Self {
            objects,
            blocks_match_pods,
        }
    }

    fn of_kind(&self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects
            .iter()
            .filter(move |object| object["kind"] == kind)
    }

    fn namespace_labels(&self, name: &Value) -> Map<String, Value> {
        let mut found = self.of_kind("Namespace");
        let namespace = found.find(|one| one["metadata"]["name"] == *name);
        let mut labels = namespace.map(labels).unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
        labels
    }

    fn end(&self, end: &Value) -> End<'a> {
        if let Some(ip) = end["ip"].as_str() {
            let ip: IpAddr = ip.parse().expect("an address");
            let mut pods = self.of_kind("Pod");
            let pod = pods.find(|pod| !is_host(pod) && !is_ended(pod) && has_address(pod, ip));
            return End {
                pod,
                ip,
                host: None,
            };
        }
        let mut pods = self.of_kind("Pod");
        let pod = pods.find(|pod| pod["metadata"]["name"] == end["pod"]);
        let pod = pod.expect("a pod");
        End {
            pod: (!is_host(pod)).then_some(pod),
            ip: text(&pod["status"]["podIP"]).parse().expect("an address"),
            host: is_host(pod).then_some(pod),
        }
    }

    /// Egress, then ingress.
    pub(crate) fn judge(&self, flow: &Value) -> [Part; 2] {
        let question = Question {
            source: self.end(&flow["src"]),
            destination: self.end(&flow["dst"]),
            protocol: text(&flow["protocol"]),
            port: flow["port"].as_u64().expect("a port"),
        };
        ["egress", "ingress"].map(|direction| self.direction(&question, direction))
    }

    fn direction(&self, question: &Question<'_>, direction: &str) -> Part {
        let Question {
            source,
            destination,
            ..
        } = question;
        let (subject, peer) = match direction {
            "egress" => (source, destination),
            _ => (destination, source),
        };
        let Some(pod) = subject.pod else {
            return part(Some(true), "no-pod", Vec::new());
        };
        if peer
            .pod
            .is_some_and(|other| other["metadata"] == pod["metadata"])
        {
            return part(Some(true), "itself", Vec::new());
        }
        if let Some(decided) = self.tier("Admin", question, direction, pod, peer) {
            return decided;
        }
        if let Some(decided) = self.namespaced(question, direction, pod, peer) {
            return decided;
        }
        self.tier("Baseline", question, direction, pod, peer)
            .unwrap_or_else(|| part(Some(true), "default", Vec::new()))
    }

    /// Whether an end that is no pod is the node that a pod runs on.
    fn is_own_node(&self, pod: &Value, peer: &End<'_>) -> bool {
        let name = &pod["spec"]["nodeName"];
        if let Some(host) = peer.host {
            return host["spec"]["nodeName"] == *name;
        }
        let of_status = text(&pod["status"]["hostIP"]).parse() == Ok(peer.ip);
        let mut nodes = self.of_kind("Node");
        let node = nodes.find(|node| node["metadata"]["name"] == *name);
        let addresses = node.map(|node| items(&node["status"]["addresses"]));
        let mut addresses = addresses.unwrap_or_default().iter();
        of_status || addresses.any(|one| text(&one["address"]).parse() == Ok(peer.ip))
    }

    fn namespaced(
        &self,
        question: &Question<'_>,
        direction: &str,
        pod: &Value,
        peer: &End<'_>,
    ) -> Option<Part> {
        let label = |policy: &Value| {
            let metadata = &policy["metadata"];
            let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
            format!("NetworkPolicy {namespace}/{name}")
        };
        let isolating: Vec<_> = self
            .of_kind("NetworkPolicy")
            .filter(|policy| {
                let types = items(&policy["spec"]["policyTypes"]);
                let is_about = if types.is_empty() {
                    let has_egress = !items(&policy["spec"]["egress"]).is_empty();
                    direction == "ingress" || has_egress
                } else {
                    types
                        .iter()
                        .any(|one| text(one).to_lowercase() == direction)
                };
                policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
                    && selects(&policy["spec"]["podSelector"], &labels(pod))
                    && is_about
            })
            .collect();
        if isolating.is_empty() {
            return None;
        }
        if peer.pod.is_none() && self.is_own_node(pod, peer) {
            return Some(part(Some(true), "own-node", Vec::new()));
        }
        if question.protocol == "ICMP" {
            let all = isolating.iter().map(|policy| label(policy)).collect();
            return Some(part(None, "undecided", all));
        }
        let (rules, ends) = match direction {
            "egress" => ("egress", "to"),
            _ => ("ingress", "from"),
        };
        let allows = |policy: &Value| {
            items(&policy["spec"][rules]).iter().any(|rule| {
                let (ports, peers) = (items(&rule["ports"]), items(&rule[ends]));
                let is_port = ports.is_empty() || ports.iter().any(|one| is_port(one, question));
                let of = &policy["metadata"]["namespace"];
                let is_peer = peers.is_empty() || peers.iter().any(|one| self.peer(one, of, peer));
                is_port && is_peer
            })
        };
        let allowing: Vec<_> = isolating.iter().filter(|policy| allows(policy)).collect();
        let is_allowed = !allowing.is_empty();
        let by = if is_allowed {
            allowing.into_iter().map(|policy| label(policy)).collect()
        } else {
            isolating.iter().map(|policy| label(policy)).collect()
        };
        Some(Part {
            is_by_namespaced: true,
            ..part(Some(is_allowed), "network-policy", by)
        })
    }

    fn peer(&self, peer: &Value, namespace: &Value, end: &End<'_>) -> bool {
        let block = &peer["ipBlock"];
        if !block.is_null() {
            let is_in = |net: &Value| contains(text(net), end.ip);
            return (end.pod.is_none() || self.blocks_match_pods)
                && is_in(&block["cidr"])
                && !items(&block["except"]).iter().any(is_in);
        }
        let Some(pod) = end.pod else {
            return false;
        };
        let of = &pod["metadata"]["namespace"];
        let (namespaces, pods) = (&peer["namespaceSelector"], &peer["podSelector"]);
        let in_namespace = if namespaces.is_null() {
            of == namespace
        } else {
            selects(namespaces, &self.namespace_labels(of))
        };
        in_namespace && (pods.is_null() || selects(pods, &labels(pod)))
    }

    /// What a tier decides; nothing if that is up to the next one.
    fn tier(
        &self,
        tier: &str,
        question: &Question<'_>,
        direction: &str,
        pod: &Value,
        peer: &End<'_>,
    ) -> Option<Part> {
        let basis = if tier == "Admin" { "admin" } else { "baseline" };
        let mut policies: Vec<(u64, &Value)> = Vec::new();
        for object in self.objects {
            let spec = &object["spec"];
            let is_of_tier = match text(&object["kind"]) {
                "AdminNetworkPolicy" => tier == "Admin",
                "BaselineAdminNetworkPolicy" => tier == "Baseline",
                "ClusterNetworkPolicy" => spec["tier"] == tier,
                _ => false,
            };
            let subject = &spec["subject"];
            let is_subject = if subject["pods"].is_null() {
                self.is_in(&json!({"namespaceSelector": subject["namespaces"]}), pod)
            } else {
                self.is_in(&subject["pods"], pod)
            };
            if is_of_tier && is_subject {
                // The one BaselineAdminNetworkPolicy comes after all that have a priority.
                policies.push((spec["priority"].as_u64().unwrap_or(2_000), object));
            }
        }
        policies.sort_by_key(|(priority, _)| *priority);
        while let Some((priority, _)) = policies.first().copied() {
            let mut hits = Vec::new();
            for (_, policy) in policies.iter().filter(|(other, _)| *other == priority) {
                let (kind, name) = (text(&policy["kind"]), text(&policy["metadata"]["name"]));
                if let Some(action) = self.first(policy, question, direction, peer) {
                    hits.push((action, format!("{kind} {name}")));
                }
            }
            policies.retain(|(other, _)| *other != priority);
            let Some(action) = hits.first().map(|(action, _)| *action) else {
                continue;
            };
            let agree = hits.iter().all(|(other, _)| *other == action);
            let by = hits.into_iter().map(|(_, label)| label).collect();
            return match (agree, action) {
                (false, _) => Some(part(None, "undecided", by)),
                (true, "Pass") => None,
                (true, action) => Some(part(Some(action == "Accept"), basis, by)),
            };
        }
        None
    }

    /// What the first rule of a policy that matches does.
    fn first(
        &self,
        policy: &Value,
        question: &Question<'_>,
        direction: &str,
        end: &End<'_>,
    ) -> Option<&'static str> {
        let ends = if direction == "egress" { "to" } else { "from" };
        for rule in items(&policy["spec"][direction]) {
            let action = match text(&rule["action"]) {
                "Allow" | "Accept" => "Accept",
                "Deny" => "Deny",
                _ => "Pass",
            };
            let peers = items(&rule[ends]);
            let is_unknown = |peer: &Value| {
                !peer["services"].is_null() || !peer["namespaces"]["sameLabels"].is_null()
            };
            if peers.iter().any(is_unknown) {
                // What cannot be read fails closed.
                match action {
                    "Accept" => continue,
                    _ => return Some("Deny"),
                }
            }
            let is_address = |peer: &Value| !peer["networks"].is_null() || !peer["nodes"].is_null();
            let of_addresses = peers.iter().any(is_address);
            let ports = [&rule["ports"], &rule["protocols"]];
            let mut ports = ports.into_iter().filter(|ports| !ports.is_null());
            let is_port = ports.next().is_none_or(|ports| {
                let mut ports = items(ports).iter();
                ports.any(|port| is_tier_port(port, question, of_addresses))
            });
            if is_port && peers.iter().any(|peer| self.tier_peer(peer, end)) {
                return Some(action);
            }
        }
        None
    }

    fn tier_peer(&self, peer: &Value, end: &End<'_>) -> bool {
        let of_pod = |set: &Value| end.pod.is_some_and(|pod| self.is_in(set, pod));
        if !peer["namespaces"].is_null() {
            of_pod(&json!({"namespaceSelector": peer["namespaces"]}))
        } else if !peer["pods"].is_null() {
            of_pod(&peer["pods"])
        } else if !peer["nodes"].is_null() {
            let has_ip = |node: &Value| {
                let mut addresses = items(&node["status"]["addresses"]).iter();
                addresses.any(|one| text(&one["address"]).parse() == Ok(end.ip))
            };
            end.pod.is_none()
                && self
                    .of_kind("Node")
                    .any(|node| has_ip(node) && selects(&peer["nodes"], &labels(node)))
        } else {
            let mut nets = items(&peer["networks"]).iter();
            nets.any(|net| contains(text(net), end.ip))
        }
    }

    /// Whether a pod is among those of a set: an absent selector selects all.
    fn is_in(&self, set: &Value, pod: &Value) -> bool {
        let namespace = self.namespace_labels(&pod["metadata"]["namespace"]);
        selects(&set["namespaceSelector"], &namespace) && selects(&set["podSelector"], &labels(pod))
    }
}
