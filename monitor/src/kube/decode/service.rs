//! Nodes and services.

use monitor_core::cluster::{Node, Service, ServicePort, TargetPort};
use serde_json::Value;

use super::{
    Fault,
    field::Field,
    meta::{labels, name, namespace_of, plain_selector},
};

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
