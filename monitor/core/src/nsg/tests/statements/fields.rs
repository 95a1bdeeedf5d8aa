//! Protocols, addresses, ports, families, limits.

use serde_json::json;

use crate::nsg::tests::fixture::{
    check, check_unknown, document, names, nsg, read_one, refusal, subnet,
};

#[test]
fn a_name_has_at_most_80_characters() {
    let rule = |length: usize| {
        let name = "n".repeat(length);
        document(&[&format!("{name} 100 In Allow Tcp * * > * 22")])
    };
    assert!(read_one(&rule(80)).is_ok());
    let refusal = refusal(&rule(81));
    assert!(
        refusal.contains("field `name`: a name has 1 to 80 characters, this has 81"),
        "{refusal}"
    );
}

#[test]
fn a_name_is_unique_in_its_group_without_regard_to_case() {
    let refusal = refusal(&document(&[
        "Ssh 100 In Allow Tcp * * > * 22",
        "SSH 200 In Deny Tcp * * > * 22",
    ]));
    assert!(
        refusal.contains("rule `SSH`: field `name`: there are two rules"),
        "{refusal}"
    );
}

#[test]
fn priorities_are_100_to_4096() {
    for (priority, is_valid) in [
        (99, false),
        (100, true),
        (4096, true),
        (4097, false),
        (0, false),
    ] {
        let document = document(&[&format!("R {priority} In Allow Tcp * * > * 22")]);
        assert_eq!(read_one(&document).is_ok(), is_valid, "{priority}");
        if !is_valid {
            let refusal = refusal(&document);
            let expected =
                format!("rule `R`: field `priority`: {priority} is not between 100 and 4096");
            assert!(refusal.contains(&expected), "{refusal}");
        }
    }
}

#[test]
fn priorities_are_unique_per_direction() {
    let document = |other: &str| {
        document(&[
            "A 100 In Allow Tcp * * > * 22",
            &format!("B 100 {other} Deny Tcp * * > * 22"),
        ])
    };
    assert!(read_one(&document("Out")).is_ok());
    let refusal = refusal(&document("In"));
    let expected = "rule `B`: field `priority`: 100 is also the priority of rule `A` (Inbound)";
    assert!(refusal.contains(expected), "{refusal}");
}

#[test]
fn directions_and_access_are_words_in_any_letter_case() {
    for (field, words, bad) in [
        ("direction", ["Inbound", "inBOUND"], "Both"),
        ("access", ["Deny", "DENY"], "AlwaysAllow"),
    ] {
        let with = |word: &str| {
            let mut document = document(&["R 100 In Deny Tcp * * > * 22"]);
            document["properties"]["securityRules"][0]["properties"][field] = json!(word);
            document
        };
        let [one, other] = words.map(|word| read_one(&with(word)).expect("valid"));
        assert_eq!(one, other);
        assert_eq!(one, nsg(&["R 100 In Deny Tcp * * > * 22"]));
        let refusal = refusal(&with(bad));
        let expected = format!("rule `R`: field `{field}`: `{bad}` is not one of");
        assert!(refusal.contains(&expected), "{refusal}");
    }
}

#[test]
fn protocols_are_tcp_udp_icmp_esp_ah_and_any() {
    for (protocol, flow) in [
        ("Tcp", "In Tcp 203.0.113.9#1 > 10.224.0.5#22"),
        ("Udp", "In Udp 203.0.113.9#1 > 10.224.0.5#22"),
        ("Icmp", "In Icmp 203.0.113.9 > 10.224.0.5"),
        ("Esp", "In Esp 203.0.113.9 > 10.224.0.5"),
        ("Ah", "In Ah 203.0.113.9 > 10.224.0.5"),
        ("tcp", "In Tcp 203.0.113.9#1 > 10.224.0.5#22"),
    ] {
        let chain = subnet(
            &[&format!("R 100 In Allow {protocol} * * > * *")],
            &names(&[]),
        );
        check(&chain, flow, "Allow subnet R");
    }
    let chain = subnet(&["R 100 In Allow Tcp * * > * *"], &names(&[]));
    check(
        &chain,
        "In Udp 203.0.113.9#1 > 10.224.0.5#22",
        "Deny subnet DenyAllInBound",
    );
    let refusal = refusal(&document(&["R 100 In Allow Icmpv6 * * > * *"]));
    assert!(
        refusal.contains("field `protocol`: `Icmpv6` is not one of"),
        "{refusal}"
    );
}

