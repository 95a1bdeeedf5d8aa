//! The rules that every network security group has (Azure REST API specification, example
//! `NetworkSecurityGroupGet.json`). They cannot be removed, only overridden.

use super::{
    address::{Address, Ports, VIRTUAL_NETWORK},
    model::{Direction, Origin, Rule, RuleAccess, RuleProtocol},
};

/// Adds the default rules whose names a direction lacks.
pub(super) fn complete(rules: &mut Vec<Rule>) {
    for rule in all() {
        let is_there = rules.iter().any(|other| {
            other.direction == rule.direction
                && other.origin == Origin::Default
                && other.name.eq_ignore_ascii_case(&rule.name)
        });
        if !is_there {
            rules.push(rule);
        }
    }
}

/// The six of them.
fn all() -> [Rule; 6] {
    use Direction::{Inbound, Outbound};
    use RuleAccess::{Allow, Deny};
    let tag = |name: &str| Address::Tag {
        name: name.into(),
        expanded: None,
    };
    let rule = |direction, priority, name: &str, source, destination, access| Rule {
        name: name.into(),
        origin: Origin::Default,
        direction,
        priority,
        access,
        protocol: RuleProtocol::Any,
        source: vec![source],
        source_ports: Ports::any(),
        destination: vec![destination],
        destination_ports: Ports::any(),
    };
    let network = || tag(VIRTUAL_NETWORK);
    let any = || Address::Any;
    let balancer = || tag("AzureLoadBalancer");
    [
        rule(
            Inbound,
            65000,
            "AllowVnetInBound",
            network(),
            network(),
            Allow,
        ),
        rule(
            Inbound,
            65001,
            "AllowAzureLoadBalancerInBound",
            balancer(),
            any(),
            Allow,
        ),
        rule(Inbound, 65500, "DenyAllInBound", any(), any(), Deny),
        rule(
            Outbound,
            65000,
            "AllowVnetOutBound",
            network(),
            network(),
            Allow,
        ),
        rule(
            Outbound,
            65001,
            "AllowInternetOutBound",
            any(),
            tag("Internet"),
            Allow,
        ),
        rule(Outbound, 65500, "DenyAllOutBound", any(), any(), Deny),
    ]
}
