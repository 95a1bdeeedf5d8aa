//! Cluster-scoped policies (`policy.networking.k8s.io`): AdminNetworkPolicy and
//! BaselineAdminNetworkPolicy (v1alpha1), ClusterNetworkPolicy (v1alpha2, v1beta1).

use std::sync::Arc;

use monitor_core::{
    event::Protocol,
    netpol::{Action, PodSet, Selector, Tier, TierKind, TierPeer, TierPolicy, TierPort, TierRule},
};

use super::{
    Fault,
    field::{Field, shown},
    meta::{name, selector},
    policy::port_name,
};

/// The one name that a BaselineAdminNetworkPolicy may have.
const BASELINE_NAME: &str = "default";

/// A cluster-scoped policy.
pub(super) fn tier_policy(
    root: &Field<'_>,
    kind: TierKind,
    faults: &mut Vec<Fault>,
) -> Result<TierPolicy, Fault> {
    let spec = root.get("spec");
    let name = name(root)?;
    if kind == TierKind::BaselineAdmin && &*name != BASELINE_NAME {
        let metadata = root.get("metadata");
        let field = metadata.get("name");
        return Err(field.fault("the only BaselineAdminNetworkPolicy is named `default`"));
    }
    let tier = match kind {
        TierKind::Admin => Tier::Admin,
        TierKind::BaselineAdmin => Tier::Baseline,
        TierKind::Cluster => tier(&spec.get("tier"))?,
    };
    let priority = match kind {
        TierKind::BaselineAdmin => TierPolicy::BASELINE_ADMIN_PRIORITY,
        TierKind::Admin | TierKind::Cluster => priority(&spec.get("priority"))?,
    };
    Ok(TierPolicy {
        kind,
        name,
        tier,
        priority,
        subject: subject(&spec.get("subject"), kind, faults)?,
        ingress: rules(&spec.get("ingress"), kind, "from", faults)?,
        egress: rules(&spec.get("egress"), kind, "to", faults)?,
    })
}

fn tier(field: &Field<'_>) -> Result<Tier, Fault> {
    match field.required()? {
        "Admin" => Ok(Tier::Admin),
        "Baseline" => Ok(Tier::Baseline),
        other => {
            let other = shown(other);
            Err(field.fault(format!("`{other}` is no tier: use Admin or Baseline")))
        }
    }
}

fn priority(field: &Field<'_>) -> Result<u16, Fault> {
    field
        .value()
        .and_then(serde_json::Value::as_u64)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number <= TierPolicy::MAX_PRIORITY)
        .ok_or_else(|| field.fault("expected a number from 0 to 1000"))
}

/// Which of the fields that exclude each other is set.
fn one_of<'a>(field: &'a Field<'a>, known: &[&'static str]) -> Result<Option<&'static str>, Fault> {
    let keys = field.keys()?;
    let mut set = known.iter().filter(|name| keys.contains(name));
    match (set.next(), set.next()) {
        (Some(_), Some(_)) => Err(field.fault(format!("use one of {}", known.join(", ")))),
        (first, _) => Ok(first.copied()),
    }
}

fn subject(field: &Field<'_>, kind: TierKind, faults: &mut Vec<Fault>) -> Result<PodSet, Fault> {
    match one_of(field, &["namespaces", "pods"])? {
        Some("namespaces") => Ok(PodSet {
            namespaces: present(&field.get("namespaces"), faults)?,
            pods: None,
        }),
        Some(_) => pod_set(&field.get("pods"), kind, faults),
        None => Err(field.fault("missing: expected namespaces or pods")),
    }
}

fn pod_set(field: &Field<'_>, kind: TierKind, faults: &mut Vec<Fault>) -> Result<PodSet, Fault> {
    // What is required and absent must not mean "all". A ClusterNetworkPolicy may leave out its
    // namespaces, which are all then; another field is more likely that one misspelled.
    const BOTH: [&str; 2] = ["namespaceSelector", "podSelector"];
    let keys = field.keys()?;
    let others = || keys.iter().any(|key| !BOTH.contains(key));
    let may_be_absent =
        |name| kind == TierKind::Cluster && name == "namespaceSelector" && !others();
    for name in BOTH {
        if !keys.contains(&name) && !may_be_absent(name) {
            return Err(field.get(name).fault("missing: `{}` selects all"));
        }
    }
    Ok(PodSet {
        namespaces: present(&field.get("namespaceSelector"), faults)?,
        pods: Some(present(&field.get("podSelector"), faults)?),
    })
}

