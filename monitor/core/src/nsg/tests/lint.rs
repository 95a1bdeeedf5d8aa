//! What lint finds, and what it leaves alone.

use super::fixture::{names, subnet};
use crate::nsg::{
    lint::{self, Options, lint},
    profile::Profile,
};

/// Check and rule of each issue, under these tags.
fn found(rules: &[&str], tags: &[&str]) -> Vec<String> {
    let chain = subnet(rules, &names(tags));
    let issues = lint(&chain, &Options::default());
    let line = |issue: &crate::nsg::lint::Issue| format!("{} {}", issue.check, issue.rule);
    issues.iter().map(line).collect()
}

fn check(rules: &[&str], expected: &[&str]) {
    assert_eq!(found(rules, &[]), expected, "{rules:?}");
}

#[test]
fn rules_may_be_shadowed_by_several_together() {
    let halves = [
        "Low 100 In Deny Tcp 10.225.0.0/17 * > * 443",
        "High 110 In Deny Tcp 10.225.128.0/17 * > * 443",
    ];
    let whole = "Whole 120 In Deny Tcp 10.225.0.0/16 * > 10.224.0.0/16 443";
    let shadowed = found(&[halves[0], halves[1], whole], &[]);
    assert!(
        shadowed.contains(&"shadowed Whole".to_owned()),
        "{shadowed:?}"
    );
    let half = found(&[halves[0], whole], &[]);
    assert!(!half.contains(&"shadowed Whole".to_owned()), "{half:?}");
}

#[test]
fn a_rule_of_all_protocols_with_a_port_is_shadowed_by_tcp_and_udp() {
    let by = [
        "T 100 In Allow Tcp 10.225.0.1 * > * 53",
        "U 110 In Allow Udp 10.225.0.1 * > * 53",
    ];
    check(
        &[by[0], by[1], "A 120 In Allow * 10.225.0.1 * > * 53"],
        &["shadowed A", "overlapping-allows A"],
    );
    check(
        &[by[0], "A 120 In Allow * 10.225.0.1 * > * 53"],
        &["overlapping-allows A"],
    );
}

#[test]
fn undefined_names_are_held_by_themselves_and_by_any() {
    let first = "A 100 In Allow Tcp SomeTag * > * 443";
    for name in ["SomeTag", "SOMETAG"] {
        let second = format!("B 110 In Allow Tcp {name} * > * 443");
        check(&[first, &second], &["shadowed B", "overlapping-allows B"]);
    }
    check(&[first, "B 110 In Allow Tcp OtherTag * > * 443"], &[]);
    let any = "A 100 In Allow Tcp * * > * 443";
    check(
        &[any, "B 110 In Allow Tcp SomeTag * > * 443"],
        &["shadowed B", "overlapping-allows B"],
    );
}

#[test]
fn nothing_matches_what_stands_for_nothing() {
    let never = |rule: &str, tags: &[&str]| {
        let issues = found(&[rule], tags);
        issues.iter().any(|issue| issue == "never-matches R")
    };
    assert!(never("R 100 In Allow Icmp * * > * 8", &[]));
    assert!(never("R 100 In Allow Tcp Empty * > * 22", &["Empty="]));
    assert!(never(
        "R 100 Out Deny Tcp * * > Internet 22",
        &["VirtualNetwork=0.0.0.0/0,::/0"]
    ));
    assert!(never("R 100 In Allow Tcp * * > 192.168.1.0/24 22", &[]));
    assert!(never("R 100 Out Allow Tcp 192.168.1.0/24 * > * 22", &[]));
    assert!(never("R 100 Out Deny * * * > 168.63.129.16 *", &[]));
    // A public destination may be a frontend.
    assert!(!never("R 100 In Allow Tcp * * > 20.61.10.5 443", &[]));
    assert!(!never("R 100 In Allow Tcp * * > 10.224.0.0/16 443", &[]));
    assert!(!never("R 100 In Allow Tcp Undefined * > * 443", &[]));
}

#[test]
fn ssh_is_open_however_the_internet_is_written() {
    for (source, port, is_open) in [
        ("*", "22", true),
        ("0.0.0.0/0", "22", true),
        ("1.2.3.4/0", "20-30", true),
        ("Internet", "*", true),
        ("0.0.0.0/1", "22", true),
        ("::/0", "22", true),
        ("10.0.0.0/8", "22", false),
        ("203.0.113.0/24", "22", false),
        ("VirtualNetwork", "22", false),
        ("*", "23", false),
    ] {
        let rule = format!("R 100 In Allow Tcp {source} * > * {port}");
        let issues = found(&[&rule], &[]);
        assert_eq!(
            issues.contains(&"open-ssh R".to_owned()),
            is_open,
            "{rule}: {issues:?}"
        );
    }
    let denied = ["D 100 In Deny * * * > * 22", "R 110 In Allow Tcp * * > * *"];
    let issues = found(&denied, &[]);
    assert!(
        !issues.iter().any(|issue| issue.starts_with("open-ssh")),
        "{issues:?}"
    );
    assert!(issues.contains(&"open-rdp R".to_owned()), "{issues:?}");
    // With a default route the default rule itself lets the Internet in.
    let routed = found(&[], &["VirtualNetwork=0.0.0.0/0"]);
    assert!(
        routed.contains(&"open-ssh AllowVnetInBound".to_owned()),
        "{routed:?}"
    );
}

