//! Manifests as users get them, from kustomize and from Helm: valid, alike, and with the least privilege.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::deploy::{self, tool, yaml};
use tests::lab::{gate, process};

#[path = "manifests/web.rs"]
mod web;

/// Releases that manifests are checked against: the oldest and the newest that AKS offers.
const RELEASES: [&str; 2] = ["1.31", "1.35"];

/// A rendering and what it asks for.
struct Rendering {
    name: &'static str,
    text: String,
    documents: Vec<Value>,
    capabilities: &'static [&'static str],
    attribution: bool,
    exposed: bool,
}

const LEAST: &[&str] = &["BPF", "NET_ADMIN", "PERFMON"];
const ATTRIBUTION: &[&str] = &[
    "BPF",
    "NET_ADMIN",
    "PERFMON",
    "SYS_PTRACE",
    "DAC_READ_SEARCH",
];

/// Values that make the chart what the overlay `aks` is.
const LIKE_AKS: &[&str] = &[
    "--set",
    "metrics.exposed=true,attribution.enabled=true,namespace.create=true",
];

// === impl Rendering ===

impl Rendering {
    fn new(name: &'static str, text: String, like_aks: bool) -> Self {
        Self {
            name,
            documents: yaml(&text).expect("YAML"),
            text,
            capabilities: if like_aks { ATTRIBUTION } else { LEAST },
            attribution: like_aks,
            exposed: like_aks,
        }
    }

    fn of_kind(&self, kind: &str) -> Vec<&Value> {
        let documents = self.documents.iter();
        documents.filter(|one| one["kind"] == kind).collect()
    }

    fn one(&self, kind: &str) -> &Value {
        let found = self.of_kind(kind);
        assert_eq!(found.len(), 1, "{}: {kind}", self.name);
        found[0]
    }

    fn pod(&self) -> &Value {
        &self.one("DaemonSet")["spec"]["template"]["spec"]
    }
}

/// The tools, or why the test is skipped.
fn tools<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let mut found = Vec::new();
    for name in names {
        match tool(name) {
            Some(path) => found.push(path),
            None => {
                gate::skip(&format!("{name} is not there (cargo xtask setup deploy)"));
                return None;
            }
        }
    }
    found.try_into().ok()
}

fn kustomize(kubectl: &Path, folder: &str) -> String {
    let mut command = Command::new(kubectl);
    command.arg("kustomize").arg(deploy::path(folder));
    process::checked(&mut command).expect("kustomize renders it")
}

fn template(helm: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(helm);
    command
        .args(["template", "nodewatch"])
        .arg(deploy::path("deploy/helm/nodewatch"))
        .args(["--namespace", "nodewatch"])
        .args(more);
    command
}

fn renderings(kubectl: &Path, helm: &Path) -> [Rendering; 4] {
    let chart = |more: &[&str]| process::checked(&mut template(helm, more)).expect("a chart");
    [
        Rendering::new(
            "minimal",
            kustomize(kubectl, "deploy/overlays/minimal"),
            false,
        ),
        Rendering::new("aks", kustomize(kubectl, "deploy/overlays/aks"), true),
        Rendering::new("chart", chart(&["--set", "namespace.create=true"]), false),
        Rendering::new("chart like aks", chart(LIKE_AKS), true),
    ]
}

/// Words of a list of strings.
fn words(value: &Value) -> Vec<&str> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).collect()
}

#[test]
fn schemas_accept_every_manifest() {
    let Some([kubectl, helm, validate]) = tools(["kubectl", "helm", "kubernetes-validate"]) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let check = |text: &str, release: &str| {
        let file = folder.path().join("manifest.yaml");
        std::fs::write(&file, text).expect("a file");
        let mut command = Command::new(&validate);
        command.args(["--strict", "-k", release]).arg(&file);
        process::checked_within(&mut command, std::time::Duration::from_mins(1))
    };
    for rendering in renderings(&kubectl, &helm) {
        for release in RELEASES {
            if let Err(error) = check(&rendering.text, release) {
                panic!("{}: {error:#}", rendering.name);
            }
        }
    }
    // It does find what is wrong.
    let text = kustomize(&kubectl, "deploy/overlays/minimal").replace("hostNetwork:", "hostNet:");
    assert!(check(&text, RELEASES[0]).is_err());
    let mut lint = Command::new(&helm);
    lint.args(["lint", "--strict"])
        .arg(deploy::path("deploy/helm/nodewatch"));
    process::checked(&mut lint).expect("helm lint");
}