/// A selector that is not a choice: absent, it is empty.
fn present(field: &Field<'_>, faults: &mut Vec<Fault>) -> Result<Selector, Fault> {
    Ok(selector(field, faults)?.unwrap_or_default())
}

fn rules(
    field: &Field<'_>,
    kind: TierKind,
    ends: &str,
    faults: &mut Vec<Fault>,
) -> Result<Vec<TierRule>, Fault> {
    let mut rules = Vec::new();
    for item in field.items()? {
        let action = action(&item.get("action"), kind)?;
        let list = item.get(ends);
        let mut peers = Vec::new();
        for peer_field in list.items()? {
            peers.push(peer(&peer_field, kind, action, ends == "to", faults)?);
        }
        if peers.is_empty() {
            faults.push(
                list.fault("a rule without peers matches nothing; the API server refuses it"),
            );
        }
        let ports = match kind {
            TierKind::Cluster => item.get("protocols"),
            TierKind::Admin | TierKind::BaselineAdmin => item.get("ports"),
        };
        let mut matches = Vec::new();
        for port_field in ports.items()? {
            matches.push(match kind {
                TierKind::Cluster => protocol(&port_field, faults)?,
                TierKind::Admin | TierKind::BaselineAdmin => port(&port_field, faults)?,
            });
        }
        // What is not understood may narrow the rule.
        let narrowing = match kind {
            TierKind::Cluster => "protocols",
            TierKind::Admin | TierKind::BaselineAdmin => "ports",
        };
        for key in item.keys()? {
            if !["name", "action", ends, narrowing].contains(&key) {
                matches.push(unknown_port(&item.get(key), faults));
            }
        }
        let has_names = matches.iter().any(|port| matches!(port, TierPort::Name(_)));
        let has_addresses =
            |peer: &TierPeer| !matches!(peer, TierPeer::Pods(_) | TierPeer::Unknown);
        if has_names && peers.iter().any(has_addresses) {
            faults.push(ports.fault("named ports match nothing in a rule for nodes, networks or domainNames; the API server refuses it"));
        }
        rules.push(TierRule {
            name: item.get("name").text()?.map(|name| shown(name).into()),
            action,
            peers,
            ports: Some(matches).filter(|ports| !ports.is_empty()),
        });
    }
    Ok(rules)
}

fn action(field: &Field<'_>, kind: TierKind) -> Result<Action, Fault> {
    let text = field.required()?;
    let (accept, wanted) = match kind {
        TierKind::Admin => ("Allow", "Allow, Deny or Pass"),
        TierKind::BaselineAdmin => ("Allow", "Allow or Deny"),
        TierKind::Cluster => ("Accept", "Accept, Deny or Pass"),
    };
    match text {
        "Deny" => Ok(Action::Deny),
        "Pass" if kind != TierKind::BaselineAdmin => Ok(Action::Pass),
        text if text == accept => Ok(Action::Accept),
        other => {
            let other = shown(other);
            Err(field.fault(format!("`{other}` is no action: use {wanted}")))
        }
    }
}

