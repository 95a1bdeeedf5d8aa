//! What AKS makes of it.

use crate::nsg::{
    Chain, LevelKind, Levels, Names, read,
    tests::fixture::{check, check_unknown, names, subnet},
};

fn managed() -> Levels {
    let text = include_str!("../../testdata/aks-managed-nic-nsg.cli.json");
    let document = read::read("aks.json", text).expect("valid");
    Levels {
        nic: Some(document.choose(None, LevelKind::Nic).expect("one group")),
        ..Levels::default()
    }
}

#[test]
fn with_floating_ip_the_destination_is_the_frontend() {
    let chain = Chain::new(managed(), &names(&[]));
    let rule = "k8s-azure-lb_allow_IPv4_556f7044ec033071ec0dfcf7cd85bc93";
    let allowed = format!("Allow nic {rule}");
    check(&chain, "In Tcp 203.0.113.9#1 > 20.61.10.5#443", &allowed);
    // The node's own address is not what the rule names.
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#443",
        "Deny nic DenyAllInBound",
    );
}

#[test]
fn without_floating_ip_the_rule_names_nodes_and_node_ports() {
    // As AKS writes it for azure-disable-load-balancer-floating-ip, and for internal IPv6.
    let rule = "k8s-azure-lb_allow_IPv4_0123456789abcdef0123456789abcdef";
    let text = format!("{rule} 500 In Allow Tcp Internet * > 10.224.0.4,10.224.0.5 30443");
    let chain = subnet(&[&text], &names(&[]));
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#30443",
        &format!("Allow subnet {rule}"),
    );
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 20.61.10.5#443",
        "Deny subnet DenyAllInBound",
    );
}

#[test]
fn a_frontend_is_not_in_the_virtual_network_even_for_its_clients() {
    let chain = Chain::new(managed(), &names(&[]));
    check(
        &chain,
        "In Tcp 10.224.0.9#1 > 20.61.10.5#8080",
        "Deny nic DenyAllInBound",
    );
}

#[test]
fn a_rule_for_the_nodes_does_not_admit_load_balancer_traffic() {
    let chain = subnet(
        &["Web 100 In Allow Tcp Internet * > 10.224.0.0/16 443"],
        &names(&[]),
    );
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 20.61.10.5#443",
        "Deny subnet DenyAllInBound",
    );
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#443",
        "Allow subnet Web",
    );
}

#[test]
fn load_balancer_rules_of_aks_are_judged_as_written() {
    let mut names = names(&["AzureFrontDoor.Backend=13.73.248.16/29"]);
    names
        .define_group("asg-aks-gamepool=10.224.0.7")
        .expect("a group");
    let chain = Chain::new(managed(), &names);
    let ranges = "Allow nic k8s-azure-lb_allow_IPv4_baf9bf678b12fa445af39a9fc80fdb53";
    check(&chain, "In Tcp 198.51.100.65#1 > 20.61.10.9#8443", ranges);
    check(
        &chain,
        "In Tcp 192.0.2.1#1 > 20.61.10.6#8443",
        "Deny nic k8s-azure-lb_deny-all_IPv4",
    );
    let door = "Allow nic k8s-azure-lb_allow_IPv4_3611ba01fd9e2562d5699ac668cc1b5b";
    check(&chain, "In Udp 13.73.248.17#1 > 20.61.10.7#5000", door);
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.7#40001",
        "Allow nic allow-host-ports-gamepool-tcp",
    );
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.8#40001",
        "Deny nic DenyAllInBound",
    );
}

#[test]
fn a_tag_of_a_load_balancer_rule_that_nobody_defined_leaves_it_open() {
    let chain = Chain::new(managed(), &names(&[]));
    check_unknown(
        &chain,
        "In Udp 13.73.248.17#1 > 20.61.10.7#5000",
        "AzureFrontDoor.Backend",
    );
}

#[test]
fn pods_are_in_the_virtual_network_only_if_that_is_said() {
    let pods = "In Tcp 10.244.1.7#1 > 10.224.0.5#8080";
    check(
        &subnet(&[], &names(&[])),
        pods,
        "Deny subnet DenyAllInBound",
    );
    check_unknown(&subnet(&[], &Names::default()), pods, "--virtual-network");
    let mut declared = names(&[]);
    declared.add_network(["10.244.0.0/16".parse().expect("a range")]);
    check(
        &subnet(&[], &declared),
        pods,
        "Allow subnet AllowVnetInBound",
    );
}

#[test]
fn bastion_reaches_nodes_from_its_own_subnet() {
    let text = include_str!("../../testdata/snet-nodes-nsg.rest.json");
    let document = read::read("nsg.json", text).expect("valid");
    let nsg = document.choose(None, LevelKind::Subnet).expect("one group");
    let levels = Levels {
        subnet: Some(nsg),
        ..Levels::default()
    };
    let chain = Chain::new(levels, &names(&[]));
    check(
        &chain,
        "In Tcp 10.225.0.4#1 > 10.224.0.5#22",
        "Allow subnet AllowSshFromBastion",
    );
    check(
        &chain,
        "In Tcp 198.51.100.77#1 > 10.224.0.4#22",
        "Deny subnet DenySsh",
    );
    check(
        &chain,
        "In Tcp 10.224.0.9#1 > 10.224.0.4#22",
        "Deny subnet DenySsh",
    );
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#443",
        "Allow subnet AllowWebFromInternet",
    );
    check(
        &chain,
        "In Tcp 10.226.0.17#1 > 10.224.0.5#10250",
        "Allow subnet AllowKubeletFromApiServer",
    );
    check(
        &chain,
        "Out Tcp 10.224.0.5#1 > 203.0.113.9#25",
        "Deny subnet DenySmtp",
    );
    check_unknown(
        &chain,
        "Out Udp 10.224.0.5#1 > 203.0.113.9#1194",
        "AzureCloud.westeurope",
    );
    check(
        &chain,
        "Out Udp 10.224.0.5#1 > 203.0.113.9#123",
        "Allow subnet AllowNtp",
    );
    check(
        &chain,
        "Out Tcp 10.224.0.5#1 > 203.0.113.9#80",
        "Deny subnet DenyInternetOut",
    );
}
