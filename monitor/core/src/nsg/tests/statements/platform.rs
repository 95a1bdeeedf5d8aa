//! Addresses of the platform, and translation.

use crate::nsg::tests::fixture::{check, check_unknown, names, subnet};

const DENY_ALL: [&str; 2] = [
    "DenyIn 100 In Deny * * * > * *",
    "DenyOut 100 Out Deny * * * > * *",
];
const SERVICES: [&str; 7] = [
    "Out Udp 10.224.0.5#40000 > 168.63.129.16#53",
    "Out Tcp 10.224.0.5#40000 > 168.63.129.16#53",
    "Out Tcp 10.224.0.5#40000 > 168.63.129.16#80",
    "Out Tcp 10.224.0.5#40000 > 168.63.129.16#32526",
    "Out Udp 10.224.0.5#68 > 168.63.129.16#67",
    "Out Tcp 10.224.0.5#40000 > 169.254.169.254#80",
    "Out Tcp 10.224.0.5#40000 > 23.102.135.246#1688",
];

#[test]
fn a_rule_for_everything_does_not_stop_platform_services() {
    let chain = subnet(&DENY_ALL, &names(&[]));
    for service in SERVICES {
        check(&chain, service, "Allow platform -");
    }
}

#[test]
fn a_rule_for_the_address_does_not_stop_platform_services() {
    let chain = subnet(
        &["Deny 100 Out Deny * * * > 168.63.129.16,169.254.169.254,23.102.135.246 *"],
        &names(&[]),
    );
    for service in SERVICES {
        check(&chain, service, "Allow platform -");
    }
}

#[test]
fn a_rule_for_the_services_tag_stops_it() {
    for (tag, stopped) in [
        ("AzurePlatformDNS", &SERVICES[0..2]),
        ("azureplatformimds", &SERVICES[5..6]),
        ("AzurePlatformLKM", &SERVICES[6..7]),
    ] {
        let chain = subnet(
            &[&format!("Deny 100 Out Deny * * * > {tag} *")],
            &names(&[]),
        );
        for service in SERVICES {
            let expected = if stopped.contains(&service) {
                "Deny subnet Deny"
            } else {
                "Allow platform -"
            };
            check(&chain, service, expected);
        }
    }
}

#[test]
fn a_tag_rule_must_match_in_its_other_fields() {
    let rules = ["Deny 100 Out Deny Tcp 10.224.0.9 * > AzurePlatformDNS *"];
    let chain = subnet(&rules, &names(&[]));
    check(&chain, SERVICES[1], "Allow platform -");
    check(
        &chain,
        "Out Tcp 10.224.0.9#1 > 168.63.129.16#53",
        "Deny subnet Deny",
    );
    let unknown = subnet(
        &["Deny 100 Out Deny Tcp asg:x * > AzurePlatformDNS *"],
        &names(&[]),
    );
    check_unknown(&unknown, SERVICES[1], "application security group x");
}

#[test]
fn probes_from_the_host_are_filtered() {
    let probe = "In Tcp 168.63.129.16#50000 > 10.224.0.5#30080";
    check(&subnet(&DENY_ALL, &names(&[])), probe, "Deny subnet DenyIn");
    // Virtual network holds the host, so its rule matches first.
    check(
        &subnet(&[], &names(&[])),
        probe,
        "Allow subnet AllowVnetInBound",
    );
    let outside = "In Tcp 168.63.129.16#50000 > 20.61.10.5#443";
    check(
        &subnet(&[], &names(&[])),
        outside,
        "Allow subnet AllowAzureLoadBalancerInBound",
    );
}

#[test]
fn probes_in_ipv6_come_from_the_hosts_link_local_address() {
    let probe = "In Tcp fe80::1234:5678:9abc#50000 > 2001:db8::5#30080";
    check(
        &subnet(&[], &names(&[])),
        probe,
        "Allow subnet AllowAzureLoadBalancerInBound",
    );
}

#[test]
fn other_ports_of_platform_addresses_are_judged_by_rules() {
    let chain = subnet(&DENY_ALL, &names(&[]));
    check(
        &chain,
        "Out Tcp 10.224.0.5#1 > 168.63.129.16#443",
        "Deny subnet DenyOut",
    );
    check(
        &chain,
        "Out Icmp 10.224.0.5 > 168.63.129.16",
        "Deny subnet DenyOut",
    );
}

#[test]
fn a_default_route_disables_the_rule_for_windows_activation() {
    let names = names(&["VirtualNetwork=0.0.0.0/0"]);
    let chain = subnet(&DENY_ALL, &names);
    check(&chain, SERVICES[6], "Deny subnet DenyOut");
    check(&chain, SERVICES[0], "Allow platform -");
}

#[test]
fn a_rule_that_names_the_public_address_of_a_card_never_matches() {
    // Inbound the group sees the private address.
    let chain = subnet(&["R 100 In Allow Tcp * * > 20.1.2.3 22"], &names(&[]));
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#22",
        "Deny subnet DenyAllInBound",
    );
}

#[test]
fn dhcp_answers_from_the_host_are_not_subject_to_rules() {
    // The question was a broadcast, so by its addresses this is no reply.
    let chain = subnet(&DENY_ALL, &names(&[]));
    check(
        &chain,
        "In Udp 168.63.129.16#67 > 10.224.0.5#68",
        "Allow platform -",
    );
    for to in ["fe80::20d:3aff:fe12:3456", "2001:db8::5"] {
        check(
            &chain,
            &format!("In Udp fe80::1234:5678:9abc#547 > {to}#546"),
            "Allow platform -",
        );
    }
    for other in [
        "In Udp fe80::1234:5678:9abc#67 > fe80::20d:3aff:fe12:3456#68",
        "In Udp fe80::1234:5678:9abd#547 > fe80::20d:3aff:fe12:3456#546",
        "In Udp 168.63.129.16#547 > 10.224.0.5#546",
        "In Udp 168.63.129.16#67 > 10.224.0.5#69",
        "In Tcp 168.63.129.16#67 > 10.224.0.5#68",
        "In Udp 10.224.0.9#67 > 10.224.0.5#68",
    ] {
        check(&chain, other, "Deny subnet DenyIn");
    }
}

#[test]
fn mail_is_blocked_by_rules_only() {
    // What subscriptions block is no rule of a group.
    let mail = "Out Tcp 10.224.0.5#1 > 203.0.113.9#25";
    let allowed = "Allow subnet AllowInternetOutBound";
    check(&subnet(&[], &names(&[])), mail, allowed);
    let rules = ["NoMail 100 Out Deny Tcp * * > Internet 25"];
    check(&subnet(&rules, &names(&[])), mail, "Deny subnet NoMail");
}

#[test]
fn outbound_rules_see_the_private_address() {
    // Translation comes after the group.
    let flow = "Out Tcp 10.224.0.5#1 > 203.0.113.9#443";
    let rules = ["Public 100 Out Deny Tcp 20.1.2.3 * > * 443"];
    let allowed = "Allow subnet AllowInternetOutBound";
    check(&subnet(&rules, &names(&[])), flow, allowed);
    let rules = ["Private 100 Out Deny Tcp 10.224.0.5 * > * 443"];
    check(&subnet(&rules, &names(&[])), flow, "Deny subnet Private");
}

#[test]
fn a_load_balancers_client_is_the_source() {
    let chain = subnet(&["R 100 In Allow Tcp 203.0.113.9 * > * 443"], &names(&[]));
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#443",
        "Allow subnet R",
    );
}
