//! Tags and application security groups.

use serde_json::json;

use crate::nsg::{
    Names, NamesError,
    read::read_service_tags,
    tests::fixture::{check, check_unknown, names, subnet},
};

#[test]
fn a_rule_with_a_group_applies_to_its_members() {
    let rules = ["R 100 In Allow Tcp * * > asg:asg-web 443"];
    let mut names = names(&[]);
    let to = |host: u8| format!("In Tcp 203.0.113.9#1 > 10.224.0.{host}#443");
    check_unknown(
        &subnet(&rules, &names),
        &to(7),
        "application security group asg-web",
    );
    names
        .define_group("1st=10.224.0.1")
        .expect("a digit may begin it");
    names
        .define_group("ASG-Web=10.224.0.7,10.224.0.8")
        .expect("a group");
    let chain = subnet(&rules, &names);
    check(&chain, &to(7), "Allow subnet R");
    check(&chain, &to(9), "Deny subnet DenyAllInBound");
}

#[test]
fn virtual_network_holds_what_is_declared_and_the_host() {
    let chain = subnet(&[], &names(&[]));
    check(
        &chain,
        "In Tcp 10.239.255.255#1 > 10.224.0.5#80",
        "Allow subnet AllowVnetInBound",
    );
    check(
        &chain,
        "In Tcp 10.240.0.0#1 > 10.224.0.5#80",
        "Deny subnet DenyAllInBound",
    );
    check(
        &chain,
        "In Tcp 168.63.129.16#1 > 10.224.0.5#80",
        "Allow subnet AllowVnetInBound",
    );
}

#[test]
fn virtual_network_may_hold_peers_and_what_routes_lead_to() {
    let names = names(&["VirtualNetwork=10.224.0.0/16,192.168.0.0/16"]);
    // The flag for ranges adds to it.
    let chain = subnet(&[], &names);
    check(
        &chain,
        "In Tcp 192.168.9.9#1 > 10.230.0.5#80",
        "Allow subnet AllowVnetInBound",
    );
}

#[test]
fn with_a_default_route_virtual_network_is_everything() {
    let names = names(&["VirtualNetwork=0.0.0.0/0"]);
    let chain = subnet(&["NoInternet 4096 Out Deny * * * > Internet *"], &names);
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#22",
        "Allow subnet AllowVnetInBound",
    );
    check(
        &chain,
        "Out Tcp 10.224.0.5#1 > 203.0.113.9#22",
        "Allow subnet AllowVnetOutBound",
    );
}

#[test]
fn internet_is_public_and_outside_the_virtual_network() {
    let mut names = names(&[]);
    names.add_network(["203.0.113.0/28".parse().expect("a range")]);
    let chain = subnet(&[], &names);
    let out = |ip: &str| format!("Out Tcp 10.224.0.5#1 > {ip}#443");
    check(
        &chain,
        &out("203.0.113.16"),
        "Allow subnet AllowInternetOutBound",
    );
    // Azure's own public addresses are Internet as well.
    check(
        &chain,
        &out("13.69.0.1"),
        "Allow subnet AllowInternetOutBound",
    );
    check(
        &chain,
        &out("203.0.113.15"),
        "Allow subnet AllowVnetOutBound",
    );
    let verdict = chain.judge(&crate::nsg::tests::fixture::tuple(&out("13.69.0.1")));
    assert!(verdict.is_approximate(), "a computed Internet says so");
}

#[test]
fn private_addresses_outside_the_virtual_network_are_neither() {
    let chain = subnet(&[], &names(&[]));
    for ip in ["10.10.10.10", "172.16.0.1", "192.168.1.1"] {
        check(
            &chain,
            &format!("Out Tcp 10.224.0.5#1 > {ip}#80"),
            "Deny subnet DenyAllOutBound",
        );
        check(
            &chain,
            &format!("In Tcp {ip}#1 > 10.224.0.5#80"),
            "Deny subnet DenyAllInBound",
        );
    }
    for ip in ["fd00::1", "fe80::1"] {
        let flow = format!("Out Tcp 2001:db8::1#1 > {ip}#80");
        check(&chain, &flow, "Deny subnet DenyAllOutBound");
    }
}

#[test]
fn addresses_on_which_list_and_definition_of_internet_disagree_are_open() {
    let chain = subnet(&[], &names(&[]));
    for ip in ["100.64.0.1", "169.254.1.1", "127.0.0.1"] {
        check_unknown(
            &chain,
            &format!("Out Tcp 10.224.0.5#1 > {ip}#80"),
            "printed list of Internet",
        );
    }
}

#[test]
fn a_given_list_for_internet_wins_over_the_computed_one() {
    let chain = subnet(&[], &names(&["Internet=4.0.0.0/9,4.144.0.0/12"]));
    check(
        &chain,
        "Out Tcp 10.224.0.5#1 > 4.144.0.1#80",
        "Allow subnet AllowInternetOutBound",
    );
    // A gap that Azure's printed list has.
    check(
        &chain,
        "Out Tcp 10.224.0.5#1 > 4.128.0.1#80",
        "Deny subnet DenyAllOutBound",
    );
}

