//! Random objects as their authors write them, of few names, so that much matches.

use serde_json::{Map, Value, json};

/// A generator of random numbers (splitmix64, Vigna 2015).
pub(crate) struct Random(pub(crate) u64);

const NAMESPACES: [&str; 4] = ["red", "green", "blue", "grey"];
const NAMES: [&str; 3] = ["web", "dns", "admin"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
const PORTS: [u16; 6] = [53, 80, 81, 82, 443, 8080];
const NETS: [&str; 14] = [
    "0.0.0.0/0",
    "::/0",
    "10.0.0.0/8",
    // Host bits are set.
    "10.1.0.7/16",
    "10.1.1.0/24",
    "10.1.1.4/30",
    "192.168.0.0/24",
    "192.168.0.2/32",
    "203.0.113.0/24",
    "203.0.113.8/29",
    "203.0.113.9/32",
    "fd00:1::/64",
    "fd00:1::4/126",
    "2001:db8::/32",
];
const OUTSIDE: [&str; 9] = [
    "203.0.113.9",
    "203.0.113.77",
    "198.51.100.1",
    "10.1.1.200",
    "192.168.0.1",
    "192.168.0.2",
    "192.168.0.3",
    "2001:db8::9",
    "fd00:1::99",
];

/// What clusters are to have often enough, as it stands in the text of an object.
pub(crate) const FEATURES: [&str; 24] = [
    "NetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "ClusterNetworkPolicy",
    "\"Baseline\"",
    "\"Pass\"",
    "\"except\"",
    "\"endPort\"",
    "\"SCTP\"",
    "\"namedPort\"",
    "\"destinationNamedPort\"",
    "\"port\":\"web\"",
    "\"portRange\"",
    "\"range\"",
    "\"nodes\"",
    "\"networks\"",
    "\"sameLabels\"",
    "\"matchExpressions\"",
    "\"policyTypes\":[]",
    "\"ingress\":null",
    "\"hostNetwork\"",
    "\"Succeeded\"",
    "\"initContainers\"",
    "fd00:1::",
];

/// An address of pod number `number`.
fn address(number: usize, is_ipv6: bool) -> String {
    if is_ipv6 {
        format!("fd00:1::{number}")
    } else {
        format!("10.1.{}.{number}", number % 3)
    }
}

// === impl Random ===

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).expect("small")).expect("small")
    }

    /// True once in `of` times.
    pub(crate) fn once_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn list(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> Value) -> Vec<Value> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn labels(&mut self) -> Value {
        let mut labels = Map::new();
        for _ in 0..self.below(3) {
            let key = self.pick(&["app", "tier", "example.org/env"]);
            labels.insert(key.to_owned(), self.pick(&["a", "b", "c", ""]).into());
        }
        labels.into()
    }

    fn selector(&mut self) -> Value {
        let mut selector = Map::new();
        if self.once_in(2) {
            let mut labels = self.labels();
            if self.once_in(4) {
                labels["kubernetes.io/metadata.name"] = self.pick(&NAMESPACES).into();
            }
            selector.insert("matchLabels".to_owned(), labels);
        }
        if self.once_in(3) {
            let expressions = self.list(2, |random| {
                let key = random.pick(&[
                    "app",
                    "tier",
                    "example.org/env",
                    "kubernetes.io/metadata.name",
                ]);
                let operator = random.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
                let mut expression = json!({"key": key, "operator": operator});
                if matches!(operator, "In" | "NotIn") {
                    let first = random.pick(&["a", "b", "red", "green"]);
                    let second = random.pick(&["c", "", "blue"]);
                    expression["values"] = json!([first, second]);
                }
                expression
            });
            selector.insert("matchExpressions".to_owned(), expressions.into());
        }
        selector.into()
    }

    /// Everything that there is.
    pub(crate) fn objects(&mut self) -> Vec<Value> {
        let mut objects = Vec::new();
        for name in NAMESPACES {
            // One that has no object is a namespace all the same.
            if !self.once_in(6) {
                let labels = self.labels();
                objects.push(json!({
                    "apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": name, "labels": labels},
                }));
            }
        }
        for number in 1..=3 {
            if self.once_in(5) {
                continue;
            }
            let labels = self.labels();
            objects.push(json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": format!("node-{number}"), "labels": labels},
                "status": {"addresses": [
                    {"type": "Hostname", "address": format!("node-{number}")},
                    {"type": "InternalIP", "address": format!("192.168.0.{number}")},
                ]},
            }));
        }
        for number in 0..10 {
            let pod = self.pod(number);
            objects.push(pod);
        }
        for number in 0..self.below(8) {
            let policy = self.policy(number);
            objects.push(policy);
        }
        for number in 0..self.below(4) {
            let rules = [self.tier_rules(false, "from"), self.tier_rules(false, "to")];
            let spec = self.tier(rules, true);
            objects.push(json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
                "metadata": {"name": format!("admin-{number}")}, "spec": spec,
            }));
        }
        if self.once_in(3) {
            let rules = [self.tier_rules(false, "from"), self.tier_rules(false, "to")];
            let mut spec = self.tier(rules, false);
            for direction in ["ingress", "egress"] {
                for rule in spec[direction].as_array_mut().expect("a list") {
                    if rule["action"] == "Pass" {
                        rule["action"] = "Allow".into();
                    }
                }
            }
            objects.push(json!({
                "apiVersion": "policy.networking.k8s.io/v1alpha1",
                "kind": "BaselineAdminNetworkPolicy",
                "metadata": {"name": "default"}, "spec": spec,
            }));
        }
        for number in 0..self.below(4) {
            let rules = [self.tier_rules(true, "from"), self.tier_rules(true, "to")];
            let mut spec = self.tier(rules, true);
            spec["tier"] = self.pick(&["Admin", "Baseline"]).into();
            let version = self.pick(&["v1alpha2", "v1beta1"]);
            objects.push(json!({
                "apiVersion": format!("policy.networking.k8s.io/{version}"),
                "kind": "ClusterNetworkPolicy",
                "metadata": {"name": format!("cluster-{number}")}, "spec": spec,
            }));
        }
        objects
    }

    fn pod(&mut self, number: usize) -> Value {
        let node = 1 + self.below(3);
        let is_host = self.once_in(8);
        let ports = |random: &mut Self, most: usize| {
            // A name once, of one protocol: what else there is depends on the network plugin.
            let mut free = vec!["web", "dns", "admin"];
            (0..random.below(most + 1))
                .map(|_| {
                    let name = free.remove(random.below(free.len()));
                    let port = random.pick(&PORTS);
                    let mut port = json!({"name": name, "containerPort": port});
                    if !random.once_in(3) {
                        port["protocol"] = random.pick(&PROTOCOLS).into();
                    }
                    port
                })
                .collect::<Vec<_>>()
        };
        let mut spec = json!({
            "nodeName": format!("node-{node}"),
            "containers": [{"name": "main", "ports": ports(self, 3)}],
        });
        if self.once_in(4) {
            spec["containers"][0]["ports"] = Value::Null;
            let mut container = json!({"name": "first", "ports": ports(self, 2)});
            if self.once_in(2) {
                container["restartPolicy"] = "Always".into();
            }
            spec["initContainers"] = json!([container]);
        }
        let mut status = json!({"phase": self.pick(&["Running", "Running", "Pending"])});
        let is_ended = !is_host && self.once_in(8);
        if is_host {
            spec["hostNetwork"] = true.into();
            status["podIP"] = format!("192.168.0.{node}").into();
        } else if is_ended {
            // Its address has passed to another.
            status["phase"] = self.pick(&["Succeeded", "Failed"]).into();
            status["podIP"] = address(self.below(10), false).into();
        } else if self.once_in(3) {
            let (v4, v6) = (address(number, false), address(number, true));
            status["podIP"] = v4.as_str().into();
            status["podIPs"] = json!([{"ip": v4}, {"ip": v6}]);
        } else {
            status["podIP"] = address(number, false).into();
        }
        if is_host || self.once_in(2) {
            status["hostIP"] = format!("192.168.0.{node}").into();
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("pod-{number}"), "namespace": self.pick(&NAMESPACES),
                "labels": self.labels(),
            },
            "spec": spec, "status": status,
        })
    }

    fn block(&mut self) -> Value {
        let net = self.pick(&NETS);
        let holes: &[&str] = match net {
            "0.0.0.0/0" => &["10.0.0.0/8", "203.0.113.8/29", "192.168.0.0/24"],
            "::/0" => &["fd00:1::/64"],
            "10.0.0.0/8" => &["10.1.1.0/24", "10.1.0.7/16"],
            "203.0.113.0/24" => &["203.0.113.8/29", "203.0.113.9/32"],
            "fd00:1::/64" => &["fd00:1::4/126"],
            _ => &[],
        };
        let mut block = json!({"cidr": net});
        if !holes.is_empty() && self.once_in(2) {
            block["except"] = json!([self.pick(holes)]);
        }
        json!({"ipBlock": block})
    }

    fn peer(&mut self) -> Value {
        match self.below(8) {
            0..=2 => self.block(),
            3 | 4 => json!({"podSelector": self.selector()}),
            5 => json!({"namespaceSelector": self.selector(), "podSelector": null}),
            6 => json!({"namespaceSelector": self.selector()}),
            _ => json!({"podSelector": self.selector(), "namespaceSelector": self.selector()}),
        }
    }

    fn port(&mut self) -> Value {
        let mut port = json!({});
        if !self.once_in(3) {
            port["protocol"] = self.pick(&PROTOCOLS).into();
        }
        match self.below(6) {
            0 => {}
            1 | 2 => port["port"] = self.pick(&NAMES).into(),
            3 => {
                port["port"] = 80.into();
                port["endPort"] = self.pick(&[80_u16, 82, 443]).into();
            }
            _ => port["port"] = self.pick(&PORTS).into(),
        }
        port
    }

    /// Rules of a NetworkPolicy: absent, null, empty or some.
    fn rules(&mut self, spec: &mut Value, direction: &str, ends: &str) {
        match self.below(8) {
            0 => {}
            1 => spec[direction] = Value::Null,
            2 => spec[direction] = json!([]),
            _ => {
                let rules = self.list(3, |random| {
                    let mut rule = json!({});
                    match random.below(6) {
                        0 => {}
                        1 => rule[ends] = random.pick(&["[]", "null"]).parse().expect("JSON"),
                        _ => rule[ends] = random.list(3, Self::peer).into(),
                    }
                    match random.below(4) {
                        0 => rule["ports"] = random.pick(&["[]", "null"]).parse().expect("JSON"),
                        1 | 2 => rule["ports"] = random.list(2, Self::port).into(),
                        _ => {}
                    }
                    rule
                });
                spec[direction] = rules.into();
            }
        }
    }

    fn policy(&mut self, number: usize) -> Value {
        let mut spec = json!({});
        if !self.once_in(6) {
            spec["podSelector"] = self.selector();
        }
        self.rules(&mut spec, "ingress", "from");
        self.rules(&mut spec, "egress", "to");
        match self.below(6) {
            0 => {}
            1 => spec["policyTypes"] = json!([]),
            2 => spec["policyTypes"] = json!(["Ingress"]),
            3 => spec["policyTypes"] = json!(["Egress"]),
            _ => spec["policyTypes"] = json!(["Ingress", "Egress"]),
        }
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("policy-{number}"), "namespace": self.pick(&NAMESPACES)},
            "spec": spec,
        })
    }

    fn tier(&mut self, [ingress, egress]: [Value; 2], has_priority: bool) -> Value {
        let subject = if self.once_in(2) {
            json!({"namespaces": self.selector()})
        } else {
            json!({"pods": {"namespaceSelector": self.selector(), "podSelector": self.selector()}})
        };
        let mut spec = json!({"subject": subject, "ingress": ingress, "egress": egress});
        if has_priority {
            spec["priority"] = self.below(8).into();
        }
        spec
    }

    fn tier_peer(&mut self, is_cluster: bool, is_egress: bool) -> Value {
        match self.below(if is_egress { 9 } else { 5 }) {
            0 | 1 => json!({"namespaces": self.selector()}),
            2 if is_cluster => json!({"pods": {"podSelector": self.selector()}}),
            2 | 3 => json!({"pods": {
                "namespaceSelector": self.selector(), "podSelector": self.selector(),
            }}),
            // Of an earlier version, and of a later one.
            4 if self.once_in(4) => json!({"namespaces": {"sameLabels": ["app"]}}),
            4 if self.once_in(4) => json!({"services": {}}),
            4 => json!({"namespaces": {}}),
            5 => json!({"nodes": self.selector()}),
            _ => {
                let nets = [self.pick(&NETS), self.pick(&NETS)];
                json!({"networks": nets})
            }
        }
    }

    fn tier_port(&mut self, is_cluster: bool) -> Value {
        let protocol = self.pick(&PROTOCOLS);
        let port = self.pick(&PORTS);
        match (self.below(5), is_cluster) {
            (0, false) => json!({"namedPort": self.pick(&NAMES)}),
            (0, true) => json!({"destinationNamedPort": self.pick(&NAMES)}),
            (1, false) => json!({"portRange": {"protocol": protocol, "start": 80, "end": 443}}),
            (1, true) => {
                let range = json!({"destinationPort": {"range": {"start": 53, "end": 81}}});
                json!({protocol.to_lowercase(): range})
            }
            (2, false) => json!({"portNumber": {"port": port}}),
            (_, false) => json!({"portNumber": {"protocol": protocol, "port": port}}),
            (_, true) => json!({protocol.to_lowercase(): {"destinationPort": {"number": port}}}),
        }
    }

    fn tier_rules(&mut self, is_cluster: bool, ends: &str) -> Value {
        let accept = if is_cluster { "Accept" } else { "Allow" };
        let rules = self.list(3, |random| {
            let action = random.pick(&[accept, "Deny", "Pass"]);
            let mut peers = random.list(2, |random| random.tier_peer(is_cluster, ends == "to"));
            if peers.is_empty() {
                peers.push(json!({"namespaces": random.selector()}));
            }
            let mut rule = json!({"action": action, ends: peers});
            let field = if is_cluster { "protocols" } else { "ports" };
            if random.once_in(2) {
                let first = random.tier_port(is_cluster);
                let mut ports = random.list(2, |random| random.tier_port(is_cluster));
                ports.push(first);
                rule[field] = ports.into();
            }
            rule
        });
        rules.into()
    }

    /// An end of a flow, of one family: a pod by name where it has one address, or an address.
    fn end(&mut self, objects: &[Value], is_ipv6: bool) -> Value {
        if self.once_in(4) {
            let of_family = |ip: &&&str| ip.contains(':') == is_ipv6;
            let outside: Vec<&str> = OUTSIDE.iter().filter(of_family).copied().collect();
            return json!({"ip": self.pick(&outside)});
        }
        let number = self.below(10);
        let name = format!("pod-{number}");
        let is_it = |object: &&Value| object["metadata"]["name"] == name.as_str();
        let pod = objects.iter().find(is_it).expect("there are ten pods");
        let is_host = pod["spec"]["hostNetwork"] == true;
        let is_ended = matches!(
            pod["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
        let is_dual = pod["status"]["podIPs"].is_array();
        if is_ipv6 || is_dual || is_ended || !is_host && self.once_in(3) {
            return json!({"ip": address(number, is_ipv6)});
        }
        json!({"ns": pod["metadata"]["namespace"], "pod": name})
    }

    /// A question.
    pub(crate) fn flow(&mut self, objects: &[Value]) -> Value {
        let is_ipv6 = self.once_in(5);
        let (source, destination) = (self.end(objects, is_ipv6), self.end(objects, is_ipv6));
        let protocol = match self.below(12) {
            0 => "ICMP",
            1 | 2 => "SCTP",
            3..=5 => "UDP",
            _ => "TCP",
        };
        json!({
            "id": self.below(1_000_000), "src": source, "dst": destination,
            "protocol": protocol, "port": self.pick(&PORTS),
        })
    }

    /// Which of [`FEATURES`] objects have.
    #[expect(clippy::unused_self, reason = "beside what makes them")]
    pub(crate) fn features(&self, objects: &[Value]) -> Vec<&'static str> {
        let text: String = objects.iter().map(Value::to_string).collect();
        FEATURES
            .into_iter()
            .filter(|word| text.contains(word))
            .collect()
    }
}
