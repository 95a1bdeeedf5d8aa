//! Ports of policies, from JSON.

use serde_json::Value;

use super::simple::{Question, items};

/// Numbers and protocols of the ports of a pod that have a name.
fn named<'a>(pod: &'a Value, name: &'a str) -> impl Iterator<Item = (u64, &'a str)> {
    let spec = &pod["spec"];
    let sidecars = items(&spec["initContainers"])
        .iter()
        .filter(|container| container["restartPolicy"] == "Always");
    items(&spec["containers"])
        .iter()
        .chain(sidecars)
        .flat_map(|container| items(&container["ports"]))
        .filter(move |port| port["name"] == name)
        .map(|port| {
            let number = port["containerPort"].as_u64().expect("a number");
            (number, port["protocol"].as_str().unwrap_or("TCP"))
        })
}

/// Whether a port of a NetworkPolicy is the one of a question.
pub(super) fn is_port(port: &Value, question: &Question<'_>) -> bool {
    if port["protocol"].as_str().unwrap_or("TCP") != question.protocol {
        return false;
    }
    match &port["port"] {
        Value::Null => true,
        Value::String(name) => question.pod().is_some_and(|pod| {
            named(pod, name).any(|port| port == (question.port, question.protocol))
        }),
        number => {
            let first = number.as_u64().expect("a number");
            let last = port["endPort"].as_u64().unwrap_or(first);
            first <= question.port && question.port <= last
        }
    }
}

pub(super) fn is_tier_port(port: &Value, question: &Question<'_>, of_addresses: bool) -> bool {
    let name = [&port["namedPort"], &port["destinationNamedPort"]];
    if let Some(name) = name.into_iter().find_map(Value::as_str) {
        let is_named =
            |pod| named(pod, name).any(|port| port == (question.port, question.protocol));
        return !of_addresses && question.pod().is_some_and(is_named);
    }
    let within = |first: &Value, last: &Value| {
        first.as_u64() <= Some(question.port) && Some(question.port) <= last.as_u64()
    };
    let (one, range) = (&port["portNumber"], &port["portRange"]);
    if !one.is_null() {
        return one["protocol"].as_str().unwrap_or("TCP") == question.protocol
            && within(&one["port"], &one["port"]);
    }
    if !range.is_null() {
        return range["protocol"].as_str().unwrap_or("TCP") == question.protocol
            && within(&range["start"], &range["end"]);
    }
    let of_protocol = &port[question.protocol.to_lowercase()]["destinationPort"];
    let (number, range) = (&of_protocol["number"], &of_protocol["range"]);
    !of_protocol.is_null()
        && (within(number, number) && number.is_u64()
            || !range.is_null() && within(&range["start"], &range["end"]))
}