#[test]
fn pods_have_the_least_privilege() {
    let Some([kubectl, helm]) = tools(["kubectl", "helm"]) else {
        return;
    };
    for rendering in renderings(&kubectl, &helm) {
        let name = rendering.name;
        let pod = rendering.pod();
        let container = &pod["containers"][0];
        let context = &container["securityContext"];
        assert_eq!(
            pod["containers"].as_array().map(Vec::len),
            Some(1),
            "{name}"
        );
        assert_eq!(words(&context["capabilities"]["drop"]), ["ALL"], "{name}");
        assert_eq!(
            words(&context["capabilities"]["add"]),
            rendering.capabilities,
            "{name}"
        );
        for (field, expected) in [
            ("allowPrivilegeEscalation", false),
            ("privileged", false),
            ("readOnlyRootFilesystem", true),
        ] {
            assert_eq!(context[field], expected, "{name}: {field}");
        }
        let seccomp = &pod["securityContext"]["seccompProfile"]["type"];
        assert_eq!(seccomp, "RuntimeDefault", "{name}");
        assert_eq!(pod["hostNetwork"], true, "{name}");
        assert_eq!(pod["hostPID"] == true, rendering.attribution, "{name}");
        assert_eq!(
            context["appArmorProfile"]["type"] == "Unconfined",
            rendering.attribution,
            "{name}"
        );
        for volume in pod["volumes"].as_array().expect("volumes") {
            assert!(volume["hostPath"].is_null(), "{name}: {volume}");
        }
        let mut granted = BTreeSet::new();
        for rule in rendering.one("ClusterRole")["rules"]
            .as_array()
            .expect("rules")
        {
            assert_eq!(words(&rule["verbs"]), ["get", "list", "watch"], "{name}");
            for group in words(&rule["apiGroups"]) {
                granted.extend(
                    words(&rule["resources"])
                        .iter()
                        .map(|kind| format!("{group}/{kind}")),
                );
            }
        }
        // What is watched, and nothing else.
        let watched = monitor::kube::live::RESOURCES.iter();
        let watched: BTreeSet<String> = watched
            .map(|resource| format!("{}/{}", resource.group, resource.name))
            .collect();
        assert_eq!(granted, watched, "{name}");
    }
}

