//! Priorities, places, default rules, admin rules, state.

use crate::nsg::{
    Chain, Direction, Levels, Names, Origin,
    tests::fixture::{admin, check, check_unknown, names, nsg, subnet, tuple},
};

fn chain(subnet: Option<&[&str]>, nic: Option<&[&str]>) -> Chain {
    let levels = Levels {
        subnet: subnet.map(nsg),
        nic: nic.map(nsg),
        admin: None,
    };
    Chain::new(levels, &names(&[]))
}

const SSH: &str = "In Tcp 203.0.113.9#50123 > 10.224.0.5#22";
const OUT: &str = "Out Tcp 10.224.0.5#50123 > 203.0.113.9#443";
const ALLOW_SSH: &str = "AllowSsh 100 In Allow Tcp * * > * 22";
const DENY_SSH: &str = "DenySsh 100 In Deny Tcp * * > * 22";
const DENY_OUT: &str = "DenyOut 100 Out Deny * * * > * *";

#[test]
fn lower_priority_numbers_are_asked_first_and_the_first_match_ends_it() {
    let rules = [
        "Last 300 In Allow Tcp * * > * 22",
        "First 100 In Deny Tcp 203.0.113.9 * > * 22",
        "Second 200 In Allow Tcp 203.0.113.0/24 * > * 22",
    ];
    let chain = subnet(&rules, &names(&[]));
    check(&chain, SSH, "Deny subnet First");
    check(
        &chain,
        "In Tcp 203.0.113.8#1 > 10.224.0.5#22",
        "Allow subnet Second",
    );
    check(
        &chain,
        "In Tcp 198.51.100.1#1 > 10.224.0.5#22",
        "Allow subnet Last",
    );
}

#[test]
fn default_rules_are_added_where_missing_and_have_azures_values() {
    let nsg = nsg(&[ALLOW_SSH]);
    let defaults: Vec<_> = nsg
        .rules
        .iter()
        .filter(|rule| rule.origin == Origin::Default)
        .map(|rule| {
            format!(
                "{} {} {} {} {} {} {} > {} {}",
                rule.name,
                rule.priority,
                rule.direction,
                rule.access,
                rule.protocol,
                rule.source[0],
                rule.source_ports,
                rule.destination[0],
                rule.destination_ports
            )
        })
        .collect();
    assert_eq!(
        defaults,
        [
            "AllowVnetInBound 65000 Inbound Allow * VirtualNetwork * > VirtualNetwork *",
            "AllowAzureLoadBalancerInBound 65001 Inbound Allow * AzureLoadBalancer * > * *",
            "DenyAllInBound 65500 Inbound Deny * * * > * *",
            "AllowVnetOutBound 65000 Outbound Allow * VirtualNetwork * > VirtualNetwork *",
            "AllowInternetOutBound 65001 Outbound Allow * * * > Internet *",
            "DenyAllOutBound 65500 Outbound Deny * * * > * *",
        ]
    );
}

#[test]
fn default_rules_are_overridden_by_any_rule_of_the_user() {
    let chain = subnet(
        &[
            "DenyVnet 4096 In Deny * VirtualNetwork * > VirtualNetwork *",
            "AllowAll 4095 Out Allow * * * > * *",
        ],
        &names(&[]),
    );
    check(
        &chain,
        "In Tcp 10.224.0.4#1 > 10.224.0.5#80",
        "Deny subnet DenyVnet",
    );
    check(
        &chain,
        "Out Tcp 10.224.0.4#1 > 192.168.7.1#80",
        "Allow subnet AllowAll",
    );
}

#[test]
fn default_rules_decide_what_no_rule_of_the_user_matches() {
    let chain = subnet(&[], &names(&[]));
    check(
        &chain,
        "In Tcp 10.224.0.4#1 > 10.224.0.5#80",
        "Allow subnet AllowVnetInBound",
    );
    check(&chain, SSH, "Deny subnet DenyAllInBound");
    check(
        &chain,
        "Out Udp 10.224.0.4#1 > 10.225.0.5#80",
        "Allow subnet AllowVnetOutBound",
    );
    check(&chain, OUT, "Allow subnet AllowInternetOutBound");
    check(
        &chain,
        "Out Tcp 10.224.0.4#1 > 192.168.7.1#80",
        "Deny subnet DenyAllOutBound",
    );
}