fn peer(
    field: &Field<'_>,
    kind: TierKind,
    action: Action,
    is_egress: bool,
    faults: &mut Vec<Fault>,
) -> Result<TierPeer, Fault> {
    const INGRESS: &[&str] = &["namespaces", "pods"];
    const EGRESS: &[&str] = &["namespaces", "pods", "nodes", "networks", "domainNames"];
    let known = if is_egress { EGRESS } else { INGRESS };
    let Some(set) = one_of(field, known)? else {
        faults.push(field.fault(format!(
            "a peer with none of {} is not known here: the rule fails closed",
            known.join(", ")
        )));
        return Ok(TierPeer::Unknown);
    };
    let inner = field.get(set);
    // As are the `sameLabels` of earlier versions: what they leave out must not be let in.
    let selectors = match set {
        "namespaces" | "nodes" => vec![field.get(set)],
        "pods" => vec![inner.get("namespaceSelector"), inner.get("podSelector")],
        _ => Vec::new(),
    };
    for selector in &selectors {
        for key in selector.keys()? {
            if !["matchLabels", "matchExpressions"].contains(&key) {
                let field = selector.get(key);
                faults.push(field.fault("not known here: the rule fails closed"));
                return Ok(TierPeer::Unknown);
            }
        }
    }
    Ok(match set {
        "namespaces" => TierPeer::Pods(PodSet {
            namespaces: present(&inner, faults)?,
            pods: None,
        }),
        "pods" => TierPeer::Pods(pod_set(&inner, kind, faults)?),
        "nodes" => TierPeer::Nodes(present(&inner, faults)?),
        "networks" => {
            let mut nets = Vec::new();
            for net in inner.items()? {
                nets.push(net.net()?);
            }
            TierPeer::Networks(nets)
        }
        _ => {
            if action != Action::Accept {
                return Err(inner.fault("only rules that accept may have domain names"));
            }
            let mut names: Vec<Arc<str>> = Vec::new();
            for name in inner.items()? {
                names.push(shown(name.required()?).into());
            }
            TierPeer::DomainNames(names)
        }
    })
}

/// An entry of `ports`.
fn port(field: &Field<'_>, faults: &mut Vec<Fault>) -> Result<TierPort, Fault> {
    let Some(set) = one_of(field, &["portNumber", "namedPort", "portRange"])? else {
        return Ok(unknown_port(field, faults));
    };
    let inner = field.get(set);
    match set {
        "portNumber" => {
            let number = inner.get("port").port()?;
            Ok(TierPort::Range {
                protocol: inner.get("protocol").protocol()?,
                first: number,
                last: number,
            })
        }
        "namedPort" => Ok(TierPort::Name(port_name(&inner, inner.required()?)?.into())),
        _ => {
            let (start, end) = (inner.get("start"), inner.get("end"));
            let (first, last) = (start.port()?, end.port()?);
            // The schema of v1alpha1 says so in words only: the API server takes the policy.
            if first > last {
                faults.push(inner.fault(format!(
                    "start {first} is above end {last}: matches nothing"
                )));
            }
            Ok(TierPort::Range {
                protocol: inner.get("protocol").protocol()?,
                first,
                last,
            })
        }
    }
}

/// An entry of `protocols`.
fn protocol(field: &Field<'_>, faults: &mut Vec<Fault>) -> Result<TierPort, Fault> {
    let known = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let Some(set) = one_of(field, &known)? else {
        return Ok(unknown_port(field, faults));
    };
    let inner = field.get(set);
    let protocol = match set {
        "tcp" => Protocol::TCP,
        "udp" => Protocol::UDP,
        "sctp" => Protocol::SCTP,
        _ => {
            return Ok(TierPort::Name(port_name(&inner, inner.required()?)?.into()));
        }
    };
    let port = inner.get("destinationPort");
    match one_of(&port, &["number", "range"])? {
        Some("number") => {
            let number = port.get("number").port()?;
            Ok(TierPort::Range {
                protocol,
                first: number,
                last: number,
            })
        }
        Some(_) => range(&port.get("range"), protocol),
        None => Err(port.fault("missing: expected a number or a range")),
    }
}

fn range(field: &Field<'_>, protocol: Protocol) -> Result<TierPort, Fault> {
    let (first, last) = (field.get("start").port()?, field.get("end").port()?);
    if first >= last {
        return Err(field.fault(format!("start {first} is not below end {last}")));
    }
    Ok(TierPort::Range {
        protocol,
        first,
        last,
    })
}

fn unknown_port(field: &Field<'_>, faults: &mut Vec<Fault>) -> TierPort {
    faults.push(field.fault("not known here: the rule fails closed"));
    TierPort::Unknown
}