#[test]
fn agents_run_everywhere_and_are_replaced_one_by_one() {
    let Some([kubectl, helm]) = tools(["kubectl", "helm"]) else {
        return;
    };
    for rendering in renderings(&kubectl, &helm) {
        let name = rendering.name;
        let set = rendering.one("DaemonSet");
        let pod = rendering.pod();
        let container = &pod["containers"][0];
        assert_eq!(
            pod["tolerations"],
            json!([{"operator": "Exists"}]),
            "{name}"
        );
        assert_eq!(
            set["spec"]["updateStrategy"]["type"], "RollingUpdate",
            "{name}"
        );
        assert_eq!(
            set["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"], 0,
            "{name}"
        );
        let class = rendering.one("PriorityClass");
        assert_eq!(
            pod["priorityClassName"], class["metadata"]["name"],
            "{name}"
        );
        assert!(
            pod["terminationGracePeriodSeconds"].as_u64() >= Some(5),
            "{name}"
        );
        for (resources, field) in [
            ("requests", "cpu"),
            ("requests", "memory"),
            ("limits", "memory"),
        ] {
            assert!(
                container["resources"][resources][field].is_string(),
                "{name}"
            );
        }
        let port = 9469;
        let host = if rendering.exposed {
            Value::Null
        } else {
            "127.0.0.1".into()
        };
        for (probe, path) in [
            ("startupProbe", "/healthz"),
            ("livenessProbe", "/healthz"),
            ("readinessProbe", "/readyz"),
        ] {
            let get = &container[probe]["httpGet"];
            assert_eq!(
                (&get["path"], &get["port"]),
                (&path.into(), &port.into()),
                "{name}"
            );
            assert_eq!(get["host"], host, "{name}: {probe}");
        }
        let variables = container["env"].as_array().expect("variables");
        let position = |wanted: &str| variables.iter().position(|one| one["name"] == wanted);
        let listen = &variables[position("LISTEN").expect("LISTEN")]["value"];
        let (address, order) = if rendering.exposed {
            ("$(NODE_IP):9469", position("NODE_IP") < position("LISTEN"))
        } else {
            ("127.0.0.1:9469", true)
        };
        // A reference is to what stands before.
        assert!(listen == address && order, "{name}: {variables:?}");
        assert!(
            words(&container["args"]).contains(&"--listen=$(LISTEN)"),
            "{name}"
        );
        let services = rendering.of_kind("Service");
        assert_eq!(services.len(), usize::from(rendering.exposed), "{name}");
        for service in services {
            assert_eq!(service["spec"]["clusterIP"], "None", "{name}");
            let labels = &set["spec"]["template"]["metadata"]["labels"];
            for (label, value) in service["spec"]["selector"].as_object().expect("a selector") {
                assert_eq!(&labels[label], value, "{name}");
            }
            assert_eq!(
                service["spec"]["ports"][0]["targetPort"],
                container["ports"][0]["name"]
            );
        }
        // Everything that is mentioned is there, in one namespace.
        let made: BTreeSet<&str> = rendering
            .of_kind("ConfigMap")
            .iter()
            .filter_map(|map| map["metadata"]["name"].as_str())
            .collect();
        let used: BTreeSet<&str> = pod["volumes"]
            .as_array()
            .expect("volumes")
            .iter()
            .filter_map(|volume| volume["configMap"]["name"].as_str())
            .collect();
        assert_eq!(made, used, "{name}");
        let account = rendering.one("ServiceAccount");
        assert_eq!(
            pod["serviceAccountName"], account["metadata"]["name"],
            "{name}"
        );
        let subject = &rendering.one("ClusterRoleBinding")["subjects"][0];
        assert_eq!(
            subject["namespace"], account["metadata"]["namespace"],
            "{name}"
        );
        assert_eq!(subject["namespace"], "nodewatch", "{name}");
        let labels = &rendering.one("Namespace")["metadata"]["labels"];
        assert_eq!(
            labels["pod-security.kubernetes.io/enforce"], "privileged",
            "{name}"
        );
    }
}

#[test]
fn the_daemon_reads_the_configuration_that_is_rendered() {
    let Some([kubectl, helm]) = tools(["kubectl", "helm"]) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nodewatch.toml");
    let read = |documents: &[Value]| {
        let mut texts = documents.iter().filter(|one| one["kind"] == "ConfigMap");
        let text = texts.find_map(|map| map["data"]["nodewatch.toml"].as_str());
        std::fs::write(&file, text.expect("a file")).expect("a file");
        let settings = monitor::config::Settings::read(&file).expect("settings");
        monitor::config::Config::new(monitor::config::Settings::default(), Some(settings))
            .expect("a configuration")
    };
    for rendering in renderings(&kubectl, &helm) {
        let config = read(&rendering.documents);
        assert_eq!(config.max_series, 20_000, "{}", rendering.name);
        // What AKS needs is known where AKS is meant.
        let profile = (rendering.name == "aks").then_some("aks");
        assert_eq!(config.nsg.profile.as_deref(), profile, "{}", rendering.name);
    }
    let more = [
        "--set",
        "config.expect_ssh={admin=10.0.0.0/8,six=fd00::/8},config.max_series=1000000,config.profile=aks",
        "--set",
        "config.ssh.brute_force_attempts=3,config.timeouts.icmp=10s",
    ];
    let text = process::checked(&mut template(&helm, &more)).expect("a chart");
    let config = read(&yaml(&text).expect("YAML"));
    assert_eq!(config.max_series, 1_000_000);
    assert_eq!(config.expectations.node.len(), 2);
    assert_eq!(config.thresholds.attempts, 3);
    assert_eq!(config.nsg.profile.as_deref(), Some("aks"));
}

