//! Rules and flows in short texts.

use serde_json::{Value, json};

use crate::nsg::{
    Chain, Levels, Names, Nsg, Tuple,
    read::{self, ReadError},
};

/// A rule of the form `NAME PRIORITY In|Out ACCESS PROTOCOL SOURCE PORTS > DESTINATION PORTS`, as
/// the REST API writes it. Lists have commas; `asg:NAME` is an application security group.
pub(in crate::nsg) fn rule(text: &str) -> Value {
    let words: Vec<_> = text.split_whitespace().collect();
    let [
        name,
        priority,
        direction,
        access,
        protocol,
        source,
        source_ports,
        ">",
        destination,
        ports,
    ] = words[..]
    else {
        panic!("not a rule: {text}");
    };
    let mut properties = json!({
        "priority": priority.parse::<u16>().expect("a priority"),
        "direction": format!("{direction}bound"),
        "access": access,
        "protocol": protocol,
    });
    let mut end = |side: &str, addresses: &str, ports: &str| {
        if let Some(group) = addresses.strip_prefix("asg:") {
            let id = format!("/subscriptions/s/applicationSecurityGroups/{group}");
            properties[format!("{side}ApplicationSecurityGroups")] = json!([{ "id": id }]);
        } else if addresses.contains(',') {
            let list: Vec<_> = addresses.split(',').collect();
            properties[format!("{side}AddressPrefixes")] = json!(list);
        } else {
            properties[format!("{side}AddressPrefix")] = json!(addresses);
        }
        if ports.contains(',') {
            let list: Vec<_> = ports.split(',').collect();
            properties[format!("{side}PortRanges")] = json!(list);
        } else {
            properties[format!("{side}PortRange")] = json!(ports);
        }
    };
    end("source", source, source_ports);
    end("destination", destination, ports);
    json!({ "name": name, "properties": properties })
}

/// A REST document with these rules.
pub(in crate::nsg) fn document(rules: &[&str]) -> Value {
    let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
    json!({
        "name": "test-nsg",
        "type": "Microsoft.Network/networkSecurityGroups",
        "properties": { "securityRules": rules },
    })
}

/// Reads a document with one group.
pub(in crate::nsg) fn read_one(document: &Value) -> Result<Nsg, ReadError> {
    let mut groups = read::read("nsg.json", &document.to_string())?.groups;
    assert_eq!(groups.len(), 1, "{document}");
    Ok(groups.remove(0).nsg)
}

/// A group with these rules and the default ones.
pub(in crate::nsg) fn nsg(rules: &[&str]) -> Nsg {
    read_one(&document(rules)).expect("a valid group")
}

/// Admin rules.
pub(in crate::nsg) fn admin(rules: &[&str]) -> Nsg {
    let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
    let text = json!(rules).to_string();
    read::read_admin_rules("admin.json", &text)
        .expect("valid admin rules")
        .0
}

/// Names: `--virtual-network` 10.224.0.0/12 and these tags.
pub(in crate::nsg) fn names(tags: &[&str]) -> Names {
    let mut names = Names::default();
    names.add_network(["10.224.0.0/12".parse().expect("a range")]);
    for tag in tags {
        names.define_tag(tag).expect("a tag");
    }
    names
}

/// A chain with a group on the subnet only.
pub(in crate::nsg) fn subnet(rules: &[&str], names: &Names) -> Chain {
    let levels = Levels {
        subnet: Some(nsg(rules)),
        ..Levels::default()
    };
    Chain::new(levels, names)
}

/// A flow of the form `In|Out PROTOCOL SOURCE[#PORT] > DESTINATION[#PORT]`.
pub(in crate::nsg) fn tuple(text: &str) -> Tuple {
    let words: Vec<_> = text.split_whitespace().collect();
    let [direction, protocol, source, ">", destination] = words[..] else {
        panic!("not a flow: {text}");
    };
    let end = |text: &str| {
        let (ip, port) = text.split_once('#').unwrap_or((text, ""));
        let port = (!port.is_empty()).then(|| port.parse().expect("a port"));
        (ip.parse().expect("an address"), port)
    };
    let (source, source_port) = end(source);
    let (destination, destination_port) = end(destination);
    Tuple {
        direction: format!("{direction}bound").parse().expect("a direction"),
        protocol: protocol.parse().expect("a protocol"),
        source,
        source_port,
        destination,
        destination_port,
    }
}

/// Checks a verdict: `ACCESS DECIDED_BY RULE`, `-` for no rule. Linear and compiled must agree.
pub(in crate::nsg) fn check(chain: &Chain, flow: &str, expected: &str) {
    let tuple = tuple(flow);
    for verdict in [chain.judge(&tuple), chain.judge_linear(&tuple)] {
        let rule = verdict.rule.map_or("-", |rule| &rule.name);
        let found = format!("{} {} {rule}", verdict.access, verdict.decided_by);
        assert_eq!(found, expected, "{flow}, {:?}", verdict.reason());
        if expected.starts_with("Indeterminate") {
            assert!(verdict.reason().is_some(), "{flow}");
        }
    }
}

/// Checks that nobody knows, and that the reason says this.
pub(in crate::nsg) fn check_unknown(chain: &Chain, flow: &str, expected: &str) {
    let verdict = chain.judge(&tuple(flow));
    assert_eq!(verdict.access.name(), "Indeterminate", "{flow}");
    let reason = verdict.reason().expect("a reason");
    assert!(reason.contains(expected), "{flow}: {reason}");
    let linear = chain.judge_linear(&tuple(flow));
    assert_eq!(linear.reason(), Some(reason), "{flow}");
}

/// The message with which a document is refused.
pub(in crate::nsg) fn refusal(document: &Value) -> String {
    let text = serde_json::to_string_pretty(document).expect("JSON");
    match read::read("nsg.json", &text) {
        Ok(read) => panic!("not refused: {read:?}"),
        Err(error) => error.to_string(),
    }
}
