//! Every shape gives the same rules.

mod template;

use serde_json::{Map, Value, json};

use super::fixture::{check, check_unknown, document, names, refusal};
use crate::nsg::{
    Chain, LevelKind, Levels, Nsg, Origin, Rule,
    read::{self, Document},
};

const REST: &str = include_str!("../testdata/snet-nodes-nsg.rest.json");
const CLI: &str = include_str!("../testdata/aks-managed-nic-nsg.cli.json");
const LIST: &str = include_str!("../testdata/nsg-list.cli.json");
const TEMPLATE: &str = include_str!("../testdata/aks-network.template.json");
const EFFECTIVE: &str = include_str!("../testdata/node-nic-effective.cli.json");

fn parse(text: &str) -> Document {
    read::read("file.json", text).expect("a valid document")
}

fn one(text: &str) -> Nsg {
    parse(text)
        .choose(None, LevelKind::Subnet)
        .expect("one group")
}

fn names_of(nsg: &Nsg) -> Vec<&str> {
    nsg.rules.iter().map(|rule| &*rule.name).collect()
}

#[test]
fn a_rest_resource_is_read() {
    let nsg = one(REST);
    assert_eq!(&*nsg.name, "nsg-snet-nodes");
    assert_eq!(
        names_of(&nsg),
        [
            "AllowSshFromBastion",
            "DenySsh",
            "AllowWebFromInternet",
            "AllowKubeletFromApiServer",
            "AllowVnetInBound",
            "AllowAzureLoadBalancerInBound",
            "DenyAllInBound",
            "AllowControlPlaneTunnel",
            "AllowRegistry",
            "AllowNtp",
            "DenySmtp",
            "DenyInternetOut",
            "AllowVnetOutBound",
            "AllowInternetOutBound",
            "DenyAllOutBound",
        ]
    );
    let kubelet = &nsg.rules[3];
    assert_eq!(kubelet.source.len(), 2);
    assert_eq!(kubelet.destination_ports.to_string(), "10250,30000-32767");
}

#[test]
fn a_cli_document_is_read() {
    let nsg = one(CLI);
    assert_eq!(&*nsg.name, "aks-agentpool-27418563-nsg");
    let user = nsg.rules.iter().filter(|rule| rule.origin == Origin::User);
    let texts: Vec<_> = user
        .map(|rule| format!("{} {}", rule.priority, rule.destination[0]))
        .collect();
    assert_eq!(
        texts,
        [
            "400 group asg-aks-gamepool",
            "500 20.61.10.5",
            "501 20.61.10.6",
            "502 20.61.10.7",
            "4095 20.61.10.6"
        ]
    );
}

#[test]
fn a_list_needs_a_choice() {
    let names = |result: Result<Nsg, read::ReadError>| result.map(|nsg| nsg.name.to_string());
    let choose = |name| names(parse(LIST).choose(name, LevelKind::Nic));
    assert_eq!(
        choose(Some("NSG-snet-nodes")).as_deref(),
        Ok("nsg-snet-nodes")
    );
    let error = choose(None).expect_err("two groups").to_string();
    assert_eq!(
        error,
        "file.json: has several groups, choose one as FILE#NAME: aks-agentpool-27418563-nsg, nsg-snet-nodes"
    );
    let error = choose(Some("x\u{1b}"))
        .expect_err("no such group")
        .to_string();
    assert!(
        error.contains(r"has no group `x\u{1b}`, only aks-agentpool"),
        "{error}"
    );
}

#[test]
fn the_group_of_a_list_is_the_group_alone() {
    let from_list = parse(LIST).choose(Some("nsg-snet-nodes"), LevelKind::Subnet);
    assert_eq!(from_list.expect("a group"), one(REST));
}