#[test]
fn any_is_tcp_udp_and_icmp() {
    let chain = subnet(&["R 100 In Allow * * * > * *"], &names(&[]));
    for flow in [
        "In Tcp 203.0.113.9#1 > 10.224.0.5#22",
        "In Udp 203.0.113.9#1 > 10.224.0.5#22",
        "In Icmp 203.0.113.9 > 10.224.0.5",
    ] {
        check(&chain, flow, "Allow subnet R");
    }
}

#[test]
fn whether_any_holds_esp_ah_or_sctp_is_not_settled() {
    let chain = subnet(&["R 100 In Allow * * * > * *"], &names(&[]));
    for (flow, protocol) in [
        ("In Esp 203.0.113.9 > 10.224.0.5", "ESP"),
        ("In Ah 203.0.113.9 > 10.224.0.5", "AH"),
        ("In Sctp 203.0.113.9#1 > 10.224.0.5#2", "SCTP"),
        ("In 47 203.0.113.9 > 10.224.0.5", "GRE"),
    ] {
        check_unknown(&chain, flow, &format!("not for {protocol}"));
    }
}

#[test]
fn icmpv6_is_not_supported_so_nobody_knows() {
    let chain = subnet(&["R 100 In Deny Icmp * * > * *"], &names(&[]));
    check_unknown(
        &chain,
        "In Icmpv6 2001:db8::1 > 2001:db8::2",
        "do not support ICMPv6",
    );
}

#[test]
fn what_has_no_ports_matches_all_ports_only() {
    let chain = subnet(
        &[
            "Ssh 100 In Deny * * * > * 22",
            "Ping 200 In Allow Icmp * * > * *",
        ],
        &names(&[]),
    );
    check(
        &chain,
        "In Icmp 203.0.113.9 > 10.224.0.5",
        "Allow subnet Ping",
    );
    check(
        &chain,
        "In Icmp 203.0.113.9#8 > 10.224.0.5#22",
        "Allow subnet Ping",
    );
}

#[test]
fn addresses_are_any_one_range_or_tag() {
    let names = names(&["Peers=192.0.2.0/25,198.51.100.7"]);
    for (source, inside, outside) in [
        ("*", "203.0.113.9", None),
        ("203.0.113.9", "203.0.113.9", Some("203.0.113.8")),
        ("203.0.113.0/24", "203.0.113.255", Some("203.0.114.0")),
        // Host bits do not matter.
        ("203.0.113.77/24", "203.0.113.0", Some("203.0.112.255")),
        ("peers", "192.0.2.127", Some("192.0.2.128")),
        ("PEERS", "198.51.100.7", Some("198.51.100.8")),
        (
            "203.0.113.8,203.0.113.9",
            "203.0.113.9",
            Some("203.0.113.10"),
        ),
        ("2001:db8::/32", "2001:db8:ffff::1", Some("2001:db9::1")),
        ("10.1.2.3/0", "203.0.113.9", None),
    ] {
        let rules = [&*format!("R 100 In Allow Tcp {source} * > * 22")];
        let chain = subnet(&rules, &names);
        let destination = if inside.contains(':') {
            "2001:db8:1::1"
        } else {
            "10.224.0.5"
        };
        let flow = |source: &str| format!("In Tcp {source}#1 > {destination}#22");
        check(&chain, &flow(inside), "Allow subnet R");
        if let Some(outside) = outside {
            check(&chain, &flow(outside), "Deny subnet DenyAllInBound");
        }
    }
}

#[test]
fn what_is_neither_address_nor_tag_is_refused() {
    for bad in [
        "10.0.0.300",
        "10.0.0.0/33",
        "10.0.0.1-10.0.0.9",
        "2001:db8::/129",
        "a/b",
        "10.0.0.0/8;",
        "-",
    ] {
        let refusal = refusal(&document(&[&format!("R 100 In Allow Tcp {bad} * > * 22")]));
        let expected = format!("field `sourceAddressPrefix`: `{bad}` is not `*`, an address");
        assert!(refusal.contains(&expected), "{refusal}");
    }
}

