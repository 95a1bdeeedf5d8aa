//! One rule, flat or below `properties`.

use std::{ops::RangeInclusive, sync::Arc};

use ipnet::IpNet;
use serde_json::Value;

use super::{
    error::Problem,
    node::{Fault, Node},
    validate,
};
use crate::{
    entity::parse_net,
    nsg::{
        address::{Address, Ports, quotable},
        model::{Direction, Origin, Rule, RuleAccess, RuleProtocol},
    },
};

/// The largest priority of a rule that is no default rule.
const MOST_PRIORITY: u16 = 4096;

/// What is read a rule for: it decides what is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A group's.
    User,
    /// A group's default.
    Default,
    /// Of effective rules: the name says whose.
    Effective,
    /// An admin rule.
    Admin,
    /// An admin rule of effective rules: flat, and with its tags expanded.
    EffectiveAdmin,
}

impl Kind {
    const fn is_effective(self) -> bool {
        matches!(self, Self::Effective | Self::EffectiveAdmin)
    }
}

/// The end of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// Reads a rule.
pub(super) fn read(node: &Node<'_>, kind: Kind) -> Result<Rule, Fault> {
    if !node.value.is_object() {
        return Err(node.wrong("a rule"));
    }
    let name = node.required("name")?;
    read_named(node, name.text()?, kind)
}

/// Reads a rule whose name is elsewhere.
pub(super) fn read_named(node: &Node<'_>, name: &str, kind: Kind) -> Result<Rule, Fault> {
    fields(node, name, kind).map_err(|fault| fault.in_rule(name))
}

fn fields(node: &Node<'_>, full: &str, kind: Kind) -> Result<Rule, Fault> {
    let (name, origin) = match kind {
        Kind::User => (full, Some(Origin::User)),
        Kind::Default => (full, Some(Origin::Default)),
        Kind::Admin => (full, Some(Origin::Admin)),
        Kind::Effective => effective_name(full),
        Kind::EffectiveAdmin => (effective_name(full).0, Some(Origin::Admin)),
    };
    let length = name.chars().count();
    if !(1..=80).contains(&length) {
        return Err(node.fault(Problem::NameLength(length)).in_field("name"));
    }
    let properties = node.object("properties")?;
    let body = properties.as_ref().unwrap_or(node);
    let origin = match origin {
        // Older documents name default rules without saying so; rules of users have lower numbers.
        Some(origin) => origin,
        None if is_default_priority(body)? => Origin::Default,
        None => Origin::User,
    };
    let rule = Rule {
        name: name.into(),
        origin,
        direction: direction(body)?,
        priority: priority(body, origin)?,
        access: access(body, origin)?,
        protocol: protocol(body)?,
        source: addresses(body, End::Source, kind)?,
        source_ports: ports(body, End::Source, kind)?,
        destination: addresses(body, End::Destination, kind)?,
        destination_ports: ports(body, End::Destination, kind)?,
    };
    if !kind.is_effective() {
        validate::families(&rule)
            .map_err(|end| body.fault(Problem::MixedFamilies).in_field(end))?;
    }
    Ok(rule)
}

/// Name and origin of an effective rule: `securityRules/X`, `defaultSecurityRules/X`, in older
/// documents `UserRule_X`, `DefaultRule_X`; `None` where the name does not say whose it is.
fn effective_name(full: &str) -> (&str, Option<Origin>) {
    let known = [
        ("securityRules/", Origin::User),
        ("UserRule_", Origin::User),
        ("defaultSecurityRules/", Origin::Default),
        ("DefaultRule_", Origin::Default),
    ];
    let stripped = known.iter().find_map(|(prefix, origin)| {
        let begin = full.get(..prefix.len())?;
        let rest = full.get(prefix.len()..)?;
        begin
            .eq_ignore_ascii_case(prefix)
            .then_some((rest, *origin))
    });
    match stripped {
        Some((rest, origin)) => (rest, Some(origin)),
        None => (full, None),
    }
}