#[test]
fn a_template_is_read_with_child_resources_and_parameters() {
    let nsg = one(TEMPLATE);
    let user: Vec<_> = nsg
        .rules
        .iter()
        .filter(|rule| rule.origin == Origin::User)
        .map(|rule| {
            format!(
                "{} {} {} > {}",
                rule.priority, rule.name, rule.source[0], rule.destination[0]
            )
        })
        .collect();
    assert_eq!(
        user,
        [
            "100 AllowSshFromBastion 10.225.0.0/26 > 10.224.0.0/16",
            "105 AllowSshFromParam 10.225.0.0/26 > *",
            "110 DenySsh * > *",
            "200 AllowWebFromInternet Internet > *",
            "210 AllowKubeletFromApiServer 10.226.0.0/28 > 10.224.0.0/16",
            "220 AllowIngressAsg AzureFrontDoor.Backend > group asg-ingress",
            "4096 DenyInternetOut * > Internet",
        ]
    );
}

#[test]
fn an_expression_without_a_value_is_refused_never_a_tag() {
    let text = TEMPLATE.replace("\"defaultValue\": \"10.225.0.0/26\"", "\"metadata\": {}");
    let error = read::read("t.json", &text)
        .expect_err("no default")
        .to_string();
    assert_eq!(
        error,
        "t.json:143: rule `AllowSshFromParam`: field `sourceAddressPrefix`: template expression \
         `[parameters('bastionCidr')]` has no literal value: give its parameter a defaultValue, \
         or use the deployed group"
    );
    let mut rest = document(&["R 100 In Allow Tcp * * > * 22"]);
    rest["properties"]["securityRules"][0]["properties"]["access"] = json!("[parameters('a')]");
    assert!(refusal(&rest).contains("template expression"));
}

#[test]
fn effective_rules_are_read_with_their_places() {
    let levels = parse(EFFECTIVE).into_levels().expect("levels");
    let (subnet, nic) = (
        levels.subnet.clone().expect("subnet"),
        levels.nic.clone().expect("nic"),
    );
    assert_eq!(
        (&*subnet.name, &*nic.name),
        ("nsg-snet-nodes", "aks-agentpool-27418563-nsg")
    );
    assert_eq!(names_of(&subnet), names_of(&one(REST)));
    assert_eq!(names_of(&nic), names_of(&one(CLI)));
    // `FILE` of one place chooses that place's group.
    assert_eq!(parse(EFFECTIVE).choose(None, LevelKind::Nic), Ok(nic));
    // Nothing needs to be declared: the virtual network is expanded in it.
    let chain = Chain::new(levels, &crate::nsg::Names::default());
    check(
        &chain,
        "In Tcp 198.51.100.77#1 > 10.224.0.4#22",
        "Deny subnet DenySsh",
    );
    check(
        &chain,
        "In Tcp 10.225.9.9#1 > 10.224.0.4#8080",
        "Allow nic AllowVnetInBound",
    );
    check(
        &chain,
        "In Tcp 203.0.113.9#1 > 20.61.10.5#443",
        "Allow nic k8s-azure-lb_allow_IPv4_556f7044ec033071ec0dfcf7cd85bc93",
    );
    check(
        &chain,
        "Out Tcp 10.224.0.4#1 > 10.10.10.10#80",
        "Deny nic DenyAllOutBound",
    );
    // A gap of the printed list for Internet.
    check(
        &chain,
        "Out Tcp 10.224.0.4#1 > 4.128.0.1#80",
        "Deny nic DenyAllOutBound",
    );
}

#[test]
fn any_in_effective_rules_is_any_and_single_ports_read_both_ways() {
    let effective = |ports: &str| {
        json!({"effectiveSecurityRules": [{
            "name": "UserRule_Ssh", "protocol": "All", "access": "Allow", "priority": 100,
            "direction": "Inbound", "sourceAddressPrefix": "0.0.0.0/0",
            "sourceAddressPrefixes": ["0.0.0.0/0", "0.0.0.0/0"], "sourcePortRange": "0-65535",
            "sourcePortRanges": ["0-65535"], "destinationAddressPrefix": "0.0.0.0/0",
            "destinationPortRange": ports, "destinationPortRanges": [ports],
        }]})
        .to_string()
    };
    let mut expected = super::fixture::nsg(&["Ssh 100 In Allow * * * > * 22"]);
    expected.name = "effective".into();
    assert_eq!(one(&effective("22-22")), expected);
    assert_eq!(one(&effective("22")), expected);
}

