//! Nodes, services and what is behind them.

use monitor_core::cluster::{
    Endpoint, EndpointPort, EndpointSlice, Node, Service, ServicePort, TargetPort,
};
use serde_json::Value;

use super::{
    Fault,
    field::Field,
    meta::{labels, name, namespace_of, plain_selector},
};

/// Label with the name of the service that a slice is of.
const SERVICE: &str = "kubernetes.io/service-name";

/// A node.
pub(super) fn node(root: &Field<'_>) -> Result<Node, Fault> {
    let status = root.get("status");
    let mut ips = Vec::new();
    for address in status.get("addresses").items()? {
        ips.extend(address.get("address").ip()?);
    }
    Ok(Node {
        name: name(root)?,
        labels: labels(&root.get("metadata"))?,
        ips,
    })
}

/// A service.
pub(super) fn service(root: &Field<'_>) -> Result<Service, Fault> {
    let (spec, status) = (root.get("spec"), root.get("status"));
    let mut ips = Vec::new();
    for list in ["clusterIPs", "externalIPs"] {
        for ip in spec.get(list).items()? {
            ips.extend(ip.ip()?);
        }
    }
    ips.extend(spec.get("clusterIP").ip()?);
    ips.extend(spec.get("loadBalancerIP").ip()?);
    let balancer = status.get("loadBalancer");
    for ingress in balancer.get("ingress").items()? {
        ips.extend(ingress.get("ip").ip()?);
    }
    ips.sort();
    ips.dedup();
    let mut ports = Vec::new();
    for item in spec.get("ports").items()? {
        let port = item.get("port").port()?;
        let target = item.get("targetPort");
        ports.push(ServicePort {
            name: item.get("name").shared()?.unwrap_or_default(),
            protocol: item.get("protocol").protocol()?,
            port,
            target: match target.value() {
                None => TargetPort::Number(port),
                Some(Value::String(name)) => TargetPort::Name(name.as_str().into()),
                // Not set, as older clients write it.
                Some(Value::Number(number)) if number.as_u64() == Some(0) => {
                    TargetPort::Number(port)
                }
                Some(_) => TargetPort::Number(target.port()?),
            },
        });
    }
    Ok(Service {
        namespace: namespace_of(root)?,
        name: name(root)?,
        ips,
        selector: plain_selector(&spec.get("selector"))?,
        ports,
    })
}

/// An endpoint slice, of either version: `v1beta1` differs in nothing that is read here.
pub(super) fn endpoint_slice(root: &Field<'_>) -> Result<EndpointSlice, Fault> {
    let mut ports = Vec::new();
    for item in root.get("ports").items()? {
        // Without a number it is any port: nothing that a service's port leads to.
        let number = item.get("port");
        if number.is_set() {
            ports.push(EndpointPort {
                name: item.get("name").shared()?.unwrap_or_default(),
                protocol: item.get("protocol").protocol()?,
                port: number.port()?,
            });
        }
    }
    let mut endpoints = Vec::new();
    for item in root.get("endpoints").items()? {
        let conditions = item.get("conditions");
        let or = |name, default| {
            let condition = conditions.get(name);
            if condition.is_set() {
                condition.flag()
            } else {
                Ok(default)
            }
        };
        // What is not said: API reference, `EndpointConditions`.
        let ready = or("ready", true)?;
        let is_terminating = !ready;
        if !(ready || or("serving", ready)? && or("terminating", false)?) {
            continue;
        }
        for address in item.get("addresses").items()? {
            // Names stand among them, too, where the slice says so.
            let ip = address.ip()?;
            endpoints.extend(ip.map(|ip| Endpoint { ip, is_terminating }));
        }
    }
    let metadata = root.get("metadata");
    let labels = metadata.get("labels");
    Ok(EndpointSlice {
        namespace: namespace_of(root)?,
        name: name(root)?,
        service: labels.get(SERVICE).shared()?,
        ports,
        endpoints,
    })
}