#[test]
fn inbound_the_subnets_group_is_asked_first_and_a_denial_ends_it() {
    let chain = chain(Some(&[DENY_SSH]), Some(&[ALLOW_SSH]));
    check(&chain, SSH, "Deny subnet DenySsh");
    let verdict = chain.judge(&tuple(SSH));
    let asked: Vec<_> = verdict.steps().map(|step| step.level.kind.name()).collect();
    assert_eq!(
        asked,
        ["subnet"],
        "the network card's group is never evaluated"
    );
}

#[test]
fn inbound_both_groups_must_allow() {
    check(
        &chain(Some(&[ALLOW_SSH]), Some(&[])),
        SSH,
        "Deny nic DenyAllInBound",
    );
    check(
        &chain(Some(&[]), Some(&[ALLOW_SSH])),
        SSH,
        "Deny subnet DenyAllInBound",
    );
    check(
        &chain(Some(&[ALLOW_SSH]), Some(&[ALLOW_SSH])),
        SSH,
        "Allow nic AllowSsh",
    );
}

#[test]
fn outbound_the_network_cards_group_is_asked_first() {
    let both = chain(Some(&[DENY_OUT]), Some(&[DENY_OUT]));
    check(&both, OUT, "Deny nic DenyOut");
    check(
        &chain(Some(&[DENY_OUT]), Some(&[])),
        OUT,
        "Deny subnet DenyOut",
    );
}

#[test]
fn an_allow_is_named_by_the_last_group_that_allowed() {
    let both = chain(Some(&[ALLOW_SSH]), Some(&["Nic 100 In Allow * * * > * *"]));
    check(&both, SSH, "Allow nic Nic");
    check(&both, OUT, "Allow subnet AllowInternetOutBound");
    let verdict = both.judge(&tuple(SSH));
    let steps: Vec<_> = verdict
        .steps()
        .map(|step| format!("{} {}", step.level.kind, step.rule().name))
        .collect();
    assert_eq!(steps, ["subnet AllowSsh", "nic Nic"]);
}

#[test]
fn the_access_never_depends_on_which_group_is_asked_first() {
    let groups: [Option<&[&str]>; 5] = [
        None,
        Some(&[]),
        Some(&[ALLOW_SSH]),
        Some(&[DENY_SSH, DENY_OUT]),
        Some(&["Tagged 100 In Allow Tcp NoSuchTag * > * 22"]),
    ];
    for one in groups {
        for other in groups {
            for flow in [SSH, OUT, "In Tcp 10.224.0.4#1 > 10.224.0.5#80"] {
                let access = |chain: &Chain| chain.judge(&tuple(flow)).access;
                let (chain, swapped) = (chain(one, other), chain(other, one));
                assert_eq!(access(&chain), access(&swapped), "{one:?} {other:?} {flow}");
            }
        }
    }
}

#[test]
fn without_any_group_everything_is_allowed() {
    let chain = chain(None, None);
    check(&chain, SSH, "Allow none -");
    check(&chain, OUT, "Allow none -");
}

#[test]
fn traffic_within_a_subnet_is_subject_to_its_group() {
    let chain = subnet(
        &["DenyPeers 100 In Deny * 10.224.0.0/24 * > 10.224.0.0/24 *"],
        &names(&[]),
    );
    check(
        &chain,
        "In Tcp 10.224.0.4#1 > 10.224.0.5#80",
        "Deny subnet DenyPeers",
    );
}