#[test]
fn a_changed_security_group_is_no_rolling_update_and_changed_settings_are() {
    let Some([kubectl, helm]) = tools(["kubectl", "helm"]) else {
        return;
    };
    for rendering in renderings(&kubectl, &helm) {
        let maps = rendering.of_kind("ConfigMap");
        let mut names = maps.iter().map(|map| &map["metadata"]["name"]);
        assert!(
            names.any(|name| name == "nodewatch-nsg"),
            "{}",
            rendering.name
        );
    }
    let pod = |more: &[&str]| {
        let text = process::checked(&mut template(&helm, more)).expect("a chart");
        Rendering::new("chart", text, false).one("DaemonSet")["spec"]["template"].clone()
    };
    let first = pod(&["--set-string", r"nsg.subnet\.json=one"]);
    assert_eq!(first, pod(&["--set-string", r"nsg.subnet\.json=two"]));
    assert_ne!(first, pod(&["--set", "config.max_series=1000000"]));
}

#[test]
fn kustomize_and_helm_say_the_same() {
    let Some([kubectl, helm]) = tools(["kubectl", "helm"]) else {
        return;
    };
    let [minimal, aks, chart, like_aks] = renderings(&kubectl, &helm);
    let essence = |rendering: &Rendering| {
        let mut pod = rendering.pod().clone();
        pod["affinity"].take();
        let container = &mut pod["containers"][0];
        container["image"].take();
        let variables = container["env"].as_array_mut().expect("variables");
        variables.sort_by_key(|variable| variable["name"].to_string());
        for volume in pod["volumes"].as_array_mut().expect("volumes") {
            volume["configMap"].take();
        }
        let kinds: BTreeMap<String, usize> =
            rendering
                .documents
                .iter()
                .fold(BTreeMap::new(), |mut kinds, one| {
                    *kinds.entry(one["kind"].to_string()).or_default() += 1;
                    kinds
                });
        let strategy = rendering.one("DaemonSet")["spec"]["updateStrategy"].clone();
        let rules = rendering.one("ClusterRole")["rules"].clone();
        (without_nulls(pod), strategy, rules, kinds)
    };
    assert_eq!(essence(&minimal), essence(&chart));
    assert_eq!(essence(&aks), essence(&like_aks));
}

/// Absent and null are the same.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        Value::Array(values) => values.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[test]
fn the_chart_refuses_wrong_values() {
    let Some([helm]) = tools(["helm"]) else {
        return;
    };
    for (values, word) in [
        ("atribution.enabled=true", "atribution"),
        ("config.expect_ssh={10.0.0.0/8}", "expect_ssh"),
        ("config.listen=0.0.0.0:9469", "config"),
        ("metrics.podMonitor.enabled=true", "metrics.exposed"),
        ("metrics.port=0", "port"),
        ("image.digest=latest", "digest"),
    ] {
        let mut command = template(&helm, &["--set", values]);
        let output = process::output(&mut command, process::PATIENCE).expect("helm runs");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{values}");
        assert!(message.contains(word), "{values}: {message}");
    }
}

#[test]
fn the_pod_monitor_finds_the_pods() {
    let Some([kubectl, helm]) = tools(["kubectl", "helm"]) else {
        return;
    };
    // kustomize takes relative paths only, and none out of a folder for files.
    let folder = tempfile::tempdir_in(deploy::path("deploy/overlays")).expect("a folder");
    let text = "resources: [../minimal]\n\
                components: [../../components/scrape, ../../components/podmonitor]\n";
    std::fs::write(folder.path().join("kustomization.yaml"), text).expect("a file");
    let mut command = Command::new(&kubectl);
    command.arg("kustomize").arg(folder.path());
    let by_kustomize = process::checked(&mut command).expect("kustomize renders it");
    let values = "metrics.exposed=true,metrics.podMonitor.enabled=true";
    let by_helm = process::checked(&mut template(&helm, &["--set", values])).expect("a chart");
    for text in [by_kustomize, by_helm] {
        let documents = yaml(&text).expect("YAML");
        let one = |kind: &str| {
            documents
                .iter()
                .find(|one| one["kind"] == kind)
                .expect("it")
        };
        let (monitor, set) = (one("PodMonitor"), one("DaemonSet"));
        let template = &set["spec"]["template"];
        let selector = &monitor["spec"]["selector"]["matchLabels"];
        for (label, value) in selector.as_object().expect("labels") {
            assert_eq!(&template["metadata"]["labels"][label], value);
        }
        let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
        let port = &template["spec"]["containers"][0]["ports"][0];
        assert_eq!(endpoint["port"], port["name"]);
        assert_eq!(endpoint["path"], "/metrics");
    }
}
