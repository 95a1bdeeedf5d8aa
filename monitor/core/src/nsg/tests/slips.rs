//! Keys that are there twice, and fields that are misspelt: a rule that is not what it was meant to
//! be does not pass unnoticed.

use serde_json::json;

use super::fixture::{document, nsg};
use crate::nsg::read::{self, ReadError, read_admin_rules};

fn refused(text: &str) -> String {
    read::read("nsg.json", text)
        .expect_err("refused")
        .to_string()
}

#[test]
fn a_key_that_is_there_twice_refuses_the_document() {
    let text = include_str!("../testdata/snet-nodes-nsg.rest.json");
    // Readers that take the last one would see a rule for everybody.
    let twice = text.replacen(
        "\"access\": \"Allow\",",
        "\"access\": \"Allow\",\n\"sourceAddressPrefix\": \"*\",",
        1,
    );
    let error = refused(&twice);
    let line = 1 + twice
        .lines()
        .position(|line| line.contains("sourceAddressPrefix\": \"*\""))
        .expect("there");
    let again = 1
        + line
        + twice
            .lines()
            .skip(line)
            .position(|line| line.contains("sourceAddressPrefix\""))
            .expect("there");
    let lines = [line, again].map(|line| {
        format!(
            "nsg.json:{line}: rule `AllowSshFromBastion`: field `sourceAddressPrefix`: is there twice"
        )
    });
    assert!(
        lines.iter().any(|line| error.starts_with(line.as_str())),
        "{error}: {lines:?}"
    );
    let rule = r#"{"name":"A","priority":1,"direction":"Inbound","access":"Deny","protocol":"Tcp","destinationPortRange":"22","destinationPortRange":"23"}"#;
    let admin = read_admin_rules("a.json", &format!("[{rule}]")).expect_err("twice");
    assert_eq!(
        admin.to_string(),
        "a.json:1: rule `A`: field `destinationPortRange`: is there twice, and only one of both can be meant"
    );
    let group = r#"{"name":"g","securityRules":[],"securityRules":[]}"#;
    assert_eq!(
        refused(group),
        "nsg.json:1: field `securityRules`: is there twice, and only one of both can be meant"
    );
    // The same key in two objects is as it should be.
    nsg(&[
        "A 100 In Allow Tcp * * > * 22",
        "B 110 In Deny Tcp * * > * 22",
    ]);
}

#[test]
fn names_that_users_give_are_no_slips() {
    let template = json!({
        "parameters": {"securityRule": {"type": "string", "defaultValue": "Tcp"}},
        "variables": {"Security-Rules": "22"},
        "resources": [{"type": "Microsoft.Network/networkSecurityGroups", "name": "g",
            "tags": {"security-rules": "strict", "priority": "1", "access": "all", "prorities": "x"},
            "properties": {"securityRules": [{"name": "A", "properties": {"priority": 100,
                "direction": "Inbound", "access": "Allow", "protocol": "[parameters('securityRule')]",
                "sourceAddressPrefix": "*", "destinationAddressPrefix": "*",
                "destinationPortRange": "[variables('Security-Rules')]"}}]}}],
        "outputs": {"securityRule": {"type": "string", "value": "x"}},
    });
    let read = read::read("nsg.json", &template.to_string()).expect("valid");
    assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    let ports = &read.groups[0].nsg.rules[0].destination_ports;
    assert_eq!(ports.to_string(), "22");
}

#[test]
fn whether_connections_are_flushed_is_read_in_every_shape() {
    let kind = "Microsoft.Network/networkSecurityGroups";
    for flushes in [true, false] {
        for shape in [
            json!({"name": "g", "securityRules": [], "flushConnection": flushes}),
            json!({"name": "g", "properties": {"securityRules": [], "flushConnection": flushes}}),
            json!({"resources": [{"type": kind, "name": "g",
                "properties": {"securityRules": [], "FlushConnection": flushes}}]}),
        ] {
            let read = read::read("nsg.json", &shape.to_string()).expect("valid");
            assert_eq!(read.groups[0].nsg.flushes, flushes, "{shape}");
        }
    }
    let text = r#"{"name":"g","securityRules":[],"flushConnection":"yes"}"#;
    assert_eq!(
        refused(text),
        "nsg.json:1: field `flushConnection`: must be true or false, not a text (`yes`)"
    );
}

#[test]
fn a_misspelt_field_that_nothing_stands_in_for_refuses_the_document() {
    let mut text = document(&["A 100 In Allow Tcp 10.0.0.0/8 * > * 22"]).to_string();
    text = text.replace("sourcePortRange", "sourcePortRnage");
    assert_eq!(
        refused(&text),
        "nsg.json:1: rule `A`: field `sourcePortRnage`: is not known, and nearly the name of \
         `sourcePortRange`: is that meant?"
    );
    // What an admin rule leaves out it takes for everything.
    let rule = json!([{"name": "A", "priority": 1, "direction": "Inbound", "access": "AlwaysAllow",
        "protocol": "Tcp", "sourceAdressPrefix": "10.0.0.0/8", "destinationPortRange": "22"}]);
    let error = read_admin_rules("a.json", &rule.to_string()).expect_err("misspelt");
    assert!(
        error
            .to_string()
            .starts_with("a.json:1: rule `A`: field `sourceAdressPrefix`: is not known"),
        "{error}"
    );
    // A group whose rules are not found would have its default rules only.
    let group = json!({"name": "g", "type": "Microsoft.Network/networkSecurityGroups",
        "properties": {"securtyRules": []}});
    assert!(
        refused(&group.to_string()).contains("field `securtyRules`: is not known"),
        "{}",
        refused(&group.to_string())
    );
    let priority = document(&["A 100 In Allow Tcp * * > * 22"])
        .to_string()
        .replace("priority", "prioritty");
    assert!(refused(&priority).contains("nearly the name of `priority`"));
}