#[test]
fn expanded_prefixes_win_over_the_service_tag_file() {
    let document = json!({"effectiveSecurityRules": [{
        "name": "securityRules/R", "protocol": "Tcp", "access": "Deny", "priority": 100,
        "direction": "Outbound", "sourceAddressPrefix": "0.0.0.0/0", "sourcePortRange": "0-65535",
        "destinationAddressPrefix": "Storage", "destinationPortRange": "443-443",
        "expandedDestinationAddressPrefix": ["20.60.0.0/24"],
    }]});
    let nsg = crate::nsg::tests::fixture::read_one(&document).expect("valid");
    let chain = |names: &Names| {
        let levels = crate::nsg::Levels {
            nic: Some(nsg.clone()),
            ..Default::default()
        };
        crate::nsg::Chain::new(levels, names)
    };
    let mut names = names(&[]);
    let tags = read_service_tags(
        "t",
        r#"{"values":[{"name":"Storage","properties":{"addressPrefixes":["52.239.140.0/22"]}}]}"#,
    );
    names.add_service_tags(tags.expect("tags"));
    let to = |ip: &str| format!("Out Tcp 10.224.0.5#1 > {ip}#443");
    check(&chain(&names), &to("20.60.0.1"), "Deny nic R");
    check(
        &chain(&names),
        &to("52.239.140.1"),
        "Allow nic AllowInternetOutBound",
    );
    // What the user says wins over both.
    names.define_tag("storage=192.0.2.0/24").expect("a tag");
    check(&chain(&names), &to("192.0.2.1"), "Deny nic R");
    check(
        &chain(&names),
        &to("20.60.0.1"),
        "Allow nic AllowInternetOutBound",
    );
}

#[test]
fn load_balancer_is_the_host_not_its_clients() {
    let rules = [
        "Balancer 100 In Allow Tcp AzureLoadBalancer * > * *",
        "Rest 200 In Deny * * * > * *",
    ];
    let chain = subnet(&rules, &names(&[]));
    check(
        &chain,
        "In Tcp 168.63.129.16#1 > 10.224.0.5#80",
        "Allow subnet Balancer",
    );
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#80",
        "Deny subnet Rest",
    );
}

#[test]
fn service_tags_of_file_and_discovery_are_read_without_regard_to_case() {
    for text in [
        include_str!("../../testdata/service-tags-public.sample.json"),
        include_str!("../../testdata/service-tags-discovery-api.sample.json"),
    ] {
        let mut names = names(&[]);
        names.add_service_tags(read_service_tags("tags.json", text).expect("tags"));
        let chain = subnet(&["R 100 Out Deny Tcp * * > storage.WESTEUROPE 443"], &names);
        check(
            &chain,
            "Out Tcp 10.224.0.5#1 > 20.38.109.255#443",
            "Deny subnet R",
        );
        check(
            &chain,
            "Out Tcp 10.224.0.5#1 > 20.38.110.0#443",
            "Allow subnet AllowInternetOutBound",
        );
    }
}

#[test]
fn tags_of_a_region_are_tags_of_their_own() {
    let text = include_str!("../../testdata/service-tags-public.sample.json");
    let mut names = names(&[]);
    names.add_service_tags(read_service_tags("tags.json", text).expect("tags"));
    let to = "Out Tcp 10.224.0.5#1 > 20.60.0.1#443";
    check(
        &subnet(&["R 100 Out Deny Tcp * * > Storage 443"], &names),
        to,
        "Deny subnet R",
    );
    let region = subnet(&["R 100 Out Deny Tcp * * > Storage.WestEurope 443"], &names);
    check(&region, to, "Allow subnet AllowInternetOutBound");
    let other = subnet(
        &["R 100 Out Deny Tcp * * > Storage.NorthEurope 443"],
        &names,
    );
    check_unknown(&other, to, "service tag Storage.NorthEurope");
}

#[test]
fn tags_have_both_families() {
    let text = include_str!("../../testdata/service-tags-public.sample.json");
    let mut names = names(&[]);
    names.add_service_tags(read_service_tags("tags.json", text).expect("tags"));
    let chain = subnet(&["R 100 Out Deny Tcp * * > ActionGroup 443"], &names);
    check(
        &chain,
        "Out Tcp 2001:db8::1#1 > 2603:1000:4:402::17f#443",
        "Deny subnet R",
    );
    check(
        &chain,
        "Out Tcp 2001:db8::1#1 > 2603:1000:4:402::180#443",
        "Allow subnet AllowInternetOutBound",
    );
    check(
        &chain,
        "Out Tcp 10.224.0.5#1 > 13.66.60.119#443",
        "Deny subnet R",
    );
}

#[test]
fn definitions_that_are_none_are_refused() {
    let mut names = Names::default();
    for (text, expected) in [
        ("Storage", NamesError::Shape("Storage".into())),
        ("=10.0.0.0/8", NamesError::Name(String::new())),
        ("St orage=10.0.0.0/8", NamesError::Name("St orage".into())),
        ("Storage=10.0.0.0/8,x", NamesError::Net("x".into())),
    ] {
        assert_eq!(names.define_tag(text), Err(expected.clone()), "{text}");
        assert_eq!(names.define_group(text), Err(expected), "{text}");
    }
}