/// Writes rules as another shape would.
fn flat(rule: &Rule) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("name", json!(&*rule.name));
    put("priority", json!(rule.priority));
    put("direction", json!(rule.direction.name()));
    put("access", json!(rule.access.name()));
    put("protocol", json!(rule.protocol.name()));
    for (side, addresses, ports) in [
        ("source", &rule.source, &rule.source_ports),
        ("destination", &rule.destination, &rule.destination_ports),
    ] {
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        if let Some(group) = texts[0].strip_prefix("group ") {
            put(
                &format!("{side}ApplicationSecurityGroups"),
                json!([{"id": format!("/x/{group}")}]),
            );
            put(&format!("{side}AddressPrefixes"), json!([]));
        } else if texts.len() == 1 {
            put(&format!("{side}AddressPrefix"), json!(texts[0]));
        } else {
            put(&format!("{side}AddressPrefix"), Value::Null);
            put(&format!("{side}AddressPrefixes"), json!(texts));
        }
        let ports = ports.to_string();
        put(
            &format!("{side}PortRanges"),
            json!(ports.split(',').collect::<Vec<_>>()),
        );
    }
    object
}

fn pascal(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| (key[..1].to_uppercase() + &key[1..], pascal(value)))
            .collect(),
        Value::Array(items) => items.iter().map(pascal).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_shape_reads_back_to_the_same_rules() {
    for nsg in [one(REST), one(CLI), one(TEMPLATE)] {
        let rules = |origin: Origin| {
            let rules = nsg.rules.iter().filter(move |rule| rule.origin == origin);
            rules.map(flat).collect::<Vec<_>>()
        };
        let (user, default) = (rules(Origin::User), rules(Origin::Default));
        let nested = |rules: &[Map<String, Value>]| -> Vec<Value> {
            let rules = rules
                .iter()
                .map(|rule| json!({"name": rule["name"], "properties": rule}));
            rules.collect()
        };
        let name = json!(&*nsg.name);
        let kind = "Microsoft.Network/networkSecurityGroups";
        let cli = json!({"name": name, "securityRules": user, "defaultSecurityRules": default});
        let rest = json!({"name": name, "type": kind, "properties":
            {"securityRules": nested(&user), "defaultSecurityRules": nested(&default)}});
        let children = user.iter().map(|rule| {
            let full = format!("{}/{}", nsg.name, rule["name"].as_str().expect("a name"));
            json!({"name": full, "type": format!("{kind}/securityRules"), "properties": rule})
        });
        let group = json!({"name": name, "type": kind, "properties": {}});
        let template =
            json!({"resources": std::iter::once(group).chain(children).collect::<Vec<_>>()});
        let effective = user.iter().map(|rule| ("securityRules", rule));
        let effective = effective.chain(default.iter().map(|rule| ("defaultSecurityRules", rule)));
        let effective: Vec<_> = effective
            .map(|(prefix, rule)| {
                let mut rule = rule.clone();
                rule["name"] = json!(format!(
                    "{prefix}/{}",
                    rule["name"].as_str().expect("a name")
                ));
                if rule["protocol"] == "*" {
                    rule["protocol"] = json!("All");
                }
                for key in ["sourceAddressPrefix", "destinationAddressPrefix"] {
                    if rule.get(key).is_some_and(|value| value == "*") {
                        rule[key] = json!("0.0.0.0/0");
                    }
                }
                rule
            })
            .collect();
        let effective = json!({"value": [{"networkSecurityGroup": {"id": format!("/x/{}", nsg.name)},
            "association": {"subnet": {"id": "/s"}}, "effectiveSecurityRules": effective}]});
        let shapes = [
            &cli,
            &rest,
            &template,
            &effective,
            &json!([cli]),
            &json!({"value": [rest]}),
            &pascal(&cli),
            &pascal(&effective),
        ];
        for shape in shapes {
            assert_eq!(one(&shape.to_string()), nsg, "{shape}");
        }
    }
}