/// Whether a priority is one that only default rules have.
fn is_default_priority(body: &Node<'_>) -> Result<bool, Fault> {
    let priority = body.filled("priority")?;
    let number = priority.and_then(|node| node.value.as_u64());
    Ok(number.is_some_and(|number| number > u64::from(MOST_PRIORITY)))
}

fn direction(body: &Node<'_>) -> Result<Direction, Fault> {
    let node = body.required("direction")?;
    let text = node.text()?;
    let unknown = |_| Problem::Word {
        value: quotable(text),
        expected: "Inbound, Outbound",
    };
    text.parse().map_err(|error| node.fault(unknown(error)))
}

fn priority(body: &Node<'_>, origin: Origin) -> Result<u16, Fault> {
    let (from, to) = match origin {
        Origin::User => (100, MOST_PRIORITY),
        Origin::Default => (MOST_PRIORITY + 1, u16::MAX),
        Origin::Admin => (1, MOST_PRIORITY),
    };
    let node = body.required("priority")?;
    let Value::Number(number) = node.value else {
        return Err(node.wrong("a whole number"));
    };
    let Some(priority) = number.as_i128() else {
        return Err(node.fault(Problem::Type {
            expected: "a whole number",
            found: format!("a fraction ({})", quotable(&number.to_string())),
        }));
    };
    match u16::try_from(priority) {
        Ok(priority) if (from..=to).contains(&priority) => Ok(priority),
        _ => Err(node.fault(Problem::Priority { priority, from, to })),
    }
}

fn access(body: &Node<'_>, origin: Origin) -> Result<RuleAccess, Fault> {
    let node = body.required("access")?;
    let text = node.text()?;
    let is = |word: &str| word.eq_ignore_ascii_case(text);
    let expected = match origin {
        Origin::Admin => "Allow, Deny, AlwaysAllow",
        Origin::User | Origin::Default => "Allow, Deny",
    };
    match origin {
        _ if is("Allow") => Ok(RuleAccess::Allow),
        _ if is("Deny") => Ok(RuleAccess::Deny),
        Origin::Admin if is("AlwaysAllow") => Ok(RuleAccess::AlwaysAllow),
        _ => Err(node.fault(Problem::Word {
            value: quotable(text),
            expected,
        })),
    }
}

fn protocol(body: &Node<'_>) -> Result<RuleProtocol, Fault> {
    let node = body.required("protocol")?;
    let text = node.text()?;
    RuleProtocol::parse(text).ok_or_else(|| {
        node.fault(Problem::Word {
            value: quotable(text),
            expected: "Tcp, Udp, Icmp, Esp, Ah, *",
        })
    })
}

// === impl End ===

impl End {
    const fn field(self, rest: [&'static str; 2]) -> &'static str {
        match self {
            Self::Source => rest[0],
            Self::Destination => rest[1],
        }
    }

    const fn prefix(self) -> &'static str {
        self.field(["sourceAddressPrefix", "destinationAddressPrefix"])
    }

    const fn prefixes(self) -> &'static str {
        self.field(["sourceAddressPrefixes", "destinationAddressPrefixes"])
    }

    const fn items(self) -> &'static str {
        self.field(["sources", "destinations"])
    }

    const fn groups(self) -> &'static str {
        self.field([
            "sourceApplicationSecurityGroups",
            "destinationApplicationSecurityGroups",
        ])
    }

    const fn expanded(self) -> &'static str {
        self.field([
            "expandedSourceAddressPrefix",
            "expandedDestinationAddressPrefix",
        ])
    }

    const fn port(self) -> &'static str {
        self.field(["sourcePortRange", "destinationPortRange"])
    }

    const fn ports(self) -> &'static str {
        self.field(["sourcePortRanges", "destinationPortRanges"])
    }
}

/// The values of a field that has one text, or, as PowerShell prints it, a list of texts.
fn texts<'a>(field: &'a Node<'a>) -> Result<Vec<Node<'a>>, Fault> {
    match field.value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) if text.is_empty() => Ok(Vec::new()),
        Value::Array(_) => field.items(),
        _ => Ok(vec![*field]),
    }
}

