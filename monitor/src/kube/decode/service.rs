//! Nodes, services and what is behind them.

use monitor_core::cluster::{
    Endpoint, EndpointPort, EndpointSlice, Node, Service, ServicePort, TargetPort,
};
use serde_json::Value;

use super::{
    Fault, InvalidAddresses,
    field::Field,
    meta::{labels, name, namespace_of, plain_selector},
};

/// Label with the name of the service that a slice is of.
const SERVICE: &str = "kubernetes.io/service-name";

/// Addresses of a service.
const MAX_IPS: usize = 256;
/// Ports of a service.
const MAX_PORTS: usize = 1_024;
/// Ports at addresses: each is a place where the service is found.
const MAX_PLACES: usize = 8_192;

/// A node. Of its addresses some are names, as their types say (`core/v1 NodeAddressType`).
pub(super) fn node(root: &Field<'_>, invalid: &mut InvalidAddresses) -> Result<Node, Fault> {
    let status = root.get("status");
    let mut ips = Vec::new();
    for address in status.get("addresses").items()? {
        let value = address.get("address");
        ips.extend(match address.get("type").text()? {
            Some("InternalIP" | "ExternalIP") => value.ip_or_note(invalid)?,
            _ => value.ip()?,
        });
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
    if ips.len() > MAX_IPS {
        return Err(spec.fault(format!("more than {MAX_IPS} addresses")));
    }
    let mut ports = Vec::new();
    let list = spec.get("ports");
    for item in list.items()? {
        if ports.len() == MAX_PORTS {
            return Err(list.fault(format!("more than {MAX_PORTS} ports")));
        }
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
    if ips.len() * ports.len() > MAX_PLACES {
        let message = format!("more than {MAX_PLACES} ports, each counted at each address");
        return Err(list.fault(message));
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

#[cfg(test)]
mod tests {
    use monitor_core::event::Protocol;
    use serde_json::json;

    use super::super::{Decoded, Object, decode};
    use super::*;

    fn slice(version: &str, more: &Value) -> Result<EndpointSlice, Fault> {
        let mut value = json!({
            "apiVersion": format!("discovery.k8s.io/{version}"), "kind": "EndpointSlice",
            "metadata": {
                "name": "api-x7", "namespace": "shop", "labels": {SERVICE: "api"},
            },
        });
        for (field, content) in more.as_object().unwrap() {
            value[field] = content.clone();
        }
        match decode(&value)? {
            Decoded::Object(Object::EndpointSlice(slice), _) => Ok(slice),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_service_has_so_many_addresses_and_ports_at_most() {
        let service = |ips: usize, ports: usize| {
            let ips: Vec<_> = (0..ips)
                .map(|number| format!("192.0.{}.{}", number / 256, number % 256))
                .collect();
            let ports: Vec<_> = (1..=ports).map(|port| json!({"port": port})).collect();
            let value = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "api", "namespace": "shop"},
                "spec": {"externalIPs": ips, "ports": ports},
            });
            match decode(&value) {
                Ok(Decoded::Object(Object::Service(service), _)) => {
                    Ok((service.ips.len(), service.ports.len()))
                }
                Ok(other) => panic!("{other:?}"),
                Err(fault) => Err(fault.to_string()),
            }
        };
        for fits in [(256, 32), (8, 1_024), (0, 1_024)] {
            assert_eq!(service(fits.0, fits.1), Ok(fits));
        }
        let refused = |ips, ports| service(ips, ports).unwrap_err();
        assert_eq!(refused(257, 1), "spec: more than 256 addresses");
        assert_eq!(refused(1, 1_025), "spec.ports: more than 1024 ports");
        assert_eq!(
            refused(256, 33),
            "spec.ports: more than 8192 ports, each counted at each address"
        );
    }

    #[test]
    fn endpoints_are_ready_ending_or_nothing() {
        let endpoint = |address: &str, conditions: Value| json!({"addresses": [address], "conditions": conditions});
        let endpoints = json!({"addressType": "IPv4", "endpoints": [
            endpoint("192.0.2.1", json!({})),
            endpoint("192.0.2.2", json!({"ready": true})),
            endpoint("192.0.2.3", json!({"ready": false})),
            endpoint("192.0.2.4", json!({"ready": false, "serving": true, "terminating": true})),
            endpoint("192.0.2.5", json!({"ready": false, "serving": false, "terminating": true})),
            endpoint("192.0.2.6", json!({"ready": null})),
            endpoint("name.example", json!({})),
            {"addresses": ["192.0.2.8", "::ffff:192.0.2.9"]},
        ]});
        for version in ["v1", "v1beta1"] {
            let slice = slice(version, &endpoints).unwrap();
            assert_eq!(slice.service.as_deref(), Some("api"));
            let found: Vec<_> = slice
                .endpoints
                .iter()
                .map(|endpoint| (endpoint.ip.to_string(), endpoint.is_terminating))
                .collect();
            let ready = |last: u8| (format!("192.0.2.{last}"), false);
            let ending = |last: u8| (format!("192.0.2.{last}"), true);
            assert_eq!(
                found,
                [ready(1), ready(2), ending(4), ready(6), ready(8), ready(9)]
            );
        }
    }

    #[test]
    fn ports_of_endpoints_have_names_and_numbers() {
        let ports = json!({"ports": [
            {"name": "https", "port": 6443, "protocol": "TCP"},
            {"name": null, "port": 53, "protocol": "UDP"},
            {"name": "any"},
        ], "endpoints": null});
        let slice = slice("v1", &ports).unwrap();
        let port = |name: &str, protocol, port| EndpointPort {
            name: name.into(),
            protocol,
            port,
        };
        assert_eq!(
            slice.ports,
            [
                port("https", Protocol::TCP, 6443),
                port("", Protocol::UDP, 53)
            ]
        );
        let wrong = json!({"ports": [{"port": 70000}]});
        let fault = self::slice("v1", &wrong).unwrap_err();
        assert!(fault.to_string().starts_with("ports[0].port: "), "{fault}");
    }
}