#[test]
fn powershell_prints_lists_in_singular_fields() {
    let text = json!({"Name": "g", "SecurityRules": [{
        "Name": "R", "Protocol": "TCP", "SourcePortRange": ["*"], "DestinationPortRange": ["22", "80"],
        "SourceAddressPrefix": ["Internet"], "DestinationAddressPrefix": ["10.0.0.1", "10.0.0.2"],
        "Access": "ALLOW", "Priority": 100, "Direction": "inbound",
    }], "DefaultSecurityRules": []});
    let nsg = one(&text.to_string());
    assert_eq!(nsg.rules[0].source[0].to_string(), "Internet");
    assert_eq!(nsg.rules[0].destination.len(), 2);
    assert_eq!(nsg.rules[0].destination_ports.to_string(), "22,80");
}

#[test]
fn what_is_no_document_with_groups_is_refused() {
    for sample in [
        include_str!("../testdata/ip-flow-verify.json"),
        include_str!("../testdata/nsg-diagnostics.json"),
        include_str!("../testdata/nsg-flow-log-v2.PT1H.json"),
        include_str!("../testdata/vnet-flow-log.PT1H.json"),
        include_str!("../testdata/service-tags-public.sample.json"),
        "{}",
        "[]",
        "null",
        "3",
        "\"x\"",
        "[3]",
        r#"{"value": []}"#,
        r#"{"name": "x"}"#,
    ] {
        let error = read::read("f.json", sample).expect_err(sample).to_string();
        assert!(error.contains("no network security group"), "{error}");
    }
    for sample in [
        include_str!("../testdata/snet-nodes.bicep"),
        include_str!("../testdata/snet-nodes.tf"),
        "",
    ] {
        let error = read::read("f.tf", sample).expect_err(sample).to_string();
        assert!(error.contains("not readable as JSON"), "{error}");
    }
    let error = refusal(&json!({"type": "Microsoft.Network/loadBalancers", "properties": {}}));
    assert!(
        error.contains("`Microsoft.Network/loadBalancers` is not a network security group"),
        "{error}"
    );
    let paged = json!({"value": [document(&[])], "nextLink": "https://x"});
    assert!(refusal(&paged).contains("field `nextLink`: only the first page"));
}

#[test]
fn a_manager_association_is_admin_rules() {
    let rule = |access: &str| {
        json!({"name": "A", "protocol": "Tcp", "access": access, "priority": 5, "direction": "Inbound",
            "sourceAddressPrefix": "*", "destinationAddressPrefix": "*", "destinationPortRange": "22"})
    };
    let document = json!({"value": [
        {"association": {"networkManager": {"id": "/m"}}, "effectiveSecurityRules": [rule("AlwaysAllow")]},
    ]});
    let levels = parse(&document.to_string()).into_levels().expect("levels");
    let levels = Levels {
        subnet: Some(super::fixture::nsg(&[])),
        ..levels
    };
    check(
        &Chain::new(levels, &names(&[])),
        "In Tcp 203.0.113.9#1 > 10.224.0.4#22",
        "Allow admin A",
    );
    let not = parse(REST)
        .into_levels()
        .expect_err("not effective")
        .to_string();
    assert!(not.contains("list-effective-nsg"), "{not}");
}

#[test]
fn a_template_group_with_an_undefined_group_stays_open() {
    let levels = Levels {
        subnet: Some(one(TEMPLATE)),
        ..Levels::default()
    };
    let chain = Chain::new(levels, &names(&["AzureFrontDoor.Backend=13.73.248.16/29"]));
    // Before it, a rule of another source: it does not hold this address for certain only.
    check(
        &chain,
        "In Tcp 13.73.248.17#1 > 10.224.0.7#443",
        "Allow subnet AllowWebFromInternet",
    );
    check_unknown(
        &Chain::new(
            Levels {
                subnet: Some(super::fixture::nsg(&["R 100 In Allow Tcp * * > asg:a 1"])),
                ..Levels::default()
            },
            &names(&[]),
        ),
        "In Tcp 203.0.113.9#1 > 10.224.0.7#1",
        "group a",
    );
}
