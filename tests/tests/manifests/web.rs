//! TLS and credentials of the metrics, and what the node says of itself, as kustomize and Helm render them.

use std::process::Command;

use serde_json::{Value, json};
use tests::deploy::{self, yaml};
use tests::lab::process;

use super::{RELEASES, template, tools, words};

/// What `docs/deployment.md` says for TLS with a token.
const TLS: &str = "metrics.exposed=true,metrics.podMonitor.enabled=true,metrics.tls.enabled=true,\
                   metrics.auth.tokenSecret=nodewatch-scrape";

/// An overlay of these components on the minimal one.
fn overlay(kubectl: &std::path::Path, components: &str) -> String {
    // kustomize takes relative paths only, and none out of a folder for files.
    let folder = tempfile::tempdir_in(deploy::path("deploy/overlays")).expect("a folder");
    let text = format!("resources: [../minimal]\ncomponents: [{components}]\n");
    std::fs::write(folder.path().join("kustomization.yaml"), text).expect("a file");
    let mut command = Command::new(kubectl);
    command.arg("kustomize").arg(folder.path());
    process::checked(&mut command).expect("kustomize renders it")
}

fn one<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let mut found = documents.iter().filter(|one| one["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "{kind} twice");
    first
}

/// The web configuration in the Secret that was made.
fn web_of(documents: &[Value]) -> String {
    let secret = one(documents, "Secret");
    if let Some(text) = secret["stringData"]["web.yml"].as_str() {
        return text.to_owned();
    }
    let encoded = secret["data"]["web.yml"].as_str().expect("a file");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("encoded");
    std::fs::write(&file, encoded).expect("written");
    process::checked(Command::new("base64").arg("--decode").arg(file)).expect("base64")
}

#[test]
fn metrics_are_served_and_scraped_over_tls() {
    let Some([kubectl, helm, validate]) = tools(["kubectl", "helm", "kubernetes-validate"]) else {
        return;
    };
    let components = ["scrape", "podmonitor", "tls"].map(|name| format!("../../components/{name}"));
    let by_kustomize = overlay(&kubectl, &components.join(", "));
    let by_helm = process::checked(&mut template(&helm, &["--set", TLS])).expect("a chart");
    let folder = tempfile::tempdir().expect("a folder");
    for text in [by_kustomize, by_helm] {
        // The kind PodMonitor is in no schema of Kubernetes.
        let documents = yaml(&text).expect("YAML");
        let known: Vec<_> = documents
            .iter()
            .filter(|one| one["kind"] != "PodMonitor")
            .collect();
        let file = folder.path().join("manifest.yaml");
        let lines: Vec<_> = known.iter().map(|one| format!("---\n{one}\n")).collect();
        std::fs::write(&file, lines.concat()).expect("written");
        for release in RELEASES {
            let mut command = Command::new(&validate);
            command.args(["--strict", "-k", release]).arg(&file);
            process::checked_within(&mut command, std::time::Duration::from_mins(1))
                .unwrap_or_else(|error| panic!("{error:#}"));
        }
        let pod = &one(&documents, "DaemonSet")["spec"]["template"];
        assert_eq!(
            pod["metadata"]["annotations"]["prometheus.io/scheme"],
            "https"
        );
        let container = &pod["spec"]["containers"][0];
        assert!(words(&container["args"]).contains(&"--web-config=/etc/nodewatch-web/web.yml"));
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
        }
        // Every file that the configuration names is below a mount of a Secret, and no mount is of one file.
        let web = web_of(&documents);
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
        let named: Vec<_> = web
            .split_whitespace()
            .filter(|word| word.starts_with("/etc/"))
            .collect();
        assert_eq!(named.len(), 3, "{web}");
        for file in named {
            let (directory, _) = file.rsplit_once('/').expect("a folder");
            let mount = mounts.iter().find(|mount| mount["mountPath"] == directory);
            let mount = mount.unwrap_or_else(|| panic!("{file} is nowhere"));
            assert!(
                mount["subPath"].is_null() && mount["readOnly"] == true,
                "{mount}"
            );
            let volume = volumes
                .iter()
                .find(|volume| volume["name"] == mount["name"]);
            let secret = &volume.expect("a volume")["secret"];
            // Octal 0400.
            assert_eq!(secret["defaultMode"], 256, "{file}");
            assert!(secret["secretName"].is_string(), "{file}");
        }
        // The daemon knows all keys: what is wrong is only that the files are not here.
        let path = folder.path().join("web.yml");
        std::fs::write(&path, &web).expect("written");
        let error = monitor::sink::web::Web::read(&path).expect_err("no certificate here");
        assert!(
            error
                .to_string()
                .contains("cert_file: cannot read /etc/nodewatch-tls"),
            "{error}"
        );
        let endpoint = &one(&documents, "PodMonitor")["spec"]["podMetricsEndpoints"][0];
        assert_eq!(endpoint["scheme"], "https");
        let ca = json!({"secret": {"name": "nodewatch-tls", "key": "ca.crt"}});
        assert_eq!(
            endpoint["tlsConfig"],
            json!({"serverName": "nodewatch", "ca": ca})
        );
        let credentials = json!({"name": "nodewatch-scrape", "key": "token"});
        assert_eq!(
            endpoint["authorization"],
            json!({"credentials": credentials})
        );
    }
}

