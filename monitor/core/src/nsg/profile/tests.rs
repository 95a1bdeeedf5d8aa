//! Profiles.

use super::*;
use crate::nsg::{
    lint::{self, Options, Unchecked, lint},
    tests::fixture::{names, subnet, tuple},
};

#[test]
fn the_built_in_profile_is_valid_and_explains_itself() {
    let profile = Profile::aks();
    assert_eq!(profile.name, "aks");
    for need in &profile.needs {
        assert!(
            !need.why.is_empty() && !need.source.is_empty(),
            "{}",
            need.name
        );
    }
    let checks: Vec<_> = Profile::basic()
        .needs
        .iter()
        .filter_map(|need| need.check)
        .collect();
    assert_eq!(
        checks,
        [
            Check::NodesBlocked,
            Check::NodesBlocked,
            Check::ProbesBlocked
        ]
    );
}

#[test]
fn a_profile_may_change_the_built_in_one() {
    let text = r#"
        name = "mine"
        extends = "aks"
        [[need]]
        name = "time"
        omit = true
        [[need]]
        name = "api-server"
        direction = "Outbound"
        protocols = ["TCP"]
        from = ["nodes"]
        to = ["20.61.9.9"]
        ports = ["443"]
        why = "our API server"
        [[need]]
        name = "backup"
        direction = "Outbound"
        protocols = ["TCP", "SCTP"]
        from = ["nodes"]
        to = ["10.9.0.0/16"]
        ports = ["8443", "9000-9010"]
        why = "our backup"
    "#;
    let profile = Profile::parse(text).expect("valid");
    let why = |name: &str| {
        let need = profile.needs.iter().find(|need| &*need.name == name);
        need.map(|need| need.why.as_str())
    };
    assert_eq!(why("time"), None);
    assert_eq!(why("api-server"), Some("our API server"));
    assert_eq!(why("backup"), Some("our backup"));
    assert!(why("https").is_some());
    assert_eq!(profile.needs.len(), Profile::aks().needs.len());
}

#[test]
fn a_bad_profile_is_refused_with_line_need_and_field() {
    let need = |field: &str| {
        let fields = [
            "direction = \"Outbound\"",
            "protocols = [\"TCP\"]",
            "from = [\"nodes\"]",
            "to = [\"Internet\"]",
            "ports = [\"443\"]",
            "why = \"x\"",
        ];
        let name = field.split(' ').next().unwrap_or_default();
        let others = fields.iter().filter(|other| !other.starts_with(name));
        let others: Vec<_> = others.copied().collect();
        format!(
            "name = \"p\"\n[[need]]\nname = \"n\"\n{}\n{field}\n",
            others.join("\n")
        )
    };
    for (text, message) in [
        ("name = 1".to_owned(), "1: "),
        (
            "name = \"p\"\nneeds = []".to_owned(),
            "2: unknown field `needs`",
        ),
        (
            "name = \"p\"\nextends = \"eks\"".to_owned(),
            "line 2: extends `eks`: there is only aks",
        ),
        (
            need("ports = [\"9-1\"]"),
            "line 2: need `n`: field `ports`: the range of ports `9-1` is reversed",
        ),
        (
            need("to = [\"10.0.0.0/99\"]"),
            "need `n`: field `to`: `10.0.0.0/99` is not",
        ),
        (
            need("why = \"\""),
            "need `n`: field `why`: is missing or empty",
        ),
        (need("direction = \"Both\""), "unknown variant `Both`"),
        (
            format!(
                "{}\n[[need]]\nname = \"n\"\nomit = true",
                need("ports = [\"1\"]")
            ),
            "line 11: need `n`: field `name`: is that of another need",
        ),
        (
            "name = \"p\"\nextends = \"aks\"\n\n[[need]]\nname = \"tme\"\nomit = true".to_owned(),
            "line 4: need `tme`: field `omit`: there is no need of this name to omit",
        ),
        (
            "name = \"p\"\n[[need]]\nname = \"time\"\nomit = true".to_owned(),
            "line 2: need `time`: field `omit`: there is no need",
        ),
        (
            need("port = [\"1\"]"),
            "unknown field `port`, expected one of `name`, `omit`, `check`, `direction`, \
             `protocols`, `from`, `to`, `ports`, `extent`, `why`, `source`",
        ),
        (
            "name = \"p\"\nneed = 3".to_owned(),
            "line 2: invalid type: integer `3`, expected a sequence",
        ),
        (
            "name = \"p\"\nneed = [3]".to_owned(),
            "line 2: invalid type: integer `3`, expected a need: a table",
        ),
    ] {
        let error = Profile::parse(&text).expect_err(message).to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

/// Check, rule and reason of what a profile finds blocked.
fn blocked(rules: &[&str], tags: &[&str]) -> Vec<String> {
    let names = names(tags);
    let chain = subnet(rules, &names);
    let needs = Profile::aks().resolve(&names, chain.network(), &[]);
    let issues = lint::blocked(&chain, &needs);
    let line = |issue: &lint::Issue| format!("{} {}: {}", issue.check, issue.rule, issue.why);
    issues.iter().map(line).collect()
}

#[test]
fn rules_that_take_away_what_aks_needs_are_found() {
    let no_tags: &[&str] = &[];
    assert_eq!(blocked(&[], no_tags), [""; 0]);
    // Nothing but the virtual network is left.
    let closed = "NoInternet 200 Out Deny * * * > Internet *";
    let found = blocked(&[closed], no_tags);
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("need-blocked NoInternet: denies all of HTTPS")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|line| line.contains("(need `time`)")),
        "{found:?}"
    );
    // Some of it suffices: the addresses are known by name only.
    let firewall = [
        "Some 100 Out Allow Tcp * * > 20.0.0.0/8 443",
        "Ntp 110 Out Allow Udp * * > * 123",
        closed,
    ];
    assert_eq!(blocked(&firewall, no_tags), [""; 0]);
    // Where the API server is, all of it must be reached.
    let api = ["ApiServer=20.61.9.9,52.1.1.1"];
    let found = blocked(&firewall, &api);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("need `api-server`"), "{found:?}");
    // A platform service is stopped by its tag only.
    let found = blocked(&["All 4096 Out Deny * * * > 168.63.129.16 *"], no_tags);
    assert_eq!(found, [""; 0]);
    let found = blocked(&["NoDns 100 Out Deny * * * > AzurePlatformDNS *"], no_tags);
    assert!(found[0].contains("(need `dns`)"), "{found:?}");
}

