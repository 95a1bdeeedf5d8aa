//! What is known of AKS: needs, rules of load balancers, public addresses.

use super::{
    nsg::{engine_under, flow, rule, run, sent},
    *,
};
use monitor_common::abi::FlowKey4;

use crate::{
    event::FindingKind,
    filter::{Condition, FlowFilter, Term},
    nsg::{Access, Chain, LevelKind, Levels, Names, read},
};

/// A group on the subnet and the network card, as AKS has it.
fn chain_of(subnet: &str, nic: &str, tags: &[&str]) -> Arc<Chain> {
    let group = |rules: &str, kind| {
        let text = format!("{{\"name\":\"g\",\"securityRules\":[{rules}]}}");
        read::read("g.json", &text)
            .unwrap()
            .choose(None, kind)
            .unwrap()
    };
    let levels = Levels {
        subnet: Some(group(subnet, LevelKind::Subnet)),
        nic: Some(group(nic, LevelKind::Nic)),
        admin: None,
    };
    let mut names = Names::default();
    names.add_network(["10.224.0.0/12".parse().unwrap()]);
    for tag in tags {
        names.define_tag(tag).unwrap();
    }
    let chain = Chain::new(levels, &names);
    let needs = crate::nsg::profile::Profile::aks().resolve(&names, chain.network(), &[]);
    Arc::new(chain.with_needs(needs))
}

#[test]
fn one_group_on_subnet_and_network_card_counts_a_connection_once() {
    let mut engine = engine();
    let allow = rule("AllowSsh", "Inbound", "Allow", 22);
    step(&mut engine, Input::Nsg(Some(chain_of(&allow, &allow, &[]))));
    run(&mut engine, flow(true, 22), sent(true, B));
    let status = engine.snapshot().status.nsg.unwrap();
    let rules: Vec<_> = status
        .rules
        .iter()
        .filter(|rule| &*rule.rule == "AllowSsh")
        .collect();
    assert_eq!(rules.len(), 2);
    assert!(rules.iter().all(|rule| rule.connections == 1), "{rules:?}");
}

#[test]
fn a_rule_that_may_decide_is_not_counted_as_one_that_did() {
    let mut engine = engine();
    let tagged = rule("Tagged", "Inbound", "Deny", 22).replace(
        "\"sourceAddressPrefix\":\"*\"",
        "\"sourceAddressPrefix\":\"NoSuchTag\"",
    );
    step(&mut engine, Input::Nsg(Some(chain_of(&tagged, "", &[]))));
    // It denies, or the default rule does: drift either way.
    let (record, findings) = run(&mut engine, flow(true, 22), sent(true, B));
    assert_eq!(record.nsg.unwrap().access, Access::Deny);
    assert_eq!(findings[0].0, FindingKind::NsgDrift);
    let status = engine.snapshot().status.nsg.unwrap();
    assert!(
        status.rules.iter().all(|rule| rule.connections == 0),
        "{status:?}"
    );
}

#[test]
fn what_the_profile_needs_is_said_of_flows_and_findings() {
    let mut engine = engine();
    let api = ["ApiServer=203.0.113.9"];
    step(&mut engine, Input::Nsg(Some(chain_of("", "", &api))));
    let (record, findings) = run(&mut engine, flow(false, 443), sent(false, 0));
    assert_eq!(
        record.nsg.as_ref().unwrap().need.as_deref(),
        Some("api-server")
    );
    let [(kind, reason)] = &findings[..] else {
        panic!("{findings:?}")
    };
    assert_eq!(*kind, FindingKind::NsgOverBlocked);
    assert!(
        reason.ends_with("; the profile needs it (`api-server`)"),
        "{reason}"
    );
    let (record, findings) = run(&mut engine, flow(false, 8_443), sent(false, B));
    assert_eq!((record.nsg.unwrap().need, findings), (None, Vec::new()));
}

const LB: &str = "k8s-azure-lb_allow_IPv4_0123456789abcdef0123456789abcdef";

#[test]
fn rules_that_aks_writes_for_load_balancers_are_marked() {
    let mut engine = engine_under(&rule(LB, "Inbound", "Deny", 443));
    let key = flow(true, 443);
    let value = sent(true, B);
    let mut records = step(&mut engine, Input::Flows(vec![(key, value)])).records;
    records.extend(step(&mut engine, Input::Removed(vec![(key, value)])).records);
    let finding = records.iter().find_map(|record| match record {
        Record::Finding(finding) => Some(finding),
        _ => None,
    });
    let finding = finding.expect("drift");
    assert!(
        finding
            .declared_by
            .ends_with("(which AKS writes for a load balancer)"),
        "{}",
        finding.declared_by
    );
    let made_by = finding.flow.as_ref().unwrap().nsg.as_ref().unwrap().made_by;
    assert_eq!(made_by, Some(crate::nsg::Maker::AksLoadBalancer));
    let status = engine.snapshot().status.nsg.unwrap();
    let marked: Vec<_> = status
        .rules
        .iter()
        .filter(|rule| rule.made_by.is_some())
        .collect();
    assert_eq!(marked.len(), 1);
}