#[test]
fn lists_hold_addresses_only() {
    for bad in [
        "10.0.0.0/8,Internet",
        "VirtualNetwork,AzureLoadBalancer",
        "10.0.0.1,*",
    ] {
        let refusal = refusal(&document(&[&format!("R 100 In Allow Tcp {bad} * > * 22")]));
        assert!(
            refusal.contains("field `sourceAddressPrefixes["),
            "{refusal}"
        );
        assert!(
            refusal.contains("in a list: a rule has `*` or one service tag"),
            "{refusal}"
        );
    }
}

#[test]
fn a_rule_has_one_address_family() {
    for (rule, field) in [
        (
            "R 100 In Allow Tcp 10.0.0.1,2001:db8::1 * > * 22",
            "sourceAddressPrefixes",
        ),
        (
            "R 100 In Allow Tcp 10.0.0.1 * > 2001:db8::1 22",
            "destinationAddressPrefixes",
        ),
    ] {
        let refusal = refusal(&document(&[rule]));
        let expected = format!("rule `R`: field `{field}`: mixes IPv4 and IPv6");
        assert!(refusal.contains(&expected), "{refusal}");
    }
}

#[test]
fn singular_and_plural_are_one_set() {
    let mut document = document(&["R 100 In Allow Tcp 203.0.113.9 * > 10.224.0.5 22"]);
    let properties = &mut document["properties"]["securityRules"][0]["properties"];
    properties["sourceAddressPrefixes"] = json!(["198.51.100.0/24"]);
    properties["destinationPortRanges"] = json!(["80", "8000-8080"]);
    let nsg = read_one(&document).expect("valid");
    let rule = &nsg.rules[0];
    assert_eq!(rule.source.len(), 2);
    assert_eq!(rule.destination_ports.to_string(), "22,80,8000-8080");
}

#[test]
fn one_port_in_the_plural_field_counts() {
    // Load balancer rules of AKS write their only port so; other tools ignore it.
    let mut document = document(&["R 100 In Allow Tcp * * > * 22"]);
    let properties = &mut document["properties"]["securityRules"][0]["properties"];
    properties["destinationPortRange"] = json!(null);
    properties["destinationPortRanges"] = json!(["443"]);
    let nsg = read_one(&document).expect("valid");
    assert_eq!(nsg.rules[0].destination_ports.to_string(), "443");
}

#[test]
fn ports_are_numbers_ranges_and_any_from_0_to_65535() {
    let chain = subnet(
        &["R 100 In Allow Tcp * * > * 22,80-90,65535,0"],
        &names(&[]),
    );
    for (port, access) in [
        (0, "Allow subnet R"),
        (1, "Deny subnet DenyAllInBound"),
        (22, "Allow subnet R"),
        (79, "Deny subnet DenyAllInBound"),
        (80, "Allow subnet R"),
        (90, "Allow subnet R"),
        (91, "Deny subnet DenyAllInBound"),
        (65534, "Deny subnet DenyAllInBound"),
        (65535, "Allow subnet R"),
    ] {
        check(
            &chain,
            &format!("In Tcp 203.0.113.9#1 > 10.224.0.5#{port}"),
            access,
        );
    }
    for (bad, message) in [
        ("90-80", "the range of ports `90-80` is reversed"),
        ("65536", "`65536` is not `*`, a port"),
        ("-1", "`-1` is not `*`, a port"),
        ("ssh", "`ssh` is not `*`, a port"),
        ("22-", "`22-` is not `*`, a port"),
        ("+22", "`+22` is not `*`, a port"),
    ] {
        let refusal = refusal(&document(&[&format!("R 100 In Allow Tcp * * > * {bad}")]));
        let expected = format!("rule `R`: field `destinationPortRange`: {message}");
        assert!(refusal.contains(&expected), "{refusal}");
    }
}