#[test]
fn a_need_of_what_nobody_has_defined_is_said_to_be_unchecked() {
    let names = names(&[]);
    let chain = subnet(&[], &names);
    let needs = Profile::aks().resolve(&names, chain.network(), &[]);
    assert_eq!(
        Unchecked::sentences(&needs.unchecked),
        [
            "need-blocked (`api-server`): not checked, ApiServer is not defined: give --tag \
             ApiServer=CIDR,…"
        ]
    );
    let bare = Profile::aks().resolve(&Names::default(), None, &[]);
    assert_eq!(
        Unchecked::sentences(&bare.unchecked),
        [
            "need-blocked (`api-server`, `https`, `dns`, `instance-metadata`, `time`), \
             nodes-blocked, probes-blocked: not checked, VirtualNetwork is not defined: give \
             --virtual-network CIDR, or effective rules (--effective FILE)"
        ]
    );
}

#[test]
fn a_part_of_a_need_that_nobody_has_defined_is_said_to_be_unchecked_too() {
    let pods = ["10.244.0.0/16".parse().expect("a range")];
    let bare = Profile::basic().resolve(&Names::default(), None, &pods);
    let found = Unchecked::sentences(&bare.unchecked);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("nodes-blocked, probes-blocked: not checked, VirtualNetwork"),
        "{found:?}"
    );
}

#[test]
fn flows_are_of_the_need_that_names_them() {
    let names = names(&["ApiServer=20.61.9.9"]);
    let chain = subnet(&[], &names);
    let needs = Profile::aks().resolve(&names, chain.network(), &[]);
    let of = |flow: &str| needs.of(&tuple(flow)).map(|need| need.name.to_string());
    for (flow, need) in [
        ("Out Tcp 10.224.0.4#1 > 20.61.9.9#443", Some("api-server")),
        ("Out Tcp 10.224.0.4#1 > 20.61.9.8#443", Some("https")),
        ("Out Tcp 10.224.0.4#1 > 20.61.9.8#80", None),
        ("Out Udp 10.224.0.4#1 > 20.61.9.8#123", Some("time")),
        ("Out Udp 10.224.0.4#1 > 168.63.129.16#53", Some("dns")),
        (
            "In Tcp 168.63.129.16#1 > 10.224.0.4#30080",
            Some("load-balancer-probes"),
        ),
        ("In Tcp 203.0.113.9#1 > 10.224.0.4#30080", None),
        (
            "In Tcp 10.224.0.5#1 > 10.224.0.4#10250",
            Some("nodes-and-pods-inbound"),
        ),
        ("In Tcp 10.224.0.5#1 > 10.224.0.4#22", None),
    ] {
        assert_eq!(of(flow).as_deref(), need, "{flow}");
    }
}

#[test]
fn rules_of_the_load_balancer_are_known_by_their_names() {
    use crate::nsg::Maker;
    let hash = "0123456789abcdef0123456789abcdef";
    for (name, is_known) in [
        (format!("k8s-azure-lb_allow_IPv4_{hash}"), true),
        (format!("K8S-AZURE-LB_ALLOW_ipv6_{hash}"), true),
        ("k8s-azure-lb_deny-all_IPv4".to_owned(), true),
        (format!("k8s-azure-lb_allow_IPv5_{hash}"), false),
        ("k8s-azure-lb_allow_IPv4_mine".to_owned(), false),
        ("k8s-azure-lb_deny-all_IPv4_x".to_owned(), false),
        ("AllowHttps".to_owned(), false),
    ] {
        let known = is_known.then_some(Maker::AksLoadBalancer);
        assert_eq!(Maker::of(&name), known, "{name}");
    }
    let rule =
        format!("k8s-azure-lb_allow_IPv4_{hash} 500 In Allow Tcp Internet * > 20.61.10.5 22");
    let issues = lint(&subnet(&[&rule], &names(&[])), &Options::default());
    let issue = issues
        .iter()
        .find(|issue| issue.check == Check::OpenSsh)
        .expect("open");
    assert_eq!(issue.made_by, Some(Maker::AksLoadBalancer));
    assert!(
        issue.suggestion.contains("change the Service"),
        "{}",
        issue.suggestion
    );
}