#[test]
fn users_and_client_certificates_may_be_asked_for() {
    let Some([helm]) = tools(["helm"]) else {
        return;
    };
    let hash = "$2y$10$abcdefghijklmnopqrstuu23JPZtHcGhwXSF41f93o/7vBdDut3Xu";
    let users = format!("metrics.auth.users.prometheus={hash}");
    let text = process::checked(&mut template(&helm, &["--set", &users])).expect("a chart");
    let documents = yaml(&text).expect("YAML");
    let web = web_of(&documents);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("web.yml");
    std::fs::write(&path, &web).expect("written");
    let read = monitor::sink::web::Web::read(&path).expect("a configuration");
    assert_eq!(read.words(), "http, basic authentication");
    let container = &one(&documents, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    assert!(container["livenessProbe"]["httpGet"]["scheme"].is_null());

    let values = format!(
        "{TLS},metrics.tls.clientCaKey=clients.crt,metrics.podMonitor.clientCertificateSecret=prom"
    );
    let text = process::checked(&mut template(&helm, &["--set", &values])).expect("a chart");
    let documents = yaml(&text).expect("YAML");
    let web = web_of(&documents);
    assert!(
        web.contains("client_auth_type: RequireAndVerifyClientCert"),
        "{web}"
    );
    assert!(
        web.contains("client_ca_file: /etc/nodewatch-tls/clients.crt"),
        "{web}"
    );
    let tls = &one(&documents, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["tlsConfig"];
    assert_eq!(tls["keySecret"], json!({"name": "prom", "key": "tls.key"}));

    for (values, word) in [
        ("metrics.auth.users.prometheus=secret", "users"),
        ("metrics.tls.minVersion=TLS10", "minVersion"),
        ("config.web_config=/etc/x", "config"),
    ] {
        let output = process::output(&mut template(&helm, &["--set", values]), process::PATIENCE);
        let output = output.expect("helm runs");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && message.contains(word),
            "{values}: {message}"
        );
    }
}

#[test]
fn whether_to_reboot_is_read_from_the_node_and_nothing_written() {
    let Some([kubectl, helm]) = tools(["kubectl", "helm"]) else {
        return;
    };
    let by_kustomize = overlay(&kubectl, "../../components/reboot");
    let values = "rebootRequired.enabled=true";
    let by_helm = process::checked(&mut template(&helm, &["--set", values])).expect("a chart");
    for text in [by_kustomize, by_helm] {
        let documents = yaml(&text).expect("YAML");
        let pod = &one(&documents, "DaemonSet")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        assert!(
            words(&container["args"]).contains(&"--reboot-required-file=/host/run/reboot-required")
        );
        let volumes = pod["volumes"].as_array().expect("volumes");
        only_host_path(volumes, container, "/run", "/host/run");
    }
}

#[test]
fn control_groups_for_names_of_host_pods_are_mounted_read_only() {
    let Some([kubectl, helm]) = tools(["kubectl", "helm"]) else {
        return;
    };
    let by_kustomize = overlay(&kubectl, "../../components/host-pods");
    let mut by_helm = template(&helm, &["--set", "hostPods.enabled=true"]);
    let by_helm = process::checked(&mut by_helm).expect("a chart");
    for text in [by_kustomize, by_helm] {
        let documents = yaml(&text).expect("YAML");
        let pod = &one(&documents, "DaemonSet")["spec"]["template"]["spec"];
        let volumes = pod["volumes"].as_array().expect("volumes");
        only_host_path(
            volumes,
            &pod["containers"][0],
            "/sys/fs/cgroup",
            "/host/cgroup",
        );
    }
}

/// One path of the node is mounted, and that read-only.
fn only_host_path(volumes: &[Value], container: &Value, path: &str, mounted: &str) {
    let paths: Vec<_> = volumes
        .iter()
        .filter(|one| !one["hostPath"].is_null())
        .collect();
    assert_eq!(paths.len(), 1);
    assert_eq!(
        paths[0]["hostPath"],
        json!({"path": path, "type": "Directory"})
    );
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    let mount = mounts
        .iter()
        .find(|mount| mount["name"] == paths[0]["name"]);
    let mount = mount.expect("a mount");
    assert_eq!(
        (&mount["readOnly"], &mount["mountPath"]),
        (&json!(true), &json!(mounted))
    );
}