#[test]
fn admin_rules_come_first_and_allow_goes_on() {
    let levels = |rules: &[&str]| Levels {
        admin: Some(admin(rules)),
        subnet: Some(nsg(&[DENY_SSH])),
        nic: None,
    };
    let check_admin = |rules: &[&str], flow: &str, expected: &str| {
        check(&Chain::new(levels(rules), &names(&[])), flow, expected);
    };
    check_admin(
        &["A 10 In Allow Tcp * * > * 22"],
        SSH,
        "Deny subnet DenySsh",
    );
    check_admin(
        &["A 10 In AlwaysAllow Tcp * * > * 22"],
        SSH,
        "Allow admin A",
    );
    check_admin(&["A 10 Out Deny * * * > * 443"], OUT, "Deny admin A");
    check_admin(
        &["A 10 Out Deny * * * > * 25"],
        OUT,
        "Allow subnet AllowInternetOutBound",
    );
    // Of admin rules, too, the first that matches decides.
    let both = [
        "A 10 In Allow Tcp * * > * 22",
        "B 20 In AlwaysAllow Tcp * * > * 22",
    ];
    check_admin(&both, SSH, "Deny subnet DenySsh");
}

#[test]
fn admin_allow_without_a_group_allows() {
    let levels = Levels {
        admin: Some(admin(&["A 10 In Allow Tcp * * > * 22"])),
        ..Levels::default()
    };
    let chain = Chain::new(levels, &names(&[]));
    check(&chain, SSH, "Allow admin A");
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#23",
        "Allow none -",
    );
}

#[test]
fn a_rule_that_may_match_leaves_the_verdict_open() {
    let rules = ["Tagged 101 In Allow Tcp NoSuchTag * > * 443"];
    let chain = subnet(&rules, &names(&[]));
    let https = "In Tcp 203.0.113.9#1 > 10.224.0.5#443";
    check_unknown(
        &chain,
        https,
        "rule Tagged (subnet) may match: service tag NoSuchTag",
    );
    // It does not matter where another field says no, or an earlier rule yes.
    check(&chain, SSH, "Deny subnet DenyAllInBound");
    let rules = [rules[0], "First 100 In Deny Tcp * * > * 443"];
    check(&subnet(&rules, &names(&[])), https, "Deny subnet First");
}

#[test]
fn a_certain_denial_by_one_group_holds_whatever_the_other_says() {
    let unknown = "Tagged 100 In Allow Tcp NoSuchTag * > * 22";
    check(
        &chain(Some(&[unknown]), Some(&[DENY_SSH])),
        SSH,
        "Deny nic DenySsh",
    );
    check(
        &chain(Some(&[DENY_SSH]), Some(&[unknown])),
        SSH,
        "Deny subnet DenySsh",
    );
    check_unknown(
        &chain(Some(&[unknown]), Some(&[ALLOW_SSH])),
        SSH,
        "NoSuchTag",
    );
    check_unknown(
        &chain(Some(&[ALLOW_SSH]), Some(&[unknown])),
        SSH,
        "NoSuchTag",
    );
}

#[test]
fn an_admin_rule_that_may_match_leaves_everything_open() {
    let levels = Levels {
        admin: Some(admin(&["A 10 In AlwaysAllow Tcp NoSuchTag * > * 22"])),
        subnet: Some(nsg(&[DENY_SSH])),
        nic: None,
    };
    check_unknown(&Chain::new(levels, &names(&[])), SSH, "rule A (admin)");
}