/// A connection from the Internet to a public address of this node.
fn at_public_address(remote_port: u16) -> FlowKey {
    let FlowKey::V4(key) = key4(1, Protocol::TCP, 443, remote_port) else {
        panic!("IPv4");
    };
    let local = std::net::Ipv4Addr::new(20, 61, 10, 5).to_bits();
    FlowKey::V4(FlowKey4 { local, ..key })
}

#[test]
fn a_node_that_answers_on_a_public_address_is_noticed_once() {
    let mut engine = engine_under(&rule("Web", "Inbound", "Allow", 443));
    let (record, findings) = run(&mut engine, at_public_address(40_000), sent(true, B));
    assert_eq!(record.finding.as_deref(), Some("public-address"));
    let [(kind, reason)] = &findings[..] else {
        panic!("{findings:?}")
    };
    assert_eq!(*kind, FindingKind::PublicAddress);
    assert_eq!(
        reason,
        "an address of this node or of a pod on it answers TCP on the public address 20.61.10.5 \
         port 443, here 203.0.113.9"
    );
    let (record, findings) = run(&mut engine, at_public_address(40_001), sent(true, B));
    assert_eq!(
        (record.finding.as_deref(), findings.len()),
        (Some("public-address"), 0)
    );
    // Who does not answer is not there.
    let mut engine = engine_under(&rule("Web", "Inbound", "Allow", 443));
    let (_, findings) = run(
        &mut engine,
        at_public_address(40_000),
        sent(true, RST | ACK),
    );
    assert_eq!(findings, []);
}

#[test]
fn a_load_balancers_frontend_is_no_public_address_of_the_node() {
    let mut engine = engine_under(&rule(LB, "Inbound", "Allow", 443));
    let (record, findings) = run(&mut engine, at_public_address(40_000), sent(true, B));
    assert_eq!((record.finding, findings), (None, Vec::new()));
}

#[test]
fn the_internet_that_only_a_default_rule_lets_in_is_noticed() {
    let mut engine = engine();
    let routed = ["VirtualNetwork=0.0.0.0/0"];
    step(&mut engine, Input::Nsg(Some(chain_of("", "", &routed))));
    let (_, findings) = run(&mut engine, flow(true, 8_080), sent(true, B));
    let [(kind, reason)] = &findings[..] else {
        panic!("{findings:?}")
    };
    assert_eq!(*kind, FindingKind::PublicAddress);
    assert!(reason.ends_with("no rule of a user lets it in"), "{reason}");
    // A rule of the user says that it is meant to be so.
    let mut engine = engine_under(&rule("Web", "Inbound", "Allow", 8_080));
    let (_, findings) = run(&mut engine, flow(true, 8_080), sent(true, B));
    assert_eq!(findings, []);
}

#[test]
fn flows_are_found_by_what_groups_say_of_them() {
    let mut engine = engine_under(&rule("DenySsh", "Inbound", "Deny", 22));
    step(
        &mut engine,
        Input::Flows(vec![(flow(true, 22), sent(true, B))]),
    );
    step(
        &mut engine,
        Input::Flows(vec![(flow(true, 443), sent(true, B))]),
    );
    let filter = FlowFilter {
        terms: vec![Term {
            not: false,
            condition: Condition::Finding("nsg-drift".to_owned()),
        }],
        ..FlowFilter::default()
    };
    let found = engine.query(&filter, None);
    assert_eq!(found.len(), 2, "port 443 is denied by the default rule");
    assert!(
        found
            .iter()
            .all(|record| record.finding.as_deref() == Some("nsg-drift"))
    );
}

/// Why SSH from an expected range to this node is blocked, under these groups.
fn why_blocked(subnet: &str, nic: &str, other: u16) -> String {
    let mut engine = engine();
    engine.books.ssh.expectations.node = vec!["admins=203.0.113.0/24".parse().unwrap()];
    step(&mut engine, Input::Nsg(Some(chain_of(subnet, nic, &[]))));
    let (key, value) = (flow(true, 22), sent(true, other));
    let mut records = step(&mut engine, Input::Flows(vec![(key, value)])).records;
    records.extend(step(&mut engine, Input::Removed(vec![(key, value)])).records);
    let mut found = records.into_iter().filter_map(|record| match record {
        Record::Finding(found) if found.finding == FindingKind::SshExpectedBlocked => Some(found),
        _ => None,
    });
    found.next().expect("blocked").reason
}

#[test]
fn ssh_that_is_expected_and_blocked_says_whether_a_rule_or_a_server_is_missing() {
    let allow = rule("Ssh", "Inbound", "Allow", 22);
    for (nic, other, expected) in [
        (
            allow.as_str(),
            RST | ACK,
            "is refused: network security group rule Ssh allows it, so SSH is disabled on the \
             node or its server refuses",
        ),
        (
            "",
            0,
            "is unanswered: network security group rule DenyAllInBound denies it, a rule that \
             allows admins is missing",
        ),
    ] {
        let reason = why_blocked(&allow, nic, other);
        assert!(reason.ends_with(expected), "{reason}");
    }
}