/// Singular, plural and application security groups as one set.
fn addresses(body: &Node<'_>, end: End, kind: Kind) -> Result<Vec<Address>, Fault> {
    let mut found: Vec<Address> = Vec::new();
    let mut add = |address: Address| {
        if !found.contains(&address) {
            found.push(address);
        }
    };
    for field in [end.prefix(), end.prefixes()] {
        let Some(field_node) = body.get(field)? else {
            continue;
        };
        let nodes = texts(&field_node)?;
        // One tag alone in a list is how PowerShell prints the singular field.
        let is_list = field == end.prefixes() || nodes.len() > 1;
        for node in nodes {
            let text = node.text()?;
            let address = Address::parse(text).map_err(|error| node.fault(error))?;
            let is_plain = matches!(address, Address::Prefix(_));
            if is_list && !is_plain && matches!(kind, Kind::User | Kind::Default) {
                return Err(node.fault(Problem::TagInList(quotable(text))));
            }
            add(match address {
                // Effective rules print this for `*`.
                Address::Prefix(net) if kind.is_effective() && net.prefix_len() == 0 => {
                    Address::Any
                }
                other => other,
            });
        }
    }
    // How Virtual Network Manager lists addresses (REST, AdminPropertiesFormat).
    if matches!(kind, Kind::Admin | Kind::EffectiveAdmin)
        && let Some(items) = body.filled(end.items())?
    {
        for item in items.items()? {
            let prefix = item.required("addressPrefix")?;
            add(Address::parse(prefix.text()?).map_err(|error| prefix.fault(error))?);
        }
    }
    if let Some(groups) = body.filled(end.groups())? {
        for group in groups.items()? {
            let id = group.required("id")?;
            let name = id.text()?.rsplit('/').next().unwrap_or_default();
            add(Address::Group(name.into()));
        }
    }
    if kind.is_effective()
        && let Some(nets) = expanded(body, end)?
    {
        for address in &mut found {
            if let Address::Tag { expanded, .. } = address {
                *expanded = Some(Arc::clone(&nets));
            }
        }
    }
    match (found.is_empty(), kind) {
        (false, _) => Ok(found),
        // Virtual Network Manager takes nothing for everything.
        (true, Kind::Admin | Kind::EffectiveAdmin) => Ok(vec![Address::Any]),
        (true, _) => Err(body.fault(Problem::NoAddress).in_field(end.prefix())),
    }
}

/// What Azure expanded an end's tag to.
fn expanded(body: &Node<'_>, end: End) -> Result<Option<Arc<[IpNet]>>, Fault> {
    let Some(field) = body.filled(end.expanded())? else {
        return Ok(None);
    };
    let mut nets = Vec::new();
    for node in texts(&field)? {
        let text = node.text()?;
        let net = parse_net(text).ok_or_else(|| {
            node.fault(crate::nsg::address::AddressError::Address(quotable(text)))
        })?;
        nets.push(net);
    }
    Ok((!nets.is_empty()).then(|| nets.into()))
}

fn ports(body: &Node<'_>, end: End, kind: Kind) -> Result<Ports, Fault> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for field in [end.port(), end.ports()] {
        let Some(field) = body.get(field)? else {
            continue;
        };
        for node in texts(&field)? {
            let range = match node.value {
                Value::Number(number) => Ports::parse(&number.to_string()),
                _ => Ports::parse(node.text()?),
            };
            ranges.push(range.map_err(|error| node.fault(error))?);
        }
    }
    // A source port says nothing in most rules, and hand-written ones leave it out.
    let may_lack = end == End::Source || matches!(kind, Kind::Admin | Kind::EffectiveAdmin);
    match ranges.is_empty() {
        true if may_lack => Ok(Ports::any()),
        true => Err(body.fault(Problem::NoPort).in_field(end.port())),
        false => Ok(Ports::merged(ranges)),
    }
}