#[test]
fn what_nodes_need_is_missed_only_where_a_rule_denies_it() {
    check(&[], &[]);
    check(&["Ssh 100 In Deny Tcp * * > * 22"], &[]);
    check(
        &["All 4096 In Deny * * * > * *"],
        &["nodes-blocked All", "probes-blocked All"],
    );
    check(
        &[
            "Lb 100 In Allow Tcp AzureLoadBalancer * > * *",
            "All 4096 In Deny * * * > * *",
        ],
        &["nodes-blocked All"],
    );
    let options = Options {
        pods: vec!["10.244.0.0/16".parse().expect("a range")],
        ..Options::default()
    };
    let issues = lint(&subnet(&[], &names(&[])), &options);
    let rules: Vec<_> = issues.iter().map(|issue| &*issue.rule).collect();
    assert_eq!(rules, ["DenyAllInBound", "DenyAllOutBound"]);
}

#[test]
fn what_cannot_be_looked_through_is_not_blamed_for_what_a_later_rule_allows() {
    let profile = |extent: &str| {
        let text = format!(
            "name = \"p\"\n[[need]]\nname = \"n\"\ndirection = \"Inbound\"\n\
             protocols = [\"TCP\"]\nfrom = [\"10.224.0.0/16\"]\nto = [\"10.225.0.0/16\"]\n\
             ports = [\"0-127\"]\nextent = \"{extent}\"\nwhy = \"w\"\nsource = \"s\"\n"
        );
        Profile::parse(&text).expect("a profile")
    };
    // Those with a bit set, of each field: what is left has four times as many pieces each time.
    let rules: Vec<_> = (0..7)
        .map(|bit| {
            let set = || (0..128_u32).filter(move |number| number >> bit & 1 == 1);
            let list = |prefix: &str, suffix: &str| {
                let members = set().map(|number| format!("{prefix}{number}{suffix}"));
                members.collect::<Vec<_>>().join(",")
            };
            format!(
                "D{bit} {} In Deny Tcp {} {} > {} {}",
                110 + bit,
                list("10.224.", ".0/24"),
                list("", ""),
                list("10.225.", ".0/24"),
                list("", "")
            )
        })
        .collect();
    let blocked = |extent: &str, last: &str| {
        let mut rules: Vec<_> = rules.iter().map(String::as_str).collect();
        rules.push(last);
        let names = names(&[]);
        let chain = subnet(&rules, &names);
        let needs = profile(extent).resolve(&names, chain.network(), &[]);
        let issues = lint::blocked(&chain, &needs);
        issues
            .iter()
            .map(|issue| issue.rule.clone())
            .collect::<Vec<_>>()
    };
    let allow = "Allow 200 In Allow Tcp * * > * *";
    assert_eq!(blocked("some", allow), [""; 0]);
    // Each takes a part of it.
    assert_eq!(blocked("all", allow)[..2], ["D0", "D1"]);
    let deny = "Deny 100 In Deny Tcp * * > * *";
    assert_eq!(blocked("some", deny), ["Deny"]);
}

#[test]
fn suggestions_name_priorities_that_there_are() {
    let said = |rules: &[&str], check: lint::Check| {
        let chain = subnet(rules, &names(&[]));
        let mut issues = lint::lint(&chain, &Options::default()).into_iter();
        let issue = issues.find(|issue| issue.check == check);
        issue.expect("an issue").suggestion
    };
    let probes = lint::Check::ProbesBlocked;
    let deny = |priority: u16| format!("No {priority} In Deny Tcp AzureLoadBalancer * > * *");
    assert_eq!(
        said(&[&deny(300)], probes),
        "allow it by a rule before this one: one whose priority number is below 300"
    );
    // Azure has none below 100.
    assert_eq!(
        said(&[&deny(100)], probes),
        "allow it by a rule before this one, whose priority number 100 is the lowest there is: give \
         it a higher one first"
    );
    let shadowed = said(
        &[
            "All 100 In Deny Tcp * * > * *",
            "Web 110 In Allow Tcp * * > * 443",
        ],
        lint::Check::Shadowed,
    );
    assert_eq!(
        shadowed,
        "it would allow, and at least one of them does otherwise: if it is to have effect, give it a \
         lower priority number than theirs; else remove it"
    );
}