#[test]
fn what_is_the_same_whatever_nobody_knows_is_certain() {
    let https = "In Tcp 203.0.113.9#1 > 10.224.0.5#443";
    let both = ["Tagged 100 In Deny Tcp NoSuchTag * > * 443"];
    // It denies, or the default rule does.
    let deny = subnet(&both, &names(&[]));
    check(&deny, https, "Deny subnet DenyAllInBound");
    let verdict = deny.judge(&tuple(https));
    assert!(verdict.steps().all(|step| !step.is_certain()));
    let reason = verdict.reason().expect("a reason");
    assert!(
        reason.starts_with("rule Tagged (subnet) may match, Deny whether it does or not: service"),
        "{reason}"
    );
    let allow = [
        "Tagged 100 In Allow Tcp NoSuchTag * > * 443",
        "Web 110 In Allow Tcp * * > * 443",
    ];
    check(&subnet(&allow, &names(&[])), https, "Allow subnet Web");
    // Rules that ask the same are answered the same: the second decides only where the first does.
    let same = [
        "First 100 In Deny Tcp NoSuchTag * > * 443",
        "Second 110 In Allow * nosuchtag * > * *",
    ];
    check(
        &subnet(&same, &names(&[])),
        https,
        "Deny subnet DenyAllInBound",
    );
    let other = [same[0], "Second 110 In Allow * OtherTag * > * *"];
    check_unknown(&subnet(&other, &names(&[])), https, "NoSuchTag");
    // Also across groups.
    let allow = "Tagged 100 In Allow Tcp NoSuchTag * > * 443";
    let deny = "Tagged 100 In Deny Tcp NoSuchTag * > * 443";
    let web = "Web 110 In Allow Tcp * * > * 443";
    let verdict = chain(Some(&[allow]), Some(&[deny, web]));
    check(&verdict, https, "Deny subnet DenyAllInBound");
    check_unknown(&chain(Some(&[allow]), Some(&[web])), https, "NoSuchTag");
    // What is said to be open is what is.
    let other = "Other 100 In Allow Tcp OtherTag * > * 443";
    check_unknown(
        &chain(Some(&[allow, web]), Some(&[other])),
        https,
        "rule Other (nic)",
    );
}

#[test]
fn an_admin_rule_that_may_match_does_no_harm_where_the_groups_say_the_same() {
    let judge = |admin_rule: &str, group: &str, expected: &str| {
        let levels = Levels {
            admin: Some(admin(&[admin_rule])),
            subnet: Some(nsg(&[group])),
            nic: None,
        };
        check(&Chain::new(levels, &names(&[])), SSH, expected);
    };
    judge(
        "A 10 In AlwaysAllow Tcp NoSuchTag * > * 22",
        ALLOW_SSH,
        "Allow subnet AllowSsh",
    );
    judge(
        "A 10 In Allow Tcp NoSuchTag * > * 22",
        DENY_SSH,
        "Deny subnet DenySsh",
    );
    judge(
        "A 10 In Deny Tcp NoSuchTag * > * 22",
        DENY_SSH,
        "Deny subnet DenySsh",
    );
    judge(
        "A 10 In Deny Tcp NoSuchTag * > * 22",
        ALLOW_SSH,
        "Indeterminate admin -",
    );
}

#[test]
fn replies_need_no_rule_the_opening_packet_decides() {
    let chain = subnet(&[DENY_SSH], &names(&[]));
    let reply = tuple("In Tcp 203.0.113.9#443 > 10.224.0.5#50123");
    let opening = reply.answered();
    assert_eq!(opening, tuple(OUT));
    assert_eq!(opening.direction, Direction::Outbound);
    assert_eq!(chain.judge(&opening).access.name(), "Allow");
    assert_eq!(
        chain.judge(&reply).access.name(),
        "Deny",
        "as an opening packet"
    );
}

#[test]
fn names_of_rules_are_compared_without_case() {
    let mut document = crate::nsg::tests::fixture::document(&[]);
    document["properties"]["defaultSecurityRules"] = serde_json::json!([
        crate::nsg::tests::fixture::rule(
            "AllowVNetInBound 65000 In Allow * VirtualNetwork * > VirtualNetwork *"
        ),
        crate::nsg::tests::fixture::rule("DenyAllInbound 65500 In Deny * * * > * *"),
    ]);
    let nsg = crate::nsg::tests::fixture::read_one(&document).expect("valid");
    let inbound: Vec<_> = nsg.of(Direction::Inbound).map(|rule| &*rule.name).collect();
    let expected = [
        "AllowVNetInBound",
        "AllowAzureLoadBalancerInBound",
        "DenyAllInbound",
    ];
    assert_eq!(inbound, expected, "as the prose page writes them");
}

#[test]
fn the_virtual_network_of_nobody_is_not_guessed() {
    let chain = subnet(&[], &Names::default());
    check(&chain, SSH, "Deny subnet DenyAllInBound");
    let inside = "In Tcp 10.224.0.4#1 > 10.224.0.5#80";
    check_unknown(&chain, inside, "--virtual-network");
}
