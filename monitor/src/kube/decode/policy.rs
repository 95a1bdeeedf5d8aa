//! NetworkPolicy (`networking.k8s.io/v1`).

use monitor_core::netpol::{Direction, IpBlock, NetworkPolicy, Peer, PolicyPort, PortMatch, Rule};
use serde_json::Value;

use super::{
    Fault,
    field::{Field, shown},
    meta::{name, namespace_of, selector, unknown_fields},
};

/// Rules of a policy, peers or ports of a rule: far more than fit into an object of the API.
const MAX_ITEMS: usize = 65_536;
/// Longest name of a port (RFC 6335 section 5.1).
const MAX_PORT_NAME: usize = 15;

/// A NetworkPolicy.
pub(super) fn network_policy(
    root: &Field<'_>,
    faults: &mut Vec<Fault>,
) -> Result<NetworkPolicy, Fault> {
    let spec = root.get("spec");
    unknown_fields(
        &spec,
        &["podSelector", "ingress", "egress", "policyTypes"],
        faults,
    )?;
    let list = spec.get("policyTypes");
    let mut types = Vec::new();
    for item in list.items()? {
        types.push(match item.required()? {
            "Ingress" => Direction::Ingress,
            "Egress" => Direction::Egress,
            other => {
                return Err(item.fault(format!(
                    "`{}` is no policy type: use Ingress or Egress",
                    shown(other)
                )));
            }
        });
    }
    let ingress = rules(&spec.get("ingress"), "from", faults)?;
    let egress = rules(&spec.get("egress"), "to", faults)?;
    let [is_ingress, is_egress] = NetworkPolicy::isolates(&types, !egress.is_empty());
    for (rules, isolates, name) in [
        (&ingress, is_ingress, "ingress"),
        (&egress, is_egress, "egress"),
    ] {
        if !rules.is_empty() && !isolates {
            let field = spec.get(name);
            faults.push(field.fault("ignored: policyTypes does not have this direction"));
        }
    }
    Ok(NetworkPolicy {
        namespace: namespace_of(root)?,
        name: name(root)?,
        selector: selector(&spec.get("podSelector"), faults)?.unwrap_or_default(),
        ingress: is_ingress.then_some(ingress),
        egress: is_egress.then_some(egress),
    })
}

fn rules(field: &Field<'_>, ends: &str, faults: &mut Vec<Fault>) -> Result<Vec<Rule>, Fault> {
    let mut rules = Vec::new();
    for item in field.items()? {
        check_count(field, rules.len())?;
        unknown_fields(&item, &[ends, "ports"], faults)?;
        let mut rule = Rule::default();
        let peers = item.get(ends);
        for peer_field in peers.items()? {
            check_count(&peers, rule.peers.len())?;
            rule.peers.push(peer(&peer_field, faults)?);
        }
        let ports = item.get("ports");
        for port_field in ports.items()? {
            check_count(&ports, rule.ports.len())?;
            rule.ports.push(port(&port_field, faults)?);
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn check_count(field: &Field<'_>, count: usize) -> Result<(), Fault> {
    if count < MAX_ITEMS {
        return Ok(());
    }
    Err(field.fault(format!("more than {MAX_ITEMS} entries")))
}

fn peer(field: &Field<'_>, faults: &mut Vec<Fault>) -> Result<Peer, Fault> {
    let (pods, namespaces, block) = (
        field.get("podSelector"),
        field.get("namespaceSelector"),
        field.get("ipBlock"),
    );
    unknown_fields(
        field,
        &["podSelector", "namespaceSelector", "ipBlock"],
        faults,
    )?;
    let is_selector = pods.is_set() || namespaces.is_set();
    if block.is_set() && is_selector {
        return Err(block.fault("excludes podSelector and namespaceSelector in the same entry: make it an entry of its own"));
    }
    if block.is_set() {
        return Ok(Peer::Block(ip_block(&block)?));
    }
    if !is_selector {
        faults.push(field.fault("a peer without podSelector, namespaceSelector or ipBlock matches nothing; the API server refuses it"));
        return Ok(Peer::Unknown);
    }
    Ok(Peer::Pods {
        namespaces: selector(&namespaces, faults)?,
        pods: selector(&pods, faults)?,
    })
}

fn ip_block(field: &Field<'_>) -> Result<IpBlock, Fault> {
    let net = field.get("cidr").net()?;
    let list = field.get("except");
    let mut except = Vec::new();
    for item in list.items()? {
        check_count(&list, except.len())?;
        let hole = item.net()?;
        if !net.contains(&hole) || hole.prefix_len() <= net.prefix_len() {
            return Err(item.fault(format!("{hole} is no part of {net}")));
        }
        except.push(hole);
    }
    Ok(IpBlock { net, except })
}

fn port(field: &Field<'_>, faults: &mut Vec<Fault>) -> Result<PolicyPort, Fault> {
    unknown_fields(field, &["protocol", "port", "endPort"], faults)?;
    let protocol = field.get("protocol").protocol()?;
    let (port, end) = (field.get("port"), field.get("endPort"));
    let port = match port.value() {
        None => None,
        Some(Value::String(name)) => Some(PortMatch::Name(port_name(&port, name)?.into())),
        Some(_) => {
            let number = port.port()?;
            Some(PortMatch::Range(number, number))
        }
    };
    let port = match (port, end.is_set()) {
        (port, false) => port,
        (Some(PortMatch::Range(first, _)), true) => {
            let last = end.port()?;
            if last < first {
                return Err(end.fault(format!("{last} is below the port {first}")));
            }
            Some(PortMatch::Range(first, last))
        }
        (_, true) => return Err(end.fault("needs a port that is a number")),
    };
    Ok(PolicyPort { protocol, port })
}

/// Checks the name of a port: letters, digits and single hyphens, with a letter among them.
pub(super) fn port_name<'a>(field: &Field<'_>, name: &'a str) -> Result<&'a str, Fault> {
    let is_name = (1..=MAX_PORT_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    let has_letter = name.bytes().any(|byte| byte.is_ascii_lowercase());
    match (is_name, has_letter) {
        (true, true) => Ok(name),
        (true, false) => Err(field.fault(format!(
            "`{name}` in quotes is a name, and a name has a letter: write the number without quotes"
        ))),
        (false, _) => Err(field.fault(format!(
            "`{}` is no name of a port: use at most 15 lower-case letters, digits or `-`",
            shown(name)
        ))),
    }
}