#[test]
fn the_source_port_is_matched_too() {
    let chain = subnet(&["R 100 In Allow Udp * 53 > * *"], &names(&[]));
    check(
        &chain,
        "In Udp 203.0.113.9#53 > 10.224.0.5#4000",
        "Allow subnet R",
    );
    check(
        &chain,
        "In Udp 203.0.113.9#54 > 10.224.0.5#4000",
        "Deny subnet DenyAllInBound",
    );
    check_unknown(
        &chain,
        "In Udp 203.0.113.9 > 10.224.0.5#4000",
        "the flow states none",
    );
}

#[test]
fn rules_are_per_family_and_any_covers_both() {
    let chain = subnet(
        &[
            "V4 100 In Allow Tcp 203.0.113.0/24 * > * 22",
            "All 200 In Allow Tcp * * > * 80",
        ],
        &names(&[]),
    );
    check(
        &chain,
        "In Tcp 2001:db8::1#1 > 2001:db8::2#80",
        "Allow subnet All",
    );
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#80",
        "Allow subnet All",
    );
    check(
        &chain,
        "In Tcp 2001:db8::1#1 > 2001:db8::2#22",
        "Deny subnet DenyAllInBound",
    );
}

#[test]
fn whether_a_literal_zero_prefix_holds_ipv6_is_not_settled() {
    let chain = subnet(&["R 100 In Allow Tcp 0.0.0.0/0 * > * 22"], &names(&[]));
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#22",
        "Allow subnet R",
    );
    check_unknown(&chain, "In Tcp 2001:db8::1#1 > 2001:db8::2#22", "0.0.0.0/0");
}

#[test]
fn an_ipv4_mapped_address_is_the_ipv4_address() {
    let chain = subnet(&["R 100 In Allow Tcp 203.0.113.9 * > * 22"], &names(&[]));
    check(
        &chain,
        "In Tcp ::ffff:203.0.113.9#1 > ::ffff:10.224.0.5#22",
        "Allow subnet R",
    );
}

#[test]
fn four_fields_are_required() {
    for field in ["protocol", "access", "priority", "direction"] {
        let mut document = document(&["R 100 In Allow Tcp * * > * 22"]);
        let properties = &mut document["properties"]["securityRules"][0]["properties"];
        properties.as_object_mut().expect("an object").remove(field);
        let refusal = refusal(&document);
        let expected = format!("rule `R`: field `{field}`: is missing");
        assert!(refusal.contains(&expected), "{refusal}");
    }
}

#[test]
fn a_rule_without_address_or_port_is_refused_but_source_ports_may_lack() {
    for (field, message) in [
        ("sourceAddressPrefix", "names no address"),
        ("destinationAddressPrefix", "names no address"),
        ("destinationPortRange", "names no port"),
    ] {
        let mut document = document(&["R 100 In Allow Tcp * * > * 22"]);
        document["properties"]["securityRules"][0]["properties"][field] = json!(null);
        let refusal = refusal(&document);
        let expected = format!("rule `R`: field `{field}`: {message}");
        assert!(refusal.contains(&expected), "{refusal}");
    }
    let mut document = document(&["R 100 In Allow Tcp * * > * 22"]);
    document["properties"]["securityRules"][0]["properties"]["sourcePortRange"] = json!(null);
    assert!(
        read_one(&document).expect("valid").rules[0]
            .source_ports
            .is_any()
    );
}

#[test]
fn a_side_may_have_ten_groups() {
    let mut document = document(&["R 100 In Allow Tcp * * > * 22"]);
    let groups: Vec<_> = (0..10)
        .map(|number| json!({"id": format!("/x/asg-{number}")}))
        .collect();
    let properties = &mut document["properties"]["securityRules"][0]["properties"];
    properties["destinationAddressPrefix"] = json!(null);
    properties["destinationApplicationSecurityGroups"] = json!(groups);
    let nsg = read_one(&document).expect("valid");
    assert_eq!(nsg.rules[0].destination.len(), 10);
}

#[test]
fn a_group_of_1000_rules_is_read() {
    let rules: Vec<_> = (0..1000)
        .map(|number| {
            format!(
                "R{number} {} In Allow Tcp 10.{}.{}.0/24 * > * 22",
                number + 100,
                number / 250,
                number % 250
            )
        })
        .collect();
    let rules: Vec<_> = rules.iter().map(String::as_str).collect();
    assert_eq!(nsg(&rules).rules.len(), 1006);
}
