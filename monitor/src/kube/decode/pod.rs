//! Pods, and workloads that make them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use monitor_core::cluster::{ContainerPort, Phase, Pod, Workload};

use super::{
    Fault, InvalidAddresses,
    field::Field,
    meta::{controller, labels, name, namespace_of, time},
};

/// Digits that a CronJob appends to the names of its Jobs, at least: minutes since 1970.
const CRON_DIGITS: usize = 8;

/// Annotation of the object that stands for a static pod: the uid by which the kubelet knows the
/// pod itself, a hash of its manifest (`kubelet/pkg/types`).
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod.
pub(super) fn pod(root: &Field<'_>, invalid: &mut InvalidAddresses) -> Result<Pod, Fault> {
    let (metadata, spec, status) = (root.get("metadata"), root.get("spec"), root.get("status"));
    let labels = labels(&metadata)?;
    let owner = controller(root)?.map(|by| owner(&by.kind, &by.name, &labels));
    let started = time(&status.get("startTime"))?;
    let phase = match status.get("phase").text()? {
        Some("Succeeded" | "Failed") => Phase::Ended,
        _ => Phase::Active,
    };
    let mut end = None;
    if phase == Phase::Ended {
        for list in ["containerStatuses", "initContainerStatuses"] {
            for container in status.get(list).items()? {
                let state = container.get("state");
                let terminated = state.get("terminated");
                end = end.max(time(&terminated.get("finishedAt"))?);
            }
        }
    }
    Ok(Pod {
        namespace: namespace_of(root)?,
        name: name(root)?,
        uid: metadata.get("uid").shared()?,
        static_uid: metadata.get("annotations").get(MIRROR).shared()?,
        labels,
        ips: addresses(&status, "podIPs", "podIP", invalid)?,
        host_ips: addresses(&status, "hostIPs", "hostIP", invalid)?,
        node: spec.get("nodeName").shared()?,
        host_network: spec.get("hostNetwork").flag()?,
        phase,
        ports: ports(&spec)?,
        workload: owner,
        start: match started {
            Some(time) => Some(time),
            None => time(&metadata.get("creationTimestamp"))?,
        },
        end,
    })
}

/// Addresses of a status: the list, else the single one.
fn addresses(
    status: &Field<'_>,
    list: &str,
    single: &str,
    invalid: &mut InvalidAddresses,
) -> Result<Vec<IpAddr>, Fault> {
    let mut ips: Vec<IpAddr> = Vec::new();
    for item in status.get(list).items()? {
        ips.extend(item.get("ip").ip_or_note(invalid)?);
    }
    if ips.is_empty() {
        ips.extend(status.get(single).ip_or_note(invalid)?);
    }
    ips.dedup();
    Ok(ips)
}

/// Named ports of containers, then of native sidecars: init containers that go on running.
fn ports(spec: &Field<'_>) -> Result<Vec<ContainerPort>, Fault> {
    let mut ports = Vec::new();
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).items()? {
            let is_sidecar = container.get("restartPolicy").text()? == Some("Always");
            if list == "initContainers" && !is_sidecar {
                continue;
            }
            for port in container.get("ports").items()? {
                if let Some(name) = port.get("name").shared()?.filter(|name| !name.is_empty()) {
                    ports.push(ContainerPort {
                        name,
                        protocol: port.get("protocol").protocol()?,
                        port: port.get("containerPort").port()?,
                    });
                }
            }
        }
    }
    Ok(ports)
}

/// What a pod belongs to: the Deployment of its ReplicaSet, the CronJob of its Job.
fn owner(kind: &str, name: &str, labels: &BTreeMap<String, String>) -> Arc<str> {
    if kind == "ReplicaSet"
        && let Some(hash) = labels.get("pod-template-hash")
        && let Some(name) = name
            .strip_suffix(hash.as_str())
            .and_then(|name| name.strip_suffix('-'))
    {
        return format!("Deployment/{name}").into();
    }
    if kind == "Job"
        && let Some((name, minute)) = name.rsplit_once('-')
        && minute.len() >= CRON_DIGITS
        && minute.bytes().all(|byte| byte.is_ascii_digit())
    {
        return format!("CronJob/{name}").into();
    }
    format!("{kind}/{name}").into()
}

/// A workload.
pub(super) fn workload(root: &Field<'_>, kind: &str) -> Result<Workload, Fault> {
    let (namespace, name) = (namespace_of(root)?, name(root)?);
    let outer = root.get("spec");
    let job = outer.get("jobTemplate");
    let inner = job.get("spec");
    let spec = if kind == "CronJob" { inner } else { outer };
    let template = spec.get("template");
    let (metadata, pod_spec) = (template.get("metadata"), template.get("spec"));
    let mut labels = BTreeMap::clone(&*labels(&metadata)?);
    if kind == "Job" {
        // Set by the Job controller.
        for key in ["job-name", "batch.kubernetes.io/job-name"] {
            labels.insert(key.to_owned(), name.to_string());
        }
    }
    Ok(Workload {
        kind: kind.into(),
        is_owned: controller(root)?.is_some(),
        template: Pod {
            labels: labels.into(),
            node: pod_spec.get("nodeName").shared()?,
            host_network: pod_spec.get("hostNetwork").flag()?,
            ports: ports(&pod_spec)?,
            ..Pod::new(&namespace, &name)
        },
        namespace,
        name,
    })
}