#[test]
fn a_misspelt_field_beside_the_one_that_is_meant_is_warned_of() {
    let mut document = document(&["A 100 In Allow Tcp 10.0.0.0/8 * > * 22"]);
    let properties = &mut document["properties"]["securityRules"][0]["properties"];
    properties["destinationPortRanges_"] = json!(["443"]);
    properties["sourceAdressPrefixes"] = json!(["10.1.0.0/16"]);
    let read = read::read("nsg.json", &document.to_string()).expect("read");
    let warnings: Vec<_> = read.warnings.iter().map(ReadError::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings
            .iter()
            .all(|warning| warning.starts_with("nsg.json:1: rule `A`: field `"))
    );
}

#[test]
fn fields_that_azure_may_add_are_left_alone() {
    let mut document = document(&["A 100 In Allow Tcp 10.0.0.0/8 * > * 22"]);
    document["properties"]["flushConnection"] = json!(true);
    document["properties"]["securityRules"][0]["properties"]["accessLevelNew"] = json!("x");
    document["properties"]["securityRules"][0]["systemData"] = json!({});
    let read = read::read("nsg.json", &document.to_string()).expect("read");
    assert_eq!(read.warnings, []);
}

#[test]
fn samples_have_no_warnings() {
    for text in [
        include_str!("../testdata/snet-nodes-nsg.rest.json"),
        include_str!("../testdata/aks-managed-nic-nsg.cli.json"),
        include_str!("../testdata/nsg-list.cli.json"),
        include_str!("../testdata/node-nic-effective.cli.json"),
    ] {
        assert_eq!(read::read("sample", text).expect("valid").warnings, []);
    }
}

/// Effective rules of a network manager and of a card.
fn effective() -> serde_json::Value {
    let rule = |name: &str, priority: u16, access: &str| {
        let is_default = priority > 4096;
        let source = if is_default { "0.0.0.0/0" } else { "Corp" };
        let ports = if is_default { "0-65535" } else { "22-22" };
        let expanded = (!is_default).then_some(["203.0.113.0/24"]);
        json!({"name": name, "priority": priority, "direction": "Inbound", "access": access,
            "protocol": "All", "sourceAddressPrefix": source, "sourceAddressPrefixes": [source],
            "expandedSourceAddressPrefix": expanded, "sourcePortRange": "0-65535",
            "destinationAddressPrefix": "0.0.0.0/0", "destinationPortRange": ports})
    };
    json!({"value": [
        {"association": {"networkManager": {"id": "/x/networkManagers/avnm"}},
         "effectiveSecurityRules": [rule("securityRules/AdminSsh", 10, "AlwaysAllow")]},
        {"association": {"networkInterface": {"id": "/x/networkInterfaces/nic"}},
         "networkSecurityGroup": {"id": "/x/networkSecurityGroups/nic-nsg"},
         "effectiveSecurityRules": [
            rule("defaultDenySsh", 100, "Deny"), rule("DefaultRule_DenyAllInBound", 65500, "Deny"),
            rule("DefaultInboundDenyAll", 65501, "Deny")]},
    ]})
}

#[test]
fn admin_rules_of_effective_documents_are_expanded_like_the_others() {
    use crate::nsg::{Chain, Names, Origin};
    let levels = read::read("e.json", &effective().to_string())
        .expect("valid")
        .into_levels()
        .expect("effective");
    let admin = &levels.admin.as_ref().expect("admin rules").rules[0];
    assert_eq!((&*admin.name, admin.origin), ("AdminSsh", Origin::Admin));
    assert_eq!(admin.destination[0].to_string(), "*");
    let chain = Chain::new(levels, &Names::default());
    super::fixture::check(
        &chain,
        "In Tcp 203.0.113.9#1 > 10.224.0.5#22",
        "Allow admin AdminSsh",
    );
    // `0.0.0.0/0` stands for `*` there, so for IPv6 too; the expanded source has none.
    super::fixture::check(
        &chain,
        "In Tcp 2001:db8::1#1 > fd00::1#22",
        "Deny nic DenyAllInBound",
    );
}

#[test]
fn a_rule_of_the_user_may_begin_with_default() {
    use crate::nsg::Origin;
    let levels = read::read("e.json", &effective().to_string())
        .expect("valid")
        .into_levels()
        .expect("effective");
    let rules = levels.nic.expect("a group").rules;
    let origin = |name: &str| {
        let rule = rules.iter().find(|rule| &*rule.name == name);
        rule.map(|rule| rule.origin)
    };
    assert_eq!(origin("defaultDenySsh"), Some(Origin::User));
    assert_eq!(origin("DenyAllInBound"), Some(Origin::Default));
    assert_eq!(origin("DefaultInboundDenyAll"), Some(Origin::Default));
}
